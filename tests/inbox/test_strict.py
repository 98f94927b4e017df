"""What PostHog would say, rule by rule: each row of each table of `strict.py` is met here."""

from __future__ import annotations

import gzip
import json
import zlib
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest

from second_mw.inbox import strict
from second_mw.inbox.strict import Reply, answer
from second_mw.user import REFUSED_DISTINCT_IDS
from tests.inbox.sdk import (
    ABSENT,
    NOW,
    OTHER_UUID,
    STAMP,
    TOKEN,
    UUID,
    V1_HEADERS,
    V1_PATH,
    event,
    v0,
    v1,
)

PACKED = {"Content-Encoding": "gzip"}
BOMB = gzip.compress(b" " * (strict.MAX_BODY + 1))


def ask_v0(body: bytes, path: str = "/batch/", method: str = "POST", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(method, path, named, body, now=NOW)


def ask_v1(body: bytes | None = None, method: str = "POST", **changed: Any) -> Reply:
    """Ask v1 with some headers changed (`posthog_attempt="2"`), or left out if `ABSENT`."""
    given = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    headers = {name.lower(): value for name, value in V1_HEADERS.items()} | given
    sent = {name: value for name, value in headers.items() if value is not ABSENT}
    return answer(method, V1_PATH, sent, v1() if body is None else body, now=NOW)


# v0


def test_v0_takes_a_batch() -> None:
    reply = ask_v0(v0(event(), event(uuid=OTHER_UUID)))
    assert (reply.status, json.loads(reply.body), reply.refused) == (200, {"status": 1}, None)
    assert reply.events[0] == strict.Event(
        "build completed", UUID, "anon_1", STAMP, {"file_count": 12}
    )
    assert [each.uuid for each in reply.events] == [UUID, OTHER_UUID]


class V0Case(NamedTuple):
    """A request that is refused: the code of its refusal, and what PostHog says."""

    code: str
    says: str
    body: bytes = v0()
    path: str = "/batch/"
    method: str = "POST"
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


LONG = "x" * (strict.MAX_EVENT + 1)
V0_CASES = [
    V0Case("empty_payload", "missing data payload", b""),
    V0Case("request_decoding", "gzip data ends too early", gzip.compress(v0())[:-12]),
    V0Case("request_decoding", "invalid gzip data", b"{}", headers=PACKED),
    V0Case("request_parsing", "malformed", b"{nonsense"),
    V0Case("request_parsing", "truncated", v0()[:-1]),
    V0Case("request_parsing", "failed to parse request", b'{"api_key": "\xff"}'),
    V0Case("request_parsing", "missing required field `batch`", b"{}"),
    V0Case("request_parsing", "Expected `object`, got `array`", b"[]"),
    V0Case("request_parsing", "nested beyond reason", b'{"batch":[%b' % (b"[" * 100_000)),
    V0Case("request_parsing", "batch[1]: Invalid UUID", v0(event(), event(uuid="1"))),
    V0Case("request_parsing", "batch[0]: Expected `object`, got `null`",
           v0(event(properties=None))),
    V0Case("request_parsing", "batch[0]: Expected `object`, got `array`", v0(event(properties=[]))),
    V0Case("request_parsing", "batch[0]: Expected `str", v0(event(distinct_id=7))),
    V0Case("request_parsing", "missing required field `event`", v0(event(event=ABSENT))),
    V0Case("empty_batch", "request holds no event", v0(batch=[])),
    V0Case("missing_event_name", "empty event name", v0(event(event=""))),
    V0Case("missing_distinct_id", "without a distinct_id", v0(event(distinct_id=ABSENT))),
    V0Case("missing_distinct_id", "without a distinct_id", v0(event(distinct_id=None))),
    V0Case("empty_distinct_id", "empty distinct_id", v0(event(distinct_id=""))),
    V0Case("event_too_big", "1000000 bytes", v0(event(properties={"text": LONG}))),
    V0Case("no_token", "without an api_key", v0(api_key=ABSENT)),
    V0Case("mixed_tokens", "inconsistent api_key", v0(event(api_key="phc_another"))),
    V0Case("mixed_tokens", "inconsistent api_key", v0(token="phc_another")),
    V0Case("invalid_token", "personal_api_key", v0(api_key="phx_0123456789")),
    V0Case("not_found", "not found", path="/decide/"),
    V0Case("method_not_allowed", "method not allowed", method="GET"),
    V0Case("payload_too_large", "more than 20971520 bytes", b" " * (strict.MAX_BODY + 1)),
    V0Case("payload_too_large", "decompressed it would exceed", BOMB, headers=PACKED),
    # One bad event among good ones fails its whole batch.
    V0Case("missing_event_name", "empty event name", v0(event(), event(event=""))),
    # The single-event form is judged by the same rules.
    V0Case("empty_distinct_id", "empty", json.dumps(event(distinct_id="", api_key=TOKEN)).encode(),
           "/i/v0/e/"),
    V0Case("no_token", "without an api_key", json.dumps(event()).encode(), "/i/v0/e/"),
    V0Case("request_parsing", "missing required field `event`", b'{"api_key": "x"}', "/i/v0/e"),
]  # fmt: skip
#: Refusals of a PostHog in trouble: the inbox gives them when told to, never by itself.
V0_TROUBLE = {"not_processable", "rate_limited", "transient"}
V1_TROUBLE = {"rate_limited", "service_unavailable"}


@pytest.mark.parametrize("case", V0_CASES, ids=lambda case: f"{case.code}: {case.says[:30]}")
def test_v0_refuses_what_posthog_refuses_in_its_words(case: V0Case) -> None:
    reply = answer(case.method, case.path, case.headers, case.body, now=NOW)
    refusal = strict.V0_REFUSALS[case.code]
    assert reply.status == refusal.status
    assert reply.refused is not None
    assert case.says in reply.refused
    assert reply.refused.startswith(refusal.words.partition("{}")[0])
    assert reply.body.decode() == reply.refused
    assert (reply.events, reply.dropped) == ((), ())


def test_each_refusal_of_v0_has_a_case() -> None:
    assert {case.code for case in V0_CASES} | V0_TROUBLE == set(strict.V0_REFUSALS)


def test_only_a_method_that_is_wrong_comes_with_the_right_one() -> None:
    assert dict(ask_v0(b"", method="PUT").headers)["Allow"] == "POST"
    assert "Allow" not in dict(ask_v0(b"").headers)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("phc_" + "x" * 61, "too_long"),
        ("phc_é", "not_ascii"),
        ("phx_0123456789", "personal_api_key"),
        ("phc_\0", "null_byte"),
        ("sk_0123456789", "not_a_project_token"),
    ],
)
def test_a_token_must_be_a_projects(token: str, reason: str) -> None:
    refused = ask_v0(v0(api_key=token)).refused
    assert refused == f"API key is not valid: {reason}"
    if token.isascii() and "\0" not in token:
        reply = ask_v1(authorization=f"Bearer {token}")
        assert (reply.status, reply.refused) == (
            401,
            f"invalid_api_token: API token is not valid: {reason}",
        )


