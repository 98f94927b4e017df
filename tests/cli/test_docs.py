"""`second-mw docs` and `second-mw catalogue`: the documentation and the events, printed."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from second_mw import Catalogue, docs
from second_mw.cli import docs as command
from second_mw.cli import main
from second_mw.cli import screen as on_screen


@pytest.mark.parametrize("page", docs.PAGES)
def test_every_page_is_there_and_says_something(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["docs", page]) == 0
    assert capsys.readouterr().out.count("\n") > 10


def test_without_a_page_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs"]) == 0
    printed = capsys.readouterr().out
    assert all(page in printed for page in docs.PAGES)


def test_a_page_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", "nonsense"]) == 2
    with pytest.raises(KeyError):
        docs.page("nonsense")


def test_pages_link_only_to_pages_and_headings_that_exist() -> None:
    for name in docs.PAGES:
        for other in _named_pages(docs.page(name)):
            assert other in docs.PAGES, f"{name} names `second-mw docs {other}`"


def _named_pages(text: str) -> list[str]:
    import re

    return re.findall(r"`second-mw docs ([a-z]+)`", text)


def test_pages_are_served_with_a_policy_and_without_scripts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from werkzeug.test import Client

    pages = {name: command._page(name, "<p>x</p>") for name in docs.PAGES}
    client = Client(command._app(pages))
    for path in ("/", "/delivery"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "<script" not in answer.text
    assert client.get("/nonsense").status_code == 404


def test_serving_says_where_and_ends_on_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import werkzeug.serving

    seen: list[bytes] = []
    made = werkzeug.serving.make_server

    def make(*arguments: Any, **options: Any) -> Any:
        server = made(*arguments, **options)
        serve = server.serve_forever

        def once() -> None:
            thread = threading.Thread(target=serve, kwargs={"poll_interval": 0.02})
            thread.start()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=60) as page:
                seen.append(page.read())
            server.shutdown()
            thread.join()
            raise KeyboardInterrupt

        server.serve_forever = once
        return server

    monkeypatch.setattr(werkzeug.serving, "make_server", make)
    assert main(["docs", "--serve", "--port", "0"]) == 0
    assert b"second_mw" in seen[0]
    assert "http://127.0.0.1:" in capsys.readouterr().out


def test_serving_without_the_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "markdown_it", None)
    assert main(["docs", "--serve"]) == 1
    assert "pip install 'second_mw[cli]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["docs", "--serve", "--port", str(port)]) == 1
    assert f"port {port} is taken" in capsys.readouterr().err


def test_a_terminal_gets_colours_and_boxes_of_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["docs", "delivery"]) == 0
    assert "\x1b[" in capsys.readouterr().out
    on_screen.table(("state", "what"), [("bad", "[not markup]")])
    printed = capsys.readouterr().out
    assert "[not markup]" in printed
    assert "\x1b[" in printed


def test_without_rich_a_terminal_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "rich", None)
    on_screen.table(("a", "b"), [("1", "2")])
    assert capsys.readouterr().out == "a  b\n1  2\n"


# The catalogue


def printed_as(form: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["catalogue", "--format", form, *more]) == 0
    return capsys.readouterr().out


def test_people_get_every_event_with_its_properties(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed_as("markdown", capsys)
    assert all(name in text for name in Catalogue.default().events)
    assert "file_count" in text


def test_machines_get_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert "$schema" in json.loads(printed_as("json-schema", capsys))


def test_typescript_gets_the_events_as_a_union(capsys: pytest.CaptureFixture[str]) -> None:
    assert '"build completed"' in printed_as("typescript", capsys)


def test_openapi_describes_every_path(capsys: pytest.CaptureFixture[str]) -> None:
    described = json.loads(printed_as("openapi", capsys))
    assert {
        "/api/analytics/capture",
        "/api/analytics/preferences",
        "/api/analytics/identify",
    } <= set(described["paths"])


def test_a_hosts_own_catalogue_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed_as("markdown", capsys, "tests.cli.test_explain:CATALOGUE")
    assert "invoice paid" in text


def test_what_is_no_catalogue_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalogue", "tests.cli.apps:app"]) == 1
    assert "is no Catalogue" in capsys.readouterr().err
