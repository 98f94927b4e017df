"""The endpoint, sans-IO: what is answered to a request on our paths, and why (spec §4).

Every route is a generator. It yields what it needs next (`NeedUser`, `NeedRate`, `NeedBody`,
`NeedChoice`, `SaveChoice`, `Put`), the adapter sends back what it got or throws what went wrong,
and the generator returns the `Answer`. There is no framework, no socket and no store in this file,
so that WSGI and ASGI can't come apart: what the status table says is said here alone.
"""

from __future__ import annotations

import logging
import math
import re
import uuid as uuids
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from second_mw.body import Batch, Item, decoded, inflated
from second_mw.body import posted as posted_in
from second_mw.errors import (
    REFUSALS,
    ClientDisconnected,
    Code,
    OutboxUnavailable,
    Refused,
    traced,
)
from second_mw.origin import Header, Origins
from second_mw.payload import Payload
from second_mw.privacy.mode import STORE_FAILED, Standing, asks_store, own_word, standing
from second_mw.privacy.pipeline import Finished, Pipeline, Posted
from second_mw.privacy.receipt import Receipt
from second_mw.settings import Settings
from second_mw.tally import Tally
from second_mw.user import AnalyticsUser, Choice

logger: logging.Logger = logging.getLogger("second_mw")

MAX_BATCH: Final = 100
#: A preference is a few words.
_MAX_CHOICE_BODY: Final = 4096
#: Both cases spelled out: a pattern that ignores case takes twice as long.
_UUID = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[47][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
)
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s;"']+)""", re.IGNORECASE)
_UTF8: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_GZIP: Final = frozenset({"gzip", "x-gzip"})
#: Clients write a few content types; what they cost to read is paid once, unless one is made up.
_MAX_TYPES: Final = 64
_LONGEST_TYPE: Final = 100
_ENCODINGS: Final = _GZIP | {"identity", ""}
_encode = msgspec.json.Encoder().encode


# What a request is, and what is answered


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request on one of our paths.

    Args:
        method: in upper case.
        header: returns a header's value by its lower-case name, which is one of `READ_HEADERS`.
        scheme, host: as the server saw them; the host with its port.
        query: the query string, without its `?`.
        peer: the address that the server saw, None if it saw none (a Unix socket).
    """

    method: str
    header: Header
    scheme: str
    host: str
    query: str = ""
    peer: str | None = None


class Answer(NamedTuple):
    """A response: status, headers and body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""


#: Every header that is read here or in `origin`: an adapter may leave all others alone.
READ_HEADERS: Final = (
    "content-encoding",
    "content-type",
    "dnt",
    "if-none-match",
    "origin",
    "referer",
    "sec-fetch-site",
    "sec-gpc",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
)


# What a route can need: Structs, which are made and thrown away for a fraction of what tuples cost


class NeedUser(msgspec.Struct, frozen=True, gc=False):
    """The host's user of this request → AnalyticsUser or None."""


class NeedRate(msgspec.Struct, frozen=True, gc=False):
    """Whether whom this key stands for may ask now → None, or seconds until then."""

    key: str


class NeedBody(msgspec.Struct, frozen=True, gc=False):
    """The request's body → bytes, never more than `limit` of them."""

    limit: int


class NeedChoice(msgspec.Struct, frozen=True, gc=False):
    """What the user chose → Choice or None."""

    user_key: str


class SaveChoice(msgspec.Struct, frozen=True, gc=False):
    """Keep what the user chose → None."""

    user_key: str
    choice: Choice


class Put(msgspec.Struct, frozen=True, gc=False):
    """Put these payloads into the outbox, all or none → how many were new."""

    payloads: Sequence[Payload]


Need: TypeAlias = NeedUser | NeedRate | NeedBody | NeedChoice | SaveChoice | Put
Steps: TypeAlias = Generator[Need, Any, Answer]
Route: TypeAlias = Callable[[Request], Steps]


class StaticFile(NamedTuple):
    """One of the browser's files, and the version that its URL may name as `?v=`."""

    body: bytes
    version: str

    @property
    def etag(self) -> str:
        """A strong ETag of the bytes."""
        return f'"{self.version}"'