def test_each_rule_of_tokens_has_a_case() -> None:
    reasons = {"empty", "too_long", "not_ascii", "personal_api_key", "null_byte"}
    assert {rule.reason for rule in strict.TOKEN_RULES} == reasons | {"not_a_project_token"}


@pytest.mark.parametrize("holder", ["api_key", "token"])
def test_v0s_token_may_stand_in_the_body_or_in_each_event(holder: str) -> None:
    assert ask_v0(v0(**{"api_key": ABSENT, holder: TOKEN})).status == 200
    assert ask_v0(v0(event(**{holder: TOKEN}), api_key=ABSENT)).status == 200
    assert ask_v0(v0(event(**{holder: TOKEN}))).status == 200


@pytest.mark.parametrize("path", ["/i/v0/e/", "/i/v0/e"])
def test_v0_takes_a_single_event(path: str) -> None:
    reply = ask_v0(json.dumps(event(api_key=TOKEN)).encode(), path)
    assert (reply.status, reply.request.protocol) == (200, "v0 single")
    assert [each.uuid for each in reply.events] == [UUID]


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Encoding": "gzip"}], ids=["by its first bytes", "by its header"]
)
def test_v0_reads_gzip(headers: dict[str, str]) -> None:
    reply = answer("POST", "/batch/", headers, gzip.compress(v0()), now=NOW)
    assert reply.status == 200
    assert reply.request.inflated == len(v0())
    assert reply.request.size == len(gzip.compress(v0()))


