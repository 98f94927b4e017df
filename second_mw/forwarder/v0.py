"""PostHog's v0, `POST /batch/`, without I/O: batch → request, answer → ruling.

The token travels in the body, options as `$` properties, and a 200 speaks for the whole batch.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, Final

import msgspec

from second_mw.forwarder.exchange import Answer, Batch, Request, at, batch_pieces, by_options, post
from second_mw.forwarder.retry import BETWEEN_ROUNDS
from second_mw.forwarder.verdicts import (
    Ruling,
    Verdict,
    document_of,
    ruling_of_status,
)
from second_mw.payload import OPTION_OF_PROPERTY, Payload, joined, tail_of

PATH: Final = "/batch/"
_PROPERTY_OF_OPTION: Final = {option: key for key, option in OPTION_OF_PROPERTY.items()}
_encode = msgspec.json.Encoder().encode


class V0:
    """The codec of v0.

    Args:
        token: the project token.
        gzip: whether bodies are compressed.
        historical_migration: whether PostHog is told that these are old events.
    """

    def __init__(self, token: str, *, gzip: bool, historical_migration: bool) -> None:
        self._gzip = gzip
        self._head = b'{"api_key":' + _encode(token) + b',"sent_at":'
        self._middle = b',"historical_migration":%b,"batch":' % _encode(historical_migration)

    def request(self, batch: Batch, attempt: int, now: float) -> Request:
        """Return this attempt's request; only `sent_at` tells it from the one before."""
        head = b"%b%b%b" % (self._head, _encode(at(now)), self._middle)
        pieces = chain((head,), batch_pieces(batch.entries, _written), (b"}",))
        return post(PATH, {}, pieces, packed=self._gzip)

    def judge(self, answer: Answer, batch: Batch, now: float) -> Ruling:
        """Say what the answer means; only a 200 with v0's own body is a delivery."""
        document = document_of(answer) if answer.status == 200 else None
        if document is None:
            return _ruling_of_refusal(answer, now)
        limited = document.get("quota_limited")
        if isinstance(limited, list) and "events" in limited:
            # PostHog has thrown them away for billing; it would do so again.
            limited_all = dict.fromkeys(batch.keys, Verdict("dead", "quota_limited"))
            return Ruling("events", "quota_limited", limited_all)
        if _says_taken(document.get("status")):
            return Ruling("delivered", "delivered")
        return ruling_of_status(answer, now)


def _says_taken(status: object) -> bool:
    """Whether this is PostHog's word for a batch it took: 1 as documented, Ok as it is in fact."""
    return status == "Ok" or (status == 1 and status is not True)


def _ruling_of_refusal(answer: Answer, now: float) -> Ruling:
    ruling = ruling_of_status(answer, now)
    if ruling.about == "later" and ruling.retry_after is not None:
        # A 429 that says when: PostHog's own clients of v0 send the batch again then, of v1 not.
        # A later hour than a round's own waits is left to the circuit.
        return ruling._replace(about="retry" if ruling.retry_after <= BETWEEN_ROUNDS else "later")
    return ruling


class _Event(msgspec.Struct, gc=False):
    """An event as v0 writes it."""

    event: str
    uuid: str
    distinct_id: str
    timestamp: str
    properties: msgspec.Raw


def _written(payloads: list[Payload]) -> list[_Event]:
    return [
        _Event(
            payload.event,
            payload.uuid,
            payload.distinct_id,
            payload.timestamp,
            msgspec.Raw(
                # What `joined` does; its call would be a twentieth of what writing an event costs.
                payload.properties[:-1] + tail
                if payload.properties != b"{}"
                else joined(b"{}", tail)
            ),
        )
        for payload, tail in zip(payloads, by_options(payloads, _tail), strict=True)
    ]


def _tail(options: dict[str, Any]) -> bytes:
    """Return how an event's properties end: with the options, which are members of them in v0."""
    return tail_of(
        _encode(
            {
                _PROPERTY_OF_OPTION[option]: value
                for option, value in options.items()
                if value is not None and option in _PROPERTY_OF_OPTION
            }
        )
    )
