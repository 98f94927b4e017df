"""How much longer the privacy core's patterns take on hostile text than on prose of the same size.

`python -m tests.benchmarks.patterns` prints, for each function, the time on 256 KiB of prose, the
worst hostile text as a multiple of it, and the same text at twice the size as a multiple of once: a
pattern that goes over its text in time of the square shows four there, a linear one two. The second
part prints what common labels cost.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable, Iterator

from second_mw.privacy.routes import Templates, route_shape
from second_mw.privacy.secrets import redact_secrets
from second_mw.privacy.shapes import shape_of
from second_mw.privacy.urls import clean_url, clean_urls
from second_mw.privacy.views import normal, views

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


def ratios(size: int) -> Iterator[str]:
    """Yield a line for each function."""
    yield f"{'function':24}{'prose, ms':>11}{'worst, ms':>11}{'worst/prose':>13}{'twice/once':>12}"
    for name, function in FUNCTIONS.items():
        prose = seconds(function, filled(PROSE, size))
        worst, unit = max((seconds(function, filled(unit, size)), unit) for unit in HOSTILE)
        twice = seconds(function, filled(unit, 2 * size))
        yield (
            f"{name:24}{prose * 1e3:11.3f}{worst * 1e3:11.2f}{worst / prose:13.1f}"
            f"{twice / worst:12.1f}  {unit!r}"
        )


def costs() -> Iterator[str]:
    """Yield a line for each common label, and for prose: microseconds a call."""
    functions = (shape_of, views, redact_secrets, clean_urls)
    yield f"{'µs a call':32}" + "".join(f"{function.__name__:>16}" for function in functions)
    for text in (*LABELS, (PROSE * 30)[:2000]):
        shown = text if len(text) < 30 else f"{len(text)} characters of prose"
        yield f"{shown:32}" + "".join(
            f"{min(timeit.repeat(lambda f=f, t=text: f(t), number=2000, repeat=5)) * 500:16.2f}"
            for f in functions
        )


def main(size: int = SIZE) -> None:
    """Print the ratios and the costs."""
    for line in (*ratios(size), "", *costs()):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else SIZE)
