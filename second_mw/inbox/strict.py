"""What PostHog would answer: a look-alike of its ingestion, without I/O.

`answer(method, path, headers, body)` judges one request by the rules PostHog publishes in its
capture service (`rust/capture`) and documents for its SDKs, and returns a `Reply`: the status,
headers and body to send, the events PostHog would now have, and what it refused in its own words.
Where PostHog tolerates what an SDK should not send, this is the stricter of the two; such a place
says so. Nothing is kept between two calls: storing, and storing a repeated event once, belong to
`store.py`; HTTP to `app.py`.

The rules are tables: `ROUTES`, `V0_REFUSALS`, `V1_REFUSALS`, `V0_EVENT_RULES`, `V1_EVENT_RULES`,
`V1_HEADER_RULES` and `V1_OPTIONS`. A row holds its reason.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID, uuid4

import msgspec

from second_mw.payload import rfc3339
from second_mw.user import REFUSED_DISTINCT_IDS

Protocol = Literal["v0", "v0 single", "v1"]
Result = Literal["ok", "warning", "drop"]

#: Bytes of one body, before and after decompression.
MAX_BODY: Final = 20 * 1024 * 1024
#: Bytes of one event: what a message of PostHog's Kafka may hold.
MAX_EVENT: Final = 1_000_000
#: Characters of an event's name (v1) and of a distinct_id.
MAX_CHARACTERS: Final = 200
#: Characters of a token.
MAX_TOKEN: Final = 64
#: An event from further ahead than this is moved to now.
MAX_AHEAD: Final = timedelta(hours=23)

#: Path → protocol. PostHog serves each with and without the closing slash.
ROUTES: Final[dict[str, Protocol]] = {
    "/batch": "v0",
    "/batch/": "v0",
    "/i/v0/e": "v0 single",
    "/i/v0/e/": "v0 single",
    "/i/v1/analytics/events": "v1",
    "/i/v1/analytics/events/": "v1",
}


class Event(msgspec.Struct, frozen=True):
    """One event as PostHog would store it, or, of v1, as it was dropped.

    Args:
        event, uuid, distinct_id, timestamp: what PostHog deduplicates on.
        properties: as they were sent.
        options: v1's options, as they were sent.
        result: `ok`; `warning`, stored with something wrong; `drop`, not stored.
        details: PostHog's word for what is wrong, if anything is.
        notes: what PostHog would change or pass over silently, in a sentence each.
    """

    event: str
    uuid: str
    distinct_id: str
    timestamp: str
    properties: dict[str, Any]
    options: dict[str, Any] = {}
    result: Result = "ok"
    details: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The four values by which PostHog knows an event again."""
        return (self.uuid, self.event, self.timestamp, self.distinct_id)


class Request(msgspec.Struct, frozen=True):
    """What a request said of itself: enough to show it, the token masked.

    Args:
        size, inflated: bytes of the body as sent, and after decompression (None if it failed).
        events: how many events the body held; 0 if it could not be read.
        sent_at: v0's `sent_at` or v1's `created_at`.
    """

    method: str
    path: str
    protocol: Protocol | None
    size: int
    inflated: int | None = None
    events: int = 0
    encoding: str | None = None
    token: str | None = None
    sent_at: str | None = None
    historical_migration: bool = False
    attempt: str | None = None
    request_id: str | None = None
    sdk: str | None = None
    user_agent: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """The answer to one request.

    Args:
        status, headers, body: what to send back.
        request: what was asked.
        events: the events PostHog would now have (`ok` and `warning`).
        dropped: events of a v1 batch that it would not store, each with its reason.
        refused: why the whole request was refused, in PostHog's words; None if it was not.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    request: Request
    events: tuple[Event, ...] = ()
    dropped: tuple[Event, ...] = ()
    refused: str | None = None


class Refusal(NamedTuple):
    """One way a whole request is refused: the status, PostHog's words, and the reason."""

    status: int
    words: str
    why: str


