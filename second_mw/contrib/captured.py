"""What the pytest plugin collects, and how it takes the place of every outbox meanwhile.

A payload is judged here by code of its own, on what would leave, so that a host's test does not
rest on the rules that it tests.
"""

from __future__ import annotations

import base64
import binascii
import html
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, overload
from urllib.parse import unquote

import msgspec

from second_mw import process
from second_mw.analytics import Analytics
from second_mw.forwarder.dispatcher import Flushed
from second_mw.outbox.memory import MemoryStore
from second_mw.outbox.outbox import Outbox
from second_mw.payload import Payload
from second_mw.preferences.memory import MemoryPreferences
from second_mw.privacy.exempt import IN_MODELS
from second_mw.privacy.identify import Identified
from second_mw.privacy.mode import Mode
from second_mw.privacy.pipeline import Finished, Pipeline, Posted
from second_mw.privacy.receipt import Receipt
from second_mw.settings import OFF_SWITCHES, Settings
from second_mw.user import AnalyticsUser


@dataclass(frozen=True)
class CapturedEvent:
    """One event as it would be sent.

    Args:
        event, distinct_id, uuid, timestamp: as PostHog would get them.
        properties: all of them, the server's own included.
        mode: `anonymized` or `identified`.
        receipt: what was done to each posted property; None for a `$identify` and for what went
            into the outbox by hand.
        user: whose event it is; None for what went into the outbox by hand.
    """

    event: str
    distinct_id: str
    uuid: str
    timestamp: str
    properties: dict[str, Any]
    mode: Literal["anonymized", "identified"]
    receipt: Receipt | None = None
    user: AnalyticsUser | None = None


class CapturedEvents(Sequence[CapturedEvent]):
    """The events of a test, oldest first: a sequence, with questions that tests ask of it."""

    def __init__(self) -> None:
        self._events: list[CapturedEvent] = []
        self._receipts: dict[str, Receipt] = {}
        self._users: dict[str, AnalyticsUser] = {}
        self._words: frozenset[str] = frozenset()
        self._server_keys: set[str] = set()

    def __repr__(self) -> str:
        return f"<CapturedEvents {self.names}>"

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> CapturedEvent: ...

    @overload
    def __getitem__(self, index: slice) -> list[CapturedEvent]: ...

    def __getitem__(self, index: int | slice) -> CapturedEvent | list[CapturedEvent]:
        found = self._events[index]
        if isinstance(found, list):
            return [self._with_receipt(event) for event in found]
        return self._with_receipt(found)

    def _with_receipt(self, event: CapturedEvent) -> CapturedEvent:
        return replace(event, receipt=self._receipts.get(event.uuid))

    @property
    def names(self) -> list[str]:
        """The events' names, in order."""
        return [event.event for event in self._events]

    def named(self, name: str) -> list[CapturedEvent]:
        """Return the events of this name."""
        return [event for event in self if event.event == name]

    def clear(self) -> None:
        """Forget what was captured so far, for a test's next act."""
        self._events.clear()

    def watch(self, analytics: Analytics) -> None:
        """Collect from an `Analytics` too that can't be found by itself, such as a subclass's."""
        divert(analytics, self)

    def assert_anonymous(self, user: AnalyticsUser) -> None:
        """Assert that every event so far is anonymized and that none names this user.

        Raises:
            AssertionError: the message says which event, which property and what kind of thing it
                holds, never the thing itself.
        """
        for event in self:
            if event.mode != "anonymized":
                raise AssertionError(f"{event.event!r} is identified")
            self._assert_names_nobody(event, user)

    def assert_nothing_identifying(self) -> None:
        """Assert that no anonymized event names its own user; called at the end of the test.

        One that went into the outbox by hand under an `anon_` id has no user: it may name none that
        the test has seen, and hold no e-mail address.

        Raises:
            AssertionError: as `assert_anonymous`.
        """
        for event in self:
            if event.user is None:
                if event.distinct_id.startswith("anon_"):
                    self._assert_names_none_of_all(event)
            elif event.mode == "anonymized":
                self._assert_names_nobody(event, event.user)

    def _assert_names_none_of_all(self, event: CapturedEvent) -> None:
        for user in dict.fromkeys(self._users.values()):
            if (place := _found_in(event, user, self._words, self._server_keys)) is not None:
                raise AssertionError(f"{event.event!r} is anonymized and holds a user's {place}")
        for key, value in event.properties.items():
            if key not in self._server_keys and any(map(_EMAIL.search, _texts({key: value}))):
                raise AssertionError(
                    f"{event.event!r} is anonymized and holds an e-mail address under {key!r}"
                )

    def _assert_names_nobody(self, event: CapturedEvent, user: AnalyticsUser) -> None:
        if event.properties.get("$process_person_profile") is not False:
            raise AssertionError(f"{event.event!r} would make a person profile")
        if not event.distinct_id.startswith("anon_"):
            raise AssertionError(f"{event.event!r} is anonymized and has a distinct_id of a person")
        if (place := _found_in(event, user, self._words, self._server_keys)) is not None:
            raise AssertionError(f"{event.event!r} is anonymized and holds the user's {place}")

    def add(self, payload: Payload) -> None:
        """Take a payload as its outbox would: what is posted twice waits once."""
        key = (payload.distinct_id, payload.uuid)
        if any((event.distinct_id, event.uuid) == key for event in self._events):
            return
        properties = msgspec.json.decode(payload.properties)
        if "process_person_profile" in payload.options:
            properties["$process_person_profile"] = payload.options["process_person_profile"]
        self._events.append(
            CapturedEvent(
                payload.event,
                payload.distinct_id,
                payload.uuid,
                payload.timestamp,
                properties,
                "anonymized" if properties.get("anonymized") is True else "identified",
                user=self._users.get(payload.uuid),
            )
        )

    def learn(self, finished: Finished, user: AnalyticsUser, pipeline: Pipeline) -> Finished:
        """Learn whose payloads are about to come, and what their receipt says."""
        self._words |= pipeline.catalogue.words
        self._server_keys |= set(pipeline.added)
        for payload in finished.payloads:
            self._users[payload.uuid] = user
        if finished.receipt is not None:
            self._receipts[finished.receipt.uuid] = finished.receipt
        return finished


