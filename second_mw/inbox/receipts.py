"""ReceiptSender: a host's `on_receipt`, so that the inbox shows what was dropped, and why.

A side channel for development: receipts go to the inbox on this machine and never to PostHog. It
must cost the host nothing, so it never blocks, holds a bounded number, and loses them silently
when the inbox is slow or away. The thread starts at the first receipt and ends when there is none
for a while.
"""

from __future__ import annotations

import http.client
import os
import threading
from collections import deque
from typing import Final
from urllib.parse import urlsplit

import msgspec

from second_mw.errors import ConfigurationError
from second_mw.privacy.receipt import Receipt

MAX_WAITING: Final = 2_000
MAX_AT_ONCE: Final = 200
#: Seconds: for one post, and without a receipt until the thread ends.
POST_TIMEOUT: Final = 2.0
LINGER: Final = 5.0

_encode = msgspec.json.Encoder().encode


class ReceiptSender:
    """Hand receipts to an inbox: `Analytics(…, on_receipt=ReceiptSender(url))`.

    Args:
        url: the inbox's receipts address, `http://127.0.0.1:8765/receipts`.

    Raises:
        ConfigurationError: the url is not `http://…`.

    >>> sender = ReceiptSender("http://127.0.0.1:8765/receipts")
    >>> sender.close()
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigurationError(f"a receipts address begins with http://, not {url!r}")
        self._where = (parts.hostname, parts.port or 80)
        self._path = parts.path or "/receipts"
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: deque[Receipt] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __call__(self, receipt: Receipt) -> None:
        """Take one receipt; never blocks and never raises."""
        if self._pid != os.getpid():
            self._begin()  # a forked child has neither the thread nor a lock it can trust
        with self._changed:
            if self._closed or len(self._waiting) >= MAX_WAITING:
                return
            self._waiting.append(receipt)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="second_mw receipts", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return  # no thread to be had now: the next receipt tries again
                self._thread = thread
            self._changed.notify()

    def close(self) -> None:
        """Send what waits, within a few seconds, and take no more."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            thread.join(2 * POST_TIMEOUT)

    def _run(self) -> None:
        while receipts := self._next():
            self._post(receipts)

    def _next(self) -> list[Receipt]:
        """Return what waits, or nothing when the thread has to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, LINGER)
            taken = [self._waiting.popleft() for _ in range(min(MAX_AT_ONCE, len(self._waiting)))]
            if not taken:
                self._thread = None
            return taken

    def _post(self, receipts: list[Receipt]) -> None:
        connection = http.client.HTTPConnection(*self._where, timeout=POST_TIMEOUT)
        try:
            connection.request(
                "POST",
                self._path,
                _encode({"receipts": [receipt.as_dict() for receipt in receipts]}),
                {"Content-Type": "application/json"},
            )
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass  # a receipt is only to look at
        finally:
            connection.close()
