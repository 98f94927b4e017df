"""Events of server code: `capture`, `acapture` and `capture_many`, by a browser's rules (spec §2).

One generator decides, as in `endpoint`; two drivers fetch what it needs, one blocking, one awaited,
so that the two can't come apart. Nothing here raises for what a running host can't help: the
result says what became of each event.
"""

from __future__ import annotations

import logging
import math
import re
import time
import uuid as uuids
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from second_mw import asking
from second_mw.asking import Askers
from second_mw.endpoint import (
    NeedChoice,
    Put,
    finished,
    payloads_of,
    settle,
    workspace_named,
)
from second_mw.errors import Code, OutboxUnavailable, Refused, traced
from second_mw.payload import Payload
from second_mw.preferences.base import Preferences, may_hang
from second_mw.privacy.mode import STORE_FAILED, asks_store, own_word, standing
from second_mw.privacy.pipeline import Finished, Pipeline, Posted
from second_mw.settings import Settings
from second_mw.tally import Tally
from second_mw.user import AnalyticsUser
from second_mw.wiring import OutboxDoor

logger: logging.Logger = logging.getLogger("second_mw")

#: On an event loop: seconds after which an outbox is not to be had.
_PUT_TIMEOUT: Final = 10.0
#: Seconds between two warnings of one cause: a full outbox must not fill the log as well.
_WARN_EVERY: Final = 60.0
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Captured:
    """What became of a `capture`; true if the outbox has the event.

    Args:
        uuid: the event's uuid, None unless it was accepted.
        code: why it was not accepted: a code of spec §4, or `disabled`, `suppressed` (the user
            does not share usage data) or `on_event` (the host's hook dropped it).
    """

    uuid: str | None = None
    code: Code | str | None = None

    def __bool__(self) -> bool:
        return self.uuid is not None


class Capture(NamedTuple):
    """One event for `Analytics.capture_many`; a plain tuple in this order will do as well.

    Args:
        user: whose event it is; None is nobody's, which is refused.
        event: a name of the catalogue.
        properties: as a browser would post them.
        uuid: a version 4 or 7 UUID; the same one again is stored once.
        timestamp: an aware datetime or RFC 3339 text; now if left out.
        anonymous_id: the browser's `anon_…` id, if the host knows it.
    """

    user: AnalyticsUser | None
    event: str
    properties: Mapping[str, Any] | None = None
    uuid: str | uuids.UUID | None = None
    timestamp: object = None
    anonymous_id: str | None = None


class Rooms(Protocol):
    """What of an `Analytics` this needs."""

    @property
    def settings(self) -> Settings:
        """What the host set."""
        ...

    @property
    def pipeline(self) -> Pipeline:
        """The privacy core."""
        ...

    @property
    def outbox(self) -> OutboxDoor:
        """Keeps."""
        ...

    @property
    def preferences(self) -> Preferences:
        """Knows what users chose."""
        ...


_Steps: TypeAlias = Generator[NeedChoice | Put, Any, list[Captured]]