#: `{}` is filled with the detail. PostHog's v0 answers in plain text.
V0_REFUSALS: Final[dict[str, Refusal]] = {
    "empty_payload": Refusal(400, "request missing data payload", "there is no body"),
    "request_decoding": Refusal(
        400, "failed to decode request: {}", "neither gzip nor UTF-8 where it should be"
    ),
    "request_parsing": Refusal(
        400, "failed to parse request: {}", "one unreadable event fails its whole batch"
    ),
    "empty_batch": Refusal(400, "request holds no event", "an SDK never sends an empty batch"),
    "missing_event_name": Refusal(
        400, "event submitted with an empty event name", "an event needs a name"
    ),
    "missing_distinct_id": Refusal(
        400, "event submitted without a distinct_id", "an event belongs to somebody"
    ),
    "empty_distinct_id": Refusal(
        400, "event submitted with an empty distinct_id", "an event belongs to somebody"
    ),
    "event_too_big": Refusal(
        400, "maximum event size exceeded: {}", "one event must fit one Kafka message"
    ),
    "not_processable": Refusal(
        400, "invalid event could not be processed", "what a sink refuses for good"
    ),
    "no_token": Refusal(401, "event submitted without an api_key", "no project to store it in"),
    "mixed_tokens": Refusal(
        401, "batch submitted with inconsistent api_key values", "a batch is one project's"
    ),
    "invalid_token": Refusal(401, "API key is not valid: {}", "only a project token may send"),
    "not_found": Refusal(404, "not found", "not one of the ingestion's paths"),
    "method_not_allowed": Refusal(405, "method not allowed", "events are posted"),
    "payload_too_large": Refusal(
        413, "maximum event size exceeded: {}", "20 MiB a body, after decompression"
    ),
    "rate_limited": Refusal(429, "rate limited", "too much at once"),
    "transient": Refusal(503, "transient error, please retry", "the sink is away for a moment"),
}

#: The key is PostHog's `error`, the words are its `error_description`; answered as JSON.
V1_REFUSALS: Final[dict[str, Refusal]] = {
    "missing_required_headers": Refusal(
        400, "request is missing required headers: {}", "each is needed to tell retries apart"
    ),
    "invalid_header_value": Refusal(
        400, "invalid header value: {}", "a header must mean something"
    ),
    "empty_body": Refusal(400, "request body is empty", "there is no body"),
    "request_decoding_error": Refusal(
        400, "failed to decode request: {}", "the body is not what Content-Encoding says"
    ),
    "request_parsing_error": Refusal(
        400, "failed to parse request: {}", "not JSON, or a required field is missing"
    ),
    "empty_batch": Refusal(400, "request batch is empty", "an SDK never sends an empty batch"),
    "invalid_batch": Refusal(400, "invalid batch: {}", "created_at must be RFC 3339"),
    "missing_event_uuid": Refusal(
        400, "event submitted without a uuid", "results are given by uuid"
    ),
    "invalid_event_uuid": Refusal(400, "invalid event uuid: {}", "results are given by uuid"),
    "duplicate_event_uuid": Refusal(
        400, "duplicate event uuid: {}", "two events can't share one result"
    ),
    "invalid_api_token": Refusal(
        401, "API token is not valid: {}", "only a project token may send"
    ),
    "not_found": Refusal(404, "not found", "not one of the ingestion's paths"),
    "method_not_allowed": Refusal(405, "method not allowed", "events are posted"),
    "payload_too_large": Refusal(
        413, "payload too large: {}", "20 MiB a body, after decompression"
    ),
    "unsupported_content_type": Refusal(415, "unsupported content type: {}", "v1 speaks JSON only"),
    "unsupported_encoding": Refusal(
        415, "unsupported content encoding: {}", "gzip, deflate, br and zstd are PostHog's"
    ),
    "rate_limited": Refusal(429, "rate limited: {}", "too much at once"),
    "service_unavailable": Refusal(503, "service unavailable: {}", "the sink is away for a moment"),
}
#: Statuses of v1 that come with `Retry-After: 1`.
_V1_RETRY_AFTER: Final = frozenset({429, 500, 503})


