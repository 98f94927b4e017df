"""The forwarder: which thread leases when, and how delivery starts, is hurried and ends.

One dispatcher thread leases batches, up to `max_in_flight` sender threads deliver them; what
happens to a batch stands in `delivery.py`. Threads belong to a shift, which `start` makes and
`close` ends; a fork leaves the parent's shift behind. The lock guards the shift and the counters
here and is never held over a store or a socket.
"""

from __future__ import annotations

import logging
import math
import os
import random as jitter
import sys
import time
from collections.abc import Callable
from threading import RLock, Thread, current_thread
from typing import Final, Literal, NamedTuple, TypedDict

from second_mw.forwarder.circuit import Circuit, Refusals
from second_mw.forwarder.delivery import Delivery
from second_mw.forwarder.exchange import Codec, Transport
from second_mw.forwarder.losses import Ledger
from second_mw.forwarder.retry import RETRIES_A_ROUND
from second_mw.forwarder.shift import Job, Shift
from second_mw.forwarder.v0 import V0
from second_mw.forwarder.v1 import V1
from second_mw.outbox.base import Counts, Entry, Store
from second_mw.settings import Settings

logger: logging.Logger = logging.getLogger("second_mw")

_CODECS: Final[dict[str, Callable[..., Codec]]] = {"v0": V0, "v1": V1}
#: After something unexpected in the dispatcher (a store that fails), before it looks again.
_AFTER_A_FAULT: Final = 1.0
#: Seconds between two batches of which the second is not full, unless a flush waits: a busy host
#: would else send many small ones, and each costs it some milliseconds.
_BREATH: Final = 0.1
#: A waiting flush looks again this often, whether or not it was told of a change.
_LOOK_AGAIN: Final = 0.25
#: A lease outlives two whole attempts, and no restart waits long for a dead process's lease.
_SHORTEST_LEASE: Final = 60.0

# Held while requests is imported, and by a fork: a child that is forked in the middle of an import
# would wait for ever for the thread that was to end it.
_importing: Final = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_importing.acquire,
        after_in_parent=_importing.release,
        after_in_child=_importing.release,
    )

# What forked children inherited. Kept, because a connection that is collected is closed, and these
# are their parent's.
_left_behind: Final[list[Shift]] = []


class Flushed(NamedTuple):
    """What became of the events that waited: `out` are delivered, `left` are not.

    Left are those that still wait, and those that were refused and lie in the dead letters. Where
    the store can't be asked at the end, `Analytics.close` counts those that it last saw waiting.
    """

    out: int
    left: int


class ForwarderStats(TypedDict):
    """This process's figures: events forwarded, sent again, dead by reason; batches in flight;
    seconds of the last answer; seconds since the epoch of the last success."""

    forwarded: int
    retried: int
    dead: dict[str, int]
    circuit: Literal["closed", "open"]
    in_flight: int
    latency: float | None
    last_success: float | None


