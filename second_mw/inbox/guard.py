"""Who may talk to the inbox: a `Host` that is this machine's, and no other site's pages.

The inbox shows what apps send, so a page of some website must not reach it through the browser of
whoever runs it: neither by a name that it lets point to 127.0.0.1 (DNS rebinding), nor by posting
across sites. No I/O here.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import Final

#: Sites that a browser names in Sec-Fetch-Site for requests of our own page or the address bar.
_OWN_SITES: Final = frozenset({"same-origin", "none"})


class Guard:
    """The check of one inbox.

    Args:
        bind: the address that it listens on.
        names: further host names under which it may be asked for.
    """

    def __init__(self, bind: str, names: Collection[str] = ()) -> None:
        self.open_to_network: bool = not _is_loopback(bind)
        self._names = {name.lower() for name in names}
        if self.open_to_network:
            self._names.add(socket.gethostname().lower())

    def objection(self, method: str, headers: Mapping[str, str]) -> str | None:
        """Return why a request is not answered, in a sentence; None if it is.

        Args:
            method: of the request.
            headers: names in lower case.
        """
        host = headers.get("host", "")
        if not self._is_ours(host):
            return (
                f"This inbox is not known as {_printable(host)}. "
                "If it should be, start it with --allow-host NAME."
            )
        navigates = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in _OWN_SITES and not navigates:
            return "Another site's page may not use the inbox."
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return "Another site's page may not use the inbox."
        return None

    def _is_ours(self, host: str) -> bool:
        name = name_of(host)
        if name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        # A rebound name is a name: an address can't be made to point elsewhere.
        return _is_address(name) if self.open_to_network else _is_loopback(name)


def name_of(host: str) -> str:
    """Return a Host header's name or address without its port, in lower case.

    >>> name_of("[::1]:8765"), name_of("LocalHost.:8765"), name_of("127.0.0.1")
    ('::1', 'localhost', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ip_address(name).is_loopback)


def _printable(host: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in host[:80]) or "nothing"
