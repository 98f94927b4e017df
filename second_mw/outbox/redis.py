"""The Redis outbox: durable, for any number of machines (spec §11).

Events wait in a stream; a consumer group says who has which. Every step is one Lua script, so that
no process can die in the middle of one. All keys lie under one hash tag, which keeps them together
in a cluster:

    events      stream   what waits, oldest first; p payload, a accepted_at, s size, i identity
    waiting     hash     (distinct_id, uuid) → id in the stream: an event waits once
    held        zset     id → the moment until which it is leased, or was put off
    rounds      hash     id → how many rounds of delivery have ended without settling it
    dead        stream   dead letters, with r reason and b buried_at
    accounts    hash     accepted, delivered, dead, purged
    identified  string   one per user's key, for half an hour: what PostHog was told of the person

A lease that runs out and a delay that ends are the same thing, as in the memory outbox: a moment in
`held` that has passed. The group's own idle times would serve leases only, and know one length.
Who holds an entry is claimed all the same, so that XPENDING tells an operator the truth.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError
from redis.retry import Retry

from second_mw.errors import ConfigurationError, OutboxUnavailable, traced
from second_mw.outbox import scripts
from second_mw.outbox.base import Counts, DeadLetter, Entry
from second_mw.outbox.writer import Job, Writer
from second_mw.payload import Payload
from second_mw.settings import masked

logger = logging.getLogger("second_mw")

TAG: Final = "{second_mw}"
GROUP: Final = "forwarders"
MAX_EVENTS: Final = 2_000_000
KEEP_DEAD_DAYS: Final = 30
#: The first with XAUTOCLAIM's relatives, exclusive ranges and trimming by id.
OLDEST_SERVER: Final = (6, 2)
#: Seconds. A request waits for this one, so it is short; a Redis that is slower can't be had.
_TIMEOUT: Final = 2.0
_CONNECT_TIMEOUT: Final = 1.0
#: Milliseconds for which `?wait=N` waits for the replicas.
_WAIT_MS: Final = 1_000
_IDENTIFIED_SECONDS: Final = 30 * 60
_CHUNK: Final = 1_000
#: Faults of Redis are logged once in so many seconds.
_LOG_EVERY: Final = 60.0

_KEYS: Final = tuple(
    f"{TAG}:{name}" for name in ("events", "waiting", "held", "rounds", "dead", "accounts")
)
_IDENTIFIED: Final = f"{TAG}:identified:"

#: Milliseconds since the epoch and a number within one.
_ID: Final = re.compile(r"\d{1,15}-\d{1,15}")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, str, str, bytes, dict[str, Any]]).decode


class _Call(NamedTuple):
    """One script to run: its words, and what its answer means."""

    script: str
    arguments: list[Any]
    meaning: Callable[[Any], Any]


class RedisStore:
    """Keeps payloads in Redis, for any number of hosts and forwarders.

    Args:
        connect: returns a client; called again after a fork, and after `close`.
        max_events: how many may wait; a put that would exceed it keeps nothing.
        keep_dead: days for which dead letters are kept.
        wait: how many replicas must have a put before it counts as kept (Redis's WAIT).
        demand: whether Redis must be set to lose nothing; else it is best effort.
        setting: the setting that names the server, for error messages.
        clock: seconds since the epoch; None takes the server's, which all machines agree on.

    Raises:
        ConfigurationError: the server is too old, or may lose what it took.
    """

    durable = True
    blocking = True

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        max_events: int = MAX_EVENTS,
        keep_dead: float = KEEP_DEAD_DAYS,
        wait: int = 0,
        demand: bool = True,
        setting: str = "outbox",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.max_events = max_events
        #: Returns the key that stands for a user; set by whoever knows the server key. With it,
        #: all processes together tell PostHog of a person once in half an hour.
        self.key_of_user: Callable[[str], str] | None = None
        self._connect = connect
        self._keep_dead = keep_dead * 86_400
        self._wait = wait
        self._demand = demand
        self._clock = clock
        self._logged_at = -_LOG_EVERY
        self._client: Any = None
        self._writer: Writer[list[_Call]] = Writer(self._commit, lambda: None)
        self._consumer = _consumer()
        self._demanded = False
        try:
            self._demand_durability(setting)
        except RedisError as error:
            # A host must start while Redis does not: its events are refused with 503 meanwhile.
            self._log(error)

    # Putting: in groups, through one thread and one pipeline

    def put(self, payloads: Sequence[Payload]) -> int:
        """Keep all payloads or none; return how many are new."""
        new: int = self.submit(payloads).result()
        return new

    def submit(self, payloads: Sequence[Payload]) -> Future[int]:
        """Like `put`, without blocking: the future has its result or its exception."""
        if not payloads:
            done: Future[int] = Future()
            done.set_result(0)
            return done
        arguments: list[Any] = [self._now(), self.max_events, _IDENTIFIED_SECONDS]
        for payload in payloads:
            arguments += [_identity(payload), _packed(payload), payload.size, *self._told(payload)]
        call = _Call(scripts.PUT, arguments, _kept)
        return self._writer.submit(lambda calls: calls.append(call))

    def _told(self, payload: Payload) -> tuple[str, bytes]:
        """Return under which key it is remembered that PostHog was told of a person, and what."""
        if payload.event != "$identify" or self.key_of_user is None:
            return "", b""
        return _IDENTIFIED + self.key_of_user(payload.distinct_id), payload.properties

    def _commit(self, jobs: list[Job[list[_Call]]]) -> None:
        calls: list[_Call] = []
        for job in jobs:
            job.work(calls)
        try:
            answers = self._answers(calls)
        except (RedisError, OSError) as error:
            self._log(error)
            answers = [error] * len(jobs)
        for job, call, answer in zip(jobs, calls, answers, strict=True):
            try:
                if isinstance(answer, Exception):
                    raise answer
                job.result = call.meaning(answer)
            except OutboxUnavailable as refused:
                job.error = refused
            except OutOfMemoryError as error:
                self._log(error)
                job.error = OutboxUnavailable("full")
            except Exception as error:
                self._log(error)
                job.error = OutboxUnavailable("store_failed")

    def _answers(self, calls: list[_Call]) -> list[Any]:
        """Run scripts in one round trip, and wait for the replicas once for all of them."""
        client = self._connected()
        pipe = client.pipeline(transaction=False)
        for call in calls:
            pipe.eval(call.script, len(_KEYS), *_KEYS, *call.arguments)
        if self._wait:
            # On the same connection: WAIT is about the writes of the one that asks.
            pipe.execute_command("WAIT", self._wait, _WAIT_MS)
        answers: list[Any] = pipe.execute(raise_on_error=False)
        if self._wait:
            reached = answers.pop()
            if isinstance(reached, Exception) or reached < self._wait:
                # Kept here, perhaps not there: not to be promised. The same uuid comes again.
                return [OutboxUnavailable("store_failed")] * len(calls)
        return answers

    # Delivering

    def lease(self, limit: int, max_bytes: int, ttl: float) -> list[Entry]:
        """Take up to `limit` entries of together at most `max_bytes` for `ttl` seconds."""
        taken = self._eval(scripts.LEASE, self._now(), limit, max_bytes, ttl, self._consumer)
        return [
            Entry(key.decode(), _payload(packed), int(rounds), float(accepted_at))
            for key, packed, accepted_at, rounds in taken
        ]

    def renew(self, keys: Sequence[str], ttl: float) -> None:
        """Hold these leases for another `ttl` seconds; a lease that ran out is taken again."""
        self._eval(scripts.RENEW, self._now(), ttl, self._consumer, *_known(keys))

    def ack(self, keys: Sequence[str]) -> None:
        """Settle these entries as delivered."""
        self._settle("delivered", keys)

    def release(self, keys: Sequence[str], not_before: float) -> None:
        """Give these entries back, to be leased again no sooner than in `not_before` seconds."""
        self._eval(scripts.RELEASE, self._now(), not_before, *_known(keys))

    def bury(self, reasons: Mapping[str, str]) -> None:
        """Move entries to the dead letters: key → reason."""
        pairs = [word for key in _known(reasons) for word in (key, reasons[key])]
        self._eval(scripts.BURY, self._now(), self._keep_dead, *pairs)

    def next_ready_in(self) -> float | None:
        """Seconds until an entry is ready: 0.0 if one is, None if nothing waits."""
        _, waiting, later, now, _, soonest = self._looked()
        if not waiting:
            return None
        if waiting > later:
            return 0.0
        return max(0.0, float(soonest) - float(now))

    # Looking and tidying

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` dead letters, newest first."""
        found = self._do(lambda client: client.xrevrange(_key("dead"), count=max(1, limit)))
        return [_letter(fields) for _, fields in found[:limit]]

    def dead_reasons(self) -> dict[str, int]:
        """Return how many dead letters are at hand by the reason's machine word."""
        return dict(Counter(_word(_letter(fields).reason) for _, fields in self._all("dead")))

    def retry(self, reason: str | None = None) -> int:
        """Let dead letters wait again, all or those of one machine word; return how many do."""
        keys = [
            key
            for key, fields in self._all("dead")
            if reason is None or _word(_letter(fields).reason) == reason
        ]
        back = 0
        for part in _chunks(keys):
            back += _kept(self._eval(scripts.RETRY, self.max_events, *part))
        return back

    def peek(self, limit: int) -> list[Entry]:
        """Return up to `limit` entries that wait, leased ones too, oldest first; lease none."""
        entries: list[Entry] = []
        for key, fields in self._all("events"):
            if len(entries) >= limit:
                break
            entries.append(self._entry(key, fields))
        return entries

    def purge(self, what: Literal["waiting", "dead"] = "waiting") -> int:
        """Drop everything that waits, leased or not, or every dead letter; return how many."""
        if what == "waiting":
            return int(self._eval(scripts.PURGE))
        letters = int(self._do(lambda client: client.xlen(_key("dead"))))
        self._do(lambda client: client.unlink(_key("dead")))
        return letters

    def erase(self, distinct_ids: Collection[str]) -> int:
        """Drop what waits and what is dead under these distinct_ids, for good; return how many."""
        wanted = frozenset(distinct_ids)
        waiting = [key for key, fields in self._all("events") if _owner(fields) in wanted]
        dead = [key for key, fields in self._all("dead") if _owner(fields) in wanted]
        erased = sum(self._settle("purged", part) for part in _chunks(waiting))
        for part in _chunks(dead):
            erased += self._drop_letters(part)
        if self.key_of_user is not None:
            for distinct_id in wanted:
                self.forget(self.key_of_user(distinct_id))
        return erased

    def _drop_letters(self, keys: list[str]) -> int:
        return int(self._do(lambda client: client.xdel(_key("dead"), *keys)))

    def forget(self, user_key: str) -> None:
        """Forget that PostHog was told of a user."""
        self._do(lambda client: client.delete(_IDENTIFIED + user_key))

    def export(self, distinct_ids: Collection[str]) -> list[Entry | DeadLetter]:
        """Return what waits, then what is dead, under these distinct_ids; each oldest first."""
        wanted = frozenset(distinct_ids)
        found: list[Entry | DeadLetter] = [
            self._entry(key, fields)
            for key, fields in self._all("events")
            if _owner(fields) in wanted
        ]
        letters = [_letter(fields) for _, fields in self._all("dead") if _owner(fields) in wanted]
        return [*found, *letters]

    def counts(self) -> Counts:
        """Return the accounts, all of one moment."""
        booked, waiting, later, now, since, _ = self._looked()
        accepted, delivered, dead, purged = (int(figure or 0) for figure in booked)
        return Counts(
            accepted=accepted,
            delivered=delivered,
            dead=dead,
            waiting=waiting,
            purged=purged,
            ready=waiting - later,
            oldest_age=max(0.0, float(now) - float(since)),
        )

    def check(self) -> list[str]:
        """Return what an operator should change about this store, in sentences."""
        try:
            counts = self.counts()
            faults = self._faults(self._connected())
        except (OutboxUnavailable, RedisError, OSError) as error:
            cause = error.__cause__ or error
            return [f"Redis can't be read and written: {type(cause).__name__}."]
        if counts.waiting > 0.7 * self.max_events:
            faults.append(
                f"{counts.waiting} of at most {self.max_events} events wait: when it is full, "
                "browsers are told to keep theirs (503)."
            )
        return faults

    def after_fork(self) -> None:
        """Become usable in a forked child; the parent's connections are left alone."""
        self._client = None
        self._consumer = _consumer()
        self._writer.after_fork()

    def close(self) -> None:
        """End the thread and the connections; the next call makes new ones."""
        self._writer.close()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # How Redis is asked

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _do(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return ask(self._connected())
        except (RedisError, OSError) as error:
            self._log(error)
            raise OutboxUnavailable("store_failed") from error

    def _eval(self, script: str, *arguments: Any) -> Any:
        return self._do(lambda client: client.eval(script, len(_KEYS), *_KEYS, *arguments))

    def _settle(self, account: str, keys: Sequence[str]) -> int:
        return int(self._eval(scripts.SETTLE, account, *_known(keys)))

    def _looked(self) -> Any:
        return self._eval(scripts.COUNTS, self._now())

    def _now(self) -> float | str:
        return "" if self._clock is None else self._clock()

    def _entry(self, key: str, fields: dict[bytes, bytes]) -> Entry:
        rounds = self._do(lambda client: client.hget(_key("rounds"), key))
        return Entry(key, _payload(fields[b"p"]), int(rounds or 0), float(fields[b"a"]))

    def _all(self, stream: str) -> Iterator[tuple[str, dict[bytes, bytes]]]:
        """Yield a stream's entries, read in pieces."""
        begin = "-"
        while True:
            found = self._piece(stream, begin)
            for key, fields in found:
                yield key.decode(), fields
            if len(found) < _CHUNK:
                return
            begin = f"({found[-1][0].decode()}"

    def _piece(self, stream: str, begin: str) -> Any:
        return self._do(lambda client: client.xrange(_key(stream), min=begin, count=_CHUNK))

    def _demand_durability(self, setting: str) -> None:
        """Refuse a server that may lose what it took (spec §11)."""
        faults = self._faults(self._connected())
        self._demanded = True
        if faults and self._demand:
            raise ConfigurationError(
                f"{setting}: {' '.join(faults)} Or say ?durability=best-effort behind the URL."
            )

    def _faults(self, client: Any) -> list[str]:
        """Return in what the server is not set to keep what it took."""
        version = str(_one(client.info("server")).get("redis_version", "0"))
        parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if parts < OLDEST_SERVER:
            raise ConfigurationError(
                f"Redis {version} is too old: events need {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} "
                "or newer."
            )
        try:
            told = {
                **_one(client.config_get("appendonly")),
                **_one(client.config_get("maxmemory-policy")),
            }
        except redis.exceptions.ResponseError:
            # Managed servers hide their settings; their owner has to know.
            logger.info(
                "this Redis does not tell its settings: make sure that it keeps what it has"
            )
            return []
        faults = []
        if told.get("appendonly", "yes") != "yes":
            faults.append("Redis must write each command to disk: set appendonly yes.")
        if told.get("maxmemory-policy", "noeviction") != "noeviction":
            faults.append("Redis must not evict events: set maxmemory-policy noeviction.")
        return faults

    def _log(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            logger.warning("the outbox's Redis can't be had (%s)", traced(error))


def _one(told: Any) -> dict[str, Any]:
    """Return one server's words; a cluster's client gives those of every node."""
    if told and all(isinstance(value, dict) for value in told.values()):
        told = next(iter(told.values()))
    return {_text(key): _text(value) for key, value in told.items()}


def _text(word: Any) -> Any:
    return word.decode() if isinstance(word, bytes) else word


def _kept(answer: Any) -> int:
    if answer < 0:
        raise OutboxUnavailable("full")
    return int(answer)


def _consumer() -> str:
    """Return this process's name in the group, for operators."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


def _key(name: str) -> str:
    return f"{TAG}:{name}"


def _identity(payload: Payload) -> str:
    return f"{payload.distinct_id}\n{payload.uuid}"


def _owner(fields: dict[bytes, bytes]) -> str:
    return fields[b"i"].decode().rpartition("\n")[0]


def _packed(payload: Payload) -> bytes:
    return _encode(
        (
            payload.event,
            payload.uuid,
            payload.distinct_id,
            payload.timestamp,
            payload.properties,
            payload.options,
        )
    )


def _payload(packed: bytes) -> Payload:
    return Payload(*_decode(packed))


def _letter(fields: dict[bytes, bytes]) -> DeadLetter:
    return DeadLetter(_payload(fields[b"p"]), fields[b"r"].decode(), float(fields[b"b"]))


def _word(reason: str) -> str:
    return reason.partition(":")[0]


def _known(keys: Iterable[str]) -> list[str]:
    """Return those that can be ids of a stream; Redis would refuse a whole script for another."""
    return [key for key in keys if _ID.fullmatch(key)]


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]


# From a URL


class Place(NamedTuple):
    """A server that a URL names.

    Args:
        connect: returns a client; timeouts are its arguments.
        options: what stood behind the path and is ours.
    """

    connect: Callable[..., Any]
    options: dict[str, str]


_OPTIONS: Final[tuple[str, ...]] = ("max", "keep_dead", "wait", "durability")


def place_of(url: str, setting: str) -> Place:
    """Return the server of a URL: `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`.

    Raises:
        ConfigurationError: the URL can't be used; its password is not shown.
    """
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    options: dict[str, str] = {name: given.pop(name) for name in _OPTIONS if name in given}
    bare = urlunsplit(parts._replace(query=urlencode(given)))
    scheme, _, kind = parts.scheme.partition("+")
    plain = bare.replace(f"{parts.scheme}://", f"{scheme}://", 1)

    def connect(timeout: float = _TIMEOUT, connect_timeout: float = _CONNECT_TIMEOUT) -> Any:
        common: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
        }
        # A kept connection may be one that a restarted server has forgotten: once more, at once.
        again = {"retry": Retry(NoBackoff(), 1), "retry_on_error": [redis.ConnectionError]}
        if kind == "sentinel":
            return _by_sentinel(parts, scheme, common)
        if kind == "cluster":
            return redis.RedisCluster.from_url(plain, **common)
        return redis.Redis.from_url(plain, **common, **again)

    try:
        if kind == "sentinel":
            _sentinels(parts)
        else:
            redis.ConnectionPool.from_url(plain)
    except (ValueError, RedisError) as error:
        raise ConfigurationError(
            f"{setting} is {masked(url)}, which is no Redis: {error}"
        ) from None
    return Place(connect, options)


def _sentinels(parts: Any) -> tuple[list[tuple[str, int]], str, int]:
    """Return sentinels, the service and the database of `host:port,host:port/service/db`."""
    hosts = parts.netloc.rpartition("@")[2].split(",")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("name the service, as in redis+sentinel://host:26379/mymaster/0")
    pairs = [host.rpartition(":") for host in hosts]
    return [(h or p, int(p) if h else 26379) for h, _, p in pairs], service, int(database or 0)


def _by_sentinel(parts: Any, scheme: str, common: dict[str, Any]) -> Any:
    from redis import sentinel

    sentinels, service, database = _sentinels(parts)
    login = {"username": parts.username or None, "password": parts.password or None}
    made: Any = sentinel.Sentinel
    asked = made(sentinels, sentinel_kwargs=common, **common)
    return asked.master_for(service, db=database, ssl=scheme == "rediss", **login)


def from_url(url: str, setting: str = "outbox") -> RedisStore:
    """Return the store of a URL.

    Args:
        url: `redis://host:6379/0`, with `?max=` events that may wait, `?keep_dead=` days, `?wait=`
            replicas and `?durability=best-effort`.
        setting: the setting that holds it, for error messages.

    Raises:
        ConfigurationError: the URL can't be used, or the server loses what it takes.
    """
    place = place_of(url, setting)
    try:
        max_events = _whole(place.options.get("max", MAX_EVENTS), 1)
        keep_dead = _whole(place.options.get("keep_dead", KEEP_DEAD_DAYS), 1)
        wait = _whole(place.options.get("wait", 0), 0)
    except ValueError as error:
        raise ConfigurationError(f"{setting}: {error}") from None
    durability = place.options.get("durability", "required")
    if durability not in ("required", "best-effort"):
        raise ConfigurationError(f"{setting}: ?durability= is required or best-effort.")
    demand = durability == "required"
    return RedisStore(
        place.connect,
        max_events=max_events,
        keep_dead=keep_dead,
        wait=wait,
        demand=demand,
        setting=setting,
    )


def _whole(value: object, low: int) -> int:
    text = str(value)
    if not text.isdigit() or int(text) < low:
        raise ValueError(f"{text!r} behind the URL must be a whole number of {low} or more.")
    return int(text)
