"""From a request's body to posted events: decoding, mending, and what makes a body invalid (§4).

Pure. A body is decoded once, so that no two readers can take it differently.
"""

from __future__ import annotations

import re
import zlib
from typing import Any, Final

import msgspec

from second_mw.errors import Refused

#: What any product posts nests a few levels; PostHog's own limit is not documented.
MAX_NESTING: Final = 64

#: A client sends one; each further one costs a copy of what follows it.
MAX_MEMBERS: Final = 8

_decode = msgspec.json.Decoder().decode
#: The escape of a surrogate, paired or not, with the escaped backslashes before it: behind an odd
#: one it would be text.
_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\u[dD](?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?"
    rb"|[c-fC-F][0-9a-fA-F]{2})"
)


class Item(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One event as browsers post it: no other keys than these, none of another type.

    Nearly every event is one, and msgspec finds that out while it decodes, for less than asking
    for each key afterwards costs.
    """

    event: str
    properties: dict[str, Any] | None = None
    uuid: str | None = None
    timestamp: Any = None
    anonymousDistinctId: Any = None
    subject: Any = None


class Batch(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Several of them in one body."""

    batch: list[Item]


_decode_item = msgspec.json.Decoder(Item).decode
_decode_batch = msgspec.json.Decoder(Batch).decode
_BRACKETS: Final[tuple[bytes, ...]] = (b"{", b"[")
_ONE_BRACKET: Final = _BRACKETS[1:]
_BATCH_BEGINS: Final = b'{"batch":'


def posted(body: bytes) -> Item | Batch | Any:
    """Return the `Item` or the `Batch` that a body is, else its JSON value, as `decoded` does.

    Raises:
        Refused: `invalid_payload`.
    """
    try:
        read = (_decode_batch if body.startswith(_BATCH_BEGINS) else _decode_item)(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Something else, or no JSON: to be looked at closely.
        return decoded(body)
    if _has_many_brackets(body) and _is_too_deep(read):
        raise Refused("invalid_payload")
    return read


def decoded(body: bytes) -> Any:
    """Return the JSON value of a body; an unpaired surrogate escape is mended to U+FFFD (spec §4).

    JavaScript's `slice` makes unpaired surrogates daily; they are no reason to lose an event.

    Raises:
        Refused: `invalid_payload`.
    """
    value = _json(body)
    if _has_many_brackets(body) and _is_deeper(value, MAX_NESTING):
        raise Refused("invalid_payload")
    return value


def _json(body: bytes) -> Any:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    mended, count = _SURROGATE.subn(_mended, body)
    if not count:
        raise Refused("invalid_payload")
    try:
        return _decode(mended)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("invalid_payload") from None


def inflated(body: bytes, limit: int) -> bytes:
    """Return a gzip body decompressed, never more than `limit` bytes of it.

    Raises:
        Refused: `payload_too_large` past the limit, `invalid_payload` if it is no whole gzip.
    """
    parts: list[bytes] = []
    room = limit
    rest = body
    try:
        while rest:
            if len(parts) == MAX_MEMBERS:
                raise Refused("invalid_payload")
            member = zlib.decompressobj(wbits=31)
            part = member.decompress(rest, room + 1)
            if len(part) > room:
                raise Refused("payload_too_large")
            if not member.eof:
                raise Refused("invalid_payload")
            parts.append(part)
            room -= len(part)
            rest = member.unused_data
    except zlib.error:
        raise Refused("invalid_payload") from None
    return b"".join(parts)


def _mended(found: re.Match[bytes]) -> bytes:
    return found[0] if found[2] else found[1] + rb"\ufffd"


def _has_many_brackets(body: bytes) -> bool:
    """Whether so many brackets open that they may nest too deeply.

    Looking for the next one costs 6 kB of text a tenth of what counting does, which goes byte by
    byte and would take half the time of decoding.
    """
    find = body.find
    count, brackets = 0, _BRACKETS
    if find(b"{", find(b"{", 1) + 1) < 0:
        # Nearly always there are two of the first kind: an event's and its properties'.
        count, brackets = 2, _ONE_BRACKET
    for bracket in brackets:
        place = find(bracket)
        while place >= 0:
            count += 1
            if count > MAX_NESTING:
                return True
            place = find(bracket, place + 1)
    return False


def _is_too_deep(read: Item | Batch) -> bool:
    if isinstance(read, Item):
        return _is_deeper(read.properties, MAX_NESTING - 1)
    # The list stands for the one in the body; what holds that, and the events, are two more.
    return _is_deeper([item.properties for item in read.batch], MAX_NESTING - 2)


def _is_deeper(value: Any, most: int) -> bool:
    """Whether containers nest more than so deep: level by level, each container once."""
    level = [value]
    for _ in range(most + 1):
        level = [outer for outer in level if outer.__class__ is dict or outer.__class__ is list]
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if outer.__class__ is dict else outer)
        ]
    return True
