"""Who asks too often waits; who does not is not slowed by it; and counting costs bounded memory."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import pytest

from second_mw import AnalyticsUser, ConfigurationError
from second_mw.limits import MAX_KEYS, Rates, Windows, shared_store
from second_mw.origin import network_of
from second_mw.tally import Tally
from tests.abuse.drive import CAPTURE, IDENTIFY, JSON, PREFERENCES, Told, event

POST = Told()
BOB = AnalyticsUser("u_bob_the_other_user")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_over_the_rate_is_429_with_when_to_try_again(ask, make) -> None:
    analytics = make(rate="3/minute")
    replies = [ask(analytics, POST) for _ in range(5)]
    assert [reply.status for reply in replies] == [204, 204, 204, 429, 429]
    assert replies[3].code == "rate_limited"
    assert 1 <= int(replies[3].headers["retry-after"]) <= 60
    stats = analytics.stats()
    assert (stats["accepted"], stats["rejected"]) == (3, {"rate_limited": 2})


def test_one_user_at_the_limit_slows_no_other(ask, make) -> None:
    analytics = make(rate="1/hour")
    for _ in range(3):
        ask(analytics, POST)
    assert ask(analytics, POST).status == 429
    assert ask(analytics, POST, lambda _: BOB).status == 204


def test_who_is_not_signed_in_is_counted_by_address(ask, make) -> None:
    analytics = make(rate="2/hour")

    def nobody(_: Any) -> None: ...

    assert [ask(analytics, POST, nobody).status for _ in range(3)] == [401, 401, 429]
    assert ask(analytics, replace(POST, peer="192.0.2.8"), nobody).status == 401
    # And a user at the same address is not.
    assert ask(analytics, POST).status == 204


@pytest.mark.parametrize(
    ("trusted", "forwarded", "statuses"),
    [
        (0, ["198.51.100.1", "198.51.100.2"], [401, 429]),  # whatever is claimed: the peer counts
        (1, ["198.51.100.1", "198.51.100.2"], [401, 401]),
        (1, ["198.51.100.1, 203.0.113.9", "198.51.100.2, 203.0.113.9"], [401, 429]),
        (2, ["198.51.100.1, 203.0.113.9", "198.51.100.2, 203.0.113.9"], [401, 401]),
        (1, ["nonsense", "nonsense"], [401, 401]),  # no address: nobody to count
    ],
)
def test_an_address_is_believed_as_far_as_the_proxies_are(
    trusted: int, forwarded: list[str], statuses: list[int], ask, make
) -> None:
    analytics = make(rate="1/hour", trusted_proxies=trusted)
    found = [ask(analytics, POST.but(x_forwarded_for=f), lambda _: None).status for f in forwarded]
    assert found == statuses


def test_without_an_address_nobody_is_counted(ask, make) -> None:
    """A server on a Unix socket sees none; all visitors as one would be unfair."""
    analytics = make(rate="1/hour")
    told = replace(POST, peer=None)
    assert [ask(analytics, told, lambda _: None).status for _ in range(3)] == [401] * 3


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:443", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
        ("1.2.3.4.5", None),
    ],
)
def test_a_household_of_ipv6_is_one_address(address: str, network: str | None) -> None:
    assert network_of(address) == network


def test_choosing_has_a_rate_of_its_own(ask, make) -> None:
    """Who posted too many events can still stop sharing."""
    analytics = make(rate="1/hour")
    stop = Told("PUT", PREFERENCES, JSON, (b'{"sharing":false}',))
    identify = Told("POST", IDENTIFY, JSON, (b"{}",))
    assert [ask(analytics, told).status for told in (POST, POST, identify)] == [204, 429, 429]
    assert [ask(analytics, stop).status for _ in range(2)] == [200, 429]


def test_a_rate_comes_after_onboarding_and_before_the_body(ask, make) -> None:
    analytics = make(rate="1/hour")
    ask(analytics, POST)
    fresh = replace(BOB, onboarded=False)
    assert ask(analytics, POST, lambda _: fresh).status == 403
    choice = Told("PUT", PREFERENCES, JSON, (b'{"sharing":false}',))
    assert [ask(analytics, choice, lambda _: fresh).status for _ in range(2)] == [403, 403]
    assert ask(analytics, replace(POST, parts=(b" " * 300_000,))).status == 429


def test_a_refused_request_counts_and_a_disabled_endpoint_counts_nothing(ask, make) -> None:
    analytics = make(rate="2/hour")
    broken = replace(POST, parts=(b"{",))
    assert [ask(analytics, broken).status for _ in range(3)] == [400, 400, 429]
    off = make(token=None, rate="1/hour")
    assert [ask(off, POST).status for _ in range(3)] == [204] * 3
    assert [ask(off, POST, lambda _: None).status for _ in range(3)] == [401] * 3


def test_without_a_rate_nobody_waits(ask, make) -> None:
    analytics = make(rate=None)
    assert {ask(analytics, POST).status for _ in range(20)} == {204}
    assert Rates(None, None, Tally()).wait("x") is None


def test_the_default_rate_is_600_a_minute(ask, make) -> None:
    analytics = make()
    statuses = [ask(analytics, POST).status for _ in range(601)]
    assert statuses == [204] * 600 + [429]


def test_a_window_moves() -> None:
    clock = Clock()
    rates = Rates("2/minute", None, Tally(), clock=clock)
    assert [rates.wait("a"), rates.wait("a"), rates.wait("a")] == [None, None, 60.0]
    clock.now += 45
    assert rates.wait("a") == 15.0
    clock.now += 15.5
    assert [rates.wait("a"), rates.wait("a"), rates.wait("a")] == [None, None, 60.0]


def held(windows: Windows) -> int:
    """Return the bytes that the windows, their keys and what holds them take."""
    own = sys.getsizeof(windows._windows)
    return own + sum(map(sys.getsizeof, (*windows._windows, *windows._windows.values())))


@pytest.mark.timeout(600)
def test_a_million_users_are_counted_in_bounded_memory_and_one_at_the_limit_slows_none() -> None:
    clock = Clock()
    windows = Windows(clock=clock)
    rates = Rates("3/minute", None, Tally(), windows=windows, clock=clock)
    key = f"events:{'0' * 32}:%d"  # about as long as those of real users
    assert [rates.wait("eager") for _ in range(3)] == [None] * 3
    waited = 0
    for i in range(1_000_000):
        clock.now += 0.0001
        assert windows.acquire_entry(key % i, 3, 60)
        if i % 10_000 == 0:
            # Who is at the limit goes on asking, and waits for as long as it has to.
            waited += rates.wait("eager") is not None
            assert len(windows) <= MAX_KEYS
            assert held(windows) < 10_000_000
    assert len(windows) == MAX_KEYS
    # 100 seconds have passed: after 60 of them it may ask three times again.
    assert waited == 97


def test_busy_users_are_counted_in_bounded_memory() -> None:
    windows = Windows(max_keys=1000, max_hits=5000)
    for i in range(20_000):
        assert windows.acquire_entry(f"user {i}", 600, 60)
    assert len(windows) == 1000
    for i in range(100):
        for _ in range(200):
            windows.acquire_entry(f"busy {i}", 600, 60)
    assert sum(windows.get(f"busy {i}") for i in range(100)) <= 5000


def test_who_is_at_the_limit_is_not_forgotten_for_others() -> None:
    """Asking again keeps a user in mind: a crowd can't wash out its own limit."""
    windows = Windows(max_keys=100)
    assert windows.acquire_entry("eager", 1, 60)
    for i in range(1000):
        windows.acquire_entry(f"user {i}", 1, 60)
        if i % 50 == 0:
            assert not windows.acquire_entry("eager", 1, 60)


