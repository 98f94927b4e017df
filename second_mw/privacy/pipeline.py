"""One posted event, a user and a mode in; payloads and a receipt out (spec §6 to §10).

Pure but for the clock and the memory of whom PostHog was told about. What came from the request
and what the server adds are encoded apart and joined last, so that the gate can look at the one
without the other.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from threading import Lock
from typing import Any, Final

import msgspec

from second_mw.errors import Refused, traced
from second_mw.payload import Payload, joined, rfc3339, tail_of, utc_now
from second_mw.privacy import names, routes, shapes, urls
from second_mw.privacy.anonymize import Anonymizer, Rulebook
from second_mw.privacy.catalogue import Catalogue
from second_mw.privacy.gate import Gate, Wanted
from second_mw.privacy.identify import Identified, claims, hashes_of, person_properties
from second_mw.privacy.identity import (
    Identity,
    Pieces,
    compact,
    folded,
    identity_of,
    searched,
    stands_in,
)
from second_mw.privacy.keyed import Keyed
from second_mw.privacy.mode import Mode, Word
from second_mw.privacy.quick import Quick
from second_mw.privacy.receipt import Line, Receipt
from second_mw.privacy.sanitize import CLAIMS, MAX_KEYS, PLANS, Remembered, Walk, clean_key
from second_mw.settings import RELEASE_FIELDS, Settings
from second_mw.user import AnalyticsUser
from second_mw.version import VERSION

logger: logging.Logger = logging.getLogger("second_mw")

#: A timestamp further ahead or back is not believed (spec §4).
MAX_AHEAD: Final = timedelta(minutes=5)
MAX_BEHIND: Final = timedelta(hours=72)

#: How many anonymous ids are remembered of a user.
_ANONYMOUS_IDS: Final = 8
#: For how many of a user's workspaces what identified events carry is kept encoded.
_WORKSPACES: Final = 16

#: How many users' identities are kept prepared.
_PREPARED_USERS: Final = 2048

_ANONYMOUS_ID: Final = re.compile(
    r"anon_[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
#: How our own timestamps and a browser's `toISOString` begin, up to the second, and end.
_SECOND: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.", re.ASCII)
_MILLISECONDS: Final = frozenset(f"{number:03}Z" for number in range(1000))
_SECOND_LENGTH: Final = 20
#: How many seconds are remembered: events come in the order of their times, as good as.
_SECONDS: Final = 256
#: Second → from when to when, since the epoch, all times in it are believed.
_believed_when: dict[str, tuple[float, float]] = {}
#: A text that stands in a uuid by chance is shorter than this.
_SHORTEST_IN_UUID: Final = 8
_HEX: Final = "0123456789abcdef"

#: The keys of an event that may tell its mode or workspace are nearly always these.
_USUALLY_TELLING: Final = ((), ("workspace_id",))

#: The options of all that leaves anonymized: one object, so that nothing that waits needs a
#: dictionary of its own. A host's hook, which might change it, is given another.
_NO_PERSON: Final = {"process_person_profile": False}

#: Posted property → PostHog's own name for it in identified mode (spec §9).
_PAGE = {"page_url": "$current_url", "pathname": "$pathname", "referrer": "$referrer"}
#: What identified mode says itself, or never.
_NEVER_HOOKED: Final = frozenset({"$anon_distinct_id", *_PAGE.values()})


def _plain(value: object) -> str:
    """Return a text of a class of its own, as Django's safe ones and enumerations are, as text."""
    if not isinstance(value, str):
        raise TypeError("only text of a class of its own is mended here")
    return str.__str__(value)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


class Telling(msgspec.Struct, frozen=True, gc=False):
    """Which keys of an event's properties tell something of it.

    Args:
        of_mode: those that ask for anonymity.
        of_workspace: those that name a workspace.
    """

    of_mode: tuple[str, ...]
    of_workspace: tuple[str, ...]