class _Refused(Exception):
    """Ends the judging of a request."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


def answer(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime | None = None,
) -> Reply:
    """Return what PostHog would answer to one request.

    Args:
        method, path: of the request line; the path without its query.
        headers: in any case.
        body: as it was sent, still compressed.
        now: the server's clock, aware.

    >>> answer("POST", "/batch/", {}, b'{"api_key": "phc_x", "batch": []}').refused
    'request holds no event'
    """
    sent = {name.lower(): value for name, value in headers.items()}
    request = describe(method, path, sent, len(body))
    judge = _judge_v1 if request.protocol == "v1" else _judge_v0
    try:
        if request.protocol is None:
            raise _Refused("not_found")
        if method != "POST":
            raise _Refused("method_not_allowed")
        return judge(request, sent, body, now or datetime.now(timezone.utc))
    except _Unread as unread:
        return refuse(unread.request, unread.code, unread.detail)
    except _Refused as refused:
        return refuse(request, refused.code, refused.detail)


def describe(method: str, path: str, sent: Mapping[str, str], size: int) -> Request:
    """Return what a request's line and headers (names in lower case) say of it."""
    return Request(
        method=method,
        path=path,
        protocol=ROUTES.get(path),
        size=size,
        encoding=sent.get("content-encoding"),
        token=masked(_bearer(sent.get("authorization"))),
        attempt=sent.get("posthog-attempt"),
        request_id=sent.get("posthog-request-id"),
        sdk=sent.get("posthog-sdk-info"),
        user_agent=sent.get("user-agent"),
    )


def refuse(request: Request, code: str, detail: str = "") -> Reply:
    """Return the refusal `code` of the request's protocol, as PostHog phrases it."""
    table = V1_REFUSALS if request.protocol == "v1" else V0_REFUSALS
    status, words, _ = table[code]
    words = words.format(detail)
    headers = [("Allow", "POST")] if status == 405 else []
    if request.protocol != "v1":
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
        return Reply(status, tuple(headers), words.encode(), request, refused=words)
    if status in _V1_RETRY_AFTER:
        headers.append(("Retry-After", "1"))
    return Reply(
        status,
        (*headers, _JSON),
        _encode(
            {
                "error": code,
                "error_description": words,
                "error_uri": "https://posthog.com/docs/api",
            }
        ),
        request,
        refused=f"{code}: {words}",
    )


_JSON: Final = ("Content-Type", "application/json")
_encode = msgspec.json.Encoder().encode


def masked(token: str | None) -> str | None:
    """Return a token as it may be shown: never whole.

    >>> masked("phc_0123456789abcdef")
    'phc_…cdef'
    """
    if not token:
        return None
    return f"{token[:4]}…{token[-4:]}" if len(token) >= 16 else f"{token[:4]}…"


# -- the body ---------------------------------------------------------------------------------

#: Content-Encoding → zlib's window bits. PostHog takes br and zstd on v1 too; the standard
#: library of every Python this runs on can't inflate them, so here they are refused.
_WINDOW: Final = {"gzip": 31, "deflate": zlib.MAX_WBITS, "raw deflate": -zlib.MAX_WBITS}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZLIB_MAGIC: Final = b"\x78"


def inflate(body: bytes, encoding: str, limit: int = MAX_BODY) -> bytes | None:
    """Return the decompressed body, or None if it is longer than `limit` bytes.

    Never holds more than `limit` + 1 bytes, whatever the body promises.

    Raises:
        ValueError: it is not `encoding`, or it ends too early.
    """
    if encoding == "deflate" and not body.startswith(_ZLIB_MAGIC):
        # RFC 9110 §8.4.1.2 means zlib by "deflate"; clients that send it raw are known.
        encoding = "raw deflate"
    stream = zlib.decompressobj(_WINDOW[encoding])
    try:
        inflated = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise ValueError(f"invalid {encoding} data") from error
    if len(inflated) > limit:
        return None
    if not stream.eof:
        raise ValueError(f"{encoding} data ends too early")
    return inflated


