"""The HTML that brings the browser's files into a host's page.

A tag names the version of its file, so that browsers may keep it for a year, and the hash of its
bytes (Subresource Integrity), so that nothing between the host and the browser can change them.
No script stands in the page itself: a Content-Security-Policy of `script-src 'self'` is enough.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html import escape

from second_mw.endpoint import StaticFile

#: A data attribute's value: text as it is; True stands alone; None and False leave it out.
Data = str | bool | None

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class Html(str):
    """Text that is HTML already: Jinja and Django put it into a page as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def script(url: str, file: StaticFile, data: Mapping[str, Data], nonce: str | None = None) -> Html:
    """Return the tag of one file.

    Args:
        url: where the file is served, without a query.
        file: the file.
        data: name → value of the tag's data attributes, `_` standing for `-`.
        nonce: what the page's Content-Security-Policy asks of every script, if it does.

    Raises:
        ValueError: a name can't be that of a data attribute.

    >>> script("/a/client.js", StaticFile(b"", "1"), {"mode": "anonymized", "hash": True})[:35]
    '<script src="/a/client.js?v=1" inte'
    """
    attributes = [
        f'src="{escape(f"{url}?v={file.version}")}"',
        f'integrity="{integrity(file.body)}"',
        f'nonce="{escape(nonce)}"' if nonce else "",
        *(_attribute(name, value) for name, value in data.items()),
        "defer",
    ]
    return Html(f"<script {' '.join(filter(None, attributes))}></script>")


def integrity(body: bytes) -> str:
    """Return what the `integrity` attribute says of a file's bytes (W3C Subresource Integrity)."""
    return f"sha384-{base64.b64encode(hashlib.sha384(body).digest()).decode()}"


def _attribute(name: str, value: Data) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} can't be the name of a data attribute: use a-z, 0-9 and _")
    if value is None or value is False:
        return ""
    attribute = f"data-{name.replace('_', '-')}"
    return attribute if value is True else f'{attribute}="{escape(value)}"'
