"""Requests as a well-behaved SDK sends them; a test changes one thing at a time."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlsplit

TOKEN = "phc_0123456789abcdef"
UUID = "0190f3c2-7d1a-7c3e-8a52-1f0e9d8c7b6a"
OTHER_UUID = "0190f3c2-7d1a-7c3e-8a52-1f0e9d8c7b6b"
STAMP = "2026-11-24T04:03:00.123Z"
NOW = datetime(2026, 11, 24, 4, 3, 1, tzinfo=timezone.utc)
ABSENT: Any = object()

V1_PATH = "/i/v1/analytics/events"
V1_HEADERS = {
    "Authorization": f"Bearer {TOKEN}",
    "Content-Type": "application/json",
    "User-Agent": "second-mw/0.1",
    "PostHog-Sdk-Info": "second-mw/0.1",
    "PostHog-Attempt": "1",
    "PostHog-Request-Id": OTHER_UUID,
    "PostHog-Request-Timestamp": STAMP,
}


def without_absent(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not ABSENT}


def event(**changed: Any) -> dict[str, Any]:
    """One event, with some fields changed, or left out if `ABSENT`."""
    return without_absent(
        {
            "event": "build completed",
            "uuid": UUID,
            "distinct_id": "anon_1",
            "timestamp": STAMP,
            "properties": {"file_count": 12},
            **changed,
        }
    )


def v0(*events: Any, **changed: Any) -> bytes:
    """A body of `/batch/`."""
    return json.dumps(
        without_absent(
            {"api_key": TOKEN, "sent_at": STAMP, "batch": list(events or (event(),)), **changed}
        )
    ).encode()


def v1(*events: Any, **changed: Any) -> bytes:
    """A body of v1."""
    batch = list(events or (event(),))
    return json.dumps(without_absent({"created_at": STAMP, "batch": batch, **changed})).encode()


class Answered(NamedTuple):
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def send(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
    """Send one request over HTTP; `content_type` becomes `Content-Type`."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return Answered(
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read(),
        )
    finally:
        connection.close()
