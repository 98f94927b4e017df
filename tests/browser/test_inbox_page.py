"""The inbox's page in Chromium: what it shows, how it is used, and that no event's data runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from demos.screenshots import DESK, PHONE, Camera, Scheme
from demos.walk import PASSING
from second_mw import Analytics, AnalyticsUser
from second_mw.inbox.app import InboxServer
from second_mw.inbox.receipts import ReceiptSender
from tests.browser.host import axe_violations
from tests.inbox.sdk import V1_HEADERS, V1_PATH, event, send, v0, v1

pytestmark = pytest.mark.browser
T = TypeVar("T")
PATIENCE = 60.0
MAREN = AnalyticsUser(
    "u_1234567",
    email="maren@kestrel.example",
    name="Maren Okafor",
    workspaces={"w_kestrel": "admin"},
)
NARROWEST = (360, 740)
WIDEST = (1600, 1000)
HOSTILE = '"><img src=x onerror="document.title=\'pwned\'"><script>document.title="pwned"</script>'


def numbered(number: int, **changed: Any) -> dict[str, Any]:
    uuid = f"0190f3c2-7d1a-7c3e-8a52-{number:012x}"
    return event(**{"uuid": uuid, "distinct_id": f"anon_{number:04d}", **changed})


class Page:
    """The inbox's page in a browser, and the inbox behind it."""

    def __init__(self, driver: webdriver.Chrome, inbox: InboxServer) -> None:
        self.driver = driver
        self.inbox = inbox

    def visit(self, size: tuple[int, int] = DESK, scheme: Scheme = "light") -> None:
        Camera(self.driver).look(size, scheme)
        # Headless windows never have the focus that a person's window has.
        self.driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        self.driver.get(self.inbox.url)
        self.wait(lambda: self.text("#live") == "Live", "a live page")

    def post(self, *events: dict[str, Any]) -> None:
        assert send(self.inbox.url, "POST", "/batch/", v0(*events)).status == 200

    def post_many(self, count: int) -> None:
        for start in range(0, count, 1_000):
            self.post(*(numbered(n) for n in range(start, min(count, start + 1_000))))

    def wait(self, look: Callable[[], T | None], what: str = "") -> T:
        wait: WebDriverWait[webdriver.Chrome] = WebDriverWait(
            self.driver, PATIENCE, poll_frequency=0.05, ignored_exceptions=(*PASSING, IndexError)
        )
        seen = wait.until(lambda _: look(), f"not seen: {what}")
        assert seen is not None
        return seen

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.driver.execute_script(
            "return document.querySelector(arguments[0])?.textContent ?? ''", selector
        ))  # fmt: skip

    def names(self) -> list[str]:
        """The names of the rows in the document, from the top."""
        return self.run(
            """return [...document.querySelectorAll(".row")]
                .sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)
                .map((row) => row.querySelector("b").textContent)"""
        )

    def ids(self) -> list[int]:
        return self.run(
            """return [...document.querySelectorAll(".row")]
                .sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)
                .map((row) => Number(row.dataset.id))"""
        )

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def rows(self, count: int) -> None:
        """Wait for so many rows in the list, in sight or not."""
        shown = f"return document.querySelector('.row')?.getAttribute('aria-setsize') === '{count}'"
        self.wait(lambda: self.run(shown), f"{count} rows")

    def open(self, number: int) -> None:
        # A row may be drawn anew between the look and the click.
        self.wait(lambda: self.one(f"#row-{number}").click() or True, f"row {number}")
        self.opened(number)

    def opened(self, number: int) -> None:
        selected = f"#row-{number}[aria-selected=true]"
        self.wait(lambda: self.all(selected) and self.one("#open h2").is_displayed(), "the event")
        self.wait(lambda: self.run("return location.hash") == f"#{number}")

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def top_of(self, number: int) -> float:
        return float(self.run(
            "return document.getElementById(arguments[0]).getBoundingClientRect().top",
            f"row-{number}",
        ))  # fmt: skip


@pytest.fixture
def page(chromium: webdriver.Chrome) -> Iterator[Page]:
    with InboxServer(port=0) as inbox:
        chromium.get_log("browser")
        yield Page(chromium, inbox)
        chromium.get("about:blank")
        wrong = [line for line in chromium.get_log("browser") if line["source"] != "network"]
        assert wrong == []