class FakeUsers:
    """Makes users that nobody is, with names that stand in no catalogue."""

    _NAMES: Final = ("Zelda Quartermain", "Ottoline Brassington", "Phineas Wexcombe", "Ysolde Tarn")

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def next(self, **fields: Any) -> AnalyticsUser:
        """Return another user; `fields` replace what it would be given."""
        number = next(self._numbers)
        name = self._NAMES[(number - 1) % len(self._NAMES)]
        mail = f"{name.split()[0].lower()}{number}@{name.split()[1].lower()}.example"
        return AnalyticsUser(
            **{
                "id": f"fake-user-{number:04d}-{name.split()[1].lower()}",
                "email": mail,
                "name": name,
                "workspaces": {f"fake-workspace-{number:04d}": "member"},
                **fields,
            }
        )


# Taking the place of the outbox


class _Store(MemoryStore):
    """Gives what it is given to the captured events, and has nothing for a forwarder."""

    def __init__(self, events: CapturedEvents) -> None:
        super().__init__()
        self._captured = events

    def put(self, payloads: Sequence[Payload]) -> int:
        for payload in payloads:
            self._captured.add(payload)
        return len(payloads)


@contextmanager
def capturing(events: CapturedEvents) -> Iterator[None]:
    """Collect from every `Analytics` that lives, or is made, until the block ends."""
    wire = Analytics._wire
    switches = {name: os.environ.pop(name) for name in OFF_SWITCHES if name in os.environ}

    def wired(analytics: Analytics, settings: Settings) -> None:
        # Nothing is opened that the settings name: no file, no socket.
        disabled_by = None if settings.disabled_by == "no token" else settings.disabled_by
        wire(
            analytics,
            replace(
                settings,
                outbox="memory://",
                preferences="memory://",
                forward=True,
                disabled_by=disabled_by,
            ),
        )
        divert(analytics, events)

    living = [one for one in process.living() if isinstance(one, Analytics)]
    undone = [divert(analytics, events, switches) for analytics in living]
    Analytics._wire = wired  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Analytics._wire = wire  # type: ignore[method-assign]
        for undo in undone:
            undo()
        for name, value in switches.items():
            os.environ.setdefault(name, value)


def divert(
    analytics: Analytics, events: CapturedEvents, lifted: Container[str] = ()
) -> Callable[[], None]:
    """Let an `Analytics` give what it accepts to `events`; return what undoes it.

    Args:
        lifted: off switches that no longer hold.
    """
    settings, pipeline = analytics.settings, analytics.pipeline
    finish, identify = pipeline.finish, pipeline.identify

    def finished(posted: Posted, user: AnalyticsUser, mode: Mode) -> Finished:
        return events.learn(finish(posted, user, mode), user, pipeline)

    def identified(user: AnalyticsUser, workspace_id: str | None) -> Finished:
        return events.learn(identify(user, workspace_id), user, pipeline)

    # In place, because the adapters hold what was wired when they were made.
    changed: list[tuple[Any, dict[str, Any]]] = [
        (
            analytics,
            {
                "outbox": Outbox(_Store(events), pipeline.added, _wake_nobody),
                "preferences": MemoryPreferences(),
                "flush": _nothing_waits,
                "close": _nothing_waits,
            },
        ),
        (
            pipeline,
            {
                "finish": finished,
                "identify": identified,
                "_receipts": True,
                # Nobody has been told of anybody when a test begins.
                "_identified": Identified(),
            },
        ),
    ]
    if settings.disabled_by == "no token" or settings.disabled_by in lifted:
        changed.append((settings, {"disabled_by": None}))
    kept = [
        (owner, {name: vars(owner).get(name, _OF_CLASS) for name in new}) for owner, new in changed
    ]
    _assign(changed)
    return lambda: _assign(kept)


