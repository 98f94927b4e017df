"""A scripted host for the browser's files, and the Chromium that visits it.

`Host` serves pages under a strict Content-Security-Policy, `client.js` and `settings.js` as they
are really served, and answers in the endpoint's place from a script; it records what arrives and
decides nothing about privacy. Each host has a port, and so an origin and a localStorage, of its
own: no test sees what another one left. `EARLY` holds scripts that a page loads before the client,
where a test needs a faster clock or a browser that lacks something.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from demos.walk import Errors
from tests.browser.minify import served

PREFIX = "/api/analytics"
PATIENCE = 60.0
T = TypeVar("T")

#: Scripts that run before the client, by name.
EARLY = {
    # What a test would wait for comes sooner: the two seconds of a batch and the rests between
    # tries. `rests` are those, as they were asked for. The limits of how long an answer may take
    # (3 and 10 s) come later: no busy machine shall decide what a test sees.
    "fast": """
        const real = window.setTimeout;
        const speed = { 2000: 20, 3000: 0.03, 10000: 0.1 };
        window.rests = [];
        window.setTimeout = (work, ms = 0, ...given) => {
            if (ms >= 1000 && !speed[ms]) window.rests.push(ms);
            return real(work, ms / (speed[ms] || 400), ...given);
        };
    """,
    # Those limits, too.
    "hasty": """
        const real = window.setTimeout;
        window.setTimeout = (work, ms, ...given) =>
            real(work, [3000, 10000].includes(ms) ? 100 : ms, ...given);
        const timeout = AbortSignal.timeout;
        AbortSignal.timeout = () => timeout.call(AbortSignal, 100);
    """,
    # Nothing happens by itself: what leaves, leaves because the page asked or went away.
    "still": "const real = window.setTimeout; window.setTimeout = (w, ms) => real(w, ms + 1e6);",
    "no-storage": """
        Object.defineProperty(window, "localStorage", {
            get() { throw new DOMException("blocked", "SecurityError"); },
        });
    """,
    "full-storage": """
        Storage.prototype.setItem = () => {
            throw new DOMException("full", "QuotaExceededError");
        };
    """,
    "no-uuid": "delete Crypto.prototype.randomUUID;",
    "no-beacon": "Navigator.prototype.sendBeacon = () => false;",
    "small-beacon": """
        const beacon = Navigator.prototype.sendBeacon;
        window.beacons = [];
        Navigator.prototype.sendBeacon = function (url, body) {
            const fits = body.length < 1500;
            window.beacons.push(fits);
            return fits && beacon.call(this, url, body);
        };
    """,
    "gpc": "Object.defineProperty(navigator, 'globalPrivacyControl', {value: true});",
    "prerendering": """
        Object.defineProperty(document, "prerendering", { value: true, configurable: true });
    """,
    "watch": """
        window.errors = [];
        addEventListener("error", (event) => errors.push(event.message));
        addEventListener("unhandledrejection", (event) => errors.push(`${event.reason}`));
        document.addEventListener("securitypolicyviolation", (event) =>
            errors.push(event.violatedDirective));
    """,
}


class Answer(NamedTuple):
    """What the host answers to one request."""

    status: int
    body: object = None
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


#: Each event of the batch is accepted, as the endpoint would.
ACCEPT = Answer(200, "accept")
#: No answer until the test has ended.
HANG = Answer(0, "hang")
#: The connection ends without an answer.
CLOSE = Answer(0, "close")


def preferences(**changed: object) -> dict[str, object]:
    """Return what GET preferences says of an ordinary user who never chose."""
    return {
        "enabled": True,
        "sharing": True,
        "anonymized": True,
        "effective": "anonymized",
        "reason": "default",
        "subject": "a1b2",
        **changed,
    }


IDENTIFIED = preferences(anonymized=False, effective="identified", reason="user")


class Post(NamedTuple):
    """One request to the capture path."""

    batch: list[dict[str, Any]]
    content_type: str
    size: int
    answer: Answer


class Host:
    """A server of pages, and of scripted answers in the endpoint's place.

    Args:
        preferences: what GET preferences answers: a mapping, or an `Answer`; may be replaced at
            any time. A PUT changes a mapping as the endpoint would.
        answers: what the next posts are answered; `ACCEPT` when there is nothing left.
        saves: what the next PUTs are answered, before that rule holds again.
    """

    def __init__(self) -> None:
        self.preferences: dict[str, object] | Answer = preferences()
        self.answers: deque[Answer] = deque()
        self.otherwise = ACCEPT
        self.saves: deque[Answer] = deque()
        self.posts: list[Post] = []
        self.asked = 0
        self.saved: list[dict[str, Any]] = []
        self.visited: list[str] = []
        self.pages: dict[str, str] = {}
        self.changed = threading.Condition()
        self.ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End every answer that hangs, and the server."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def page(
        self,
        path: str = "/",
        *,
        early: str = "watch fast",
        body: str = "",
        settings: bool = False,
        client: bool = True,
        **data: str,
    ) -> str:
        """Make a page with the client on it, and return its URL.

        Args:
            early: names of `EARLY`, loaded first.
            body: HTML.
            settings: whether settings.js is on the page, too.
            client: whether client.js is.
            data: the script tag's data attributes, `mode="anonymized"` for `data-mode`.
        """
        attributes = "".join(f' data-{key}="{value}"' for key, value in data.items())
        scripts = [f"/early/{name}.js" for name in early.split()]
        tags = [f'<script src="{src}"></script>' for src in scripts]
        if client:
            tags.append(f'<script src="{PREFIX}/client.js" defer{attributes}></script>')
        if settings:
            tags.append(f'<script src="{PREFIX}/settings.js" defer></script>')
        self.pages[path.partition("?")[0].partition("#")[0]] = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>Page</title>'
            f"{''.join(tags)}<body>{body}</body></html>"
        )
        return self.url + path

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event that arrived, in order, repeats included."""
        with self.changed:
            return [event for post in self.posts for event in post.batch]

    def named(self, name: str) -> list[dict[str, Any]]:
        """Every event of this name that arrived."""
        return [event for event in self.events if event["event"] == name]

    def until(self, look: Callable[[], T]) -> T:
        """Wait until something is so, and return what `look` returned then."""
        with self.changed:
            self.changed.wait_for(lambda: look(), timeout=PATIENCE)
        found = look()
        assert found, f"never came true; arrived: {[event['event'] for event in self.events]}"
        return found

    def until_events(self, count: int = 1, name: str | None = None) -> list[dict[str, Any]]:
        """Wait for so many events, and return all that arrived."""

        def enough() -> list[dict[str, Any]]:
            events = self.events if name is None else self.named(name)
            return events if len(events) >= count else []

        return self.until(enough)

    # What the handler calls

    def on_capture(self, body: bytes, content_type: str) -> Answer:
        batch = json.loads(body)["batch"]
        with self.changed:
            answer = self.answers.popleft() if self.answers else self.otherwise
            self.posts.append(Post(batch, content_type, len(body), answer))
            self.changed.notify_all()
        if answer is ACCEPT:
            results = {event["uuid"]: {"status": "accepted"} for event in batch}
            return Answer(200, {"results": results})
        return answer

    def on_preferences(self, body: bytes | None) -> Answer:
        with self.changed:
            try:
                if body is None:
                    self.asked += 1
                    known = self.preferences
                    return known if isinstance(known, Answer) else Answer(200, known)
                choice = json.loads(body)
                self.saved.append(choice)
                if self.saves:
                    return self.saves.popleft()
                assert isinstance(self.preferences, dict)
                self.preferences = _chosen(self.preferences, choice)
                return Answer(200, self.preferences)
            finally:
                self.changed.notify_all()


