"""The one place where bytes leave for PostHog, and the only one that names requests.

Built fresh for each request: nothing that the host, the environment or an earlier answer holds
(cookies, netrc, default headers, redirects) goes along. Failures are outcomes, not exceptions; no
exception's text is kept, because it can hold a proxy's password.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - else the first look-up of a host imports it
import os
import time
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import requests
from requests.adapters import HTTPAdapter
from requests.utils import should_bypass_proxies
from urllib3.exceptions import HTTPError, ReadTimeoutError

from second_mw.forwarder.exchange import Answer, NoAnswer, Request
from second_mw.settings import LOOPBACK

#: Far above v1's answer for the largest batch; what is longer is not PostHog's.
MAX_ANSWER: Final = 4_000_000
_PIECE: Final = 65_536


class HttpTransport:
    """Carry requests to one host over one kept connection.

    Args:
        host: the ingestion host, a URL without a slash at its end.
        connect_timeout, read_timeout: seconds.
    """

    def __init__(self, host: str, *, connect_timeout: float, read_timeout: float) -> None:
        self._host = host
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._proxies = proxies_for(host)
        self._verify = certificates()
        self._session = requests.Session()
        self._session.trust_env = False
        # Retries are the forwarder's: urllib3 must not send a batch twice by itself.
        self._adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
        self._session.mount("https://", self._adapter)
        self._session.mount("http://", self._adapter)
        #: Path → a request without headers and body.
        self._blank: dict[str, requests.PreparedRequest] = {}

    def send(self, request: Request, within: float | None = None) -> Answer | NoAnswer:
        """Send one request.

        Args:
            request: what to send.
            within: seconds that connecting and answering may take together, None for as long as
                the timeouts say.
        """
        prepared = self._prepared(request)
        half = within / 2 if within is not None else float("inf")
        timeout = (min(self._connect_timeout, half), min(self._read_timeout, half))
        try:
            # Not the session's own `send`: what that does around a request (cookies, redirects, the
            # headers of an instrumentation that is hooked into it) none of ours wants, and it costs
            # a tenth of the request.
            response = self._session.get_adapter(self._host).send(
                prepared,
                timeout=timeout,
                proxies=self._proxies,
                verify=self._verify,
                stream=True,
            )
        except requests.exceptions.RequestException as error:
            return _absence(error)
        except (OSError, HTTPError):
            return NoAnswer("connection_error")
        return _read(response, time.monotonic() + timeout[1])

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        # Without the session, which would add its own headers and cookies; and the URL, which is
        # the greater part of it, once.
        blank = self._blank.get(request.path)
        if blank is None:
            blank = requests.Request("POST", self._host + request.path).prepare()
            self._blank[request.path] = blank
        prepared = blank.copy()
        prepared.prepare_headers({"Accept-Encoding": "identity", **request.headers})
        prepared.prepare_body(request.body, None)
        return prepared

    def close(self) -> None:
        """Close the connection."""
        # By hand: urllib3 leaves it to a finalizer, and at the interpreter's end none runs.
        for manager in (self._adapter.poolmanager, *self._adapter.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it can't be iterated over
                manager.pools[key].close()
        self._session.close()


def proxies_for(url: str) -> dict[str, str]:
    """Return the proxies that the environment names for a URL (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).

    Only the environment is asked: macOS's system settings can't be read safely after a fork. What
    listens on this machine is never behind a proxy, which could not reach it.
    """
    proxies = getproxies_environment()
    is_here = urlsplit(url).hostname in LOOPBACK
    if not proxies or is_here or should_bypass_proxies(url, no_proxy=proxies.get("no")):
        return {}
    return {scheme: proxies[scheme] for scheme in ("http", "https", "all") if scheme in proxies}


def certificates() -> str | bool:
    """Return the CA bundle that the environment names, as an intercepting proxy needs one."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


# Most special first: a proxy's or a connection's timeout is both of its bases.
_ABSENCES: Final[tuple[tuple[type[Exception], NoAnswer], ...]] = (
    (requests.exceptions.ProxyError, NoAnswer("proxy_error")),
    (requests.exceptions.SSLError, NoAnswer("tls_error")),
    (requests.exceptions.Timeout, NoAnswer("timeout")),
    (requests.exceptions.RequestException, NoAnswer("connection_error")),
)


def _absence(error: requests.exceptions.RequestException) -> NoAnswer:
    return next(absence for kind, absence in _ABSENCES if isinstance(error, kind))


def _read(response: requests.Response, deadline: float) -> Answer | NoAnswer:
    """Return the answer with at most `MAX_ANSWER` bytes; half an answer is none."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    body = bytearray()
    try:
        while piece := response.raw.read(_PIECE, decode_content=True):
            body += piece
            if len(body) > MAX_ANSWER:
                break
            if time.monotonic() > deadline:
                return _abandoned(response, NoAnswer("timeout"))
    except ReadTimeoutError:
        return _abandoned(response, NoAnswer("timeout"))
    except (HTTPError, OSError):
        return _abandoned(response, NoAnswer("connection_error"))
    if len(body) > MAX_ANSWER:
        response.close()
        return Answer(response.status_code, headers, bytes(body[:MAX_ANSWER]))
    length = headers.get("content-length", "")
    # Older urllib3 takes a connection that is closed too early for the end of the body.
    if length.isdigit() and len(body) < int(length) and "content-encoding" not in headers:
        return _abandoned(response, NoAnswer("connection_error"))
    return Answer(response.status_code, headers, bytes(body))


def _abandoned(response: requests.Response, absence: NoAnswer) -> NoAnswer:
    response.close()
    return absence
