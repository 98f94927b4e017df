"""Another site's page posts with this site's cookie: every way of saying where it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from second_mw.origin import normal_origin
from tests.abuse.drive import CAPTURE, PREFERENCES, Attack, Told, check

POST = Told()
PLAIN = POST.but(content_type="text/plain")
ALLOWED = {"allowed_origins": "https://www.example, https://[2001:db8::1]:8443"}
PROXY = {"trusted_proxies": 1}
TWO = {"trusted_proxies": 2}


def refused(name: str, told: Told, **settings: Any) -> Attack:
    return Attack(name, told, 403, "cross_origin", settings)


def passed(name: str, told: Told, **settings: Any) -> Attack:
    return Attack(name, told, 204, None, settings)


def seen(host: str, scheme: str = "http", **headers: str | None) -> Told:
    return replace(POST, host=host, scheme=scheme).but(**headers)


ATTACKS = [
    # Sec-Fetch-Site
    refused("a form of another site", POST.but(sec_fetch_site="cross-site")),
    refused("a sibling subdomain", POST.but(sec_fetch_site="same-site")),
    refused("a word that is none", POST.but(sec_fetch_site="same-origin, cross-site")),
    refused("an empty word", POST.but(sec_fetch_site="")),
    refused("same-origin by name, another by Origin",
            POST.but(sec_fetch_site="same-origin", origin="https://evil.example")),
    passed("the site itself", POST.but(sec_fetch_site="same-origin", origin="https://app.example")),
    passed("in capitals", POST.but(sec_fetch_site="Same-Origin")),
    # Origin
    refused("another site", POST.but(origin="https://evil.example")),
    refused("a sandboxed frame, null", POST.but(origin="null")),
    refused("an opaque origin, file", POST.but(origin="file://")),
    refused("an extension", POST.but(origin="chrome-extension://abcdef")),
    refused("a data document", POST.but(origin="data:")),
    refused("an empty Origin", POST.but(origin="")),
    refused("the scheme downgraded", POST.but(origin="http://app.example")),
    refused("another port", POST.but(origin="https://app.example:8443")),
    refused("a port out of range", POST.but(origin="https://app.example:99999")),
    refused("a suffix", POST.but(origin="https://app.example.evil.example")),
    refused("a prefix", POST.but(origin="https://evil-app.example")),
    refused("userinfo", POST.but(origin="https://app.example@evil.example")),
    refused("userinfo of the own name", POST.but(origin="https://x@app.example")),
    refused("a path", POST.but(origin="https://app.example/")),
    refused("a list of origins", POST.but(origin="https://app.example, https://evil.example")),
    refused("a list without a comma", POST.but(origin="https://app.example https://evil.example")),
    refused("a tab, which parsers drop", POST.but(origin="https://app.exam\tple")),
    refused("a backslash", POST.but(origin="https://app.example\\.evil.example")),
    refused("a bracket that is not closed", POST.but(origin="https://[::1")),
    passed("the default port said", POST.but(origin="https://app.example:443")),
    passed("capitals", POST.but(origin="HTTPS://APP.example")),
    # IPv6, IDN and ports
    passed("IPv6", seen("[::1]:8000", origin="http://[::1]:8000")),
    passed("IPv6 in another spelling", seen("[::1]", origin="http://[0:0:0:0:0:0:0:1]")),
    refused("another IPv6", seen("[::1]:8000", origin="http://[::2]:8000")),
    refused("IPv6 and another port", seen("[::1]:8000", origin="http://[::1]:8001")),
    passed("an international name",
           seen("xn--bcher-kva.example", origin="http://xn--bcher-kva.example")),
    refused("a look-alike of a name", seen("apple.example", origin="http://xn--pple-43d.example")),
    passed("a port", seen("app.example:8000", origin="http://app.example:8000")),
    refused("no port where there is one", seen("app.example:8000", origin="http://app.example")),
    refused("a Host that is none", seen("app.example:x", origin="http://app.example")),
    # Proxies
    refused("X-Forwarded without a trusted proxy",
            seen("inner:8000", origin="https://app.example", x_forwarded_proto="https",
                 x_forwarded_host="app.example")),
    passed("behind one proxy",
           seen("inner:8000", origin="https://app.example", x_forwarded_proto="https",
                x_forwarded_host="app.example"), **PROXY),
    passed("behind one that passes the host on",
           seen("app.example", origin="https://app.example", x_forwarded_proto="https"), **PROXY),
    passed("behind one that says the port apart",
           seen("app.example", origin="https://app.example:8443", x_forwarded_proto="https",
                x_forwarded_port="8443"), **PROXY),
    passed("whose port is said twice",
           seen("app.example:8443", origin="https://app.example:8443", x_forwarded_proto="https",
                x_forwarded_port="443"), **PROXY),
    passed("behind one and a forged hop before it",
           seen("inner", origin="https://app.example", x_forwarded_proto="http, https",
                x_forwarded_host="evil.example, app.example"), **PROXY),
    refused("a forged hop believed by nobody",
            seen("inner", origin="https://evil.example", x_forwarded_proto="https, https",
                 x_forwarded_host="evil.example, app.example"), **PROXY),
    passed("behind two",
           seen("inner", origin="https://app.example", x_forwarded_proto="https, http",
                x_forwarded_host="app.example, inner.example"), **TWO),
    passed("behind two, of which the nearer overwrites",
           seen("inner", origin="https://app.example", x_forwarded_proto="https",
                x_forwarded_host="app.example"), **TWO),
    passed("behind one that says nothing", seen("app.example", "https",
           origin="https://app.example", x_forwarded_host=""), **PROXY),
    # text/plain, which any page can post without a preflight
    refused("text/plain from nowhere", PLAIN),
    refused("text/plain and another Referer", PLAIN.but(referer="https://evil.example/x")),
    refused("text/plain and a look-alike Referer",
            PLAIN.but(referer="https://app.example.evil.example/")),
    refused("text/plain and a Referer that is none", PLAIN.but(referer="about:client")),
    refused("text/plain and a broken Referer", PLAIN.but(referer="https://[::1")),
    refused("text/plain and a Referer of http", PLAIN.but(referer="http://app.example/")),
    refused("a parameter does not make it JSON", PLAIN.but(
        content_type="text/plain; application/json")),
    passed("text/plain from the site", PLAIN.but(referer="https://app.example/w/1?x#y")),
    passed("text/plain by Origin", PLAIN.but(origin="https://app.example")),
    passed("text/plain by Sec-Fetch-Site", PLAIN.but(sec_fetch_site="same-origin")),
    passed("a WebView that says nothing, where it may", PLAIN, webviews=True),
    refused("and one that says where else it is", PLAIN.but(referer="https://evil.example/"),
            webviews=True),
    refused("and another site's", PLAIN.but(origin="https://evil.example"), webviews=True),
    # The allowed list
    passed("an allowed origin", POST.but(origin="https://www.example", sec_fetch_site="cross-site"),
           **ALLOWED),
    passed("an allowed IPv6 origin", POST.but(origin="https://[2001:db8::1]:8443"), **ALLOWED),
    passed("an allowed beacon", PLAIN.but(origin="https://www.example"), **ALLOWED),
    refused("one that is not allowed", POST.but(origin="https://evil.example"), **ALLOWED),
    refused("allowed but for the scheme", POST.but(origin="http://www.example"), **ALLOWED),
    refused("allowed but for the port", POST.but(origin="https://www.example:8443"), **ALLOWED),
    refused("null is never allowed", POST.but(origin="null"), **ALLOWED),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_request_passes_only_from_this_site_or_an_allowed_one(attack, ask, make) -> None:
    check(attack, ask, make(**attack.settings))


def test_a_refused_origin_gets_no_permission_and_an_allowed_one_only_its_own(ask, make) -> None:
    analytics = make(**ALLOWED)
    for origin, expected in (
        ("https://evil.example", None),
        ("null", None),
        ("https://www.example", "https://www.example"),
    ):
        headers = ask(analytics, POST.but(origin=origin)).headers
        assert headers.get("access-control-allow-origin") == expected
        assert headers.get("access-control-allow-credentials") == (expected and "true")
        assert headers["vary"] == "Origin"
    assert "vary" not in ask(make(), POST).headers


@pytest.mark.parametrize(
    ("name", "user", "told", "settings"),
    [
        ("400", None, replace(POST, parts=(b"{",)), {}),
        ("415", None, POST.but(content_type="text/html"), {}),
        ("405", None, replace(POST, method="DELETE"), {}),
        ("413", None, replace(POST, parts=(b" " * 300_000,)), {}),
        ("429", None, POST, {"rate": "1/minute"}),
    ],
)
def test_errors_to_an_allowed_origin_can_be_read_by_it(
    name: str, user: Any, told: Told, settings: dict[str, Any], ask, make
) -> None:
    analytics = make(**ALLOWED, **settings)
    if settings:
        ask(analytics, told)
    reply = ask(analytics, told.but(origin="https://www.example"))
    assert str(reply.status) == name
    assert reply.headers["access-control-allow-origin"] == "https://www.example"
    assert reply.headers["access-control-expose-headers"] == "Retry-After"


@pytest.mark.parametrize(("path", "methods"), [(CAPTURE, "POST"), (PREFERENCES, "GET, PUT")])
def test_a_preflight_is_answered_to_listed_origins_only_and_asks_nobody(
    path: str, methods: str, ask, make
) -> None:
    def fails(_: Any) -> None:
        raise AssertionError("a preflight has no cookie: nobody can be asked for")

    analytics = make(**ALLOWED)
    asked = Told("OPTIONS", path, (("access-control-request-method", "POST"),), ())
    reply = ask(analytics, asked.but(origin="https://www.example"), fails)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-methods"] == methods
    assert reply.headers["access-control-allow-origin"] == "https://www.example"
    assert "*" not in str(reply.headers)
    for origin in ("https://evil.example", "null", None):
        reply = ask(analytics, asked.but(origin=origin), fails)
        assert (reply.status, reply.headers["allow"]) == (405, methods)
        assert "access-control-allow-origin" not in reply.headers


def test_an_origin_that_the_browser_calls_its_own_is_hinted_at_once(ask, make, caplog) -> None:
    analytics = make()
    told = seen("inner:8000", origin="https://app.example", sec_fetch_site="same-origin")
    for _ in range(3):
        assert ask(analytics, told).status == 403
    (record,) = [r for r in caplog.records if "trusted_proxies" in r.getMessage()]
    assert "app.example" not in record.getMessage()


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("https://bücher.example", "https://xn--bcher-kva.example:443"),
        ("https://app.example.", "https://app.example:443"),
        ("http://app.example:", "http://app.example:80"),
        ("http://[2001:DB8:0::1]", "http://2001:db8::1:80"),
        ("https://.", None),
        ("https://" + "a" * 70 + "ü.example", None),
        ("https://[::g]", None),
        ("https://app.example?x", None),
        ("https://app.example#x", None),
        ("https://:x@app.example", None),
    ],
)
def test_an_origin_has_one_spelling(written: str, normal: str | None) -> None:
    assert normal_origin(written) == normal
