"""The demo product, from the server's side: its story, its pages, both hosts, and the command.

What a browser makes of it (the events themselves) is in `browser/test_demo_walk.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from demos import __main__ as command
from demos.flask_host import create_app as flask_app
from demos.product import pages
from demos.product.chat import App, NotHere, Settled
from demos.product.desk import HEADERS, Visit, fields_of
from demos.product.html import Html, data_block, el
from demos.product.sample import INTEGRATIONS, PEOPLE, RECIPES, RUNTIMES
from demos.product.story import Story, Workspace, name_for, recipe_for
from demos.starlette_host import create_app as starlette_app
from second_mw import Analytics

MAREN, TOMAS, INES = (each.id for each in PEOPLE)
SECONDS = 10.0


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def story(clock: Clock) -> Story:
    return Story(build_seconds=SECONDS, clock=clock)


@pytest.fixture
def kestrel(story: Story) -> Workspace:
    return story.workspaces["kestrel-coffee"]


def begun(story: Story, workspace: Workspace, prompt: str) -> App:
    return story.start_app(workspace, story.people[MAREN], prompt)


def approved(app: App, now: float) -> None:
    """Answer every card up to the build."""
    app.act(app.cards[-1].id, "picked_suggestion", now, word=app.recipe.suggestions[0].title)
    app.act(app.cards[-1].id, "approved", now)
    app.act(app.cards[-1].id, "approved", now)


def kinds(answer: dict[str, Any]) -> list[str]:
    return [piece["kind"] for piece in answer["news"]]


# The story


def test_a_prompt_leads_over_suggestions_plan_and_agents_to_a_build(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = begun(story, kestrel, "A stock count that warns before beans run low")
    assert [card.type for card in app.cards] == ["suggestions"]
    app.act(app.cards[-1].id, "picked_suggestion", clock.now, word="Start with the count")
    assert app.cards[-1].type == "plan"
    app.act(app.cards[-1].id, "approved", clock.now)
    assert app.cards[-1].type == "agents"
    assert not app.busy
    app.act(app.cards[-1].id, "approved", clock.now)
    assert app.state == "building"
    clock.now += SECONDS
    answer = app.catch_up(clock.now)
    assert app.state == "ready"
    assert kinds(answer) == ["card_shown"] * 3 + ["build_over"]
    assert answer["app"]["bundle"] == {"file_count": 31, "total_bytes": 244432, "warning": None}


def test_a_build_ticks_its_steps_as_time_passes(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = begun(story, kestrel, "A notebook")
    approved(app, clock.now)

    def steps() -> list[str]:
        return [step["state"] for step in app.catch_up(clock.now)["thread"][-1]["steps"]]

    assert steps() == ["running", "waiting", "waiting", "waiting", "waiting"]
    clock.now += SECONDS / 2
    assert steps() == ["done", "done", "running", "waiting", "waiting"]


def test_a_build_fails_until_the_integration_it_needs_is_connected(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = begun(story, kestrel, "An invoice tracker that reads Ledgerly")
    approved(app, clock.now)
    clock.now += SECONDS
    answer = app.catch_up(clock.now)
    failed = next(entry for entry in answer["thread"] if entry["type"] == "build")
    assert app.state == "failed"
    assert failed["state"] == "failed"
    assert failed["fault"]["code"] == "integration_not_connected"
    assert failed["steps"][-1]["state"] == "failed"
    story.connect(kestrel, story.people[MAREN], "ledgerly")
    app.build(clock.now)
    clock.now += SECONDS
    app.settle(clock.now)
    assert app.state == "ready"


def test_requested_changes_come_back_as_a_changed_card(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = begun(story, kestrel, "A shift planner")
    app.act(app.cards[-1].id, "picked_suggestion", clock.now, word="Start with the week")
    app.act(app.cards[-1].id, "requested_changes", clock.now, word="Show names only")
    old, new = app.view(clock.now)["thread"][-4], app.view(clock.now)["thread"][-1]
    assert (old["state"], new["state"]) == ("requested_changes", "open")
    assert new["plan"]["features"][-1] == "As you asked: Show names only"
    app.act(app.cards[-1].id, "approved", clock.now)
    app.act(app.cards[-1].id, "requested_changes", clock.now, word="Only on weekdays")
    assert [card.type for card in app.cards][-2:] == ["agents", "agents"]
    assert app.cards[-1].open
    assert not app.agents_approved


def test_a_card_is_answered_once(story: Story, kestrel: Workspace, clock: Clock) -> None:
    app = begun(story, kestrel, "A notebook")
    card = app.cards[0]
    app.act(card.id, "picked_suggestion", clock.now, word="Start with the list")
    with pytest.raises(Settled):
        app.act(card.id, "picked_suggestion", clock.now, word="Start with the list")


@pytest.mark.parametrize(
    ("entry", "action", "word"),
    [
        ("nothing", "approved", ""),
        ("card", "approved", ""),
        ("card", "picked_suggestion", "Start with nothing"),
    ],
)
def test_an_answer_that_fits_no_card_is_not_taken(
    story: Story, kestrel: Workspace, clock: Clock, entry: str, action: str, word: str
) -> None:
    app = begun(story, kestrel, "A notebook")
    entry = app.cards[0].id if entry == "card" else entry
    with pytest.raises(NotHere):
        app.act(entry, action, clock.now, word=word)
    assert app.cards[0].open


def test_nothing_is_built_or_asked_while_a_build_or_a_card_waits(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = begun(story, kestrel, "A notebook")
    with pytest.raises(Settled):
        app.ask("Make it green", clock.now)
    with pytest.raises(Settled):
        app.build(clock.now)
    approved(app, clock.now)
    with pytest.raises(Settled):
        app.build(clock.now)
    with pytest.raises(Settled):
        app.ask("Make it green", clock.now)


def test_a_further_message_builds_the_app_again(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = begun(story, kestrel, "A notebook")
    approved(app, clock.now)
    clock.now += SECONDS
    app.settle(clock.now)
    app.ask("Make it green", clock.now)
    assert app.busy
    clock.now += SECONDS
    app.settle(clock.now)
    assert app.version == 2
    assert app.counts()["user_message_count"] == 2


def test_news_is_handed_out_once(story: Story, kestrel: Workspace, clock: Clock) -> None:
    app = begun(story, kestrel, "A notebook")
    assert kinds(app.catch_up(clock.now)) == ["card_shown"]
    assert kinds(app.catch_up(clock.now)) == []


def test_an_agent_runs_once_it_is_approved_and_says_what_it_found(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = begun(story, kestrel, "Count our stock")
    agent = app.recipe.agents[0]
    with pytest.raises(NotHere):
        app.run(app.agent_id(agent), "Look", clock.now)
    approved(app, clock.now)
    run = app.run(app.agent_id(agent), "Look", clock.now)
    assert run.view()["answer"] is None
    clock.now += SECONDS / 2
    assert "run_over" in kinds(app.catch_up(clock.now))
    assert run.view()["answer"] == agent.answer


def test_an_agent_fails_without_the_integration_it_needs(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = next(app for app in kestrel.apps.values() if app.name == "Invoice chaser")
    run = app.run(app.agent_id(app.recipe.agents[0]), "Look", clock.now)
    clock.now += SECONDS
    app.settle(clock.now)
    view = run.view()
    assert (view["state"], view["fault"]["phase"], view["fault"]["status"]) == (
        "failed",
        "start",
        424,
    )


def test_an_imported_app_is_built_as_it_is_and_has_no_chat_yet(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = story.import_app(kestrel, story.people[MAREN], "field-journal.zip")
    assert (app.name, app.has_chat, app.state) == ("Field journal", False, "building")
    clock.now += SECONDS
    app.settle(clock.now)
    assert app.bundle is not None
    assert app.bundle.warning is not None


def test_an_attached_file_is_counted_and_warned_about(
    story: Story, kestrel: Workspace, clock: Clock
) -> None:
    app = story.start_app(kestrel, story.people[MAREN], "A notebook", attachments=2)
    approved(app, clock.now)
    clock.now += SECONDS
    app.settle(clock.now)
    assert app.counts()["attachment_count"] == 2
    assert app.bundle is not None
    assert app.bundle.warning == "An attached file was not used."


def test_ids_are_the_same_at_each_start() -> None:
    first, second = (list(Story().workspaces["kestrel-coffee"].apps) for _ in range(2))
    assert first == second
    assert all(re.fullmatch("[0-9a-f]{24}", app_id) for app_id in first)


def test_build_seconds_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECOND_DEMO_BUILD_SECONDS", "0.5")
    assert Story().build_seconds == 0.5


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Track overdue invoices", "Invoice tracker"),
        ("A list of our field samples", "Field samples"),
        ("make me an app please", "Notebook"),
    ],
)
def test_an_app_is_named_after_its_prompt(prompt: str, name: str) -> None:
    assert name_for(prompt, recipe_for(prompt)) == name


def test_what_needs_what_exists() -> None:
    needed = {slug for recipe in RECIPES for slug in recipe.needs}
    for recipe in RECIPES:
        for agent in recipe.agents:
            needed.update(agent.integrations)
        needed.update(tool.integration for tool in recipe.tools if tool.integration)
    assert needed <= set(INTEGRATIONS)
    assert needed


def test_the_analytics_see_the_person_and_leave_the_mode_to_their_choice(story: Story) -> None:
    user = story.analytics_user(MAREN)
    assert user is not None
    assert (user.id, user.email, user.name, user.onboarded, user.anonymized) == (
        MAREN,
        "maren@kestrel-coffee.example",
        "Maren Okafor",
        True,
        None,
    )
    assert dict(user.workspaces or {}) == {"kestrel-coffee": "admin", "tidewater-labs": "member"}
    assert story.analytics_user(None) is None


# HTML


def test_text_is_escaped_and_html_is_not() -> None:
    assert el("p", "<b>", Html("<i></i>"), [None, ["&"]], title='"', hidden=True) == (
        '<p title="&quot;" hidden>&lt;b&gt;<i></i>&amp;</p>'
    )


def test_a_data_block_cannot_be_closed_from_inside() -> None:
    block = data_block("page", {"name": "</script><script>alert(1)</script>"})
    assert block.count("<") == 2
    text = block.partition(">")[2].rpartition("<")[0]
    assert json.loads(text) == {"name": "</script><script>alert(1)</script>"}


@pytest.mark.parametrize(
    ("content_type", "body", "fields"),
    [
        ("application/x-www-form-urlencoded", b"person=1&x=%C3%A9", {"person": "1", "x": "é"}),
        ("application/json", b'{"a": [1]}', {"a": [1]}),
        ("application/json", b"[1]", {}),
        ("application/json", b"{", {}),
        ("text/plain", b"a=1", {}),
    ],
)
def test_a_body_is_read_as_what_it_says_it_is(
    content_type: str, body: bytes, fields: dict[str, Any]
) -> None:
    assert fields_of(content_type, body) == fields


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None, 10_000])
def test_a_count_that_is_none_is_zero(value: Any) -> None:
    assert Visit(None, fields={"n": value}).count("n") == 0


# Both hosts


class Browser:
    """A person's browser without a screen: keeps cookies, follows nothing by itself."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._cookies = httpx.Cookies()

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self._send("GET", path, **more)

    def post(self, path: str, fields: Any = None, **headers: str) -> httpx.Response:
        return self._send("POST", path, json=fields or {}, headers=headers)

    def form(self, path: str, **fields: str) -> httpx.Response:
        return self._send("POST", path, data=fields)

    def sign_in(self, person: str) -> httpx.Response:
        return self.form("/sign-in", person=person)

    def _send(
        self, method: str, path: str, *, base: str = "http://localhost", **more: Any
    ) -> httpx.Response:
        if callable(getattr(self._app, "wsgi_app", None)):
            wsgi = httpx.WSGITransport(self._app)
            with httpx.Client(transport=wsgi, base_url=base, cookies=self._cookies) as client:
                answer = client.request(method, path, **more)
                self._cookies = client.cookies
            return answer
        return asyncio.run(self._awaited(base, method, path, **more))

    async def _awaited(self, base: str, method: str, path: str, **more: Any) -> httpx.Response:
        asgi = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(
            transport=asgi, base_url=base, cookies=self._cookies
        ) as client:
            answer = await client.request(method, path, **more)
            self._cookies = client.cookies
            return answer


