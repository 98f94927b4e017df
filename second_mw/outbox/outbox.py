"""Outbox: the one way into a store, for the endpoint, for `capture` and for server code (spec §11).

It turns finished events into payloads, puts them into the store and wakes the forwarder. What
waits and how is the store's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from second_mw import schemes
from second_mw.outbox.base import Counts, Store
from second_mw.payload import Payload, finish

logger: logging.Logger = logging.getLogger("second_mw")


class Outbox:
    """Where payloads wait.

    Args:
        store: keeps them; None takes nothing, as a disabled `Analytics` does.
        added: what every payload carries (spec §10); an event's own values win.
        on_put: called with how many payloads were kept; wakes the forwarder.
    """

    def __init__(
        self, store: Store | None, added: Mapping[str, Any], on_put: Callable[[int], None]
    ) -> None:
        self.store = store
        #: Whether `put` does I/O, so that an event loop has to await `submit` instead.
        self.blocking: bool = store is not None and store.blocking
        #: The accounts as last seen, for when the store can't be asked.
        self.seen: Counts = Counts(0, 0, 0, 0, 0, 0, 0.0)
        self._added = added
        self._on_put = on_put

    def put(self, events: Sequence[Payload | Mapping[str, Any]]) -> int:
        """Keep all events or none; return how many are new.

        Args:
            events: payloads, or finished events `{"event", "distinct_id", "properties"?, "uuid"?,
                "timestamp"?, "options"?}`, whose missing uuid, timestamp (UTC) and library
                properties are filled in. They are taken as they are: no privacy rule looks at
                them, which is for server code that knows what it sends.

        Raises:
            OutboxUnavailable: the store can't take them; none was kept.
            TypeError, ValueError: a finished event is none.
        """
        payloads = [self._payload(event) for event in events]
        if self.store is None or not payloads:
            return 0
        new = self.store.put(payloads)
        self._on_put(len(payloads))
        return new

    def submit(self, events: Sequence[Payload]) -> Future[int]:
        """Like `put`, without blocking: the future has its result or its exception."""
        if self.store is None:
            done: Future[int] = Future()
            done.set_result(0)
            return done
        future = self.store.submit(events)
        future.add_done_callback(lambda _: self._on_put(len(events)))
        return future

    def counts(self) -> Counts:
        """Return the store's accounts; all zero without a store.

        Raises:
            OutboxUnavailable: a durable store can't be asked.
        """
        if self.store is not None:
            self.seen = self.store.counts()
        return self.seen

    def _payload(self, event: Payload | Mapping[str, Any]) -> Payload:
        if isinstance(event, Payload):
            return event
        if not isinstance(event, Mapping):
            # A lone event comes here as its keys.
            kind = type(event).__name__
            raise TypeError(f"outbox.put takes finished events in a list, put([event]), not {kind}")
        return finish(event, self._added)


def open_store(where: Any, setting: str = "outbox") -> Store:
    """Return the store that a setting names.

    Args:
        where: `memory://?max=10000`, `sqlite:///path`, `redis://host:6379/0`, `rediss://…`, or a
            store of the host's own.
        setting: the argument or variable that holds it, for error messages.

    Raises:
        ConfigurationError: the URL names none, or one that can't be used.
    """
    if not isinstance(where, str):
        store: Store = where
        return store
    opened: Store = schemes.opened("second_mw.outbox", where, setting)
    return opened
