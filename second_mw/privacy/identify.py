"""When a `$identify` is due, and its payload (spec §9). Identified mode only.

It never joins two ids: no `$anon_distinct_id`, no alias, no merge.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, Final

from second_mw.user import AnalyticsUser

#: Said again after this long, in seconds, even if nothing changed (spec §9).
REPEAT_AFTER: Final = 30 * 60.0
#: How many users are remembered; one that fell out is identified once more, which is harmless.
REMEMBERED: Final = 10_000


def claims(user: AnalyticsUser, workspace_id: str | None) -> dict[str, Any]:
    """Return what identified mode says of the user, under the names of an event's properties."""
    said: dict[str, Any] = {"user_id": user.id}
    if user.email:
        said["user_email"] = user.email
    if user.name:
        said["user_name"] = user.name
    if workspace_id is not None:
        said["workspace_id"] = workspace_id
        role = (user.workspaces or {}).get(workspace_id)
        if role is not None:
            said["workspace_role"] = role
    return said


def person_properties(user: AnalyticsUser, workspace_id: str | None) -> dict[str, Any]:
    """Return the `$set` of a `$identify`: email, name, user_id, workspace_id, workspace_role."""
    said = claims(user, workspace_id)
    renamed = {"user_email": "email", "user_name": "name"}
    return {renamed.get(key, key): value for key, value in said.items()}


def hashes_of(person: dict[str, Any]) -> dict[str, int]:
    """Return what is remembered of what was said of a person: no values."""
    return {name: hash(value) for name, value in person.items()}


class Identified:
    """Remembers whom PostHog was told about, under HMACs of their ids; bounded and thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._told: OrderedDict[str, tuple[dict[str, int], float]] = OrderedDict()

    def is_due(self, user_key: str, hashes: dict[str, int], now: float) -> bool:
        """Whether this user was not told of, not lately, or not like this.

        What this event says less of the person, such as no workspace, is no change.

        Args:
            user_key: HMAC of the user's id.
            hashes: `hashes_of` the `$set` that would be sent.
            now: seconds of a clock that does not go back.
        """
        told = self._told.get(user_key)
        if told is None or now - told[1] >= REPEAT_AFTER:
            return True
        # The very same, nearly always.
        return told[0] is not hashes and not hashes.items() <= told[0].items()

    def told(self, user_key: str, hashes: dict[str, int], now: float) -> None:
        """Remember that a `$identify` was taken by the outbox."""
        with self._lock:
            before = self._told.get(user_key)
            if before is not None and not before[0].items() <= hashes.items():
                hashes = {**before[0], **hashes}
            self._told[user_key] = (hashes, now)
            self._told.move_to_end(user_key)
            if len(self._told) > REMEMBERED:
                self._told.popitem(last=False)

    def forget(self, user_key: str) -> None:
        """Forget one user."""
        with self._lock:
            self._told.pop(user_key, None)

    def after_fork(self) -> None:
        """Take a new lock in a forked child."""
        self._lock = Lock()