def _chosen(known: dict[str, object], choice: dict[str, Any]) -> dict[str, object]:
    chosen = {**known, **choice}
    if "anonymized" in choice:
        effective = "anonymized" if choice["anonymized"] else "identified"
        chosen.update(effective=effective, reason="user")
    return chosen


def _handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing: a test's output is its own."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            host.visited.append(self.path)
            if path == f"{PREFIX}/preferences":
                self._give(host.on_preferences(None))
            elif path in (f"{PREFIX}/client.js", f"{PREFIX}/settings.js"):
                self._send(200, served(Path(path).name).read_bytes(), "text/javascript")
            elif path.startswith("/early/"):
                script = f"{{{EARLY[Path(path).stem]}}}"
                self._send(200, script.encode(), "text/javascript")
            elif path in host.pages:
                self._send(200, host.pages[path].encode(), "text/html; charset=utf-8")
            else:
                self._send(404, b"", "text/plain")

        def do_PUT(self) -> None:
            self._give(host.on_preferences(self._body()))

        def do_POST(self) -> None:
            body = self._body()
            if self.path == f"{PREFIX}/capture":
                self._give(host.on_capture(body, self.headers["Content-Type"]))
            else:
                host.visited.append(f"POST {self.path}")
                self._send(200, b"<!doctype html><title>Done</title>", "text/html")

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _give(self, answer: Answer) -> None:
            if answer is HANG:
                host.ended.wait()
            if answer is HANG or answer is CLOSE:
                self.close_connection = True
                return
            text = "" if answer.status == 204 else answer.body
            body = text if isinstance(text, str) else json.dumps(text)
            self._send(answer.status, body.encode(), "application/json", answer.headers)

        def _send(
            self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", "default-src 'self'")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            try:
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                # The page went away before its answer came.
                self.close_connection = True

    return Handler


@contextmanager
def a_chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start a Chromium with a profile of its own; without one, skip, but fail in CI."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("chromium and chromedriver are needed")
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "headless=new no-sandbox disable-gpu disable-quic no-first-run "
        "disable-background-networking disable-component-update disable-sync "
        "disable-dev-shm-usage window-size=1200,900"
    ).split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.error_handler = Errors()
    try:
        started.set_script_timeout(PATIENCE)
        yield started
    finally:
        started.quit()


def axe_violations(chromium: webdriver.Chrome) -> list[str]:
    """Return what axe-core finds wrong on the page, a line for each element; empty is well.

    Every rule of WCAG 2.0 to 2.2, A and AA, and axe-core's own best practices.
    """
    package = importlib.util.find_spec("selenium_axe_python")
    if package is None or package.origin is None:
        if os.environ.get("CI"):
            pytest.fail("axe-core is needed: pip install selenium-axe-python")
        pytest.skip("selenium-axe-python is not installed")
    axe = (Path(package.origin).parent / "axe-core" / "axe.min.js").read_text("utf-8")
    chromium.execute_script(axe)
    found = chromium.execute_async_script(
        """
        const done = arguments[0];
        axe.run(document).then((found) => done(found.violations.flatMap(({ id, nodes }) =>
            nodes.map(({ target, failureSummary }) => `${id}: ${target} ${failureSummary}`))),
            (error) => done([`${error}`]));
        """
    )
    assert isinstance(found, list)
    return found
