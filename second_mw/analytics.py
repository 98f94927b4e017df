"""Analytics: the one object that a host makes. It wires the rooms and decides nothing (spec §2)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from threading import RLock, Timer
from typing import TYPE_CHECKING, Any, Final

from second_mw import process
from second_mw.errors import ConfigurationError, OutboxUnavailable, traced
from second_mw.outbox.base import Counts
from second_mw.outbox.outbox import Outbox, open_store
from second_mw.preferences.base import Preferences
from second_mw.preferences.opening import open_preferences
from second_mw.settings import RELEASE_FIELDS, Settings
from second_mw.tally import Tally
from second_mw.user import AnalyticsUser

if TYPE_CHECKING:
    from uuid import UUID

    from typing_extensions import Unpack

    from second_mw.asgi import AnalyticsMiddleware as ASGIMiddleware
    from second_mw.asgi import ASGIApp
    from second_mw.browser.tag import Data, Html
    from second_mw.endpoint import Endpoint, StaticFile
    from second_mw.forwarder.dispatcher import Flushed, Forwarder, ForwarderStats
    from second_mw.jobs import Bound
    from second_mw.limits import Rates
    from second_mw.privacy.pipeline import Pipeline
    from second_mw.resolver import UserCallable
    from second_mw.server_code import Capture, Captured, ServerCode
    from second_mw.settings import SettingsFields
    from second_mw.wsgi import AnalyticsMiddleware as WSGIMiddleware
    from second_mw.wsgi import WSGIApp

logger: logging.Logger = logging.getLogger("second_mw")

#: Seconds after which a wrapped host's predecessor's events are looked for. Long enough for a
#: pre-fork server that loads its app first: it forks before, and its workers look instead.
LOOK_AFTER: Final = 1.0


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
        # Made when it is first needed: a host without events does not owe the memory.
        self._pipeline: Pipeline | None = None
        self._endpoint: Endpoint | None = None
        self._files: dict[str, StaticFile] | None = None
        self._server_code: ServerCode | None = None
        self._forwarder: Forwarder | None = None
        self._rates: Rates | None = None
        self._wrapped = False
        self._soon: Timer | None = None
        enabled = settings.enabled
        store = open_store(settings.outbox, _source(settings, "outbox")) if enabled else None
        if store is not None:
            # Processes that share a store tell PostHog of a person together.
            store.key_of_user = self._key_of_user
        if store is not None and not (settings.forward or store.durable):
            raise ConfigurationError(
                "SECOND_ANALYTICS_FORWARD is off, but nobody else can deliver from a memory:// "
                "outbox: set SECOND_ANALYTICS_OUTBOX to sqlite:///path or redis://host:6379/0."
            )
        self.outbox: Outbox = Outbox(store, _Added(self), self._woken)
        # Disabled opens no file and no socket.
        self.preferences: Preferences = open_preferences(
            settings.preferences if enabled or not isinstance(settings.preferences, str) else None,
            settings.outbox if enabled else "memory://",
            _source(settings, "preferences"),
        )
        self.paths: frozenset[str] = _paths(settings)
        if any(getattr(settings, name) for name in RELEASE_FIELDS):
            # It warns of what it finds in them, and that is for the start (spec §10).
            self.pipeline  # noqa: B018
        process.enroll(self)
        if settings.disabled_by is not None:
            _say_disabled(settings)

    # The rooms that the first event needs

    @property
    def pipeline(self) -> Pipeline:
        """The privacy core."""
        pipeline = self._pipeline
        if pipeline is None:
            with process.importing:
                from second_mw.privacy.catalogue import Catalogue
                from second_mw.privacy.pipeline import Pipeline

                settings = self.settings
                pipeline = self._pipeline = self._pipeline or Pipeline(
                    settings,
                    settings.catalogue or Catalogue.default(),
                    settings.server_key,
                    receipts=settings.on_receipt is not None or settings.debug,
                )
        return pipeline

    @property
    def endpoint(self) -> Endpoint:
        """What our paths answer."""
        endpoint = self._endpoint
        if endpoint is None:
            with process.importing:
                from second_mw.endpoint import Endpoint

                endpoint = self._endpoint = self._endpoint or Endpoint(
                    self.settings, self.pipeline, self._tally, self._served_files
                )
        return endpoint

    @property
    def _served_files(self) -> dict[str, StaticFile]:
        if self._files is None:
            with process.importing:
                from second_mw.browser import files

                self._files = files(self.settings.client_name)
        return self._files

    @property
    def _taking(self) -> ServerCode:
        """What takes the events of server code."""
        taking = self._server_code
        if taking is None:
            with process.importing:
                from second_mw.server_code import ServerCode

                taking = self._server_code = self._server_code or ServerCode(self, self._tally)
        return taking

    def _key_of_user(self, user_id: str) -> str:
        return self.pipeline.user_key(user_id)

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
        self,
        user: AnalyticsUser | None = None,
        *,
        mount: str = "",
        nonce: str | None = None,
        **data: Data,
    ) -> Html:
        """Return the `<script>` that brings the client into a page.

        Its URL names the version and its `integrity` the bytes: browsers keep it for a year and
        take no other. Jinja and Django put it into a page unescaped.

        Args:
            user: if given, the tag says the user's mode, and the client need not ask for it. It
                is read from the preference store, which may block.
            mount: the path under which the host is mounted: SCRIPT_NAME, root_path.
            nonce: where the page's Content-Security-Policy asks for one.
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
        return self._tag(self.settings.client_name, mount, nonce, data)

    def settings_tag(self, *, mount: str = "", nonce: str | None = None) -> Html:
        """Return the `<script>` that brings `<second-usage-data>` into a page.

        Args:
            mount, nonce: as in `script_tag`.
        """
        from second_mw.browser import SETTINGS_NAME

        return self._tag(SETTINGS_NAME, mount, nonce, {})

    def _tag(self, name: str, mount: str, nonce: str | None, data: Mapping[str, Data]) -> Html:
        from second_mw.browser.tag import script

        return script(
            f"{mount}{self.settings.prefix}/{name}", self._served_files[name], data, nonce
        )

    def _known_of(self, user: AnalyticsUser) -> dict[str, Data]:
        """Return what the client would else ask for; nothing if there is more to it than a mode.

        What the browser's own signals mean beyond that is for a request's headers to say.
        """
        settings = self.settings
        if not (settings.enabled and user.onboarded):
            return {}
        if settings.gpc == "drop" or settings.dnt != "ignore":
            return {}
        from second_mw.privacy.mode import standing

        where = standing(settings, user, self.choice_of(user), gpc=False, dnt=False)
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
        uuid: str | UUID | None = None,
        timestamp: object = None,
        anonymous_id: str | None = None,
    ) -> Captured:
        """Capture an event from server code, by the same rules as a browser's.

        Never raises for what a running host can't help: the result says what became of the event,
        and a warning is logged.

        Args:
            user: whose event it is; None is nobody, whose events are refused.
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
        wanted = (user, event, properties, uuid, timestamp, anonymous_id)
        return self._taking.take([wanted])[0]

    async def acapture(
        self,
        user: AnalyticsUser | None,
        event: str,
        properties: Mapping[str, Any] | None = None,
        *,
        uuid: str | UUID | None = None,
        timestamp: object = None,
        anonymous_id: str | None = None,
    ) -> Captured:
        """`capture` for an event loop, which it never blocks, whatever outbox and store are.

        >>> async def view():
        ...     return await analytics.acapture(user, "page viewed")  # doctest: +SKIP
        """
        wanted = (user, event, properties, uuid, timestamp, anonymous_id)
        return (await self._taking.atake([wanted]))[0]

    def capture_many(self, events: Iterable[Capture | tuple[Any, ...]]) -> list[Captured]:
        """Capture events in one put, and say of each what became of it.

        One that is refused takes no other with it; if the outbox can't take the rest, it takes
        none of them.

        Args:
            events: `Capture`s, or tuples `(user, event)` or `(user, event, properties)`.

        Raises:
            TypeError: as `capture`; then nothing was taken.

        >>> analytics.capture_many(
        ...     [(user, "page viewed"), (user, "build completed", {"file_count": 12})]
        ... )  # doctest: +SKIP
        """
        return self._taking.take(list(events))

    async def acapture_many(self, events: Iterable[Capture | tuple[Any, ...]]) -> list[Captured]:
        """`capture_many` for an event loop, which it never blocks."""
        return await self._taking.atake(list(events))

    def as_user(self, user: AnalyticsUser | None) -> AbstractContextManager[Bound]:
        """Return a block of code whose events are this user's: `analytics.here.capture(event)`.

        Args:
            user: whose they are; None is nobody, whose events are refused.

        Raises:
            TypeError: `user` is neither an AnalyticsUser nor None.

        >>> with analytics.as_user(user) as bound:  # doctest: +SKIP
        ...     bound.capture("page viewed")
        ...     analytics.here.capture("page viewed")  # the same, from code further down
        """
        from second_mw.jobs import as_user

        return as_user(self, user)

    @property
    def here(self) -> Bound:
        """This `Analytics` for the user of the `as_user` around this code."""
        from second_mw.jobs import Bound, current_user

        return Bound(self, current_user())

    def choice_of(self, user: AnalyticsUser) -> Any:
        """Return what a user chose, None if nothing, `store_failed` if unknown; may block."""
        return self._taking.choice(user)

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

        Raises:
            OutboxUnavailable: a durable store can't be asked, so nobody can say what is left. What
                it took is kept, and is delivered once it is there again.
        """
        forwarder = self._wanted()
        if forwarder is None:
            return _flushed(0, self.outbox.counts().waiting)
        return forwarder.flush(timeout)

    def close(self, timeout: float | None = None) -> Flushed:
        """Flush, stop delivering and let go of files; an event that comes later starts it again.

        It raises nothing of the store's: where a durable one can't be asked, a warning says so, and
        as left counts what was last seen to wait, at least 1.

        Args:
            timeout: seconds after which it returns in any case; `shutdown_timeout` if left out.
        """
        # It would open again what is closed here.
        self._look_no_more()
        try:
            return self._flush_at_last(timeout)
        except OutboxUnavailable as error:
            _say_unflushed(error)
            return _flushed(0, max(1, self.outbox.seen.waiting))
        finally:
            if self.outbox.store is not None:
                self.outbox.store.close()
            self.preferences.close()

    def _flush_at_last(self, timeout: float | None) -> Flushed:
        within = self.settings.shutdown_timeout if timeout is None else timeout
        forwarder, waiting = self._forwarder, 0
        if forwarder is None:
            waiting = self.outbox.counts().waiting
            if waiting and self.settings.forward:
                with self._lock:
                    forwarder = self._forwarder = self._forwarder or self._made()
        flushed = _flushed(0, waiting) if forwarder is None else forwarder.close(within)
        if self.outbox.store is not None:
            self.outbox.store.close()
        return flushed

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
            try:
                self.flush(self.settings.shutdown_timeout)
            except OutboxUnavailable as error:
                _say_unflushed(error)

    def stats(self) -> dict[str, Any]:
        """Return what became of events, as a plain mapping; no counter names a user (spec §15).

        accepted = delivered + dead + waiting + purged, at any moment. While a durable outbox can't
        be asked, `outbox` is "unavailable" and its accounts are None; else it is "available".
        """
        counts: dict[str, float | None]
        try:
            counts, outbox = self.outbox.counts()._asdict(), "available"
        except OutboxUnavailable:
            counts, outbox = dict.fromkeys(Counts._fields), "unavailable"
        tallied = self._tally.counts()
        forwarder = self._forwarder
        if forwarder is not None:
            # Whoever watches the figures also sees to it that somebody delivers.
            forwarder.revive()
        return {
            **counts,
            "outbox": outbox,
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
            "forwarder": _idle() if forwarder is None else forwarder.stats(),
        }

    # The forwarder

    def _woken(self, count: int | None = None) -> None:
        """Wake the forwarder: for `count` events, of which it awaits a number, or to look now."""
        try:
            forwarder = self._wanted()
            if forwarder is not None:
                forwarder.start()
                forwarder.notify(count)
        except Exception as error:
            # What was put is kept, and whoever put it must hear that; the next put tries again.
            logger.error("second_mw: the forwarder could not be woken: %s", traced(error))

    def _wanted(self) -> Forwarder | None:
        """Return the forwarder, made if there is none yet; None where nothing is forwarded."""
        if self._forwarder is not None or self.outbox.store is None or not self.settings.forward:
            return self._forwarder
        with self._lock:
            if self._forwarder is None:
                self._forwarder = self._made()
                process.watch_child_exit()
        return self._forwarder

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

    def _look_no_more(self) -> Timer | None:
        """Give up looking; return what would have looked, which may be just about to."""
        # Let go of first: a signal handler may come here, too, before the other has cancelled it.
        looking, self._soon = self._soon, None
        if looking is not None:
            looking.cancel()
        return looking

    def before_fork(self) -> None:
        """Leave looking to the children: a process that wraps and then forks is no server."""
        if (looking := self._look_no_more()) is not None:
            looking.join()

    def after_fork(self) -> None:
        """Become a forked child's own."""
        self._lock = RLock()
        self._tally.after_fork()
        self._rates = None
        if self._pipeline is not None:
            self._pipeline.after_fork()
        self.preferences.after_fork()
        if self.outbox.store is not None:
            self.outbox.store.after_fork()
        forwarder, self._forwarder = self._forwarder, None
        if forwarder is not None:
            forwarder.after_fork()
        self._look_soon()

    def at_exit(self, timeout: float) -> None:
        """Flush in the thread that exits, if there was anything to deliver here."""
        if self._forwarder is not None:
            self.close(timeout)
        elif self.outbox.store is not None:
            self.outbox.store.close()