class Posted(msgspec.Struct, frozen=True, gc=False):
    """One event as it was posted, or as server code handed it over.

    Args:
        event: a name of the catalogue.
        properties: as decoded from JSON.
        uuid: a valid one, or None.
        timestamp: RFC 3339 text, an aware datetime, or anything else for "not known".
        anonymous_id: what the browser gave as its anonymous id, valid or not.
        word: what the event says of its own mode.
        workspace_id: the user's workspace that the event names, None if it names none.
        keys: those of its properties, empty if nobody has listed them yet.
    """

    event: str
    properties: Mapping[str, Any]
    uuid: str | None = None
    timestamp: object = None
    anonymous_id: object = None
    word: Word = "neutral"
    workspace_id: str | None = None
    keys: tuple[str, ...] = ()


class Finished(msgspec.Struct, frozen=True, gc=False):
    """What became of one posted event.

    Args:
        payloads: what enters the outbox in one put: a `$identify` first when one is due, then the
            event; empty if the host's hook dropped the event.
        receipt: what was done to each property; None unless receipts are kept.
        taken: to be called when the outbox has the payloads.
    """

    payloads: list[Payload]
    receipt: Receipt | None
    taken: Callable[[], None] | None


_NOTHING: Final = Finished([], None, None)


class Said(msgspec.Struct, frozen=True, gc=False):
    """What identified mode says of a user in one workspace, ready to leave.

    Args:
        hashes: of the `$set` of a `$identify`.
        identify: the properties of a `$identify`, encoded.
        event: what every event carries, encoded as it goes on behind the event's own.
    """

    hashes: dict[str, int]
    identify: bytes
    event: bytes


class Known(msgspec.Struct, frozen=True):
    """What is prepared once for a user.

    Args:
        user: the user it was prepared for.
        identity: what the scan looks for.
        wanted: what the gate looks for.
        in_uuids: what no uuid may hold, hyphens left out; by their first characters if many.
        uuid_signs: parts of those, each once, of which one occurs wherever one of them does.
        anonymous_ids: what browsers of this user gave as theirs and holds no identity: they keep
            one for long.
        clear: what the quick way has found to hold nothing of the user.
        key: what stands for the user in stored keys.
        said: workspace → what identified mode says of the user there.
    """

    user: AnalyticsUser
    identity: Identity
    wanted: Wanted
    in_uuids: Pieces | tuple[str, ...]
    uuid_signs: tuple[str, ...]
    anonymous_ids: set[str]
    clear: set[str]
    key: str
    said: dict[str | None, Said]
    can_be_identified: bool


