"""settings.js in a real Chromium: what the dialog says, what it saves, and whom it serves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.host import (
    CLOSE,
    HANG,
    IDENTIFIED,
    PATIENCE,
    Answer,
    Host,
    axe_violations,
    preferences,
)

pytestmark = pytest.mark.browser

Chromium = webdriver.Chrome
T = TypeVar("T")

ID = "second:analytics-anonymous-id:v1"
AN_ID = "anon_11111111-1111-4111-8111-111111111111"
OPENER = '<main><h1>Page</h1><button id="opener" data-second-settings>Usage data</button></main>'
UNDECIDED = preferences(sharing=None)
DISABLED = preferences(enabled=False, reason="disabled")

# Each state's sentence
LOADING = "Loading your settings…"
SAVING = "Saving…"
SAVED = "Saved."
FAILED = "That could not be saved. The switch is back where it was; try again in a while."
NOT_LOADED = "Your settings could not be loaded."
MANAGED = "This is managed by your organisation and can’t be changed here."
GPC = "Your browser asks for privacy (Global Privacy Control), so usage data stays anonymized."
GPC_DROP = "Your browser asks for privacy (Global Privacy Control), so nothing is sent."
DNT = "Your browser asks not to be tracked, so usage data stays anonymized."
DNT_DROP = "Your browser asks not to be tracked, so nothing is sent."
STORE_FAILED = "Your choice can’t be read right now, so usage data stays anonymized."
OFF = "Analytics is switched off on this site. Nothing is sent."
SIGNED_OUT = "You are signed out. Sign in to see and change your settings."
OFFLINE = "You are offline. Your settings can be changed when the connection is back."
NOW_ANONYMIZED = "Now: shared, and anonymized."
NOW_IDENTIFIED = "Now: shared, with your name."
NOW_NOTHING = "Now: nothing is sent."


class Dialog:
    """The dialog, as a person meets it."""

    def __init__(self, chromium: Chromium) -> None:
        self.chromium = chromium

    def until(self, look: Callable[[], T]) -> T:
        """Wait until something is so, and return it."""
        found: T = WebDriverWait(self.chromium, PATIENCE, poll_frequency=0.05).until(
            lambda _: look()
        )
        return found

    def part(self, selector: str) -> WebElement:
        """Return one element inside the dialog."""
        found: WebElement = self.until(
            lambda: self.chromium.execute_script(
                "const host = document.querySelector('second-usage-data');"
                "return host && host.shadowRoot && host.shadowRoot.querySelector(arguments[0]);",
                selector,
            )
        )
        return found

    def click(self, selector: str) -> None:
        """Click as a person would, wherever it has to be scrolled to."""
        self.until(lambda: self.part(selector).is_displayed())
        self.part(selector).click()

    @property
    def is_open(self) -> bool:
        return bool(self.chromium.execute_script("return arguments[0].open;", self.part("dialog")))

    @property
    def status(self) -> str:
        return self.part("#status").text

    def says(self, sentence: str) -> None:
        """Wait for a sentence in the live region."""
        WebDriverWait(self.chromium, PATIENCE, poll_frequency=0.05).until(
            lambda _: self.status == sentence,
            message=f"{self.status!r} never became {sentence!r}",
        )

    def is_on(self, name: str) -> bool:
        return self.part(f"#{name}").get_attribute("aria-checked") == "true"

    def is_locked(self, name: str) -> bool:
        return self.part(f"#{name}").get_attribute("aria-disabled") == "true"

    def shows(self, selector: str) -> bool:
        return self.part(selector).is_displayed()

    def focused(self) -> str:
        """Return what has the focus: the tag and id or class, `host` for the page's own."""
        found: str = self.chromium.execute_script(
            """
            const outer = document.activeElement;
            const inner = outer.shadowRoot && outer.shadowRoot.activeElement;
            return inner ? inner.id || inner.className || inner.localName : `host ${outer.id}`;
            """
        )
        return found

    def press(self, *keys: str) -> None:
        ActionChains(self.chromium).send_keys(*keys).perform()


@pytest.fixture
def dialog(chromium: Chromium) -> Dialog:
    return Dialog(chromium)


