"""The demo in a real Chromium when things go wrong: what lies in the inbox afterwards.

Each trouble has its real cause where it can have one: a 503 is an outbox that is full because
PostHog is down, a 429 is the rate. What happens on the way is `line.py`'s: a line between browser
and host that can be cut or hang. What is asserted is what the real forwarder has delivered to the
real inbox: every event once, under whose id, and nothing that joins two modes or two people.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from selenium import webdriver

from demos.product.sample import PEOPLE
from demos.screenshots import Camera
from demos.walk import Walk
from second_mw import AnalyticsUser
from tests.browser.conftest import forget
from tests.browser.demo import HOSTS, Arrived, demo
from tests.browser.host import EARLY
from tests.browser.line import Line

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

MAREN, TOMAS = PEOPLE[0], PEOPLE[1]
#: The button of the library's page: an event that one click brings, on a page that stays.
CLICK = "import existing app clicked"
IDENTIFIED, ANONYMIZED = "identified", "anonymized"
#: After three seconds a page guesses its mode. No busy machine shall decide what a test sees.
PATIENT = """
    const real = window.setTimeout;
    window.setTimeout = (work, ms, ...given) => real(work, ms === 3000 ? 60000 : ms, ...given);
"""

Event = dict[str, Any]


@dataclass
class Visit:
    """Somebody at the demo, over a line that may have troubles."""

    driver: webdriver.Chrome
    walk: Walk
    line: Line
    arrived: Arrived

    # A page that is left before it knows its mode sends what happened on it under nobody's id:
    # that is no trouble, so whoever comes to a page waits until it knows.

    def sign_in(self, name: str, *, mode: str = ANONYMIZED) -> None:
        """Choose one of the three people."""
        self.walk.sign_in(name)
        self.walk.see("#composer")
        self.flush()
        if mode == IDENTIFIED:
            self.walk.send_with_name()
            self.flush()

    def go(self, words: str) -> None:
        """Follow a link of the rail."""
        self.walk.go(words)
        self.walk.see("#rail a[aria-current=page]", words)
        self.flush()

    def leave(self, words: str) -> None:
        """Follow a link of the rail while there is no connection."""
        # Not by the emulation alone, which may be gone before the page is: by a try that failed.
        self.flush()
        self.walk.go(words)
        shown = "return document.querySelector('main') !== null"
        self.walk.wait(lambda: not self.driver.execute_script(shown), "the browser's own page")
        # That one would load the demo's again by itself, as soon as there is a connection.
        self.driver.get("about:blank")

    def see_kept(self) -> None:
        """Wait until a `CLICK` is in storage: a page that is left may still be writing."""
        self.driver.get(f"{self.line.url}/static/mark.svg")
        self.walk.wait(lambda: CLICK in f"{self.stored()}" or None, "what is kept")

    def open(self, path: str) -> None:
        """Load a page of the demo."""
        self.driver.get(self.line.url + path)
        self.flush()

    def click(self) -> None:
        """Do what one `CLICK` event tells of."""
        self.walk.press("main [data-import]")
        self.walk.press("#import .square")

    def flush(self) -> None:
        """Wait until the page knows its mode, and what waits in it has been tried."""
        self.driver.execute_async_script("secondAnalytics.flush().then(arguments[0]);")

    def stored(self) -> dict[str, str]:
        """Return everything in localStorage."""
        stored: dict[str, str] = self.driver.execute_script("return {...localStorage};")
        return stored

    def refused(self, status: int) -> bool:
        """Whether the host has answered an event with this status."""
        return any(each.answer.status == status for each in self.line.answers("/capture"))

    @contextlib.contextmanager
    def offline(self) -> Iterator[None]:
        """Take the browser off the network, and back onto it."""
        self.line.cut()
        self._emulate(offline=True)
        try:
            yield
        finally:
            self.line.mend()
            self._emulate(offline=False)

    def _emulate(self, *, offline: bool) -> None:
        self.driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
        )

    @contextlib.contextmanager
    def before_each_page(self, script: str) -> Iterator[None]:
        """Run a script in this tab's pages before any of their own."""
        tab = self.driver.current_window_handle
        added = self._before_each_page(script)
        try:
            yield
        finally:
            self.at(tab)
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    def _before_each_page(self, script: str) -> dict[str, str]:
        # In braces, because each script of a page sees the names of all others.
        source = {"source": f"{{{script}}}"}
        added: dict[str, str] = self.driver.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", source
        )
        return added

    def new_tab(self, path: str) -> str:
        """Load a page of the demo in a tab of its own, and return its handle."""
        self.driver.switch_to.new_window("tab")
        self._before_each_page(PATIENT)
        self.open(path)
        return self.driver.current_window_handle

    def at(self, tab: str) -> None:
        """Go to a tab."""
        self.driver.switch_to.window(tab)

    def asked(self, page: str, since: int) -> bool:
        """Whether a page has asked for the mode since so many answers, and got it."""
        return any(
            each.method == "GET"
            and each.path.endswith("/preferences")
            and each.referer.endswith(page)
            for each in self.line.exchanges[since:]
        )

    def become(self, person: str) -> None:
        """Have the browser's session be another person's, without a page that tells of it."""
        self.driver.execute_async_script(
            """
            const body = new URLSearchParams({ person: arguments[0] });
            fetch("/sign-in", { method: "POST", body }).then(() => arguments[1]());
            """,
            person,
        )