def test_v0_makes_a_uuid_where_there_is_none() -> None:
    first, second = ask_v0(v0(event(uuid=ABSENT), event(uuid=None))).events
    assert len({first.uuid, second.uuid}) == 2


def test_v0_cuts_a_distinct_id_at_200_characters_and_says_so() -> None:
    (stored,) = ask_v0(v0(event(distinct_id="x" * 201))).events
    assert (stored.distinct_id, stored.result) == ("x" * 200, "ok")
    assert stored.notes == ("distinct_id cut at 200 characters",)


@pytest.mark.parametrize("distinct_id", [*sorted(REFUSED_DISTINCT_IDS), " NaN ", "Anonymous"])
def test_a_distinct_id_that_merges_strangers_is_a_warning_on_v0_and_dropped_on_v1(
    distinct_id: str,
) -> None:
    (stored,) = ask_v0(v0(event(distinct_id=distinct_id))).events
    assert (stored.result, stored.details) == ("warning", "malformed_distinct_id")
    (dropped,) = ask_v1(v1(event(distinct_id=distinct_id))).dropped
    assert (dropped.result, dropped.details) == ("drop", "malformed_distinct_id")


@pytest.mark.parametrize("stamp", [ABSENT, None, "yesterday", "2026-11-24T04:03:00"])
def test_v0_replaces_a_timestamp_it_cannot_read(stamp: Any) -> None:
    (stored,) = ask_v0(v0(event(timestamp=stamp))).events
    assert stored.timestamp == "2026-11-24T04:03:01.000Z"
    assert stored.notes == ("no readable timestamp: the server's now",)


@pytest.mark.parametrize(("hours", "moved"), [(22.9, False), (23.1, True)])
@pytest.mark.parametrize("ask", ["v0", "v1"])
def test_an_event_from_tomorrow_is_moved_to_now(ask: str, hours: float, moved: bool) -> None:
    stamp = (NOW + timedelta(hours=hours)).isoformat()
    body = (v0 if ask == "v0" else v1)(event(timestamp=stamp))
    (stored,) = (ask_v0(body) if ask == "v0" else ask_v1(body)).events
    assert stored.timestamp == ("2026-11-24T04:03:01.000Z" if moved else stamp)
    assert bool(stored.notes) is moved


def test_the_clock_is_the_servers_unless_it_is_given() -> None:
    far = (datetime.now(timezone.utc) + timedelta(days=2)).isoformat()
    (stored,) = answer("POST", "/batch/", {}, v0(event(timestamp=far))).events
    assert stored.notes


def test_a_repeated_event_has_the_same_key() -> None:
    first, second = ask_v0(v0(event(), event(properties={}))).events
    assert first.key == second.key == (UUID, "build completed", STAMP, "anon_1")


# v1


def test_v1_takes_a_batch_and_answers_for_each_event() -> None:
    reply = ask_v1(v1(event(options={"process_person_profile": False}), event(uuid=OTHER_UUID)))
    assert reply.status == 200
    assert json.loads(reply.body) == {
        "results": {UUID: {"result": "ok"}, OTHER_UUID: {"result": "ok"}}
    }
    assert reply.events[0].options == {"process_person_profile": False}


class V1Case(NamedTuple):
    """A request that is refused whole: the code that PostHog gives, and its description."""

    code: str
    says: str
    body: bytes = v1()
    headers: dict[str, Any] = {}  # noqa: RUF012 - never changed
    method: str = "POST"