class Endpoint:
    """Decides what our paths answer.

    Args:
        settings: prefix, policies, limits.
        pipeline: the privacy core.
        tally: counts what becomes of events.
        files: file name → the browser's file.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        tally: Tally,
        files: Mapping[str, StaticFile],
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._tally = tally
        self._events = pipeline.catalogue.events
        self._origins = Origins(settings)
        self._is_limited = settings.enabled and settings.rate is not None
        self._need_event = NeedBody(settings.max_body)
        self._said: set[str] = set()
        prefix = settings.prefix
        #: Path below the mount → route. Exactly these are ours (spec §2).
        self.routes: dict[str, Route] = {
            f"{prefix}/capture": self._guarded(self._capture, "POST"),
            f"{prefix}/preferences": self._guarded(self._preferences, "GET, PUT"),
            f"{prefix}/identify": self._guarded(self._identify, "POST"),
            **{f"{prefix}/{name}": self._static(file) for name, file in files.items()},
        }

    # The frame of every route: method, origin, CORS, refusals

    def _guarded(self, route: Callable[[Request], Steps], methods: str) -> Route:
        allowed = frozenset(methods.split(", "))

        def guarded(request: Request) -> Steps:
            cors: list[tuple[str, str]] = []
            try:
                cors = self._origins.cors_headers(request.header)
                if request.method == "OPTIONS":
                    preflight = self._origins.preflight_headers(request.header, methods)
                    if preflight is not None:
                        return Answer(204, [*COMMON_HEADERS, *preflight])
                if request.method not in allowed:
                    raise Refused("method_not_allowed", allow=methods)
                self._check_origin(request)
                answer = yield from route(request)
            except Refused as refused:
                answer = self._refusal(refused)
            except OutboxUnavailable as full:
                answer = self._refusal(Refused("outbox_unavailable", retry_after=full.retry_after))
            except ClientDisconnected:
                raise
            except Exception as error:
                answer = self._refusal(_failed(error))
            if answer is _NOTHING_TO_SAY and not cors:
                # The answer to nearly every event; the adapters know it by heart.
                return ACCEPTED
            return answer._replace(headers=[*COMMON_HEADERS, *answer.headers, *cors])

        return guarded

    def _check_origin(self, request: Request) -> None:
        if self._origins.check(request.header, request.scheme, request.host):
            return
        # text/plain is the one type taken that another site can send without a preflight.
        if request.method == "POST" and _content_type(request).media == "text/plain":
            self._origins.check_referer(request.header, request.scheme, request.host)

    def _refusal(self, refused: Refused) -> Answer:
        self._tally.add(f"rejected.{refused.code}")
        if refused.counted is not None:
            self._tally.add(refused.counted)
        headers = [("Content-Type", "application/json")]
        if refused.allow is not None:
            headers.append(("Allow", refused.allow))
        if refused.retry_after is not None:
            headers.append(("Retry-After", str(max(1, math.ceil(refused.retry_after)))))
        if self._settings.debug:
            headers.append(("X-Second-Analytics", f"refused={refused.code}"))
        return Answer(refused.status, headers, _error_body(refused.code))

    # Who asks

    def _user(
        self, request: Request, *, onboarded: bool = True
    ) -> Generator[Need, Any, AnalyticsUser]:
        """Return the user.

        Args:
            onboarded: whether one who is not onboarded is refused.

        Raises:
            Refused: `not_authenticated`, `not_onboarded`.
        """
        user: AnalyticsUser | None = yield _NEED_USER
        if user is None:
            address = self._origins.address(request.header, request.peer)
            if address is not None and self._is_limited:
                # An address is kept as little as a user's id.
                yield from self._count("address", self._pipeline.user_key(f"\0address {address}"))
            raise Refused("not_authenticated")
        if onboarded and not user.onboarded:
            raise Refused("not_onboarded")
        return user

    def _count(self, what: str, key: str) -> Generator[Need, Any, None]:
        """Count a request to a rate.

        Raises:
            Refused: `rate_limited`.
        """
        if not self._is_limited:
            return
        try:
            wait = yield NeedRate(f"{what}:{key[:32]}")
        except Exception as error:
            # A limit protects the host's outbox, not its users' privacy: it fails open.
            self._tally.add("rate_failed")
            self._say_once("the rate limits failed, and nobody is limited meanwhile", error)
            return
        if wait is not None:
            raise Refused("rate_limited", retry_after=wait)

    def _say_once(self, what: str, error: Exception) -> None:
        if what not in self._said:
            self._said.add(what)
            logger.warning("second_mw: %s: %s", what, traced(error))

    def _standing(
        self, request: Request, user: AnalyticsUser, user_key: str
    ) -> Generator[Need, Any, tuple[Standing, Choice]]:
        choice = None
        if asks_store(user):
            try:
                choice = yield NeedChoice(user_key)
            except Exception as error:
                # Whatever is unknown means anonymized (spec §7).
                choice = STORE_FAILED
                self._tally.add("preferences_failed")
                self._say_once("the preference store failed, so users are anonymized", error)
        gpc, dnt = request.header("sec-gpc"), request.header("dnt")
        where = standing(self._settings, user, choice, gpc=_says_yes(gpc), dnt=_says_yes(dnt))
        return where, choice if isinstance(choice, Choice) else _NO_CHOICE

    # POST {prefix}/capture

    def _capture(self, request: Request) -> Steps:
        _check_media_type(request, "application/json", "text/plain")
        user = yield from self._user(request)
        if not self._settings.enabled:
            return _NOTHING_TO_SAY
        user_key = self._pipeline.user_key(user.id)
        yield from self._count("events", user_key)
        raw = self._raw(request, (yield self._need_event), self._settings.max_body)
        body = posted_in(raw)
        if type(body) is not Item:
            if isinstance(body, Batch):
                return (yield from self._batch(request, user, user_key, body.batch))
            if isinstance(body, dict) and "batch" in body and "event" not in body:
                return (yield from self._batch(request, user, user_key, body["batch"]))
        posted = self._posted(body, user)
        where, _ = yield from self._standing(request, user, user_key)
        if not where.shares:
            self._tally.add("suppressed")
            return _NOTHING_TO_SAY
        events = [finished(self._pipeline, posted, user, where)]
        yield from self._put(events)
        said = self._debug_headers(events)
        return Answer(204, said) if said else _NOTHING_TO_SAY

    def _batch(self, request: Request, user: AnalyticsUser, user_key: str, batch: object) -> Steps:
        if not isinstance(batch, list) or not 1 <= len(batch) <= MAX_BATCH:
            raise Refused("invalid_payload")
        where, _ = yield from self._standing(request, user, user_key)
        if not where.shares:
            self._tally.add("suppressed", len(batch))
            return _NOTHING_TO_SAY
        results: dict[str, dict[str, str]] = {}
        accepted: list[Finished] = []
        for item in batch:
            uuid = _result_key(item)
            if uuid in results:
                continue
            try:
                posted = self._posted(item, user, uuid)
                accepted.append(finished(self._pipeline, posted, user, where))
            except Refused as refused:
                self._tally.add(f"rejected.{refused.code}")
                if refused.counted is not None:
                    self._tally.add(refused.counted)
                results[uuid] = {"status": "rejected", "error": refused.code}
            else:
                results[uuid] = _ACCEPTED_RESULT
        yield from self._put(accepted)
        headers = [("Content-Type", "application/json"), *self._debug_headers(accepted)]
        return Answer(200, headers, _encode({"results": results}))

    def _json(self, request: Request, body: bytes, limit: int) -> Any:
        return decoded(self._raw(request, body, limit))

    def _raw(self, request: Request, body: bytes, limit: int) -> bytes:
        encoding = request.header("content-encoding")
        if encoding is not None and encoding.strip().lower() in _GZIP:
            return inflated(body, limit)
        return body

    def _posted(self, item: object, user: AnalyticsUser, key: str | None = None) -> Posted:
        """Return one event of a body, checked in the order of spec §4.

        Args:
            key: under which an event of a batch is answered: its own uuid, or one in its place.
        """
        more: Mapping[str, Any] = {}
        if type(item) is not Item:
            item, more = _item_of(item)
        event, properties, uuid = item.event, item.properties, item.uuid
        if key is not None:
            uuid = key
        elif uuid is not None and not (isinstance(uuid, str) and _UUID.fullmatch(uuid)):
            raise Refused("invalid_payload")
        if event not in self._events:
            raise Refused("invalid_event")
        subject = item.subject
        if subject is not None and subject != self._subject(user):
            raise Refused("other_user")
        properties = properties or {}
        keys = tuple(properties)
        telling = self._pipeline.telling(event, keys)
        return Posted(
            event,
            properties,
            uuid.lower() if uuid is not None else None,
            item.timestamp,
            item.anonymousDistinctId,
            own_word(more, properties, telling.of_mode),
            workspace_named(properties, telling.of_workspace, user),
            keys,
        )

    def _put(self, events: Sequence[Finished]) -> Generator[Need, Any, None]:
        payloads = payloads_of(events)
        if payloads:
            try:
                yield Put(payloads)
            except OutboxUnavailable:
                raise
            except Exception as error:
                logger.error("second_mw: the outbox failed: %s", traced(error))
                raise OutboxUnavailable("store_failed") from None
        settle(events, self._settings.on_receipt)

    def _debug_headers(self, events: Sequence[Finished]) -> list[tuple[str, str]]:
        """Say which rule dropped or redacted which declared key, if `debug` is on (spec §4)."""
        if not self._settings.debug:
            return []
        said: list[str] = []
        for event in events:
            if event.receipt is not None:
                declared = self._pipeline.catalogue.events[event.receipt.event].properties
                said.extend(
                    f"{line.key}={line.rule}"
                    for line in event.receipt.lines
                    if line.result != "kept" and line.key in declared and line.key.isascii()
                )
        return [("X-Second-Analytics", ", ".join(said)[:1000])] if said else []

    # GET, PUT {prefix}/preferences

    def _preferences(self, request: Request) -> Steps:
        asks = request.method == "GET"
        if not asks:
            _check_media_type(request, "application/json")
        user = yield from self._user(request, onboarded=not asks)
        # A rate of its own: who posts too many events must still be able to stop sharing.
        user_key = self._pipeline.user_key(user.id)
        yield from self._count("choices", user_key)
        if asks:
            where, choice = yield from self._standing(request, user, user_key)
            return self._preferences_answer(user, where, choice)
        body = yield NeedBody(_MAX_CHOICE_BODY)
        wanted = _wanted_choice(self._json(request, body, _MAX_CHOICE_BODY))
        self._check_choice(request, user, wanted)
        _, choice = yield from self._standing(request, user, user_key)
        choice = Choice(
            choice.sharing if wanted.sharing is None else wanted.sharing,
            choice.anonymized if wanted.anonymized is None else wanted.anonymized,
        )
        try:
            yield SaveChoice(user_key, self._differing(choice))
        except Exception as error:
            self._say_once("a choice could not be stored", error)
            raise Refused("preferences_unavailable", retry_after=5.0) from None
        where, choice = yield from self._standing(request, user, user_key)
        if where.mode == "identified" and where.shares:
            yield from self._identify_now(user, None)
        return self._preferences_answer(user, where, choice)

    def _check_choice(self, request: Request, user: AnalyticsUser, wanted: Choice) -> None:
        if not self._settings.enabled:
            raise Refused("disabled")
        fixed = user.anonymized is not None or not user.can_be_identified
        if wanted.anonymized is not None and fixed:
            raise Refused("managed_by_host")
        if wanted.sharing is not None and user.sharing is not None:
            raise Refused("managed_by_host")
        asks = _says_yes(request.header("sec-gpc")) and self._settings.gpc != "ignore"
        if wanted.anonymized is False and asks:
            raise Refused("gpc")

    def _differing(self, choice: Choice) -> Choice:
        """Return a choice with the defaults left out: no row stands for a default (spec §7)."""
        return Choice(
            None if choice.sharing and self._settings.consent == "default-on" else choice.sharing,
            None if choice.anonymized else choice.anonymized,
        )

    def _preferences_answer(self, user: AnalyticsUser, where: Standing, choice: Choice) -> Answer:
        chosen = choice.anonymized if user.anonymized is None else user.anonymized
        asked = self._settings.consent == "ask" and user.sharing is None
        body = {
            "enabled": self._settings.enabled and bool(user.onboarded),
            "sharing": None if asked and choice.sharing is None else where.shares,
            "anonymized": chosen is not False or not user.can_be_identified,
            "effective": where.mode,
            "reason": where.reason,
            "subject": self._subject(user),
        }
        return Answer(200, [("Content-Type", "application/json")], _encode(body))

    def _subject(self, user: AnalyticsUser) -> str:
        """Return the first 4 hex digits of the user's key: enough to tell two people apart."""
        return self._pipeline.user_key(user.id)[:4]

    # POST {prefix}/identify

    def _identify(self, request: Request) -> Steps:
        _check_media_type(request, "application/json")
        user = yield from self._user(request)
        if not self._settings.enabled:
            return _NOTHING_TO_SAY
        user_key = self._pipeline.user_key(user.id)
        yield from self._count("events", user_key)
        body = self._json(request, (yield NeedBody(_MAX_CHOICE_BODY)), _MAX_CHOICE_BODY)
        if not isinstance(body, dict):
            raise Refused("invalid_payload")
        workspace = workspace_named(body, body.keys() & {"workspaceId"}, user)
        where, _ = yield from self._standing(request, user, user_key)
        if where.mode == "identified" and where.shares:
            finished = self._pipeline.identify(user, workspace)
            yield from self._put([finished])
        return _NOTHING_TO_SAY

    def _identify_now(
        self, user: AnalyticsUser, workspace: str | None
    ) -> Generator[Need, Any, None]:
        """Send `$identify`; the choice stands whether or not the outbox has room for it now."""
        try:
            yield from self._put([self._pipeline.identify(user, workspace)])
        except OutboxUnavailable:
            # The user's next event brings it, because PostHog has not been told.
            logger.info("second_mw: the outbox is full; a $identify follows with the next event")

    # GET {prefix}/client.js, {prefix}/settings.js

    def _static(self, file: StaticFile) -> Route:
        content_type = ("Content-Type", "text/javascript; charset=utf-8")
        headers = [("X-Content-Type-Options", "nosniff"), ("ETag", file.etag)]

        def static(request: Request) -> Steps:
            # A page of another origin can check a script's integrity only if it may read it.
            cors = self._origins.cors_headers(request.header)
            if request.method not in ("GET", "HEAD"):
                refusal = self._refusal(Refused("method_not_allowed", allow="GET, HEAD"))
                return refusal._replace(headers=[*COMMON_HEADERS, *refusal.headers, *cors])
            # A URL that names the version never changes its bytes.
            is_versioned = request.query == f"v={file.version}"
            caching = ("Cache-Control", _IMMUTABLE if is_versioned else "no-cache")
            cached = [*headers, caching, *cors]
            if not _etags(request.header("if-none-match")).isdisjoint((file.etag, "*")):
                return Answer(304, cached)
            return Answer(200, [content_type, *cached], file.body)
            yield  # a generator like every route, although it needs nothing

        return static


