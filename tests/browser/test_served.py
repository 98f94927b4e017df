"""How the browser's files are made, served and put into a page: both adapters, and Chromium."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

import pytest
from markupsafe import escape
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait
from werkzeug.serving import make_server

from second_mw import Analytics, AnalyticsUser
from second_mw.preferences.memory import MemoryPreferences
from second_mw.user import Choice
from tests.browser.minify import HERE, SOURCES, minified, served
from tests.hosts import ADA
from tests.stores import Kept

PREFIX = "/api/analytics"
NAMES = list(SOURCES)
#: Spec §12 says 3.5 KB; of the two ways to read that, the smaller.
BUDGET = 3500


# What is served


@pytest.mark.parametrize("name", NAMES)
def test_what_is_served_is_what_the_minifier_makes_of_the_source(name: str) -> None:
    assert served(name).read_text("utf-8") == minified(name)


def test_the_client_is_within_its_budget() -> None:
    assert len(gzip.compress(served("client.js").read_bytes(), 9)) <= BUDGET


def test_the_client_needs_nothing_younger_than_es2019() -> None:
    # Of each later edition, the syntax that a hand or the minifier would be tempted by.
    younger = r"\?\?|\?\.(?!\d)|\?\?=|\|\|=|&&=|\b\d+n\b|#[a-z]|\bimport\b|\bawait using\b"
    for path in (HERE / "client.js", served("client.js")):
        code = re.sub(r"(?m)^\s*//.*$|/\^#!.*", "", path.read_text("utf-8"))
        code = re.sub(r'"[^"\n]*"', '""', code)
        assert re.findall(younger, code) == []


def test_nothing_in_either_file_names_another_place() -> None:
    for name in NAMES:
        text = served(name).read_text("utf-8")
        assert re.findall(r"https?://|//[\w.]+\.\w+", text) == []
        assert "eval(" not in text
        assert "cookie" not in text


# GET {prefix}/client.js, {prefix}/settings.js


def nobody(_: Any) -> None:
    raise AssertionError("no user is needed for a file")


@pytest.fixture
def ask(adapter: Any, make: Callable[..., Analytics]) -> Callable[..., Any]:
    return adapter(make(), nobody)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_served_to_anybody(ask: Any, name: str) -> None:
    reply = ask("GET", f"{PREFIX}/{name}")
    body = served(name).read_bytes()
    assert (reply.status, reply.body) == (200, body)
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["content-length"] == str(len(body))
    assert re.fullmatch(r'"[0-9a-f]{20}"', reply.headers["etag"])


def test_each_file_has_an_etag_of_its_own(ask: Any) -> None:
    assert len({ask("GET", f"{PREFIX}/{name}").headers["etag"] for name in NAMES}) == 2


def test_head_answers_as_get_does_without_the_body(ask: Any) -> None:
    got, asked = (ask(method, f"{PREFIX}/client.js") for method in ("GET", "HEAD"))
    assert (asked.status, asked.body) == (200, b"")
    assert asked.headers == got.headers


@pytest.mark.parametrize(
    ("written", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ('"other", {}', 304),
        ('"other",{},W/"third"', 304),
        ("*", 304),
        ('"other"', 200),
        ('W/"other"', 200),
        ("", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_browser_that_has_the_file_is_told_so(
    ask: Any, method: str, written: str, status: int
) -> None:
    etag = ask("GET", f"{PREFIX}/client.js").headers["etag"]
    reply = ask(method, f"{PREFIX}/client.js", if_none_match=written.format(etag))
    assert reply.status == status
    assert reply.headers["etag"] == etag
    assert reply.headers["cache-control"] == "no-cache"
    if status == 304:
        assert reply.body == b""


def test_a_url_that_names_the_version_is_kept_for_a_year(ask: Any) -> None:
    version = ask("GET", f"{PREFIX}/client.js").headers["etag"].strip('"')
    reply = ask("GET", f"{PREFIX}/client.js?v={version}")
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
    again = ask("GET", f"{PREFIX}/client.js?v={version}", if_none_match=f'"{version}"')
    assert (again.status, again.headers["cache-control"]) == (304, reply.headers["cache-control"])


@pytest.mark.parametrize("query", ["v=1", "v=", "x=1", "v={}&x=1", "V={}"])
def test_any_other_url_has_to_be_asked_again(ask: Any, query: str) -> None:
    version = ask("GET", f"{PREFIX}/client.js").headers["etag"].strip('"')
    reply = ask("GET", f"{PREFIX}/client.js?{query.format(version)}")
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-cache")


def test_nothing_but_get_and_head_is_answered(ask: Any) -> None:
    reply = ask("POST", f"{PREFIX}/client.js", b"")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("origin", "allowed"), [("https://www.example", True), ("https://evil.example", False)]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_of_an_allowed_origin_may_check_what_it_loads(
    name: str, origin: str, allowed: bool, adapter: Any, make: Callable[..., Analytics]
) -> None:
    """Where a script has an `integrity`, a browser takes it from another origin by CORS alone."""
    ask = adapter(make(allowed_origins="https://www.example"), nobody)
    etag = ask("GET", f"{PREFIX}/{name}").headers["etag"]
    replies = [
        ask("GET", f"{PREFIX}/{name}", origin=origin, sec_fetch_site="cross-site"),
        ask("GET", f"{PREFIX}/{name}", origin=origin, if_none_match=etag),
        ask("POST", f"{PREFIX}/{name}", b"", origin=origin),
    ]
    assert [reply.status for reply in replies] == [200, 304, 405]
    for reply in replies:
        assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert reply.headers["vary"] == "Origin"


def test_prefix_and_name_can_be_changed_and_the_old_ones_are_the_hosts(
    adapter: Any, make: Callable[..., Analytics]
) -> None:
    ask = adapter(make(prefix="/notes", client_name="n.js"), nobody)
    assert ask("GET", "/notes/n.js").body == served("client.js").read_bytes()
    assert ask("GET", "/notes/settings.js").body == served("settings.js").read_bytes()
    for path in ("/notes/client.js", f"{PREFIX}/client.js"):
        assert ask("GET", path).body == b"the host's own"


def test_a_disabled_deployment_serves_its_files_too(
    adapter: Any, make: Callable[..., Analytics]
) -> None:
    assert adapter(make(token=None), nobody)("GET", f"{PREFIX}/client.js").status == 200


# The tags


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "script"
        self.found.append(dict(attrs))


def attributes(tag: str) -> dict[str, str | None]:
    """Return the attributes of the one script tag, as a browser reads them."""
    parser = _Tags()
    parser.feed(tag)
    (found,) = parser.found
    return found


def data_of(tag: str) -> dict[str, str | None]:
    """Return the tag's data attributes."""
    return {key: value for key, value in attributes(tag).items() if key.startswith("data-")}


