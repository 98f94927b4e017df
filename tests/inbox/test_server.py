"""The inbox over HTTP: as PostHog, as a page's server, and towards whom it should not answer."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import threading
from typing import Any

import pytest

from second_mw import Analytics, AnalyticsUser
from second_mw.inbox import app, strict
from second_mw.inbox.app import FAILURES, InboxServer
from tests.inbox.sdk import OTHER_UUID, UUID, V1_HEADERS, V1_PATH, event, send, v0, v1
from tests.inbox.stream import Stream


def v1_headers() -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in V1_HEADERS.items()}


# As PostHog


def test_a_batch_of_v0_is_answered_and_kept_whole(inbox: InboxServer) -> None:
    answer = send(inbox.url, "POST", "/batch/", gzip.compress(v0()), Content_Encoding="gzip")
    assert (answer.status, answer.json) == (200, {"status": 1})
    assert inbox.events() == [{**event(), "options": {}}]


def test_a_batch_of_v1_is_answered_and_kept_whole(inbox: InboxServer) -> None:
    sent = event(options={"process_person_profile": False})
    answer = send(inbox.url, "POST", V1_PATH, v1(sent), **v1_headers())
    assert (answer.status, answer.json) == (200, {"results": {UUID: {"result": "ok"}}})
    assert inbox.events() == [sent]
    assert inbox.rows()[0].mode == "anonymized"


def test_a_single_event_is_answered_and_kept_whole(inbox: InboxServer) -> None:
    body = json.dumps({**event(), "api_key": "phc_x"}).encode()
    assert send(inbox.url, "POST", "/i/v0/e/?ip=0", body).status == 200
    assert inbox.events() == [{**event(), "options": {}}]


def test_a_chunked_body_is_read(inbox: InboxServer) -> None:
    body = v0()
    pieces = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = f"POST /batch/ HTTP/1.1\r\nHost: 127.0.0.1:{inbox.port}\r\n"
    with socket.create_connection(("127.0.0.1", inbox.port), timeout=60) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + pieces)
        assert b" 200 " in connection.recv(64)
    assert len(inbox.events()) == 1


def test_an_event_that_comes_again_is_stored_once_and_counted(inbox: InboxServer) -> None:
    for _ in range(3):
        assert send(inbox.url, "POST", "/batch/", v0()).status == 200
    assert len(inbox.events()) == 1
    assert len(inbox.requests()) == 3
    assert inbox.rows()[0].repeats == 2
    assert [asked.events for asked in inbox.requests()] == [(1,), (1,), (1,)]


@pytest.mark.parametrize(
    "changed",
    [{"uuid": OTHER_UUID}, {"event": "x"}, {"distinct_id": "y"},
     {"timestamp": "2026-11-24T04:03:00.124Z"}],
)  # fmt: skip
def test_an_event_that_differs_in_any_of_the_four_is_another(
    inbox: InboxServer, changed: dict[str, str]
) -> None:
    send(inbox.url, "POST", "/batch/", v0(event(), event(**changed)))
    assert len(inbox.events()) == 2


def test_a_refused_batch_is_kept_with_posthogs_words_and_its_token_masked(
    inbox: InboxServer,
) -> None:
    body = v0(event(event=""), api_key="phc_0123456789abcdef")
    for packed in (body, gzip.compress(body)):
        answer = send(inbox.url, "POST", "/batch/", packed)
        assert (answer.status, answer.body) == (400, b"event submitted with an empty event name")
    assert inbox.events() == []
    row = inbox.rows()[0]
    assert (row.kind, row.result, row.mode) == ("refused", "refused", None)
    assert row.details == "400: event submitted with an empty event name"
    for asked in inbox.requests():
        assert asked.excerpt is not None
        assert json.loads(asked.excerpt)["api_key"] == "phc_…cdef"


@pytest.mark.parametrize("body", [b"\x1f\x8b broken", b"\xff\xfe", b""])
def test_a_body_that_cannot_be_read_is_refused_and_kept(inbox: InboxServer, body: bytes) -> None:
    assert send(inbox.url, "POST", "/batch/", body).status == 400
    assert inbox.rows()[0].kind == "refused"


def test_a_body_beyond_what_posthog_takes_is_413(inbox: InboxServer) -> None:
    assert send(inbox.url, "POST", "/batch/", b" " * (strict.MAX_BODY + 1)).status == 413


def test_an_event_that_v1_drops_is_shown_and_not_stored(inbox: InboxServer) -> None:
    body = v1(event(distinct_id="null"), event(uuid=OTHER_UUID))
    assert send(inbox.url, "POST", V1_PATH, body, **v1_headers()).status == 200
    assert [each["uuid"] for each in inbox.events()] == [OTHER_UUID]
    assert {row.result for row in inbox.rows()} == {"ok", "drop"}


def test_what_is_no_path_of_posthogs_is_404_and_leaves_no_trace(inbox: InboxServer) -> None:
    assert send(inbox.url, "POST", "/decide/", b"{}").status == 404
    assert send(inbox.url, "GET", "/page/../app.py").status == 404
    assert send(inbox.url, "GET", "/page/nothing.js").status == 404
    assert inbox.requests() == []


def test_the_real_forwarder_delivers_over_both_protocols(inbox: InboxServer) -> None:
    for protocol in ("v0", "v1"):
        analytics = Analytics(token="phc_test", host=inbox.url, protocol=protocol)
        captured = analytics.capture(AnalyticsUser("u_1234567"), "page viewed", {})
        assert analytics.flush(30) == (1, 0)
        analytics.close()
        assert inbox.events()[-1]["uuid"] == captured.uuid
    assert {asked.request.protocol for asked in inbox.requests()} == {"v0", "v1"}
    assert all(row.mode == "anonymized" for row in inbox.rows())


# Failing on purpose


def test_failing_with_503_takes_nothing_and_asks_to_come_again(inbox: InboxServer) -> None:
    inbox.fail = "503"
    assert send(inbox.url, "POST", "/batch/", v0()).status == 503
    answer = send(inbox.url, "POST", V1_PATH, v1(), **v1_headers())
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json["error"] == "service_unavailable"
    assert inbox.events() == []


def test_failing_with_400_refuses_whatever_comes(inbox: InboxServer) -> None:
    inbox.fail = "400"
    assert send(inbox.url, "POST", "/batch/", v0()).status == 400
    assert send(inbox.url, "POST", V1_PATH, v1(), **v1_headers()).status == 400
    assert inbox.events() == []


def test_failing_by_dropping_closes_the_connection_without_an_answer(inbox: InboxServer) -> None:
    inbox.fail = "drop"
    with pytest.raises((ConnectionError, OSError)):
        send(inbox.url, "POST", "/batch/", v0())
    assert inbox.events() == []
    assert inbox.rows()[0].details == "No answer: the connection was closed on purpose"
    assert inbox.requests()[0].status == 0


def test_failing_slowly_takes_the_event_and_answers_when_the_inbox_ends() -> None:
    answers: list[int] = []
    with InboxServer(port=0, fail="slow", slow=3600) as inbox:
        sender = threading.Thread(
            target=lambda: answers.append(send(inbox.url, "POST", "/batch/", v0()).status)
        )
        sender.start()
        assert inbox.wait_for(inbox.events, 30)
        assert answers == []
    sender.join(30)
    assert answers in ([200], [])  # it may have ended before the answer was out


def test_failing_slowly_answers_in_the_end() -> None:
    with InboxServer(port=0, fail="slow", slow=0.01) as inbox:
        assert send(inbox.url, "POST", "/batch/", v0()).status == 200


def test_an_end_to_failing_lets_through_what_waited(inbox: InboxServer) -> None:
    inbox.fail = "503"
    analytics = Analytics(token="phc_test", host=inbox.url, flush_interval=0.05)
    analytics.capture(AnalyticsUser("u_1234567"), "page viewed", {})
    assert inbox.wait_for(inbox.requests, 30)
    inbox.fail = None
    assert inbox.wait_for(inbox.events, 60)
    analytics.close()


def test_a_failure_mode_that_does_not_exist_is_an_error(inbox: InboxServer) -> None:
    with pytest.raises(ValueError, match="no failure mode '504'; there are 503, 400, slow, drop"):
        inbox.fail = "504"
    with pytest.raises(ValueError, match="no failure mode"):
        InboxServer(port=0, fail="nonsense")


# The page's server


def as_json(document: Any) -> dict[str, Any]:
    return {"body": json.dumps(document).encode(), "Content_Type": "application/json"}


def test_the_page_and_its_files_come_under_a_policy_that_runs_nothing_of_others(
    inbox: InboxServer,
) -> None:
    for path, media in (
        ("/", "text/html"),
        ("/page/inbox.css", "text/css"),
        ("/page/inbox.js", "text/javascript"),
        ("/page/mark.svg", "image/svg+xml"),
    ):
        answer = send(inbox.url, "GET", path)
        assert answer.status == 200, path
        assert answer.headers["content-type"].startswith(media)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert send(inbox.url, "HEAD", "/").body == b""


def test_the_stored_events_can_be_read_as_json(inbox: InboxServer) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    assert send(inbox.url, "GET", "/api/events").json == inbox.events()
    assert send(inbox.url, "GET", "/health").status == 200


@pytest.mark.parametrize("number", ["2", "0", "99999999999999999999", "1.0", "x", "١"])
def test_an_entry_that_is_not_there_is_404(inbox: InboxServer, number: str) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    path = f"/api/entries/{number}".encode().decode("latin-1")
    assert send(inbox.url, "GET", path.replace("\xd9\xa1", "%D9%A1")).status == 404
    assert send(inbox.url, "GET", "/api/entries/1").status == 200


def test_clearing_forgets_everything(inbox: InboxServer) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    assert send(inbox.url, "POST", "/api/clear", **as_json({})).status == 204
    assert (inbox.events(), inbox.requests(), inbox.counts().events) == ([], [], 0)


def test_the_failure_mode_can_be_set_from_the_page(inbox: InboxServer) -> None:
    assert send(inbox.url, "POST", "/api/fail", **as_json({"fail": "503"})).status == 204
    assert inbox.fail == "503"
    assert send(inbox.url, "POST", "/api/fail", **as_json({"fail": None})).status == 204
    assert inbox.fail is None
    for wrong in ({"fail": "nonsense"}, {"fail": 7}, {}, []):
        assert send(inbox.url, "POST", "/api/fail", **as_json(wrong)).status == 400


@pytest.mark.parametrize("path", ["/api/clear", "/api/fail"])
def test_what_changes_the_inbox_must_be_json_so_that_no_form_can_send_it(
    inbox: InboxServer, path: str
) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    answer = send(inbox.url, "POST", path, b'{"fail": "503"}', Content_Type="text/plain")
    assert answer.status == 415
    assert (inbox.fail, len(inbox.events())) == (None, 1)


def test_a_fault_of_the_inbox_is_a_500_that_tells_nothing(
    inbox: InboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of it")

    monkeypatch.setattr(strict, "answer", broken)
    with caplog.at_level(logging.ERROR):
        answer = send(inbox.url, "POST", "/batch/", v0())
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert "could not answer /batch/" in caplog.text


# Receipts


RECEIPT = {
    "uuid": UUID,
    "distinct_id": "anon_1",
    "event": "build completed",
    "mode": "anonymized",
    "properties": [
        {"key": "message", "result": "dropped", "rule": "free_text", "words": "free text"},
        {"key": "file_count", "result": "kept", "rule": "count", "words": "a count"},
        # What the server writes itself is no loss.
        {"key": "anonymized", "result": "dropped", "rule": "reserved", "words": "written here"},
    ],
}


@pytest.mark.parametrize("order", ["receipt first", "event first"])
def test_a_receipt_meets_its_event_whichever_comes_first(inbox: InboxServer, order: str) -> None:
    steps = [
        lambda: send(inbox.url, "POST", "/receipts", **as_json({"receipts": [RECEIPT]})),
        lambda: send(inbox.url, "POST", "/batch/", v0()),
    ]
    for step in steps if order == "receipt first" else reversed(steps):
        assert step().status in (200, 204)
    row = inbox.rows()[0]
    assert (row.dropped, row.redacted) == (1, 0)
    assert inbox.receipts() == [RECEIPT]


def test_a_receipt_of_another_distinct_id_is_not_this_events(inbox: InboxServer) -> None:
    other = {**RECEIPT, "distinct_id": "anon_2"}
    send(inbox.url, "POST", "/receipts", **as_json({"receipts": [other]}))
    send(inbox.url, "POST", "/batch/", v0())
    assert inbox.rows()[0].dropped is None


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"\xff", b"[]", b"{}", b'{"receipts": [{}]}', b'{"receipts": [7]}',
     b'{"receipts": [{"uuid": 1, "distinct_id": 2, "properties": [7]}]}', b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_receipt_is_400_and_keeps_none(inbox: InboxServer, body: bytes) -> None:
    assert send(inbox.url, "POST", "/receipts", body).status == 400
    assert inbox.receipts() == []
    assert send(inbox.url, "POST", "/batch/", v0()).status == 200


def test_too_many_receipts_at_once_are_413(
    inbox: InboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_RECEIPTS", 100)
    assert send(inbox.url, "POST", "/receipts", b" " * 101).status == 413


# The stream


def test_the_stream_begins_with_all_there_is_and_goes_on_with_what_comes(
    inbox: InboxServer,
) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    with Stream(inbox.url) as stream:
        assert stream.answer.getheader("Content-Type", "").startswith("text/event-stream")
        assert stream.next().kind == "reset"
        assert [row["id"] for row in stream.rows()] == [1]
        state = stream.until(lambda message: message.kind == "state").data
        assert (state["events"], state["url"], state["protocols"]) == (1, inbox.url, ["v0"])
        assert set(state["failures"]) == set(FAILURES)
        send(inbox.url, "POST", "/batch/", v0(event(uuid=OTHER_UUID)))
        assert [row["id"] for row in stream.rows()] == [2]


def test_a_stream_resumes_after_the_last_message_that_was_seen(inbox: InboxServer) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    with Stream(inbox.url) as stream:
        stream.rows()
        seen = stream.last_id
    send(inbox.url, "POST", "/batch/", v0(event(uuid=OTHER_UUID)))
    with Stream(inbox.url, seen) as stream:
        message = stream.next()
        assert (message.kind, [row["id"] for row in message.data]) == ("rows", [2])


@pytest.mark.parametrize("last_id", ["nonsense", "00000000.1", "{epoch}.99", "{epoch}.x", "."])
def test_a_stream_that_cannot_resume_begins_anew(inbox: InboxServer, last_id: str) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    with Stream(inbox.url) as stream:
        stream.rows()
        epoch = stream.last_id.partition(".")[0]
    with Stream(inbox.url, last_id.format(epoch=epoch)) as stream:
        assert stream.next().kind == "reset"
        assert [row["id"] for row in stream.rows()] == [1]


def test_a_row_that_changed_comes_again(inbox: InboxServer) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    with Stream(inbox.url) as stream:
        assert stream.rows()[0]["dropped"] is None
        send(inbox.url, "POST", "/receipts", **as_json({"receipts": [RECEIPT]}))
        assert stream.rows()[0]["dropped"] == 1
        send(inbox.url, "POST", "/batch/", v0())
        assert stream.rows()[0]["repeats"] == 1


def test_who_watches_is_told_of_a_clearing_and_of_a_failure_mode(inbox: InboxServer) -> None:
    send(inbox.url, "POST", "/batch/", v0())
    with Stream(inbox.url) as stream:
        stream.rows()
        inbox.clear()
        stream.until(lambda message: message.kind == "reset")
        inbox.fail = "slow"
        stream.until(lambda message: message.kind == "state" and message.data["fail"] == "slow")


def test_a_quiet_stream_says_that_it_lives(
    inbox: InboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "HEARTBEAT", 0.01)
    with Stream(inbox.url) as stream:
        while stream.lines() != [": still here"]:
            pass


def test_many_entries_come_in_pieces(inbox: InboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "STREAM_ROWS", 2)
    for number in range(5):
        send(inbox.url, "POST", "/batch/", v0(event(distinct_id=f"anon_{number}")))
    with Stream(inbox.url) as stream:
        assert [len(stream.rows()) for _ in range(3)] == [2, 2, 1]


def test_only_so_many_pages_may_watch(inbox: InboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_STREAMS", 1)
    with Stream(inbox.url) as stream:
        stream.next()
        assert send(inbox.url, "GET", "/api/stream").status == 503
    # One that has gone is noticed at the next message.
    monkeypatch.setattr(app, "MAX_STREAMS", 16)
    send(inbox.url, "POST", "/batch/", v0())
    with Stream(inbox.url) as stream:
        stream.next()


def test_asking_for_the_streams_head_holds_nothing(inbox: InboxServer) -> None:
    assert send(inbox.url, "HEAD", "/api/stream").status == 200


def test_closing_ends_the_streams_and_may_be_done_twice() -> None:
    inbox = InboxServer(port=0)
    with Stream(inbox.url) as stream:
        stream.next()
        inbox.close()
        with pytest.raises(EOFError):
            stream.until(lambda message: False)
    inbox.close()


# Who may ask


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost:8765", 200),
        ("LOCALHOST.", 200),
        ("inbox.localhost:8765", 200),
        ("[::1]:8765", 200),
        ("127.8.9.1", 200),
        ("evil.example", 403),
        ("evil.example:8765", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("192.168.1.7:8765", 403),
        ("", 403),
        ("[::1", 200),
    ],
)
def test_a_host_name_that_is_not_this_machines_is_not_answered(
    inbox: InboxServer, host: str, status: int
) -> None:
    for path in ("/", "/health", "/api/events"):
        assert send(inbox.url, "GET", path, Host=host).status == status
    assert send(inbox.url, "POST", "/batch/", v0(), Host=host).status == status
    assert len(inbox.events()) == (status == 200)


def test_the_refusal_of_a_host_says_what_to_do_and_runs_nothing(inbox: InboxServer) -> None:
    answer = send(inbox.url, "GET", "/", Host="<b>evil.example")
    assert "start it with --allow-host NAME" in answer.body.decode()
    assert answer.headers["content-type"].startswith("text/plain")


def test_an_inbox_on_the_network_answers_to_addresses_and_to_the_names_it_was_given() -> None:
    with InboxServer(port=0, bind="0.0.0.0", allow_hosts=["Inbox"]) as inbox:
        assert inbox.is_open
        assert inbox.url == f"http://127.0.0.1:{inbox.port}"
        for host in ("192.168.1.7:8765", "inbox:8765", socket.gethostname(), "localhost"):
            assert send(inbox.url, "GET", "/health", Host=host).status == 200, host
        assert send(inbox.url, "GET", "/health", Host="evil.example").status == 403


def test_an_inbox_listens_on_ipv6_too() -> None:
    try:
        inbox = InboxServer(port=0, bind="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with inbox:
        assert inbox.url == f"http://[::1]:{inbox.port}"
        assert not inbox.is_open
        assert send(inbox.url, "GET", "/health").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://{host}"}, 200),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
    ],
)
def test_another_sites_page_can_send_nothing(
    inbox: InboxServer, headers: dict[str, str], status: int
) -> None:
    host = f"127.0.0.1:{inbox.port}"
    given = {name.replace("-", "_"): value.format(host=host) for name, value in headers.items()}
    assert send(inbox.url, "POST", "/batch/", v0(), **given).status == status


def test_a_link_from_another_page_leads_here(inbox: InboxServer) -> None:
    given = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert send(inbox.url, "GET", "/", **given).status == 200
    assert send(inbox.url, "GET", "/api/events", Sec_Fetch_Site="cross-site").status == 403
