"""The Redis outbox: durable, for any number of machines (spec §11).

Events wait in a stream; a consumer group says who has which. Every step is one Lua script
(`scripts.py`), so that no process can die in the middle of one. All keys lie under one hash tag,
which keeps them together in a cluster:

    events      stream   what waits, oldest first: a accepted_at, s size
    waiting     hash     distinct_id and uuid → id in the stream: an event waits once
    held        zset     id → the moment until which it is leased, or was put off
    rounds      hash     id → how many rounds of delivery have ended without settling it
    payloads    hash     id → the payload
    dead        stream   dead letters: a, s, r reason, b buried_at
    letters     hash     id of a dead letter → its payload
    accounts    hash     accepted, delivered, dead, purged
    identified  hashes   one a user's key, for half an hour: what PostHog was told of the person,
                         as digests

Nothing of an event stands in a stream, because Redis lets go of a deleted entry's bytes only when
its neighbours are deleted, too; what is erased has to be gone. A lease that runs out and a delay
that ends are the same thing, as in the memory outbox: a moment in `held` that has passed. The
group's own idle times would serve leases only, and know one length. Who holds an entry is claimed
all the same, so that XPENDING tells an operator the truth.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisClusterException, RedisError
from redis.retry import Retry

from second_mw.errors import ConfigurationError, OutboxUnavailable, traced
from second_mw.outbox import scripts
from second_mw.outbox.base import Counts, DeadLetter, Entry
from second_mw.outbox.writer import Job, Writer
from second_mw.payload import Payload
from second_mw.settings import masked

logger: logging.Logger = logging.getLogger("second_mw")

TAG: Final = "{second_mw}"
GROUP: Final = "forwarders"
MAX_EVENTS: Final = 2_000_000
KEEP_DEAD_DAYS: Final = 30
#: Dead letters at hand; beyond it the oldest go before their time, and the log says so.
MAX_DEAD_LETTERS: Final = 200_000
#: The first with XAUTOCLAIM's relatives, exclusive ranges and trimming by id.
OLDEST_SERVER: Final = (6, 2)
#: Seconds. A request waits for this one, so it is short; a Redis that is slower can't be had.
_TIMEOUT: Final = 2.0
_CONNECT_TIMEOUT: Final = 1.0
#: Milliseconds for which `?wait=N` waits for the replicas.
_WAIT_MS: Final = 1_000
_IDENTIFIED_SECONDS: Final = 30 * 60
_CHUNK: Final = 1_000
#: No lease and no delay is longer, in seconds; what seems to be is a clock that was put back.
_LONGEST_HOLD: Final = 7 * 86_400
#: Seconds after which a put that was in the queue all the time is not begun any more: whoever waits
#: for it gets an answer while Redis hangs.
_QUEUED_FOR: Final = 3.0
#: Bytes of puts that may be in the queue.
_QUEUED_BYTES: Final = 64 * 1024**2
#: Bytes of payloads that Redis takes in one transaction.
_TOGETHER: Final = 256 * 1024
_AN_HOUR: Final = 3_600.0
#: What can happen on the way to Redis.
_FAILURES: Final = (RedisError, RedisClusterException, OSError)
#: Faults of Redis are logged once in so many seconds.
_LOG_EVERY: Final = 60.0

_NAMES: Final = (
    "events", "waiting", "held", "rounds", "payloads", "dead", "letters", "accounts",
)  # fmt: skip
_KEYS: Final = tuple(f"{TAG}:{name}" for name in _NAMES)
_PUT_SHA: Final = hashlib.sha1(scripts.PUT.encode(), usedforsecurity=False).hexdigest()
_IDENTIFIED: Final = f"{TAG}:identified:"

#: Milliseconds since the epoch and a number within one.
_ID: Final = re.compile(r"\d{1,15}-\d{1,15}")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, bytes, dict[str, Any]]).decode


class _Put(NamedTuple):
    """A put on its way.

    Args:
        arguments: the script's.
        size: bytes of its payloads.
        began: monotonic seconds.
    """

    arguments: list[Any]
    size: int
    began: float


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
        #: With it, all processes together tell PostHog of a person once in half an hour.
        self.key_of_user: Callable[[str], str] | None = None
        self._connect = connect
        self._keep_dead = keep_dead * 86_400
        self._wait = wait
        self._demand = demand
        self._setting = setting
        self._clock = clock
        self._logged_at = -_LOG_EVERY
        self._client: Any = None
        #: A parent's clients: closing one here would take locks that nobody gives back.
        self._abandoned: list[Any] = []
        self._writer: Writer[list[_Put]] = Writer(self._commit, self._keep_up)
        self._begin()
        try:
            self._demand_durability()
        except redis.AuthenticationError:
            raise ConfigurationError(
                f"{setting}: Redis does not take this user and password."
            ) from None
        except _FAILURES as error:
            # A host must start while Redis does not: its events are refused with 503 meanwhile.
            self._log(error)

    def _begin(self) -> None:
        """Start with nothing: at construction, and in a forked child."""
        self._consumer = _consumer()
        self._demanded = False
        self._tidied_at = -_AN_HOUR
        self._inside = threading.local()
        self._queued = 0
        # Re-entrant: a signal handler may put.
        self._queue = threading.RLock()

    # Putting: in groups, through one thread and one pipeline

    def put(self, payloads: Sequence[Payload]) -> int:
        """Keep all payloads or none; return how many are new.

        Raises:
            OutboxUnavailable: `full` or `store_failed`; none was kept, as far as is known.
        """
        new: int = self.submit(payloads).result()
        return new

    def submit(self, payloads: Sequence[Payload]) -> Future[int]:
        """Like `put`, without blocking: the future has its result or its exception."""
        size = sum(payload.size for payload in payloads)
        answer = _answered(0) if not payloads else self._queue_in(size)
        if answer is not None:
            return answer
        arguments: list[Any] = [self._now(), self.max_events, _IDENTIFIED_SECONDS]
        for payload in payloads:
            arguments += [*_packed(payload), payload.size, *self._told(payload)]
        put = _Put(arguments, size, time.monotonic())
        future = self._writer.submit(lambda puts: puts.append(put))
        future.add_done_callback(lambda _: self._queue_out(size))
        return future

    def _queue_in(self, size: int) -> Future[int] | None:
        """Take room in the queue; return the refusal if there is none."""
        with self._queue:
            if self._queued and self._queued + size > _QUEUED_BYTES:
                return _answered(OutboxUnavailable("store_failed"))
            self._queued += size
        return None

    def _queue_out(self, size: int) -> None:
        with self._queue:
            self._queued -= size

    def _told(self, payload: Payload) -> tuple[str, str]:
        """Return under which key it is remembered that PostHog was told of a person, and what."""
        if payload.event != "$identify" or self.key_of_user is None:
            return "", ""
        said = _person(payload.properties)
        # Digests with the server key: who goes back to anonymized leaves no name here.
        what = "".join(f"{name}={self.key_of_user(value)[:32]};" for name, value in said)
        return (_IDENTIFIED + self.key_of_user(payload.distinct_id), what) if what else ("", "")

    def _commit(self, jobs: list[Job[list[_Put]]]) -> None:
        puts: list[_Put] = []
        for job in jobs:
            job.work(puts)
        begun_since = time.monotonic() - _QUEUED_FOR
        now = [put.began >= begun_since for put in puts]
        answers = iter(self._answers([put for put, begun in zip(puts, now, strict=True) if begun]))
        for job, begun in zip(jobs, now, strict=True):
            answer = next(answers) if begun else OutboxUnavailable("store_failed")
            if isinstance(answer, int) and answer >= 0:
                job.result = answer
            else:
                job.error = self._refusal(answer)

    def _refusal(self, answer: int | Exception) -> OutboxUnavailable:
        """Return what whoever put is told."""
        if isinstance(answer, OutboxUnavailable):
            return answer
        if isinstance(answer, int):
            return OutboxUnavailable("full")
        self._log(answer)
        # Redis 6.2 wraps what a script ran into in words of its own.
        full = isinstance(answer, OutOfMemoryError) or "OOM command" in str(answer)
        return OutboxUnavailable("full" if full else "store_failed")

    def _answers(self, puts: list[_Put]) -> list[Any]:
        """Run puts in one round trip, and wait for the replicas once for all of them."""
        if not puts:
            return []
        try:
            self._demand_durability()
            return self._ran(puts)
        except ConfigurationError as error:
            # It was not there at start-up, and is not fit now that it is.
            self._warn("%s", error)
        except Exception as error:
            self._let_go(error)
            self._log(error)
        return [OutboxUnavailable("store_failed")] * len(puts)

    def _ran(self, puts: list[_Put]) -> list[Any]:
        pipe = self._server().pipeline(transaction=False)
        pipe.execute_command("SCRIPT LOAD", scripts.PUT)
        groups = list(_grouped(puts))
        for group in groups:
            # Together, because Redis else syncs its file after each 16 KB that it has read.
            pipe.execute_command("MULTI")
            for put in group:
                pipe.evalsha(_PUT_SHA, len(_KEYS), *_KEYS, *put.arguments)
            pipe.execute_command("EXEC")
        if self._wait:
            # On the same connection: WAIT is about the writes of the one that asks.
            pipe.execute_command("WAIT", self._wait, _WAIT_MS)
        said: list[Any] = pipe.execute(raise_on_error=False)
        answers: list[Any] = []
        at = 1
        for group in groups:
            at += 2 + len(group)
            done = said[at - 1]
            if not isinstance(done, list):
                # All of them have failed; the first to be refused says why.
                queued = said[at - 1 - len(group) : at]
                why = next(word for word in queued if isinstance(word, Exception))
                done = [why] * len(group)
            answers += done
        for failed in (answer for answer in answers if isinstance(answer, Exception)):
            self._let_go(failed)
        if self._wait and not (isinstance(said[-1], int) and said[-1] >= self._wait):
            self._warn("fewer than %d replicas have what was put: refused", self._wait)
            # Kept here, perhaps not there: not to be promised. The same uuid comes again.
            return [OutboxUnavailable("store_failed")] * len(puts)
        return answers

    # Delivering

    def lease(self, limit: int, max_bytes: int, ttl: float) -> list[Entry]:
        """Take up to `limit` entries of together at most `max_bytes` for `ttl` seconds."""
        taken = self._eval(
            scripts.LEASE, self._now(), limit, max_bytes, ttl, _LONGEST_HOLD, self._consumer
        )
        if time.monotonic() - self._tidied_at >= _AN_HOUR:
            self._keep_up()
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
        pairs = [word for key in _known(reasons) for word in (key, _mended(reasons[key]))]
        self._eval(scripts.BURY, self._now(), *pairs)

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
        letters = [letter for _, letter in self._letters(newest_first=True, limit=limit)]
        return letters[: max(0, limit)]

    def dead_reasons(self) -> dict[str, int]:
        """Return how many dead letters are at hand by the reason's machine word."""
        words = (_text(fields[b"r"]) for _, fields in self._all("dead", self._dead_since()))
        return dict(Counter(word.partition(":")[0] for word in words))

    def retry(self, reason: str | None = None) -> int:
        """Let dead letters wait again, all or those of one machine word; return how many do.

        Raises:
            OutboxUnavailable: `full` or `store_failed`; it may have taken some of them back.
        """
        keys = [
            key
            for key, fields in self._all("dead", self._dead_since())
            if reason is None or _text(fields[b"r"]).partition(":")[0] == reason
        ]
        back = 0
        for part in _chunks(keys):
            returned = int(self._eval(scripts.RETRY, self.max_events, *part))
            if returned < 0:
                raise OutboxUnavailable("full")
            back += returned
        return back

    def peek(self, limit: int) -> list[Entry]:
        """Return up to `limit` entries that wait, leased ones too, oldest first; lease none."""
        return [entry for entry, _ in zip(self._entries(limit), range(limit), strict=False)]

    def purge(self, what: Literal["waiting", "dead"] = "waiting") -> int:
        """Drop everything that waits, leased or not, or every dead letter; return how many."""
        return int(self._eval(scripts.PURGE if what == "waiting" else scripts.PURGE_DEAD))

    def erase(self, distinct_ids: Collection[str]) -> int:
        """Drop what waits and what is dead under these distinct_ids, for good; return how many.

        Raises:
            OutboxUnavailable: it may have dropped some of them.
        """
        wanted = frozenset(map(_mended, distinct_ids))
        waiting = [each.key for each in self._entries() if each.payload.distinct_id in wanted]
        dead = [key for key, each in self._letters() if each.payload.distinct_id in wanted]
        erased = sum(self._settle("purged", part) for part in _chunks(waiting))
        erased += sum(int(self._eval(scripts.DROP, *part)) for part in _chunks(dead))
        if self.key_of_user is not None:
            for distinct_id in wanted:
                self.forget(self.key_of_user(distinct_id))
        if erased:
            self._rewrite()
        return erased

    def _rewrite(self) -> None:
        """Have the file written anew in which the commands stand that brought what was erased."""
        for _ in range(100):
            try:
                server = self._server()
                if server.info("persistence").get("aof_enabled"):
                    server.bgrewriteaof()
                return
            except redis.ResponseError as error:
                # One that has begun before was begun with what was erased.
                if "in progress" not in str(error):
                    break
                time.sleep(0.1)
            except _FAILURES:
                break
        logger.warning(
            "second_mw: what was erased stands in Redis's append-only file until it is rewritten: "
            "run BGREWRITEAOF"
        )

    def forget(self, user_key: str) -> None:
        """Forget that PostHog was told of a user."""
        self._do(lambda server: server.delete(_IDENTIFIED + user_key))

    def export(self, distinct_ids: Collection[str]) -> list[Entry | DeadLetter]:
        """Return what waits, then what is dead, under these distinct_ids; each oldest first."""
        wanted = frozenset(map(_mended, distinct_ids))
        waiting = [each for each in self._entries() if each.payload.distinct_id in wanted]
        dead = [each for _, each in self._letters() if each.payload.distinct_id in wanted]
        return [*waiting, *dead]

    def _entries(self, limit: int = _CHUNK) -> Iterator[Entry]:
        """Yield what waits, oldest first, read in pieces of `limit` or fewer."""
        for piece in self._pieces("events", count=limit):
            keys = [key for key, _ in piece]
            payloads = self._values("payloads", keys)
            rounds = self._values("rounds", keys)
            for (key, fields), kept, ended in zip(piece, payloads, rounds, strict=True):
                if kept is not None:
                    yield Entry(key, _payload(kept), int(ended or 0), float(fields[b"a"]))

    def _letters(
        self, *, newest_first: bool = False, limit: int = _CHUNK
    ) -> Iterator[tuple[str, DeadLetter]]:
        """Yield dead letters with their keys, read in pieces of `limit` or fewer."""
        since = self._dead_since()
        for piece in self._pieces("dead", since, count=limit, newest_first=newest_first):
            kept = self._values("letters", [key for key, _ in piece])
            for (key, fields), value in zip(piece, kept, strict=True):
                if value is not None:
                    reason, buried_at = _text(fields[b"r"]), float(fields[b"b"])
                    yield key, DeadLetter(_payload(value), reason, buried_at)

    def _all(self, stream: str, since: str) -> Iterator[tuple[str, dict[bytes, bytes]]]:
        """Yield the ids and fields of a stream, oldest first."""
        for piece in self._pieces(stream, since):
            yield from piece

    def _pieces(
        self, stream: str, since: str = "-", *, count: int = _CHUNK, newest_first: bool = False
    ) -> Iterator[list[tuple[str, dict[bytes, bytes]]]]:
        """Yield the ids and fields of a stream in pieces of `count`, of a thousand at the most."""
        count = max(1, min(count, _CHUNK))
        bounds = (since, "+")
        while True:
            found = self._do(_Piece(stream, *bounds, count, newest_first).of)
            piece = [(_text(key), fields) for key, fields in found]
            if piece:
                yield piece
            if len(piece) < count:
                return
            beyond = f"({piece[-1][0]}"
            bounds = (since, beyond) if newest_first else (beyond, "+")

    def _values(self, name: str, keys: list[str]) -> list[bytes | None]:
        found: list[bytes | None] = self._do(lambda server: server.hmget(_key(name), keys))
        return found

    def _dead_since(self) -> str:
        """Return the id of the oldest dead letter that is kept, whose first half is its time."""
        return str(max(0, int((time.time() - self._keep_dead) * 1000)))

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
            self._eval(scripts.SETTLE, "purged")
            counts = self.counts()
            faults = self._faults()
        except ConfigurationError as too_old:
            return [str(too_old)]
        except (OutboxUnavailable, *_FAILURES) as error:
            cause = error.__cause__ or error
            return [f"Redis can't be read and written: {type(cause).__name__}."]
        if counts.waiting > 0.7 * self.max_events:
            faults.append(
                f"{counts.waiting} of at most {self.max_events} events wait: when it is full, "
                "browsers are told to keep theirs (503)."
            )
        return faults

    # The process's life

    def entered(self) -> bool:
        """Return whether the calling thread is inside this store: a signal handler may be."""
        return self._writer.entered() or getattr(self._inside, "depth", 0) > 0

    def after_fork(self) -> None:
        """Become usable in a forked child; the parent's connections are left alone."""
        if self._client is not None:
            self._abandoned.append(self._client)
        self._client = None
        self._begin()
        self._writer.after_fork()

    def close(self) -> None:
        """End the thread and the connections; the next call makes new ones."""
        self._writer.close()
        self._let_go()

    def _keep_up(self) -> None:
        """Drop the dead letters that are too old or too many, and consumers that are gone; hourly.

        In the writer's thread while nobody puts, and in a forwarder's that only leases.
        """
        if time.monotonic() - self._tidied_at < _AN_HOUR:
            return
        self._tidied_at = time.monotonic()
        dropped = 0
        try:
            while True:
                old, surplus = self._eval(
                    scripts.TIDY, self._keep_dead, MAX_DEAD_LETTERS, _CHUNK, int(_AN_HOUR * 1000)
                )
                dropped += surplus
                if max(old, surplus) < _CHUNK:
                    break
        except OutboxUnavailable:
            return
        if dropped:
            logger.warning(
                "second_mw dropped the %d oldest dead letters: more than %d have gathered",
                dropped,
                MAX_DEAD_LETTERS,
            )

    # How Redis is asked

    def _connected(self) -> Any:
        client = self._client
        if client is None:
            client = self._client = self._connect()
        return client

    def _server(self) -> Any:
        """Return the client of the server that has our keys: of a cluster, the one node."""
        client = self._connected()
        if not hasattr(client, "get_node_from_key"):
            return client
        return client.get_redis_connection(client.get_node_from_key(_KEYS[0]))

    def _let_go(self, error: Exception | None = None) -> None:
        """Let go of the client: at the end, or when it is not where the master is any more."""
        client = self._client
        if client is None or (error is not None and not _moved(client, error)):
            return
        self._client = None
        client.close()

    def _do(self, ask: Callable[[Any], Any]) -> Any:
        self._inside.depth = getattr(self._inside, "depth", 0) + 1
        try:
            return ask(self._server())
        except _FAILURES as error:
            self._let_go(error)
            self._log(error)
            raise OutboxUnavailable("store_failed") from error
        finally:
            self._inside.depth -= 1

    def _eval(self, script: str, *arguments: Any) -> Any:
        return self._do(lambda server: server.eval(script, len(_KEYS), *_KEYS, *arguments))

    def _settle(self, account: str, keys: Sequence[str]) -> int:
        return int(self._eval(scripts.SETTLE, account, *_known(keys)))

    def _looked(self) -> Any:
        return self._eval(scripts.COUNTS, self._now())

    def _now(self) -> float | str:
        return "" if self._clock is None else self._clock()

    def _demand_durability(self) -> None:
        """Refuse a server that may lose what it took (spec §11); asked until it has answered."""
        if self._demanded:
            return
        faults = self._faults()
        if faults and self._demand:
            raise ConfigurationError(
                f"{self._setting}: {' '.join(faults)} Or say ?durability=best-effort behind the "
                "URL."
            )
        self._demanded = True

    def _faults(self) -> list[str]:
        """Return in what the server is not set to keep what it took.

        Raises:
            ConfigurationError: it is too old.
        """
        server = self._server()
        version = str(server.info("server").get("redis_version", "0"))
        if _release(version) < OLDEST_SERVER:
            raise ConfigurationError(
                f"{self._setting}: Redis {version} is too old: events need "
                f"{OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer."
            )
        try:
            told = {
                _text(name): _text(value)
                for wanted in _DEMANDS
                for name, value in server.config_get(wanted).items()
            }
        except redis.ResponseError:
            # Managed servers hide their settings; their owner has to know.
            logger.info(
                "this Redis does not tell its settings: make sure that it keeps what it has"
            )
            return []
        return [
            words for name, (value, words) in _DEMANDS.items() if told.get(name, value) != value
        ]

    def _log(self, error: Exception) -> None:
        self._warn("the outbox's Redis can't be had (%s)", traced(error))

    def _warn(self, words: str, *arguments: object) -> None:
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            logger.warning("second_mw: " + words, *arguments)  # noqa: G003 - words are ours


