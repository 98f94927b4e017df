"""What a string says besides itself: its decoded views, and its normal form for comparisons.

An address can hide behind percent-encoding, HTML entities, escapes, JSON in a string, base64 or
hex; `views` decodes each, two layers deep, so that shapes.py and identity.py judge text as it would
be read. Nothing here judges. A run that decodes is replaced where it stands, so that there are few
views and none is longer than a few times the text. Any string is taken and nothing is raised.
"""

from __future__ import annotations

import binascii
import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

import msgspec

_LAYERS: Final = 2

#: Labels and words that decode to nothing: small letters behind at most one capital, up to five
#: digits behind them, a date at the end. Base64 of nearly every text has capitals within, and hex
#: of a text, if it has six digits or more, is no date: 0x01 to 0x12 are no text.
_PLAIN: Final = re.compile(
    r"(?:[A-Z]?[a-z]*\d{0,5}[ _.:/,-])*(?:[A-Z]?[a-z]*\d{0,5}|20[0-3]\d(?:0\d|1[0-2])[0-3]\d)"
)
_PLAIN_LENGTH: Final = 80
#: How the base64 of a text has to begin that has no capitals within: `amlt` is jim.
_SMALL_BASE64: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-f][i-nyz2-5][a-z0-9]{2}")


def views(text: str) -> tuple[str, ...]:
    """Return what a text reads as once it is normal or decoded; empty for nearly every label.

    >>> views("workspace_home"), views("mail%3A%20ada%40example.org")
    ((), ('mail: ada@example.org',))
    """
    if says_no_more(text):
        return ()
    found: dict[str, None] = {text: None}
    layer = [normal(text)]
    found.update(dict.fromkeys(layer))
    for _ in range(_LAYERS):
        layer = [
            view
            for outer in layer
            for view in map(normal, _decoded(outer))
            if view and view not in found
        ]
        found.update(dict.fromkeys(layer))
    del found[text]
    return tuple(found)


def says_no_more(text: str) -> bool:
    """Whether a text is a label or words that decode to nothing: nearly every label is."""
    return (
        len(text) <= _PLAIN_LENGTH
        and _PLAIN.fullmatch(text) is not None
        and not (_SMALL_BASE64.search(text) and any(map(_begins_a_text, _RUNS.findall(text))))
        and not _HEX_IN_PAIRS.search(text)
    )


_RUNS: Final = re.compile(r"[A-Za-z0-9]{4,}")


def _begins_a_text(run: str) -> bool:
    """Whether the first four characters can begin base64 of a text: they are of few words.

    They are that of three letters, or of two and the first byte of another beyond ASCII.
    """
    if _SMALL_BASE64.match(run) is None:
        return False
    first = _bytes_of(run[:4])
    return first[:2].isascii() and not 0x80 <= first[2] < 0xC2


# The normal form

#: Characters that show nothing, beyond format characters (Cf) and marks (Mn, Me): the fillers of
#: Hangul, which are letters by their category.
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u17b4\u17b5")
_UNSEEN: Final = frozenset({"Mn", "Me", "Cf"})


