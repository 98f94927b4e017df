"""The documentation's pages, one Markdown file each, and the few lines that read them.

The README is the front page and comes with the distribution's metadata; these are the rest.
"""

from __future__ import annotations

from importlib import metadata
from importlib.resources import files
from typing import Final

#: Page → what it is about, in the order of reading.
PAGES: Final[dict[str, str]] = {
    "readme": "the front page: what it is, two commands, what leaves in each mode",
    "frameworks": "Flask, Starlette, FastAPI, Django and any other app; script tag and routes",
    "browser": "the client and the Usage data settings",
    "delivery": "outboxes, process models, `second-mw forward`, what becomes of an event",
    "endpoint": "statuses, origins, limits, security",
    "testing": "the pytest plugin, and how to test a host's own events",
    "operating": "stats, metrics, logs, erasure and access",
    "migrating": "from posthog-python, posthog-js and Segment",
}


def page(name: str) -> str:
    """Return a page as Markdown.

    Raises:
        KeyError: there is no such page.
    """
    if name not in PAGES:
        raise KeyError(name)
    if name == "readme":
        return _readme()
    # Not by path: the package may be served from a zip.
    return files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")


def _readme() -> str:
    """Return the README, which a wheel carries as its description (core metadata §2.1)."""
    return str(metadata.metadata("second_mw").json.get("description", ""))
