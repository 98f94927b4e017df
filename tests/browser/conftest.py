"""One Chromium for all tests here, and a host of its own for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver

from tests.browser.host import Host, a_chromium


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A Chromium; use `chromium`, which hands it over clean."""
    with a_chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def chromium(browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """The Chromium with one window on an empty page, left that way."""
    yield browser
    first, *others = browser.window_handles
    for handle in others:
        browser.switch_to.window(handle)
        browser.close()
    browser.switch_to.window(first)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get("about:blank")


@pytest.fixture
def host(chromium: webdriver.Chrome) -> Iterator[Host]:
    """A host that accepts everything, until a test writes another script."""
    started = Host()
    forget(chromium, started.url)
    yield started
    # Before the server: a page that is still open would post to what is gone.
    chromium.get("about:blank")
    started.close()


def forget(chromium: webdriver.Chrome, url: str) -> None:
    """Forget what is stored of an address: an earlier test's host may have had the same port."""
    chromium.execute_cdp_cmd(
        "Storage.clearDataForOrigin", {"origin": url, "storageTypes": "local_storage"}
    )