def normal(text: str) -> str:
    """Return a text as it is compared: NFKC, without marks and invisible characters, digits ASCII.

    >>> normal("ｊｏｓé\u200b"), normal("workspace_home")
    ('jose', 'workspace_home')
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", text).translate(_SHOWN))


class _Shown(dict[int, "int | str | None"]):
    """What each character shows: itself, a digit of ASCII, or nothing.

    Every character is kept: for one that a table lacks, `translate` raises and catches.
    """

    def __missing__(self, code: int) -> int | str | None:
        if len(self) >= _CHARACTERS:
            self.clear()
        character = chr(code)
        category = unicodedata.category(character)
        if category in _UNSEEN or character in _FILLERS:
            shown: int | str | None = None
        else:
            shown = str(unicodedata.decimal(character)) if category == "Nd" else code
        self[code] = shown
        return shown


_CHARACTERS: Final = 1 << 14
_SHOWN: Final = _Shown()


# The decoders


def _decoded(text: str) -> Iterator[str]:
    """Yield what a text reads as under each decoder that has something to decode."""
    if "%" in text:
        yield unquote(text)
    if "&" in text:
        yield html.unescape(text)
    if "\\" in text:
        yield unescaped(text)
    if text.lstrip()[:1] in _JSON_BEGINNINGS:
        yield from _leaves(text)
    if _MIXED.search(text) or _SMALL_BASE64.search(text):
        yield from _base64(text)
    if _HEX_PAIRS.search(text):
        yield _HEX.sub(_hex_read, text)
    if _HEX_IN_PAIRS.search(text):
        yield _HEX_IN_PAIRS.sub(_hex_read, text)


_ESCAPE: Final = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,5})\}|x([0-9a-fA-F]{2})|(?=[/\"'\\]))"
)


def unescaped(text: str) -> str:
    """Return a text without the escapes of JSON and JavaScript."""
    text = _ESCAPE.sub(_character, text)
    # Two escapes may be one character: a surrogate pair.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    return chr(int(code, 16)) if code else ""


_JSON_BEGINNINGS: Final = frozenset('{["')
#: Strings of a JSON document that are views of their own; the rest are one view together.
_MOST_LEAVES: Final = 64


def _leaves(text: str) -> Iterator[str]:
    """Yield the keys, strings and numbers of a JSON document."""
    try:
        pending = [msgspec.json.decode(text)]
    except (ValueError, RecursionError):
        return
    leaves: list[str] = []
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
            pending += value
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str):
            leaves.append(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            leaves.append(str(value))
    yield from leaves[:_MOST_LEAVES]
    if len(leaves) > _MOST_LEAVES:
        yield "\n".join(leaves[_MOST_LEAVES:])


# Somewhere in the base64 of a text a capital follows a letter or a digit, or a letter a digit, or
# else all are capitals: `QURB` is ADA.
_MIXED: Final = re.compile(r"[a-z0-9][A-Z]|[A-Z]{2}[a-z0-9]|\d[a-z]|[A-Z]{4}")
_WORD: Final = re.compile(r"[A-Z]?[a-z]+\d*|\d+")
#: Base64 within a text: between whatever is neither letter nor digit; with the standard alphabet's
#: two signs; with those of the alphabet for URLs.
_BASE64_RUNS: Final = (
    ("", re.compile(r"[A-Za-z0-9]{4,}={0,2}")),
    ("+/", re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")),
    ("-_", re.compile(r"[A-Za-z0-9_-]{8,}={0,2}")),
)


def _base64(text: str) -> Iterator[str]:
    for signs, run in _BASE64_RUNS:
        if not signs or signs[0] in text or signs[1] in text:
            yield run.sub(_base64_read, text)
    for piece in _pieces(text):
        if read := _read(_bytes_of(piece)):
            yield read


#: How many of a run's parts are tried from each to each, and how long a text is looked at.
_MOST_PARTS: Final = 8
_LONGEST_PIECES: Final = 512
_ANY_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{4,}")
#: Four characters say three; one or two among bytes of no text are an accident, and would be the
#: whole id of a user 6 or 42.
_SHORTEST_READING: Final = 3


def readings(text: str) -> Iterator[str]:
    """Yield whatever base64 in a text could say, sense or nonsense, two layers deep.

    For the comparison with identity only: that nonsense should hold a name is no accident.
    """
    if not (_MIXED.search(text) or _SMALL_BASE64.search(text)):
        return
    for reading in _all_readings(text):
        if len(reading.strip()) >= _SHORTEST_READING:
            yield reading


def _all_readings(text: str) -> Iterator[str]:
    for piece in _pieces(text):
        read = normal(_bytes_of(piece).decode("utf-8", "replace"))
        yield read
        if inner := _ANY_BASE64.search(read):
            yield normal(_bytes_of(inner[0]).decode("utf-8", "replace"))
        # A letter or two before it put it out of step.
        for skipped in (1, 2, 3):
            if _MIXED.search(piece, skipped):
                yield normal(_bytes_of(piece[skipped:]).decode("utf-8", "replace"))


def _pieces(text: str) -> Iterator[str]:
    """Yield the parts of a text that could be base64, each from one sign to another.

    `-` and `_` belong to the alphabet for URLs and join words: `tab-YWRh` and `x_TUFKQQ_y` are to
    be found as well as a text whose own base64 has them.
    """
    for run in _ANY_BASE64.findall(text[:_LONGEST_PIECES]):
        bounds = [place for place, sign in enumerate(run) if sign in "+/-_"]
        starts = [0, *(place + 1 for place in bounds)]
        ends = [*bounds, len(run)]
        near = _MOST_PARTS if len(starts) <= _MOST_PARTS else 2
        for first, start in enumerate(starts):
            for end in {*ends[first : first + near], ends[-1]}:
                piece = run[start:end]
                if end - start >= 4 and (
                    _MIXED.search(piece) or (piece.isalnum() and _SMALL_BASE64.match(piece))
                ):
                    yield piece


def _bytes_of(run: str) -> bytes:
    # One character more than whole groups of four can't be the end of anything.
    run = run[: len(run) - 1] if len(run) % 4 == 1 else run
    return binascii.a2b_base64(run.replace("-", "+").replace("_", "/") + "=" * (-len(run) % 4))


def _base64_read(found: re.Match[str]) -> str:
    run = found[0].rstrip("=")
    if _WORD.fullmatch(run) and not _SMALL_BASE64.match(run):
        return found[0]
    return _read(_bytes_of(run)) or found[0]


# Three bytes, of which the first begins a character of UTF-8.
_HEX_PAIRS: Final = re.compile(r"[2-7c-fC-F][0-9a-fA-F]{5}")
_HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:0[xX])?([0-9a-fA-F]{6,})(?![0-9A-Za-z])")
#: As dumps of bytes are written, one by one.
_HEX_IN_PAIRS: Final = re.compile(
    r"(?<![0-9A-Za-z])([2-7c-fC-F][0-9a-fA-F](?:[:.-][0-9a-fA-F]{2}){2,})(?![0-9A-Za-z])"
)
_BETWEEN_PAIRS: Final = str.maketrans("", "", ":.-")


def _hex_read(found: re.Match[str]) -> str:
    digits = found[1].translate(_BETWEEN_PAIRS)
    return _read(bytes.fromhex(digits[: len(digits) & ~1])) or found[0]


#: Fewer bytes must all be of a name or an address, or every second word would read as something.
_SHORT: Final = 6
_SHORT_TEXT: Final = re.compile(r"[\w@.'+%&;-]+")
#: From this length on, one byte in seven may be anything: a text may stand within a structure.
_LONG: Final = 14
_PRINTABLE: Final = bytes((9, 10, 13, *range(32, 127)))
_SPACE: Final = str.maketrans("\t\n\r", "   ")


def _read(raw: bytes) -> str | None:
    """Return the text that bytes hold, None if they are not mostly text."""
    if len(raw) >= 4 and raw.count(0) * 5 >= len(raw) * 2:
        raw = _of_utf16(raw)
    try:
        # Invisible characters are no text, but hide some.
        text = normal(raw.decode())
    except UnicodeDecodeError:
        text = ""
    if len(raw) < _SHORT:
        return text if _SHORT_TEXT.fullmatch(text) else None
    if text and text.translate(_SPACE).isprintable():
        return text
    if len(raw) >= _LONG and len(raw.translate(None, _PRINTABLE)) * 7 <= len(raw):
        return raw.decode("utf-8", "replace")
    return None


def _of_utf16(raw: bytes) -> bytes:
    """Return UTF-16 of letters, most of them Latin, as UTF-8."""
    first_is_high = raw[::2].count(0) > raw[1::2].count(0)
    try:
        text = raw[: len(raw) & ~1].decode("utf-16-be" if first_is_high else "utf-16-le")
        return text.replace("\0", "").encode()
    except UnicodeError:
        # Out of step, or no UTF-16 at all.
        return raw.replace(b"\0", b"")
