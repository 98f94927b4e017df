"""The demo, used by a person with a real Chromium: which events come out, and what is in them.

The walk is `demos/walk.py`; the payloads are caught at the outbox, so what is compared here is
what PostHog would get.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from selenium import webdriver
from werkzeug.serving import make_server

from demos import screenshots
from demos.flask_host import create_app as flask_app
from demos.product.sample import PEOPLE, WORKSPACES
from demos.product.story import Story
from demos.starlette_host import create_app as starlette_app
from demos.walk import Walk, running
from second_mw import Analytics
from second_mw.privacy.catalogue import COMMON, Catalogue
from tests.stores import Kept

pytestmark = pytest.mark.browser

BUILD_SECONDS = 0.3
CATALOGUE = Catalogue.default().events
HOSTS = ["flask", "starlette"]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    if not (screenshots.CHROMIUM.exists() and screenshots.CHROMEDRIVER.exists()):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is not installed")
    with screenshots.chromium() as driver:
        yield driver


@pytest.fixture(autouse=True)
def _desk(driver: webdriver.Chrome) -> None:
    screenshots.Camera(driver).look()


@contextlib.contextmanager
def flask_served(analytics: Analytics, story: Story) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, flask_app(analytics, story), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def starlette_served(analytics: Analytics, story: Story) -> Iterator[str]:
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    config = uvicorn.Config(
        starlette_app(analytics, story), port=0, log_config=None, timeout_graceful_shutdown=2
    )
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(20)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


SERVED: dict[str, Callable[[Analytics, Story], contextlib.AbstractContextManager[str]]] = {
    "flask": flask_served,
    "starlette": starlette_served,
}


@contextlib.contextmanager
def demo(host: str, **fields: Any) -> Iterator[tuple[str, Kept]]:
    """The demo in this process, and the store that its events end in."""
    store = Kept()
    given = {"token": "phc_test", "host": "http://127.0.0.1:9", "outbox": store, **fields}
    analytics = Analytics(**given)
    try:
        with SERVED[host](analytics, Story(build_seconds=BUILD_SECONDS)) as address:
            yield address, store
    finally:
        analytics.close(timeout=1.0)


def everything(walk: Walk) -> None:
    """All that can be done in the demo, by Maren and then by Ines, each signing out at the end."""
    walk.arrive()
    walk.sign_in("Maren")
    walk.start_app()
    walk.pick("Start with the count")
    walk.request_changes("Count in bags of sixty")
    walk.approve_plan()
    walk.approve_agents()
    walk.see_built()
    walk.open_app()
    walk.run_agent("below two weeks")
    walk.go("Invoice chaser")
    walk.try_again()
    walk.see_failed()
    walk.run_agent("is not connected")
    walk.connect("Ledgerly")
    walk.go("Invoice chaser")
    walk.try_again()
    walk.see_built()
    walk.go("Library")
    walk.import_sample()
    walk.go("Agents")
    walk.ask_workspace_agent()
    walk.sign_out()
    walk.sign_in("Ines")
    walk.be_onboarded()
    walk.sign_out()


@dataclass
class Walked:
    """A walk through everything, and what came of it."""

    events: list[dict[str, Any]]
    stored: dict[str, str]
    console: list[dict[str, Any]]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event["properties"] for event in self.events if event["event"] == name]


@pytest.fixture(scope="module", params=HOSTS)
def walked(request: pytest.FixtureRequest, driver: webdriver.Chrome) -> Walked:
    with demo(request.param) as (address, store):
        walk = Walk(driver, address)
        driver.get_log("browser")
        everything(walk)
        stored = driver.execute_script("return {...localStorage}")
        return Walked(store.events, stored, driver.get_log("browser"))


def test_walking_the_demo_emits_every_event_of_the_catalogue(walked: Walked) -> None:
    assert {event["event"] for event in walked.events} == set(CATALOGUE)


def test_what_happened_once_is_told_once(walked: Walked) -> None:
    counts = Counter(event["event"] for event in walked.events)
    assert {name: counts[name] for name in CATALOGUE if name != "page viewed"} == {
        "onboarding finished": 1,
        "chat initiated": 2,
        "sidebar clicked": 7,
        "import existing app clicked": 1,
        "import existing app triggered": 1,
        "build completed": 3,
        "build failed": 1,
        "approval shown": 4,
        "approval acted": 4,
        "integration setup started": 1,
        "integration setup completed": 1,
        "app displayed": 1,
        "app agent triggered": 2,
        "app agent finished": 1,
        "app agent error": 1,
        "showed suggestions tool called": 1,
        "suggestion picked": 1,
        "agents approved": 1,
    }


def test_every_safe_property_of_every_event_arrives_and_no_other(walked: Walked) -> None:
    for name, event in CATALOGUE.items():
        own = {key for key, kind in event.properties.items() if kind.is_safe} - set(COMMON)
        arrived = {key for properties in walked.of(name) for key in properties}
        assert own <= arrived, name
        unsafe = {key for key, kind in event.properties.items() if not kind.is_safe}
        assert not arrived & unsafe, name


def test_nothing_a_person_would_be_known_by_leaves(walked: Walked) -> None:
    sent = json.dumps(walked.events).lower()
    known = [word for each in PEOPLE for word in (each.id, each.email, *each.name.split())]
    known += [*WORKSPACES, *WORKSPACES.values()]
    known += ["stock watch", "invoice chaser", "field journal", "reorder watch", "morning brief"]
    known += ["ledgerly", "before beans run low", "count in bags", "since monday", "not-a-secret"]
    assert [word for word in known if word.lower() in sent] == []


def test_every_event_is_anonymized_and_grouped_by_who_was_signed_in(walked: Walked) -> None:
    assert all(event["properties"]["anonymized"] is True for event in walked.events)
    ids = [event["distinct_id"] for event in walked.events]
    assert all(each.startswith("anon_") for each in ids)
    # Maren's events, then those of Ines: two ids, and no way back from one to the other.
    changes = sum(before != after for before, after in itertools.pairwise(ids))
    assert (len(set(ids)), changes) == (2, 1)


def test_nobodys_id_stays_in_the_browser_after_sign_out(walked: Walked) -> None:
    assert walked.stored == {}


def test_no_event_is_taken_from_someone_who_is_not_onboarded(walked: Walked) -> None:
    assert not any(event["properties"].get("surface") == "onboarding" for event in walked.events)


def test_no_page_breaks_its_own_policy(walked: Walked) -> None:
    # A visitor is told 401, someone not onboarded nothing; the console notes the former.
    wrong = [line["message"] for line in walked.console if " 401 " not in line["message"]]
    assert wrong == []


def test_an_app_can_be_imported_from_a_file_whose_name_stays_here(
    driver: webdriver.Chrome, tmp_path: Path
) -> None:
    file = tmp_path / "payroll-2026.zip"
    file.write_bytes(b"")
    with demo("flask") as (address, store):
        walk = Walk(driver, address)
        walk.sign_in("Tomas")
        walk.press("main [data-import]")
        driver.find_element("css selector", "#import input").send_keys(str(file))
        walk.see("h1", "Payroll 2026")
        walk.see_built()
        walk.sign_out()
    events = {event["event"]: event["properties"] for event in store.events}
    assert events["import existing app clicked"]["source"] == "empty_state"
    assert events["import existing app triggered"]["trigger"] == "upload_zip"
    assert events["build completed"]["has_warning"] is True
    assert "payroll" not in json.dumps(store.events).lower()


def test_whoever_turns_anonymity_off_is_identified_from_then_on_and_not_before(
    driver: webdriver.Chrome,
) -> None:
    maren = PEOPLE[0]
    with demo("flask") as (address, store):
        walk = Walk(driver, address)
        walk.sign_in("Maren")
        walk.go("Library")
        walk.send_with_name()
        walk.go("New app")
        walk.start_app()
        walk.pick("Start with the count")
        walk.stay_anonymous()
        walk.sign_out()
        events = store.events
    named = [event for event in events if event["distinct_id"] == maren.id]
    others = [event for event in events if event["distinct_id"] != maren.id]
    assert named[0]["event"] == "$identify"
    assert named[0]["properties"]["$set"]["email"] == maren.email
    assert all(event["distinct_id"].startswith("anon_") for event in others)
    # The id from before the choice is gone: what follows the way back can't be joined to it.
    assert others[0]["distinct_id"] != others[-1]["distinct_id"]
    assert "anon_" not in json.dumps(named)
    chat = next(event for event in named if event["event"] == "chat initiated")["properties"]
    assert chat["app_name"] == "Stock watch"
    assert chat["message"].startswith("A stock count")
    assert chat["workspace_id"] == "kestrel-coffee"
    assert chat["$pathname"] == "/w/kestrel-coffee"
    anonymous = json.dumps(others)
    assert maren.id not in anonymous
    assert "kestrel" not in anonymous


def test_the_demo_can_be_walked_on_a_phone(driver: webdriver.Chrome) -> None:
    with demo("flask") as (address, store):
        screenshots.Camera(driver).look(screenshots.PHONE)
        everything(Walk(driver, address))
        assert {event["event"] for event in store.events} == set(CATALOGUE)
        assert {event["properties"]["viewport_width"] for event in store.events} == {390}


@pytest.mark.parametrize("host", HOSTS)
def test_the_demo_works_without_analytics_and_keeps_nothing(
    driver: webdriver.Chrome, host: str
) -> None:
    with demo(host, token=None) as (address, store):
        walk = Walk(driver, address)
        walk.sign_in("Maren")
        walk.start_app()
        walk.pick("Start with the count")
        walk.approve_plan()
        walk.approve_agents()
        walk.see_built()
        assert driver.execute_script("return {...localStorage}") == {}
        assert store.events == []


def test_the_inbox_shows_what_a_visitor_of_the_demo_did(driver: webdriver.Chrome) -> None:
    with running("flask", build_seconds=BUILD_SECONDS) as where:
        walk = Walk(driver, where.demo)
        walk.sign_in("Maren")
        walk.start_app()
        walk.pick("Start with the count")
        walk.approve_plan()
        walk.approve_agents()
        walk.see_built()
        driver.get(where.inbox)
        walk.see("body", "build completed")
        walk.see("body", "approval acted")
