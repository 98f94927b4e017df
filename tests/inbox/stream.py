"""A reader of the inbox's stream, as a page's EventSource is one."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Message(NamedTuple):
    kind: str
    data: Any
    id: str


class Stream:
    """The stream of one inbox, from the beginning or after the last id that was seen."""

    def __init__(self, url: str, last_id: str = "") -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        headers = {"Last-Event-ID": last_id} if last_id else {}
        self._connection.request("GET", "/api/stream", headers=headers)
        self.answer = self._connection.getresponse()
        self.last_id = last_id

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.answer.close()
        self._connection.close()

    def lines(self) -> list[str]:
        """The next block's lines; none at the stream's end."""
        lines: list[str] = []
        while (line := self.answer.readline().decode().rstrip("\n")) or not lines:
            if not line:
                break
            lines.append(line)
        return lines

    def next(self) -> Message:
        """The next message, past what only says that the stream lives."""
        while lines := self.lines():
            fields = dict(line.split(": ", 1) for line in lines)
            if "event" in fields:
                self.last_id = fields.get("id", self.last_id)
                return Message(fields["event"], json.loads(fields["data"]), self.last_id)
        raise EOFError

    def until(self, wanted: Callable[[Message], object]) -> Message:
        """The next message that is wanted."""
        while not wanted(message := self.next()):
            pass
        return message

    def rows(self) -> list[dict[str, Any]]:
        """The next rows."""
        return list(self.until(lambda message: message.kind == "rows").data)
