"""How much longer the privacy core's patterns take on hostile text than on prose of the same size.

For each function: the time on prose, the worst hostile text as a multiple of it, and the same text
at twice the size as a multiple of once: a pattern that goes over its text in time of the square
shows four there, a linear one two. The whole core is asked the same with bodies. The last table
says what common labels cost.
"""

from __future__ import annotations

import random
import timeit
from collections.abc import Callable, Iterable

import msgspec

from second_mw.privacy.routes import Templates, route_shape
from second_mw.privacy.secrets import redact_secrets
from second_mw.privacy.shapes import shape_of
from second_mw.privacy.urls import clean_url, clean_urls
from second_mw.privacy.views import normal, readings, views
from tests.benchmarks.core import Core, user
from tests.benchmarks.table import Table

TITLE = "the privacy core's patterns on hostile text, against prose"

SIZE = 256 * 1024
PROSE = "The build failed because the settings page could not be found, so try again in a while. "

#: What would be repeated to make a pattern go back over its text.
HOSTILE = (
    *("a", "A", "aA", "Aa", "a1", "1", "0", "a ", "1 ", "1.", "1-", "12-", "123 ", "1234 ", "0a"),
    *("4111 ", "4111111111111111 ", "4111-1111-1111-111", "41111111111111", "12 4111 1111 1111 "),
    *(".", "-", "_", "/", "\\", ":", "@", "#", "?", "&", "%", ";", "=", "~", "+", "(", " ", "\n"),
    *(
        "a@",
        "a@b.",
        "@a.",
        "a.",
        "a-",
        "a_",
        "a/",
        "/a",
        "//",
        "//a.",
        "://",
        "a://",
        "a://b@",
        "www.",
    ),
    *("eyJ", "eyJ.", "eyJhbGciOiJub25lIn0.", "eyJhbGciOiJub25lIn0", "eyJeyJeyJeyJeyJeyJ.a."),
    *(
        "sk-",
        "sk-a",
        "xoxb-",
        "SG.",
        "SG.aaaaaaaaaaaaaaaaaaaa",
        "AKIA",
        "Bearer ",
        "ghp_",
        "earer ",
    ),
    *("-----BEGIN ", "-----BEGIN KEY-----", "-----BEGIN PRIVATE KEY-----a"),
    *("DE89", "DE89 ", "DE89370400440532013001 ", "DE89 3704 0044 0532 0130 01 ", "NO93"),
    *(
        "+1",
        "+1 ",
        "+",
        "tel:1",
        "(0",
        "0170 ",
        "555-",
        "2025-09-29 ",
        "2025-09-29T12:30:45",
        "20250929",
    ),
    *("1.2.3.", "1.2.3.4.", "ip-1-", "fe80:", "::", ":1", "00:", "00:11:22:33:44:5g ", "aabb."),
    *("/home/", "/Users/", "C:\\", "C:\\Users\\", "~", "~a", "/home", "a/home/"),
    *(
        "0123456789abcdef",
        "0123456789abcdeg",
        "deadbeef-",
        "deadbeef-dead-",
        "507f1f77bcf86cd79943901",
    ),
    *(
        "%41",
        "%25",
        "%2525",
        "&amp;",
        "&#64;",
        "&amp",
        "\\u0040",
        "\\x40",
        "\\u",
        "\\\\",
        "\\ud83d",
    ),
    *(
        '{"a":',
        "[",
        '["a",',
        '"',
        "[[],",
        "YWRh",
        "YWRh ",
        "YWRhQGV4YW1wbGU ",
        "616461 ",
        "6164-",
        "ﷺ",
    ),
    *(
        "é",
        "e\u0301",
        "\u200b",
        "１",
        "٣",
        "字",
        "ＡＢ",
        "utm_a=b&",
        "utm_source=%25",
        "a=b;",
        ";a=",
        "../",
    ),
    *(
        "/w/a",
        "/agents",
        "/:id",
        "w/",
        "{",
        "x{a}",
        "/a:b@c",
        "//a:b@",
        "https://a:b/",
        "a.bc/",
        "a.bc?",
    ),
)
TEMPLATES = Templates(("/a/:b", "/{a:path}/{b:path}/c", "/{a}-{b}-{c}", "/<int:a>/x"))

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_HEX = "0123456789abcdef"


