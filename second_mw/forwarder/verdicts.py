"""What PostHog's answer means for us: the table of statuses, where its protocols agree.

A ruling is about the events (each has its verdict), about the batch (PostHog has it, try again,
or halve it), or about the sender, which is us: token, host, proxy, billing. Bodies of a 200 differ
by protocol and are read in `v0.py` and `v1.py`; how a ruling is carried out is the business of
`delivery.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import msgspec

from second_mw.forwarder.exchange import Answer, NoAnswer

#: A server that asks for more than an hour is asked again after an hour.
MAX_RETRY_AFTER: Final = 3600.0
_DETAIL_LENGTH: Final = 200

About = Literal["delivered", "events", "retry", "later", "halve", "sender"]


class Verdict(NamedTuple):
    """What becomes of one event, and for a dead one why: a machine word, a colon, a detail."""

    result: Literal["delivered", "retry", "dead"]
    reason: str = ""


DELIVERED: Final = Verdict("delivered")
RETRY: Final = Verdict("retry")


class Ruling(NamedTuple):
    """What an answer, or its absence, means.

    Args:
        about: `delivered`: PostHog has every event of the batch. `events`: see `verdicts`.
            `retry`: send the batch again, after a backoff. `later`: leave PostHog alone for a
            while. `halve`: one of the events is refused, or all together are too large. `sender`:
            nothing is wrong with the events.
        reason: a machine word with an optional detail.
        verdicts: of `events`: entry key → verdict, one for each entry of the batch.
        retry_after: the seconds that the server asked for, None if it did not.
        look_at: for operators: what to look at, in a sentence.
    """

    about: About
    reason: str
    verdicts: Mapping[str, Verdict] = MappingProxyType({})
    retry_after: float | None = None
    look_at: str = ""

    def verdict_of(self, key: str) -> Verdict | None:
        """Return what becomes of one entry, None where that is not said."""
        return DELIVERED if self.about == "delivered" else self.verdicts.get(key)


class _Meaning(NamedTuple):
    about: About
    reason: str
    look_at: str = ""


_HOST = (
    "SECOND_POSTHOG_HOST must be PostHog's ingestion host (https://us.i.posthog.com, "
    "https://eu.i.posthog.com, or your own), reached without a login page or rewriting proxy"
)
_PROJECT = "SECOND_POSTHOG_TOKEN must be the project token of a project on SECOND_POSTHOG_HOST"
_RATE = "PostHog's rate or billing limit is reached: look at the project's billing and quota"
_DOWN = "PostHog, or what stands before it, is out of order"

# Rows are what the server says; the sentence names the setting an operator can change.
_BY_STATUS: Final[dict[int, _Meaning]] = {
    400: _Meaning("halve", "refused"),
    401: _Meaning("sender", "unauthorized", _PROJECT),
    402: _Meaning("sender", "payment_required", "look at the billing of the PostHog organisation"),
    403: _Meaning("sender", "forbidden", f"{_PROJECT}; a firewall or proxy may refuse, too"),
    404: _Meaning("sender", "not_found", _HOST),
    405: _Meaning("sender", "method_not_allowed", _HOST),
    407: _Meaning("sender", "proxy_refuses", "HTTPS_PROXY: the proxy wants other credentials"),
    408: _Meaning("retry", "timeout", _DOWN),
    413: _Meaning("halve", "too_large"),
    415: _Meaning("sender", "unsupported_media_type", _HOST),
    429: _Meaning("later", "rate_limited", _RATE),
}
# For a status without a row of its own. 5xx beside those that the contract names come from
# proxies (52x) and are as passing as these.
_BY_CLASS: Final[dict[int, _Meaning]] = {
    2: _Meaning("sender", "not_posthog", _HOST),
    3: _Meaning("sender", "redirected", f"the host redirects; {_HOST}"),
    4: _Meaning("sender", "refused_request", f"{_PROJECT}; {_HOST}"),
    5: _Meaning("retry", "server_error", _DOWN),
}

_BY_ABSENCE: Final[dict[str, str]] = {
    "timeout": "PostHog did not answer in time: SECOND_POSTHOG_HOST, or the network to it",
    "connection_error": "PostHog can't be reached: SECOND_POSTHOG_HOST, or the network to it",
    "proxy_error": "the proxy of HTTPS_PROXY or HTTP_PROXY can't be used; NO_PROXY exempts a host",
    "tls_error": "TLS fails: SECOND_POSTHOG_HOST, or REQUESTS_CA_BUNDLE if a proxy signs anew",
}


def ruling_of_absence(absence: NoAnswer) -> Ruling:
    """Return what it means that no answer came: the events may be there, so send them again."""
    return Ruling("retry", absence.reason, look_at=_BY_ABSENCE[absence.reason])


def ruling_of_status(answer: Answer, now: float) -> Ruling:
    """Return what an answer's status means; a 200 that is not the protocol's own is foreign."""
    meaning = _BY_STATUS.get(answer.status) or _BY_CLASS.get(answer.status // 100, _BY_CLASS[2])
    detail = f"{meaning.reason}: {answer.status}"
    if meaning.about == "halve":
        detail = f"{detail} {words_of(answer.body)}".rstrip()
    return Ruling(
        meaning.about,
        detail,
        retry_after=retry_after(answer.headers.get("retry-after"), now),
        look_at=meaning.look_at,
    )


def document_of(answer: Answer) -> dict[str, object] | None:
    """Return the JSON object of an answer's body, None if it is anything else."""
    try:
        document = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds of a `Retry-After`, which holds seconds or an HTTP date (RFC 9110).

    At most `MAX_RETRY_AFTER`; None if there is none or it can't be read.

    >>> retry_after("120", now=0.0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=0.0)
    (120.0, 60.0)
    """
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        return min(float(text), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return min(max(moment.timestamp() - now, 0.0), MAX_RETRY_AFTER)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def words_of(body: bytes) -> str:
    """Return the beginning of PostHog's words as one printable line."""
    text = body[: 4 * _DETAIL_LENGTH].decode("utf-8", "replace")
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:_DETAIL_LENGTH]