Visits = Callable[..., contextlib.AbstractContextManager[Visit]]


@pytest.fixture(params=HOSTS)
def visit(request: pytest.FixtureRequest, chromium: webdriver.Chrome) -> Visits:
    """Visits to the demo of one host, given the settings of its analytics."""

    @contextlib.contextmanager
    def visit(*, early: str = PATIENT, **fields: Any) -> Iterator[Visit]:
        # Cookies know no port: an earlier demo's session is none of this one's.
        chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
        Camera(chromium).look()
        with demo(request.param, **fields) as (address, arrived), Line(address) as line:
            forget(chromium, line.url)
            here = Visit(chromium, Walk(chromium, line.url), line, arrived)
            with here.before_each_page(early):
                yield here
                for handle in chromium.window_handles:
                    here.at(handle)
                    chromium.get("about:blank")
        chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})

    return visit


def told(events: list[Event], *names: str) -> dict[str, int]:
    """Return how often each of these was told; every event that was kept has a uuid of its own."""
    assert len({event["uuid"] for event in events}) == len(events)
    counts = Counter(event["event"] for event in events)
    return {name: counts[name] for name in names}


def ids(events: list[Event]) -> set[str]:
    return {event["distinct_id"] for event in events}


def clicks(events: list[Event]) -> list[Event]:
    """Return the `CLICK`s in the order in which they happened."""
    found = [event for event in events if event["event"] == CLICK]
    return sorted(found, key=lambda event: event["timestamp"])


def console_of(here: Visit) -> list[str]:
    """Return what is in the console and new, but that a visitor was told 401."""
    lines = [line["message"] for line in here.driver.get_log("browser")]
    return [line for line in lines if " 401 " not in line]


def assert_nothing_joins(some: list[Event], others: list[Event]) -> None:
    """No id of some events is anywhere in the others, nor the other way round."""
    for one, other in ((some, others), (others, some)):
        text = json.dumps(other)
        assert one
        marks = {mark for event in one for mark in (event["distinct_id"], event["uuid"])}
        assert [mark for mark in marks if mark in text] == []


def those_of_the_next(events: list[Event], hers: list[Event], clicked: int) -> list[Event]:
    """Return what is not hers, which is one person's and joins nothing of hers.

    Args:
        events: all that arrived.
        hers: what had arrived, or was kept, while she was there.
        clicked: how many `CLICK`s arrived.
    """
    assert told(events, CLICK) == {CLICK: clicked}
    his = [each for each in events if each not in hers]
    assert len(ids(his)) == 1
    assert_nothing_joins(hers, his)
    return his


# The network


def test_what_is_done_offline_arrives_once_when_the_browser_is_back(visit: Visits) -> None:
    with visit() as here:
        here.sign_in("Maren")
        here.go("Library")
        here.click()
        here.flush()
        with here.offline():
            here.click()
        # It stayed on its page, and hears that it is online again.
        here.arrived.until(CLICK, 2)
        with here.offline():
            here.click()
            here.leave("Agents")
        # It had to leave its page; the next one finds what waits.
        here.see_kept()
        here.open("/w/kestrel-coffee/agents")
        here.arrived.until(CLICK, 3)
        here.arrived.until("sidebar clicked", 2)
        here.flush()
        events = here.arrived.events
        assert told(events, CLICK, "sidebar clicked") == {CLICK: 3, "sidebar clicked": 2}
        (own,) = ids(events)
        assert own.startswith("anon_")