@pytest.fixture
def visit(chromium: Chromium, host: Host, dialog: Dialog) -> Callable[..., Dialog]:
    """Open a page and the dialog on it."""

    def visit(
        answer: Any = None, *, body: str = OPENER, opened: bool = True, **page: Any
    ) -> Dialog:
        host.preferences = preferences() if answer is None else answer
        options: dict[str, Any] = {"early": "watch fast", "client": False, **page}
        chromium.get(host.page("/w/acme", settings=True, body=body, **options))
        if opened:
            chromium.find_element(By.CSS_SELECTOR, "[data-second-settings]").click()
        return dialog

    return visit


def no_errors(chromium: Chromium) -> None:
    assert chromium.execute_script("return errors;") == []


def media(chromium: Chromium, **features: str) -> None:
    """Have the browser prefer something: `prefers_color_scheme="dark"`."""
    asked = [{"name": key.replace("_", "-"), "value": value} for key, value in features.items()]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": asked})


def window_of(chromium: Chromium, width: int, height: int = 800) -> None:
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def style_of(chromium: Chromium, element: WebElement, name: str) -> str:
    found: str = chromium.execute_script(
        "return getComputedStyle(arguments[0])[arguments[1]];", element, name
    )
    return found


# What the server says, and what the dialog says of it

