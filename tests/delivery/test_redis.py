"""The Redis outbox before a real server that is killed, full, read-only, not fit, or not there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis

from second_mw import Analytics, AnalyticsUser, Choice, ConfigurationError
from second_mw.cli import main
from second_mw.errors import OutboxUnavailable
from second_mw.limits import shared_store
from second_mw.outbox import redis as outbox
from second_mw.outbox.redis import RedisStore, from_url, place_of
from tests.delivery.build import payload, payloads
from tests.delivery.redis_server import Server, free_port, patient, running
from tests.delivery.sink import Recorded, Reply, Sink
from tests.hosts import ADA, Wsgi
from tests.stores import Moment

BIG = 10**9
pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that no test harms."""
    with running(tmp_path_factory.mktemp("redis"), rdbcompression="no") as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    shared.flush()
    return shared


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, to be killed."""
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def opened() -> Iterator[Callable[..., RedisStore]]:
    """Opens stores, whose accounts are looked at when the test ends, and closes them."""
    with ExitStack() as stack:

        def opened(url: str, *, patiently: bool = True) -> RedisStore:
            store = from_url(patient(url) if patiently else url)
            stack.callback(store.close)
            stack.callback(assert_accounts_hold, store)
            return store

        yield opened


def assert_accounts_hold(store: RedisStore) -> None:
    counts = store.counts()
    assert counts.waiting == len(list(store.peek(BIG)))
    assert counts.accepted == counts.delivered + counts.dead + counts.waiting + counts.purged


def until(condition: Callable[[], bool], timeout: float = 100.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "not so in time"
        time.sleep(0.05)


def takes(store: RedisStore, number: int, **fields: Any) -> bool:
    """Whether the store takes the event of this number, or has it."""
    try:
        store.put([payload(number, **fields)])
    except OutboxUnavailable:
        return False
    return True


def keys(store: RedisStore, limit: int = 100, ttl: float = 60.0) -> list[str]:
    return [entry.key for entry in store.lease(limit, BIG, ttl)]


def why(call: Callable[[], object]) -> str:
    with pytest.raises(OutboxUnavailable) as caught:
        call()
    return caught.value.reason


# A server that dies


def test_what_was_accepted_outlives_the_server(mortal: Server, opened) -> None:
    store = opened(mortal.url)
    store.put(payloads(3))
    mortal.kill()
    assert why(lambda: store.put([payload(3)])) == "store_failed"
    assert why(lambda: store.lease(10, BIG, 60.0)) == "store_failed"
    assert why(store.counts) == "store_failed"
    assert store.check() != []
    mortal.start()
    assert [entry.payload for entry in store.lease(10, BIG, 60.0)] == payloads(3)
    assert store.put([payload(3)]) == 1


def test_a_lease_outlives_the_server_and_is_settled_after_it(mortal: Server, opened) -> None:
    store, other = opened(mortal.url), opened(mortal.url)
    store.put(payloads(4))
    held = keys(store, 3)
    mortal.kill()
    assert why(lambda: store.ack(held)) == "store_failed"
    mortal.start()
    assert len(keys(other)) == 1
    store.ack(held[:1])
    store.release(held[1:2], 0.0)
    store.bury({held[2]: "refused: 400"})
    assert store.counts()[:6] == (4, 1, 1, 2, 0, 1)
    assert [entry.rounds for entry in other.lease(10, BIG, 60.0)] == [1]


def test_a_server_that_dies_while_posthog_is_answered_costs_no_event(
    mortal: Server, sink: Sink, monkeypatch: pytest.MonkeyPatch, opened
) -> None:
    monkeypatch.setattr("second_mw.forwarder.dispatcher._SHORTEST_LEASE", 1.0)
    killed = threading.Event()

    def answer(request: Recorded) -> Reply:
        if not killed.is_set():
            mortal.kill()
            killed.set()
        return Reply(200, b'{"status":1}')

    sink.answer = answer
    analytics = Analytics(
        token="phc_x", host=sink.url, outbox=patient(mortal.url), flush_interval=0.1, gzip=False,
        connect_timeout=0.1, read_timeout=0.1, shutdown_timeout=1.0,
    )  # fmt: skip
    with closing(analytics):
        assert analytics.capture(ADA, "page viewed")
        assert killed.wait(60)
        refused = analytics.capture(ADA, "page viewed")
        assert (bool(refused), refused.code) == (False, "outbox_unavailable")
        mortal.start()
        until(lambda: bool(analytics.capture(ADA, "page viewed")))
        store = opened(mortal.url)
        # The first is sent once more when its lease has run out: that it was settled is not known.
        until(lambda: store.counts().waiting == 0)
        assert store.counts()[:4] == (2, 2, 0, 0)
    sent = {event["uuid"] for request in sink.requests for event in request.batch}
    assert len(sent) == 2


def test_a_host_starts_before_its_redis_and_delivers_by_itself(tmp_path: Path, sink: Sink) -> None:
    server = Server(tmp_path)
    analytics = Analytics(
        token="phc_x", host=sink.url, outbox=patient(server.url), flush_interval=0.1, gzip=False
    )
    ask = Wsgi(analytics, lambda _: ADA)
    event = b'{"event":"page viewed"}'

    def posts() -> int:
        return ask("POST", "/api/analytics/capture", event, content_type="application/json").status

    assert posts() == 503
    server.start()
    try:
        until(lambda: posts() == 204)
        until(lambda: analytics.stats()["delivered"] == 1)
        analytics.close(0.5)
    finally:
        server.kill()


def test_a_server_that_hangs_is_given_up_and_puts_that_queue_are_answered(
    mortal: Server, monkeypatch: pytest.MonkeyPatch, opened
) -> None:
    store = opened(mortal.url, patiently=False)
    store.put([payload(0)])
    monkeypatch.setattr(outbox, "_QUEUED_FOR", 0.0)
    with mortal.hanging():
        first = store.submit([payload(1)])
        until(lambda: first.running() or first.done())
        later = [store.submit([payload(n)]) for n in range(2, 20)]
        refused = [future.exception(timeout=100) for future in (first, *later)]
    assert {type(each) for each in refused} == {OutboxUnavailable}
    monkeypatch.setattr(outbox, "_QUEUED_FOR", 100.0)
    until(lambda: takes(store, 30))
    # What timed out may have been taken; what only queued was not.
    waiting = {entry.payload.uuid for entry in store.peek(BIG)}
    assert not waiting & {payload(n).uuid for n in range(2, 20)}


def test_the_queue_before_a_server_that_hangs_is_bounded(
    mortal: Server, monkeypatch: pytest.MonkeyPatch, opened
) -> None:
    monkeypatch.setattr(outbox, "_QUEUED_BYTES", 3 * payload(0).size)
    store = opened(mortal.url, patiently=False)
    with mortal.hanging():
        puts = [store.submit([payload(n)]) for n in range(9)]
        assert sum(each.done() for each in puts) >= 6
        assert {type(each.exception(timeout=100)) for each in puts} == {OutboxUnavailable}
    until(lambda: takes(store, 30))
    assert store._queued == 0
    assert store.put([payload(31, properties=b"x" * 4 * payload(0).size)]) == 1


# A server that can't take it


def test_a_read_only_replica_takes_nothing_until_it_is_promoted(
    mortal: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    origin = f"127.0.0.1 {mortal.port}"
    with (
        running(tmp_path_factory.mktemp("replica"), replicaof=origin) as replica,
        closing(from_url(patient(replica.url))) as store,
        replica.client() as client,
    ):
        assert why(lambda: store.put([payload(0)])) == "store_failed"
        client.replicaof("NO", "ONE")
        assert store.put([payload(0)]) == 1
        assert_accounts_hold(store)


def test_a_server_without_memory_refuses_puts_and_is_drained_all_the_same(
    tmp_path: Path, opened
) -> None:
    with running(tmp_path, maxmemory="4mb") as server:
        store = from_url(patient(server.url))
        large = b'{"x":"%s"}' % (b"x" * 20_000)
        taken = 0
        while takes(store, taken, properties=large):
            taken += 1
        assert taken > 10
        assert why(lambda: store.put([payload(taken, properties=large)])) == "full"
        held = keys(store, 6)
        store.renew(held, 60.0)
        store.release(held[:2], 30.0)
        store.bury({held[2]: "refused: 400"})
        assert store.counts()[:6] == (taken, 0, 1, taken - 1, 0, taken - 6)
        store.ack(keys(store, BIG))
        assert store.put([payload(2000)]) == 1
        assert_accounts_hold(store)
        store.close()


# What a server must be


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"appendonly": "no"}, "set appendonly yes"),
        ({"maxmemory-policy": "allkeys-lru"}, "set maxmemory-policy noeviction"),
    ],
)
def test_a_server_that_may_lose_what_it_took_is_refused_and_told_why(
    settings: dict[str, str], words: str, tmp_path: Path
) -> None:
    with running(tmp_path, **settings) as server:
        with pytest.raises(ConfigurationError, match=f"^X: .*{words}.*durability=best-effort"):
            from_url(server.url, "X")
        with closing(from_url(patient(f"{server.url}?durability=best-effort"))) as store:
            assert store.put([payload(0)]) == 1
            assert [words in sentence for sentence in store.check()] == [True]


def test_a_server_that_comes_late_is_asked_then_what_it_is_set_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(tmp_path, appendonly="no")
    with closing(from_url(patient(server.url))) as store:
        assert why(lambda: store.put([payload(0)])) == "store_failed"
        store._logged_at = float("-inf")
        server.start()
        try:
            assert why(lambda: store.put([payload(0)])) == "store_failed"
            assert "set appendonly yes" in caplog.text
            with server.client() as client:
                client.config_set("appendonly", "yes")
            assert store.put([payload(0)]) == 1
        finally:
            store.close()
            server.kill()


def test_a_wrong_password_is_refused_at_start_up_and_not_shown(tmp_path: Path) -> None:
    with running(tmp_path, requirepass="right") as server:
        wrong = server.url.replace("//", "//:averysecretkey@")
        with pytest.raises(ConfigurationError, match="user and password") as caught:
            from_url(wrong)
        assert "averysecretkey" not in str(caught.value)
        with closing(from_url(patient(server.url.replace("//", "//:right@")))) as store:
            assert store.put([payload(0)]) == 1


class Told:
    """A client that tells of its server what a test says."""

    def __init__(self, server: Server, info: dict[str, str], hides: bool = False) -> None:
        self._client = server.client()
        self._info = info
        self._hides = hides

    def info(self, section: str) -> dict[str, str]:
        return self._info

    def config_get(self, name: str) -> dict[str, str]:
        if self._hides:
            raise redis.ResponseError("unknown command 'CONFIG'")
        return {name: {"appendonly": "yes"}.get(name, "noeviction")}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("version", ["6.0.16", "5.0", "2.8.9"])
def test_a_server_that_is_too_old_is_refused(version: str, server: Server) -> None:
    told = Told(server, {"redis_version": version})
    with pytest.raises(ConfigurationError, match=rf"Redis {version} is too old.*6\.2"):
        RedisStore(lambda: told)
    told.close()


def test_a_server_that_became_too_old_is_told_of(server: Server) -> None:
    told = Told(server, {"redis_version": "6.2.0"})
    with closing(RedisStore(lambda: told)) as store:
        told._info["redis_version"] = "6.0.16"
        assert "too old" in store.check()[0]


def test_a_managed_server_that_hides_its_settings_is_taken(server: Server) -> None:
    with closing(RedisStore(lambda: Told(server, {"redis_version": "7.4"}, hides=True))) as store:
        assert store.put([payload(0)]) == 1
        assert store.check() == []


def test_an_operator_hears_when_it_gets_tight(server: Server, opened) -> None:
    store = opened(f"{server.url}?max=10")
    store.put(payloads(8))
    assert "8 of at most 10 events wait" in store.check()[0]


# Replicas


def test_a_put_that_no_replica_has_is_refused_until_one_has_it(
    mortal: Server, tmp_path_factory: pytest.TempPathFactory, opened
) -> None:
    store = opened(f"{mortal.url}?wait=1")
    assert why(lambda: store.put([payload(0)])) == "store_failed"
    origin = f"127.0.0.1 {mortal.port}"
    with running(tmp_path_factory.mktemp("replica"), replicaof=origin) as replica:
        until(lambda: takes(store, 0))
        assert store.put([payload(1)]) == 1
        assert store.counts()[:4] == (2, 0, 0, 2)
        with replica.client() as client:
            assert client.hlen("{second_mw}:payloads") == 2


# Many


def test_two_stores_lease_nothing_twice(server: Server, opened) -> None:
    stores = [opened(server.url) for _ in range(2)]
    stores[0].put(payloads(400))
    found: list[list[str]] = [[], []]

    def drain(number: int) -> None:
        while got := keys(stores[number], 7):
            found[number].extend(got)

    threads = [threading.Thread(target=drain, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found[0]) + len(found[1]) == len({*found[0], *found[1]}) == 400


@pytest.mark.parametrize("together", [1, 3 * payload(0).size, 10**6])
def test_puts_that_gathered_are_each_kept_whole_or_refused(
    together: int, mortal: Server, monkeypatch: pytest.MonkeyPatch, opened
) -> None:
    monkeypatch.setattr(outbox, "_TOGETHER", together)
    store = opened(f"{mortal.url}?max=30")
    with mortal.hanging():
        puts = [store.submit(payloads(4, start=4 * n)) for n in range(10)]
    kept = [not each.exception(timeout=100) and each.result() == 4 for each in puts]
    assert kept == [True] * 7 + [False] * 3
    assert [entry.payload for entry in store.peek(40)] == payloads(28)


def test_a_transaction_that_is_refused_is_a_refusal_for_all_in_it(server: Server, opened) -> None:
    with server.client() as client:
        client.acl_setuser(
            "no_exec", enabled=True, nopass=True, keys=["*"], categories=["+@all"],
            commands=["-exec"],
        )  # fmt: skip
    store = opened(server.url.replace("//", "//no_exec:any@"))
    puts = [store.submit([payload(n)]) for n in range(5)]
    assert {type(each.exception(timeout=100)) for each in puts} == {OutboxUnavailable}
    assert store.counts().accepted == 0


def test_all_that_is_kept_lies_under_one_hash_tag(server: Server) -> None:
    with closing(
        Analytics(token="phc_x", host="http://127.0.0.1:9", outbox=patient(server.url))
    ) as here:
        ask = Wsgi(here, lambda _: ADA)
        use(ask)
        here.outbox.store.bury({keys(here.outbox.store, 1)[0]: "refused"})
        with server.client() as client:
            names = set(client.scan_iter())
        assert len(names) > 6
        assert {name.partition(b":")[0] for name in names} == {b"{second_mw}"}
        here.close(0.1)


# Whom PostHog was told of


KNOWN = AnalyticsUser("u_4711", email="ada@analytical.example", name="Ada", anonymized=False)


@pytest.fixture
def hosts(server: Server) -> Iterator[Callable[[], Analytics]]:
    made: list[Analytics] = []

    def host() -> Analytics:
        made.append(
            Analytics(
                token="phc_x", host="http://127.0.0.1:9", outbox=patient(server.url), forward=False
            )
        )
        return made[-1]

    yield host
    for each in made:
        each.close(0.1)


def events(analytics: Analytics) -> list[str]:
    return [entry.payload.event for entry in analytics.outbox.store.peek(BIG)]


def test_posthog_is_told_of_a_person_once_by_all_hosts_together(hosts, server: Server) -> None:
    one, other = hosts(), hosts()
    assert one.capture(KNOWN, "page viewed")
    assert other.capture(KNOWN, "page viewed")
    assert events(one) == ["$identify", "page viewed", "page viewed"]
    with server.client() as client:
        (remembered,) = client.scan_iter("*identified*")
        assert 0 < client.ttl(remembered) <= 1800
        told = client.hgetall(remembered)
    raw = repr((remembered, told))
    assert set(told) == {b"user_id", b"email", b"name"}
    assert not any(word in raw for word in ("u_4711", "analytical", "Ada"))


def test_a_change_of_the_person_is_told_and_less_is_none(hosts) -> None:
    one, other, third = hosts(), hosts(), hosts()
    in_workspace = AnalyticsUser(
        KNOWN.id, email=KNOWN.email, name="Ada", anonymized=False, workspaces={"w_1": "admin"}
    )
    one.capture(in_workspace, "page viewed")
    other.capture(KNOWN, "page viewed")
    assert events(one).count("$identify") == 1
    renamed = AnalyticsUser(KNOWN.id, email=KNOWN.email, name="Ada L.", anonymized=False)
    third.capture(renamed, "page viewed")
    assert events(one).count("$identify") == 2


def test_erasing_a_person_forgets_that_posthog_was_told(
    hosts, server: Server, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    hosts().capture(KNOWN, "page viewed")
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", "phc_x")
    assert main(["erase", "--user", KNOWN.id, "--outbox", patient(server.url)]) == 0
    assert "2 events erased" in capsys.readouterr().out
    with server.client() as client:
        assert list(client.scan_iter("*identified*")) == []
    again = hosts()
    again.capture(KNOWN, "page viewed")
    assert events(again) == ["$identify", "page viewed"]


# At rest


def use(ask: Wsgi) -> None:
    """Post as a browser that sends more than it should, and choose."""
    said = {
        "error": f"of {ADA.name} in w_engine",
        "user_email": ADA.email,
        "page_url": f"https://x.example/w_engine/{ADA.id}",
    }
    body = json.dumps({"event": "build failed", "properties": said}).encode()
    for _ in range(2):
        reply = ask("POST", "/api/analytics/capture", body, content_type="application/json")
        assert reply.status == 204
    reply = ask(
        "PUT", "/api/analytics/preferences", b'{"sharing":true}', content_type="application/json"
    )
    assert reply.status == 200


def raw(server: Server) -> bytes:
    """Return every key and value that the server has, and its files."""
    with server.client() as client:
        # Awaited, because a file that is being rewritten is there twice.
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        until(lambda: not client.info("persistence")["aof_rewrite_scheduled"])
        kept = [part for key in client.scan_iter() for part in (key, client.dump(key))]
    files = [each.read_bytes() for each in server.folder.rglob("*aof*") if each.is_file()]
    assert files
    return b"".join(filter(None, (*kept, *files)))


WORDS = [ADA.id, ADA.email, ADA.name, "lovelace", "analytical", "w_engine", "w_looms"]


def test_nothing_in_redis_identifies_an_anonymized_user(tmp_path: Path) -> None:
    with (
        running(tmp_path, rdbcompression="no") as server,
        closing(
            Analytics(token="phc_x", host="http://127.0.0.1:9", outbox=patient(server.url))
        ) as here,
    ):
        use(Wsgi(here, lambda _: ADA))
        here.outbox.store.bury({keys(here.outbox.store, 1)[0]: "refused"})
        kept = raw(server).lower()
        assert b"build failed" in kept
        assert here.pipeline.user_key(ADA.id)[:32].encode() in kept
        assert [word for word in WORDS if word and word.lower().encode() in kept] == []
        here.close(0.1)


def test_what_was_erased_can_be_read_nowhere(tmp_path: Path) -> None:
    with (
        running(tmp_path, rdbcompression="no") as server,
        closing(from_url(patient(server.url))) as store,
    ):
        people = [payload(n, distinct_id=("ada", "bob")[n % 2] + "-4711") for n in range(8)]
        store.put(people)
        store.bury(dict.fromkeys(keys(store, 4), "refused"))
        keys(store, 1)
        assert b"ada-4711" in raw(server)
        assert store.erase(["ada-4711"]) == 4
        kept = raw(server)
        assert b"ada-4711" not in kept
        assert not any(each.uuid.encode() in kept for each in people[::2])
        assert all(each.uuid.encode() in kept for each in people[1::2])
        assert len(store.export(["bob-4711"])) == 4
        assert_accounts_hold(store)


def test_an_operator_hears_that_the_file_still_has_what_was_erased(
    server: Server, opened, caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        client.acl_setuser(
            "app", enabled=True, nopass=True, keys=["*"], categories=["+@all"],
            commands=["-bgrewriteaof"],
        )  # fmt: skip
    store = opened(server.url.replace("//", "//app:any@"))
    store.put([payload(0)])
    assert store.erase(["anon_1"]) == 1
    assert "run BGREWRITEAOF" in caplog.text


def test_erasing_asks_again_for_a_rewrite_that_came_too_early(
    server: Server, opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(server.url)
    store.put(payloads(2))
    answers = [redis.ResponseError("Background append only file rewriting already in progress")]
    asked = []

    def rewrite(client: redis.Redis) -> bool:
        asked.append(client)
        if answers:
            raise answers.pop()
        return True

    monkeypatch.setattr(redis.Redis, "bgrewriteaof", rewrite)
    assert store.erase(["anon_1"]) == 2
    assert len(asked) == 2
    answers.append(redis.ConnectionError())
    store.put(payloads(1))
    assert store.erase(["anon_1"]) == 1
    assert "run BGREWRITEAOF" in caplog.text


# Tidying


def test_dead_letters_go_when_they_are_old_whoever_looks(server: Server, opened) -> None:
    young, old = opened(server.url), opened(server.url)
    young.put(payloads(3))
    young.bury(dict.fromkeys(keys(young), "refused"))
    old._keep_dead = 0.001
    until(lambda: old.dead_letters(10) == [])
    assert old.dead_reasons() == {}
    assert old.export(["anon_1"]) == []
    assert old.retry() == 0
    assert len(young.dead_letters(10)) == 3
    old._tidied_at = float("-inf")
    old.lease(1, BIG, 60.0)
    assert young.dead_letters(10) == []
    assert young.counts()[:4] == (3, 0, 3, 0)
    with server.client() as client:
        assert client.hlen("{second_mw}:letters") == 0


def test_too_many_dead_letters_go_oldest_first_and_loudly(
    server: Server, opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "MAX_DEAD_LETTERS", 2)
    monkeypatch.setattr(outbox, "_CHUNK", 2)
    store = opened(server.url)
    store.put(payloads(7))
    for key in keys(store):
        store.bury({key: "refused"})
    store._tidied_at = float("-inf")
    store._keep_up()
    left = [letter.payload for letter in store.dead_letters(10)]
    assert left == [payload(6), payload(5)]
    assert "dropped the 5 oldest dead letters" in caplog.text


def test_consumers_that_hold_nothing_are_forgotten(
    server: Server, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = opened(server.url), opened(server.url)
    one.put(payloads(2))
    gone = keys(one, 1)
    keys(other, 1)
    one.ack(gone)
    monkeypatch.setattr(outbox, "_AN_HOUR", 0.0)
    with server.client() as client:

        def names() -> set[str]:
            other._keep_up()
            found = client.xinfo_consumers("{second_mw}:events", "forwarders")
            return {each["name"].decode() for each in found}

        until(lambda: names() == {other._consumer})


def test_tidying_a_server_that_is_gone_waits_for_the_next_time(mortal: Server) -> None:
    with closing(from_url(patient(mortal.url))) as store:
        mortal.kill()
        store._keep_up()
        store._keep_up()


# What others do to our keys


def test_a_payload_that_somebody_deleted_holds_up_nobody(server: Server) -> None:
    with closing(from_url(patient(server.url))) as store, server.client() as client:
        store.put(payloads(4))
        first, second, third, _ = [entry.key for entry in store.peek(4)]
        store.release([keys(store, 1)[0]], 0.0)
        client.hdel("{second_mw}:payloads", first, second)
        assert store.peek(4)[0].key == third
        assert [entry.payload for entry in store.lease(10, BIG, 60.0)] == payloads(2, start=2)


def test_a_group_that_somebody_destroyed_is_made_again(server: Server, opened) -> None:
    store = opened(server.url)
    store.put(payloads(2))
    with server.client() as client:
        client.xgroup_destroy("{second_mw}:events", "forwarders")
    assert len(keys(store)) == 2


def test_a_hold_that_a_clock_left_in_the_far_future_ends(server: Server) -> None:
    def connect() -> Any:
        return server.client()

    ahead = RedisStore(connect, clock=lambda: time.time() + 40 * 86_400)
    with closing(ahead), closing(RedisStore(connect)) as store:
        store.put(payloads(2))
        keys(ahead, 1)
        assert len(keys(store)) == 2


def test_what_was_given_back_is_ready_whatever_the_clock_does(server: Server) -> None:
    moment = Moment()
    with closing(RedisStore(server.client, clock=moment)) as store:
        store.put(payloads(3))
        store.release(keys(store), 0.0)
        moment.passes(-5.0)
        assert (store.next_ready_in(), store.counts().ready) == (0.0, 3)
        assert [entry.payload for entry in store.lease(10, BIG, 60.0)] == payloads(3)


def test_unpaired_surrogates_are_mended(server: Server, opened) -> None:
    store = opened(server.url)
    assert store.put([payload(0, event="a\ud800", distinct_id="é\udfff")]) == 1
    (entry,) = store.lease(1, BIG, 60.0)
    assert (entry.payload.event, entry.payload.distinct_id) == ("a\ufffd", "é\ufffd")
    assert store.erase(["é\udfff"]) == 1


# The process's life


def test_a_store_knows_that_its_own_thread_is_inside_it(server: Server, opened) -> None:
    store = opened(server.url)
    assert not store.entered()
    assert store._do(lambda _: store.entered())
    assert not store.entered()


def test_a_store_without_a_thread_puts_in_the_callers(
    server: Server, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(server.url)

    def start(_: object) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert store.put([payload(0)]) == 1


def test_what_the_library_stumbles_over_is_a_refusal_and_ends_no_thread(
    server: Server, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(server.url)
    with monkeypatch.context() as patched:
        patched.setattr(store, "_ran", lambda puts: 1 / 0)
        assert why(lambda: store.put([payload(0)])) == "store_failed"
    assert store.put([payload(0)]) == 1


# URLs


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h:port/0", "no Redis's URL"),
        ("redis://:averysecretkey/x@h/0", "no Redis's URL"),
        ("redis://[::1", "no URL: Invalid IPv6 URL"),
        ("redis://h/0?nothing=1", "nothing"),
        ("redis://h/0?decode_responses=1", "decode_responses"),
        ("redis+other://h/0", r"\+sentinel or \+cluster"),
        ("redis+sentinel://h:26379", "name the service"),
        ("redis+sentinel://h:26379/mymaster?ssl_ca_certs=x", "nothing is known of ssl_ca_certs"),
        ("redis://h/0?max=0", "'0' behind the URL must be a whole number of 1 or more"),
        ("redis://h/0?wait=-1", "'-1' behind the URL"),
        ("redis://h/0?durability=none", "required or best-effort"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_and_named(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^X.*{words}") as caught:
        from_url(url, "X")
    assert "averysecretkey" not in str(caught.value)


def test_a_urls_options_are_ours_or_the_librarys() -> None:
    place = place_of("redis://:p%40ss@127.0.0.1:7/3?max=5&wait=1&health_check_interval=9", "X")
    assert place.options == {"max": "5", "wait": "1"}
    with closing(place.connect(0.5, 0.25)) as client:
        given = client.connection_pool.connection_kwargs
    assert (given["password"], given["db"], given["health_check_interval"]) == ("p@ss", 3, 9)
    assert (given["socket_timeout"], given["socket_connect_timeout"]) == (0.5, 0.25)
    assert place_of("rediss://h/0", "X").connect().connection_pool.connection_class is (
        redis.SSLConnection
    )


@pytest.mark.parametrize(
    ("outbox", "rates"),
    [
        ("rediss://h/1?max=5&ssl_ca_certs=x.pem", "rediss://h/1?ssl_ca_certs=x.pem"),
        ("redis+cluster://h:7000/0?wait=1", "redis+cluster://h:7000/0"),
        ("redis+sentinel://a:1,b:2/mine/3?max=5", "redis+sentinel://a:1,b:2/mine"),
    ],
)
def test_rates_are_counted_where_the_outbox_is(outbox: str, rates: str) -> None:
    assert shared_store(outbox) == rates


# Sentinel and cluster


def test_a_cluster_is_an_outbox_too(tmp_path: Path, opened) -> None:
    with running(tmp_path, cluster_enabled="yes") as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until(lambda: client.cluster("INFO")["cluster_state"] == "ok")
        store = from_url(patient(server.url.replace("redis:", "redis+cluster:")))
        with closing(store):
            store.put(payloads(3))
            held = keys(store, 2)
            server.kill()
            assert why(lambda: store.put([payload(3)])) == "store_failed"
            assert why(lambda: store.ack(held)) == "store_failed"
            server.start()
            until(lambda: takes(store, 3))
            store.ack(held)
            assert store.counts()[:4] == (4, 2, 0, 2)
            assert store.check() == []
            assert_accounts_hold(store)


def test_a_sentinel_is_followed_to_the_new_master(
    mortal: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folders = [tmp_path_factory.mktemp(name) for name in ("replica", "sentinel")]
    told = folders[1] / "sentinel.conf"
    told.write_text(
        f"sentinel monitor mine 127.0.0.1 {mortal.port} 1\n"
        "sentinel down-after-milliseconds mine 60000\n"
    )
    with (
        running(folders[0], replicaof=f"127.0.0.1 {mortal.port}") as replica,
        running(folders[1], first=(str(told), "--sentinel")) as sentinel,
        sentinel.client(decode_responses=True) as asked,
        closing(from_url(f"redis+sentinel://127.0.0.1:{sentinel.port}/mine/0?wait=1")) as store,
    ):
        until(lambda: takes(store, 0))
        until(lambda: len(asked.sentinel_slaves("mine")) == 1)
        until(lambda: asked.sentinel_slaves("mine")[0]["master-link-status"] == "ok")
        asked.execute_command("SENTINEL", "FAILOVER", "mine")
        until(lambda: asked.sentinel_master("mine")["port"] == replica.port)
        until(lambda: takes(store, 1))
        with replica.client() as client:
            assert client.role()[0] == b"master"
            assert client.hlen("{second_mw}:payloads") == 2
        assert_accounts_hold(store)


def test_a_sentinels_login_is_unescaped() -> None:
    place = place_of("rediss+sentinel://me:p%40ss@[::1]:1,b/mine/3", "X")
    with closing(place.connect()) as client:
        given = client.connection_pool.connection_kwargs
    assert (given["username"], given["password"], given["db"]) == ("me", "p@ss", 3)


def test_free_ports_are_none_that_the_system_connects_from() -> None:
    assert free_port() < 32_000


def test_choices_made_on_one_host_hold_on_the_other(hosts) -> None:
    one, other = hosts(), hosts()
    one.preferences.put(one.pipeline.user_key("u_1"), Choice(sharing=False))
    assert other.capture(AnalyticsUser("u_1"), "page viewed").code == "suppressed"