V1_CASES = [
    *(
        V1Case("missing_required_headers", name, headers={name: ABSENT})
        for name in strict.V1_REQUIRED_HEADERS
    ),
    V1Case("invalid_header_value", "Bearer scheme", headers={"Authorization": f"Basic {TOKEN}"}),
    V1Case("invalid_header_value", "not a valid UUID: 7", headers={"PostHog-Request-Id": "7"}),
    *(
        V1Case("invalid_header_value", "positive integer", headers={"PostHog-Attempt": value})
        for value in ("0", "-1", "one", "1.5", "")
    ),
    *(
        V1Case("invalid_header_value", "RFC 3339", headers={"PostHog-Request-Timestamp": value})
        for value in ("now", "2026-11-24T04:03:00", "")
    ),
    *(
        V1Case("invalid_header_value", "name/version", headers={"PostHog-Sdk-Info": value})
        for value in ("second-mw", "/1", "second-mw/", "x/" + "1" * 199)
    ),
    V1Case("unsupported_content_type", "text/plain", headers={"Content-Type": "text/plain"}),
    V1Case("unsupported_encoding", "br", headers={"Content-Encoding": "br"}),
    V1Case("invalid_api_token", "personal_api_key", headers={"Authorization": "Bearer phx_1"}),
    V1Case("empty_body", "request body is empty", b""),
    V1Case("request_decoding_error", "invalid gzip data", b"{}", PACKED),
    V1Case("request_decoding_error", "ends too early", gzip.compress(v1())[:-12], PACKED),
    V1Case("request_parsing_error", "malformed", b"{nonsense"),
    V1Case("request_parsing_error", "missing required field `created_at`", v1(created_at=ABSENT)),
    V1Case("request_parsing_error", "missing required field `batch`", v1(batch=ABSENT)),
    V1Case("request_parsing_error", "Expected `bool`", v1(historical_migration="true")),
    *(
        V1Case("request_parsing_error", f"batch[1]: Object missing required field `{name}`",
               v1(event(), event(**{name: ABSENT})))
        for name in ("event", "uuid", "distinct_id", "timestamp", "properties")
    ),
    V1Case("request_parsing_error", "batch[0]: Expected `str`", v1(event(distinct_id=7))),
    V1Case("empty_batch", "request batch is empty", v1(batch=[])),
    V1Case("invalid_batch", "created_at is not valid RFC 3339", v1(created_at="now")),
    V1Case("missing_event_uuid", "without a uuid", v1(event(uuid=" "))),
    V1Case("invalid_event_uuid", "invalid event uuid: 7", v1(event(uuid="7"))),
    V1Case("duplicate_event_uuid", UUID, v1(event(), event(uuid=UUID.upper()))),
    V1Case("method_not_allowed", "method not allowed", method="GET"),
    V1Case("payload_too_large", "more than 20971520 bytes", b" " * (strict.MAX_BODY + 1)),
    V1Case("payload_too_large", "decompressed it would exceed", BOMB, PACKED),
]  # fmt: skip


@pytest.mark.parametrize("case", V1_CASES, ids=lambda case: f"{case.code}: {case.says[:40]}")
def test_v1_refuses_what_posthog_refuses_in_its_words(case: V1Case) -> None:
    reply = ask_v1(case.body, case.method, **case.headers)
    document = json.loads(reply.body)
    assert (reply.status, document["error"]) == (strict.V1_REFUSALS[case.code].status, case.code)
    assert case.says in document["error_description"]
    assert reply.refused == f"{case.code}: {document['error_description']}"
    assert (reply.events, reply.dropped) == ((), ())


def test_each_refusal_of_v1_has_a_case() -> None:
    # No path of v1's leads nowhere: `not_found` is v0's to say.
    met = {case.code for case in V1_CASES} | V1_TROUBLE | {"not_found"}
    assert met == set(strict.V1_REFUSALS)
    headers = {name for case in V1_CASES for name in case.headers}
    assert {rule.header for rule in strict.V1_HEADER_RULES} <= headers


def test_v1_names_every_missing_header_at_once() -> None:
    reply = answer("POST", V1_PATH, {}, v1(), now=NOW)
    assert reply.refused is not None
    assert reply.refused.endswith(", ".join(strict.V1_REQUIRED_HEADERS))


@pytest.mark.parametrize(
    ("code", "status", "retries"),
    [("rate_limited", 429, True), ("service_unavailable", 503, True), ("empty_body", 400, False)],
)
def test_v1_says_when_to_come_back(code: str, status: int, retries: bool) -> None:
    request = strict.describe("POST", V1_PATH, {}, 0)
    reply = strict.refuse(request, code)
    assert reply.status == status
    assert ("Retry-After" in dict(reply.headers)) is retries


