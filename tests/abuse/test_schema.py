"""What the OpenAPI description says is what both adapters do: schemathesis makes requests of it.

Requests that fit the description, and requests that nearly do: every answer is one that the
description has, no answer is a server's fault, and nothing is queued unless the answer is a 2xx.
The examples are the same every time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import CheckFunction
from schemathesis.core import NotSet
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from second_mw import Analytics, AnalyticsUser
from second_mw.cli import main
from second_mw.errors import OutboxUnavailable
from tests.abuse.drive import Told
from tests.hosts import ADA, Reply

CHECKS: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Operation → its method and path.
PATHS = {
    "capture": ("POST", "/api/analytics/capture"),
    "identify": ("POST", "/api/analytics/identify"),
    "putPreferences": ("PUT", "/api/analytics/preferences"),
    "getPreferences": ("GET", "/api/analytics/preferences"),
    "client_js": ("GET", "/api/analytics/client.js"),
    "settings_js": ("GET", "/api/analytics/settings.js"),
}
WITH_A_BODY = ("capture", "identify", "putPreferences")
QUIET = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def described(capsys: pytest.CaptureFixture[str]) -> Any:
    """The description as the command prints it."""
    assert main(["catalogue", "--format", "openapi"]) == 0
    return from_dict(json.loads(capsys.readouterr().out))


def body_of(case: Case) -> bytes:
    if isinstance(case.body, bytes):
        return case.body
    if isinstance(case.body, NotSet):
        return b""
    return json.dumps(case.body).encode("utf-8", "surrogatepass")


def asked(ask: Callable[..., Reply], analytics: Analytics, case: Case, user: Any) -> Reply:
    """Send the case through an adapter, and hold its answer against the description."""
    typed = [("content-type", case.media_type)] if case.media_type else []
    headers = [*typed, *((name.lower(), value) for name, value in (case.headers or {}).items())]
    parts = (body_of(case),)
    reply = ask(analytics, Told(case.method, case.formatted_path, headers, parts), user)
    case.validate_response(as_response(case, reply), checks=CHECKS)
    return reply


def as_response(case: Case, reply: Reply) -> Response:
    request = requests.Request(case.method, f"https://app.example{case.path}").prepare()
    headers = {name: [value] for name, value in reply.headers.items()}
    return Response(reply.status, headers, reply.body, request, elapsed=0.0, verify=True)


def signed_in(_: object) -> Any:
    return ADA


def identified(_: object) -> Any:
    return AnalyticsUser("u_9", anonymized=False, sharing=True)


def nobody(_: object) -> Any:
    return None


def broken(_: object) -> Any:
    raise LookupError("the host's own failure")


def cases(described: Any, operation: str, mode: GenerationMode) -> Any:
    return described[PATHS[operation][1]][PATHS[operation][0]].as_strategy(generation_mode=mode)


ROWS = [
    (operation, mode)
    for operation in PATHS
    for mode in GenerationMode
    # A GET without parameters has no form that nearly fits.
    if mode is GenerationMode.POSITIVE or operation in WITH_A_BODY
]


@pytest.mark.parametrize("user", [signed_in, nobody], ids=["a user", "nobody"])
@pytest.mark.parametrize(("operation", "mode"), ROWS)
def test_every_answer_is_one_that_the_description_has_and_only_a_2xx_queues(
    operation: str, mode: GenerationMode, user: Any, ask: Any, described: Any, make: Any
) -> None:
    analytics = make(rate=None)
    statuses: set[int] = set()

    @QUIET
    @given(case=cases(described, operation, mode))
    def holds(case: Case) -> None:
        before = analytics.stats()["accepted"]
        reply = asked(ask, analytics, case, user)
        statuses.add(reply.status)
        assert reply.status < 500
        assert analytics.stats()["accepted"] == before or reply.status in (200, 204)

    holds()
    if mode is GenerationMode.POSITIVE and user is signed_in:
        assert statuses & {200, 204}
    if mode is GenerationMode.NEGATIVE and user is signed_in:
        assert 400 in statuses


@pytest.mark.parametrize("operation", ["capture", "identify", "putPreferences", "getPreferences"])
def test_the_hosts_and_the_outboxs_faults_are_described_too(
    operation: str, ask: Any, described: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make(rate=None)
    monkeypatch.setattr(full.outbox.store, "put", Mock(side_effect=OutboxUnavailable("full")))
    statuses: set[int] = set()

    @QUIET
    @given(case=cases(described, operation, GenerationMode.POSITIVE))
    def holds(case: Case) -> None:
        statuses.add(asked(ask, full, case, identified).status)
        assert asked(ask, full, case, broken).status == 500

    holds()
    assert (503 in statuses) == (operation in ("capture", "identify"))
