"""The demo, used by a person with a real Chromium: which events come out, and what is in them.

The walk is `demos/walk.py`; the payloads are those that the real inbox has, delivered by the real
forwarder, so what is compared here is what PostHog would get. `walk_anonymized.json` and
`walk_identified.json` hold them whole; after an intended change write them anew with
`SECOND_WRITE_WALK=1`, and read the difference.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException

from demos import screenshots
from demos.product.sample import PEOPLE, WORKSPACES
from demos.walk import Errors, Walk, running
from second_mw.privacy.catalogue import COMMON, Catalogue
from second_mw.version import VERSION
from tests.browser.demo import BUILD_SECONDS, HOSTS, PATIENCE, demo

pytestmark = pytest.mark.browser

CATALOGUE = Catalogue.default().events
WALKS = Path(__file__).parent


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    if not (screenshots.CHROMIUM.exists() and screenshots.CHROMEDRIVER.exists()):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is not installed")
    with screenshots.chromium() as driver:
        yield driver


@pytest.fixture(autouse=True)
def _desk(driver: webdriver.Chrome) -> None:
    screenshots.Camera(driver).look()


def everything(walk: Walk, *, named: bool = False) -> None:
    """All that can be done in the demo, by Maren and then by Ines, each signing out at the end.

    Args:
        walk: who walks.
        named: whether both turn anonymity off first.
    """
    walk.arrive()
    walk.sign_in("Maren")
    if named:
        walk.send_with_name()
        walk.go("New app")
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
    if named:
        walk.send_with_name()
        walk.go("Library")
    walk.sign_out()


@dataclass
class Walked:
    """A walk through everything, and what came of it."""

    events: list[dict[str, Any]]
    receipts: list[dict[str, Any]]
    stored: dict[str, str]
    console: list[dict[str, Any]]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event["properties"] for event in self.events if event["event"] == name]


def walk_through(
    driver: webdriver.Chrome,
    host: str,
    *,
    named: bool,
    size: tuple[int, int] = screenshots.DESK,
) -> Walked:
    with demo(host) as (address, arrived):
        screenshots.Camera(driver).look(size)
        walk = Walk(driver, address)
        driver.get_log("browser")
        everything(walk, named=named)
        stored = driver.execute_script("return {...localStorage}")
        events = json.loads(json.dumps(arrived.events).replace(address, "http://demo"))
        receipts = len([event for event in events if event["event"] != "$identify"])
        assert arrived.inbox.wait_for(lambda: len(arrived.inbox.receipts()) >= receipts, PATIENCE)
        return Walked(events, arrived.inbox.receipts(), stored, driver.get_log("browser"))


@pytest.fixture(scope="module", params=HOSTS)
def walked(request: pytest.FixtureRequest, driver: webdriver.Chrome) -> Walked:
    """The walk in anonymized mode."""
    return walk_through(driver, request.param, named=False)


@pytest.fixture(scope="module", params=HOSTS)
def walked_named(request: pytest.FixtureRequest, driver: webdriver.Chrome) -> Walked:
    """The walk in identified mode, from the choice on, and on a phone."""
    return walk_through(driver, request.param, named=True, size=screenshots.PHONE)


def settled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Payloads by event, whole, less what every event has and what differs from run to run."""
    payloads = []
    # In the order in which they happened: batches, and so modes, may overtake one another.
    for event in sorted(events, key=lambda event: event["timestamp"]):
        properties = dict(event["properties"])
        if "duration_ms" in properties:
            assert isinstance(properties["duration_ms"], int)
            properties["duration_ms"] = "some"
        person = "anon" if event["distinct_id"].startswith("anon_") else event["distinct_id"]
        payloads.append((event["event"], {"distinct_id": person, **properties}))
    first = payloads[0][1]
    common = {
        key: value
        for key, value in first.items()
        if all(key in each and each[key] == value for _, each in payloads)
    }
    by_event: dict[str, list[dict[str, Any]]] = {}
    for name, properties in payloads:
        own = {key: value for key, value in properties.items() if key not in common}
        by_event.setdefault(name, []).append(dict(sorted(own.items())))
    # How often these come is the business of others; which of them there are is compared.
    for name in {"page viewed", "$identify"} & set(by_event):
        different = {json.dumps(each, sort_keys=True): each for each in by_event[name]}
        by_event[name] = [different[key] for key in sorted(different)]
    return {"on every event": dict(sorted(common.items())), **dict(sorted(by_event.items()))}


