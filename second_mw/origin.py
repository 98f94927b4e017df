"""Where does a request come from: from this site (spec §4, "Origin"), from which address? Pure.

A cookie goes along with a request from any site, so a signed-in user alone proves nothing. The
browser says where a request comes from, in `Sec-Fetch-Site`, `Origin` or `Referer`.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from second_mw.errors import Refused
from second_mw.settings import Settings

logger: logging.Logger = logging.getLogger("second_mw")

#: Returns a request header's value by its lower-case name, None if it is absent.
Header = Callable[[str], "str | None"]

_PORT: Final = re.compile(r":\d*\Z")
# What no name holds: a list of origins, for one, is no origin.
_NO_HOST: Final = re.compile(r"[\s,;%\\<>\"'`|^{}\x00-\x20\x7f]")
# urlsplit would take these out in silence.
_SPACE: Final = re.compile(r"[\s\x00-\x20]")
#: A host has a few names; a Host header that is made up each time must not be kept each time.
_MAX_OWN: Final = 64
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OWN_SITES: Final = frozenset({"same-origin", "none"})
# A day: browsers cap it lower themselves.
_PREFLIGHT_SECONDS: Final = "86400"


class Origins:
    """Judges where requests come from.

    Args:
        settings: `allowed_origins`, `trusted_proxies` and `webviews`.
    """

    def __init__(self, settings: Settings) -> None:
        self._allowed = frozenset(filter(None, map(normal_origin, settings.allowed_origins)))
        self._trusted_proxies = settings.trusted_proxies
        self._webviews = settings.webviews
        self._warned = False
        #: This site's own origins, as they were written and found to be its own.
        self._own: set[str] = set()

    def is_allowed(self, header: Header) -> bool:
        """Whether the request's Origin is on the allowed list."""
        if not self._allowed:
            return False
        origin = header("origin")
        return origin is not None and normal_origin(origin) in self._allowed

    def cors_headers(self, header: Header) -> list[tuple[str, str]]:
        """Return the headers of an answer to this origin.

        Where an answer depends on the Origin, it says so, whoever asks: a cache in between must
        not hand one site the answer to another.
        """
        if not self._allowed:
            return []
        if not self.is_allowed(header):
            return [("Vary", "Origin")]
        return [
            ("Access-Control-Allow-Origin", str(header("origin"))),
            ("Access-Control-Allow-Credentials", "true"),
            # A script of another origin reads no other header, and has to know when to try again.
            ("Access-Control-Expose-Headers", "Retry-After"),
            ("Vary", "Origin"),
        ]

    def preflight_headers(self, header: Header, methods: str) -> list[tuple[str, str]] | None:
        """Return the headers of a preflight's answer, None if it is not from an allowed origin.

        An OPTIONS request that names no method to come is answered alike: it asks the same.
        """
        if not self.is_allowed(header):
            return None
        return [
            *self.cors_headers(header),
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", "Content-Type, Content-Encoding"),
            ("Access-Control-Max-Age", _PREFLIGHT_SECONDS),
        ]

    def check(self, header: Header, scheme: str, host: str) -> bool:
        """Let a request pass that comes from this site or an allowed one.

        Args:
            scheme, host: as the server saw them; the host with its port.

        Returns:
            Whether the browser said at all where the request comes from.

        Raises:
            Refused: `cross_origin`.
        """
        if self.is_allowed(header):
            return True
        site = header("sec-fetch-site")
        if site is not None and site.strip().lower() not in _OWN_SITES:
            raise Refused("cross_origin")
        origin = header("origin")
        if origin is None:
            return site is not None
        if not self._is_own(origin, header, scheme, host):
            self._hint(site)
            raise Refused("cross_origin")
        return True

    def check_referer(self, header: Header, scheme: str, host: str) -> None:
        """Let a request pass whose browser says nothing else, if its Referer is of this site.

        For one that another site could send without a preflight.

        Raises:
            Refused: `cross_origin`.
        """
        referer = header("referer")
        if referer is None:
            if not self._webviews:
                raise Refused("cross_origin")
        elif not self._is_own(_origin_of_url(referer), header, scheme, host):
            raise Refused("cross_origin")

    def _is_own(self, origin: str | None, header: Header, scheme: str, host: str) -> bool:
        if origin is None:
            return False
        if self._trusted_proxies:
            scheme, host = self._outside(header, scheme, host)
        written = f"{scheme}://{host}"
        # A browser writes both alike; taking them apart is for the first request and odd ones.
        if origin == written and written in self._own:
            return True
        own = normal_origin(written)
        if own is None or normal_origin(origin) != own:
            return False
        if len(self._own) < _MAX_OWN:
            self._own.add(written)
        return True

    def _outside(self, header: Header, scheme: str, host: str) -> tuple[str, str]:
        """Return scheme and host as the browser knows them, through the trusted proxies."""
        scheme = self._forwarded(header("x-forwarded-proto")) or scheme
        host = self._forwarded(header("x-forwarded-host")) or host
        port = self._forwarded(header("x-forwarded-port"))
        # Proxies that pass the host on without its port say the port apart.
        if port is not None and port.isdecimal() and not _PORT.search(host):
            host = f"{host}:{port}"
        return scheme, host

    def address(self, header: Header, peer: str | None) -> str | None:
        """Return whose address a request comes from, through as many proxies as are trusted.

        Args:
            peer: the address that the server saw.
        """
        if self._trusted_proxies:
            peer = self._forwarded(header("x-forwarded-for")) or peer
        return None if peer is None else network_of(peer)

    def _forwarded(self, value: str | None) -> str | None:
        """Return what the outermost trusted proxy wrote: each appends to what it received.

        What stands further left came from outside and proves nothing.
        """
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
    origin = origin.strip()
    if _SPACE.search(origin):
        return None
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path or parts.query:
        return None
    if parts.username is not None or parts.password is not None or parts.fragment:
        return None
    try:
        host = _normal_host(parts.hostname)
    except ValueError:
        return None
    return f"{parts.scheme}://{host}:{_DEFAULT_PORTS[parts.scheme] if port is None else port}"


def _normal_host(name: str) -> str:
    """Return a host's name or address in one spelling.

    Raises:
        ValueError: it is none.
    """
    if ":" in name:
        return ipaddress.IPv6Address(name).compressed
    name = name.rstrip(".")
    if not name or _NO_HOST.search(name):
        raise ValueError
    # An international name comes in either spelling.
    return name if name.isascii() else name.encode("idna").decode()


def _origin_of_url(url: str) -> str | None:
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    return normal_origin(f"{parts.scheme}://{parts.netloc}")


def network_of(address: str) -> str | None:
    """Return whom an address stands for, None if it is none.

    One household or server has 2^64 addresses of IPv6: its /64 counts.

    >>> network_of("192.0.2.7:4711"), network_of("2001:db8::1"), network_of("unix:")
    ('192.0.2.7', '2001:db8::', None)
    """
    text = address.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False).network_address)
    return str(found)