#: What a server must be set to, to keep what it took, and what to say if it is not.
_DEMANDS: Final = {
    "appendonly": ("yes", "Redis must write each command to disk: set appendonly yes."),
    "maxmemory-policy": (
        "noeviction",
        "Redis must not evict events: set maxmemory-policy noeviction.",
    ),
}


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _text(word: bytes | str) -> str:
    return word.decode() if isinstance(word, bytes) else word


class _Piece(NamedTuple):
    """A part of a stream, to be read."""

    stream: str
    low: str
    high: str
    most: int
    newest_first: bool

    def of(self, server: Any) -> Any:
        key, low, high, most, newest_first = _key(self.stream), *self[1:]
        if newest_first:
            return server.xrevrange(key, max=high, min=low, count=most)
        return server.xrange(key, min=low, max=high, count=most)


def _moved(client: Any, error: Exception) -> bool:
    """Whether the one to ask may be another now, which a new client finds out.

    The library sees that for itself where an error is the whole answer, not in a transaction's.
    """
    return hasattr(client, "get_node_from_key") or "read only replica" in str(error)


def _grouped(puts: list[_Put]) -> Iterator[list[_Put]]:
    """Yield puts in groups that hold up Redis for some milliseconds, and no longer."""
    group: list[_Put] = []
    size = 0
    for put in puts:
        if group and size + put.size > _TOGETHER:
            yield group
            group, size = [], 0
        group.append(put)
        size += put.size
    yield group