# Nothing yet


def test_an_empty_inbox_says_how_to_point_an_app_here_ready_to_copy(page: Page) -> None:
    page.visit()
    page.wait(lambda: page.one("#empty h2").is_displayed())
    assert page.text("#lines").splitlines() == [
        f"export SECOND_POSTHOG_HOST={page.inbox.url}",
        "export SECOND_POSTHOG_TOKEN=phc_local",
        "second-mw run your_module:app",
    ]
    assert f'ReceiptSender("{page.inbox.url}/receipts")' in page.text("#receipt-lines")
    page.one("#copy-lines").click()
    page.wait(lambda: page.text("#said") == "Lines copied")
    page.post(numbered(1))
    page.wait(lambda: page.one(".row").is_displayed())
    assert not page.one("#empty").is_displayed()


# The list and the open event


def test_an_event_appears_by_itself_and_opens_with_its_receipt_in_words(page: Page) -> None:
    page.visit()
    receipts = ReceiptSender(f"{page.inbox.url}/receipts")
    analytics = Analytics(
        token="phc_test_0123456789", host=page.inbox.url, on_receipt=receipts, flush_interval=0.05
    )
    properties = {"message": "hello there", "message_length": 11, "runtime_id": "codex"}
    captured = analytics.capture(MAREN, "chat initiated", properties)
    page.wait(lambda: page.text(".row .lost") == "1 dropped")
    assert page.names() == ["chat initiated"]
    assert page.text(".row .badge") == "anonymized"
    distinct_id = page.inbox.events()[0]["distinct_id"]
    assert page.text(".row .mono") == f"{distinct_id[:9]}…{distinct_id[-4:]}"
    page.open(1)
    table = {
        row.find_element(By.TAG_NAME, "th").text: [
            cell.text for cell in row.find_elements(By.TAG_NAME, "td")
        ]
        for row in page.all("tbody tr")
    }
    assert table["message"] == ["–", "dropped: free text"]
    assert table["message_length"] == ["11", "kept: a count"]
    assert table["$lib"] == ['"second-mw"', "added by the server"]
    assert page.one("tbody tr.dropped th s").text == "message"
    assert page.text(".sum").startswith("1 dropped · 2 kept")
    shown = json.loads(page.text(".json"))
    (stored,) = page.inbox.events()
    assert shown == {name: value for name, value in stored.items() if value != {}}
    assert captured.uuid in page.text(".facts")
    assert "phc_…6789" in page.text("#open")
    assert "phc_test_0123456789" not in page.run("return document.documentElement.outerHTML")
    assert "Status 200" in page.text("#open")
    analytics.close()
    receipts.close()


def test_an_event_without_a_receipt_says_why_nothing_is_known(page: Page) -> None:
    page.post(numbered(1))
    page.visit()
    page.open(1)
    assert page.text(".sum").startswith("No receipt:")


def test_the_other_events_of_a_batch_are_a_click_away(page: Page) -> None:
    page.post(numbered(1), numbered(2, event="page viewed"))
    page.visit()
    page.open(1)
    page.one(".siblings button").click()
    page.opened(2)
    assert page.text("#open h2") == "page viewed"


def test_a_refused_batch_is_red_and_says_posthogs_words(page: Page) -> None:
    send(page.inbox.url, "POST", "/batch/", v0(numbered(1, event="")))
    page.visit()
    row = page.wait(lambda: page.one(".row.refused"))
    assert "400: event submitted with an empty event name" in row.text
    page.open(1)
    assert page.text("#open .banner.bad") == "event submitted with an empty event name"
    assert json.loads(page.text("#open .json"))["api_key"] == "phc_…cdef"
    colour = "return getComputedStyle(document.querySelector('#open .banner.bad')).color"
    assert page.run(colour) == "rgb(166, 43, 31)"


def test_what_v1_would_not_store_says_why(page: Page) -> None:
    headers = {name.replace("-", "_"): value for name, value in V1_HEADERS.items()}
    send(page.inbox.url, "POST", V1_PATH, v1(numbered(1, distinct_id="null")), **headers)
    page.visit()
    page.open(1)
    assert page.text(".row .words") == "malformed_distinct_id"
    assert "PostHog would not store it: malformed_distinct_id" in page.text("#open")


