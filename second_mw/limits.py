"""Rate limits: how often one user, or one address without a user, may ask (spec §4, 429).

The `limits` library judges, by a moving window: in this process's memory, or in Redis where the
outbox is Redis, so that all machines count together. It is imported with the first request that
is counted. A store that fails costs nobody an event: this process counts alone until the store is
asked again (`rate_store_failed` in the counters says how often that happened).
"""

from __future__ import annotations

import logging
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from limits import RateLimitItem, parse
from limits.storage import MovingWindowSupport, Storage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from second_mw.errors import traced
from second_mw.tally import Tally

logger: logging.Logger = logging.getLogger("second_mw")

#: Who asked last is remembered for so many users and addresses: about 10 MB at the most.
MAX_KEYS: Final = 20_000
#: And so many of their requests, 8 bytes each.
MAX_HITS: Final = 500_000
#: Seconds that a shared store may take, and for which a failed one is left alone.
_STORE_TIMEOUT: Final = 0.25
_STORE_RESTS: Final = 5.0
_SHARED_SCHEMES: Final = frozenset({"redis", "rediss", "redis+sentinel", "redis+cluster"})
#: What stands behind an outbox's URL and is about events.
_ABOUT_EVENTS: Final = frozenset({"max", "keep_dead", "wait", "durability"})