def test_a_host_that_answers_no_more_costs_no_event_and_doubles_none(visit: Visits) -> None:
    # Half a minute is long for a test: the browser gives up sooner.
    hasty = "const t = AbortSignal.timeout; AbortSignal.timeout = () => t.call(AbortSignal, 2000);"
    with visit() as here, here.before_each_page(hasty):
        here.sign_in("Maren")
        here.go("Library")
        # Taken, but the browser never hears of it: it asks again, which counts once.
        here.line.lose("/capture")
        here.click()
        here.line.until(lambda: f"{here.line.waiting}".count(CLICK) > 1)
        here.line.mend()
        here.flush()
        assert len(clicks(here.arrived.events)) == 1
        # Not even taken; in the end the host hears of every try.
        here.line.hold("/capture")
        here.click()
        here.line.until(lambda: f"{here.line.waiting}".count(CLICK) > 1)
        here.line.mend()
        here.arrived.until(CLICK, 2)
        here.flush()
        events = here.arrived.events
        assert told(events, CLICK, "sidebar clicked") == {CLICK: 2, "sidebar clicked": 1}
        assert len(ids(events)) == 1


def test_while_the_mode_hangs_pages_work_and_events_are_nobodys(visit: Visits) -> None:
    with visit(early="") as here:
        here.sign_in("Maren", mode=IDENTIFIED)
        here.line.hold("/preferences")
        here.driver.get(f"{here.line.url}/w/kestrel-coffee/library")
        here.click()
        here.arrived.until(CLICK)
        assert here.stored() == {}
        here.line.mend()

        def is_known() -> bool:
            here.click()
            here.flush()
            return MAREN.id in ids(clicks(here.arrived.events)[-1:])

        here.walk.wait(is_known, "an event under the name that she chose to be known by")
        events = here.arrived.events
        *guessed, _ = clicks(events)
        # Each under an id of its own.
        assert len(ids(guessed)) == len(guessed)
        assert all(event["distinct_id"].startswith("anon_") for event in guessed)
        assert_nothing_joins(guessed, [each for each in events if each not in guessed])


# The host says no for now


@pytest.mark.parametrize("mode", [ANONYMIZED, IDENTIFIED])
def test_what_a_full_outbox_refuses_arrives_once_posthog_is_up_again(
    visit: Visits, mode: str
) -> None:
    with visit(outbox="memory://?max=200") as here:
        here.sign_in("Maren", mode=mode)
        here.go("Library")
        here.arrived.inbox.fail = "503"
        server, taken = AnalyticsUser("u_1"), 0
        while here.arrived.analytics.capture(server, "build completed", {"file_count": taken}):
            taken += 1
        here.click()
        here.flush()
        assert here.refused(503)
        if mode == ANONYMIZED:
            # What waits is kept for the next page; of a name nothing is ever kept in a browser.
            here.go("Agents")
        here.arrived.inbox.fail = None
        here.arrived.until(CLICK)
        here.flush()
        events = here.arrived.events
        # In the sidebar: the library, and then the agents or, to choose, the account.
        expected = {CLICK: 1, "sidebar clicked": 2, "build completed": taken}
        assert told(events, *expected) == expected
        hers = [each for each in events if each["event"] != "build completed"]
        (click,) = clicks(events)
        if mode == ANONYMIZED:
            assert ids(hers) == {click["distinct_id"]}
        else:
            assert click["distinct_id"] == MAREN.id


def test_what_is_over_the_rate_arrives_when_its_time_has_come(visit: Visits) -> None:
    with visit(rate="1/5 seconds") as here:
        here.sign_in("Tomas")
        clicked = 0
        while not (clicked and here.refused(429)):
            here.click()
            clicked += 1
            here.flush()
        here.arrived.until(CLICK, clicked)
        here.flush()
        events = here.arrived.events
        assert told(events, CLICK) == {CLICK: clicked}
        assert len(ids(events)) == 1


# The browser says no