#: Stands for an attribute that the object has of its class.
_OF_CLASS: Final = object()


def _assign(values: Iterable[tuple[Any, dict[str, Any]]]) -> None:
    for owner, fields in values:
        for name, value in fields.items():
            if value is _OF_CLASS:
                object.__delattr__(owner, name)
            else:
                object.__setattr__(owner, name, value)  # settings are frozen


def _wake_nobody(count: int = 0) -> None:
    """There is nothing for a forwarder to do."""


def _nothing_waits(timeout: float | None = None) -> Flushed:
    return Flushed(0, 0)


# Looking for a person in an event, by code of its own

_WORD = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){4,}")
_EMAIL = re.compile(r"[^\s@]@[^\s@.]+\.[^\s@]")


def _found_in(
    event: CapturedEvent, user: AnalyticsUser, exempt: frozenset[str], skipped: Container[str]
) -> str | None:
    """Return which part of a user an event holds and under which property, None if none."""
    parts = list(_parts_of(user, exempt))
    posted = {key: value for key, value in event.properties.items() if key not in skipped}
    for place, given in (("distinct_id", event.distinct_id), ("uuid", event.uuid)):
        for what, needle, _ in parts:
            # A uuid has 32 hexadecimal digits, in which a short name stands by chance.
            if len(bare := needle.replace("-", "")) >= 8 and bare in _bare(given):
                return f"{what} under {place!r}"
    places = [(key, text) for key, value in posted.items() for text in _texts({key: value})]
    for place, text in places:
        for view in _views(text, layers=2):
            words = _words(view)
            for what, needle, anywhere in parts:
                if (needle in _folded(view)) if anywhere else _holds(words, _words(needle)):
                    return f"{what} under {place!r}"
    return None


def _parts_of(user: AnalyticsUser, exempt: frozenset[str]) -> Iterator[tuple[str, str, bool]]:
    """Yield what identifies a user: what it is, its text, and whether it counts inside a word."""
    for what, texts in (
        ("id", (user.id,)),
        ("alias", user.aliases),
        ("workspace", tuple(user.workspaces or ())),
    ):
        for text in map(_folded, texts):
            # A short or plain one stands in other words by chance.
            if len(text) >= 4 and text not in exempt:
                yield what, text, len(text) >= 8 and not text.isalpha() and not text.isdigit()
    if user.email:
        email = _folded(user.email)
        yield "e-mail", email, True
        local = email.rpartition("@")[0]
        if len(local) >= 4 and local not in exempt:
            yield "e-mail's local part", local, False
    for part in _folded(user.name or "").split():
        if len(part) >= 3 and part not in exempt and part not in IN_MODELS:
            yield "name", part, False


def _texts(value: Any) -> Iterator[str]:
    """Yield every key, string and number of a value as text."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif not isinstance(value, bool) and value is not None:
        yield str(value)


def _views(text: str, layers: int) -> Iterator[str]:
    """Yield a text as it is and as it reads decoded."""
    yield text
    if layers == 0:
        return
    decoded = {unquote(text), html.unescape(text), *_decoded(text)} - {text}
    for one in sorted(decoded):
        yield from _views(one, layers - 1)


def _decoded(text: str) -> Iterator[str]:
    for found in _HEX.findall(text):
        yield bytes.fromhex(found).decode(errors="ignore")
    for found in _BASE64.findall(text):
        plain = found.rstrip("=").translate(str.maketrans("-_", "+/"))
        try:
            yield base64.b64decode(plain + "=" * (-len(plain) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue


def _bare(uuid: str) -> str:
    return uuid.replace("-", "").casefold()


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _words(text: str) -> list[str]:
    return _WORD.findall(_folded(_CAMEL.sub(" ", unicodedata.normalize("NFKC", text))))


def _holds(words: list[str], wanted: list[str]) -> bool:
    """Whether the words stand in the text one after the other."""
    length = len(wanted)
    return any(words[i : i + length] == wanted for i in range(len(words) - length + 1))