class Pipeline:
    """The privacy core of one `Analytics`.

    Args:
        settings: precision, policies, release metadata, hooks.
        catalogue: the events that are taken.
        server_key: the key of every HMAC that stands for a user (spec §1).
        receipts: whether to keep a receipt of each event.
    """

    def __init__(
        self, settings: Settings, catalogue: Catalogue, server_key: bytes, *, receipts: bool = False
    ) -> None:
        self.catalogue = catalogue
        self._key = Keyed(server_key)
        self._on_event = settings.on_event
        self._receipts = receipts
        templates = routes.Templates(settings.routes) if settings.routes is not None else None
        self._templates = templates
        self._rules = Rulebook(
            catalogue,
            undeclared=settings.undeclared,
            precision=settings.precision,
            templates=templates,
        )
        # What it skips over, coarse numbers need.
        self._quick = Quick(self._rules) if settings.precision == "exact" else None
        self._gate = Gate(catalogue, templates.names if templates is not None else frozenset())
        self.added: dict[str, Any] = added_properties(settings)
        self._added_anonymized = tail_of(
            _encode({"anonymized": True, "analytics_consent_version": 1, **self.added})
        )
        self._identified = Identified()
        self._remembered = Remembered()
        self._walks: dict[str, Walk] = {}
        #: Event → keys that it had together → those of them that tell something.
        self._telling: dict[str, dict[tuple[str, ...], Telling]] = {
            event: {} for event in catalogue.events
        }
        self._added_identified = {
            "anonymized": False,
            "analytics_consent_version": 1,
            **self.added,
        }
        # Prepared once per user and kept in a bounded table, by id: a resolver makes a new object
        # for each request, and comparing two costs less than hashing one.
        self._known: dict[str, Known] = {}
        #: The table before, once that was full.
        self._earlier: dict[str, Known] = {}
        self._lock = Lock()
        self._warned_of_id = False

    def user_key(self, user_id: str) -> str:
        """Return what stands for a user in stored keys: never the id itself (spec §1)."""
        known = self._known.get(user_id)
        return known.key if known is not None else self._keyed(user_id)

    def _keyed(self, user_id: str) -> str:
        return self._key.digest(user_id).hex()

    def _known_of(self, user: AnalyticsUser) -> Known:
        known = self._known.get(user.id)
        if known is not None and (known.user is user or known.user == user):
            return known
        known = self._earlier.get(user.id)
        if known is None or known.user != user:
            known = self._prepared(user)
        with self._lock:
            if len(self._known) >= _PREPARED_USERS:
                # Whoever comes again before as many others do is carried over.
                self._earlier, self._known = self._known, {}
            # In one table at most: what was prepared of a user who has changed must not come back.
            self._earlier.pop(user.id, None)
            self._known[user.id] = known
        return known

    def _prepared(self, user: AnalyticsUser) -> Known:
        identity = identity_of(user, self._rules.words)
        in_uuids = _in_uuids(user, identity)
        return Known(
            user,
            identity,
            self._gate.wanted(user),
            in_uuids,
            _signs_of(in_uuids),
            set(),
            set(),
            self._keyed(user.id),
            {},
            user.can_be_identified,
        )

    def telling(self, event: str, keys: tuple[str, ...]) -> Telling:
        """Return which keys of an event's properties tell its mode or its workspace."""
        known = self._telling[event]
        telling = known.get(keys)
        if telling is None:
            silent = self._rules.silent[event]
            left = self._remembered.silent.get(event, ())
            others = tuple(key for key in keys if key not in silent and key not in left)
            # Server code may have any keys.
            asked = [key for key in others if isinstance(key, str)]
            telling = Telling(
                tuple(filter(names.asks_for_anonymity, asked)),
                tuple(filter(names.means_workspace, asked)),
            )
            # Whatever else is in them may be data, which no table holds (spec §17).
            if others in _USUALLY_TELLING and len(keys) <= MAX_KEYS:
                if len(known) >= PLANS:
                    known.clear()
                known[keys] = telling
        return telling

    def finish(self, posted: Posted, user: AnalyticsUser, mode: Mode) -> Finished:
        """Return the payloads of an event of the catalogue.

        Args:
            mode: what applies to a neutral event of this user in this request; the event's own
                word can only make it stricter.

        Raises:
            Refused: `not_taken`, because a hook failed or the gate found identity.
        """
        lines: list[Line] | None = [] if self._receipts else None
        known = self._known_of(user)
        if not known.can_be_identified and not self._warned_of_id:
            self._warn_of_id()
        if mode == "identified" and posted.word != "anonymized" and known.can_be_identified:
            return self._identified_event(posted, known, lines)
        return self._anonymized_event(posted, known, lines)

    def identify(self, user: AnalyticsUser, workspace_id: str | None) -> Finished:
        """Return a `$identify` for a user in identified mode, or nothing if none is due."""
        workspace = self._workspace(user) if workspace_id is None else workspace_id
        known = self._known_of(user)
        return self._identify(known, self._said(known, workspace), utc_now()) or _NOTHING

    def after_fork(self) -> None:
        """Take new locks in a forked child."""
        self._lock = Lock()
        self._identified.after_fork()

    def forget(self, user_id: str) -> None:
        """Forget that PostHog was told about a user."""
        self._identified.forget(self.user_key(user_id))

    # Anonymized

    def _anonymized_event(self, posted: Posted, known: Known, lines: list[Line] | None) -> Finished:
        if posted.word == "identified":
            # Captured identified, accepted as anonymized: nothing of it may be joined to what was
            # sent identified (spec §7).
            uuid, timestamp = random_uuid(), utc_now()
            distinct_id = None
        else:
            timestamp = believed(posted.timestamp)
            uuid, distinct_id = self._ids(posted, known)
        if distinct_id is None:
            distinct_id = f"anon_{self._derived('distinct_id', uuid)}"
        kept, named = self._anonymized_properties(posted, known, lines)
        properties = _encode(kept)
        if self._on_event is not None:
            payload = Payload(
                posted.event,
                uuid,
                distinct_id,
                timestamp,
                properties,
                {"process_person_profile": False},
            )
            hooked = self._hooked(payload, anonymized=True)
            if hooked is None:
                return _NOTHING
            properties = hooked
        if self._gate.stops(posted.event, properties, uuid, distinct_id, known.wanted, named):
            logger.error(
                "second_mw's privacy gate stopped an anonymized %r event: a rule let identity "
                "through. Nothing was sent; please report this",
                posted.event,
            )
            raise Refused("not_taken", counted="privacy_gate")
        final = Payload(
            posted.event,
            uuid,
            distinct_id,
            timestamp,
            joined(properties, self._added_anonymized),
            _NO_PERSON,
        )
        receipt = None if lines is None else _receipt(final, "anonymized", lines)
        return Finished([final], receipt, None)

    def _anonymized_properties(
        self, posted: Posted, known: Known, lines: list[Line] | None
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the properties as they leave, and what the event's Ident values named."""
        if lines is None and self._quick is not None:
            quick = self._quick.properties(
                posted.event, posted.properties, known.identity, known.clear, posted.keys
            )
            if quick is not None:
                return quick
        event = self.catalogue.events[posted.event]
        walk = Anonymizer(self._rules, event, known.identity, lines)
        return walk.properties(posted.properties), walk.named

    def _ids(self, posted: Posted, known: Known) -> tuple[str, str | None]:
        """Return uuid and anonymous id as they leave: as posted, unless they hold identity."""
        uuid, anonymous = posted.uuid, posted.anonymous_id
        if uuid is None:
            uuid = random_uuid()
        elif _is_in_uuid(known, uuid):
            # The same on a retry, so that the event is stored once all the same.
            uuid = self._derived("uuid", uuid)
        if not isinstance(anonymous, str):
            return uuid, None
        if anonymous in known.anonymous_ids:
            return uuid, anonymous
        anonymous = anonymous_id(anonymous, known)
        if anonymous is not None:
            if len(known.anonymous_ids) >= _ANONYMOUS_IDS:
                known.anonymous_ids.clear()
            known.anonymous_ids.add(anonymous)
        return uuid, anonymous

    def _derived(self, purpose: str, uuid: str) -> str:
        """Return a version 4 UUID that only this server can derive from a posted one."""
        return _as_uuid(self._key.digest(f"{purpose}:{uuid}"))

    def _warn_of_id(self) -> None:
        self._warned_of_id = True
        logger.warning(
            "second_mw: a user's id can't be a distinct_id (it is longer than 200 characters, "
            "begins with anon_, or is a word such as `user` or `0` that PostHog would merge "
            "strangers under). Events of such users are sent anonymized, whatever they choose; "
            "give AnalyticsUser an id of its own"
        )

    # Identified

    def _identified_event(self, posted: Posted, known: Known, lines: list[Line] | None) -> Finished:
        user = known.user
        timestamp = believed(posted.timestamp)
        workspace = posted.workspace_id
        if workspace is None:
            workspace = self._workspace(user)
        walk = self._walks.get(posted.event) if lines is None else None
        if walk is None:
            walk = self._walk(posted.event, lines)
        kept = walk.properties(posted.properties, posted.keys)
        uuid = posted.uuid or random_uuid()
        properties = _encode(kept)
        if self._on_event is not None:
            payload = Payload(posted.event, uuid, user.id, timestamp, properties)
            hooked = self._hooked(payload, anonymized=False)
            if hooked is None:
                return _NOTHING
            properties = hooked
        # The keys of `_PAGE`, by name: a third of the cost of asking for all of them.
        if "page_url" in kept or "pathname" in kept or "referrer" in kept:
            properties = joined(properties, tail_of(_encode(_page_of(kept))))
        said = self._said(known, workspace)
        final = Payload(posted.event, uuid, user.id, timestamp, joined(properties, said.event))
        receipt = None if lines is None else _receipt(final, "identified", lines)
        due = self._identify(known, said, timestamp)
        if due is None:
            return Finished([final], receipt, None)
        return Finished([*due.payloads, final], receipt, due.taken)

    def _walk(self, event: str, lines: list[Line] | None) -> Walk:
        """Return a walk; one without a receipt keeps nothing of an event and does for all."""
        walk = Walk(self.catalogue.events[event], self._templates, lines, self._remembered)
        if lines is None:
            self._walks[event] = walk
        return walk

    def _said(self, known: Known, workspace: str | None) -> Said:
        user, said = known.user, known.said
        found = said.get(workspace)
        if found is None:
            person = person_properties(user, workspace)
            found = Said(
                hashes_of(person),
                _encode({"$set": person, **self._added_identified}),
                tail_of(_encode({**claims(user, workspace), **self._added_identified})),
            )
            if len(said) < _WORKSPACES:
                said[workspace] = found
        return found

    def _workspace(self, user: AnalyticsUser) -> str | None:
        """Return the user's only workspace, none without or with several (spec §9)."""
        workspaces = user.workspaces
        return next(iter(workspaces)) if workspaces and len(workspaces) == 1 else None

    def _identify(self, known: Known, said: Said, timestamp: str) -> Finished | None:
        clock = time.monotonic()
        if not self._identified.is_due(known.key, said.hashes, clock):
            return None
        payload = Payload("$identify", random_uuid(), known.user.id, timestamp, said.identify)
        told = partial(self._identified.told, known.key, said.hashes, clock)
        return Finished([payload], None, told)

    # The host's hook

    def _hooked(self, payload: Payload, *, anonymized: bool) -> bytes | None:
        """Return the properties that the host's `on_event` leaves, None if it drops the event.

        It sees the event before the server's properties and the gate, so it can't leak; only the
        properties that it returns are taken over, and of these none that are the server's to say:
        `$set` would make a person of an anonymized event, and twice the same key has two meanings.
        """
        assert self._on_event is not None  # noqa: S101 - asked by the caller, for speed
        try:
            changed = self._on_event(payload)
            if changed is None:
                return None
            decoded = msgspec.json.decode(changed.properties, type=dict[str, Any])
            return _encode(
                {key: decoded[key] for key in decoded if self._may_be_hooked(key, anonymized)}
            )
        except Exception as error:
            # Without its words, which may quote a property.
            logger.error(
                "second_mw: the on_event hook failed; the event was not taken: %s", traced(error)
            )
            raise Refused("not_taken") from None

    def _may_be_hooked(self, key: str, anonymized: bool) -> bool:
        """Whether a property may be a hook's: of PostHog's own names a few, where people are."""
        rule = clean_key(key, top=True).rule
        if rule == "posthog_key":
            is_known = key.startswith("$") and key not in self.added and key not in _NEVER_HOOKED
            return is_known and not anonymized
        return rule in (None, "secret_key") and key not in CLAIMS


def added_properties(settings: Settings) -> dict[str, Any]:
    """Return what every payload carries (spec §10)."""
    added: dict[str, Any] = {
        "release_version": settings.release_version,
        "release_package": settings.release_package,
        "release_runtime": settings.release_runtime,
        "cli_launcher_version": settings.cli_launcher_version,
        "cli_launcher_package": settings.cli_launcher_package,
        "auth_mode": settings.auth_mode,
        "installation_mode": settings.installation_mode,
        "second_mw": VERSION,
        "$lib": "second-mw",
        "$lib_version": VERSION,
        # PostHog would else store the sender's address: ours, or on a laptop the person's.
        "$ip": "0.0.0.0",  # noqa: S104
    }
    if settings.disable_geoip:
        added["$geoip_disable"] = True
    _warn_of_shapes(settings)
    return added


def _warn_of_shapes(settings: Settings) -> None:
    """Say once, at start-up, that a release value looks like something that identifies."""
    for name in RELEASE_FIELDS:
        value = getattr(settings, name)
        # A commit's hash is what a release version often is.
        shape = value and shapes.shape_of(value, version=True)
        if shape and shape != "hex":
            logger.warning(
                "second_mw sends %s with every event, and its value looks like %s", name, shape
            )


def _page_of(kept: Mapping[str, Any]) -> dict[str, str]:
    """Return the page of an identified event under PostHog's own names (spec §9)."""
    return {
        name: urls.clean_url(value)
        for key, name in _PAGE.items()
        if (value := kept.get(key)) and isinstance(value, str)
    }


def anonymous_id(posted: str, known: Known) -> str | None:
    """Return the browser's anonymous id if it is one and free of identity, else None (spec §8)."""
    lowered = posted.lower()
    if _ANONYMOUS_ID.fullmatch(lowered) is None or _is_in_uuid(known, lowered):
        return None
    return lowered


def _is_in_uuid(known: Known, uuid: str) -> bool:
    bare = uuid.replace("-", "")
    for sign in known.uuid_signs:
        if sign in bare:
            return stands_in(known.in_uuids, bare)
    return False


def _signs_of(in_uuids: Pieces | tuple[str, ...]) -> tuple[str, ...]:
    """Return a part of each of these texts, near its beginning: ids were often made together.

    Without the first two: a word in hexadecimal and the same with a capital differ in those alone.
    """
    if isinstance(in_uuids, Pieces):
        return ("",)
    return tuple(dict.fromkeys(text[2:_SHORTEST_IN_UUID] for text in in_uuids))


def _in_uuids(user: AnalyticsUser, identity: Identity) -> Pieces | tuple[str, ...]:
    """Return what no uuid of this user's events may hold, hyphens left out (spec §8).

    Whatever has another letter than a to f can't stand in one, but for what begins with `anon_`;
    and what is shorter than 8 stands in one of a hundred by chance. A uuid may spell a text in
    hexadecimal, too.
    """
    texts = [compact(folded(text)).removeprefix("anon") for text in _ids_of(user)]
    texts += [*map(compact, identity.anywhere), *identity.digits, *identity.names]
    in_hex = [
        spelled.encode().hex()
        for text in texts
        if 4 <= len(text) <= 16 and text.isascii()
        for spelled in (text, text.title(), text.upper())
    ]
    return searched(
        [
            *in_hex,
            *(
                text
                for text in texts
                if _SHORTEST_IN_UUID <= len(text) <= 32 and not text.strip(_HEX)
            ),
        ]
    )


def _ids_of(user: AnalyticsUser) -> tuple[str, ...]:
    return (user.id, *user.aliases, *(user.workspaces or ()))


def random_uuid() -> str:
    """Return a version 4 UUID as text, for a third of what `uuid.uuid4` costs."""
    return _as_uuid(os.urandom(16))


def _as_uuid(raw: bytes) -> str:
    """Return the first 16 bytes as the text of a version 4 UUID."""
    text = raw[:16].hex()
    variant = "89ab"[raw[8] >> 6]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def _now() -> datetime:
    return datetime.now(timezone.utc)


def believed(posted: object) -> str:
    """Return an event's own time as it leaves, or the server's if it isn't believed (spec §4)."""
    if posted is None:
        return utc_now()
    if isinstance(posted, str) and posted[_SECOND_LENGTH:] in _MILLISECONDS:
        # What a browser's `toISOString` writes stays as it is, and all of one second are believed
        # as long: a tenth of the cost below.
        second = posted[:_SECOND_LENGTH]
        when = _believed_when.get(second) or _when(second)
        if when is not None and when[0] <= time.time() <= when[1]:
            return posted
    return _believed(posted)


def _when(second: str) -> tuple[float, float] | None:
    """Return from when to when, since the epoch, times in this second are believed for certain."""
    if not _SECOND.fullmatch(second):
        return None
    try:
        began = msgspec.convert(f"{second}000Z", datetime)
        earliest = began + timedelta(seconds=1) - MAX_AHEAD
        when = earliest.timestamp(), (began + MAX_BEHIND).timestamp()
    except (msgspec.ValidationError, OverflowError):
        return None
    if not when[0] <= time.time() <= when[1]:
        # What is replaced is not remembered (spec §17).
        return None
    if len(_believed_when) >= _SECONDS:
        _believed_when.clear()
    _believed_when[second] = when
    return when


def _believed(posted: object) -> str:
    now = _now()
    moment = posted
    if isinstance(posted, str):
        try:
            moment = msgspec.convert(posted, datetime)
        except msgspec.ValidationError:
            return rfc3339(now)
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        return rfc3339(now)
    try:
        is_near = now - MAX_BEHIND <= moment <= now + MAX_AHEAD
    except OverflowError:
        is_near = False
    return rfc3339(moment if is_near else now)


def _receipt(payload: Payload, mode: Mode, lines: list[Line]) -> Receipt:
    return Receipt(payload.uuid, payload.distinct_id, payload.event, mode, tuple(lines))