def _readable(body: bytes, encoding: str | None, too_large: str, undecodable: str) -> bytes:
    if len(body) > MAX_BODY:
        raise _Refused(too_large, f"the body has more than {MAX_BODY} bytes")
    if encoding is None:
        return body
    try:
        inflated = inflate(body, encoding)
    except ValueError as error:
        raise _Refused(undecodable, str(error)) from None
    if inflated is None:
        raise _Refused(too_large, f"decompressed it would exceed {MAX_BODY} bytes")
    return inflated


class _Unread(_Refused):
    """A refusal after the body was opened: `request` knows more than the headers did."""

    def __init__(self, request: Request, refused: _Refused) -> None:
        super().__init__(refused.code, refused.detail)
        self.request = request


def _decode(body: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Any], code: str) -> Any:
    try:
        return decoder.decode(body)
    except RecursionError:
        raise _Refused(code, "nested beyond reason") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refused(code, str(error)) from None


def _moment(text: str | None) -> datetime | None:
    """Return RFC 3339 text as an aware datetime, or None if it is none."""
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return moment if moment.tzinfo else None


def _cut_ahead(stamp: str, moment: datetime, now: datetime) -> tuple[str, tuple[str, ...]]:
    if moment - now > MAX_AHEAD:
        return rfc3339(now), ("timestamp more than 23 h ahead: moved to the server's now",)
    return stamp, ()


# -- tokens -----------------------------------------------------------------------------------


class _TokenRule(NamedTuple):
    broken: Callable[[str], bool]
    reason: str


#: The first that is broken is PostHog's reason. The last is stricter than PostHog, which finds
#: out later that there is no such project and drops the events without a word.
TOKEN_RULES: Final = (
    _TokenRule(lambda token: not token, "empty"),
    _TokenRule(lambda token: len(token) > MAX_TOKEN, "too_long"),
    _TokenRule(lambda token: not token.isascii(), "not_ascii"),
    _TokenRule(lambda token: token.startswith("phx_"), "personal_api_key"),
    _TokenRule(lambda token: "\0" in token, "null_byte"),
    _TokenRule(lambda token: not token.startswith("phc_"), "not_a_project_token"),
)


def _check_token(token: str, code: str) -> None:
    for rule in TOKEN_RULES:
        if rule.broken(token.strip()):
            raise _Refused(code, rule.reason)


def _bearer(authorization: str | None) -> str | None:
    # The scheme's case does not matter (RFC 6750 §1.1, RFC 9110 §11.1).
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


# -- v0 ---------------------------------------------------------------------------------------


class _V0Event(msgspec.Struct):
    event: str
    # PostHog reads it in the properties too; an SDK puts it here.
    distinct_id: str | None = None
    uuid: UUID | None = None
    timestamp: str | None = None
    properties: dict[str, Any] = {}
    api_key: str | None = None
    token: str | None = None
    size: int = 0


class _V0Batch(msgspec.Struct):
    batch: list[msgspec.Raw]
    api_key: str | None = None
    token: str | None = None
    sent_at: str | None = None
    historical_migration: bool = False


class _V0Rule(NamedTuple):
    broken: Callable[[_V0Event], bool]
    code: str


#: One event that breaks one of these fails its whole batch.
V0_EVENT_RULES: Final = (
    _V0Rule(lambda event: not event.event, "missing_event_name"),
    _V0Rule(lambda event: event.distinct_id is None, "missing_distinct_id"),
    _V0Rule(lambda event: event.distinct_id == "", "empty_distinct_id"),
    _V0Rule(lambda event: event.size > MAX_EVENT, "event_too_big"),
)

_v0_event = msgspec.json.Decoder(_V0Event)
_v0_batch = msgspec.json.Decoder(_V0Batch)


