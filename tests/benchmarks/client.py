"""What client.js weighs beside posthog-js, and what it costs a page.

Weight: bytes of the source, of what is served, and of that gzipped, beside the bundle that
posthog-js tells its users to load, fetched from npm when this runs and measured here.
Time: in Chromium, under a clock that counts 5 µs, one after the other in a fresh page. Running a
script means: parse, compile and run it for the first time, from text that Chromium has not seen.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from second_mw.browser.types import declarations
from second_mw.privacy.catalogue import Catalogue
from tests.benchmarks.table import Table, ratios, spread
from tests.browser.minify import HERE, SOURCES, served

TITLE: Final = "the browser client"
_BUDGET: Final = "the budget: client.js at most 3.5 KB gzipped, which a test holds"
#: What posthog-js's own snippet loads, and the smallest that it offers.
_PEER_FILES: Final = ("package/dist/array.js", "package/dist/array.no-external.js")
_NPM_PATIENCE: Final = 120.0  # seconds
#: A file's name and its bytes.
Peer = tuple[str, bytes]


def measure(short: bool) -> list[Table]:
    """Measure weight and time.

    Args:
        short: a few rounds, and nothing fetched.
    """
    peers, said = ([], "skipped in the short form: posthog-js, from npm") if short else _peers()
    return [_weight(peers, said), _time(peers[:1], rounds=3 if short else 40)]


# Weight


def _weight(peers: list[Peer], said: str) -> Table:
    rows: list[list[Any]] = [
        [name, (HERE / name).stat().st_size, *_sizes(served(name).read_bytes()), None]
        for name in SOURCES
    ]
    client = rows[0][3]
    rows += [[name, None, *_sizes(body), _sizes(body)[1] / client] for name, body in peers]
    types = len(declarations(Catalogue.default()))
    notes = [_BUDGET, f"types: {types:,} bytes, which no browser loads", said]
    columns = ["file", "source, bytes", "served, bytes", "gzip -9, bytes", "× client.js"]
    return Table(columns, rows, notes, title="what has to be loaded")


def _sizes(body: bytes) -> tuple[int, int]:
    return len(body), len(gzip.compress(body, 9))


def _peers() -> tuple[list[Peer], str]:
    """Return posthog-js's bundles, and what has to be said of them."""
    npm = shutil.which("npm")
    if npm is None:
        return [], "skipped: posthog-js, because npm is not installed"
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [npm, "pack", "--silent", "posthog-js"],
                cwd=folder, capture_output=True, text=True, check=True, timeout=_NPM_PATIENCE,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            return [], f"skipped: posthog-js, because npm could not fetch it ({error})"
        archive = Path(folder) / done.stdout.split()[-1]
        with tarfile.open(archive) as opened:
            members = [opened.extractfile(name) for name in _PEER_FILES]
            bodies = [(member.read() if member is not None else b"") for member in members]
    version = archive.name.removesuffix(".tgz")
    names = [f"{version} {Path(path).name}" for path in _PEER_FILES]
    return list(zip(names, bodies, strict=True)), (
        f"{version} from npm; it also records sessions, asks surveys and evaluates flags"
    )


# Time

_RUN = """
    const [sources] = arguments;
    // A comment of its own makes each text one that Chromium has not compiled before.
    const run = (text) => {
        const script = document.createElement("script");
        script.textContent = `${text}\\n//${Math.random()}`;
        const before = performance.now();
        document.head.append(script);
        const after = performance.now();
        script.remove();
        return after - before;
    };
    run("");
    return sources.map((source) => run(source) * 1000);
"""

_CAPTURE = """
    const [rounds] = arguments;
    const many = 200;
    const timed = (work) => {
        const before = performance.now();
        for (let n = 0; n < many; n++) work(n);
        return ((performance.now() - before) / many) * 1000;
    };
    const properties = { file_count: 12, duration_ms: 345, runtime_model: "claude-opus-4" };
    const tasks = {
        stringify: () => JSON.stringify(properties),
        capture: () => secondAnalytics.capture("build completed", properties),
    };
    const figures = { stringify: [], capture: [] };
    for (const task of Object.values(tasks)) timed(task);
    await secondAnalytics.flush();
    for (let round = 0; round < rounds; round++) {
        for (const [name, task] of Object.entries(tasks)) figures[name].push(timed(task));
        await secondAnalytics.flush();
    }
    return figures;
"""


def _time(peers: list[Peer], rounds: int) -> Table:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    columns = ["in Chromium", "µs", "× an empty script"]
    if browser is None or driver is None:
        return Table(columns, [], ["skipped: chromium or chromedriver is not installed"])
    named = [("client.js", served("client.js").read_bytes()), *peers]
    sources = ["", *(body.decode() for _, body in named)]
    with _page() as url, _chromium(browser, driver) as chromium:
        runs = []
        for _ in range(rounds):
            # A fresh page each time: on one that has run it already, its timers would be at work.
            chromium.get(url)
            runs.append(chromium.execute_script(_RUN, sources))
        empty, *others = zip(*runs, strict=True)
        # A page on which it has run once, as on anybody's.
        chromium.get(f"{url}client")
        capture = chromium.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            f"(async function () {{ {_CAPTURE} }}).apply(null, arguments).then(done);",
            rounds,
        )
        chromium.get("about:blank")
    first = [(f"{name}, first run", took) for (name, _), took in zip(named, others, strict=True)]
    calls = [
        ("one capture() with three properties", capture["capture"]),
        ("JSON.stringify of them", capture["stringify"]),
    ]
    rows = [
        ["an empty script, first run", spread(empty), None],
        *([name, spread(took), ratios(took, empty)] for name, took in (*first, *calls)),
    ]
    notes = [
        "a script's first run is parsing, compiling and running it; a peer is loaded, not started",
        "capture() includes a uuid, a timestamp, page context and the anonymous id of localStorage",
    ]
    return Table(columns, rows, notes, title="what it costs the page")


@contextmanager
def _chromium(browser: str, driver: str) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        started.set_script_timeout(300)
        yield started
    finally:
        started.quit()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path.endswith(".js"):
            self._send(served("client.js").read_bytes(), "text/javascript")
        elif self.path.endswith("/preferences"):
            self._send(
                b'{"enabled":true,"sharing":true,"effective":"anonymized","subject":"a1b2"}',
                "application/json",
            )
        else:
            tag = (
                '<script src="/a/client.js" data-manual></script>' if "client" in self.path else ""
            )
            self._send(f"<!doctype html><title>-</title>{tag}".encode(), "text/html")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def _send(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        # Isolated pages get the finer clock.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a page that has gone closes its connections."""


@contextmanager
def _page() -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
