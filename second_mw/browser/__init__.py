"""The browser's files, `client.js` and `settings.js`, and the few lines that serve them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from second_mw.endpoint import StaticFile

_HERE = Path(__file__).parent


def files(client_name: str) -> dict[str, StaticFile]:
    """Return file name → file, read once at start-up.

    Args:
        client_name: the name under which `client.js` is served (spec §3).
    """
    return {client_name: _file("client.js"), "settings.js": _file("settings.js")}


def _file(name: str) -> StaticFile:
    body = (_HERE / name).read_bytes()
    return StaticFile(body, hashlib.sha256(body).hexdigest()[:20])