def test_an_event_that_came_again_is_one_row_that_says_so(page: Page) -> None:
    page.visit()
    for _ in range(3):
        page.post(numbered(1))
    page.wait(lambda: page.text(".row .tag") == "×3")
    page.rows(1)


def test_what_arrives_later_does_not_move_what_one_reads(page: Page) -> None:
    page.post_many(100)
    page.visit()
    page.rows(100)
    page.open(95)
    page.run("document.getElementById('open-pane').scrollTop = 40")
    before, list_top = page.top_of(95), page.run("return document.getElementById('list').scrollTop")
    page.post(*(numbered(n) for n in range(100, 107)))
    page.rows(107)
    page.wait(lambda: page.text("#news") == "↑ 7 new events")
    assert page.top_of(95) == before
    assert page.run("return document.getElementById('list').scrollTop") > list_top
    assert page.run("return document.getElementById('open-pane').scrollTop") == 40
    assert page.run("return location.hash") == "#95"
    page.one("#news").click()
    page.wait(lambda: page.ids()[0] == 107)
    assert not page.one("#news").is_displayed()


def test_a_list_too_short_to_scroll_holds_its_place_too(page: Page) -> None:
    page.post(numbered(1), numbered(2))
    page.visit()
    page.open(1)
    before = page.top_of(1)
    page.post(numbered(3))
    page.wait(lambda: page.text("#news") == "↑ 1 new event")
    assert page.top_of(1) == before


def test_while_nobody_looks_at_the_list_the_newest_stays_on_top(page: Page) -> None:
    page.post(numbered(1))
    page.visit()
    page.rows(1)
    ActionChains(page.driver).move_to_element(page.one(".brand")).perform()
    page.post(numbered(2))
    page.wait(lambda: page.ids() == [2, 1])
    assert page.top_of(2) < page.top_of(1)
    assert page.run("return document.getElementById('list').scrollTop") == 0


def test_a_receipt_that_comes_later_reaches_the_open_event(page: Page) -> None:
    page.post(numbered(1))
    page.visit()
    page.open(1)
    line = {"key": "message", "result": "dropped", "rule": "free_text", "words": "free text"}
    receipt = {"uuid": numbered(1)["uuid"], "distinct_id": "anon_0001", "properties": [line]}
    body = json.dumps({"receipts": [receipt]}).encode()
    send(page.inbox.url, "POST", "/receipts", body)
    page.wait(lambda: page.all("tbody tr.dropped"))


def test_a_page_that_lost_its_inbox_says_so_and_resumes(page: Page) -> None:
    page.post(numbered(1))
    page.visit()
    page.rows(1)
    port = page.inbox.port
    page.inbox.close()
    page.wait(lambda: page.text("#live") == "Not connected")
    with InboxServer(port=port) as again:
        page.wait(lambda: page.text("#live") == "Live")
        page.wait(lambda: page.one("#empty").is_displayed())
        send(again.url, "POST", "/batch/", v0(numbered(2)))
        page.rows(1)
        page.driver.get("about:blank")


# Ten thousand events


def test_of_ten_thousand_events_only_those_in_sight_are_in_the_document(page: Page) -> None:
    page.post_many(10_000)
    page.visit()
    page.rows(10_000)
    elements = "return document.querySelectorAll('*').length"
    for position in (0, 1 / 3, 0.5, 1):
        page.run(
            "const list = document.getElementById('list');"
            "list.scrollTop = arguments[0] * list.scrollHeight",
            position,
        )
        wanted = round(10_000 - position * 10_000)
        page.wait(lambda wanted=wanted: min(abs(each - wanted) for each in page.ids()) < 30)
        assert len(page.all(".row")) <= 40
        assert page.run(elements) < 600
    page.one("#list").send_keys(Keys.END)
    page.opened(1)
    page.one("#list").send_keys(Keys.HOME)
    page.opened(10_000)


def test_a_long_list_is_filtered_at_once_and_loses_its_oldest(chromium: webdriver.Chrome) -> None:
    with InboxServer(port=0, max_events=500) as inbox:
        page = Page(chromium, inbox)
        page.post_many(500)
        page.visit()
        page.rows(500)
        page.post_many(700)  # the first 500 are known
        page.rows(500)
        page.one("#by-id").send_keys("anon_0001")
        page.wait(lambda: page.text("#matches-words") == "Nothing matches")
        chromium.get("about:blank")


