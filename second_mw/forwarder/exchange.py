"""What passes between the forwarder's parts: a batch, the request made of it, PostHog's answer.

Values and protocols only. The codecs (`v0.py`, `v1.py`) make a request of a batch and a ruling of
an answer without any I/O; a transport (`transport.py`) carries a request there and an answer back.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from second_mw.outbox.base import Entry
from second_mw.payload import Payload, rfc3339
from second_mw.version import VERSION

if TYPE_CHECKING:
    from second_mw.forwarder.verdicts import Ruling

USER_AGENT: Final = f"second-mw/{VERSION}"
# JSON of this kind shrinks to a tenth at level 3 already; higher levels cost time, not bytes.
_GZIP_LEVEL: Final = 3

# zlib's name for its format with a gzip header.
_GZIP: Final = 31
# Events that are encoded and compressed in one go.
_PIECE: Final = 250

_encode = msgspec.json.Encoder().encode
_Made = TypeVar("_Made")


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


def batch_pieces(
    entries: Sequence[Entry], written: Callable[[list[Payload]], list[Any]]
) -> Iterator[bytes | memoryview]:
    """Yield the events as a JSON array, piece by piece.

    Pieces stay in the processor's cache until they are compressed, where a whole batch makes the
    system find memory for a megabyte each time; and the host's threads get their turn between two
    of them.

    Args:
        entries: what to encode, at least one.
        written: payloads → what a protocol writes for them, to be encoded. Properties, which are
            encoded already, go in as `msgspec.Raw`.

    Raises:
        UnicodeEncodeError: a field can't be written as UTF-8.
    """
    before = b"["
    for first in range(0, len(entries), _PIECE):
        piece = _encode(written([entry.payload for entry in entries[first : first + _PIECE]]))
        yield before
        yield memoryview(piece)[1:-1]
        before = b","
    yield b"]"


def by_options(payloads: list[Payload], made: Callable[[dict[str, Any]], _Made]) -> list[_Made]:
    """Return what is made of each payload's options: once if all are alike, as they nearly are."""
    options = [payload.options for payload in payloads]
    if options.count(options[0]) == len(options):
        return [made(options[0])] * len(options)
    return [made(each) for each in options]


def post(
    path: str, headers: Mapping[str, str], pieces: Iterable[bytes | memoryview], *, packed: bool
) -> Request:
    """Return a request with the headers that every protocol needs, gzipped if `packed`."""
    always = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
    if not packed:
        return Request(path, {**always, **headers}, b"".join(pieces))
    always["Content-Encoding"] = "gzip"
    # A gzip header of zlib's own has no time in it: equal batches make equal bytes.
    packer = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP)
    body = [packer.compress(piece) for piece in pieces]
    return Request(path, {**always, **headers}, b"".join([*body, packer.flush()]))