def test_where_storage_is_blocked_nothing_is_lost_and_no_page_is_joined_to_the_next(
    visit: Visits,
) -> None:
    with visit() as here, here.before_each_page(EARLY["no-storage"]):
        here.driver.get_log("browser")
        here.sign_in("Maren")
        here.go("Library")
        here.click()
        here.click()
        here.go("Agents")
        here.walk.ask_workspace_agent()
        here.walk.sign_out()
        blocked = "try { localStorage } catch (error) { return error.name }"
        assert here.driver.execute_script(blocked) == "SecurityError"
        here.arrived.until("chat initiated")
        # The account menu, too, is in the sidebar.
        here.arrived.until("sidebar clicked", 3)
        events = here.arrived.events
        expected = {CLICK: 2, "chat initiated": 1, "sidebar clicked": 3, "page viewed": 3}
        assert told(events, *expected) == expected
        by_page: dict[str, set[str]] = {}
        for event in events:
            page = event["properties"]["route_shape"]
            by_page.setdefault(page, set()).add(event["distinct_id"])
        assert [len(own) for own in by_page.values()] == [1, 1, 1]
        assert len(ids(events)) == 3
        assert console_of(here) == []


def test_global_privacy_control_wins_over_the_choice_as_long_as_it_is_on(visit: Visits) -> None:
    with visit() as here:
        here.sign_in("Maren", mode=IDENTIFIED)
        here.go("Library")
        here.click()
        here.flush()
        here.arrived.until(CLICK)
        before = len(here.arrived.events)
        with here.before_each_page(EARLY["gpc"]):
            here.line.added["Sec-GPC"] = "1"
            here.open("/w/kestrel-coffee/library")
            here.click()
            here.flush()
            here.go("Agents")
            here.walk.see_anonymity_kept()
            here.flush()
            here.arrived.until(CLICK, 2)
            under = here.arrived.events[before:]
        here.line.added.clear()
        here.open("/w/kestrel-coffee/library")
        here.click()
        here.flush()
        here.arrived.until(CLICK, 3)
        first, second, third = clicks(here.arrived.events)
        assert first["distinct_id"] == third["distinct_id"] == MAREN.id
        assert ids(under) == {second["distinct_id"]}
        assert second["distinct_id"].startswith("anon_")
        named = [each for each in here.arrived.events if each["distinct_id"] == MAREN.id]
        assert_nothing_joins(under, named)
        assert MAREN.email not in json.dumps(under)


def test_the_demos_pages_allow_no_inline_script_and_their_analytics_need_none(
    visit: Visits,
) -> None:
    with visit() as here:
        here.driver.get_log("browser")
        here.sign_in("Maren", mode=IDENTIFIED)
        here.go("Library")
        here.click()
        here.flush()
        assert clicks(here.arrived.events)
        assert console_of(here) == []
        answers = [each.answer for each in here.line.exchanges]
        pages = [each for each in answers if each.header("Content-Type").startswith("text/html")]
        assert len(pages) >= 3
        for page in pages:
            policy = page.header("Content-Security-Policy")
            assert "default-src 'self';" in policy
            assert re.search("unsafe|script-src|style-src|connect-src", policy) is None
        # And the browser holds the page to it.
        here.driver.execute_script(
            """
            for (const [tag, text] of [["script", "window.broken = 1"], ["style", "p {}"]]) {
                const inline = document.createElement(tag);
                inline.textContent = text;
                document.head.append(inline);
            }
            """
        )
        assert here.driver.execute_script("return window.broken") is None
        refused = [line for line in console_of(here) if "Content Security Policy" in line]
        assert len(refused) == 2


# More than one tab, mode, person


def test_two_tabs_are_one_person_in_each_mode_and_end_together(visit: Visits) -> None:
    with visit() as here:
        here.sign_in("Maren")
        here.go("Library")
        one = here.driver.current_window_handle
        here.click()
        here.flush()
        two = here.new_tab("/w/kestrel-coffee/library?tab=two")
        here.click()
        here.flush()
        # One is told of what was chosen in two, and asks.
        for choose in (here.walk.send_with_name, here.walk.stay_anonymous):
            here.at(two)
            before = len(here.line.exchanges)
            choose()
            here.click()
            here.flush()
            here.line.until(lambda since=before: here.asked("/library", since))
            here.at(one)
            here.flush()
            here.click()
            here.flush()
        here.driver.execute_script(
            """
            window.told = new Promise((done) => addEventListener("storage", ({ newValue }) => {
                if (newValue === "signed out") done();
            }));
            """
        )
        here.at(two)
        here.walk.sign_out()
        here.at(one)
        here.driver.execute_async_script("told.then(() => setTimeout(arguments[0]));")
        here.click()
        here.flush()
        here.at(two)
        assert here.stored() == {}
        events = here.arrived.events
        assert told(events, CLICK) == {CLICK: 6}
        shared, also_shared, *named, renewed, also_renewed = [
            each["distinct_id"] for each in clicks(events)
        ]
        assert shared == also_shared != renewed == also_renewed
        assert named == [MAREN.id, MAREN.id]
        by_mode = {
            mode: [each for each in events if (each["distinct_id"] == MAREN.id) is mode]
            for mode in (True, False)
        }
        assert_nothing_joins(by_mode[True], by_mode[False])


