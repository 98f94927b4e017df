"""`python -m demos.screenshots`: take the pictures of the demo and the inbox again.

Starts the demo on free ports, walks it in headless Chromium and writes PNGs to `demos/pictures/`.
Two of them are kept in the repository, for the README; the others are for looking at.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from selenium import webdriver

from demos.walk import Errors, Walk, running

PICTURES: Final = Path(__file__).parent / "pictures"
CHROMIUM: Final = Path("/usr/bin/chromium")
CHROMEDRIVER: Final = Path("/usr/bin/chromedriver")
FLAGS: Final = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()

Scheme = Literal["light", "dark"]
DESK: Final = (1440, 900)
PHONE: Final = (390, 844)
#: Long enough to catch a build under way.
BUILD_SECONDS: Final = 4.0


@contextlib.contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, webdriver.ChromeService(str(CHROMEDRIVER)))
        driver.error_handler = Errors()
        try:
            yield driver
        finally:
            driver.quit()


class Camera:
    """Takes pictures of what a browser shows, at a size and in a scheme."""

    def __init__(self, driver: webdriver.Chrome, folder: Path = PICTURES) -> None:
        self._driver = driver
        self._folder = folder

    def look(self, size: tuple[int, int] = DESK, scheme: Scheme = "light") -> None:
        """Show everything at this size and in this scheme from here on."""
        width, height = size
        phone = size == PHONE
        self._driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )
        self._driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        self._driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {
                "features": [
                    {"name": "prefers-color-scheme", "value": scheme},
                    # A picture of a thing half moved shows nothing.
                    {"name": "prefers-reduced-motion", "value": "reduce"},
                ]
            },
        )

    def take(self, name: str) -> None:
        """Take one picture."""
        path = self._folder / f"{name}.png"
        self._driver.save_screenshot(str(path))
        print(path)

    def take_all(self, name: str) -> None:
        """Take it at both sizes and in both schemes, and end as it began."""
        for size, width in ((DESK, "desk"), (PHONE, "phone")):
            for scheme in ("light", "dark"):
                self.look(size, scheme)
                self.take(f"{name}-{width}-{scheme}")
        self.look()


def main(arguments: list[str] | None = None) -> int:
    """Take the pictures and return the exit code."""
    command = argparse.ArgumentParser(prog="python -m demos.screenshots", description=__doc__)
    command.add_argument("host", nargs="?", choices=("flask", "starlette"), default="flask")
    command.add_argument("--folder", type=Path, default=PICTURES)
    given = command.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    with running(given.host, build_seconds=BUILD_SECONDS) as where, chromium() as driver:
        camera = Camera(driver, given.folder)
        camera.look()
        walk = Walk(driver, where.demo)
        driver.get(where.inbox)
        walk.see("#empty h2")
        camera.take_all("inbox-empty")
        _demo(walk, camera)
        _inbox(walk, camera, where.inbox)
    return 0


def _inbox(walk: Walk, camera: Camera, inbox: str) -> None:
    walk.driver.get(inbox)
    walk.see(".row", "build completed")
    camera.take_all("inbox-list")
    walk.press(".row", "chat initiated")
    walk.see("#open tbody tr", "dropped: names a person")
    camera.take_all("inbox")
    # A phone shows the list or the open event.
    walk.driver.get(inbox)
    walk.see(".row", "build completed")
    _refuse(inbox)
    walk.press(".row.refused")
    walk.see("#open h2", "A request was refused")
    camera.take_all("inbox-refused")


def _post_names(walk: Walk) -> None:
    """Post what a page would that holds nothing back, as the product's own browser does not."""
    properties = {
        "message": "A stock count for our five shops",
        "message_length": 32,
        "app_name": "Stock watch",
        "agent_name": "Builder",
        "agent_type": "builder",
        "runtime_id": "claude-code",
        "runtime_model": "claude-sonnet-4-5",
        "selected_skill_count": 0,
        "user_email": "maren@kestrel-coffee.example",
        "page_url": f"{walk.demo}/w/kestrel-coffee",
        "route_shape": "/w/kestrel-coffee",
        "surface": "workspace_home",
        "plan": "for Maren",
    }
    status = walk.driver.execute_async_script(
        """
        const [event, done] = arguments;
        fetch("/api/analytics/capture", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(event),
        }).then((answer) => done(answer.status));
        """,
        {"event": "chat initiated", "properties": properties},
    )
    assert status == 204, status


def _refuse(inbox: str) -> None:
    """Send what PostHog would not take."""
    event = {"event": "", "distinct_id": "anon_1", "properties": {}}
    body = json.dumps({"api_key": "phc_local_demo", "batch": [event]}).encode()
    try:
        urllib.request.urlopen(f"{inbox}/batch/", data=body, timeout=10).close()
    except urllib.error.HTTPError as refused:
        refused.close()


def _demo(walk: Walk, camera: Camera) -> None:
    walk.arrive()
    camera.take_all("sign-in")
    walk.sign_in("Maren")
    walk.see("#composer")
    camera.take_all("home")
    _building(walk, camera)
    walk.go("Settings")
    walk.press(".sections a", "Integrations")
    walk.see(".line")
    camera.take_all("settings")
    walk.open_account()
    camera.take("account-menu")
    walk.go("Library")
    _post_names(walk)
    walk.open_usage_data()
    camera.take_all("usage-data")


def _building(walk: Walk, camera: Camera) -> None:
    walk.start_app()
    walk.pick("Start with the count")
    walk.see(".plan button", "Approve plan")
    camera.take_all("approval")
    walk.approve_plan()
    walk.approve_agents()
    walk.see(".steps .done")
    camera.take("building")
    walk.see_built()
    camera.take_all("built")


if __name__ == "__main__":
    raise SystemExit(main())