@pytest.mark.parametrize("name", NAMES)
def test_a_tag_names_the_version_and_the_hash_of_what_is_served(
    adapter: Any, make: Callable[..., Analytics], name: str
) -> None:
    analytics = make()
    tag = analytics.script_tag() if name == "client.js" else analytics.settings_tag()
    found = attributes(tag)
    assert set(found) == {"src", "integrity", "defer"}
    reply = adapter(analytics, nobody)("GET", found["src"])
    assert "immutable" in reply.headers["cache-control"]
    digest = base64.b64encode(hashlib.sha384(reply.body).digest()).decode()
    assert found["integrity"] == f"sha384-{digest}"


def test_a_tag_follows_the_mount_the_prefix_and_the_name(make: Callable[..., Analytics]) -> None:
    analytics = make(prefix="/notes", client_name="n.js")
    assert str(attributes(analytics.script_tag(mount="/app"))["src"]).startswith("/app/notes/n.js?")
    assert str(attributes(analytics.settings_tag())["src"]).startswith("/notes/settings.js?")


def test_data_attributes_are_written_as_html(make: Callable[..., Analytics]) -> None:
    tag = make().script_tag(mode='"><script>', hash=True, manual=False, none=None, a_b="'&")
    assert data_of(tag) == {"data-mode": '"><script>', "data-hash": None, "data-a-b": "'&"}
    assert tag.count("<") == 2


def test_a_tag_carries_the_pages_nonce(make: Callable[..., Analytics]) -> None:
    analytics = make()
    for tag in (analytics.script_tag(nonce='r"1'), analytics.settings_tag(nonce='r"1')):
        assert attributes(tag)["nonce"] == 'r"1'


@pytest.mark.parametrize("name", ["onload=x", "a b", "A", "", "1a", "a__b", 'a"'])
def test_a_name_that_is_none_is_refused(make: Callable[..., Analytics], name: str) -> None:
    with pytest.raises(ValueError, match="data attribute"):
        make().script_tag(**{name: "x"})


