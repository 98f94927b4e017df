"""One posted event, a user and a mode in; payloads and a receipt out (spec §6 to §10).

Pure but for the clock and the memory of whom PostHog was told about. What came from the request
and what the server adds are encoded apart and joined last, so that the gate can look at the one
without the other.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import uuid as uuids
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from second_mw.errors import Refused
from second_mw.payload import Payload, joined, rfc3339
from second_mw.privacy import identity as identities
from second_mw.privacy import routes, shapes, urls
from second_mw.privacy.anonymize import Anonymizer, Rulebook
from second_mw.privacy.catalogue import Catalogue
from second_mw.privacy.gate import Gate
from second_mw.privacy.identify import Identified, claims, person_properties
from second_mw.privacy.identity import Identity
from second_mw.privacy.mode import Mode, Word
from second_mw.privacy.receipt import Line, Receipt
from second_mw.privacy.sanitize import Walk
from second_mw.settings import Settings
from second_mw.user import AnalyticsUser
from second_mw.version import VERSION

logger = logging.getLogger("second_mw")

#: A timestamp further ahead or back is not believed (spec §4).
MAX_AHEAD: Final = timedelta(minutes=5)
MAX_BEHIND: Final = timedelta(hours=72)

#: How many users' identities are kept prepared.
_PREPARED_USERS: Final = 2048

_ANONYMOUS_ID: Final = re.compile(
    r"anon_([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})"
)

#: Posted property → PostHog's own name for it in identified mode (spec §9).
_PAGE = (("page_url", "$current_url"), ("pathname", "$pathname"), ("referrer", "$referrer"))

_encode = msgspec.json.Encoder().encode


class Posted(msgspec.Struct, frozen=True):
    """One event as it was posted, or as server code handed it over.

    Args:
        event: a name of the catalogue.
        properties: as decoded from JSON.
        uuid: a valid one, or None.
        timestamp: RFC 3339 text, an aware datetime, or anything else for "not known".
        anonymous_id: what the browser gave as its anonymous id, valid or not.
        word: what the event says of its own mode.
        workspace_id: the user's workspace that the event names, None if it names none.
    """

    event: str
    properties: Mapping[str, Any]
    uuid: str | None = None
    timestamp: object = None
    anonymous_id: object = None
    word: Word = "neutral"
    workspace_id: str | None = None


class Finished(NamedTuple):
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
        self._server_key = server_key
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
        self._gate = Gate(catalogue)
        self.added = added_properties(settings)
        self._added_anonymized = _encode(
            {"anonymized": True, "analytics_consent_version": 1, **self.added}
        )
        self._identified = Identified()
        # Prepared once per user and kept in a bounded cache.
        self._identity_of = lru_cache(_PREPARED_USERS)(self._prepared)

    def user_key(self, user_id: str) -> str:
        """Return what stands for a user in stored keys: never the id itself (spec §1)."""
        return hmac.new(self._server_key, user_id.encode(errors="replace"), "sha256").hexdigest()

    def finish(self, posted: Posted, user: AnalyticsUser, mode: Mode) -> Finished:
        """Return the payloads of an event of the catalogue.

        Args:
            mode: what applies to a neutral event of this user in this request; the event's own
                word can only make it stricter.

        Raises:
            Refused: `not_taken`, because a hook failed or the gate found identity.
        """
        lines: list[Line] | None = [] if self._receipts else None
        if mode == "identified" and posted.word != "anonymized" and user.can_be_identified:
            return self._identified_event(posted, user, lines)
        return self._anonymized_event(posted, user, lines)

    def identify(self, user: AnalyticsUser, workspace_id: str | None) -> Finished:
        """Return a `$identify` for a user in identified mode, or nothing if none is due."""
        return self._identify(user, self._workspace(user, workspace_id), _now())

    def after_fork(self) -> None:
        """Take new locks in a forked child."""
        self._identified.after_fork()

    def forget(self, user_id: str) -> None:
        """Forget that PostHog was told about a user."""
        self._identified.forget(self.user_key(user_id))

    # Anonymized

    def _anonymized_event(
        self, posted: Posted, user: AnalyticsUser, lines: list[Line] | None
    ) -> Finished:
        identity = self._identity_of(user)
        now = _now()
        if posted.word == "identified":
            # Captured identified, accepted as anonymized: nothing of it may be joined to what was
            # sent identified (spec §7).
            uuid, timestamp, distinct_id = str(uuids.uuid4()), now, None
        else:
            uuid = self._uuid(posted.uuid, identity)
            timestamp = _believed(posted.timestamp, now)
            distinct_id = anonymous_id(posted.anonymous_id, identity)
        if distinct_id is None:
            distinct_id = self._one_off_id(uuid)
        walk = Anonymizer(self._rules, self.catalogue.events[posted.event], identity, lines)
        properties = walk.properties(posted.properties)
        payload = Payload(
            posted.event,
            uuid,
            distinct_id,
            rfc3339(timestamp),
            _encode(properties),
            {"process_person_profile": False},
        )
        hooked = self._hooked(payload)
        if hooked is None:
            return Finished([], None, None)
        if self._gate.holds(hooked, user, walk.named):
            logger.error(
                "second_mw's privacy gate stopped an anonymized %r event: a rule let identity "
                "through. Nothing was sent; please report this",
                posted.event,
            )
            raise Refused("not_taken", counted="privacy_gate")
        final = msgspec.structs.replace(
            hooked, properties=joined(hooked.properties, self._added_anonymized)
        )
        return Finished([final], _receipt(final, "anonymized", lines), None)

    def _prepared(self, user: AnalyticsUser) -> Identity:
        return identities.identity_of(user, self._rules.words)

    def _uuid(self, posted: str | None, identity: Identity) -> str:
        if posted is None:
            return str(uuids.uuid4())
        if not _in_hex(identity, posted):
            return posted
        # The same on a retry, so that the event is stored once all the same.
        return str(self._derived("uuid", posted))

    def _one_off_id(self, uuid: str) -> str:
        return f"anon_{self._derived('distinct_id', uuid)}"

    def _derived(self, purpose: str, uuid: str) -> uuids.UUID:
        digest = hmac.new(self._server_key, f"{purpose}:{uuid}".encode(), hashlib.sha256).digest()
        return uuids.UUID(bytes=digest[:16], version=4)

    # Identified

    def _identified_event(
        self, posted: Posted, user: AnalyticsUser, lines: list[Line] | None
    ) -> Finished:
        timestamp = _believed(posted.timestamp, _now())
        workspace = self._workspace(user, posted.workspace_id)
        walk = Walk(self.catalogue.events[posted.event], self._templates, lines)
        properties = walk.properties(posted.properties)
        page = {
            name: urls.clean_url(properties[key])
            for key, name in _PAGE
            if isinstance(properties.get(key), str) and properties[key]
        }
        payload = Payload(
            posted.event,
            posted.uuid or str(uuids.uuid4()),
            user.id,
            rfc3339(timestamp),
            _encode(properties),
        )
        hooked = self._hooked(payload)
        if hooked is None:
            return Finished([], None, None)
        added = {**page, **claims(user, workspace), **self._identified_properties}
        final = msgspec.structs.replace(
            hooked, properties=joined(hooked.properties, _encode(added))
        )
        due = self._identify(user, workspace, timestamp)
        receipt = _receipt(final, "identified", lines)
        return Finished([*due.payloads, final], receipt, due.taken)

    @property
    def _identified_properties(self) -> dict[str, Any]:
        return {"anonymized": False, "analytics_consent_version": 1, **self.added}

    def _workspace(self, user: AnalyticsUser, named: str | None) -> str | None:
        """Return the event's workspace, or the user's only one, or none (spec §9)."""
        if named is not None:
            return named
        only = list(user.workspaces or ())
        return only[0] if len(only) == 1 else None

    def _identify(
        self, user: AnalyticsUser, workspace: str | None, timestamp: datetime
    ) -> Finished:
        key = self.user_key(user.id)
        person = person_properties(user, workspace)
        clock = time.monotonic()
        if not self._identified.is_due(key, person, clock):
            return Finished([], None, None)
        payload = Payload(
            "$identify",
            str(uuids.uuid4()),
            user.id,
            rfc3339(timestamp),
            _encode({"$set": person, **self._identified_properties}),
        )
        return Finished([payload], None, lambda: self._identified.told(key, person, clock))

    # The host's hook

    def _hooked(self, payload: Payload) -> Payload | None:
        """Return what the host's `on_event` makes of a payload, None if it drops the event.

        It sees the event before the server's properties and the gate, so it can't leak; only the
        properties that it returns are taken over.
        """
        if self._on_event is None:
            return payload
        try:
            changed = self._on_event(payload)
            if changed is None:
                return None
            decoded = msgspec.json.decode(changed.properties, type=dict[str, Any])
            return msgspec.structs.replace(payload, properties=_encode(decoded))
        except Exception:
            logger.exception("second_mw: the on_event hook failed; the event was not taken")
            raise Refused("not_taken") from None


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
    for name in (
        "release_version",
        "release_package",
        "release_runtime",
        "cli_launcher_version",
        "cli_launcher_package",
        "auth_mode",
        "installation_mode",
    ):
        value = getattr(settings, name)
        # A commit's hash is what a release version often is.
        shape = value and shapes.shape_of(value, version=True)
        if shape and shape != "hex":
            logger.warning(
                "second_mw sends %s with every event, and its value looks like %s", name, shape
            )


def anonymous_id(posted: object, identity: Identity) -> str | None:
    """Return the browser's anonymous id if it is one and free of identity, else None (spec §8)."""
    if not isinstance(posted, str):
        return None
    lowered = posted.lower()
    found = _ANONYMOUS_ID.fullmatch(lowered)
    if found is None or _in_hex(identity, found[1]):
        return None
    return lowered


def _in_hex(identity: Identity, uuid: str) -> bool:
    """Whether a uuid holds identity, hyphens left out on both sides.

    Under 8 characters only the whole would count, and a uuid has 32: a short id stands in one
    uuid of a hundred by chance.
    """
    plain = uuid.replace("-", "").lower()
    for needle in (*identity.anywhere, *identity.digits, *identity.words, *identity.phrases):
        bare = needle.replace("-", "")
        if len(bare) >= 8 and bare in plain:
            return True
    return False


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _believed(posted: object, now: datetime) -> datetime:
    """Return an event's own time, or the server's where it can't be believed (spec §4)."""
    if isinstance(posted, str):
        try:
            posted = msgspec.convert(posted, datetime)
        except msgspec.ValidationError:
            return now
    if not isinstance(posted, datetime) or posted.tzinfo is None:
        return now
    try:
        return posted if now - MAX_BEHIND <= posted <= now + MAX_AHEAD else now
    except OverflowError:
        return now


def _receipt(payload: Payload, mode: Mode, lines: list[Line] | None) -> Receipt | None:
    if lines is None:
        return None
    return Receipt(payload.uuid, payload.distinct_id, payload.event, mode, tuple(lines))