# Filters


@pytest.fixture
def mixed(page: Page) -> Page:
    page.post(
        numbered(1, event="page viewed", properties={"$process_person_profile": False}),
        numbered(2, event="build completed", properties={"$process_person_profile": False}),
        numbered(3, event="build completed", distinct_id="u_maren"),
    )
    send(page.inbox.url, "POST", "/batch/", v0(numbered(4, event="")))
    page.visit()
    page.rows(4)
    return page


@pytest.mark.parametrize(
    ("event_name", "mode", "distinct_id", "ids"),
    [
        ("build", "", "", [3, 2]),
        ("PAGE", "", "", [1]),
        ("", "anonymized", "", [2, 1]),
        ("", "identified", "", [3]),
        ("", "refused", "", [4]),
        ("", "", "u_mar", [3]),
        ("build", "anonymized", "0002", [2]),
    ],
)
def test_the_list_filters_by_event_mode_and_distinct_id(
    mixed: Page, event_name: str, mode: str, distinct_id: str, ids: list[int]
) -> None:
    mixed.one("#by-event").send_keys(event_name)
    if mode:
        Select(mixed.one("#by-mode")).select_by_value(mode)
    mixed.one("#by-id").send_keys(distinct_id)
    mixed.wait(lambda: mixed.ids() == ids)
    of = "entry" if len(ids) == 1 else "entries"
    assert mixed.text("#matches-words") == f"{len(ids)} of 4 entries", of
    mixed.one("#unfilter").click()
    mixed.rows(4)


def test_a_filter_that_matches_nothing_says_so(mixed: Page) -> None:
    mixed.one("#by-event").send_keys("no such event")
    mixed.wait(lambda: mixed.text("#matches-words") == "Nothing matches")
    assert mixed.all(".row") == []
    mixed.one("#unfilter").click()
    mixed.rows(4)


def test_an_open_event_leads_to_all_of_its_distinct_id(mixed: Page) -> None:
    mixed.open(3)
    mixed.wait(lambda: mixed.one(".facts button").click() or True)
    mixed.wait(lambda: mixed.ids() == [3])


def test_new_events_pass_the_filter_or_stay_away(mixed: Page) -> None:
    mixed.one("#by-event").send_keys("page")
    mixed.wait(lambda: mixed.ids() == [1])
    mixed.post(numbered(5, event="page viewed"), numbered(6, event="build failed"))
    mixed.wait(lambda: mixed.text("#matches-words") == "2 of 6 entries")


# The header


def test_the_header_says_what_is_kept_and_how(mixed: Page) -> None:
    assert mixed.text("#address") == mixed.inbox.url
    assert mixed.text("#counts") == "3 events · 1 refused"
    assert mixed.text("#protocols") == "v0"
    assert not mixed.one("#open-to-network").is_displayed()


def test_an_inbox_that_is_open_to_the_network_says_so(chromium: webdriver.Chrome) -> None:
    with InboxServer(port=0, bind="0.0.0.0") as inbox:
        page = Page(chromium, inbox)
        page.visit()
        page.wait(lambda: page.one("#open-to-network").is_displayed())
        chromium.get("about:blank")


def test_the_failure_mode_is_chosen_and_shown(page: Page) -> None:
    page.post(numbered(1))
    page.visit()
    page.rows(1)
    Select(page.one("#fail")).select_by_value("503")
    page.wait(lambda: "Failing on purpose: answers 503" in page.text("#failing"))
    assert page.inbox.fail == "503"
    page.inbox.fail = None
    page.wait(lambda: not page.one("#failing").is_displayed())
    assert page.one("#fail").get_attribute("value") == ""


def test_clearing_asks_first(page: Page) -> None:
    page.post(numbered(1))
    page.visit()
    page.open(1)
    page.one("#clear").click()
    assert page.text("#clearing-words") == "1 event will be gone."
    page.one("#clearing [value=keep]").click()
    assert len(page.inbox.events()) == 1
    page.one("#clear").click()
    page.one("#clearing [value=forget]").click()
    page.wait(lambda: page.one("#empty").is_displayed())
    assert page.inbox.events() == []
    assert page.run("return location.hash") == ""