def _answered(answer: int | OutboxUnavailable) -> Future[int]:
    future: Future[int] = Future()
    if isinstance(answer, int):
        future.set_result(answer)
    else:
        future.set_exception(answer)
    return future


def _consumer() -> str:
    """Return this process's name in the group. A machine's name is often its owner's, too."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _key(name: str) -> str:
    return f"{TAG}:{name}"


def _person(properties: bytes) -> list[tuple[str, str]]:
    """Return what a `$identify` says of the person, as names and encoded values."""
    said = msgspec.json.decode(properties, type=_Identify).person
    return [(name, bytes(value).decode()) for name, value in said.items() if _NAME.fullmatch(name)]


class _Identify(msgspec.Struct):
    """The part of a `$identify`'s properties that tells of the person."""

    person: dict[str, msgspec.Raw] = msgspec.field(name="$set", default_factory=dict)


#: A name that can stand in front of its digest.
_NAME: Final = re.compile(r"[^=;]+")


def _packed(payload: Payload) -> tuple[bytes, bytes]:
    """Return a payload's identity, and the payload: the identity's length, itself, and the rest."""
    identity = f"{_mended(payload.distinct_id)}\n{_mended(payload.uuid)}".encode()
    rest = _encode(
        (
            _mended(payload.event),
            _mended(payload.timestamp),
            payload.properties,
            payload.options,
        )
    )
    return identity, b"%d:%b%b" % (len(identity), identity, rest)


