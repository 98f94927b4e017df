"""How much longer the privacy core's patterns take on hostile text than on prose of the same size.

For each function: the time on prose, the worst hostile text as a multiple of it, and the same text
at twice the size as a multiple of once: a pattern that goes over its text in time of the square
shows four there, a linear one two. The whole core is asked the same with bodies. The last table
says what common labels cost.
"""

from __future__ import annotations

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
    return [_functions(size, units), _bodies(size, units), _labels(200 if short else 2000)]


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