_IMMUTABLE: Final = "public, max-age=31536000, immutable"
COMMON_HEADERS: Final = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]

# What nearly every event needs and is answered is made once.
_NEED_USER: Final = NeedUser()
_NO_CHOICE: Final = Choice()
#: What a batch's answer says of an event that was taken.
_ACCEPTED_RESULT: Final = {"status": "accepted"}
#: A route's own 204, without a header of its own.
_NOTHING_TO_SAY: Final = Answer(204, [])
#: The same as it leaves.
ACCEPTED: Final = Answer(204, COMMON_HEADERS)


# What server code and the endpoint have in common


def finished(pipeline: Pipeline, posted: Posted, user: AnalyticsUser, where: Standing) -> Finished:
    """Return what the privacy core makes of an event; a rule that fails takes nothing (spec §4).

    Raises:
        Refused: `not_taken`.
    """
    try:
        return pipeline.finish(posted, user, where.mode)
    except Refused:
        raise
    except Exception as error:
        raise _failed(error) from None


def payloads_of(events: Sequence[Finished]) -> list[Payload]:
    """Return the payloads of one put, without a `$identify` that says again what one before says.

    PostHog has been told of nobody before the put, so each event of a new person brings one.
    """
    payloads: list[Payload] = []
    said: set[tuple[str, bytes]] = set()
    for event in events:
        for payload in event.payloads:
            if payload.event == "$identify":
                what = (payload.distinct_id, payload.properties)
                if what in said:
                    continue
                said.add(what)
            payloads.append(payload)
    return payloads