class Windows(Storage, MovingWindowSupport):
    """Moving windows of this process, bounded: past the bound, who was idle longest is forgotten.

    The library's own memory storage grows with the number of users and starts a thread to clean
    up; this one does both in passing.

    Args:
        max_keys, max_hits: how much is remembered.
        clock: seconds, of the same kind that the limiter compares with.
    """

    STORAGE_SCHEME: list[str] | None = None

    def __init__(
        self,
        max_keys: int = MAX_KEYS,
        max_hits: int = MAX_HITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._max_keys = max_keys
        self._max_hits = max_hits
        self._clock = clock
        self.reset()

    @property
    def base_exceptions(self) -> type[Exception]:
        """Nothing that this storage does fails."""
        return ValueError

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` requests in unless that makes more than `limit` in `expiry` seconds."""
        return self.take(key, limit, expiry, amount)

    def take(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """The same under a name that the library does not wrap, which costs as much again."""
        now = self._clock()
        begin = now - expiry
        with self._lock:
            window = self._current(key, begin)
            was_empty = not window
            if len(window) + amount > limit:
                return False
            if amount == 1:
                window.append(now)
            else:
                window.extend([now] * amount)
            self._hits += amount
            # Else nothing has grown for which somebody is to be forgotten.
            if was_empty or self._hits > self._max_hits:
                self._forget(begin)
            return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the window began, and how many requests are in it."""
        now = self._clock()
        with self._lock:
            window = self._current(key, now - expiry)
            return (window[0] if window else now), len(window)

    def _current(self, key: str, begin: float) -> array[float]:
        """Return a key's window, what is older than `begin` left out, as the last one used."""
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = array("d")
            return window
        self._windows.move_to_end(key)
        if window and window[0] <= begin:
            over = bisect_right(window, begin)
            del window[:over]
            self._hits -= over
        return window

    def _forget(self, begin: float) -> None:
        """Forget who was idle for the longest time: because it's over, or to stay in bounds."""
        while self._windows:
            key = next(iter(self._windows))
            window = self._windows[key]
            full = len(self._windows) > self._max_keys or self._hits > self._max_hits
            if not full and window and window[-1] > begin:
                return
            if len(self._windows) == 1:
                return
            del self._windows[key]
            self._hits -= len(window)

    def check(self) -> bool:
        """Memory is always there."""
        return True

    def reset(self) -> int:
        """Forget everybody."""
        self._lock = Lock()
        self._windows: OrderedDict[str, array[float]] = OrderedDict()
        self._hits = 0
        return 0

    def clear(self, key: str) -> None:
        """Forget one."""
        with self._lock:
            self._hits -= len(self._windows.pop(key, ()))

    def get(self, key: str) -> int:
        """Return how many requests of a key are remembered."""
        return len(self._windows.get(key, ()))

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Not for fixed windows."""
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        """Not for fixed windows."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._windows)


class _Here:
    """One rate in this process.

    Asked without the library's strategy between: its keys and checks cost 13 µs of a request's 20.
    """

    def __init__(self, rate: RateLimitItem, windows: Windows, clock: Callable[[], float]) -> None:
        self._windows = windows
        self._amount = rate.amount
        self._seconds = rate.get_expiry()
        self._clock = clock

    def wait(self, key: str) -> float | None:
        if self._windows.take(key, self._amount, self._seconds):
            return None
        began, _ = self._windows.get_moving_window(key, self._amount, self._seconds)
        return max(0.0, began + self._seconds - self._clock())


class _Shared:
    """One rate in a storage that other processes count in, too."""

    def __init__(self, rate: RateLimitItem, storage: Any, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._limiter = MovingWindowRateLimiter(storage)
        self._clock = clock

    def wait(self, key: str) -> float | None:
        if self._limiter.hit(self._rate, key):
            return None
        free_at = self._limiter.get_window_stats(self._rate, key)[0]
        return max(0.0, free_at - self._clock())


class Rates:
    """Says who may ask now.

    Args:
        rate: such as `600/minute`; None lets everybody ask.
        shared: the URL of a Redis that other processes count in, too; None counts here alone.
        tally: counts the failures of that Redis.
        windows: where this process counts, for tests.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rate: str | None,
        shared: str | None,
        tally: Tally,
        *,
        windows: Windows | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally = tally
        self._clock = clock
        self._shared_again_at = 0.0
        self._warned = False
        self._here: _Here | None = None
        self._shared: _Shared | None = None
        #: Whether `wait` does I/O, so that an event loop asks it in a thread.
        self.blocking: bool = rate is not None and shared is not None
        if rate is None:
            return
        item = parse(rate)
        if windows is None:
            windows = Windows(clock=clock)
        self._here = _Here(item, windows, clock)
        if shared is not None:
            self._shared = _Shared(item, _redis(shared), time.time)

    def wait(self, key: str) -> float | None:
        """Count one request of `key`; return None, or in how many seconds it may ask again."""
        if self._shared is not None and self._clock() >= self._shared_again_at:
            try:
                return self._shared.wait(key)
            except Exception as error:
                self._rest(error)
        return None if self._here is None else self._here.wait(key)

    def _rest(self, error: Exception) -> None:
        self._tally.add("rate_store_failed")
        self._shared_again_at = self._clock() + _STORE_RESTS
        if not self._warned:
            self._warned = True
            logger.warning(
                "second_mw: the shared rate limits can't be reached; this process counts alone "
                "until they can (%s)",
                traced(error),
            )


def shared_store(outbox: object) -> str | None:
    """Return the URL of the Redis that an outbox setting names, None if it names none.

    >>> shared_store("redis://127.0.0.1:6379/0?max=5"), shared_store("memory://")
    ('redis://127.0.0.1:6379/0', None)
    """
    if not isinstance(outbox, str) or urlsplit(outbox).scheme not in _SHARED_SCHEMES:
        return None
    parts = urlsplit(outbox)
    given = [(name, value) for name, value in parse_qsl(parts.query) if name not in _ABOUT_EVENTS]
    path = parts.path
    if parts.scheme.endswith("+sentinel"):
        # The library takes a path for the service's name, whole.
        path = f"/{path.strip('/').partition('/')[0]}"
    return urlunsplit(parts._replace(path=path, query=urlencode(given)))


def _redis(url: str) -> Storage:
    storage: Storage = storage_from_string(
        url,
        key_prefix="{second_mw}:rates",
        socket_timeout=_STORE_TIMEOUT,
        socket_connect_timeout=_STORE_TIMEOUT,
    )  # type: ignore[assignment]  # the async storages have schemes of their own
    return storage
