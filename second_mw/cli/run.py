"""`second-mw run module:app`: the launcher (spec §13). Serves any WSGI or ASGI app, wrapped.

It sets the launcher's release variables, so that events say how the app was started, and it knows
the servers that are installed. Everything else about serving is the server's own business.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from types import FrameType
from typing import Any, Final

from second_mw.cli import served
from second_mw.version import VERSION

EXAMPLE: Final = "second-mw run shop.web:app --port 8000 --user shop.auth:analytics_user"
DESCRIPTION: Final = (
    "Serve a WSGI or ASGI app, wrapped with second_mw unless it wraps itself already.\n"
    "Settings come from the environment; `second-mw check` shows them."
)

#: The best first; the first that is installed serves.
SERVERS: Final[dict[str, tuple[str, ...]]] = {
    "asgi": ("uvicorn", "granian"),
    "wsgi": ("gunicorn", "waitress"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("app", metavar="module:app", help="the app, or its factory (--factory)")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDR", help="default 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="default 8000")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, default 1")
    parser.add_argument("--reload", action="store_true", help="start again when code changes")
    parser.add_argument(
        "--interface", choices=("auto", "wsgi", "asgi"), default="auto", help="default auto"
    )
    parser.add_argument(
        "--server",
        choices=sorted(name for names in SERVERS.values() for name in names),
        help="default: the best that is installed for the app's interface",
    )
    parser.add_argument("--factory", action="store_true", help="module:app is called to get it")
    parser.add_argument(
        "--user",
        metavar="module:callable",
        help="the resolver; else the host leaves the user in environ or scope under second_mw.user",
    )
    parser.add_argument(
        "--disable-telemetry",
        "--no-analytics",
        action="store_true",
        help="switch analytics off for this run, also in an app that wraps itself",
    )
    parser.add_argument("--outbox", metavar="URL", help="where events wait")
    parser.add_argument(
        "--package", metavar="NAME", help="the app's distribution, for release_version"
    )


def run(given: argparse.Namespace) -> int:
    """Serve until told to stop."""
    for name, value in variables(given).items():
        os.environ[name] = value
    interface = None if given.interface == "auto" else given.interface
    # Loaded here too, so that a wrong name or setting is said before a server starts.
    app = served.served(given.app, interface=interface, user=given.user, factory=given.factory)
    server = given.server or best_server(app.interface)
    if server is None or server not in SERVERS[app.interface]:
        wanted = " or ".join(SERVERS[app.interface])
        which = (
            f"{server} does not serve {app.interface.upper()}" if server else "none is installed"
        )
        print(f"second-mw: {which}: pip install {wanted}", file=sys.stderr)
        return 1
    if find_spec(server) is None:
        print(f"second-mw: {server} is not installed: pip install {server}", file=sys.stderr)
        return 1
    factory = "|factory" if given.factory else ""
    os.environ[served.APP] = f"{given.app}{factory}"
    os.environ[served.INTERFACE] = app.interface
    os.environ[served.USER] = given.user or ""
    wrapped = "wraps itself" if app.is_wrapped else "wrapped"
    print(
        f"second-mw: {given.app} ({app.interface.upper()}, {wrapped}) on "
        f"http://{given.bind}:{given.port}, served by {server}",
        flush=True,
    )
    return _RUNNERS[server](given, app)


def variables(given: argparse.Namespace) -> dict[str, str]:
    """Return what the launcher says to the app and its workers (spec §3)."""
    said = {
        "SECOND_CLI_RELEASE_VERSION": VERSION,
        "SECOND_CLI_RELEASE_PACKAGE": "second_mw",
    }
    if not os.environ.get("SECOND_RELEASE_RUNTIME"):
        said["SECOND_RELEASE_RUNTIME"] = f"python-{platform.python_version()}"
    if given.package:
        try:
            said["SECOND_RELEASE_VERSION"] = metadata.version(given.package)
        except metadata.PackageNotFoundError:
            raise served.AppNotFound(f"no distribution {given.package!r} is installed") from None
        said["SECOND_RELEASE_PACKAGE"] = given.package
    if given.outbox:
        said["SECOND_ANALYTICS_OUTBOX"] = given.outbox
    if given.disable_telemetry:
        said["SECOND_TELEMETRY_DISABLED"] = "1"
    if given.workers > 1:
        said["WEB_CONCURRENCY"] = str(given.workers)
    return said


def best_server(interface: str) -> str | None:
    """Return the best installed server for an interface, None if none is."""
    return next((name for name in SERVERS[interface] if find_spec(name) is not None), None)


def _uvicorn(given: argparse.Namespace, app: served.Served) -> int:
    import uvicorn

    # An import string where uvicorn starts processes of its own, else the app that is here already.
    apart = given.reload or given.workers > 1
    uvicorn.run(
        "second_mw.cli.served:asgi" if apart else app.app,
        host=given.bind,
        port=given.port,
        workers=given.workers if not given.reload else None,
        reload=given.reload,
        interface="asgi3",
    )
    return 0


def _granian(given: argparse.Namespace, app: served.Served) -> int:
    # By name: granian's own types are there only where it is installed.
    made: Any = import_module("granian").Granian
    server = made(
        "second_mw.cli.served:asgi",
        address=given.bind,
        port=given.port,
        interface="asgi",
        workers=given.workers,
        reload=given.reload,
    )
    server.serve()
    return 0


def _gunicorn(given: argparse.Namespace, app: served.Served) -> int:
    options = ["--bind", f"{given.bind}:{given.port}", "--workers", str(given.workers)]
    options += ["--reload"] if given.reload else []
    command = [sys.executable, "-m", "gunicorn", *options, "second_mw.cli.served:wsgi"]
    os.execv(sys.executable, command)  # noqa: S606 - our own words, no shell


def _waitress(given: argparse.Namespace, app: served.Served) -> int:
    import waitress  # type: ignore[import-untyped,unused-ignore]

    if given.workers > 1:
        print("second-mw: waitress serves with one process; --workers is left out", file=sys.stderr)

    if given.reload:
        from werkzeug.serving import run_simple

        run_simple(given.bind, given.port, app.app, use_reloader=True, threaded=True)
        return 0
    # waitress ends on SIGTERM without atexit, and what waits in memory would be lost with it.
    signal.signal(signal.SIGTERM, _ends)
    waitress.serve(app.app, host=given.bind, port=given.port)
    return 0


def _ends(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


_RUNNERS: Final[dict[str, Callable[[argparse.Namespace, Any], int]]] = {
    "uvicorn": _uvicorn,
    "granian": _granian,
    "gunicorn": _gunicorn,
    "waitress": _waitress,
}