def settle(events: Sequence[Finished], on_receipt: Callable[[Receipt], object] | None) -> None:
    """Do what follows once the outbox has the events."""
    for event in events:
        if event.taken is None and event.receipt is None:
            continue
        try:
            if event.taken is not None:
                event.taken()
            if event.receipt is not None and on_receipt is not None:
                on_receipt(event.receipt)
        except Exception as error:
            # The event is kept, and whoever posted it must hear that.
            logger.error(
                "second_mw: on_receipt, or what else follows a kept event, failed: %s",
                traced(error),
            )


def workspace_named(
    properties: Mapping[str, Any], keys: Iterable[str], user: AnalyticsUser
) -> str | None:
    """Return the user's workspace that an event names, None if it names none.

    Args:
        keys: those of the properties that mean a workspace.

    Raises:
        Refused: `workspace_not_found`, whether the workspace exists or not.
    """
    if user.workspaces is None:
        return None
    named: str | None = None
    for key in keys:
        value = properties[key]
        if value is not None:
            if not isinstance(value, str) or value not in user.workspaces:
                raise Refused("workspace_not_found")
            named = value
    return named


def _failed(error: Exception) -> Refused:
    """Return the refusal of an event whose rules failed, having logged where but no value."""
    logger.error("second_mw took nothing: %s", traced(error))
    return Refused("not_taken", counted="rule_failed")