def test_templates_put_a_tag_into_a_page_as_it_is(make: Callable[..., Analytics]) -> None:
    tag = make().script_tag()
    assert str(escape(tag)) == tag


def chose(**choice: bool) -> MemoryPreferences:
    return Preferring(Choice(**choice))


class Preferring(MemoryPreferences):
    """Everybody has chosen the same."""

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.choice = choice

    def get(self, user_key: str) -> Choice | None:
        return self.choice


ANONYMIZED, IDENTIFIED = {"mode": "anonymized"}, {"mode": "identified"}


@pytest.mark.parametrize(
    ("user", "settings", "said"),
    [
        (ADA, {}, ANONYMIZED),
        (ADA, {"preferences": chose(anonymized=False)}, IDENTIFIED),
        (AnalyticsUser("u", anonymized=False), {}, IDENTIFIED),
        (ADA, {"preferences": chose(sharing=False)}, {}),
        (AnalyticsUser("u", sharing=False), {}, {}),
        (AnalyticsUser("u", onboarded=False), {}, {}),
        (ADA, {"token": None}, {}),
        (ADA, {"consent": "ask"}, {"consent": "ask"}),
        (
            ADA,
            {"consent": "ask", "preferences": chose(sharing=True)},
            {"consent": "ask", "mode": "anonymized"},
        ),
        (ADA, {"gpc": "drop"}, {}),
        (ADA, {"dnt": "anonymize"}, {}),
        (None, {}, {}),
        (None, {"consent": "ask"}, {"consent": "ask"}),
    ],
)
def test_a_tag_says_the_users_mode_where_nothing_else_has_to_be_asked(
    make: Callable[..., Analytics],
    user: AnalyticsUser | None,
    settings: dict[str, Any],
    said: dict[str, str],
) -> None:
    analytics = make(**settings)
    data = data_of(analytics.script_tag(user))
    if "mode" in said:
        assert user is not None
        assert data.pop("data-subject") == analytics.pipeline.user_key(user.id)[:4]
    assert data == {f"data-{key}": value for key, value in said.items()}


def test_the_page_has_the_last_word_on_a_tag(make: Callable[..., Analytics]) -> None:
    assert data_of(make().script_tag(ADA, mode=None, subject=None)) == {}


# In a page, in Chromium, over HTTP


@contextmanager
def page_of(analytics: Analytics, tag: str) -> Iterator[str]:
    """Serve one page with the tag on it, wrapped, under a strict policy; yield its URL."""

    def host(environ: Any, start_response: Any) -> Iterable[bytes]:
        page = f'<!doctype html><html lang="en"><title>Page</title>{tag}<body></body></html>'
        start_response(
            "200 OK",
            [
                ("Content-Type", "text/html; charset=utf-8"),
                ("Content-Security-Policy", "default-src 'none'; script-src 'self'; "
                 "connect-src 'self'"),
            ],
        )  # fmt: skip
        return [page.encode()]

    wrapped = analytics.wsgi(host, user=lambda _: ADA)
    server = make_server("127.0.0.1", 0, wrapped, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/w/acme"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.browser
def test_a_tag_works_under_a_strict_policy_and_a_page_view_reaches_the_outbox(
    chromium: webdriver.Chrome, make: Callable[..., Analytics]
) -> None:
    store = Kept()
    analytics = make(outbox=store)
    with page_of(analytics, analytics.script_tag(ADA)) as url:
        chromium.get(url)
        chromium.execute_async_script("secondAnalytics.flush().then(arguments[0]);")
        WebDriverWait(chromium, 60).until(lambda _: store.events)
        identifier = chromium.execute_script("return Object.values(localStorage).sort();")
        chromium.get("about:blank")
    (event,) = store.events
    assert event["event"] == "page viewed"
    assert event["distinct_id"] in identifier
    assert event["properties"]["route_shape"] == "/w/:workspace"
    assert event["properties"]["anonymized"] is True


@pytest.mark.browser
def test_a_file_that_was_changed_on_its_way_does_not_run(
    chromium: webdriver.Chrome, make: Callable[..., Analytics]
) -> None:
    analytics = make()
    tag = analytics.script_tag()
    wrong = tag.replace(str(attributes(tag)["integrity"]), f"sha384-{'A' * 64}")
    with page_of(analytics, wrong) as url:
        chromium.get(url)
        assert chromium.execute_script("return typeof secondAnalytics;") == "undefined"
        chromium.get("about:blank")
