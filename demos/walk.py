"""A person at the demo: Selenium clicking and typing what a visitor would, one method a deed.

For `screenshots.py` and the browser tests. It knows the product's words, never an event.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    NoSuchShadowRootException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.errorhandler import ErrorHandler
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")

#: Seconds that anything on the page may take before the walk gives up.
PATIENCE = 60.0
#: What a page that is just being drawn may throw at a click; the next look finds it settled.
PASSING = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    NoSuchShadowRootException,
    StaleElementReferenceException,
)


class Errors(ErrorHandler):
    """Chromedriver's errors, and one that it has no name for: a page that went during a look."""

    def check_response(self, response: dict[str, Any]) -> None:
        """Raise what went wrong, if anything has."""
        try:
            super().check_response(response)
        except WebDriverException as error:
            if "does not belong to the document" in (error.msg or ""):
                raise StaleElementReferenceException(error.msg) from error
            raise


@dataclass(frozen=True)
class Running:
    """A running `python -m demos`: where its two servers are."""

    demo: str
    inbox: str


@contextlib.contextmanager
def running(host: str, *arguments: str, build_seconds: float = 0.4) -> Iterator[Running]:
    """Run the demo on free ports as long as the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demos", host, "--port", "0", "--inbox-port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SECOND_DEMO_BUILD_SECONDS": str(build_seconds)},
    )
    assert process.stdout is not None
    printed = ""
    try:
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the demo did not start; it said: {printed}")
            printed += line
        demo, inbox = re.findall(r"http://127\.0\.0\.1:\d+", printed)[:2]
        yield Running(demo, inbox)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


class Walk:
    """A person with a browser at the demo.

    Args:
        driver: the browser.
        demo: the demo's address.
    """

    def __init__(self, driver: WebDriver, demo: str) -> None:
        self.driver = driver
        self.demo = demo

    # Coming and going

    def arrive(self) -> None:
        """Open the demo."""
        self.driver.get(self.demo)

    def sign_in(self, name: str) -> None:
        """Choose one of the three people."""
        self.driver.get(f"{self.demo}/sign-in")
        self.take_time()
        self.press("button", name)

    def sign_out(self) -> None:
        """Sign out by the account menu."""
        self.open_account()
        self.press("#account button", "Sign out")
        self.see("h1", "Sign in to Second")

    def be_onboarded(self) -> None:
        """Take the three steps of onboarding."""
        self.press("a", "Begin")
        self.press("a", "Join Kestrel Coffee")
        self.see("button", "Open the workspace")
        self.take_time()
        self.press("button", "Open the workspace")
        self.see("h1", "What shall we build, Ines?")

    def take_time(self) -> None:
        """Be no quicker than a person: a page has heard by then whose it is."""
        known = "Promise.resolve(window.secondAnalytics?.flush()).then(arguments[0]);"
        self.driver.execute_async_script(known)

    def open_account(self) -> None:
        """Open the account menu."""
        self.open_drawer()
        self.press("[popovertarget=account]")
        self.see("#account strong")

    def open_usage_data(self) -> None:
        """Open the Usage data settings from the account menu, and wait for what they say."""
        self._open_usage_data("false")

    def see_anonymity_kept(self) -> None:
        """See in the Usage data settings that anonymity can't be turned off, and close them."""
        self._open_usage_data("true")
        self.wait(lambda: self._dialog("#anonymize[aria-checked=true]"), "anonymity turned on")
        self.click(lambda: self._dialog("button.close"))

    def _open_usage_data(self, is_disabled: str) -> None:
        self.open_account()
        self.press("#account button", "Usage data settings")
        switch = f"#anonymize[aria-disabled={is_disabled}]"
        self.wait(lambda: self._dialog(switch), "the dialog's switches")

    def send_with_name(self) -> None:
        """Turn anonymity off in the Usage data settings, and close them."""
        self.open_usage_data()
        self.click(lambda: self._dialog("#anonymize"))
        self.click(lambda: self._dialog(".confirm .yes"))
        self._close_usage_data("false")

    def stay_anonymous(self) -> None:
        """Turn anonymity on again, and close the settings."""
        self.open_usage_data()
        self.click(lambda: self._dialog("#anonymize"))
        self._close_usage_data("true")

    def _close_usage_data(self, is_anonymized: str) -> None:
        done = f"#anonymize[aria-checked={is_anonymized}][aria-disabled=false]"
        self.wait(lambda: self._dialog(done), "the saved choice")
        self.click(lambda: self._dialog("button.close"))

    def _dialog(self, selector: str) -> WebElement:
        host = self.driver.find_element(By.CSS_SELECTOR, "second-usage-data")
        return host.shadow_root.find_element(By.CSS_SELECTOR, f"dialog[open] {selector}")

    def go(self, words: str) -> None:
        """Follow a link of the rail."""
        self.open_drawer()
        self.press("#rail a", words)

    def open_drawer(self) -> None:
        """Open the drawer that the rail is in, if the window is a small one."""
        opener = self.wait(lambda: self._all("[data-open-drawer]")[0], "a page of a workspace")
        if opener.is_displayed() and opener.get_attribute("aria-expanded") == "false":
            opener.click()

    # Building an app

    def start_app(self, example: int = 0) -> None:
        """Send one of the composer's examples."""
        self.click(lambda: self._all("[data-example]")[example])
        self.press("#composer button.primary")

    def pick(self, title: str) -> None:
        """Pick a suggestion."""
        self.press(".choice:enabled", title)

    def request_changes(self, words: str) -> None:
        """Send the open card back with a word."""
        self.press(".row button", "Request changes")
        self.type(".feedback:not([hidden]) textarea", words)
        self.press(".feedback:not([hidden]) button", "Send")

    def approve_plan(self) -> None:
        """Approve the open plan."""
        self.press(".plan button", "Approve plan")

    def approve_agents(self) -> None:
        """Approve the agents, which starts the build."""
        self.press(".agents button", "Approve agents")

    def try_again(self) -> None:
        """Start a failed build again."""
        self.see(".build button", "Try again")
        builds = len(self._all(".build h2"))
        self.press(".build button", "Try again")
        # A short one may be over before anybody looks; that it is another one is what counts.
        self.wait(lambda: len(self._all(".build h2")) > builds, "another build")

    def see_built(self) -> None:
        """Wait for the last build to succeed."""
        self.wait(lambda: self._all(".build h2")[-1].text == "Built")

    def see_failed(self) -> None:
        """Wait for the last build to fail."""
        self.wait(lambda: self._all(".build h2")[-1].text == "The build failed")

    def open_app(self) -> None:
        """Open the finished app and close it again."""
        self.press(".tile")
        self.close_app()

    def close_app(self) -> None:
        """Close the window of an open app."""
        self.see("#window h2")
        self.press("#window .square")

    def import_sample(self) -> None:
        """Import the sample app by the button that stands on the page."""
        self.press("main [data-import]")
        self.press("#import [data-sample]")
        self.see("#thread")
        self.see_built()

    # Agents and integrations

    def run_agent(self, words: str) -> None:
        """Run the open app's agent and wait for what it says."""
        self.press(".tabs a", "Agents")
        self.type("[data-agent] textarea", "Look at everything since Monday")
        self.press("[data-agent] button", "Run")
        self.see("[data-outcome]", words)

    def ask_workspace_agent(self) -> None:
        """Ask the first agent of the workspace."""
        self.type("[data-workspace-agent] textarea", "What should I know?" + Keys.ENTER)
        self.see("[data-outcome] p")

    def connect(self, name: str) -> None:
        """Set an integration up, from the settings."""
        self.go("Settings")
        self.press(".sections a", "Integrations")
        self.press(f"[aria-label='Set up {name}']")
        self.type("#setup input", "not-a-secret")
        self.press("#setup button", f"Connect {name}")
        self.see(".section .badge", "Connected")

    # Hands and eyes

    def see(self, selector: str, words: str = "") -> WebElement:
        """Wait for a visible element with these words in it, and return it."""
        return self.wait(lambda: self._shown(selector, words), f"{selector} {words}")

    def press(self, selector: str, words: str = "") -> None:
        """Click the first such element that is visible."""

        def pressed() -> bool:
            found = self._shown(selector, words)
            if found is not None:
                # Out from under the bars that stay at the top and the bottom.
                self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
                found.click()
            return found is not None

        self.wait(pressed, f"{selector} {words}")

    def click(self, look: Callable[[], WebElement]) -> None:
        """Click what is looked for, once it is there and nothing lies over it."""

        def clicked() -> bool:
            look().click()
            return True

        self.wait(clicked)

    def type(self, selector: str, words: str) -> None:
        """Type into the first such field."""
        self.see(selector).send_keys(words)

    def wait(self, look: Callable[[], T | None], what: str = "") -> T:
        """Look until there is something to see."""
        wait: WebDriverWait[WebDriver] = WebDriverWait(
            self.driver, PATIENCE, poll_frequency=0.05, ignored_exceptions=(*PASSING, IndexError)
        )
        seen = wait.until(lambda _: look(), f"not seen: {what}")
        assert seen is not None
        return seen

    def _all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def _shown(self, selector: str, words: str) -> WebElement | None:
        for element in self._all(selector):
            if element.is_displayed() and words in element.text:
                return element
        return None
