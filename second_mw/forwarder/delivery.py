"""One lease's way to PostHog: attempts, retries, halves, verdicts, and back into the store.

Here a ruling is carried out. What an answer means stands in `verdicts.py`, when a batch leaves in
`dispatcher.py`. A batch is retried as it was leased, its lease held meanwhile, until its round is
used up; whatever then is not settled goes back into the store, unharmed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple, Protocol

from second_mw.forwarder.circuit import PROBE_AFTER, SUSPECTS_WAIT, Circuit, Refusals
from second_mw.forwarder.exchange import Batch, Codec, NoAnswer, Request, Transport
from second_mw.forwarder.losses import Ledger
from second_mw.forwarder.retry import BETWEEN_ROUNDS, backoff
from second_mw.forwarder.verdicts import DELIVERED, Ruling, ruling_of_absence
from second_mw.outbox.base import Entry, Store

logger: logging.Logger = logging.getLogger("second_mw")

#: By so much is what travels together divided with each round that failed.
_SHARE_OF_A_ROUND: Final = 10
#: An event that can't be written as JSON will never be; nobody has to ask PostHog.
_UNENCODABLE: Final = "unencodable"


class Shift(Protocol):
    """How much time a thread that delivers still has."""

    def pause(self, seconds: float) -> bool:
        """Wait; return False, at once, if the time left is shorter than that."""
        ...

    def time_left(self) -> float | None:
        """Seconds that are left, None while there is no end in sight."""
        ...


class _End(NamedTuple):
    """Delivery stops before everything is settled; the rest is leased again no sooner.

    Args:
        not_before: in so many seconds.
        tried: why a whole round was in vain; empty if none was.
        alone: only the batch in hand ends, others are taken.
    """

    not_before: float
    tried: str = ""
    alone: bool = False


class _Job:
    """What is not settled yet of one lease.

    Args:
        entries: as leased.
        attempts: how many attempts one round has.
        now: when they were leased.
        taken_before: how many events PostHog had taken by then.
    """

    def __init__(
        self, entries: Sequence[Entry], attempts: int, now: float, taken_before: int
    ) -> None:
        self._entries = entries
        # Nearly always what is settled is all of them, and nobody asks what is open.
        self._settled: list[Collection[str]] = []
        self.attempts = attempts
        self.held_at = now
        self.taken_before = taken_before
        #: Refused alone, but not buried before it is clear that the sender is not to blame.
        self.refused: dict[str, str] = {}

    @property
    def open(self) -> set[str]:
        """The keys of what is not settled."""
        return {entry.key for entry in self._entries}.difference(*self._settled)

    def settle(self, keys: Collection[str]) -> None:
        """Count these as settled, or given back."""
        self._settled.append(keys)


class Delivery:
    """Delivers leased entries; shared by all threads that do.

    Args:
        store: where the entries were leased.
        codec: PostHog's protocol.
        ledger, circuit, refusals: the forwarder's.
        ttl: seconds of a lease.
        max_retries: of one round.
        max_batch_events: how many travel together at first.
        max_age: seconds after which an event that PostHog still does not take is given up.
        clock: monotonic seconds, for the lease.
        random: 0.0 to 1.0, for the backoff's jitter.
    """

    def __init__(
        self,
        store: Store,
        codec: Codec,
        *,
        ledger: Ledger,
        circuit: Circuit,
        refusals: Refusals,
        ttl: float,
        max_retries: int,
        max_batch_events: int,
        max_age: float,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._store = store
        self._codec = codec
        self._ledger = ledger
        self._circuit = circuit
        self._refusals = refusals
        self._ttl = ttl
        self._max_retries = max_retries
        self._max_batch_events = max_batch_events
        self._max_age = max_age
        self._clock = clock
        self._random = random

    def run(
        self, entries: Sequence[Entry], transport: Transport, shift: Shift, *, probe: bool = False
    ) -> None:
        """Deliver these entries, or give back what can't be delivered now.

        A probe is one attempt: it asks whether PostHog is there, and is not to press it.
        """
        attempts = 1 if probe else 1 + self._max_retries
        job = _Job(entries, attempts, self._clock(), self._ledger.forwarded)
        todo = [Batch.of(part, time.time()) for part in reversed(self._parts(entries))]
        while todo:
            batch = todo.pop()
            batch, ruling = self._round(batch, job, transport, shift)
            if isinstance(ruling, _End):
                self._give_up_too_old(batch, ruling, job)
                if not ruling.alone:
                    self._give_back(job, ruling)
                    return
                self._give_back(job, ruling, batch.keys)
                continue
            if ruling.about != "halve":
                continue
            if len(batch.entries) > 1:
                todo.extend(reversed(batch.halves(time.time())))
            elif (end := self._refuse(batch.entries[0], ruling, job)) is not None:
                self._give_back(job, end)
                return
        self._bury_refused(job)

    def _parts(self, entries: Sequence[Entry]) -> Sequence[Sequence[Entry]]:
        """Return what travels together: with each round that failed, less.

        An event that makes PostHog fail or hang would else take its neighbours with it, round
        after round; so it stands alone in the end, and they are delivered.
        """
        if not any(entry.rounds for entry in entries):
            return _without_repeats(entries)
        by_rounds: dict[int, list[Entry]] = {}
        for entry in entries:
            by_rounds.setdefault(entry.rounds, []).append(entry)
        parts: list[Sequence[Entry]] = []
        for rounds in sorted(by_rounds):
            size = max(1, self._max_batch_events // _SHARE_OF_A_ROUND ** min(rounds, 5))
            for part in _without_repeats(by_rounds[rounds]):
                parts.extend(part[at : at + size] for at in range(0, len(part), size))
        return parts

    def _round(
        self, batch: Batch, job: _Job, transport: Transport, shift: Shift
    ) -> tuple[Batch, Ruling | _End]:
        """Send a batch until it is settled, is to be halved, or delivery must end."""
        attempt = 1
        while True:
            left = shift.time_left()
            if left is not None and left <= 0:
                return batch, _End(0.0)
            self._renew(job)
            ruling = self._attempt(batch, attempt, transport, left)
            if ruling.about == "delivered":
                self._settle_delivered(batch.keys, job)
                self._works()
                return batch, ruling
            if ruling.about == "events":
                batch = self._settle(batch, ruling, job)
                if not batch.entries:
                    return batch, ruling
            elif ruling.about != "retry":
                return batch, ruling if ruling.about == "halve" else self._open(ruling)
            if attempt >= job.attempts:
                return batch, self._used_up(ruling, self._ledger.forwarded > job.taken_before)
            delay = max(backoff(attempt, self._random), ruling.retry_after or 0.0)
            left = shift.time_left()
            if left is not None and left <= delay:
                return batch, _End(delay)
            if not self._hold(delay, job, shift) and ruling.retry_after is not None:
                return batch, _End(ruling.retry_after)
            # A wait that was cut short by closing leads to a last attempt.
            logger.debug("attempt %d did not deliver (%s), retrying", attempt, ruling.reason)
            self._ledger.sent_again(len(batch.entries))
            attempt += 1

    def _attempt(
        self, batch: Batch, attempt: int, transport: Transport, left: float | None
    ) -> Ruling:
        request = self._encoded(batch, attempt)
        if request is None:
            return Ruling("halve", _UNENCODABLE)
        started = time.monotonic()
        answer = transport.send(request, left)
        if isinstance(answer, NoAnswer):
            return ruling_of_absence(answer)
        self._ledger.answered(time.monotonic() - started)
        return self._codec.judge(answer, batch, time.time())

    def _encoded(self, batch: Batch, attempt: int) -> Request | None:
        """Return the request, None if one of the entries can't be written as JSON."""
        try:
            return self._codec.request(batch, attempt, time.time())
        except Exception:
            # Whatever is wrong with one entry must not hold up the others for ever. No traceback:
            # it could show a value.
            logger.debug("a batch of %d can't be encoded", len(batch.entries))
            return None

    def _settle(self, batch: Batch, ruling: Ruling, job: _Job) -> Batch:
        """Carry out the verdicts; return the batch with what is to be sent again."""
        verdicts = ruling.verdicts
        delivered = [key for key, verdict in verdicts.items() if verdict is DELIVERED]
        if delivered:
            self._settle_delivered(delivered, job)
        # Nearly always there is nothing else to do for any of them.
        others = [] if len(delivered) == len(verdicts) else verdicts.items()
        self._bury({key: each.reason for key, each in others if each.result == "dead"}, job)
        self._works()
        return batch.only({key for key, each in others if each.result == "retry"})

    def _settle_delivered(self, keys: Sequence[str], job: _Job) -> None:
        self._store.ack(keys)
        job.settle(keys)
        self._ledger.delivered(len(keys))
        self._refusals.succeeded()
        # Others are taken, so those that were refused alone are to blame themselves.
        self._bury_refused(job)

    def _refuse(self, entry: Entry, ruling: Ruling, job: _Job) -> _End | None:
        """Put aside an event that was refused alone; return an end if the sender is to blame."""
        if ruling.reason == _UNENCODABLE:
            self._bury({entry.key: ruling.reason}, job)
            return None
        if self._refusals.about_sender(entry.key):
            suspects = [*job.refused, entry.key]
            self._refusals.suspect(suspects)
            self._store.release(suspects, SUSPECTS_WAIT)
            job.settle(suspects)
            look_at = "every event is refused: SECOND_POSTHOG_HOST and SECOND_POSTHOG_TOKEN"
            return self._open(Ruling("sender", "all_refused", look_at=look_at))
        job.refused[entry.key] = ruling.reason
        return None

    def _bury_refused(self, job: _Job) -> None:
        if job.refused:
            reasons, job.refused = job.refused, {}
            self._bury(reasons, job)
            # PostHog looked into an event, so the way to it is open.
            self._works()

    def _bury(self, reasons: dict[str, str], job: _Job) -> None:
        if not reasons:
            return
        self._store.bury(reasons)
        job.settle(reasons)
        for word, count in Counter(_word(reason) for reason in reasons.values()).items():
            self._ledger.buried(word, count)

    def _hold(self, delay: float, job: _Job, shift: Shift) -> bool:
        """Wait with the lease held; return False if closing cuts it short."""
        while delay > 0:
            step = min(delay, self._ttl / 3)
            if not shift.pause(step):
                return False
            delay -= step
            self._renew(job)
        return True

    def _renew(self, job: _Job) -> None:
        """Hold the lease on, long before it runs out, and not at every turn."""
        now = self._clock()
        if now - job.held_at >= self._ttl / 4:
            self._store.renew(sorted(job.open), self._ttl)
            job.held_at = now

    def _give_up_too_old(self, batch: Batch, end: _End, job: _Job) -> None:
        """Bury what was tried for as long as it is worth it, and again in vain."""
        oldest = time.time() - self._max_age
        if end.tried:
            reason = f"too_old: {end.tried}"
            too_old = [entry.key for entry in batch.entries if entry.accepted_at < oldest]
            self._bury(dict.fromkeys(too_old, reason), job)

    def _give_back(self, job: _Job, end: _End, keys: Sequence[str] | None = None) -> None:
        """Give back all that is open, or of these keys what is."""
        back = sorted(job.open if keys is None else job.open.intersection(keys))
        if back:
            self._store.release(back, end.not_before)
            job.settle(back)

    def _used_up(self, ruling: Ruling, others_taken: bool) -> _End:
        """End a round; if PostHog took nothing else meanwhile, it is down and left alone."""
        wait = max(BETWEEN_ROUNDS, ruling.retry_after or 0.0)
        if ruling.about != "retry" or others_taken:
            return _End(wait, ruling.reason, alone=True)
        if self._circuit.open(ruling.reason, wait):
            logger.warning(
                "PostHog did not take events (%s); they wait, one probe every %.0f s. Look at: %s",
                ruling.reason,
                wait,
                ruling.look_at,
            )
        return _End(wait, ruling.reason)

    def _open(self, ruling: Ruling) -> _End:
        """Open the circuit for what is about the sender, or for a 429."""
        wait = max(
            PROBE_AFTER if ruling.about == "sender" else BETWEEN_ROUNDS, ruling.retry_after or 0.0
        )
        if self._circuit.open(ruling.reason, wait):
            logger.log(
                logging.ERROR if ruling.about == "sender" else logging.WARNING,
                "PostHog can't be sent to (%s); events wait, one probe every %.0f s. Look at: %s",
                ruling.reason,
                wait,
                ruling.look_at,
            )
        # The circuit keeps this process quiet. Nothing is wrong with the events, so a process
        # with better settings may have them at once; after a 429 nobody may.
        return _End(0.0 if ruling.about == "sender" else wait)

    def _works(self) -> None:
        if self._circuit.close():
            logger.info("PostHog takes events again")


def _without_repeats(entries: Sequence[Entry]) -> Sequence[Sequence[Entry]]:
    """Return the entries in as few lists as it takes for no uuid to be twice in one of them."""
    # Nearly always each is another.
    if len({entry.payload.uuid for entry in entries}) == len(entries):
        return [entries]
    parts: list[list[Entry]] = []
    seen: Counter[str] = Counter()
    for entry in entries:
        uuid = entry.payload.uuid
        if seen[uuid] == len(parts):
            parts.append([])
        parts[seen[uuid]].append(entry)
        seen[uuid] += 1
    return parts


def _word(reason: str) -> str:
    return reason.partition(":")[0]