# Keys


def test_letters_and_arrows_move_open_filter_and_copy(page: Page) -> None:
    page.post(numbered(1), numbered(2), numbered(3))
    page.visit()
    page.rows(3)
    for keys, opened in (
        ("j", 3),
        ("j", 2),
        (Keys.ARROW_DOWN, 1),
        ("j", 1),
        ("k", 2),
        (Keys.ARROW_UP, 3),
        (Keys.END, 1),
        (Keys.HOME, 3),
        (Keys.PAGE_DOWN, 1),
        (Keys.PAGE_UP, 3),
    ):
        page.press(keys)
        page.opened(opened)
        active = page.one("#list").get_attribute("aria-activedescendant")
        assert active == f"row-{opened}"
    page.press("c")
    page.wait(lambda: page.text("#said") == "JSON copied")
    page.press("/")
    assert page.run("return document.activeElement.id") == "by-event"
    page.press("jkc")
    assert page.one("#by-event").get_attribute("value") == "jkc"
    assert page.run("return location.hash") == "#3"  # typed, not obeyed
    page.press(Keys.ESCAPE)
    assert page.run("return document.activeElement.id") in ("list", "")


def test_copied_json_is_what_posthog_receives(page: Page) -> None:
    page.post(numbered(1))
    page.visit()
    page.open(1)
    page.run(
        "window.copied = [];"
        "navigator.clipboard.writeText = async (text) => { window.copied.push(text); }"
    )
    page.press("c")
    page.one("#copy").click()
    copied = page.wait(lambda: (got := page.run("return window.copied")) and len(got) == 2 and got)
    assert copied[0] == copied[1]
    assert json.loads(copied[0]) == numbered(1)


def test_single_letters_can_be_switched_off_for_good(page: Page) -> None:
    page.post(numbered(1))
    page.visit()
    page.rows(1)
    page.one("#keys-open").click()
    page.one("#keys-on").click()
    page.one("#keys form button").click()
    page.driver.refresh()
    page.rows(1)
    page.press("j")
    page.press(Keys.ARROW_DOWN)
    page.opened(1)
    page.press("/")
    assert page.run("return document.activeElement.id") != "by-event"
    page.run("localStorage.clear()")


def test_everything_is_reached_by_tab_and_the_focus_is_seen(page: Page) -> None:
    page.post(numbered(1), numbered(2))
    page.visit()
    page.open(1)
    page.run("document.activeElement.blur(); document.getElementById('list').blur()")
    reached: list[str] = []
    rings = set()
    for _ in range(40):
        page.press(Keys.TAB)
        name, ring = page.run(
            """const at = document.activeElement;
            const name = at === document.body ? "" : at.id || at.textContent;
            return [name, getComputedStyle(at).outlineStyle]"""
        )
        if name in reached:
            break
        if name:
            reached.append(name)
            rings.add(ring)
    wanted = ["address", "fail", "keys-open", "clear", "by-event", "by-mode", "by-id", "list"]
    assert [each for each in reached if each in wanted] == wanted
    assert "copy" in reached
    assert "none" not in rings, (reached, rings)


# A small window


def test_a_phone_shows_the_list_or_the_open_event_and_goes_back(page: Page) -> None:
    page.post(numbered(1), numbered(2))
    page.visit(PHONE)
    page.open(2)
    assert not page.one("#list-pane").is_displayed()
    page.one(".back").click()
    page.wait(lambda: page.one("#list-pane").is_displayed())
    assert not page.one("#open-pane").is_displayed()
    page.open(1)
    page.driver.back()
    page.wait(lambda: page.one("#list-pane").is_displayed())