class Forwarder:
    """Takes what waits in a store to PostHog.

    Args:
        store: where events wait; several forwarders may share one.
        settings: an enabled `Settings`; a disabled one sends nothing.
        on_loss: called with (reason, count) for every event that will not be delivered.
        clock: monotonic seconds, for leases, the flush interval and the circuit.
        pause: waits between retries, for tests; None waits on a condition that `close` ends.
        random: 0.0 to 1.0, for the backoff's jitter.
        connect: makes a sender's transport; None takes `requests`, imported at the first batch.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        on_loss: Callable[[str, int], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
        random: Callable[[], float] = jitter.random,
        connect: Callable[[], Transport] | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._on_loss = on_loss
        self._clock = clock
        self._pause = pause
        self._random = random
        self._connect = connect or self._http
        self._ttl = max(
            _SHORTEST_LEASE, 2 * (settings.connect_timeout + settings.read_timeout) + 10
        )
        self._warned: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        """Start with nothing: at construction, and in a forked child."""
        # Re-entrant: a signal handler may close what its own thread is just notifying.
        self._lock = RLock()
        self._shift: Shift | None = None
        self._flushes = 0
        # Events the dispatcher has been told of, and how many it must hear of before it looks.
        self._heard = 0
        self._wake_at: float = 0
        self._look = False
        self._ready_since: float | None = None
        self._left_at = -math.inf
        self._owed = 0
        self._reported = 0
        self._fault_logged_at = -math.inf
        self._ledger = Ledger(self._on_loss, self._clock)
        self._circuit = Circuit(self._clock)
        retries = self._settings.max_retries
        self._delivery = Delivery(
            self._store,
            codec_of(self._settings),
            ledger=self._ledger,
            circuit=self._circuit,
            refusals=Refusals(),
            ttl=self._ttl,
            max_retries=RETRIES_A_ROUND if retries is None else retries,
            max_batch_events=self._settings.max_batch_events,
            max_age=self._settings.max_age if self._store.durable else math.inf,
            clock=self._clock,
            random=self._random,
        )

    # What the rest of the package calls

    def start(self) -> bool:
        """Start the dispatcher unless it runs; return whether it does.

        It can't where threads can't be started (at interpreter exit, at a process limit); events
        then wait, and the next call tries again.
        """
        shift = self._shift
        if shift is not None and shift.alive:
            return True
        return self._start(self._warn_once)

    def _start(self, warn: Callable[..., None] | None = None) -> bool:
        if not self._settings.enabled:
            return False
        with self._lock:
            if self._shift is not None and self._shift.alive:
                return True
            had_died = self._shift is not None
            shift = Shift(self._lock, self._pause)
            shift.dispatcher = Thread(
                target=self._dispatch, args=(shift,), name="second_mw-dispatcher", daemon=True
            )
            try:
                shift.dispatcher.start()
            except RuntimeError as error:
                if warn is not None:
                    warn("no-thread", "no thread can be started (%s); events wait", error)
                return False
            self._shift = shift
        if had_died:
            logger.error("the dispatcher had ended without a word; another one runs")
        self._check_uwsgi()
        return True

    def revive(self) -> None:
        """Start the dispatcher again if it ended without being told to; cheap, and else nothing."""
        shift = self._shift
        if shift is not None and not (shift.alive or shift.over):
            self.start()

    def notify(self, count: int | None = None) -> None:
        """Say that `count` events were put; cheap. Without a count the dispatcher looks itself."""
        shift = self._shift
        if shift is None:
            return
        with self._lock:
            self._nudge(shift, count)

    def flush(self, timeout: float = 10.0) -> Flushed:
        """Send what waits now at once and return how much of it is out.

        Returns before `timeout` seconds have passed when nothing is left to do: all is settled,
        or what is left must wait (for its time, for the circuit, for another process).
        """
        return self._flush(time.monotonic() + timeout, closing=False)

    def close(self, timeout: float = 5.0) -> Flushed:
        """Send what waits, for at most `timeout` seconds, then end the threads.

        Fit for atexit: where no thread can be started any more, the calling thread delivers. What
        a memory outbox still holds then is reported as lost. `start` begins anew.

        A signal handler that has interrupted its own thread inside the store can't have anything
        settled before it returns: then nothing is sent, and closing is left to the exit.

        Raises:
            OutboxUnavailable: a durable store can't be asked; the threads have ended all the same.
        """
        if self._interrupted():
            return Flushed(0, self._store.counts().waiting)
        deadline = time.monotonic() + timeout
        try:
            flushed = self._flush(deadline, closing=True)
        finally:
            # Also where the store can't be asked: the threads end all the same.
            with self._lock:
                shift, self._shift = self._shift, None
            if shift is not None:
                self._end(shift, deadline)
        if self._settings.enabled and not self._store.durable:
            self._report_unsent()
        self._ledger.settle_log()
        return flushed

    def finish(self, timeout: float = 5.0) -> None:
        """Lease nothing more, wait for what is on its way, and end the threads.

        For a durable store, whose events wait for the next process.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            shift, self._shift = self._shift, None
            if shift is None:
                return
            shift.leases = False
            shift.deadline = deadline
            shift.changed.notify_all()
            while shift.in_flight and (left := deadline - time.monotonic()) > 0:
                shift.changed.wait(left)
        self._end(shift, deadline)
        self._ledger.settle_log()

    def after_fork(self) -> None:
        """Become the child's own: the parent's threads are not here, its connections not ours."""
        if self._shift is not None:
            _left_behind.append(self._shift)
        self._begin()

    def stats(self) -> ForwarderStats:
        """Return this process's figures."""
        shift, ledger = self._shift, self._ledger
        return {
            "forwarded": ledger.forwarded,
            "retried": ledger.retried,
            "dead": dict(ledger.dead),
            "circuit": self._circuit.state,
            "in_flight": shift.in_flight if shift is not None else 0,
            "latency": ledger.latency,
            "last_success": ledger.last_success,
        }

    # The dispatcher thread

    def _dispatch(self, shift: Shift) -> None:
        while not shift.over:
            try:
                wait = self._lease_what_is_due(shift)
            except BaseException as error:
                # Whatever a store or a library raises, SystemExit too: this thread goes on.
                self._log_fault("the outbox can't be read", error)
                wait = _AFTER_A_FAULT
                with self._lock:
                    self._wake_at = math.inf
            with shift.to_dispatch:
                if not (shift.over or self._look or self._heard >= self._wake_at):
                    shift.to_dispatch.wait(wait)

    def _lease_what_is_due(self, shift: Shift) -> float | None:
        """Lease as many batches as are due and may fly; return the seconds until the next look.

        None waits for a word from somebody. How many events it takes to be woken before the time
        is left in `_wake_at`.
        """
        while True:
            with self._lock:
                heard, self._look = self._heard, False
                hurried = self._flushes > 0
                enough = self._settings.flush_at
                rest = self._left_at + _BREATH - self._clock()
                if shift.in_flight or rest > 0:
                    # What comes meanwhile is the backlog: it leaves in one batch when the one that
                    # flies has landed, and not in many small ones that cost as much each.
                    enough = max(enough, self._settings.max_batch_events)
                if shift.in_flight >= self._settings.max_in_flight:
                    # Whoever settles a batch nudges.
                    return self._nap(math.inf, math.inf)
            left = shift.time_left()
            if not shift.leases or (left is not None and left <= 0):
                return self._nap(math.inf, math.inf)
            if (blocked := self._circuit.wait()) > 0:
                return self._nap(math.inf, blocked)
            counts = self._store.counts()
            if (due_in := self._due_in(counts, enough, hurried)) > 0:
                missing = enough - counts.ready if counts.ready else 1
                return self._nap(heard + missing, min(due_in, rest) if rest > 0 else due_in)
            if not self._lease_one(shift):
                self._owed = 0
                return self._nap(heard + 1, self._settings.flush_interval)

    def _nap(self, wake_at: float, seconds: float) -> float | None:
        with self._lock:
            self._wake_at = wake_at
        return None if seconds == math.inf else seconds

    def _due_in(self, counts: Counts, enough: int, hurried: bool) -> float:
        """Seconds until a batch should leave; 0.0 for now, infinite for not before a put.

        Args:
            enough: how many events leave without waiting for others.
            hurried: whether a flush waits.
        """
        if not counts.ready:
            self._ready_since, self._owed = None, 0
            waits = [wait] if (wait := self._store.next_ready_in()) is not None else []
            if self._store.durable:
                # Another process may put, and nobody tells this one.
                waits.append(self._settings.flush_interval)
            return max(min(waits, default=math.inf), 0.01)
        now = self._clock()
        if self._ready_since is None:
            self._ready_since = now
        waited = now - self._ready_since
        # Once due, everything that was ready at that moment leaves, in as many batches as it takes.
        if hurried or counts.ready >= enough:
            self._owed = max(self._owed, counts.ready)
        if self._owed or waited >= self._settings.flush_interval:
            self._owed = self._owed or counts.ready
            return 0.0
        return self._settings.flush_interval - waited

    def _lease_one(self, shift: Shift) -> bool:
        """Lease one batch and hand it to a sender; return whether there was one."""
        with self._lock:
            if shift.over or not shift.leases:
                return False
            # Counted before it is leased: a flush must not find it neither waiting nor flying.
            shift.in_flight += 1
        probe, entries = self._circuit.begin_probe(), []
        try:
            entries = self._leased(probe)
        finally:
            if not entries:
                self._landed(shift, probe=probe, sent=False)
        if not entries:
            return False
        self._owed = max(0, self._owed - len(entries))
        self._ready_since = self._left_at = self._clock()
        self._hand_over(shift, Job(entries, probe))
        return True

    def _leased(self, probe: bool) -> list[Entry]:
        # One event is enough to ask whether PostHog is there, and the least it can cost.
        limit = 1 if probe else self._settings.max_batch_events
        return self._store.lease(limit, self._settings.max_batch_bytes, self._ttl)

    def _hand_over(self, shift: Shift, job: Job) -> None:
        with self._lock:
            if len(shift.senders) < min(shift.in_flight, self._settings.max_in_flight):
                self._add_sender(shift)
            if shift.senders:
                shift.jobs.append(job)
                shift.to_send.notify()
                return
        # No thread to be had, as at interpreter exit: then this one delivers.
        self._deliver(job, shift, self._connected(shift, None))

    def _add_sender(self, shift: Shift) -> None:
        name = f"second_mw-sender-{len(shift.senders) + 1}"
        sender = Thread(target=self._send, args=(shift,), name=name, daemon=True)
        try:
            sender.start()
        except RuntimeError as error:
            logger.debug("no further sender can be started: %s", error)
        else:
            shift.senders.append(sender)

    # The sender threads

    def _send(self, shift: Shift) -> None:
        transport: Transport | None = None
        while True:
            with shift.to_send:
                while not shift.jobs and not shift.over:
                    shift.to_send.wait()
                if not shift.jobs:
                    break
                job = shift.jobs.popleft()
            try:
                transport = self._connected(shift, transport)
                self._deliver(job, shift, transport)
            except BaseException as error:
                # Not in `_deliver`, which an exit calls too: there an interrupt is to be heard.
                self._log_fault("a sender was to end; it goes on", error)
        if transport is not None:
            transport.close()

    def _connected(self, shift: Shift, transport: Transport | None) -> Transport | None:
        """Return the transport, made if there is none yet; None if it can't be made."""
        if transport is not None:
            return transport
        try:
            transport = self._connect()
        except Exception as error:
            self._log_fault("no connection can be prepared", error)
            return None
        shift.transports.append(transport)
        return transport

    def _deliver(self, job: Job, shift: Shift, transport: Transport | None) -> None:
        """Deliver one job; whatever happens, the lease gives the entries back."""
        try:
            if transport is not None:
                self._delivery.run(job.entries, transport, shift, probe=job.probe)
        except Exception as error:
            self._log_fault("a batch could not be settled; it is sent again later", error)
        finally:
            self._landed(shift, probe=job.probe, sent=True)

    def _landed(self, shift: Shift, *, probe: bool, sent: bool) -> None:
        if probe:
            self._circuit.end_probe(sent=sent)
        with self._lock:
            shift.in_flight -= 1
            shift.changed.notify_all()
            if sent:
                self._nudge(shift)

    # Flushing and closing

    def _flush(self, deadline: float, *, closing: bool) -> Flushed:
        began = self._clock()
        before = self._store.counts()
        if not self._settings.enabled or not before.waiting or self._interrupted():
            return Flushed(0, before.waiting)
        # At an exit no thread is no news, and the calling one delivers.
        running = self._start(None if closing else self._warn_once)
        if running and (shift := self._shift) is not None:
            settled = self._hurry(shift, deadline, began, closing=closing)
        else:
            settled = self._drain(deadline)
        after = self._store.counts()
        waiting = 0 if settled else after.waiting
        left = min(before.waiting, waiting + after.dead - before.dead)
        return Flushed(before.waiting - left, left)

    def _hurry(self, shift: Shift, deadline: float, began: float, *, closing: bool) -> bool:
        """Let the threads send at once; return whether all that waited is settled."""
        with self._lock:
            self._flushes += 1
            if closing:
                shift.deadline = deadline
                # Ends the waits between retries for which there is no time.
                shift.changed.notify_all()
            self._nudge(shift)
        try:
            return self._settled(shift, deadline, began)
        finally:
            with self._lock:
                self._flushes -= 1

    def _settled(self, shift: Shift, deadline: float, began: float) -> bool:
        while True:
            elapsed = self._clock() - began
            counts = self._store.counts()
            # After the counts: what is not ready then was flying, and has landed if none flies.
            with self._lock:
                flying = shift.in_flight
            # Whatever waits now may have come later; the slack is for stores with coarse clocks.
            if not counts.waiting or counts.oldest_age < elapsed - 0.05:
                return True
            left = deadline - time.monotonic()
            if left <= 0 or not shift.alive:
                return False
            if not flying and (not counts.ready or self._circuit.wait() > left):
                return False
            with shift.changed:
                if shift.in_flight == flying:
                    shift.changed.wait(min(left, _LOOK_AGAIN))

    def _drain(self, deadline: float) -> bool:
        """Deliver in the calling thread, which has no other to do it; return whether all is out."""
        shift = Shift(self._lock, self._pause)
        shift.deadline = deadline
        transport: Transport | None = None
        while deadline > time.monotonic() and self._circuit.wait() <= 0:
            probe = self._circuit.begin_probe()
            entries = self._leased(probe)
            if not entries:
                self._circuit.end_probe(sent=False)
                break
            with self._lock:
                shift.in_flight += 1
            transport = self._connected(shift, transport)
            self._deliver(Job(entries, probe), shift, transport)
        if transport is not None:
            transport.close()
        return not self._store.counts().waiting

    def _end(self, shift: Shift, deadline: float) -> None:
        """Send the threads home; one that hangs in a socket is a daemon and holds up nobody."""
        with self._lock:
            shift.over = True
            for condition in (shift.to_dispatch, shift.to_send, shift.changed):
                condition.notify_all()
            threads = [*shift.senders, shift.dispatcher]
        for thread in threads:
            if thread is not None and thread is not current_thread():
                thread.join(max(0.05, deadline - time.monotonic()))

    def _interrupted(self) -> bool:
        """Return whether the calling thread is inside the store, as in a signal handler."""
        # Only a store that is locked by the thread that puts can be found so.
        inside: Callable[[], bool] | None = getattr(self._store, "entered", None)
        return inside is not None and inside()

    def _report_unsent(self) -> None:
        unsent = self._store.counts().waiting
        if unsent > self._reported:
            self._ledger.report("shutdown", unsent - self._reported)
        self._reported = unsent

    # Small things

    def _nudge(self, shift: Shift, count: int | None = None) -> None:
        """Let the dispatcher look, if it is to be woken for so few; the lock is held."""
        if count is None:
            self._look = True
        else:
            self._heard += count
        if self._look or self._heard >= self._wake_at:
            shift.to_dispatch.notify()

    def _http(self) -> Transport:
        with _importing:
            from second_mw.forwarder.transport import HttpTransport

        return HttpTransport(
            self._settings.host,
            connect_timeout=self._settings.connect_timeout,
            read_timeout=self._settings.read_timeout,
        )

    def _check_uwsgi(self) -> None:
        """Say it if uWSGI will not let threads run: events would wait without a word."""
        uwsgi = sys.modules.get("uwsgi")
        options = getattr(uwsgi, "opt", None)
        if isinstance(options, dict) and not any(
            options.get(name) for name in (b"enable-threads", b"threads", "enable-threads")
        ):
            self._warn_once(
                "uwsgi", "uWSGI runs without threads, so nothing is sent: add %s", "enable-threads"
            )

    def _warn_once(self, cause: str, message: str, *values: object) -> None:
        if cause not in self._warned:
            self._warned.add(cause)
            logger.warning(message, *values)

    def _log_fault(self, what: str, error: BaseException) -> None:
        """Log something unexpected, once a minute at most."""
        now = time.monotonic()
        if now - self._fault_logged_at >= 60.0:
            self._fault_logged_at = now
            logger.error("%s", what, exc_info=error)


def codec_of(settings: Settings) -> Codec:
    """Return the codec of the protocol that is set."""
    return _CODECS[settings.protocol](
        settings.token or "",
        gzip=settings.gzip,
        historical_migration=settings.historical_migration,
    )
