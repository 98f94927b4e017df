"""Analytics: the one object that a host makes. It wires the rooms and decides nothing (spec §2)."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from threading import RLock, Timer
from typing import TYPE_CHECKING, Any, Final

from second_mw import process
from second_mw.endpoint import Endpoint, finished, settle, workspace_named
from second_mw.errors import (
    Code,
    ConfigurationError,
    OutboxUnavailable,
    Refused,
    traced,
)
from second_mw.forwarder.dispatcher import Flushed
from second_mw.outbox.outbox import Outbox, open_store
from second_mw.preferences.opening import open_preferences
from second_mw.privacy.catalogue import Catalogue
from second_mw.privacy.mode import STORE_FAILED, asks_store, own_word, standing
from second_mw.privacy.pipeline import Pipeline, Posted
from second_mw.settings import Settings
from second_mw.tally import Tally
from second_mw.user import AnalyticsUser

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from second_mw.asgi import AnalyticsMiddleware as ASGIMiddleware
    from second_mw.asgi import ASGIApp
    from second_mw.browser.tag import Data, Html
    from second_mw.forwarder.dispatcher import Forwarder
    from second_mw.limits import Rates
    from second_mw.resolver import UserCallable
    from second_mw.settings import SettingsFields
    from second_mw.wsgi import AnalyticsMiddleware as WSGIMiddleware
    from second_mw.wsgi import WSGIApp

logger = logging.getLogger("second_mw")

#: Seconds after which a wrapped host's predecessor's events are looked for. Long enough for a
#: pre-fork server that loads its app first: it forks before, and its workers look instead.
LOOK_AFTER: Final = 1.0


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


class Analytics:
    """A host's analytics.

    Args:
        fields: any setting of `Settings`, as keyword arguments (spec §3); no variable is read but
            the off switches. `Analytics.from_env()` reads the environment.

    Raises:
        ConfigurationError: a setting is wrong.
        TypeError: an argument is none of the settings.

    >>> analytics = Analytics(token="phc_example", host="http://127.0.0.1:8765")
    >>> analytics.capture(AnalyticsUser("u_1"), "build completed", {"file_count": 12})
    ... # doctest: +SKIP
    """

    def __init__(self, **fields: Unpack[SettingsFields]) -> None:
        self._wire(Settings.load(fields))

    @classmethod
    def from_env(
        cls, *, default_token: str | None = None, **fields: Unpack[SettingsFields]
    ) -> Analytics:
        """Return an `Analytics` of the environment; what is given wins.

        Args:
            default_token: a release's own project token, which `SECOND_POSTHOG_TOKEN` overrides.
            fields: any setting of `Settings`.

        Raises:
            ConfigurationError: a variable or an argument is wrong; the message names it.
        """
        analytics = cls.__new__(cls)
        analytics._wire(Settings.load(fields, os.environ, default_token=default_token))
        return analytics

    def _wire(self, settings: Settings) -> None:
        self.settings = settings
        # Re-entrant: a signal handler may flush while its own thread is starting delivery.
        self._lock = RLock()
        self._tally = Tally()
        self._forwarder: Forwarder | None = None
        self._rates: Rates | None = None
        self._wrapped = False
        self._soon: Timer | None = None
        enabled = settings.enabled
        catalogue = settings.catalogue or Catalogue.default()
        self.pipeline = Pipeline(
            settings,
            catalogue,
            _server_key(settings),
            receipts=settings.on_receipt is not None or settings.debug,
        )
        store = open_store(settings.outbox, _source(settings, "outbox")) if enabled else None
        if store is not None and not (settings.forward or store.durable):
            raise ConfigurationError(
                "SECOND_ANALYTICS_FORWARD is off, but nobody else can deliver from a memory:// "
                "outbox: set SECOND_ANALYTICS_OUTBOX to sqlite:///path or redis://host:6379/0."
            )
        self.outbox = Outbox(store, self.pipeline.added, self._woken)
        # Disabled opens no file and no socket.
        self.preferences = open_preferences(
            settings.preferences if enabled or not isinstance(settings.preferences, str) else None,
            settings.outbox if enabled else "memory://",
            _source(settings, "preferences"),
        )
        from second_mw.browser import files

        self._files = files(settings.client_name)
        self.endpoint = Endpoint(settings, self.pipeline, self._tally, self._files)
        process.enroll(self)
        if settings.disabled_by is not None:
            _say_disabled(settings)

    # Wrapping a host

    def wsgi(self, app: WSGIApp, user: UserCallable | None = None) -> WSGIMiddleware:
        """Return a WSGI app that answers our paths and hands everything else to `app`.

        Args:
            app: any WSGI app.
            user: the resolver, given environ; returns an AnalyticsUser or None. Left out, the
                host puts one into `environ["second_mw.user"]`.
        """
        from second_mw.wsgi import AnalyticsMiddleware

        return AnalyticsMiddleware(app, self, user)

    def asgi(
        self, app: ASGIApp, user: UserCallable | None = None, *, user_blocks: bool = True
    ) -> ASGIMiddleware:
        """Return an ASGI app that answers our paths and hands everything else to `app`.

        Args:
            app: any ASGI 3 app.
            user: the resolver, sync or async, given scope; returns an AnalyticsUser or None. Left
                out, the host puts one into `scope["second_mw.user"]`.
            user_blocks: False calls a sync resolver on the event loop instead of in a thread.
        """
        from second_mw.asgi import AnalyticsMiddleware

        return AnalyticsMiddleware(app, self, user, user_blocks=user_blocks)

    # The browser's files

    def script_tag(
        self, user: AnalyticsUser | None = None, *, mount: str = "", **data: Data
    ) -> Html:
        """Return the `<script>` that brings the client into a page.

        Its URL names the version and its `integrity` the bytes: browsers keep it for a year and
        take no other. Jinja and Django put it into a page unescaped.

        Args:
            user: if given, the tag says the user's mode, and the client need not ask for it. It
                is read from the preference store, which may block.
            mount: the path under which the host is mounted: SCRIPT_NAME, root_path.
            data: the tag's data attributes: `mode="anonymized"`, `hash=True`, `manual=True`.

        Raises:
            ValueError: a name can't be that of a data attribute.

        >>> tag = Analytics(token="phc_example").script_tag(manual=True)
        >>> tag.startswith('<script src="/api/analytics/client.js?v='), "data-manual" in tag
        (True, True)
        """
        if self.settings.consent == "ask":
            data = {"consent": "ask", **data}
        if user is not None:
            data = {**self._known_of(user), **data}
        return self._tag(self.settings.client_name, mount, data)

    def settings_tag(self, *, mount: str = "") -> Html:
        """Return the `<script>` that brings `<second-usage-data>` into a page.

        Args:
            mount: as in `script_tag`.
        """
        from second_mw.browser import SETTINGS_NAME

        return self._tag(SETTINGS_NAME, mount, {})

    def _tag(self, name: str, mount: str, data: Mapping[str, Data]) -> Html:
        from second_mw.browser.tag import script

        return script(f"{mount}{self.settings.prefix}/{name}", self._files[name], data)

    def _known_of(self, user: AnalyticsUser) -> dict[str, Data]:
        """Return what the client would else ask for; nothing if there is more to it than a mode.

        What the browser's own signals mean beyond that is for a request's headers to say.
        """
        settings = self.settings
        if not (settings.enabled and user.onboarded):
            return {}
        if settings.gpc == "drop" or settings.dnt != "ignore":
            return {}
        where = standing(settings, user, self._choice(user), gpc=False, dnt=False)
        if not where.shares:
            return {}
        return {"mode": where.mode, "subject": self.pipeline.user_key(user.id)[:4]}

    # Events of server code

    def capture(
        self,
        user: AnalyticsUser | None,
        event: str,
        properties: Mapping[str, Any] | None = None,
        *,
        uuid: str | None = None,
        timestamp: object = None,
        anonymous_id: str | None = None,
    ) -> Captured:
        """Capture an event from server code, by the same rules as a browser's.

        Never raises for what a running host can't help: the result says what became of the event,
        and a warning is logged.

        Args:
            user: whose event it is.
            event: a name of the catalogue.
            properties: as a browser would post them.
            uuid: a version 4 or 7 UUID; the same one again is stored once.
            timestamp: an aware datetime or RFC 3339 text; now if left out.
            anonymous_id: the browser's `anon_…` id, if the host knows it.

        Raises:
            TypeError: `user` is no AnalyticsUser, or `properties` is no mapping.

        >>> bool(Analytics(token=None).capture(AnalyticsUser("u_1"), "page viewed"))
        False
        """
        if not isinstance(user, AnalyticsUser | None):
            raise TypeError(f"user must be an AnalyticsUser, not {type(user).__name__}")
        if not isinstance(properties, Mapping | None):
            raise TypeError(f"properties must be a mapping, not {type(properties).__name__}")
        if not self.settings.enabled:
            return Captured(code="disabled")
        try:
            return self._capture(
                user,
                event,
                properties or {},
                uuid=uuid,
                timestamp=timestamp,
                anonymous=anonymous_id,
            )
        except Refused as refused:
            return self._not_captured(refused)
        except OutboxUnavailable:
            return self._not_captured(Refused("outbox_unavailable"))

    def _capture(
        self,
        user: AnalyticsUser | None,
        event: str,
        properties: Mapping[str, Any],
        *,
        uuid: str | None,
        timestamp: object,
        anonymous: str | None,
    ) -> Captured:
        if user is None:
            raise Refused("not_authenticated")
        if not user.onboarded:
            raise Refused("not_onboarded")
        if event not in self.pipeline.catalogue:
            raise Refused("invalid_event")
        posted = Posted(
            event,
            properties,
            uuid,
            timestamp,
            anonymous,
            own_word({}, properties),
            workspace_named(properties, user),
        )
        where = standing(self.settings, user, self._choice(user), gpc=False, dnt=False)
        if not where.shares:
            self._tally.add("suppressed")
            return Captured(code="suppressed")
        done = finished(self.pipeline, posted, user, where)
        if not done.payloads:
            return Captured(code="on_event")
        self.outbox.put(done.payloads)
        settle([done], self.settings.on_receipt)
        return Captured(uuid=done.payloads[-1].uuid)

    def _choice(self, user: AnalyticsUser) -> Any:
        if not asks_store(user):
            return None
        try:
            return self.preferences.get(self.pipeline.user_key(user.id))
        except Exception as error:
            # Whatever is unknown means anonymized (spec §7).
            self._tally.add("preferences_failed")
            logger.debug("second_mw: the preference store failed: %s", traced(error))
            return STORE_FAILED

    def _not_captured(self, refused: Refused) -> Captured:
        self._tally.add(f"rejected.{refused.code}")
        if refused.counted is not None:
            self._tally.add(refused.counted)
        logger.warning("second_mw did not take an event of server code: %s", refused.code)
        return Captured(code=refused.code)

    @property
    def rates(self) -> Rates:
        """How often whom may ask (spec §4, 429); made by the first request that is counted."""
        rates = self._rates
        if rates is None:
            from second_mw.limits import Rates, shared_store

            with self._lock:
                rates = self._rates
                if rates is None:
                    shared = shared_store(self.settings.outbox)
                    rates = self._rates = Rates(self.settings.rate, shared, self._tally)
        return rates

    # Delivery

    def flush(self, timeout: float = 10.0) -> Flushed:
        """Send what waits now; return how many events are out and how many are not.

        Args:
            timeout: seconds after which it returns in any case.
        """
        forwarder = self._started()
        if forwarder is None:
            return Flushed(0, self.outbox.counts().waiting)
        return forwarder.flush(timeout)

    def close(self, timeout: float | None = None) -> Flushed:
        """Flush, stop delivering and let go of files; an event that comes later starts it again.

        Args:
            timeout: seconds after which it returns in any case; `shutdown_timeout` if left out.
        """
        try:
            return self._flush_at_last(timeout)
        finally:
            if self.outbox.store is not None:
                self.outbox.store.close()
            self.preferences.close()

    def _flush_at_last(self, timeout: float | None) -> Flushed:
        forwarder = self._forwarder
        if forwarder is None:
            waiting = self.outbox.counts().waiting
            if not (waiting and self.settings.forward):
                return Flushed(0, waiting)
            with self._lock:
                forwarder = self._forwarder = self._forwarder or self._made()
        return forwarder.close(self.settings.shutdown_timeout if timeout is None else timeout)

    def wrapped(self) -> None:
        """A host was wrapped: look soon for what a durable outbox holds of a predecessor.

        Where a lifespan comes it looks at once; no request ever has to.
        """
        self._wrapped = True
        self._look_soon()

    def startup(self) -> None:
        """Start what must run before any event: a durable outbox may hold a predecessor's."""
        if self._delivers_for_others:
            self._woken()

    def shutdown(self) -> None:
        """Flush within `shutdown_timeout`, as a server that stops waits for (spec §2)."""
        if self._forwarder is not None:
            self.flush(self.settings.shutdown_timeout)

    def stats(self) -> dict[str, Any]:
        """Return what became of events, as a plain mapping; no counter names a user (spec §15).

        accepted = delivered + dead + waiting + purged, at any moment.
        """
        counts = self.outbox.counts()._asdict()
        tallied = self._tally.counts()
        forwarder = self._forwarder
        return {
            **counts,
            "rejected": {
                name.removeprefix("rejected."): count
                for name, count in tallied.items()
                if name.startswith("rejected.")
            },
            "suppressed": tallied.get("suppressed", 0),
            "privacy_gate": tallied.get("privacy_gate", 0),
            "rule_failed": tallied.get("rule_failed", 0),
            "preferences_failed": tallied.get("preferences_failed", 0),
            "rate_failed": tallied.get("rate_failed", 0),
            "rate_store_failed": tallied.get("rate_store_failed", 0),
            "slow_bodies": tallied.get("slow_bodies", 0),
            "enabled": self.settings.enabled,
            "forwarder": forwarder.stats() if forwarder is not None else {},
        }

    # The forwarder

    def _woken(self) -> None:
        try:
            forwarder = self._started()
            if forwarder is not None:
                forwarder.notify()
        except Exception as error:
            # What was put is kept, and whoever put it must hear that; the next put tries again.
            logger.error("second_mw: the forwarder could not be woken: %s", traced(error))

    def _started(self) -> Forwarder | None:
        forwarder = self._forwarder
        if forwarder is None:
            if self.outbox.store is None or not self.settings.forward:
                return None
            with self._lock:
                if self._forwarder is None:
                    self._forwarder = self._made()
                    process.watch_child_exit()
                forwarder = self._forwarder
        forwarder.start()
        return forwarder

    def _made(self) -> Forwarder:
        from second_mw.forwarder.dispatcher import Forwarder

        assert self.outbox.store is not None  # noqa: S101 - both callers have looked
        return Forwarder(self.outbox.store, self.settings, on_loss=self.settings.on_drop)

    # The process's life

    @property
    def exit_timeout(self) -> float:
        """Seconds for which an exit may be held."""
        return self.settings.shutdown_timeout

    @property
    def _delivers_for_others(self) -> bool:
        store = self.outbox.store
        return store is not None and store.durable and self.settings.forward

    def _look_soon(self) -> None:
        if self._wrapped and self._soon is None and self._delivers_for_others:
            self._soon = process.soon(LOOK_AFTER, self.startup)

    def before_fork(self) -> None:
        """Leave looking to the children: a process that wraps and then forks is no server."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon.join()
            self._soon = None

    def after_fork(self) -> None:
        """Become a forked child's own."""
        self._lock = RLock()
        self._tally.after_fork()
        self._rates = None
        self.pipeline.after_fork()
        self.preferences.after_fork()
        if self.outbox.store is not None:
            self.outbox.store.after_fork()
        forwarder, self._forwarder = self._forwarder, None
        if forwarder is not None:
            forwarder.after_fork()
        self._look_soon()

    def at_exit(self, timeout: float) -> None:
        """Flush in the thread that exits."""
        if self._forwarder is not None:
            self.close(timeout)


def _server_key(settings: Settings) -> bytes:
    if settings.secret:
        return settings.secret.encode()
    return hmac.new(
        (settings.token or "").encode(), b"second_mw server key", hashlib.sha256
    ).digest()


def _source(settings: Settings, name: str) -> str:
    """Return what to call a setting in an error message: the variable it came from, or its name."""
    source = settings.sources.get(name, "default")
    return source if source.isupper() else name


def _say_disabled(settings: Settings) -> None:
    if settings.disabled_by == "no token":
        logger.warning(
            "second_mw is disabled because it has no project token: set SECOND_POSTHOG_TOKEN to "
            "your PostHog project token (phc_…) to enable it"
        )
    else:
        logger.info("second_mw is disabled by %s", settings.disabled_by)