@pytest.fixture(params=[flask_app, starlette_app], ids=["flask", "starlette"])
def browser(
    request: pytest.FixtureRequest, make: Callable[..., Analytics], story: Story
) -> Browser:
    """A browser of either host."""
    return Browser(request.param(make(), story))


@pytest.mark.parametrize("path", ["/sign-in", "/static/page.js", "/w/atlas"])
def test_a_name_that_somebody_points_at_this_machine_is_refused(
    browser: Browser, path: str
) -> None:
    assert browser.get(path, base="http://rebound.example").status_code == 400
    assert browser.get(path, base="http://127.0.0.1:8000").status_code != 400


class Reader(HTMLParser):
    """What a page holds: links, ids, references to ids, and what a strict policy forbids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.forbidden: list[str] = []
        self._stack: list[str] = []
        self.feed(page)
        assert self._stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("br", "hr", "img", "input", "link", "meta", "use"):
            self._stack.append(tag)
        for key in ("href", "src"):
            if (link := given.get(key)) and not link.startswith("/static/icons.svg"):
                self.links.add(link.partition("#")[0])
        if given.get("id"):
            self.ids.append(given["id"] or "")
        for key in ("for", "aria-labelledby", "aria-controls", "popovertarget"):
            if given.get(key):
                self.references.add(given[key] or "")
        inline = tag == "script" and "src" not in given and given.get("type") != "application/json"
        if tag == "style" or inline:
            self.forbidden.append(tag)
        self.forbidden += [key for key in given if key == "style" or key.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self._stack.pop() == tag


def test_every_link_of_the_product_leads_somewhere_and_every_page_is_sound(
    browser: Browser,
) -> None:
    browser.sign_in(MAREN)
    seen: set[str] = set()
    waiting = {"/"}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = browser.get(path)
        if answer.status_code == 303:
            waiting |= {answer.headers["location"]} - seen
            continue
        assert answer.status_code == 200, path
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        assert dict(answer.headers) | {k.lower(): v for k, v in HEADERS.items()} == dict(
            answer.headers
        )
        read = Reader(answer.text)
        assert read.forbidden == [], path
        assert len(read.ids) == len(set(read.ids)), path
        assert read.references <= set(read.ids) | {"window-title"}, path
        waiting |= read.links - seen
    assert {f"/w/kestrel-coffee/settings/{section}" for section in pages.SETTINGS} <= seen
    assert "/w/tidewater-labs" in seen
    assert "/api/analytics/client.js" in seen


def test_the_sign_in_page_says_that_everyone_is_invented(browser: Browser) -> None:
    page = browser.get("/sign-in").text
    assert "all they own are invented" in page
    assert all(each.name in page for each in PEOPLE)
    assert Reader(page).forbidden == []


@pytest.mark.parametrize("app", [flask_app, starlette_app])
def test_a_link_opens_the_inbox_if_there_is_one(
    app: Callable[..., Any], make: Callable[..., Analytics]
) -> None:
    page = Browser(app(make(), inbox="http://127.0.0.1:8765")).get("/sign-in").text
    assert '<a href="http://127.0.0.1:8765" target="_blank" rel="noopener">the inbox</a>' in page
    assert "inbox" not in Browser(app(make())).get("/sign-in").text


def test_a_visitor_is_asked_to_sign_in(browser: Browser) -> None:
    for path in ("/", "/w/kestrel-coffee", "/onboarding/intro"):
        assert browser.get(path).headers["location"] == "/sign-in"
    assert browser.form("/onboarding/finish").headers["location"] == "/sign-in"
    assert browser.post("/w/kestrel-coffee/apps", {"message": "x"}).status_code == 404
    assert browser.sign_in("nobody").status_code == 404


def test_another_teams_workspace_is_as_absent_as_none(browser: Browser) -> None:
    browser.sign_in(TOMAS)
    theirs, none = (browser.get(f"/w/{name}") for name in ("kestrel-coffee", "no-such-place"))
    assert theirs.status_code == none.status_code == 404
    assert theirs.text == none.text
    assert browser.get("/no/such/page").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "apps/aaaaaaaaaaaaaaaaaaaaaaaa",
        "apps/aaaaaaaaaaaaaaaaaaaaaaaa/agents",
        "settings/nonsense",
        "settings/integrations/nonsense",
    ],
)
def test_an_address_that_leads_nowhere_says_so(browser: Browser, path: str) -> None:
    browser.sign_in(MAREN)
    answer = browser.get(f"/w/kestrel-coffee/{path}")
    assert answer.status_code == 404
    assert "Nothing here" in answer.text


def test_onboarding_ends_once_and_the_next_page_says_so_once(browser: Browser) -> None:
    assert browser.sign_in(INES).headers["location"] == "/onboarding/intro"
    assert browser.get("/w/kestrel-coffee").headers["location"] == "/onboarding/intro"
    for step in pages.ONBOARDING:
        assert Reader(browser.get(f"/onboarding/{step}").text).forbidden == []
    assert browser.get("/onboarding/nonsense").status_code == 404
    assert browser.form("/onboarding/finish").headers["location"] == "/w/kestrel-coffee"
    fresh = ['"fresh": true' in browser.get("/w/kestrel-coffee").text for _ in range(2)]
    assert fresh == [True, False]
    browser.form("/onboarding/finish")
    assert '"fresh": true' not in browser.get("/w/kestrel-coffee").text
    assert browser.get("/onboarding/intro").headers["location"] == "/w/kestrel-coffee"


def test_sign_out_ends_the_session(browser: Browser) -> None:
    browser.sign_in(MAREN)
    assert browser.form("/sign-out").headers["location"] == "/sign-in"
    assert browser.get("/w/kestrel-coffee").headers["location"] == "/sign-in"


def test_the_account_menu_offers_usage_data_settings_and_a_sign_out_the_client_sees(
    browser: Browser,
) -> None:
    browser.sign_in(MAREN)
    page = browser.get("/w/kestrel-coffee").text
    assert "data-second-settings" in page
    assert "data-second-sign-out" in page
    assert '<script src="/api/analytics/client.js" defer></script>' in page
    assert '<script src="/api/analytics/settings.js" defer></script>' in page


def test_a_walk_through_an_apps_chat(browser: Browser, clock: Clock) -> None:
    browser.sign_in(MAREN)
    root = "/w/kestrel-coffee"
    assert browser.post(f"{root}/apps", {"message": " "}).status_code == 400
    made = browser.post(f"{root}/apps", {"message": "Count stock", "runtime": "codex"}).json()
    app = made["to"]
    view = browser.post(f"{app}/catch-up").json()
    assert view["app"]["runtime"]["id"] == "codex"
    assert view["waiting"] == 2
    pick = {
        "entry": view["thread"][-1]["id"],
        "action": "picked_suggestion",
        "word": "Start with the count",
    }
    view = browser.post(f"{app}/acts", pick).json()
    assert browser.post(f"{app}/acts", pick).status_code == 409
    for _ in ("plan", "agents"):
        entry = view["thread"][-1]["id"]
        view = browser.post(f"{app}/acts", {"entry": entry, "action": "approved"}).json()
    assert view["busy"]
    assert browser.post(f"{app}/builds").status_code == 409
    clock.now += SECONDS
    assert kinds(browser.post(f"{app}/catch-up").json()) == ["build_over"]
    run = browser.post(f"{app}/agents/{view['agents'][0]['id']}/runs", {"prompt": "Look"}).json()
    assert run["run"]["state"] == "running"
    assert not browser.post(f"{app}/messages", {"message": " "}).json()["thread"][-1]["open"]
    assert browser.post(f"{app}/messages", {"message": "Greener"}).json()["busy"]
    assert "Count stock" in browser.get(app).text


def test_a_failed_build_can_be_tried_again(browser: Browser, kestrel: Workspace) -> None:
    browser.sign_in(MAREN)
    failed = next(app for app in kestrel.apps.values() if app.state == "failed")
    answer = browser.post(f"/w/kestrel-coffee/apps/{failed.id}/builds")
    assert answer.json()["app"]["state"] == "building"


def test_integrations_imports_and_the_workspaces_agents_answer(browser: Browser) -> None:
    browser.sign_in(MAREN)
    root = "/w/kestrel-coffee"
    setup = f"{root}/settings/integrations/ledgerly"
    assert '"surface": "connected_apps"' in browser.get(f"{setup}?from=connected_apps").text
    assert '"surface": "integration_settings"' in browser.get(f"{setup}?from=nonsense").text
    assert browser.post(setup).json() == {"connected": True}
    assert "Connected" in browser.get(setup).text
    assert browser.post(f"{root}/settings/integrations/nonsense").status_code == 404
    assert browser.post(f"{root}/imports", {"name": "a-b.zip"}).json()["name"] == "A b"
    asked = browser.post(f"{root}/agents/morning-brief/messages", {"message": "?"})
    assert asked.json()["answer"]
    assert browser.post(f"{root}/agents/nobody/messages", {"message": "?"}).status_code == 404
    assert "connected Ledgerly" in browser.get(f"{root}/settings/audit-logs").text


def test_an_empty_workspace_says_what_to_do(browser: Browser) -> None:
    browser.sign_in(TOMAS)
    for path in ("", "/apps", "/reviews", "/available-apps"):
        assert 'class="empty"' in browser.get(f"/w/tidewater-labs{path}").text


def test_what_people_type_stays_text(browser: Browser) -> None:
    browser.sign_in(MAREN)
    made = browser.post(
        "/w/kestrel-coffee/apps", {"message": "</script><img src=x onerror=alert(1)>"}
    ).json()
    page = browser.get(made["to"]).text
    assert "<img src=x" not in page
    assert Reader(page).forbidden == []


# Wrapped by the analytics


@pytest.mark.parametrize(
    ("person", "workspace", "status"),
    [
        (None, "kestrel-coffee", 401),
        (INES, "kestrel-coffee", 403),
        (TOMAS, "kestrel-coffee", 404),
        (TOMAS, "tidewater-labs", 204),
        (MAREN, "kestrel-coffee", 204),
    ],
)
def test_an_event_is_taken_from_whom_it_may_be(
    browser: Browser, person: str | None, workspace: str, status: int
) -> None:
    if person is not None:
        browser.sign_in(person)
    event = {"event": "page viewed", "properties": {"workspace_id": workspace}}
    answer = browser.post("/api/analytics/capture", event, Origin="http://localhost")
    assert answer.status_code == status


def test_a_prefix_of_the_hosts_own_reaches_the_pages_script_tags(
    make: Callable[..., Analytics],
) -> None:
    browser = Browser(flask_app(make(prefix="/ink", client_name="quill.js")))
    page = browser.get("/sign-in").text
    assert '<script src="/ink/quill.js" defer></script>' in page
    assert browser.get("/ink/quill.js").status_code == 200


# The command


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind((command.LOOPBACK, 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error_with_a_way_out() -> None:
    with (
        taken_port() as port,
        pytest.raises(command.PortTaken, match=f"Port {port} is taken. Choose another with --port"),
    ):
        command.listen(port, 8000, "--port")


def test_a_default_port_that_is_taken_makes_room_for_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with taken_port() as port, command.listen(None, port, "--port") as bound:
        used = bound.getsockname()[1]
        assert used > port
    assert capsys.readouterr().out == f"Port {port} is taken, so {used} is used.\n"


@pytest.mark.parametrize("port", ["-1", "70000", "x"])
def test_a_port_that_is_none_is_wrong_usage(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parser().parse_args(["--port", port])
    assert ended.value.code == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--disable-telemetry", "--no-analytics"])
def test_either_flag_switches_analytics_off(flag: str) -> None:
    assert command.parser().parse_args([flag]).disable_telemetry


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m demos` with these arguments, and what it has printed once it is ready."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "demos", "--port", "0", "--inbox-port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    printed = ""
    try:
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            printed += line
        yield process, printed
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def addresses(printed: str) -> list[str]:
    return re.findall(r"http://127\.0\.0\.1:\d+", printed)


@pytest.mark.parametrize("host", ["flask", "starlette"])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_demo_and_inbox_and_ends_cleanly(
    host: str, ending: signal.Signals
) -> None:
    with running(host) as (process, printed):
        demo, inbox = addresses(printed)
        with urllib.request.urlopen(f"{demo}/sign-in", timeout=10) as answer:
            assert b"Sign in to Second" in answer.read()
        with urllib.request.urlopen(f"{inbox}/health", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(ending)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


def test_the_command_says_that_analytics_are_off() -> None:
    with running("--no-analytics") as (_, printed):
        assert "switched off (SECOND_TELEMETRY_DISABLED)" in printed
        demo = addresses(printed)[0]
        jar = urllib.request.HTTPCookieProcessor()
        opener = urllib.request.build_opener(jar)
        opener.open(f"{demo}/sign-in", data=f"person={MAREN}".encode(), timeout=10).close()
        with opener.open(f"{demo}/api/analytics/preferences", timeout=10) as answer:
            assert json.load(answer)["enabled"] is False


def test_a_wrong_setting_is_said_and_ends_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert command.main(["--inbox-port", "0", "--port", "0", "--outbox", "nonsense://"]) == 1
    assert "outbox" in capsys.readouterr().err


def test_every_runtime_of_the_composer_is_known() -> None:
    assert len({runtime.id for runtime in RUNTIMES}) == len(RUNTIMES)