def _payload(packed: bytes) -> Payload:
    length, _, rest = packed.partition(b":")
    identity, packed_rest = rest[: int(length)].decode(), rest[int(length) :]
    distinct_id, _, own = identity.rpartition("\n")
    event, timestamp, properties, options = _decode(packed_rest)
    return Payload(event, own, distinct_id, timestamp, properties, options)


def _mended(text: str) -> str:
    """Return the text, with unpaired surrogates, which have no bytes, as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
_KINDS: Final = ("", "sentinel", "cluster")


def place_of(url: str, setting: str) -> Place:
    """Return the server of a URL: `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`.

    Behind the path may stand our own options and the client library's, such as
    `ssl_ca_certs=/path`.

    Raises:
        ConfigurationError: the URL can't be used; its password is not shown.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{setting} is no URL: {error}") from None
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    options: dict[str, str] = {name: given.pop(name) for name in _OPTIONS if name in given}
    scheme, _, kind = parts.scheme.partition("+")
    bare = urlunsplit(parts._replace(query=urlencode(given)))
    plain = bare.replace(f"{parts.scheme}://", f"{scheme}://", 1)

    def connect(timeout: float = _TIMEOUT, connect_timeout: float = _CONNECT_TIMEOUT) -> Any:
        common: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": connect_timeout,
            # A kept connection may be one that a restarted server has forgotten: once more, at
            # once. A server that is slow is not asked twice: somebody waits.
            "retry": Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        }
        if kind == "sentinel":
            return _by_sentinel(parts, scheme, common)
        if kind == "cluster":
            return redis.RedisCluster.from_url(plain, **common)
        return redis.Redis.from_url(plain, **common)

    try:
        if kind not in _KINDS:
            raise _Unfit("its scheme may end in +sentinel or +cluster")
        if "decode_responses" in given:
            raise _Unfit("decode_responses is not for a store of bytes")
        if kind == "sentinel":
            _sentinels(parts, given)
        else:
            redis.ConnectionPool.from_url(plain).make_connection()
    except (_Unfit, TypeError) as error:
        raise ConfigurationError(f"{setting} is {masked(url)}, which is unfit: {error}") from None
    except (ValueError, RedisError):
        # Their words may quote a part of the password.
        raise ConfigurationError(
            f"{setting} is {masked(url)}, which is no Redis's URL: it must be like "
            "redis://user:password@host:6379/0, with what is special in a password %-escaped."
        ) from None
    return Place(connect, options)


class _Unfit(ValueError):
    """What a URL asks for is not to be had; the words are ours, and quote no secret."""


def _sentinels(
    parts: SplitResult, given: Mapping[str, str]
) -> tuple[list[tuple[str, int]], str, int]:
    """Return sentinels, the service and the database of `host:port,host:port/service/db`."""
    if given:
        raise _Unfit(f"nothing is known of {', '.join(given)} where sentinels are asked")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise _Unfit("name the service, as in redis+sentinel://host:26379/mymaster/0")
    pairs = [host.rpartition(":") for host in hosts]
    return [(h or p, int(p) if h else 26379) for h, _, p in pairs], service, int(database or 0)


def _by_sentinel(parts: SplitResult, scheme: str, common: dict[str, Any]) -> Any:
    from redis import sentinel

    sentinels, service, database = _sentinels(parts, {})
    login = {"username": _unquoted(parts.username), "password": _unquoted(parts.password)}
    made: Any = sentinel.Sentinel
    asked = made(sentinels, sentinel_kwargs=common, **common)
    return asked.master_for(service, db=database, ssl=scheme == "rediss", **login)


def _unquoted(word: str | None) -> str | None:
    return unquote(word) if word else None


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