def _judge_v0(request: Request, sent: Mapping[str, str], body: bytes, now: datetime) -> Reply:
    if not body:
        raise _Refused("empty_payload")
    # v0 knows gzip alone, by its header or by its first bytes; what else is named there is
    # passed over, and the body then fails to parse.
    gzip = sent.get("content-encoding") == "gzip" or body.startswith(_GZIP_MAGIC)
    text = _readable(body, "gzip" if gzip else None, "payload_too_large", "request_decoding")
    request = msgspec.structs.replace(request, inflated=len(text))
    batch = _v0_body(request, text)
    request = msgspec.structs.replace(
        request,
        events=len(batch.batch),
        token=masked(batch.api_key or batch.token),
        sent_at=batch.sent_at,
        historical_migration=batch.historical_migration,
    )
    try:
        if not batch.batch:
            raise _Refused("empty_batch")
        events = [_v0_parsed(index, raw) for index, raw in enumerate(batch.batch)]
        _check_v0_tokens(batch, events)
        stored = tuple(_v0_stored(event, now) for event in events)
    except _Refused as refused:
        raise _Unread(request, refused) from None
    return Reply(200, (_JSON,), b'{"status":1}', request, events=stored)


def _v0_body(request: Request, text: bytes) -> _V0Batch:
    try:
        if request.protocol == "v0":
            batch: _V0Batch = _decode(text, _v0_batch, "request_parsing")
            return batch
        event: _V0Event = _decode(text, _v0_event, "request_parsing")
        return _V0Batch([msgspec.Raw(text)], event.api_key, event.token)
    except _Refused as refused:
        raise _Unread(request, refused) from None


def _v0_parsed(index: int, raw: msgspec.Raw) -> _V0Event:
    try:
        event: _V0Event = _decode(raw, _v0_event, "request_parsing")
    except _Refused as refused:
        raise _Refused(refused.code, f"batch[{index}]: {refused.detail}") from None
    event.size = len(bytes(raw))
    return event


def _check_v0_tokens(batch: _V0Batch, events: Sequence[_V0Event]) -> None:
    named = [batch.api_key, batch.token]
    for event in events:
        named += (event.api_key, event.token)
    given = {token for token in named if token is not None}
    if not given:
        raise _Refused("no_token")
    if len(given) > 1:
        raise _Refused("mixed_tokens")
    _check_token(given.pop(), "invalid_token")


def _v0_stored(event: _V0Event, now: datetime) -> Event:
    for rule in V0_EVENT_RULES:
        if rule.broken(event):
            raise _Refused(rule.code, f"more than {MAX_EVENT} bytes")
    distinct_id = event.distinct_id or ""
    notes: tuple[str, ...] = ()
    if len(distinct_id) > MAX_CHARACTERS:
        notes += ("distinct_id cut at 200 characters",)
    moment = _moment(event.timestamp)
    if moment is None:
        stamp = rfc3339(now)
        notes += ("no readable timestamp: the server's now",)
    else:
        stamp, ahead = _cut_ahead(event.timestamp or "", moment, now)
        notes += ahead
    refused = _is_refused(distinct_id)
    if refused:
        notes += ("this distinct_id merges strangers into one person",)
    return Event(
        event=event.event,
        uuid=str(event.uuid or uuid4()),
        distinct_id=distinct_id[:MAX_CHARACTERS],
        timestamp=stamp,
        properties=event.properties,
        result="warning" if refused else "ok",
        details="malformed_distinct_id" if refused else None,
        notes=notes,
    )


def _is_refused(distinct_id: str) -> bool:
    return distinct_id.strip().lower() in REFUSED_DISTINCT_IDS


# -- v1 ---------------------------------------------------------------------------------------

#: Without any of these a request is refused, all the missing ones in one answer. (PostHog's
#: newest answers 401 where Authorization is the missing one.)
V1_REQUIRED_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "User-Agent",
    "PostHog-Sdk-Info",
    "PostHog-Attempt",
    "PostHog-Request-Id",
    "PostHog-Request-Timestamp",
)
V1_ENCODINGS: Final = frozenset({"gzip", "deflate"})


