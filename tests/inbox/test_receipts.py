"""ReceiptSender: what a host sets as `on_receipt`. It costs the host nothing, whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from second_mw import Analytics, AnalyticsUser
from second_mw.errors import ConfigurationError
from second_mw.inbox import receipts
from second_mw.inbox.app import InboxServer
from second_mw.inbox.receipts import ReceiptSender
from second_mw.privacy.receipt import Line, Receipt
from tests.stores import Kept

RECEIPT = Receipt("u", "anon_1", "page viewed", "anonymized", (Line("a", "kept", "count"),))
NAME = "second_mw receipts"


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@contextmanager
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/receipts"


def test_a_receipt_reaches_the_inbox_and_nothing_of_it_goes_to_posthog(inbox: InboxServer) -> None:
    sender = ReceiptSender(f"{inbox.url}/receipts")
    analytics = Analytics(token="phc_test", host=inbox.url, on_receipt=sender)
    captured = analytics.capture(
        AnalyticsUser("u_1234567"), "chat initiated", {"message": "hello there"}
    )
    analytics.flush(30)
    assert inbox.wait_for(inbox.receipts, 30)
    assert inbox.receipts()[0]["uuid"] == captured.uuid
    assert inbox.rows()[0].dropped == 1
    assert "message" not in str(inbox.events())
    analytics.close()
    sender.close()


def test_closing_sends_what_waits(inbox: InboxServer) -> None:
    sender = ReceiptSender(f"{inbox.url}/receipts")
    for number in range(500):
        sender(Receipt(str(number), "anon_1", "page viewed", "anonymized", ()))
    sender.close()
    assert [each["uuid"] for each in inbox.receipts()] == [str(n) for n in range(500)]


def test_no_thread_runs_before_the_first_receipt_nor_when_there_is_none_for_a_while(
    inbox: InboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "LINGER", 0.01)
    before = len(threads())
    sender = ReceiptSender(f"{inbox.url}/receipts")
    assert len(threads()) == before
    for _ in range(2):
        sender(RECEIPT)
        thread = sender._thread
        if thread is not None:
            assert thread.daemon
            thread.join(30)
            assert not thread.is_alive()
        assert sender._thread is None
    sender.close()
    assert len(inbox.receipts()) == 1  # the same one twice


def test_an_inbox_that_is_away_or_never_answers_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receipts, "POST_TIMEOUT", 0.05)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}/receipts"
    with silent() as hanging:
        for address in (away, hanging):
            sender = ReceiptSender(address)
            sender(RECEIPT)
            sender.close()


def test_what_is_too_much_is_lost_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "MAX_WAITING", 10)
    monkeypatch.setattr(receipts, "POST_TIMEOUT", 0.05)
    with silent() as address:
        sender = ReceiptSender(address)
        for _ in range(1_000):
            sender(RECEIPT)
        assert len(sender._waiting) <= 10
        sender.close()


def test_after_its_end_it_takes_no_more(inbox: InboxServer) -> None:
    sender = ReceiptSender(f"{inbox.url}/receipts")
    sender.close()
    sender(RECEIPT)
    assert (sender._thread, inbox.receipts()) == (None, [])


def test_a_machine_without_a_thread_to_spare_keeps_the_receipt_for_the_next_time(
    inbox: InboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sender = ReceiptSender(f"{inbox.url}/receipts")
    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", refuse)
        sender(RECEIPT)
    sender(Receipt("v", "anon_1", "page viewed", "anonymized", ()))
    sender.close()
    assert [each["uuid"] for each in inbox.receipts()] == ["u", "v"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_hands_over_its_own_and_not_its_parents(inbox: InboxServer) -> None:
    code = f"""
import os
from second_mw.inbox.receipts import ReceiptSender
from second_mw.privacy.receipt import Receipt
sender = ReceiptSender("{inbox.url}/receipts")
sender._thread = object()  # the parent's thread, which no child has
sender(Receipt("parent", "anon_1", "page viewed", "anonymized", ()))
if (child := os.fork()) == 0:
    sender(Receipt("child", "anon_1", "page viewed", "anonymized", ()))
    sender.close()
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [each["uuid"] for each in inbox.receipts()] == ["child"]


@pytest.mark.parametrize("url", ["https://127.0.0.1/receipts", "127.0.0.1:8765", "", "http://"])
def test_an_address_that_is_none_is_said_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match="begins with http://"):
        ReceiptSender(url)


def test_a_host_that_wants_no_receipts_sends_none(inbox: InboxServer) -> None:
    analytics = Analytics(token="phc_test", host=inbox.url, outbox=Kept())
    analytics.capture(AnalyticsUser("u_1234567"), "page viewed", {})
    assert inbox.receipts() == []