#: preferences' answer → the sentence, the two switches (None: not shown), whether each is locked.
STATES: dict[str, tuple[Any, str, bool | None, bool | None, bool, bool]] = {
    "anonymized": (preferences(), NOW_ANONYMIZED, True, True, False, False),
    "identified": (IDENTIFIED, NOW_IDENTIFIED, True, False, False, False),
    "not sharing": (preferences(sharing=False), NOW_NOTHING, False, True, False, False),
    "undecided": (UNDECIDED, NOW_NOTHING, False, True, False, False),
    "managed": (preferences(reason="host"), MANAGED, True, True, False, True),
    "managed, identified": (
        preferences(anonymized=False, effective="identified", reason="host"),
        MANAGED, True, False, False, True,
    ),
    "gpc": (preferences(anonymized=False, reason="gpc"), GPC, True, True, False, True),
    "gpc drops": (preferences(sharing=False, reason="gpc"), GPC_DROP, False, True, False, True),
    "dnt": (preferences(reason="dnt"), DNT, True, True, False, True),
    "dnt drops": (preferences(sharing=False, reason="dnt"), DNT_DROP, False, True, False, True),
    "store failed": (preferences(reason="store_failed"), STORE_FAILED, True, True, False, False),
    "analytics off": (DISABLED, OFF, None, None, True, True),
    "not onboarded": (preferences(enabled=False), OFF, None, None, True, True),
    "signed out": (
        Answer(401, {"error": "not_authenticated"}), SIGNED_OUT, None, None, True, True,
    ),
    "an error": (Answer(500, {"error": "user_lookup_failed"}), NOT_LOADED, None, None, True, True),
    "no answer": (CLOSE, NOT_LOADED, None, None, True, True),
    "a page": (Answer(200, "<!doctype html>"), NOT_LOADED, None, None, True, True),
    "null": (Answer(200, None), NOT_LOADED, None, None, True, True),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_each_state_has_its_sentence(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host, state: str
) -> None:
    answer, sentence, shares, anonymizes, is_locked, is_mode_locked = STATES[state]
    dialog = visit(answer)
    dialog.says(sentence)
    for name, is_on in (("share", shares), ("anonymize", anonymizes)):
        assert dialog.shows(f"#{name}") is (is_on is not None)
        if is_on is not None:
            assert dialog.is_on(name) is is_on
    # A label without its switch would ask what nobody can answer.
    assert dialog.shows(".switches") is (shares is not None)
    assert dialog.is_locked("share") is is_locked
    assert dialog.is_locked("anonymize") is is_mode_locked
    assert dialog.part("dialog").get_attribute("aria-busy") == "false"
    # A locked switch saves nothing, whatever is done to it.
    if is_mode_locked:
        chromium.execute_script("arguments[0].click();", dialog.part("#anonymize"))
        assert not dialog.shows(".confirm")
        assert host.saved == []
    no_errors(chromium)


def test_while_it_loads_it_says_so_and_shows_no_switch(visit: Callable[..., Dialog]) -> None:
    dialog = visit(HANG)
    dialog.says(LOADING)
    assert dialog.part("dialog").get_attribute("aria-busy") == "true"
    assert not dialog.shows("#share")
    assert not dialog.shows("#anonymize")


def test_an_answer_that_never_comes_is_given_up(visit: Callable[..., Dialog]) -> None:
    dialog = visit(HANG, early="watch hasty")
    dialog.says(NOT_LOADED)
    assert dialog.shows(".retry")


def test_what_could_not_be_loaded_can_be_tried_again(
    visit: Callable[..., Dialog], host: Host
) -> None:
    dialog = visit(CLOSE)
    dialog.says(NOT_LOADED)
    host.preferences = preferences()
    dialog.click(".retry")
    dialog.says(NOW_ANONYMIZED)
    assert not dialog.shows(".retry")


def test_sharing_is_switched_off_and_on(visit: Callable[..., Dialog], host: Host) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    dialog.click("#share")
    dialog.says(SAVED)
    assert not dialog.is_on("share")
    dialog.click("#share")
    dialog.until(lambda: len(host.saved) == 2)
    dialog.until(lambda: dialog.is_on("share") and not dialog.is_locked("share"))
    assert host.saved == [{"sharing": False}, {"sharing": True}]


def test_while_it_saves_the_switch_shows_the_choice_and_takes_no_other(
    visit: Callable[..., Dialog], host: Host
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    host.saves.append(HANG)
    dialog.click("#share")
    dialog.says(SAVING)
    assert not dialog.is_on("share")
    assert dialog.is_locked("share")
    assert dialog.is_locked("anonymize")
    assert dialog.part("dialog").get_attribute("aria-busy") == "true"
    dialog.click("#share")
    assert len(host.saved) == 1


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer(503, {"error": "preferences_unavailable"}), FAILED),
        (Answer(500, "<p>"), FAILED),
        (Answer(429, {"error": "rate_limited"}), FAILED),
        (CLOSE, FAILED),
        (Answer(409, {"error": "managed_by_host"}), MANAGED),
        (Answer(409, {"error": "gpc"}), GPC),
        (Answer(409, {"error": "disabled"}), OFF),
        (Answer(403, {"error": "not_onboarded"}), OFF),
        (Answer(401, {"error": "not_authenticated"}), SIGNED_OUT),
        # What was stored is not what was wanted.
        (Answer(200, preferences()), FAILED),
    ],
    ids=lambda value: f"{value.status} {value.body}" if isinstance(value, Answer) else None,
)
def test_what_is_not_saved_goes_back_and_says_why(
    visit: Callable[..., Dialog], host: Host, answer: Answer, sentence: str
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    # More than once: a browser sends a PUT again when a kept connection was closed under it.
    host.saves.extend([answer] * 3)
    dialog.click("#share")
    dialog.says(sentence)
    assert dialog.is_on("share")
    assert host.saved[0] == {"sharing": False}


def test_offline_it_says_so_and_comes_back_by_itself(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    _network(chromium, off=True)
    try:
        dialog.says(OFFLINE)
        assert dialog.is_locked("share")
        dialog.click("#share")
        assert host.saved == []
        dialog.click(".close")
        # Chromium says that it is offline, but still reaches this machine.
        host.preferences = CLOSE
        chromium.find_element(By.ID, "opener").click()
        dialog.says(OFFLINE)
    finally:
        host.preferences = preferences()
        _network(chromium, off=False)
    dialog.says(NOW_ANONYMIZED)
    assert not dialog.is_locked("share")


def _network(chromium: Chromium, *, off: bool) -> None:
    chromium.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": off, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )


def test_an_answer_for_a_dialog_that_was_closed_does_not_count(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host
) -> None:
    dialog = visit(HANG)
    dialog.says(LOADING)
    dialog.click(".close")
    host.preferences = IDENTIFIED
    chromium.find_element(By.ID, "opener").click()
    dialog.says(NOW_IDENTIFIED)
    host.ended.set()  # the first question is answered at last, by the end of its connection
    dialog.says(NOW_IDENTIFIED)
    no_errors(chromium)


# Giving anonymity up


def test_it_says_what_where_and_since_when_before_anonymity_is_turned_off(
    visit: Callable[..., Dialog], host: Host
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    dialog.click("#anonymize")
    question = dialog.until(lambda: dialog.part(".confirm").text)
    for words in (
        "name, e-mail, user id, workspace",
        "PostHog",
        "Events sent before stay anonymous",
    ):
        assert words in question
    assert dialog.focused() == "confirm more"
    # The same dialog asks, nothing has been saved, and nothing has moved yet.
    assert dialog.is_on("anonymize")
    assert host.saved == []
    dialog.click(".yes")
    dialog.says(SAVED)
    assert host.saved == [{"anonymized": False}]
    assert not dialog.is_on("anonymize")
    assert not dialog.shows(".confirm")
    assert dialog.focused() == "anonymize"


@pytest.mark.parametrize("way", [".no", "#anonymize", Keys.ESCAPE], ids=["no", "switch", "Escape"])
def test_the_question_can_be_taken_back(visit: Callable[..., Dialog], host: Host, way: str) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    dialog.click("#anonymize")
    dialog.until(lambda: dialog.shows(".confirm"))
    if way == Keys.ESCAPE:
        dialog.press(way)
    else:
        dialog.click(way)
    dialog.until(lambda: not dialog.shows(".confirm"))
    assert dialog.is_open
    assert dialog.is_on("anonymize")
    assert dialog.focused() == "anonymize"
    assert host.saved == []


def test_anonymity_comes_back_without_a_question(visit: Callable[..., Dialog], host: Host) -> None:
    dialog = visit(IDENTIFIED)
    dialog.says(NOW_IDENTIFIED)
    dialog.click("#anonymize")
    dialog.says(SAVED)
    assert dialog.is_on("anonymize")
    assert host.saved == [{"anonymized": True}]


def test_identified_all_the_same_is_said_when_the_browsers_signal_wins(
    visit: Callable[..., Dialog], host: Host
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    host.saves.append(Answer(200, preferences(anonymized=False, reason="gpc")))
    dialog.click("#anonymize")
    dialog.click(".yes")
    dialog.says(GPC)
    assert dialog.is_on("anonymize")


# Asked first


def test_before_a_choice_nothing_is_stored_or_sent(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host
) -> None:
    dialog = visit(UNDECIDED, client=True, consent="ask")
    dialog.says(NOW_NOTHING)
    assert dialog.part(".undecided p").text == (
        "You have not chosen yet. Until you do, nothing is sent."
    )
    chromium.execute_script("secondAnalytics.capture('app displayed');")
    chromium.execute_async_script("secondAnalytics.flush().then(arguments[0]);")
    chromium.execute_script("dispatchEvent(new Event('pagehide'));")
    assert host.posts == []
    assert chromium.execute_script("return {...localStorage};") == {}
    assert chromium.get_cookies() == []


@pytest.mark.parametrize("answer", [HANG, CLOSE, Answer(500, {})], ids=["hangs", "closes", "500"])
def test_where_users_are_asked_first_nothing_is_sent_on_a_guess(
    chromium: Chromium, host: Host, answer: Answer
) -> None:
    host.preferences = answer
    chromium.get(host.page("/w/acme", early="watch fast hasty", consent="ask"))
    host.until(lambda: host.asked)
    chromium.execute_async_script("secondAnalytics.flush().then(arguments[0]);")
    chromium.execute_script("secondAnalytics.capture('app displayed');")
    chromium.execute_async_script("secondAnalytics.flush().then(arguments[0]);")
    # It goes away, too: what a page posts then, it would post now.
    host.preferences = preferences(sharing=None)
    chromium.get(host.page("/next", client=False))
    assert host.posts == []
    assert chromium.execute_script("return {...localStorage};") == {}


@pytest.mark.parametrize("way", ["#share", ".accept"])
def test_a_yes_begins_it(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host, way: str
) -> None:
    dialog = visit(UNDECIDED, client=True, consent="ask")
    dialog.says(NOW_NOTHING)
    dialog.click(way)
    dialog.says(SAVED)
    assert dialog.is_on("share")
    assert not dialog.shows(".undecided")
    assert host.saved == [{"sharing": True}]
    chromium.execute_script("secondAnalytics.capture('app displayed');")
    (event,) = host.until_events(1, "app displayed")
    assert event["anonymousDistinctId"] == chromium.execute_script(
        "return localStorage.getItem(arguments[0]);", ID
    )


def test_a_no_is_a_choice_too(visit: Callable[..., Dialog], host: Host) -> None:
    dialog = visit(UNDECIDED)
    dialog.says(NOW_NOTHING)
    dialog.click(".decline")
    dialog.says(SAVED)
    assert host.saved == [{"sharing": False}]
    assert not dialog.shows(".undecided")
    assert not dialog.is_on("share")


# The page is told


def test_the_page_and_the_client_are_told_of_a_change(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host
) -> None:
    dialog = visit(client=True)
    dialog.says(NOW_ANONYMIZED)
    host.until_events(1, "page viewed")
    chromium.execute_script(
        """
        window.told = [];
        document.addEventListener("second-usage-data-change", (event) => told.push(event.detail));
        """
    )
    dialog.click("#anonymize")
    dialog.click(".yes")
    dialog.says(SAVED)
    assert chromium.execute_script("return told;") == [host.preferences]
    chromium.execute_script("secondAnalytics.capture('app displayed');")
    (event,) = host.until_events(1, "app displayed")
    assert event["properties"]["anonymized"] is False
    assert "anonymousDistinctId" not in event
    assert chromium.execute_script("return {...localStorage};") == {}


def test_a_change_that_is_answered_after_the_dialog_was_closed_is_told_all_the_same(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    chromium.execute_script(
        """
        window.told = [];
        addEventListener("second-usage-data-change", (event) => told.push(event.detail.sharing));
        const host = document.querySelector("second-usage-data");
        host.shadowRoot.getElementById("share").click();
        host.close();
        """
    )
    assert dialog.until(lambda: chromium.execute_script("return told;")) == [False]
    assert not dialog.is_open


# The anonymous id


def test_the_id_is_shown_copied_and_renewed(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host
) -> None:
    chromium.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": host.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    dialog = visit(client=True)
    dialog.says(NOW_ANONYMIZED)
    host.until_events(1, "page viewed")
    first = chromium.execute_script("return localStorage.getItem(arguments[0]);", ID)
    dialog.click(".close")
    chromium.find_element(By.ID, "opener").click()
    dialog.until(lambda: dialog.part(".id code").text == first)
    dialog.click(".copy")
    dialog.says("The id was copied.")
    copied = chromium.execute_async_script(
        "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](`${error}`));"
    )
    assert copied == first
    dialog.click(".renew")
    dialog.says("This browser has a new anonymous id. Earlier events can’t be joined to it.")
    second = dialog.part(".id code").text
    assert re.fullmatch(r"anon_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", second)
    assert second != first
    chromium.execute_script("secondAnalytics.capture('app displayed');")
    (event,) = host.until_events(1, "app displayed")
    assert event["anonymousDistinctId"] == second


def test_an_id_that_cant_be_copied_is_selected_instead(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host
) -> None:
    chromium.get(host.page("/earlier", client=False))
    chromium.execute_script("localStorage.setItem(...arguments);", ID, AN_ID)
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    chromium.execute_script(
        "navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed'));"
    )
    dialog.click(".copy")
    dialog.says("The browser did not let the id be copied. Select it instead.")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (preferences(), "None. One is made with the next anonymized event."),
        (IDENTIFIED, "None. It is not used while usage data carries your name or is not shared."),
        (
            preferences(sharing=False),
            "None. It is not used while usage data carries your name or is not shared.",
        ),
    ],
    ids=["anonymized", "identified", "not sharing"],
)
def test_where_there_is_no_id_it_says_so(
    visit: Callable[..., Dialog], answer: dict[str, object], words: str
) -> None:
    dialog = visit(answer)
    dialog.until(lambda: dialog.status.startswith("Now:"))
    assert dialog.part(".id p").text == words
    assert not dialog.shows(".copy")
    assert not dialog.shows(".renew")


def test_with_storage_blocked_it_works_without_showing_an_id(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    dialog = visit(early="watch fast no-storage")
    dialog.says(NOW_ANONYMIZED)
    assert not dialog.shows(".copy")
    dialog.click("#share")
    dialog.says(SAVED)
    no_errors(chromium)


# Opening, closing, keyboard, screen readers


@pytest.mark.parametrize(
    "body",
    [
        OPENER,
        '<button id="opener" data-second-settings><b>Usage</b> data</button>',
        f"{OPENER}<second-usage-data></second-usage-data>",
    ],
    ids=["button", "something in a button", "the element stands in the page"],
)
def test_any_button_may_open_it(
    visit: Callable[..., Dialog], chromium: Chromium, body: str
) -> None:
    dialog = visit(body=body)
    dialog.says(NOW_ANONYMIZED)
    assert dialog.is_open
    assert len(chromium.find_elements(By.TAG_NAME, "second-usage-data")) == 1


def test_a_script_may_open_and_close_it(visit: Callable[..., Dialog], chromium: Chromium) -> None:
    dialog = visit(opened=False)
    chromium.execute_script(
        """
        window.usage = document.createElement("second-usage-data");
        usage.close();
        usage.open();
        usage.open();
        """
    )
    dialog.says(NOW_ANONYMIZED)
    chromium.execute_script("usage.close();")
    assert not dialog.is_open
    no_errors(chromium)


@pytest.mark.parametrize("way", ["Escape", "the button", "beside it"])
def test_closing_gives_the_focus_back(
    visit: Callable[..., Dialog], chromium: Chromium, way: str
) -> None:
    dialog = visit(opened=False)
    opener = chromium.find_element(By.ID, "opener")
    opener.send_keys(Keys.ENTER)
    dialog.says(NOW_ANONYMIZED)
    assert dialog.focused() == "title"
    if way == "Escape":
        dialog.press(Keys.ESCAPE)
    elif way == "the button":
        dialog.click(".close")
    else:
        ActionChains(chromium).move_by_offset(5, 5).click().perform()
        ActionChains(chromium).move_by_offset(-5, -5).perform()
    dialog.until(lambda: not dialog.is_open)
    assert dialog.focused() == "host opener"


def test_from_a_menu_that_has_closed_meanwhile_the_focus_returns_to_what_opens_the_menu(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    body = """
        <button id="account" popovertarget="menu">Account</button>
        <div id="menu" popover><button data-second-settings>Usage data</button></div>
    """
    dialog = visit(body=body, opened=False)
    chromium.find_element(By.ID, "account").click()
    chromium.find_element(By.CSS_SELECTOR, "[data-second-settings]").click()
    dialog.says(NOW_ANONYMIZED)
    chromium.execute_script("document.getElementById('menu').hidePopover();")
    dialog.click(".close")
    dialog.until(lambda: not dialog.is_open)
    assert dialog.focused() == "host account"


def test_the_keyboard_goes_round_inside_and_never_into_the_page(
    visit: Callable[..., Dialog],
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    seen = []
    for _ in range(8):
        dialog.press(Keys.TAB)
        seen.append(dialog.focused())
    assert "host opener" not in seen
    # Once round: everything that can be used, in the order in which it stands there.
    first = seen.index("close")
    assert seen[first : first + 3] == ["close", "share", "anonymize"]


def test_the_keyboard_alone_gives_anonymity_up(visit: Callable[..., Dialog], host: Host) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    while dialog.focused() != "anonymize":
        dialog.press(Keys.TAB)
    dialog.press(Keys.SPACE)
    dialog.until(lambda: dialog.focused() == "confirm more")
    dialog.press(Keys.TAB)
    assert dialog.focused() == "no"
    dialog.press(Keys.TAB)
    assert dialog.focused() == "yes"
    dialog.press(Keys.ENTER)
    dialog.says(SAVED)
    assert host.saved == [{"anonymized": False}]


def test_what_a_screen_reader_is_told(visit: Callable[..., Dialog], chromium: Chromium) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    assert dialog.part("dialog").aria_role == "dialog"
    assert dialog.part("dialog").accessible_name == "Usage data settings"
    for name, label in (("share", "Share usage data"), ("anonymize", "Anonymize usage data")):
        switch = dialog.part(f"#{name}")
        assert (switch.aria_role, switch.accessible_name) == ("switch", label)
    live = chromium.execute_script(
        """
        const root = document.querySelector("second-usage-data").shadowRoot;
        return [...root.querySelectorAll("[aria-live], [role=status], [role=alert]")]
            .map((element) => [element.id, element.getAttribute("aria-live")]);
        """
    )
    assert live == [["status", "polite"]]
    assert dialog.part(".close").accessible_name == "Close"
    dialog.click("#anonymize")
    assert dialog.part(".confirm").accessible_name == "Send usage data with your name?"


def test_the_live_region_is_not_written_again_with_what_it_says_already(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    chromium.execute_script(
        """
        window.writes = 0;
        new MutationObserver(() => writes++).observe(arguments[0], { childList: true });
        """,
        dialog.part("#status"),
    )
    dialog.click("#anonymize")
    dialog.click(".no")
    dialog.until(lambda: not dialog.shows(".confirm"))
    assert chromium.execute_script("return writes;") == 0


# How it looks


LOOKS = [
    pytest.param(scheme, width, id=f"{scheme} {width}")
    for scheme in ("light", "dark")
    for width in (360, 1200)
]


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_axe_core_finds_nothing(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host, scheme: str, width: int
) -> None:
    media(chromium, prefers_color_scheme=scheme)
    window_of(chromium, width)
    chromium.get(host.page("/earlier", client=False))
    chromium.execute_script("localStorage.setItem(...arguments);", ID, AN_ID)
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    assert axe_violations(chromium) == []
    dialog.click("#anonymize")
    dialog.until(lambda: dialog.shows(".confirm"))
    assert axe_violations(chromium) == []
    for answer, sentence in ((UNDECIDED, NOW_NOTHING), (CLOSE, NOT_LOADED), (HANG, LOADING)):
        visit(answer)
        dialog.says(sentence)
        assert axe_violations(chromium) == []


@pytest.mark.parametrize("width", [320, 360, 1200])
def test_every_target_is_44_pixels_and_nothing_is_cut_off(
    visit: Callable[..., Dialog], chromium: Chromium, host: Host, width: int
) -> None:
    window_of(chromium, width, 640)
    chromium.get(host.page("/earlier", client=False))
    chromium.execute_script("localStorage.setItem(...arguments);", ID, AN_ID)
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    dialog.click("#anonymize")
    dialog.until(lambda: dialog.shows(".confirm"))
    small, wide = chromium.execute_script(
        """
        const root = document.querySelector("second-usage-data").shadowRoot;
        const seen = [...root.querySelectorAll("*")].filter((element) => element.offsetParent);
        const box = root.querySelector("dialog").getBoundingClientRect();
        const name = (element) => element.id || element.className || element.localName;
        return [
            seen.filter((element) => element.localName === "button" && (element.offsetWidth < 44
                || element.offsetHeight < 44)).map(name),
            seen.filter((element) => {
                const { left, right } = element.getBoundingClientRect();
                return left < box.left - 1 || right > box.right + 1;
            }).map(name),
        ];
        """
    )
    assert (small, wide) == ([], [])
    inside = chromium.execute_script(
        "const b = arguments[0].getBoundingClientRect();"
        "return [b.left >= 0, b.top >= 0, b.right <= innerWidth, b.bottom <= innerHeight];",
        dialog.part("dialog"),
    )
    assert inside == [True] * 4


def test_light_and_dark_follow_the_system_or_the_page(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    dialog = visit(body=f"{OPENER}<second-usage-data></second-usage-data>")
    box = dialog.part("dialog")
    colours = []
    for scheme in ("light", "dark"):
        media(chromium, prefers_color_scheme=scheme)
        colours.append([style_of(chromium, box, name) for name in ("backgroundColor", "color")])
    light, dark = colours
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    # A page that is only light says so on the element.
    chromium.execute_script(
        "document.querySelector('second-usage-data').style.colorScheme = 'light';"
    )
    assert style_of(chromium, box, "backgroundColor") == light[0]


def test_a_browser_without_light_dark_gets_the_light_colours(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    visit().says(NOW_ANONYMIZED)
    old, new = chromium.execute_script(
        """
        const [sheet] = document.querySelector("second-usage-data").shadowRoot.adoptedStyleSheets;
        const [old, supports] = sheet.cssRules;
        return [old, supports.cssRules[0]].map(({ style }) =>
            Object.fromEntries([...style].map((name) => [name, style.getPropertyValue(name)])));
        """
    )
    assert set(old) == set(new)
    assert len(old) == 10
    assert not [value for value in old.values() if "light-dark" in value]
    assert (old["color-scheme"], new["color-scheme"]) == ("light", "light dark")


def test_reduced_motion_moves_nothing(visit: Callable[..., Dialog], chromium: Chromium) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    parts = (dialog.part(".knob"), dialog.part(".track"))
    media(chromium, prefers_reduced_motion="no-preference")
    assert [style_of(chromium, part, "transitionDuration") for part in parts] == ["0.12s"] * 2
    media(chromium, prefers_reduced_motion="reduce")
    assert [style_of(chromium, part, "transitionDuration") for part in parts] == ["0s"] * 2


def test_forced_colours_still_tell_on_from_off(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    media(chromium, forced_colors="active")
    dialog = visit(preferences(sharing=False))
    dialog.says(NOW_NOTHING)
    off, on = (dialog.part(f"#{name} .track") for name in ("share", "anonymize"))
    assert style_of(chromium, off, "backgroundColor") != style_of(chromium, on, "backgroundColor")
    # Words go with it, too.
    assert dialog.part("#share").text == "Off"
    assert dialog.part("#anonymize").text == "On"


def test_a_page_themes_it_by_custom_properties(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    dialog = visit(body=f"{OPENER}<second-usage-data></second-usage-data>")
    dialog.says(NOW_ANONYMIZED)
    chromium.execute_script(
        """
        const { style } = document.querySelector("second-usage-data");
        style.setProperty("--second-surface", "rgb(1, 2, 3)");
        style.setProperty("--second-accent", "rgb(4, 5, 6)");
        style.fontFamily = "monospace";
        """
    )
    box = dialog.part("dialog")
    assert style_of(chromium, box, "backgroundColor") == "rgb(1, 2, 3)"
    assert style_of(chromium, box, "fontFamily") == "monospace"
    dialog.until(
        lambda: (
            style_of(chromium, dialog.part("#share .track"), "backgroundColor") == "rgb(4, 5, 6)"
        )
    )


def test_the_pages_own_css_does_not_reach_it(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    dialog = visit()
    dialog.says(NOW_ANONYMIZED)
    height = dialog.part("#share").size["height"]
    chromium.execute_script(
        """
        const sheet = new CSSStyleSheet();
        sheet.replaceSync("* { all: unset !important } button { height: 1px !important }");
        document.adoptedStyleSheets = [sheet];
        """
    )
    assert dialog.part("#share").size["height"] == height


# Words


def test_words_are_replaced_by_attributes_and_by_a_property_even_while_it_is_open(
    visit: Callable[..., Dialog], chromium: Chromium
) -> None:
    body = (
        f'{OPENER}<second-usage-data data-title="Nutzungsdaten" data-now-anonymized="Geteilt."'
        ' data-on="An"></second-usage-data>'
    )
    dialog = visit(body=body)
    dialog.says("Geteilt.")
    assert dialog.part("#title").text == "Nutzungsdaten"
    assert dialog.part("#share").text == "An"
    chromium.execute_script(
        "document.querySelector('second-usage-data').words = arguments[0];",
        {"title": "Données d’usage", "anonymizedList": "Un\nDeux"},
    )
    assert dialog.is_open
    assert dialog.part("#title").text == "Données d’usage"
    assert dialog.part(".lists ul").text.split("\n") == ["Un", "Deux"]
    # What was not replaced again stays as the page has it.
    dialog.says("Geteilt.")
    no_errors(chromium)


def test_every_word_can_be_replaced(visit: Callable[..., Dialog], chromium: Chromium) -> None:
    dialog = visit(UNDECIDED)
    dialog.says(NOW_NOTHING)
    words = chromium.execute_script("return document.querySelector('second-usage-data').words;")
    assert len(words) > 40
    replaced = {name: f"[{name}]" for name in words}
    chromium.execute_script(
        "document.querySelector('second-usage-data').words = arguments[0];", replaced
    )
    dialog.click("#anonymize")
    dialog.until(lambda: dialog.shows(".confirm"))
    shown = dialog.part("dialog").text
    assert re.sub(r"\[\w+\]|✕|\s", "", shown) == ""
    assert json.dumps(shown).count("[") > 15


def test_nothing_is_thrown_and_no_policy_is_broken_on_a_page_that_loads_it_twice(
    chromium: Chromium, host: Host, dialog: Dialog
) -> None:
    page = host.page("/twice", settings=True, client=False, body=OPENER, early="watch fast")
    tag = '<script src="/api/analytics/settings.js" defer></script>'
    host.pages["/twice"] = host.pages["/twice"].replace(tag, tag * 2)
    chromium.get(page)
    chromium.find_element(By.ID, "opener").click()
    dialog.says(NOW_ANONYMIZED)
    assert len(chromium.find_elements(By.TAG_NAME, "second-usage-data")) == 1
    no_errors(chromium)
