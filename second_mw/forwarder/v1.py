"""PostHog's v1, `POST /i/v1/analytics/events`, without I/O: batch → request, answer → ruling.

The token and all that is about the request travel in headers, options beside the properties, and
a 200 says for each event by its uuid what became of it.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, Final

import msgspec

from second_mw.forwarder.exchange import (
    USER_AGENT,
    Answer,
    Batch,
    Request,
    at,
    batch_pieces,
    by_options,
    post,
)
from second_mw.forwarder.verdicts import (
    DELIVERED,
    RETRY,
    Ruling,
    Verdict,
    document_of,
    retry_after,
    ruling_of_status,
    words_of,
)
from second_mw.payload import Payload

PATH: Final = "/i/v1/analytics/events"
# An event's result → its verdict. A word that is not here is final, as `drop` is.
_VERDICTS: Final[dict[str, Verdict]] = {
    "ok": DELIVERED,
    "warning": DELIVERED,
    "retry": RETRY,
    "drop": Verdict("dead", "dropped"),
    "limited": Verdict("dead", "limited"),
}
_UNKNOWN: Final = Verdict("dead", "unknown_result")
_encode = msgspec.json.Encoder().encode


class V1:
    """The codec of v1.

    Args:
        token: the project token.
        gzip: whether bodies are compressed.
        historical_migration: whether PostHog is told that these are old events.
    """

    def __init__(self, token: str, *, gzip: bool, historical_migration: bool) -> None:
        self._gzip = gzip
        self._head = b'{"historical_migration":true,' if historical_migration else b"{"
        self._always = {"Authorization": f"Bearer {token}", "PostHog-Sdk-Info": USER_AGENT}

    def request(self, batch: Batch, attempt: int, now: float) -> Request:
        """Return this attempt's request; the body is the same on every attempt."""
        headers = {
            **self._always,
            "PostHog-Attempt": str(attempt),
            "PostHog-Request-Id": batch.request_id,
            "PostHog-Request-Timestamp": at(now),
        }
        head = b'%b"created_at":%b,"batch":' % (self._head, _encode(batch.created_at))
        pieces = chain((head,), batch_pieces(batch.entries, _written), (b"}",))
        return post(PATH, headers, pieces, packed=self._gzip)

    def judge(self, answer: Answer, batch: Batch, now: float) -> Ruling:
        """Say what the answer means for each event; one it does not name is to be sent again."""
        document = document_of(answer)
        if answer.status != 200:
            return _ruling_of_refusal(answer, document, now)
        results = document.get("results") if document else None
        if not isinstance(results, dict):
            return ruling_of_status(answer, now)
        # PostHog may write a UUID in its own way; letters' case is all that can differ.
        words = {str(uuid).lower(): _verdict(result) for uuid, result in results.items()}
        verdicts = {entry.key: words.get(entry.payload.uuid, RETRY) for entry in batch.entries}
        if None in verdicts.values():
            return ruling_of_status(answer, now)
        wait = retry_after(answer.headers.get("retry-after"), now)
        settled = {key: verdict for key, verdict in verdicts.items() if verdict is not None}
        return Ruling("events", "partial", settled, retry_after=wait)


def _ruling_of_refusal(answer: Answer, document: dict[str, object] | None, now: float) -> Ruling:
    ruling = ruling_of_status(answer, now)
    if answer.status == 400 and "missing_required_headers" in _strings_of(document):
        # The one 400 that no event can cause: something between PostHog and us takes headers away.
        look_at = "a proxy before SECOND_POSTHOG_HOST removes headers that PostHog needs"
        return Ruling("sender", "missing_required_headers: 400", look_at=look_at)
    return ruling


def _strings_of(document: dict[str, object] | None) -> set[str]:
    return {value for value in (document or {}).values() if isinstance(value, str)}


def _verdict(result: object) -> Verdict | None:
    """Return what an event's result means, None if it is no result of this protocol."""
    word = result.get("result") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(word, str):
        return None
    verdict = _VERDICTS.get(word, _UNKNOWN)
    details = result.get("details")
    if verdict.result != "dead" or not details:
        return verdict
    text = details.encode("utf-8", "replace") if isinstance(details, str) else _encode(details)
    return Verdict("dead", f"{verdict.reason}: {words_of(text)}")


class _Event(msgspec.Struct, gc=False):
    """An event as v1 writes it; options only if one is set."""

    event: str
    uuid: str
    distinct_id: str
    timestamp: str
    options: msgspec.Raw | msgspec.UnsetType
    properties: msgspec.Raw


def _written(payloads: list[Payload]) -> list[_Event]:
    return [
        _Event(
            payload.event,
            payload.uuid,
            payload.distinct_id,
            payload.timestamp,
            options,
            msgspec.Raw(payload.properties),
        )
        for payload, options in zip(payloads, by_options(payloads, _set_ones), strict=True)
    ]


def _set_ones(options: dict[str, Any]) -> msgspec.Raw | msgspec.UnsetType:
    given = {name: value for name, value in options.items() if value is not None}
    return msgspec.Raw(_encode(given)) if given else msgspec.UNSET