def expected(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """What a walk has to bring, from its file."""
    file = WALKS / f"walk_{name}.json"
    if os.environ.get("SECOND_WRITE_WALK"):
        text = json.dumps(found, indent=1, ensure_ascii=False).replace(VERSION, "VERSION")
        file.write_text(f"{text}\n")
    read: dict[str, Any] = json.loads(file.read_text().replace("VERSION", VERSION))
    return read


def test_the_payloads_of_the_whole_walk_are_these_and_no_others(walked: Walked) -> None:
    found = settled(walked.events)
    assert found == expected("anonymized", found)


def test_the_payloads_of_the_whole_walk_with_a_name_are_these_and_no_others(
    walked_named: Walked,
) -> None:
    found = settled(walked_named.events)
    assert found == expected("identified", found)


def test_walking_with_a_name_and_on_a_phone_emits_every_event_too(walked_named: Walked) -> None:
    assert {event["event"] for event in walked_named.events} == {*CATALOGUE, "$identify"}
    widths = {each["properties"].get("viewport_width") for each in walked_named.events}
    assert widths == {screenshots.PHONE[0], None}  # $identify has none


def test_each_event_can_be_deduplicated_and_has_its_receipt(walked: Walked) -> None:
    keys = [(event["distinct_id"], event["uuid"]) for event in walked.events]
    assert len(set(keys)) == len(keys)
    assert {(each["distinct_id"], each["uuid"]) for each in walked.receipts} == set(keys)
    assert all(each["mode"] == "anonymized" for each in walked.receipts)


def test_a_name_is_sent_only_after_the_choice_and_with_no_anonymous_id(
    walked_named: Walked,
) -> None:
    people = {each.id for each in PEOPLE}
    named = [event for event in walked_named.events if event["distinct_id"] in people]
    others = [event for event in walked_named.events if event["distinct_id"] not in people]
    assert {event["distinct_id"] for event in named} == {PEOPLE[0].id, PEOPLE[2].id}
    assert all(event["distinct_id"].startswith("anon_") for event in others)
    assert "anon_" not in json.dumps(named)
    first = {person: next(e for e in named if e["distinct_id"] == person) for person in people
             if any(e["distinct_id"] == person for e in named)}  # fmt: skip
    assert {event["event"] for event in first.values()} == {"$identify"}
    assert "$process_person_profile" not in json.dumps(named)


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


def violations(walked: Walked) -> list[str]:
    # A visitor is told 401, someone not onboarded nothing; the console notes the former.
    return [line["message"] for line in walked.console if " 401 " not in line["message"]]


def test_no_page_breaks_its_own_policy(walked: Walked) -> None:
    assert violations(walked) == []


def test_no_page_breaks_its_own_policy_when_a_name_is_sent(walked_named: Walked) -> None:
    assert violations(walked_named) == []


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Node with given id does not belong to the document", StaleElementReferenceException),
        ("tab crashed", WebDriverException),
    ],
)
def test_a_page_that_goes_during_a_look_is_looked_at_again_and_a_crash_is_not(
    message: str, kind: type[WebDriverException]
) -> None:
    said = json.dumps({"value": {"error": "unknown error", "message": message, "stacktrace": ""}})
    with pytest.raises(WebDriverException, match=message) as raised:
        Errors().check_response({"status": 500, "value": said})
    assert type(raised.value) is kind


def test_on_a_phone_the_open_section_of_the_settings_is_in_sight(
    driver: webdriver.Chrome,
) -> None:
    in_sight = """
        const [list, here] = [".sections ul", ".sections [aria-current]"].map((selector) =>
            document.querySelector(selector)?.getBoundingClientRect());
        if (!list || !here) return false;
        // Lists scroll by whole pixels.
        return list.left < here.left + 1 && here.right - 1 < Math.min(list.right, innerWidth);
    """
    with demo("flask") as (address, _):
        screenshots.Camera(driver).look(screenshots.PHONE)
        walk = Walk(driver, address)
        walk.sign_in("Maren")
        walk.see("#composer")
        for section in ("overview", "integrations", "diagnostics"):
            driver.get(f"{address}/w/kestrel-coffee/settings/{section}")
            walk.wait(lambda: driver.execute_script(in_sight) or None, section)
        # What lies above has not moved for it.
        assert driver.execute_script("return scrollY") == 0