class Drawn:
    """Draws hostile texts and properties in which nothing comes twice, so that no memory helps."""

    def __init__(self) -> None:
        self._random = random.Random(3)

    def some(self, letters: str, length: int) -> str:
        return "".join(self._random.choices(letters, k=length))

    def one_of(self, *texts: str) -> str:
        return self._random.choice(texts)

    def parts(self, length: int, number: int) -> str:
        return "/".join(self.some(_LETTERS, length) for _ in range(number))

    def texts(self, size: int) -> dict[str, str]:
        """Return texts of about this size, prose first."""
        some, one_of = self.some, self.one_of
        return {
            "prose": filled(PROSE, size),
            "cards": " ".join(f"4{some('0123456789', 15)}" for _ in range(size // 17)),
            "card groups": " ".join(
                f"{one_of('4', '5', '6')}{some('0123456789', 3)}" for _ in range(size // 5)
            ),
            "digits": some("0123456789", size),
            "digits and separators": some("0123456789 -.", size),
            "hex": some(_HEX, size),
            "base64": some(f"{_LETTERS}+/", size),
            "words": " ".join(some(_LETTERS, 12) for _ in range(size // 13)),
            "addresses": " ".join(f"{some('abc', 4)}@" for _ in range(size // 6)),
            "URLs": " ".join(f"//{some('abc.', 9)}/{some(_LETTERS, 8)}" for _ in range(size // 21)),
            "a path": "/".join(some(_LETTERS, 9) for _ in range(size // 10)),
            "a query": "/a?" + "&".join(f"utm_a=%{some(_HEX, 6)}" for _ in range(size // 14)),
            "percents": "".join(f"%{some(_HEX, 2)}" for _ in range(size // 3)),
            "entities": "".join(
                f"&#x{some('234567', 1)}{some(_HEX, 1)};" for _ in range(size // 6)
            ),
            "JSON": "[" * 30 + '"a",' * (size // 4) + "]" * 30,
            "escapes": "".join(f"\\u00{some(_HEX, 2)}" for _ in range(size // 6)),
            "full width": some("ＡＢＣＤＥＦＧＨａｂｃｄｅｆｇｈ", size // 3),
            "tokens": ".".join(f"eyJ{some(_LETTERS, 17)}" for _ in range(size // 21)),
            "accounts": " ".join(f"DE{some('0123456789', 20)}" for _ in range(size // 23)),
            "groups of hex": ":".join(some(_HEX, 2) for _ in range(size // 3)),
            "prefixes": " ".join(
                f"{one_of('sk-', 'ghp_', 'xoxb-', 'AKIA', 'SG.', 'hf_')}{some(_LETTERS, 18)}"
                for _ in range(size // 23)
            ),
        }

    def properties(self, size: int) -> dict[str, dict[str, object]]:
        """Return properties of about this size, prose first."""
        some = self.some
        keys = range(size // 48)
        return {
            "prose": {f"k{n}": filled(PROSE, 40) for n in keys},
            "labels": {f"k{n}": some("abcdefgh-", 40) for n in keys},
            "base64": {f"k{n}": f"{some(_LETTERS, 19)}-{some(_LETTERS, 19)}" for n in keys},
            "hex": {f"k{n}": "-".join(some(_HEX, 7) for _ in range(5)) for n in keys},
            "other scripts": {f"k{n}": some("éüñ字", 13) for n in keys},
            "keys": {some(_LETTERS, 14): n for n in range(size // 20)},
            "keys of base64": {
                f"{some(_LETTERS, 7)}-{some(_LETTERS, 7)}": n for n in range(size // 20)
            },
            "keys of other scripts": {some("éüñ字ABc", 7): n for n in range(size // 20)},
            "nested": {f"k{n}": {"a": {"b": {"c": {"d": some(_LETTERS, 12)}}}} for n in keys},
            "lists": {"x": [[some(_LETTERS, 12) for _ in range(18)] for _ in range(size // 270)]},
            "lists of parts": {
                "x": [[self.parts(4, 12) for _ in range(18)] for _ in range(size // 1200)]
            },
            "keys of parts": {self.parts(9, 6): n for n in range(size // 70)},
            "long keys of parts": {self.parts(9, 51): n for n in range(size // 520)},
            "names": {"agent_names": [some(_LETTERS, 12) for _ in range(size // 15)], "theme": "a"},
            "keys of names": {f"agent_name{n}": some(_LETTERS, 6) for n in range(size // 28)},
            "words on the mode": {f"anonymize{n}d": False for n in range(size // 24)},
        }


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "shape_of": shape_of,
    "shape_of, version": lambda text: shape_of(text, version=True),
    "redact_secrets": redact_secrets,
    "clean_urls": clean_urls,
    "clean_url": clean_url,
    "route_shape": route_shape,
    "route_shape, templates": lambda text: route_shape(text, TEMPLATES),
    "views": views,
    "readings": lambda text: list(readings(text)),
    "normal": normal,
}
LABELS = (
    "workspace_home",
    "claude-sonnet-4-5-20250929",
    "node18.19.0",
    "UnhandledPromiseRejection",
)


def filled(unit: str, size: int) -> str:
    """Return a text of about this size that repeats a unit, with an end that fits nothing."""
    return (unit * (size // len(unit)))[: size - 1] + "!"


def seconds(function: Callable[[str], object], text: str) -> float:
    """Return how long one call takes, the best of two."""
    return min(timeit.repeat(lambda: function(text), number=1, repeat=2))


def measure(short: bool) -> list[Table]:
    """Return the tables of functions, of whole bodies, and of common labels."""
    size = SIZE // 64 if short else SIZE
    units = HOSTILE[::8] if short else HOSTILE
    return [
        _functions(size, units),
        _bodies(size, units),
        _drawn(size),
        _labels(200 if short else 2000),
    ]


def _functions(size: int, units: Iterable[str]) -> Table:
    rows = []
    for name, function in FUNCTIONS.items():
        prose = seconds(function, filled(PROSE, size))
        worst, unit = max((seconds(function, filled(unit, size)), unit) for unit in units)
        twice = seconds(function, filled(unit, 2 * size))
        rows.append((name, prose * 1e3, worst * 1e3, worst / prose, twice / worst, repr(unit)))
    return Table(
        ("function", "prose, ms", "worst, ms", "worst ÷ prose", "twice ÷ once", "of"),
        rows,
        ("a function that only looks at a text's beginning has no time on prose to speak of",),
        title=f"One text of {size:,} characters",
    )


def _bodies(size: int, units: Iterable[str]) -> Table:
    core, ada = Core(), user()
    shapes: dict[str, Callable[[str], dict[str, object]]] = {
        "one value": lambda unit: {"x": filled(unit, size)},
        "one key": lambda unit: {filled(unit, size): 1},
        "a route": lambda unit: {"route_shape": filled(unit, size)},
        "text": lambda unit: {"plan_overview": filled(unit, size)},
        "labels": lambda unit: {f"k{n}": filled(unit, 40) for n in range(size // 48)},
        "items": lambda unit: {"x": [[filled(unit, 40)] * 20] * (size // 860)},
        "keys": lambda unit: {f"{filled(unit, 24)}{n}": n for n in range(size // 34)},
        "names": lambda unit: {
            "agent_names": [f"{filled(unit, 30)}{n}" for n in range(size // 38)],
            "x": ["a-b-c-d"] * 20,
        },
    }
    rows = []
    for name, properties in shapes.items():
        for mode in ("anonymized", "identified"):

            def took(unit: str, mode: str = mode, name: str = name) -> float:
                event = {"event": "approval shown", "properties": shapes[name](unit)}
                body = [msgspec.json.encode(event)]
                return min(core.seconds(body, ada, mode) for _ in range(2))  # type: ignore[arg-type]

            innocent = took(PROSE)
            worst, unit = max((took(unit), unit) for unit in units)
            rows.append((name, mode, innocent * 1e3, worst * 1e3, worst / innocent, repr(unit)))
        del properties
    return Table(
        ("body", "mode", "prose, ms", "worst, ms", "worst ÷ prose", "of"),
        rows,
        ("bar: no more than 50×",),
        title=f"Bodies of {size:,} characters through the whole core",
    )


def _drawn(size: int) -> Table:
    core, ada, drawn, rows = Core(), user(), Drawn(), []
    texts = drawn.texts(size)
    bodies: dict[str, dict[str, dict[str, object]]] = {
        "one value": {name: {"x": text} for name, text in texts.items()},
        "one key": {name: {text: 1} for name, text in texts.items()},
        "text": {name: {"plan_overview": text} for name, text in texts.items()},
        "many": drawn.properties(size),
    }
    for body, each in bodies.items():
        encoded = {
            name: [msgspec.json.encode({"event": "approval shown", "properties": properties})]
            for name, properties in each.items()
        }
        for mode in ("anonymized", "identified"):
            took = {
                name: min(core.seconds(posted, ada, mode) for _ in range(2))  # type: ignore[arg-type]
                for name, posted in encoded.items()
            }
            worst, name = max((took[name], name) for name in took)
            prose = took["prose"]
            rows.append((body, mode, prose * 1e3, worst * 1e3, worst / prose, name))
    return Table(
        ("body", "mode", "prose, ms", "worst, ms", "worst ÷ prose", "of"),
        rows,
        ("bar: no more than 50×",),
        title=f"Bodies of {size:,} characters in which nothing comes twice",
    )


def _labels(number: int) -> Table:
    functions = (shape_of, views, redact_secrets, clean_urls)
    rows = []
    for text in (*LABELS, (PROSE * 30)[:2000]):
        shown = text if len(text) < 30 else f"{len(text)} characters of prose"
        costs = (
            min(timeit.repeat(lambda f=f, t=text: f(t), number=number, repeat=5)) / number * 1e6
            for f in functions
        )
        rows.append((shown, *costs))
    return Table(
        ("µs a call", *(function.__name__ for function in functions)), rows, title="Common labels"
    )
