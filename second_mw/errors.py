"""Every refusal the endpoint can answer and every exception a host can meet.

A leaf: anyone may import it, it imports no room. The table `REFUSALS` is spec §4's status table;
an answer's status, code and sentence come from here and from nowhere else.
"""

from __future__ import annotations

import traceback
from typing import Final, Literal, NamedTuple

Code = Literal[
    "invalid_payload",
    "invalid_event",
    "not_authenticated",
    "not_onboarded",
    "cross_origin",
    "workspace_not_found",
    "method_not_allowed",
    "other_user",
    "managed_by_host",
    "gpc",
    "disabled",
    "length_required",
    "payload_too_large",
    "unsupported_media_type",
    "not_taken",
    "rate_limited",
    "user_lookup_failed",
    "outbox_unavailable",
    "preferences_unavailable",
]


class Refusal(NamedTuple):
    """What one code answers: the HTTP status and a sentence that echoes nothing of the request."""

    status: int
    message: str


REFUSALS: Final[dict[Code, Refusal]] = {
    "invalid_payload": Refusal(400, "The body is not a JSON event or batch of events."),
    "invalid_event": Refusal(400, "This event name is not in the catalogue."),
    "not_authenticated": Refusal(401, "Nobody is signed in."),
    "not_onboarded": Refusal(403, "The user has not finished onboarding."),
    "cross_origin": Refusal(403, "The request does not come from this site."),
    "workspace_not_found": Refusal(404, "There is no such workspace."),
    "method_not_allowed": Refusal(405, "This method is not allowed here."),
    "other_user": Refusal(409, "The event was captured for another user."),
    "managed_by_host": Refusal(409, "This choice is managed by the site and can't be changed."),
    "gpc": Refusal(409, "The browser asks for privacy (Global Privacy Control)."),
    "disabled": Refusal(409, "Analytics is switched off."),
    "length_required": Refusal(411, "The body's length is not known."),
    "payload_too_large": Refusal(413, "The body is too large."),
    "unsupported_media_type": Refusal(415, "The body must be application/json."),
    "not_taken": Refusal(422, "The event was not taken. Do not send it again."),
    "rate_limited": Refusal(429, "Too many events. Try again later."),
    "user_lookup_failed": Refusal(500, "The user could not be looked up."),
    "outbox_unavailable": Refusal(503, "The event can't be stored now. Try again later."),
    "preferences_unavailable": Refusal(503, "The choice can't be stored now. Try again later."),
}


class AnalyticsError(Exception):
    """Base of every exception that this package raises on purpose."""


class ConfigurationError(AnalyticsError, ValueError):
    """A setting is wrong: the message names it, what it held (secrets masked) and what is allowed.

    Raised at start-up only (spec §3).
    """


class Refused(AnalyticsError):
    """One request or one event is refused.

    Args:
        code: a key of `REFUSALS`.
        retry_after: seconds until it may be tried again, for 429 and 503.
        allow: the methods of an `Allow` header, for 405.
        counted: the counter in `stats()` that it adds to, beside the one of its code.
    """

    def __init__(
        self,
        code: Code,
        *,
        retry_after: float | None = None,
        allow: str | None = None,
        counted: str | None = None,
    ) -> None:
        super().__init__(code)
        self.code: Code = code
        self.retry_after = retry_after
        self.allow = allow
        self.counted = counted

    @property
    def status(self) -> int:
        """The HTTP status that belongs to the code."""
        return REFUSALS[self.code].status

    @property
    def message(self) -> str:
        """The sentence that belongs to the code."""
        return REFUSALS[self.code].message


class OutboxUnavailable(AnalyticsError):
    """The outbox can't take the events: it is full, or its store fails.

    Args:
        reason: a short machine word, `full` or `store_failed`.
        retry_after: seconds after which trying again makes sense.
    """

    def __init__(self, reason: str, *, retry_after: float = 5.0) -> None:
        super().__init__(f"the outbox can't take events: {reason}")
        self.reason = reason
        self.retry_after = retry_after


class PreferencesUnavailable(AnalyticsError):
    """The preference store can't keep a choice now (spec §4, 503; §7)."""


class ClientDisconnected(AnalyticsError):
    """The client went away while its body was read; there is nobody left to answer."""


def traced(error: BaseException) -> str:
    """Return what failed and where, without the exception's words, which may quote a value.

    >>> try:
    ...     {}["ada@example.org"]
    ... except KeyError as error:
    ...     traced(error)
    'KeyError in <module>:2'
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    return f"{type(error).__name__} in {where}" if where else type(error).__name__