@pytest.mark.parametrize(
    ("changed", "details"),
    [
        ({"event": ""}, "missing_event_name"),
        ({"event": "x" * 201}, "event_name_too_long"),
        ({"distinct_id": ""}, "missing_distinct_id"),
        ({"distinct_id": "  "}, "missing_distinct_id"),
        ({"distinct_id": "x" * 201}, "distinct_id_too_large"),
        ({"distinct_id": "Null"}, "malformed_distinct_id"),
        ({"timestamp": "yesterday"}, "invalid_event_timestamp"),
        ({"timestamp": "2026-11-24T04:03:00"}, "invalid_event_timestamp"),
        ({"properties": []}, "malformed_event_properties"),
        ({"properties": None}, "malformed_event_properties"),
        ({"options": []}, "invalid_options"),
        *(({"options": {name: 7}}, "invalid_options") for name in strict.V1_OPTIONS),
        ({"options": {"process_person_profile": "false"}}, "invalid_options"),
        ({"properties": {"text": LONG}}, "event_too_big"),
    ],
)
def test_v1_drops_a_bad_event_and_takes_the_rest(changed: dict[str, Any], details: str) -> None:
    reply = ask_v1(v1(event(**changed), event(uuid=OTHER_UUID)))
    assert json.loads(reply.body)["results"] == {
        UUID: {"result": "drop", "details": details},
        OTHER_UUID: {"result": "ok"},
    }
    assert [each.uuid for each in reply.events] == [OTHER_UUID]
    assert [(each.uuid, each.details) for each in reply.dropped] == [(UUID, details)]


def test_each_rule_of_v1s_events_has_a_case() -> None:
    marks = test_v1_drops_a_bad_event_and_takes_the_rest.pytestmark  # type: ignore[attr-defined]
    met = {details for _, details in marks[0].args[1]}
    assert {rule.details for rule in strict.V1_EVENT_RULES} == met


def test_an_event_name_and_a_distinct_id_of_200_characters_are_taken() -> None:
    assert ask_v1(v1(event(event="x" * 200, distinct_id="y" * 200))).dropped == ()


@pytest.mark.parametrize("options", [None, {}, {"product_tour_id": "t"}, {"cookieless_mode": True}])
def test_v1_takes_options_of_the_right_type(options: Any) -> None:
    assert ask_v1(v1(event(options=options))).events[0].result == "ok"


def test_v1_notes_options_that_an_sdk_should_not_send() -> None:
    (stored,) = ask_v1(v1(event(options={"colour": 1, "cookieless_mode": None}))).events
    assert stored.notes == (
        "option colour is not one of PostHog's",
        "option cookieless_mode is null: leave it out",
    )


def test_an_event_that_wants_no_skew_correction_keeps_its_time() -> None:
    stamp = (NOW + timedelta(days=3)).isoformat()
    options = {"disable_skew_correction": True}
    (stored,) = ask_v1(v1(event(timestamp=stamp, options=options))).events
    assert stored.timestamp == stamp


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        # RFC 9110 means zlib; who sends it raw is understood, too.
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
    ],
)
def test_v1_reads_compressed_bodies(encoding: str, pack: Any) -> None:
    assert ask_v1(pack(v1()), content_encoding=encoding).status == 200


def test_v1_reads_a_content_type_with_a_charset_and_any_case_of_bearer() -> None:
    reply = ask_v1(content_type="Application/JSON; charset=utf-8", authorization=f"bearer  {TOKEN}")
    assert reply.status == 200


# What is shown of a request


def test_a_request_is_described_with_its_token_masked() -> None:
    reply = ask_v1(v1(historical_migration=True), posthog_attempt="3")
    assert reply.request == strict.Request(
        method="POST",
        path=V1_PATH,
        protocol="v1",
        size=len(v1(historical_migration=True)),
        inflated=len(v1(historical_migration=True)),
        events=1,
        token="phc_…cdef",
        sent_at=STAMP,
        historical_migration=True,
        attempt="3",
        request_id=OTHER_UUID,
        sdk="second-mw/0.1",
        user_agent="second-mw/0.1",
    )
    assert ask_v0(v0()).request.token == "phc_…cdef"


@pytest.mark.parametrize(
    ("token", "shown"), [(None, None), ("", None), ("phc_local", "phc_…"), (TOKEN, "phc_…cdef")]
)
def test_a_token_is_never_shown_whole(token: str | None, shown: str | None) -> None:
    assert strict.masked(token) == shown


def test_a_refused_batch_still_says_how_much_it_held() -> None:
    request = ask_v0(v0(event(), event(event=""))).request
    assert (request.events, request.sent_at) == (2, STAMP)


@pytest.mark.parametrize("path", list(strict.ROUTES))
def test_each_path_is_served_with_and_without_its_closing_slash(path: str) -> None:
    assert strict.ROUTES[path] == strict.ROUTES[path.rstrip("/")]
