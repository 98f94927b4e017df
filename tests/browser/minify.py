"""Makes the served form of the browser's files from their sources.

    python -m tests.browser.minify

The minifier is Go's tdewolff/minify, as PyPI's `tdewolff-minify` brings it: no Node is needed. Its
version is pinned in setup.cfg, because another one may choose other names and so other bytes.
"""

from __future__ import annotations

import re
from pathlib import Path

import second_mw

#: Source → the ECMAScript edition it is written in, and nothing younger is made of it.
SOURCES = {"client.js": 2019, "settings.js": 2022}
#: A style sheet in a script.
SHEET = re.compile(r"(?<=const LOOK = `)[^`]*(?=`)")
HERE = Path(second_mw.__file__).parent / "browser"


def served(source: str) -> Path:
    """Return the path of the served form of a source."""
    return HERE / source.replace(".js", ".min.js")


def minified(source: str) -> str:
    """Return the served form of a source, made anew."""
    import minify

    minify.config({"js-version": SOURCES[source]})
    text = (HERE / source).read_text("utf-8")
    text = SHEET.sub(lambda sheet: minify.string("text/css", sheet[0]), text)
    return str(minify.string("application/javascript", text))


if __name__ == "__main__":
    for name in SOURCES:
        served(name).write_text(minified(name), "utf-8")
