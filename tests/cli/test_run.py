"""`second-mw run`: apps told apart, wrapped once, served by what is installed, ended cleanly."""

from __future__ import annotations

import http.client
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from second_mw.asgi import AnalyticsMiddleware as OverASGI
from second_mw.cli import main, run, served
from second_mw.version import VERSION
from second_mw.wsgi import AnalyticsMiddleware as OverWSGI
from tests.delivery.sink import running

HERE = "tests.cli.apps"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "interface"),
    [
        ("plain_wsgi", "wsgi"),
        ("wsgi_object", "wsgi"),
        ("wrapped_wsgi", "wsgi"),
        ("flask_app", "wsgi"),
        ("plain_asgi", "asgi"),
        ("asgi_object", "asgi"),
        ("wrapped_asgi", "asgi"),
        ("starlette_app", "asgi"),
    ],
)
def test_wsgi_and_asgi_apps_are_told_apart(name: str, interface: str) -> None:
    assert served.interface_of(served.found(f"{HERE}:{name}")) == interface


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.such.module:app", "no module 'no.such.module'"),
        (f"{HERE}:no_such_app", "has no 'no_such_app'"),
        ("tests.cli:", "no app and no application"),
        (f"{HERE}:nothing", "not callable"),
        (f"{HERE}:user", "neither a WSGI app"),
        (f"{HERE}:async_page", "neither a WSGI app"),
        (f"{HERE}:Flask.no", "has no 'Flask.no'"),
    ],
)
def test_what_is_no_app_is_said(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", name]) == 1
    assert said in capsys.readouterr().err


def test_a_module_that_fails_to_import_something_keeps_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_library_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library_at_all"):
        served.found("needs_more:app")


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        ("plain_wsgi", False),
        ("plain_asgi", False),
        ("wrapped_wsgi", True),
        ("wrapped_asgi", True),
        ("flask_app", True),
        ("starlette_app", True),
    ],
)
def test_an_app_is_wrapped_unless_it_wraps_itself(
    name: str, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND_POSTHOG_DISABLED", "1")
    app = served.served(f"{HERE}:{name}")
    assert app.is_wrapped is wrapped
    if wrapped:
        assert app.app is served.found(f"{HERE}:{name}")
    else:
        assert isinstance(app.app, OverASGI if app.interface == "asgi" else OverWSGI)


def test_app_is_the_name_that_is_looked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.found(HERE) is served.found(f"{HERE}:app")


def test_a_worker_gets_the_app_that_the_command_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECOND_POSTHOG_DISABLED", "1")
    monkeypatch.setenv(served.APP, f"{HERE}:make_wsgi|factory")
    monkeypatch.setenv(served.USER, f"{HERE}:user")
    worker_app: Any = served.wsgi  # type: ignore[attr-defined]
    monkeypatch.delitem(vars(served), "wsgi")
    assert isinstance(worker_app, OverWSGI)
    assert worker_app.app is served.found(f"{HERE}:wsgi_object")
    with pytest.raises(AttributeError):
        served.nothing  # noqa: B018  # type: ignore[attr-defined]


def given(*arguments: str) -> Any:
    from second_mw.cli import parser

    return parser("run").parse_args(["run", f"{HERE}:app", *arguments])


def test_the_launcher_says_who_it_is_and_what_it_serves() -> None:
    said = run.variables(given("--package", "msgspec", "--outbox", "sqlite:///x.db"))
    assert said["SECOND_CLI_RELEASE_VERSION"] == VERSION
    assert said["SECOND_CLI_RELEASE_PACKAGE"] == "second_mw"
    assert said["SECOND_RELEASE_RUNTIME"] == f"python-{platform.python_version()}"
    assert said["SECOND_RELEASE_PACKAGE"] == "msgspec"
    assert re.match(r"\d", said["SECOND_RELEASE_VERSION"])
    assert said["SECOND_ANALYTICS_OUTBOX"] == "sqlite:///x.db"
    assert "SECOND_TELEMETRY_DISABLED" not in said


def test_an_operators_own_runtime_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECOND_RELEASE_RUNTIME", "docker")
    assert "SECOND_RELEASE_RUNTIME" not in run.variables(given())


@pytest.mark.parametrize("flag", ["--disable-telemetry", "--no-analytics"])
def test_either_flag_switches_analytics_off(flag: str) -> None:
    assert run.variables(given(flag))["SECOND_TELEMETRY_DISABLED"] == "1"


def test_more_workers_are_declared_so_that_preferences_in_memory_close() -> None:
    assert run.variables(given("--workers", "3"))["WEB_CONCURRENCY"] == "3"


def test_a_package_that_is_not_installed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", f"{HERE}:app", "--package", "no-such-dist"]) == 1
    assert "no distribution 'no-such-dist' is installed" in capsys.readouterr().err


@pytest.fixture
def _environment_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.usefixtures("_environment_kept")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plain_asgi", "--server", "waitress"], "waitress does not serve ASGI"),
        (["plain_wsgi", "--server", "uvicorn"], "uvicorn does not serve WSGI"),
        (["plain_asgi", "--server", "granian"], "granian is not installed"),
    ],
)
def test_a_server_that_can_not_serve_it_is_said(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "granian" else object())
    assert main(["run", f"{HERE}:{arguments[0]}", "--no-analytics", *arguments[1:]]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("_environment_kept")
@pytest.mark.parametrize("app", ["plain_wsgi", "plain_asgi"])
def test_a_port_that_is_taken_is_said_before_any_server_starts(
    app: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["run", f"{HERE}:{app}", "--no-analytics", "--port", str(port)]) == 1
    printed = capsys.readouterr()
    assert f"127.0.0.1 port {port} can't be listened on" in printed.err
    assert "choose another with --port" in printed.err
    assert not printed.out


def test_an_address_that_is_not_this_machines_can_not_be_listened_on() -> None:
    assert run.why_not("192.0.2.1", 0) is not None
    assert run.why_not("127.0.0.1", 0) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "65536"], "65536 is no port: 0 to 65535"),
        (["--port", "http"], "'http' is no whole number"),
        (["--workers", "0"], "0 is not allowed: 1 or more"),
    ],
)
def test_a_number_out_of_range_is_wrong_usage(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", f"{HERE}:plain_wsgi", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("_environment_kept")
def test_without_any_server_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    assert main(["run", f"{HERE}:plain_asgi", "--no-analytics"]) == 1
    assert (
        "no server for ASGI is installed: pip install uvicorn or granian" in capsys.readouterr().err
    )


class Calls:
    """Stands for a server that is started in this process."""

    def __init__(self) -> None:
        self.given: tuple[Any, dict[str, Any]] | None = None

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.given = (arguments, options)


@pytest.mark.usefixtures("_environment_kept")
@pytest.mark.parametrize(
    ("app", "server", "patched", "arguments", "expected"),
    [
        ("plain_asgi", "uvicorn", "uvicorn.run", ["--port", "9000"], {"port": 9000, "workers": 1}),
        ("plain_asgi", "uvicorn", "uvicorn.run", ["--reload"], {"reload": True, "workers": None}),
        ("plain_wsgi", "waitress", "waitress.serve", ["--workers", "2"], {"port": 8000}),
        ("plain_wsgi", "waitress", "werkzeug.serving.run_simple", ["--reload"], {"threaded": True}),
    ],
)
def test_a_server_is_started_with_what_was_asked_for(
    app: str,
    server: str,
    patched: str,
    arguments: list[str],
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = Calls()
    monkeypatch.setattr(patched, calls)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    command = ["run", f"{HERE}:{app}", "--no-analytics", "--server", server, *arguments]
    assert main(command) == 0
    assert f"served by {server}" in capsys.readouterr().out
    assert calls.given is not None
    assert expected.items() <= calls.given[1].items()


@pytest.mark.usefixtures("_environment_kept")
def test_gunicorn_takes_the_process_over(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(os, "execv", calls)
    command = ["run", f"{HERE}:plain_wsgi", "--no-analytics", "--workers", "2", "--reload"]
    main([*command, "--server", "gunicorn"])
    assert calls.given is not None
    _, words = calls.given[0]
    assert words[1:3] == ["-m", "gunicorn"]
    assert words[-1] == "second_mw.cli.served:wsgi"
    assert {"--workers", "2", "--reload"} <= set(words)


@pytest.mark.usefixtures("_environment_kept")
def test_granian_is_given_the_app_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    calls = Calls()

    class Granian:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            calls(*arguments, **options)

        def serve(self) -> None:
            pass

    module = types.ModuleType("granian")
    module.Granian = Granian  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "granian", module)
    monkeypatch.setattr(run, "find_spec", lambda name: object())
    command = ["run", f"{HERE}:plain_asgi", "--no-analytics", "--server", "granian"]
    assert main(command) == 0
    assert calls.given is not None
    assert calls.given[0] == ("second_mw.cli.served:asgi",)


# Served for real


@pytest.fixture
def launched() -> Iterator[Callable[..., int]]:
    """Starts `second-mw run` in a process of its own; returns its port once it answers."""
    processes: list[subprocess.Popen[str]] = []

    def launch(*arguments: str, **variables: str) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COV_")}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "second_mw", "run", *arguments, "--port", str(port)],
                cwd=ROOT,
                env={**environment, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        _answers(port, processes[-1])
        return port

    yield launch
    for process in processes:
        process.terminate()
        printed, _ = process.communicate(timeout=60)
        assert "Traceback" not in printed, printed


def _answers(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.communicate()[0]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        else:
            return
    raise AssertionError("the server did not come up")


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("app", "server"),
    [("plain_wsgi", "waitress"), ("plain_wsgi", "gunicorn"), ("plain_asgi", "uvicorn")],
)
def test_a_plain_app_gets_an_endpoint_and_its_events_say_how_it_was_started(
    launched: Callable[..., int], app: str, server: str
) -> None:
    with running() as sink:
        port = launched(
            f"{HERE}:{app}",
            "--server",
            server,
            "--user",
            f"{HERE}:user",
            SECOND_POSTHOG_TOKEN="phc_test",
            SECOND_POSTHOG_HOST=sink.url,
        )
        assert ask(port, "GET", "/")[0] == 200
        event = {"event": "page viewed"}
        assert ask(port, "POST", "/api/analytics/capture", event) == (204, b"")
        sink.wait_for(lambda: bool(sink.requests), timeout=60)
        (arrived,) = sink.requests[0].batch
    assert arrived["properties"]["cli_launcher_version"] == VERSION
    assert arrived["properties"]["anonymized"] is True


def test_the_flag_holds_for_an_app_that_wraps_itself(launched: Callable[..., int]) -> None:
    with running() as sink:
        port = launched(
            f"{HERE}:plain_wsgi",
            "--no-analytics",
            "--user",
            f"{HERE}:user",
            "--server",
            "waitress",
            SECOND_POSTHOG_TOKEN="phc_test",
            SECOND_POSTHOG_HOST=sink.url,
        )
        assert ask(port, "POST", "/api/analytics/capture", {"event": "page viewed"})[0] == 204
        assert json.loads(ask(port, "GET", "/api/analytics/preferences")[1])["enabled"] is False
        assert sink.requests == []
