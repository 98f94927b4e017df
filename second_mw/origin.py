"""Does a request come from this site? (spec §4, "Origin"). Pure; no I/O.

A cookie goes along with a request from any site, so a signed-in user alone proves nothing. The
browser says where a request comes from, in `Sec-Fetch-Site`, `Origin` or `Referer`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from second_mw.errors import Refused
from second_mw.settings import Settings

logger = logging.getLogger("second_mw")

#: Returns a request header's value by its lower-case name, None if it is absent.
Header = Callable[[str], "str | None"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OWN_SITES: Final = frozenset({"same-origin", "none"})
# A day: browsers cap it lower themselves.
_PREFLIGHT_SECONDS: Final = "86400"


class Origins:
    """Judges where requests come from.

    Args:
        settings: `allowed_origins` and `trusted_proxies`.
    """

    def __init__(self, settings: Settings) -> None:
        self._allowed = frozenset(filter(None, map(normal_origin, settings.allowed_origins)))
        self._trusted_proxies = settings.trusted_proxies
        self._warned = False

    def is_allowed(self, header: Header) -> bool:
        """Whether the request's Origin is on the allowed list."""
        origin = header("origin")
        return origin is not None and normal_origin(origin) in self._allowed

    def cors_headers(self, header: Header) -> list[tuple[str, str]]:
        """Return the headers of an answer to this origin, none unless it is allowed."""
        origin = header("origin")
        if origin is None or not self.is_allowed(header):
            return []
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
        ]

    def preflight_headers(self, header: Header, methods: str) -> list[tuple[str, str]] | None:
        """Return the headers of a preflight's answer, None if the request is no allowed one."""
        if header("access-control-request-method") is None or not self.is_allowed(header):
            return None
        return [
            *self.cors_headers(header),
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", "Content-Type, Content-Encoding"),
            ("Access-Control-Max-Age", _PREFLIGHT_SECONDS),
        ]

    def check(self, header: Header, scheme: str, host: str, *, simple: bool) -> None:
        """Let a request pass that comes from this site or an allowed one.

        Args:
            scheme, host: as the server saw them; the host with its port.
            simple: whether another site could send this request without a preflight.

        Raises:
            Refused: `cross_origin`.
        """
        if self.is_allowed(header):
            return
        site = header("sec-fetch-site")
        if site is not None and site.strip().lower() not in _OWN_SITES:
            raise Refused("cross_origin")
        own = self.own_origin(header, scheme, host)
        origin = header("origin")
        if origin is not None:
            if own is None or normal_origin(origin) != own:
                self._hint(site)
                raise Refused("cross_origin")
            return
        if site is None and simple:
            referer = header("referer")
            if referer is None or own is None or _origin_of_url(referer) != own:
                raise Refused("cross_origin")

    def own_origin(self, header: Header, scheme: str, host: str) -> str | None:
        """Return the request's own origin, through as many proxies as are trusted."""
        if self._trusted_proxies:
            scheme = self._forwarded(header("x-forwarded-proto")) or scheme
            host = self._forwarded(header("x-forwarded-host")) or host
        return normal_origin(f"{scheme}://{host}")

    def _forwarded(self, value: str | None) -> str | None:
        """Return what the outermost trusted proxy wrote: each appends to what it received."""
        if value is None:
            return None
        hops = [hop.strip() for hop in value.split(",")]
        return hops[-min(self._trusted_proxies, len(hops))] or None

    def _hint(self, site: str | None) -> None:
        if site is not None and not self._warned:
            self._warned = True
            logger.warning(
                "second_mw refuses events of this site as cross-origin: the browser calls them "
                "same-origin, but their Origin is not the address that the server sees. Behind a "
                "proxy, set trusted_proxies to the number of proxies that set X-Forwarded-Proto "
                "and X-Forwarded-Host"
            )


def normal_origin(origin: str) -> str | None:
    """Return an origin as scheme, host and port, None if it is none (`null`, for one).

    >>> normal_origin("HTTPS://Example.org:443"), normal_origin("http://[::1]:8000")
    ('https://example.org:443', 'http://::1:8000')
    """
    try:
        parts = urlsplit(origin.strip())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path or parts.query:
        return None
    if parts.username is not None or parts.password is not None or parts.fragment:
        return None
    host = parts.hostname.rstrip(".")
    try:
        # An international name comes in either spelling.
        host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return None
    return f"{parts.scheme}://{host}:{_DEFAULT_PORTS[parts.scheme] if port is None else port}"


def _origin_of_url(url: str) -> str | None:
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    return normal_origin(f"{parts.scheme}://{parts.netloc}")