def fallen(error: Exception) -> Answer:
    """Return the answer to a request on which this package itself failed: nothing was taken.

    The last net of both adapters: whatever happens here, the host does not hear of it.
    """
    return _plain(_failed(error).code)


def cut_short() -> Answer:
    """Return the answer to a body that ended before its end, should anybody still read it."""
    return _plain("invalid_payload")


def _plain(code: Code) -> Answer:
    headers = [*COMMON_HEADERS, ("Content-Type", "application/json")]
    return Answer(REFUSALS[code].status, headers, _error_body(code))


def _error_body(code: Code) -> bytes:
    return _encode({"error": code, "message": REFUSALS[code].message})


def _item_of(item: object) -> tuple[Item, dict[str, Any]]:
    """Return an event that has other keys, too, and all that it has.

    Raises:
        Refused: `invalid_payload`.
    """
    if not isinstance(item, dict):
        raise Refused("invalid_payload")
    event, properties = item.get("event"), item.get("properties")
    if not isinstance(event, str) or not (properties is None or isinstance(properties, dict)):
        raise Refused("invalid_payload")
    rest = (item.get(name) for name in ("uuid", "timestamp", "anonymousDistinctId", "subject"))
    return Item(event, properties, *rest), item


def _result_key(item: object) -> str:
    """Return the uuid under which an event of a batch is answered: its own, or a new one."""
    if type(item) is Item:
        uuid: object = item.uuid
    else:
        uuid = item.get("uuid") if isinstance(item, dict) else None
    return uuid if isinstance(uuid, str) and _UUID.fullmatch(uuid) else str(uuids.uuid4())


