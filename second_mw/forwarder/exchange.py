"""What passes between the forwarder's parts: a batch, the request made of it, PostHog's answer.

Values and protocols only. The codecs (`v0.py`, `v1.py`) make a request of a batch and a ruling of
an answer without any I/O; a transport (`transport.py`) carries a request there and an answer back.
"""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import msgspec

from second_mw.outbox.base import Entry
from second_mw.payload import rfc3339
from second_mw.version import VERSION

if TYPE_CHECKING:
    from second_mw.forwarder.verdicts import Ruling

USER_AGENT: Final = f"second-mw/{VERSION}"
# JSON of this kind shrinks to a tenth at level 3 already; higher levels cost time, not bytes.
_GZIP_LEVEL: Final = 3

_encoder = msgspec.json.Encoder()


class Batch(msgspec.Struct, frozen=True):
    """Entries that travel in one request, over all its retries.

    Args:
        entries: in the order of the outbox; no uuid twice.
        request_id: a UUID, the same over all retries.
        created_at: RFC 3339, when the batch was made, the same over all retries.
    """

    entries: tuple[Entry, ...]
    request_id: str
    created_at: str

    @classmethod
    def of(cls, entries: Sequence[Entry], now: float) -> Batch:
        """Make a new request's batch at `now`, seconds since the epoch."""
        return cls(tuple(entries), str(uuid.uuid4()), at(now))

    @property
    def keys(self) -> list[str]:
        """The entries' keys in their store."""
        return [entry.key for entry in self.entries]

    def only(self, keys: Collection[str]) -> Batch:
        """Return the same request with these entries only, in their old order."""
        kept = tuple(entry for entry in self.entries if entry.key in keys) if keys else ()
        return msgspec.structs.replace(self, entries=kept)

    def halves(self, now: float) -> tuple[Batch, Batch]:
        """Return two new requests, each with half of the entries."""
        middle = len(self.entries) // 2
        return Batch.of(self.entries[:middle], now), Batch.of(self.entries[middle:], now)


class Request(NamedTuple):
    """One POST: the path below the host, every header that we set, and the body."""

    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What came back; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(NamedTuple):
    """Nothing usable came back: whether PostHog has the events is not known."""

    reason: Literal["timeout", "connection_error", "proxy_error", "tls_error"]


class Transport(Protocol):
    """Carries requests to one host; used by one thread at a time."""

    def send(self, request: Request, within: float | None) -> Answer | NoAnswer:
        """Send one request; `within` seconds at most, or as the settings say if None."""
        ...

    def close(self) -> None:
        """Let go of the connections."""
        ...


class Codec(Protocol):
    """One of PostHog's protocols, without I/O."""

    def request(self, batch: Batch, attempt: int, now: float) -> Request:
        """Return the request of this attempt (1 is the first) at `now`, seconds since the epoch.

        Raises:
            Exception: an entry can't be encoded.
        """
        ...

    def judge(self, answer: Answer, batch: Batch, now: float) -> Ruling:
        """Say what PostHog's answer means for the batch."""
        ...


def at(moment: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC.

    >>> at(1795492980.5)
    '2026-11-24T04:03:00.500Z'
    """
    return rfc3339(datetime.fromtimestamp(moment, timezone.utc))


class _Event(msgspec.Struct, gc=False):
    """An event as both protocols write it; its options and properties are encoded already."""

    event: str
    uuid: str
    distinct_id: str
    timestamp: str
    options: msgspec.Raw | msgspec.UnsetType
    properties: msgspec.Raw


OptionBytes = Callable[[dict[str, Any]], bytes]


def append_batch(
    body: bytearray,
    entries: Sequence[Entry],
    *,
    beside: OptionBytes = lambda _: b"",
    inside: OptionBytes = lambda _: b"",
) -> None:
    """Append the events to a body as a JSON array; encoded properties go in as they are.

    Written for speed, since this is most of what delivery itself costs. One call of the encoder for
    all events, straight into the body, since a megabyte is dear to allocate in a thread; options
    are looked at only where they differ from the event's before. Heads encoded apart and put
    together with the properties in Python took twice as long; a join for each event, six times.

    Args:
        body: what to append to.
        entries: what to encode.
        beside: an event's options → an object to stand before its properties, or nothing.
        inside: an event's options → the members that go into its properties, or nothing.

    Raises:
        UnicodeEncodeError: a field can't be written as UTF-8.
    """
    events: list[_Event] = []
    given: dict[str, Any] | None = None
    options: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    end = b""
    for entry in entries:
        payload = entry.payload
        if payload.options != given:
            given = payload.options
            before, within = beside(given), inside(given)
            options = msgspec.Raw(before) if before else msgspec.UNSET
            end = b",%b}" % within if within else b""
        properties = payload.properties
        if end:
            properties = properties[:-1] + end if properties != b"{}" else b"{" + end[1:]
        events.append(
            _Event(
                payload.event,
                payload.uuid,
                payload.distinct_id,
                payload.timestamp,
                options,
                msgspec.Raw(properties),
            )
        )
    _encoder.encode_into(events, body, len(body))


def post(path: str, headers: Mapping[str, str], body: bytearray, *, packed: bool) -> Request:
    """Return a request with the headers that every protocol needs, gzipped if `packed`."""
    always = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
    if packed:
        always["Content-Encoding"] = "gzip"
        # No time in the gzip header: equal batches make equal bytes.
        return Request(path, {**always, **headers}, gzip.compress(body, _GZIP_LEVEL, mtime=0))
    return Request(path, {**always, **headers}, bytes(body))