@pytest.mark.parametrize("size", [NARROWEST, PHONE, DESK, WIDEST])
def test_nothing_reaches_beyond_the_window(page: Page, size: tuple[int, int]) -> None:
    def fits() -> bool:
        return bool(page.run(
            "return document.documentElement.scrollWidth <= innerWidth &&"
            " [...document.querySelectorAll('.pane, .empty, #open')]"
            ".every((each) => each.scrollWidth <= each.clientWidth + 1)"
        ))  # fmt: skip

    page.visit(size)
    page.wait(lambda: page.one("#empty").is_displayed())
    assert fits()
    long = "x" * 300
    page.post(numbered(1, event=long, distinct_id=long[:200], properties={long: long, "a": [long]}))
    page.rows(1)
    page.open(1)
    assert fits()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_axe_finds_nothing(page: Page, size: tuple[int, int], scheme: Scheme) -> None:
    page.visit(size, scheme)
    page.wait(lambda: page.one("#empty").is_displayed())
    assert axe_violations(page.driver) == []
    line = {"key": "message", "result": "dropped", "rule": "free_text", "words": "free text"}
    lines = [line, {**line, "key": "file_count", "result": "redacted"}]
    receipt = {"uuid": numbered(1)["uuid"], "distinct_id": "anon_0001", "properties": lines}
    send(page.inbox.url, "POST", "/receipts", json.dumps({"receipts": [receipt]}).encode())
    send(page.inbox.url, "POST", "/batch/", v0(numbered(9, event="")))
    page.post(numbered(1), numbered(2, properties={"$process_person_profile": False}))
    page.inbox.fail = "slow"
    page.rows(3)
    page.wait(lambda: page.one("#failing").is_displayed())
    assert axe_violations(page.driver) == []
    for number in (2, 1):
        page.open(number)
        assert axe_violations(page.driver) == []
        if size == PHONE:
            page.one(".back").click()
    if size == DESK:
        page.one("#keys-open").click()
        assert axe_violations(page.driver) == []
        page.press(Keys.ESCAPE)


def test_forced_colours_leave_what_is_selected_and_refused_visible(page: Page) -> None:
    send(page.inbox.url, "POST", "/batch/", v0(numbered(9, event="")))
    page.visit()
    page.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "forced-colors", "value": "active"}]}
    )
    page.open(1)
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    assert page.run(style, ".row[aria-selected=true]", "outlineStyle") == "solid"
    assert page.run(style, ".row .badge.refused", "borderTopWidth") == "1px"


def test_who_wants_less_motion_gets_none(page: Page) -> None:
    page.post(numbered(1))
    page.visit()  # Camera asks for reduced motion
    page.rows(1)
    moving = """return [...document.querySelectorAll("*")].filter((each) => {
        const style = getComputedStyle(each);
        return style.transitionDuration !== "0s" || style.animationName !== "none";
    }).length"""
    assert page.run(moving) == 0


# What an event can't do


def test_nothing_of_an_event_ever_runs_or_becomes_markup(page: Page) -> None:
    page.post(
        numbered(
            1, event=HOSTILE, distinct_id=HOSTILE, properties={HOSTILE: HOSTILE, "a": [HOSTILE]}
        )
    )
    lines = [{"key": HOSTILE, "result": HOSTILE, "rule": HOSTILE, "words": HOSTILE}]
    receipt = {"uuid": numbered(1)["uuid"], "distinct_id": HOSTILE, "properties": lines}
    send(page.inbox.url, "POST", "/receipts", json.dumps({"receipts": [receipt]}).encode())
    send(page.inbox.url, "POST", "/batch/", v0(numbered(2, uuid=HOSTILE)))
    send(page.inbox.url, "POST", "/batch/", v0(), User_Agent="<img src=x onerror=alert(1)>")
    page.visit()
    page.rows(3)
    assert HOSTILE in page.names()
    for number in (1, 2, 3):
        page.open(number)
        page.wait(lambda: page.all("#open .json"))
        assert page.all("#open img, #open script, .row img, .row script, datalist img") == []
    assert page.driver.title == "Inbox"


def test_the_pages_policy_refuses_what_a_mistake_of_ours_would_let_in(page: Page) -> None:
    page.visit()
    refused = page.run(
        """try { document.body.innerHTML = "<b>markup</b>"; return "taken" }
        catch (error) { return error.name }"""
    )
    assert refused == "TypeError"
    inline = page.run(
        """const script = document.createElement("script");
        try { script.text = "document.title = 'pwned'"; document.head.append(script) }
        catch (error) { return error.name }
        return document.title"""
    )
    assert inline in ("TypeError", "Inbox")
    page.driver.get_log("browser")  # the refusals are what this is about