class _Added(Mapping[str, Any]):
    """What every payload carries, asked for when a finished event is put."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics

    def __getitem__(self, key: str) -> Any:
        return self._analytics.pipeline.added[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._analytics.pipeline.added)

    def __len__(self) -> int:
        return len(self._analytics.pipeline.added)


def _paths(settings: Settings) -> frozenset[str]:
    """Return the paths that are ours (spec §4), which is known before the endpoint is made."""
    from second_mw.browser import SETTINGS_NAME

    names = ("capture", "preferences", "identify", settings.client_name, SETTINGS_NAME)
    return frozenset(f"{settings.prefix}/{name}" for name in names)


def _source(settings: Settings, name: str) -> str:
    """Return what to call a setting in an error message: the variable it came from, or its name."""
    source = settings.sources.get(name, "default")
    return source if source.isupper() else name


def _say_unflushed(error: OutboxUnavailable) -> None:
    # The host's end is the host's: a store that fails must not turn it into a traceback.
    logger.warning("second_mw could not flush at the end: %s", error)


def _say_disabled(settings: Settings) -> None:
    if settings.disabled_by == "no token":
        logger.warning(
            "second_mw is disabled because it has no project token: set SECOND_POSTHOG_TOKEN to "
            "your PostHog project token (phc_…) to enable it (see `second-mw docs readme`)"
        )
    else:
        logger.info("second_mw is disabled by %s", settings.disabled_by)


def _idle() -> ForwarderStats:
    """Return what `stats()` says of the forwarder before there is one."""
    return {
        "forwarded": 0,
        "retried": 0,
        "dead": {},
        "circuit": "closed",
        "in_flight": 0,
        "latency": None,
        "last_success": None,
    }


def _flushed(out: int, left: int) -> Flushed:
    # Loaded here: delivery takes memory that a host without events does not owe.
    from second_mw.forwarder.dispatcher import Flushed

    return Flushed(out, left)