def test_idle_users_are_forgotten_in_passing() -> None:
    clock = Clock()
    windows = Windows(clock=clock)
    for i in range(500):
        windows.acquire_entry(f"user {i}", 5, 60)
    clock.now += 61
    windows.acquire_entry("the next", 5, 60)
    assert len(windows) == 1


def test_windows_can_be_looked_at_and_cleared() -> None:
    windows = Windows()
    assert windows.check()
    windows.acquire_entry("a", 5, 60, amount=3)
    assert windows.get_moving_window("a", 5, 60)[1] == 3
    assert not windows.acquire_entry("a", 5, 60, amount=3)
    windows.clear("a")
    assert windows.get("a") == 0
    windows.acquire_entry("a", 5, 60)
    windows.reset()
    assert len(windows) == 0
    for unused in (lambda: windows.incr("a", 1), lambda: windows.get_expiry("a")):
        with pytest.raises(NotImplementedError):
            unused()


# A shared store


@pytest.mark.parametrize(
    ("outbox", "url"),
    [
        ("memory://", None),
        ("sqlite:///x.db", None),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("rediss://:pw@h/1?max=5", "rediss://:pw@h/1"),
        (object(), None),
    ],
)
def test_limits_are_shared_where_the_outbox_is_redis(outbox: object, url: str | None) -> None:
    assert shared_store(outbox) == url