class _HeaderRule(NamedTuple):
    header: str
    broken: Callable[[str], bool]
    code: str
    detail: str


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


#: In the order in which PostHog looks. `{}` in a detail is the header's value.
V1_HEADER_RULES: Final = (
    _HeaderRule(
        "Authorization",
        lambda value: _bearer(value) is None,
        "invalid_header_value",
        "Authorization must use Bearer scheme",
    ),
    _HeaderRule(
        "Content-Type",
        lambda value: value.partition(";")[0].strip().lower() != "application/json",
        "unsupported_content_type",
        "{}",
    ),
    _HeaderRule(
        "Content-Encoding",
        lambda value: value.lower() not in V1_ENCODINGS,
        "unsupported_encoding",
        "{}",
    ),
    _HeaderRule(
        "PostHog-Request-Id",
        lambda value: not _is_uuid(value),
        "invalid_header_value",
        "PostHog-Request-Id is not a valid UUID: {}",
    ),
    _HeaderRule(
        "PostHog-Attempt",
        lambda value: re.fullmatch(r"0*[1-9][0-9]{0,8}", value) is None,
        "invalid_header_value",
        "PostHog-Attempt must be a positive integer: {}",
    ),
    _HeaderRule(
        "PostHog-Request-Timestamp",
        lambda value: _moment(value) is None,
        "invalid_header_value",
        "PostHog-Request-Timestamp is not valid RFC 3339: {}",
    ),
    # PostHog takes the batch and leaves `$lib` out of every event, which nobody notices.
    _HeaderRule(
        "PostHog-Sdk-Info",
        lambda value: (
            len(value) > MAX_CHARACTERS
            or not all(part.strip() for part in value.rpartition("/")[::2])
        ),
        "invalid_header_value",
        "PostHog-Sdk-Info must be name/version of at most 200 characters",
    ),
)

#: Option → its type. One of another type drops the event. (PostHog reads "true", 1 and the like
#: as a bool; an SDK that sends those is wrong all the same.)
V1_OPTIONS: Final[dict[str, type]] = {
    "process_person_profile": bool,
    "cookieless_mode": bool,
    "disable_skew_correction": bool,
    "product_tour_id": str,
}


class _V1Event(msgspec.Struct):
    event: str
    uuid: str
    distinct_id: str
    timestamp: str
    properties: Any
    options: Any = {}
    size: int = 0


class _V1Batch(msgspec.Struct):
    created_at: str
    batch: list[msgspec.Raw]
    historical_migration: bool = False


class _V1Rule(NamedTuple):
    broken: Callable[[_V1Event], bool]
    details: str


def _wrong_options(event: _V1Event) -> bool:
    if not isinstance(event.options, dict):
        return event.options is not None
    return any(
        value is not None and type(value) is not V1_OPTIONS[name]
        for name, value in event.options.items()
        if name in V1_OPTIONS
    )


#: An event that breaks one of these is dropped, and the rest of its batch is stored.
V1_EVENT_RULES: Final = (
    _V1Rule(lambda event: not event.event, "missing_event_name"),
    _V1Rule(lambda event: len(event.event) > MAX_CHARACTERS, "event_name_too_long"),
    _V1Rule(lambda event: not event.distinct_id.strip(), "missing_distinct_id"),
    _V1Rule(lambda event: len(event.distinct_id.strip()) > MAX_CHARACTERS, "distinct_id_too_large"),
    # PostHog's newest stores it without a person; before that it dropped it, and so does this.
    _V1Rule(lambda event: _is_refused(event.distinct_id), "malformed_distinct_id"),
    _V1Rule(lambda event: _moment(event.timestamp) is None, "invalid_event_timestamp"),
    _V1Rule(lambda event: not isinstance(event.properties, dict), "malformed_event_properties"),
    _V1Rule(_wrong_options, "invalid_options"),
    _V1Rule(lambda event: event.size > MAX_EVENT, "event_too_big"),
)

