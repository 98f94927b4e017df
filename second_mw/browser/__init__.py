"""The browser's files and the few lines that serve them.

`client.js` and `settings.js` are the sources, to read; `client.min.js` and `settings.min.js` are
what is served. The second pair is made from the first by `python -m tests.browser.minify` and kept
beside it, so that neither a user nor a host needs a minifier; a test holds the pairs together.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files as resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from second_mw.endpoint import StaticFile

SETTINGS_NAME = "settings.js"


def files(client_name: str) -> dict[str, StaticFile]:
    """Return file name → file, read once at start-up.

    Args:
        client_name: the name under which the client is served (spec §3).
    """
    return {client_name: _file("client.min.js"), SETTINGS_NAME: _file("settings.min.js")}


def _file(name: str) -> StaticFile:
    # As a resource, not as a path: the package may have been imported from a zip.
    from second_mw.endpoint import StaticFile

    body = resources(__name__).joinpath(name).read_bytes()
    return StaticFile(body, hashlib.sha256(body).hexdigest()[:20])