class ServerCode:
    """Takes the events of server code.

    Args:
        rooms: the `Analytics`.
        tally: counts what becomes of events.
    """

    def __init__(self, rooms: Rooms, tally: Tally) -> None:
        self._rooms = rooms
        self._tally = tally
        self._askers = Askers()
        # Codes are few, so it is bounded; two threads at once say it twice, which is no harm.
        self._warned_at: dict[str, float] = {}

    def take(self, wanted: Sequence[Capture | tuple[Any, ...]]) -> list[Captured]:
        """Take events in one put; may block.

        Raises:
            TypeError: a user is no AnalyticsUser, or properties are no mapping.
        """
        steps = self._steps([_checked(one) for one in wanted])
        got: Any = None
        try:
            while True:
                need = steps.send(got)
                if isinstance(need, NeedChoice):
                    got = self._choice(need.user_key)
                else:
                    got = _failure_of(self._rooms.outbox.put, need.payloads)
        except StopIteration as done:
            taken: list[Captured] = done.value
            return taken

    async def atake(self, wanted: Sequence[Capture | tuple[Any, ...]]) -> list[Captured]:
        """The same without ever blocking the event loop."""
        steps = self._steps([_checked(one) for one in wanted])
        got: Any = None
        try:
            while True:
                need = steps.send(got)
                if isinstance(need, NeedChoice):
                    got = await self._awaited_choice(need.user_key)
                else:
                    got = await self._awaited_put(need.payloads)
        except StopIteration as done:
            taken: list[Captured] = done.value
            return taken

    # What is decided

    def _steps(self, wanted: Sequence[Capture]) -> _Steps:
        if not self._rooms.settings.enabled:
            return [Captured(code="disabled")] * len(wanted)
        outcomes: list[Finished | Captured] = []
        choices: dict[str, Any] = {}
        for one in wanted:
            try:
                outcomes.append((yield from self._judged(one, choices)))
            except Refused as refused:
                outcomes.append(self._refused(refused))
        kept = [each for each in outcomes if isinstance(each, Finished)]
        payloads = payloads_of(kept)
        if payloads and (failure := (yield Put(payloads))) is not None:
            logger.debug("second_mw: the outbox can't be had: %s", failure)
            self._report_lost(len(kept))
            return [
                self._refused(Refused("outbox_unavailable")) if isinstance(each, Finished) else each
                for each in outcomes
            ]
        settle(kept, self._rooms.settings.on_receipt)
        return [
            Captured(uuid=each.payloads[-1].uuid) if isinstance(each, Finished) else each
            for each in outcomes
        ]

    def _judged(
        self, one: Capture, choices: dict[str, Any]
    ) -> Generator[NeedChoice, Any, Finished | Captured]:
        user, pipeline = one.user, self._rooms.pipeline
        if user is None:
            raise Refused("not_authenticated")
        if not user.onboarded:
            raise Refused("not_onboarded")
        if one.event not in pipeline.catalogue:
            raise Refused("invalid_event")
        properties = one.properties or {}
        telling = pipeline.telling(one.event, tuple(properties))
        posted = Posted(
            one.event,
            properties,
            _uuid_of(one.uuid),
            one.timestamp,
            one.anonymous_id,
            own_word({}, properties, telling.of_mode),
            workspace_named(properties, telling.of_workspace, user),
        )
        choice = None
        if asks_store(user):
            key = pipeline.user_key(user.id)
            if key not in choices:
                choices[key] = yield NeedChoice(key)
            choice = choices[key]
        where = standing(self._rooms.settings, user, choice, gpc=False, dnt=False)
        if not where.shares:
            self._tally.add("suppressed")
            return Captured(code="suppressed")
        done = finished(pipeline, posted, user, where)
        return done if done.payloads else Captured(code="on_event")

    def _refused(self, refused: Refused) -> Captured:
        self._tally.add(f"rejected.{refused.code}")
        if refused.counted is not None:
            self._tally.add(refused.counted)
        self._warn(refused.code)
        return Captured(code=refused.code)

    def _warn(self, code: str) -> None:
        """Say why events are not taken, once a minute for each cause (spec §15)."""
        now = time.monotonic()
        if now - self._warned_at.get(code, -math.inf) >= _WARN_EVERY:
            self._warned_at[code] = now
            logger.warning(
                "second_mw did not take an event of server code: %s (said once a minute; "
                "stats() counts all of them)",
                code,
            )

    def _report_lost(self, count: int) -> None:
        """Tell the host's hook: a browser keeps such events, server code mostly does not."""
        on_drop = self._rooms.settings.on_drop
        if on_drop is not None:
            try:
                on_drop("outbox_unavailable", count)
            except Exception:
                logger.exception("the on_drop hook failed")

    # What is fetched

    def choice(self, user: AnalyticsUser) -> Any:
        """Return what a user chose, None if the resolver left nothing open; may block."""
        if not asks_store(user):
            return None
        return self._choice(self._rooms.pipeline.user_key(user.id))

    def _choice(self, user_key: str) -> Any:
        preferences = self._rooms.preferences
        try:
            if may_hang(preferences):
                return self._askers.ask(asking.CHOICE_TIMEOUT, preferences.get, user_key)
            return preferences.get(user_key)
        except Exception as error:
            return self._store_failed(error)

    async def _awaited_choice(self, user_key: str) -> Any:
        preferences = self._rooms.preferences
        if not preferences.blocking:
            return self._choice(user_key)
        try:
            return await self._askers.awaited(asking.CHOICE_TIMEOUT, preferences.get, user_key)
        except Exception as error:
            return self._store_failed(error)

    def _store_failed(self, error: Exception) -> Any:
        # Whatever is unknown means anonymized (spec §7).
        self._tally.add("preferences_failed")
        logger.debug("second_mw: the preference store failed: %s", traced(error))
        return STORE_FAILED

    async def _awaited_put(self, payloads: Sequence[Payload]) -> str | None:
        import asyncio

        outbox = self._rooms.outbox
        if not outbox.blocking:
            return _failure_of(outbox.put, payloads)
        try:
            await asyncio.wait_for(asyncio.wrap_future(outbox.submit(payloads)), _PUT_TIMEOUT)
        except Exception as error:
            return _said(error)
        return None


def _failure_of(put: Any, payloads: Sequence[Payload]) -> str | None:
    """Put payloads; return why it failed, None if it did not."""
    try:
        put(payloads)
    except Exception as error:
        return _said(error)
    return None


def _said(error: Exception) -> str:
    text = traced(error)
    if not isinstance(error, OutboxUnavailable):
        logger.error("second_mw: the outbox failed: %s", text)
    return text


def _checked(given: Capture | tuple[Any, ...]) -> Capture:
    one = Capture(*given)
    if not isinstance(one.user, AnalyticsUser | None):
        raise TypeError(f"user must be an AnalyticsUser, not {type(one.user).__name__}")
    if not isinstance(one.properties, Mapping | None):
        raise TypeError(f"properties must be a mapping, not {type(one.properties).__name__}")
    return one


def _uuid_of(given: str | uuids.UUID | None) -> str | None:
    if given is None:
        return None
    text = str(given).lower()
    if not _UUID.fullmatch(text):
        raise Refused("invalid_payload")
    return text