class _ContentType(NamedTuple):
    """What a Content-Type says: the type in lower case, and whether we read its charset."""

    media: str
    is_utf8: bool


#: Content-Type as it was written → what it says.
_types: dict[str, _ContentType] = {}


def _content_type(request: Request) -> _ContentType:
    written = request.header("content-type") or ""
    known = _types.get(written)
    if known is None:
        charset = _CHARSET.search(written)
        known = _ContentType(
            written.partition(";")[0].strip().lower(),
            charset is None or charset[1].lower() in _UTF8,
        )
        if len(written) <= _LONGEST_TYPE:
            if len(_types) >= _MAX_TYPES:
                _types.clear()
            _types[written] = known
    return known


def _check_media_type(
    request: Request, *allowed: Literal["application/json", "text/plain"]
) -> None:
    media, is_utf8 = _content_type(request)
    encoding = request.header("content-encoding")
    if (
        media not in allowed
        or not is_utf8
        or (encoding is not None and encoding.strip().lower() not in _ENCODINGS)
    ):
        raise Refused("unsupported_media_type")


def _wanted_choice(body: object) -> Choice:
    """Return the choice that a body asks for.

    Raises:
        Refused: `invalid_payload`.
    """
    if not isinstance(body, dict) or not body or set(body) - {"sharing", "anonymized"}:
        raise Refused("invalid_payload")
    if not all(isinstance(value, bool) for value in body.values()):
        raise Refused("invalid_payload")
    return Choice(body.get("sharing"), body.get("anonymized"))


def _says_yes(value: str | None) -> bool:
    return value is not None and value.strip() == "1"


def _etags(header: str | None) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in (header or "").split(",")}