def test_a_shared_store_that_is_gone_costs_nobody_an_event(caplog) -> None:
    tally, clock = Tally(), Clock()
    rates = Rates("2/minute", "redis://user:hush@127.0.0.1:1/0", tally, clock=clock)
    assert rates.blocking
    assert [rates.wait("a") for _ in range(2)] == [None, None]
    assert rates.wait("a") == 60.0  # this process counts meanwhile
    # It is left alone for a while after a failure, so that requests do not wait for it.
    assert tally.counts() == {"rate_store_failed": 1}
    clock.now += 6
    rates.wait("a")
    assert tally.counts() == {"rate_store_failed": 2}
    assert len(caplog.records) == 1
    assert "hush" not in caplog.text


def test_rates_that_fail_let_everybody_ask(ask, make, monkeypatch) -> None:
    class Broken:
        blocking = False

        def wait(self, key: str) -> float | None:
            raise RuntimeError("broken")

    analytics = make()
    monkeypatch.setattr(type(analytics), "rates", Broken())
    assert ask(analytics, POST).status == 204
    assert analytics.stats()["rate_failed"] == 1


def test_a_store_that_does_io_is_asked_off_the_event_loop(make, monkeypatch) -> None:
    import threading

    from tests.abuse.drive import by_asgi

    threads: list[str] = []

    class Shared:
        blocking = True

        def wait(self, key: str) -> float | None:
            threads.append(threading.current_thread().name)
            assert ":" in key
            return 9.0

    analytics = make()
    monkeypatch.setattr(type(analytics), "rates", Shared())
    reply = by_asgi(analytics, POST)
    assert (reply.status, reply.headers["retry-after"]) == (429, "9")
    assert threads[0].startswith("second_mw-store")


def test_keys_name_nobody(ask, make, monkeypatch) -> None:
    keys: list[str] = []

    class Listening:
        blocking = False

        def wait(self, key: str) -> float | None:
            keys.append(key)
            return None

    analytics = make()
    monkeypatch.setattr(type(analytics), "rates", Listening())
    ask(analytics, replace(POST, path=CAPTURE, parts=event()))
    ask(analytics, POST, lambda _: None)
    assert [key.partition(":")[0] for key in keys] == ["events", "address"]
    assert "192.0.2.7" not in str(keys)
    assert "65f0c0ffee" not in str(keys)


@pytest.mark.parametrize("rate", ["0/minute", "5/0minutes", "5", "minute", "5/fortnight", "-1/day"])
def test_a_rate_that_is_none_is_refused_at_start_up(rate: str, make) -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        make(rate=rate)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A redis-server of the test's own."""
    import shutil
    import socket
    import subprocess

    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [server, "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(
        command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@pytest.mark.redis
def test_two_processes_count_together_in_redis(redis_url: str, monkeypatch) -> None:
    monkeypatch.setattr("second_mw.limits._STORE_TIMEOUT", 30.0)
    tally = Tally()
    one, other = (Rates("3/minute", redis_url, tally) for _ in range(2))
    assert [one.wait("a"), other.wait("a"), one.wait("a")] == [None, None, None]
    wait = other.wait("a")
    assert wait is not None
    assert 0 < wait <= 60
    assert other.wait("b") is None
    assert tally.counts() == {}
