"""AnalyticsUser: what the host's resolver says of the person behind a request (spec §2). A leaf."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

#: distinct_ids that PostHog refuses or merges strangers under (posthog-contract.md, v1).
REFUSED_DISTINCT_IDS: Final = frozenset(
    {
        "0",
        "00000000-0000-0000-0000-000000000000",
        "[object object]",
        "anonymous",
        "anonymous-user",
        "backend",
        "distinct_id",
        "distinctid",
        "email",
        "false",
        "guest",
        "id",
        "nan",
        "none",
        "not_authenticated",
        "null",
        "system",
        "true",
        "undefined",
        "user",
    }
)


def user_key(server_key: bytes, user_id: str) -> str:
    """Return what stands for a user in every stored or sent key: never the id itself (spec §1)."""
    return hmac.new(server_key, user_id.encode(errors="replace"), hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user chose under Usage data settings; None where the default was left alone."""

    sharing: bool | None = None
    anonymized: bool | None = None


@dataclass(frozen=True, slots=True, repr=False)
class AnalyticsUser:
    """The authenticated user of a request.

    Args:
        id: a non-empty string. One that can't be a distinct_id (see `can_be_identified`) is kept
            anonymized for good.
        email, name: as the host knows them; used to keep them out of anonymized events, and sent
            in identified mode.
        onboarded: events of a user who is not are refused (403 `not_onboarded`).
        anonymized: False only if the user chose to be identified; None asks the preference store;
            anything else means anonymized.
        sharing: whether the user shares usage data at all; None asks the preference store;
            anything but None and True means no.
        workspaces: workspace id → the user's role in it; None means that the host has no tenancy.
        aliases: further strings that identify this person, such as a login or a customer number.

    Raises:
        TypeError: a field has the wrong type (`id` an int, `aliases` a lone string, …).
        ValueError: `id` or a workspace id is empty.

    >>> AnalyticsUser("u_1", email="ada@example.org", workspaces={"w_1": "admin"})
    AnalyticsUser(…)
    """

    id: str
    email: str | None = None
    name: str | None = None
    onboarded: bool = True
    anonymized: bool | None = None
    sharing: bool | None = None
    workspaces: Mapping[str, str | None] | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise TypeError(
                f"AnalyticsUser.id must be a string, not {type(self.id).__name__}: use str(…)"
            )
        if not self.id.strip():
            raise ValueError("AnalyticsUser.id must not be empty")
        for field in ("email", "name"):
            if not isinstance(getattr(self, field), str | None):
                raise TypeError(f"AnalyticsUser.{field} must be a string or None")
        if isinstance(self.aliases, str) or not all(isinstance(a, str) for a in self.aliases):
            raise TypeError("AnalyticsUser.aliases must be a sequence of strings")
        object.__setattr__(self, "aliases", tuple(self.aliases))
        if self.workspaces is not None:
            if not isinstance(self.workspaces, Mapping):
                raise TypeError("AnalyticsUser.workspaces must map workspace ids to roles, or None")
            for workspace, role in self.workspaces.items():
                if not isinstance(workspace, str) or not isinstance(role, str | None):
                    raise TypeError("AnalyticsUser.workspaces must map strings to strings or None")
                if not workspace:
                    raise ValueError("AnalyticsUser.workspaces has an empty workspace id")
            object.__setattr__(self, "workspaces", MappingProxyType(dict(self.workspaces)))

    def __repr__(self) -> str:
        # A user must be printable in a log line without naming the person (spec §15).
        return "AnalyticsUser(…)"

    def __reduce__(self) -> tuple[type[AnalyticsUser], tuple[object, ...]]:
        # Hosts keep users in sessions and caches, and a read-only mapping can't be pickled.
        workspaces = None if self.workspaces is None else dict(self.workspaces)
        fields = (self.id, self.email, self.name, self.onboarded, self.anonymized, self.sharing)
        return AnalyticsUser, (*fields, workspaces, self.aliases)

    def __hash__(self) -> int:
        return hash((self.id, self.email, self.name, self.aliases))

    @property
    def can_be_identified(self) -> bool:
        """Whether the id can be a distinct_id (spec §2): else the user stays anonymized."""
        folded = self.id.strip().casefold()
        return (
            len(self.id) <= 200
            and not folded.startswith("anon_")
            and folded not in REFUSED_DISTINCT_IDS
        )