def test_an_app_can_be_imported_from_a_file_whose_name_stays_here(
    driver: webdriver.Chrome, tmp_path: Path
) -> None:
    file = tmp_path / "payroll-2026.zip"
    file.write_bytes(b"")
    with demo("flask") as (address, arrived):
        walk = Walk(driver, address)
        walk.sign_in("Tomas")
        walk.press("main [data-import]")
        driver.find_element("css selector", "#import input").send_keys(str(file))
        walk.see("h1", "Payroll 2026")
        walk.see_built()
        walk.sign_out()
        sent = arrived.events
    events = {event["event"]: event["properties"] for event in sent}
    assert events["import existing app clicked"]["source"] == "empty_state"
    assert events["import existing app triggered"]["trigger"] == "upload_zip"
    assert events["build completed"]["has_warning"] is True
    assert "payroll" not in json.dumps(sent).lower()


@pytest.mark.parametrize("host", HOSTS)
def test_whoever_turns_anonymity_off_is_identified_from_then_on_and_not_before(
    driver: webdriver.Chrome, host: str
) -> None:
    maren = PEOPLE[0]
    with demo(host) as (address, arrived):
        walk = Walk(driver, address)
        walk.sign_in("Maren")
        walk.go("Library")
        walk.send_with_name()
        walk.go("New app")
        walk.start_app()
        walk.pick("Start with the count")
        walk.stay_anonymous()
        walk.sign_out()
        events = arrived.events
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


@pytest.mark.parametrize("host", HOSTS)
def test_the_demo_works_without_analytics_and_keeps_nothing(
    driver: webdriver.Chrome, host: str
) -> None:
    with demo(host, token=None) as (address, arrived):
        walk = Walk(driver, address)
        walk.sign_in("Maren")
        walk.start_app()
        walk.pick("Start with the count")
        walk.approve_plan()
        walk.approve_agents()
        walk.see_built()
        assert driver.execute_script("return {...localStorage}") == {}
        assert arrived.events == []


@pytest.mark.parametrize("host", HOSTS)
def test_an_event_arrives_though_its_page_is_closed_right_after_the_click(
    driver: webdriver.Chrome, host: str
) -> None:
    with demo(host) as (address, arrived):
        walk = Walk(driver, address)
        walk.sign_in("Maren")
        walk.go("Library")
        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        driver.get(f"{address}/w/kestrel-coffee/library")
        walk.press("main [data-import]")
        driver.close()
        driver.switch_to.window(first)
        event = arrived.until("import existing app clicked")
        assert event["properties"]["source"] == "button"
        walk.sign_out()


@pytest.mark.parametrize("host", HOSTS)
def test_what_was_captured_before_a_sign_out_arrives_and_nothing_after_it(
    driver: webdriver.Chrome, host: str
) -> None:
    with demo(host) as (address, arrived):
        walk = Walk(driver, address)
        walk.sign_in("Maren")
        walk.go("Library")
        walk.press("main [data-import]")
        walk.press("#import .square")
        walk.sign_out()
        arrived.until("import existing app clicked")
        before = arrived.events
        assert len({event["distinct_id"] for event in before}) == 1
        assert driver.execute_script("return {...localStorage}") == {}
        driver.get(f"{address}/sign-in")
        driver.get("about:blank")
        assert arrived.events == before


@pytest.mark.parametrize("host", HOSTS)
def test_the_inbox_shows_what_a_visitor_of_the_demo_did(
    driver: webdriver.Chrome, host: str
) -> None:
    with running(host, build_seconds=BUILD_SECONDS) as where:
        walk = Walk(driver, where.demo)
        walk.sign_in("Maren")
        walk.start_app()
        walk.pick("Start with the count")
        walk.approve_plan()
        walk.approve_agents()
        walk.see_built()
        driver.get(where.inbox)
        walk.see(".row", "approval acted")
        walk.press(".row", "build completed")
        walk.see("#open h2", "build completed")
        walk.see("#open tbody tr", "kept: a count")
