"""An independent reader of what left: it shares no code with `second_mw` and no idea of its rules.

`readings` says everything that a text can be read as, three layers deep: JSON, escapes, percent
and HTML encodings, base64 of both alphabets at every offset, hex, UTF-16, folded letters.
`found` says which secrets stand in any of it. It would rather see too much than too little, so the
secrets given to it must be too odd to occur by chance.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote, unquote_plus

LAYERS = 3

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{6,}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){4,}")
_DUMP = re.compile(r"[0-9a-fA-F]{2}(?:[ .:_-][0-9a-fA-F]{2}){2,}")
_INVISIBLE = {"Cf", "Cc", "Mn"}
_WORD = re.compile(r"[^\W\d_]+|\d+")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\u\{([0-9a-fA-F]{2,6})\}|\\x([0-9a-fA-F]{2})")


def readings(text: str, layers: int = LAYERS) -> Iterator[str]:
    """Yield the text and everything that it can be read as."""
    seen = {text}
    now = [text]
    for layer in range(layers + 1):
        after = []
        for each in now:
            yield each
            if layer < layers:
                after += [reading for reading in _read(each) if not _known(reading, seen)]
        now = after


def _known(text: str, seen: set[str]) -> bool:
    if text in seen:
        return True
    seen.add(text)
    return False


def _read(text: str) -> Iterator[str]:
    yield from _leaves(text)
    yield unquote(text, errors="ignore")
    yield unquote_plus(text, errors="ignore")
    yield html.unescape(text)
    yield _ESCAPE.sub(lambda match: _letter(match[1] or match[2] or match[3]), text)
    yield unicodedata.normalize("NFKC", text)
    yield "".join(letter for letter in text if unicodedata.category(letter) not in _INVISIBLE)
    for run in _BASE64.findall(text):
        yield from _from_base64(run)
    for match in _HEX.finditer(text):
        yield from _texts(binascii.unhexlify(match[0]))
        if len(match[0]) > 8:
            yield from _texts(binascii.unhexlify(match[0][1:-1]))
    for match in _DUMP.finditer(text):
        yield from _texts(bytes.fromhex(re.sub("[^0-9a-fA-F]", "", match[0])))


def _leaves(text: str) -> Iterator[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    todo: list[Any] = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, str | int | float):
            yield str(value)


def _letter(digits: str) -> str:
    number = int(digits, 16)
    return chr(number) if number < 0x110000 else ""


def _from_base64(run: str) -> Iterator[str]:
    run = run.replace("-", "+").replace("_", "/")
    for offset in range(4):
        part = run[offset:]
        part = part[: len(part) - 1] if len(part) % 4 == 1 else part
        yield from _texts(base64.b64decode(part + "=" * (-len(part) % 4)))


def _texts(data: bytes) -> Iterator[str]:
    yield data.decode("utf-8", "ignore")
    if b"\0" in data:
        yield data.decode("utf-16-le", "ignore")
        yield data.decode("utf-16-be", "ignore")


def squeezed(text: str) -> str:
    """Return the letters and digits alone, folded and without their accents."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    plain = unicodedata.normalize("NFKC", plain).casefold()
    letters = [letter for letter in unicodedata.normalize("NFKD", plain) if letter.isalnum()]
    return "".join(str(unicodedata.decimal(letter, letter)) for letter in letters)


def words(text: str) -> str:
    """Return the words of a text, folded, each with a blank before and behind it."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", split).casefold())
    bare = "".join(letter for letter in plain if unicodedata.category(letter)[0] != "M")
    return " ".join(["", *_WORD.findall(bare), ""])


def found(data: str | bytes, secrets: Iterable[str]) -> list[str]:
    """Return the secrets that stand anywhere in the data, however it is read.

    Args:
        data: a text, or bytes as they leave.
        secrets: each of four letters and digits or more, in UTF-8; one of fewer would be found
            in any random id.
    """
    wanted = {secret: squeezed(secret) for secret in secrets}
    too_short = [secret for secret, plain in wanted.items() if len(plain.encode()) < 4]
    assert not too_short, f"nothing can be said of {too_short}"
    text = data if isinstance(data, str) else data.decode("utf-8")
    left = dict(wanted)
    for reading in readings(text):
        plain = squeezed(reading)
        for secret in [secret for secret, squeeze in left.items() if squeeze in plain]:
            del left[secret]
    return sorted(set(wanted) - set(left))


def words_found(data: str | bytes, secrets: Iterable[str]) -> list[str]:
    """Return the secrets that stand in the data as whole words, however it is read."""
    wanted = {secret: words(secret) for secret in secrets}
    left = {secret: plain for secret, plain in wanted.items() if plain.strip()}
    text = data if isinstance(data, str) else data.decode("utf-8")
    gone = set()
    for reading in readings(text):
        spaced = words(reading)
        gone |= {secret for secret, plain in left.items() if plain in spaced}
    return sorted(gone)
