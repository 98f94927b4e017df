"""`second-mw run module:app`: the launcher (spec §13). Serves any WSGI or ASGI app, wrapped.

It sets the launcher's release variables, so that events say how the app was started, and it knows
the servers that are installed. Everything else about serving is the server's own business.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from types import FrameType
from typing import Any, Final

from second_mw.cli import served, usage
from second_mw.version import VERSION

EXAMPLE: Final = "second-mw run shop.web:app --port 8000 --user shop.auth:analytics_user"
DESCRIPTION: Final = (
    "Serve a WSGI or ASGI app, wrapped with second_mw unless it wraps itself already.\n"
    "Settings come from the environment (SECOND_POSTHOG_TOKEN, SECOND_POSTHOG_HOST, …);\n"
    "`second-mw check` shows them."
)

#: The best first; the first that is installed serves.
SERVERS: Final[dict[str, tuple[str, ...]]] = {
    "asgi": ("uvicorn", "granian"),
    "wsgi": ("gunicorn", "waitress"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "app",
        metavar="module:app",
        help="the app; without :app it is the module's app or application",
    )
    parser.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDR",
        help="the address to listen on, default 127.0.0.1: this machine alone",
    )
    parser.add_argument("--port", type=usage.port, default=8000, help="default 8000")
    parser.add_argument(
        "--workers", type=usage.positive, default=1, metavar="N", help="processes, default 1"
    )
    parser.add_argument("--reload", action="store_true", help="start again when code changes")
    parser.add_argument(
        "--interface",
        choices=("auto", "wsgi", "asgi"),
        default="auto",
        help="what the app speaks, default auto: told by what its call takes",
    )
    parser.add_argument(
        "--server",
        choices=sorted(name for names in SERVERS.values() for name in names),
        help="gunicorn, waitress (WSGI), uvicorn, granian (ASGI); default: the first of these that "
        "is installed",
    )
    parser.add_argument(
        "--factory", action="store_true", help="module:app is a function that makes the app"
    )
    parser.add_argument(
        "--user",
        metavar="module:callable",
        help="the callable that says who is signed in; else the host leaves the user in environ "
        "or scope under second_mw.user (not needed by an app that wraps itself)",
    )
    parser.add_argument(
        "--disable-telemetry",
        "--no-analytics",
        action="store_true",
        help="switch analytics off for this run, also in an app that wraps itself",
    )
    parser.add_argument(
        "--outbox",
        type=usage.outbox,
        metavar="URL",
        help="where events wait: memory://, sqlite:///path or redis://…; else "
        "SECOND_ANALYTICS_OUTBOX, default memory://",
    )
    parser.add_argument(
        "--package",
        metavar="NAME",
        help="the app's distribution, whose version is sent as release_version",
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
            f"{server} does not serve {app.interface.upper()}"
            if server
            else f"no server for {app.interface.upper()} is installed"
        )
        print(f"second-mw: {which}: pip install {wanted}", file=sys.stderr)
        return 1
    if find_spec(server) is None:
        print(f"second-mw: {server} is not installed: pip install {server}", file=sys.stderr)
        return 1
    if taken := why_not(given.bind, given.port):
        print(
            f"second-mw: {given.bind} port {given.port} can't be listened on ({taken}): "
            "choose another with --port or --bind",
            file=sys.stderr,
        )
        return 1
    factory = "|factory" if given.factory else ""
    os.environ[served.APP] = f"{given.app}{factory}"
    os.environ[served.INTERFACE] = app.interface
    os.environ[served.USER] = given.user or ""
    wrapped = "wraps itself" if app.is_wrapped else "wrapped"
    print(
        f"second-mw: {given.app} ({app.interface.upper()}, {wrapped}) on "
        f"http://{_place(given)}, served by {server}",
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


def why_not(address: str, port: int) -> str | None:
    """Return why a server could not listen there, None if it could.

    Servers say it in a traceback, or after many tries; so it is asked before one starts.
    """
    try:
        family, kind, proto, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as asked:
            if os.name == "posix":
                # As servers do: what has just ended there is no hindrance.
                asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asked.bind(place)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _place(given: argparse.Namespace) -> str:
    """Return address and port as a URL has them."""
    return f"[{given.bind}]:{given.port}" if ":" in given.bind else f"{given.bind}:{given.port}"


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
    options = ["--bind", _place(given), "--workers", str(given.workers)]
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