def test_what_is_under_way_while_the_mode_changes_joins_nothing(visit: Visits) -> None:
    with visit() as here:
        here.sign_in("Maren")
        here.go("Library")
        here.click()
        here.flush()
        posted = []
        for count, choose in ((2, here.walk.send_with_name), (4, here.walk.stay_anonymous)):
            here.line.hold("/capture")
            here.click()
            here.line.until(lambda: CLICK in f"{here.line.waiting}")
            posted += [json.loads(body)["batch"] for body in here.line.waiting]
            choose()
            here.line.mend()
            here.arrived.until(CLICK, count)
            here.flush()
            here.click()
            here.flush()
            here.arrived.until(CLICK, count + 1)
        events = here.arrived.events
        assert told(events, CLICK) == {CLICK: 5}
        first, second, third, fourth, fifth = clicks(events)
        # What was captured anonymized stays so, under the id of its time.
        assert first["distinct_id"] == second["distinct_id"]
        assert third["distinct_id"] == MAREN.id
        # What was captured with the name and came too late leaves as nobody's, and as another one.
        strangers = [fourth["distinct_id"], fifth["distinct_id"]]
        assert len({first["distinct_id"], third["distinct_id"], *strangers}) == 4
        (late,) = [each for each in posted[-1] if each["event"] == CLICK]
        assert late["properties"]["anonymized"] is False
        assert late["uuid"] not in {each["uuid"] for each in events}
        named = [each for each in events if each["distinct_id"] == MAREN.id]
        assert_nothing_joins(named, [each for each in events if each not in named])


@pytest.mark.parametrize("mode", [ANONYMIZED, IDENTIFIED])
def test_after_a_sign_out_the_next_person_shares_nothing_with_the_last(
    visit: Visits, mode: str
) -> None:
    with visit() as here:
        here.sign_in("Maren", mode=mode)
        here.go("Library")
        here.click()
        here.walk.sign_out()
        assert here.stored() == {}
        here.arrived.until("sidebar clicked", 3 if mode == IDENTIFIED else 2)
        hers = here.arrived.events
        here.sign_in("Tomas")
        here.click()
        here.flush()
        here.arrived.until(CLICK, 2)
        his = those_of_the_next(here.arrived.events, hers, 2)
        assert MAREN.id not in json.dumps(his)
        assert TOMAS.id not in json.dumps(here.arrived.events)


@pytest.mark.parametrize("how", ["expired", "replaced"])
def test_what_somebody_left_without_a_sign_out_is_never_the_next_persons(
    visit: Visits, how: str
) -> None:
    with visit() as here:
        here.sign_in("Maren")
        here.go("Library")
        here.click()
        here.flush()
        here.arrived.until(CLICK)
        with here.offline():
            here.click()
            here.leave("Agents")
        # It waits in the browser, and she comes back no more.
        here.see_kept()
        hers = here.arrived.events
        if how == "expired":
            here.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
            here.sign_in("Tomas")
        else:
            here.become(TOMAS.id)
            here.open("/w/tidewater-labs")
        here.click()
        here.flush()
        here.arrived.until(CLICK, 2)
        those_of_the_next(here.arrived.events, hers, 2)


def test_what_waits_in_an_open_tab_is_dropped_when_somebody_else_signs_in(visit: Visits) -> None:
    with visit() as here:
        here.sign_in("Maren")
        here.go("Library")
        here.click()
        here.flush()
        here.arrived.until(CLICK)
        hers = here.arrived.events
        here.line.cut()
        here.click()
        here.flush()
        here.line.mend()
        here.become(TOMAS.id)
        # It is tried again, as hers, and refused; then the page asks who is there.
        here.line.until(
            lambda: any(b"other_user" in each.answer.body for each in here.line.answers("/capture"))
        )
        here.walk.wait(lambda: here.stored() == {}, "her id gone")
        here.flush()
        here.click()
        here.flush()
        here.arrived.until(CLICK, 2)
        here.new_tab("/w/tidewater-labs")
        here.click()
        here.flush()
        here.arrived.until(CLICK, 3)
        those_of_the_next(here.arrived.events, hers, 3)