_v1_event = msgspec.json.Decoder(_V1Event)
_v1_batch = msgspec.json.Decoder(_V1Batch)


def _judge_v1(request: Request, sent: Mapping[str, str], body: bytes, now: datetime) -> Reply:
    _check_v1_headers(sent)
    if not body:
        raise _Refused("empty_body")
    encoding = sent.get("content-encoding")
    text = _readable(
        body, encoding and encoding.lower(), "payload_too_large", "request_decoding_error"
    )
    request = msgspec.structs.replace(request, inflated=len(text))
    try:
        batch: _V1Batch = _decode(text, _v1_batch, "request_parsing_error")
        request = msgspec.structs.replace(
            request,
            events=len(batch.batch),
            sent_at=batch.created_at,
            historical_migration=batch.historical_migration,
        )
        if not batch.batch:
            raise _Refused("empty_batch")
        if _moment(batch.created_at) is None:
            raise _Refused("invalid_batch", "created_at is not valid RFC 3339")
        judged = _v1_judged(batch, now)
    except _Refused as refused:
        raise _Unread(request, refused) from None
    results = {event.uuid: _v1_result(event) for event in judged}
    return Reply(
        200,
        (_JSON,),
        _encode({"results": results}),
        request,
        events=tuple(event for event in judged if event.result != "drop"),
        dropped=tuple(event for event in judged if event.result == "drop"),
    )


def _check_v1_headers(sent: Mapping[str, str]) -> None:
    missing = [name for name in V1_REQUIRED_HEADERS if name.lower() not in sent]
    if missing:
        raise _Refused("missing_required_headers", ", ".join(missing))
    for rule in V1_HEADER_RULES:
        value = sent.get(rule.header.lower())
        if value is not None and rule.broken(value):
            raise _Refused(rule.code, rule.detail.format(value))
    _check_token(_bearer(sent["authorization"]) or "", "invalid_api_token")


def _v1_judged(batch: _V1Batch, now: datetime) -> list[Event]:
    seen: set[UUID] = set()
    judged = []
    for index, raw in enumerate(batch.batch):
        try:
            event: _V1Event = _decode(raw, _v1_event, "request_parsing_error")
        except _Refused as refused:
            raise _Refused(refused.code, f"batch[{index}]: {refused.detail}") from None
        event.size = len(bytes(raw))
        uuid = _v1_uuid(event.uuid.strip())
        if uuid in seen:
            raise _Refused("duplicate_event_uuid", str(uuid))
        seen.add(uuid)
        judged.append(_v1_stored(event, str(uuid), now))
    return judged


def _v1_uuid(text: str) -> UUID:
    if not text:
        raise _Refused("missing_event_uuid")
    try:
        return UUID(text)
    except ValueError:
        raise _Refused("invalid_event_uuid", text) from None


def _v1_stored(event: _V1Event, uuid: str, now: datetime) -> Event:
    broken = next((rule.details for rule in V1_EVENT_RULES if rule.broken(event)), None)
    options = event.options if isinstance(event.options, dict) else {}
    stamp = event.timestamp
    notes: tuple[str, ...] = ()
    if (moment := _moment(stamp)) and not options.get("disable_skew_correction"):
        stamp, notes = _cut_ahead(stamp, moment, now)
    for name, value in options.items():
        if name not in V1_OPTIONS:
            notes += (f"option {name} is not one of PostHog's",)
        elif value is None:
            notes += (f"option {name} is null: leave it out",)
    return Event(
        event=event.event,
        uuid=uuid,
        distinct_id=event.distinct_id.strip(),
        timestamp=stamp,
        properties=event.properties if isinstance(event.properties, dict) else {},
        options=options,
        result="drop" if broken else "ok",
        details=broken,
        notes=notes,
    )


def _v1_result(event: Event) -> dict[str, str]:
    return {"result": event.result, **({"details": event.details} if event.details else {})}
