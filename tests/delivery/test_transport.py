"""The transport: what is on the wire, and what becomes of everything that can go wrong on it."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from second_mw.forwarder import transport as module
from second_mw.forwarder.exchange import Answer, NoAnswer, Request
from second_mw.forwarder.transport import MAX_ANSWER, HttpTransport, certificates, proxies_for
from tests.delivery.sink import Sink, Wire, black_hole, closed_port, status

POST = Request("/batch/", {"Content-Type": "application/json", "User-Agent": "second-mw/0"}, b"{}")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def to() -> Iterator[Callable[..., HttpTransport]]:
    made: list[HttpTransport] = []

    def to(host: str, connect: float = 5.0, read: float = 5.0) -> HttpTransport:
        made.append(HttpTransport(host, connect_timeout=connect, read_timeout=read))
        return made[-1]

    yield to
    for transport in made:
        transport.close()


To = Callable[..., HttpTransport]


def wire(head: str, body: bytes = b"") -> Callable[[object], Wire]:
    return lambda _: Wire(f"HTTP/1.1 {head}\r\n\r\n".encode() + body)


def test_nothing_is_on_the_wire_but_what_was_asked_for(sink: Sink, to: To) -> None:
    answer = to(sink.url).send(POST)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers["content-length"]) == (200, "12")
    assert answer.body == b'{"status":1}'
    (request,) = sink.requests
    assert (request.path, request.raw) == ("/batch/", b"{}")
    assert request.headers == {
        "host": sink.url.removeprefix("http://"),
        "accept-encoding": "identity",
        "content-length": "2",
        "content-type": "application/json",
        "user-agent": "second-mw/0",
    }


def test_a_path_below_the_host_is_kept(sink: Sink, to: To) -> None:
    to(f"{sink.url}/relay").send(POST)
    assert sink.requests[0].path == "/relay/batch/"


def test_cookies_are_never_sent_back(sink: Sink, to: To) -> None:
    sink.answer = status(200, Set_Cookie="session=1; Path=/")
    transport = to(sink.url)
    transport.send(POST)
    transport.send(POST)
    assert all("cookie" not in request.headers for request in sink.requests)
    assert not transport._session.cookies


def test_what_an_instrumentation_adds_to_a_hosts_sessions_is_not_added(
    sink: Sink, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = requests.Session.send

    def traced(session: requests.Session, request: Any, **given: Any) -> requests.Response:
        request.headers["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        return send(session, request, **given)

    monkeypatch.setattr(requests.Session, "send", traced)
    requests.post(f"{sink.url}/batch/", data=b"{}", timeout=5)
    to(sink.url).send(POST)
    assert ["traceparent" in request.headers for request in sink.requests] == [True, False]


def test_a_netrc_is_not_read(
    sink: Sink, to: To, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    to(sink.url).send(POST)
    assert "authorization" not in sink.requests[0].headers


def test_a_connection_is_kept_over_requests(sink: Sink, to: To) -> None:
    transport = to(sink.url)
    for _ in range(3):
        transport.send(POST)
    (pool,) = transport._session.get_adapter(sink.url).poolmanager.pools._container.values()
    assert (pool.num_connections, pool.num_requests) == (1, 3)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(sink: Sink, to: To, code: int) -> None:
    sink.answer = status(code, Location=f"{sink.url}/elsewhere")
    answer = to(sink.url).send(POST)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers["location"]) == (code, f"{sink.url}/elsewhere")
    assert [request.path for request in sink.requests] == ["/batch/"]


def test_a_port_where_nobody_listens_is_a_connection_error(to: To) -> None:
    assert to(closed_port()).send(POST) == NoAnswer("connection_error")


def test_a_server_that_never_answers_is_a_timeout(to: To) -> None:
    with black_hole() as url:
        assert to(url, read=0.05).send(POST) == NoAnswer("timeout")


def test_the_time_given_bounds_the_timeouts(to: To) -> None:
    with black_hole() as url:
        assert to(url, read=3600.0).send(POST, within=0.1) == NoAnswer("timeout")


def test_a_body_that_stops_short_is_a_connection_error(sink: Sink, to: To) -> None:
    sink.answer = wire("200 OK\r\nContent-Length: 100", b'{"status":1}')
    assert to(sink.url).send(POST) == NoAnswer("connection_error")


def test_a_body_that_stops_short_is_noticed_where_urllib3_does_not(
    to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [b'{"status":1}', b""]

    class Raw:
        def read(self, amount: int, *, decode_content: bool) -> bytes:
            return pieces.pop(0)

        def close(self) -> None: ...

        def release_conn(self) -> None: ...

    response = requests.Response()
    response.status_code = 200
    response.headers["Content-Length"] = "100"
    response.raw = Raw()
    monkeypatch.setattr(HTTPAdapter, "send", lambda *_, **__: response)
    assert to("http://127.0.0.1:1").send(POST) == NoAnswer("connection_error")


def test_a_body_in_broken_pieces_is_a_connection_error(sink: Sink, to: To) -> None:
    sink.answer = wire("200 OK\r\nTransfer-Encoding: chunked", b"5\r\nab")
    assert to(sink.url).send(POST) == NoAnswer("connection_error")


def test_a_body_that_stalls_is_a_timeout(to: To) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        transport = to(url, read=0.05)

        def half() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{")
                # The request's body may come apart from its head: until the client hangs up.
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=half)
        thread.start()
        assert transport.send(POST) == NoAnswer("timeout")
        transport.close()
        thread.join()


def test_no_http_at_all_is_a_connection_error(sink: Sink, to: To) -> None:
    sink.answer = lambda _: Wire(b"SSH-2.0-OpenSSH_9.9\r\n")
    assert to(sink.url).send(POST) == NoAnswer("connection_error")


def test_a_closed_connection_is_a_connection_error_and_the_next_request_has_a_new_one(
    sink: Sink, to: To
) -> None:
    sink.script.append(lambda _: Wire(b""))
    transport = to(sink.url)
    assert transport.send(POST) == NoAnswer("connection_error")
    answer = transport.send(POST)
    assert isinstance(answer, Answer)
    assert answer.status == 200


def test_tls_that_fails_is_told_apart(sink: Sink, to: To) -> None:
    transport = to(sink.url.replace("http://", "https://"))
    assert transport.send(POST) == NoAnswer("tls_error")


def test_an_answer_without_end_is_read_up_to_a_bound(sink: Sink, to: To) -> None:
    sink.answer = status(200, body=b"x" * (MAX_ANSWER + 100_000))
    answer = to(sink.url).send(POST)
    assert isinstance(answer, Answer)
    assert len(answer.body) == MAX_ANSWER


def test_a_redirects_body_is_read_up_to_the_same_bound(sink: Sink, to: To) -> None:
    sink.answer = status(302, body=b"x" * (MAX_ANSWER + 100_000), Location="/elsewhere")
    answer = to(sink.url).send(POST)
    assert isinstance(answer, Answer)
    assert len(answer.body) == MAX_ANSWER


def test_an_answer_that_trickles_beyond_the_read_timeout_is_given_up(
    sink: Sink, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each look at the clock is an hour later.
    hours = iter(range(0, 36_000_000, 3600))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(hours))))
    sink.answer = status(200, body=b"x" * 1_000)
    assert to(sink.url).send(POST) == NoAnswer("timeout")


def test_an_answer_compressed_unasked_is_unpacked(sink: Sink, to: To) -> None:
    packed = gzip.compress(b'{"status":1}')
    sink.answer = status(200, body=packed, Content_Encoding="gzip")
    answer = to(sink.url).send(POST)
    assert isinstance(answer, Answer)
    assert answer.body == b'{"status":1}'


def test_a_proxy_of_the_environment_is_used(
    sink: Sink, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", sink.url)
    answer = to("http://posthog.example").send(POST)
    assert isinstance(answer, Answer)
    assert sink.requests[0].path == "http://posthog.example/batch/"


def test_no_proxy_stands_before_this_machine(
    sink: Sink, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", closed_port())
    assert isinstance(to(sink.url).send(POST), Answer)
    assert proxies_for("http://localhost:8001") == proxies_for("http://[::1]:8001") == {}


def test_no_proxy_exempts_a_host(sink: Sink, to: To, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", closed_port())
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    assert isinstance(to(sink.url).send(POST), Answer)


def test_a_proxy_that_is_not_there_is_told_apart(to: To, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", closed_port())
    assert to("http://posthog.example").send(POST) == NoAnswer("proxy_error")


def test_proxies_come_by_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxies_for("https://posthog.example") == {}
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "internal.example")
    assert proxies_for("https://posthog.example") == {"https": "http://proxy:3128"}
    assert proxies_for("https://internal.example") == {}


def test_a_ca_bundle_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    assert certificates() is True
    monkeypatch.setenv("CURL_CA_BUNDLE", "/etc/curl.pem")
    assert certificates() == "/etc/curl.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/requests.pem")
    assert certificates() == "/etc/requests.pem"


def test_a_ca_bundle_that_is_not_there_is_a_failure_and_no_exception(
    sink: Sink, to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    transport = to(sink.url.replace("http://", "https://"))
    assert transport.send(POST) == NoAnswer("connection_error")
