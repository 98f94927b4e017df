"""Settings: every option, its default, what is allowed, and where its value came from (spec §3).

A leaf. `FIELDS` is the table; `Settings.load` reads it once, at construction. Nothing else in the
package reads the environment.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypedDict
from urllib.parse import urlsplit

from second_mw.errors import ConfigurationError

if TYPE_CHECKING:
    from second_mw.payload import Payload
    from second_mw.privacy.catalogue import Catalogue
    from second_mw.privacy.receipt import Receipt

logger: logging.Logger = logging.getLogger("second_mw")

#: Any one of these disables analytics and wins over every argument (spec §3).
OFF_SWITCHES: Final = ("SECOND_POSTHOG_DISABLED", "SECOND_TELEMETRY_DISABLED", "DO_NOT_TRACK")
_OFF_SWITCH_IS_OFF: Final = frozenset({"", "0", "false", "no", "off"})

#: People paste the app's address instead of the ingestion host's (posthog-contract.md).
APP_HOSTS: Final = {
    "app.posthog.com": "https://us.i.posthog.com",
    "us.posthog.com": "https://us.i.posthog.com",
    "eu.posthog.com": "https://eu.i.posthog.com",
}
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

Signal = Literal["anonymize", "drop", "ignore"]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value.strip()


def _token(value: Any) -> str:
    token = _text(value)
    if token.startswith("phx_"):
        raise ConfigurationError(
            "{name} holds a personal API key ({masked}). PostHog takes events with the project "
            "token only, which starts with phc_: copy it from Project settings, under "
            "'Project token'."
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError
    return token


def _host(value: Any) -> str:
    text = _text(value)
    if "://" not in text:
        raise ConfigurationError(
            "{name} is {value} and has no scheme. Write it with one, such as https://us.i.posthog.com."
        )
    text = text.rstrip("/")
    parts = urlsplit(text)
    port = parts.port  # raises ValueError for one out of range
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError
    if parts.username or parts.password or parts.query or parts.fragment or re.search(r"\s", text):
        raise ValueError
    if mapped := APP_HOSTS.get(parts.hostname):
        return mapped
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        logger.warning(
            "second_mw sends events to an http:// host without encryption; use https:// "
            "(plain http is meant for an inbox on 127.0.0.1)"
        )
    return text


def _whole(low: int, high: int | None = None) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError
        number = int(value)
        if number < low or (high is not None and number > high):
            raise ValueError
        return number

    return parse


def _optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else parse(value)


def _wait(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number


def _seconds(value: Any) -> float:
    number = _wait(value)
    if number == 0:
        raise ValueError
    return number


_SWITCH_WORDS: Final = {
    **dict.fromkeys(("on", "1", "true", "yes"), True),
    **dict.fromkeys(("off", "0", "false", "no"), False),
}


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _switch(value: Any) -> bool:
    """Return a flag that a variable writes as a word."""
    if isinstance(value, bool):
        return value
    word = _text(value).lower()
    if word not in _SWITCH_WORDS:
        raise ValueError
    return _SWITCH_WORDS[word]


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        word = _text(value).lower()
        if word not in words:
            raise ValueError
        return word

    return parse


def _prefix(value: Any) -> str:
    prefix = _text(value).rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix) or "/." in prefix:
        raise ValueError
    return prefix


def _file_name(value: Any) -> str:
    name = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.js", name) or name == "settings.js":
        raise ValueError
    return name


def _origins(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    items: Iterable[Any] = value.split(",") if isinstance(value, str) else value
    origins = []
    for item in items:
        text = _text(item).rstrip("/")
        if not text:
            continue
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or text.count("/") != 2:
            raise ValueError
        origins.append(f"{parts.scheme}://{parts.netloc.lower()}")
    return tuple(origins)


# What a store's URL must look like at all; what its path and its options mean is said, and refused,
# by the store that opens it.
_STORE_URL: Final = re.compile(
    r"memory://(\?.*)?|sqlite:///.+|rediss?(\+sentinel|\+cluster)?://.+", re.IGNORECASE | re.DOTALL
)


def _store_url(value: str) -> str:
    url = value.strip()
    if not _STORE_URL.fullmatch(url):
        raise ValueError
    scheme, _, rest = url.partition(":")
    return f"{scheme.lower()}:{rest}"


def _outbox(value: Any) -> Any:
    if not isinstance(value, str):
        if all(hasattr(value, name) for name in ("put", "lease", "ack", "release", "bury")):
            return value
        raise ValueError
    url = _store_url(value)
    if url.startswith("memory:") and not re.fullmatch(r"memory://(\?max=[1-9][0-9]{0,8})?", url):
        raise ValueError
    return url


def _preferences(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, tuple | list):
        if len(value) == 2 and all(map(callable, value)):
            return tuple(value)
        raise ValueError
    if not isinstance(value, str):
        if callable(getattr(value, "get", None)) and callable(getattr(value, "put", None)):
            return value
        raise ValueError
    url = _store_url(value)
    if url.startswith("memory:") and url != "memory://":
        raise ValueError
    return url


def _rate(value: Any) -> str:
    rate = _text(value)
    if not re.fullmatch(r"[1-9]\d{0,8} ?/ ?([1-9]\d{0,4} ?)?(second|minute|hour|day)s?", rate):
        raise ValueError
    return rate


def _hook(value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError
    return value


def _catalogue(value: Any) -> Any:
    if value is not None and not hasattr(value, "events"):
        raise ValueError
    return value


def _routes(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        raise ValueError
    routes = tuple(_text(route) for route in value)
    if not all(route.startswith("/") for route in routes):
        raise ValueError
    return routes


class Field(NamedTuple):
    """One setting: its argument's name, its variables, its reader and what the reader allows."""

    name: str
    default: Any
    parse: Callable[[Any], Any]
    allowed: str
    variables: tuple[str, ...] = ()
    secret: bool = False


_A_WORD = "a line of text"
FIELDS: Final[tuple[Field, ...]] = (
    Field(
        "token",
        None,
        _optional(_token),
        "a project token, phc_…",
        ("SECOND_POSTHOG_TOKEN",),
        secret=True,
    ),
    Field(
        "host",
        "https://us.i.posthog.com",
        _host,
        "an ingestion host such as https://us.i.posthog.com or https://eu.i.posthog.com",
        ("SECOND_POSTHOG_HOST",),
    ),
    Field(
        "release_version",
        None,
        _optional(_text),
        _A_WORD,
        ("SECOND_RELEASE_VERSION", "SENTRY_RELEASE", "VERCEL_GIT_COMMIT_SHA"),
    ),
    Field("release_package", None, _optional(_text), _A_WORD, ("SECOND_RELEASE_PACKAGE",)),
    Field("release_runtime", None, _optional(_text), _A_WORD, ("SECOND_RELEASE_RUNTIME",)),
    Field("cli_launcher_version", None, _optional(_text), _A_WORD, ("SECOND_CLI_RELEASE_VERSION",)),
    Field("cli_launcher_package", None, _optional(_text), _A_WORD, ("SECOND_CLI_RELEASE_PACKAGE",)),
    Field("installation_mode", None, _optional(_text), _A_WORD, ("SECOND_INSTALLATION_MODE",)),
    Field("auth_mode", None, _optional(_text), _A_WORD, ("SECOND_AUTH_MODE",)),
    Field(
        "outbox",
        "memory://",
        _outbox,
        "memory://, memory://?max=10000, sqlite:///path/to/file.db, redis://host:6379/0 or "
        "rediss://host:6379/0",
        ("SECOND_ANALYTICS_OUTBOX",),
        secret=True,
    ),
    Field(
        "preferences",
        None,
        _preferences,
        "memory://, sqlite:///path/to/file.db, redis://host:6379/0, rediss://host:6379/0, a pair "
        "of callables (get, put), or None",
        ("SECOND_ANALYTICS_PREFERENCES",),
        secret=True,
    ),
    Field(
        "secret",
        None,
        _optional(_text),
        "a long random text",
        ("SECOND_ANALYTICS_SECRET",),
        secret=True,
    ),
    Field("protocol", "v0", _one_of("v0", "v1"), "v0 or v1", ("SECOND_POSTHOG_PROTOCOL",)),
    Field(
        "prefix",
        "/api/analytics",
        _prefix,
        "a path such as /api/analytics",
        ("SECOND_ANALYTICS_PREFIX",),
    ),
    Field("client_name", "client.js", _file_name, "a file name ending in .js"),
    Field(
        "allowed_origins",
        (),
        _origins,
        "origins such as https://app.example.org, separated by commas, or None",
        ("SECOND_ANALYTICS_ALLOWED_ORIGINS",),
    ),
    Field(
        "consent",
        "default-on",
        _one_of("default-on", "ask"),
        "default-on or ask",
        ("SECOND_ANALYTICS_CONSENT",),
    ),
    Field(
        "gpc",
        "anonymize",
        _one_of("anonymize", "drop", "ignore"),
        "anonymize, drop or ignore",
        ("SECOND_ANALYTICS_GPC",),
    ),
    Field(
        "dnt",
        "ignore",
        _one_of("anonymize", "drop", "ignore"),
        "anonymize, drop or ignore",
        ("SECOND_ANALYTICS_DNT",),
    ),
    # 100 events and 2 s: a page's burst leaves as one request, a watcher sees it at once.
    Field("flush_at", 100, _whole(1), "a whole number of events, 1 or more"),
    Field("flush_interval", 2.0, _seconds, "seconds, more than 0"),
    # Far below PostHog's 20 MiB a body, and what its own SDKs keep to.
    Field("max_batch_events", 1000, _whole(1, 10_000), "a whole number from 1 to 10000"),
    Field("max_batch_bytes", 5_000_000, _whole(100, 20_000_000), "bytes, 100 to 20000000"),
    Field("max_in_flight", 4, _whole(1, 64), "a whole number from 1 to 64"),
    Field("max_retries", None, _optional(_whole(0)), "a whole number, 0 or more, or None"),
    # After three days PostHog's own tools no longer expect an event of that time.
    Field("max_age", 72 * 3600.0, _seconds, "seconds, more than 0"),
    Field("forward", True, _switch, "on or off", ("SECOND_ANALYTICS_FORWARD",)),
    Field("gzip", True, _flag, "True or False"),
    Field("connect_timeout", 3.0, _seconds, "seconds, more than 0"),
    Field("read_timeout", 15.0, _seconds, "seconds, more than 0"),
    # Under the ten seconds after which most process managers kill.
    Field("shutdown_timeout", 5.0, _wait, "seconds, 0 or more"),
    Field("disable_geoip", True, _flag, "True or False"),
    Field("historical_migration", False, _flag, "True or False"),
    Field("max_body", 256 * 1024, _whole(1, 20_000_000), "bytes, 1 to 20000000"),
    # A phone on a bad line takes seconds for its 64 KB; who takes longer holds a connection open.
    Field("body_timeout", 30.0, _seconds, "seconds, more than 0"),
    Field("rate", "600/minute", _optional(_rate), "a rate such as 600/minute, or None"),
    Field("undeclared", "label", _one_of("label", "drop"), "label or drop"),
    Field("precision", "exact", _one_of("exact", "coarse"), "exact or coarse"),
    Field("trusted_proxies", 0, _whole(0, 100), "how many proxies to trust, 0 or more"),
    # Some embedded browsers send neither Origin nor Sec-Fetch-Site nor Referer; nor does a forger
    # in a browser that is old enough.
    Field("webviews", False, _flag, "True or False"),
    Field("on_event", None, _hook, "a callable or None"),
    Field("on_drop", None, _hook, "a callable or None"),
    Field("on_receipt", None, _hook, "a callable or None"),
    Field("debug", False, _flag, "True or False"),
    Field("catalogue", None, _catalogue, "a Catalogue or None"),
    Field("routes", None, _routes, "route templates such as /orders/:id, or None"),
)
_BY_NAME: Final = {entry.name: entry for entry in FIELDS}

#: Settings whose values leave with every event, and are looked at once, at the start (spec §10).
RELEASE_FIELDS: Final = (
    "release_version",
    "release_package",
    "release_runtime",
    "cli_launcher_version",
    "cli_launcher_package",
    "auth_mode",
    "installation_mode",
)


class SettingsFields(TypedDict, total=False):
    """The keyword arguments of `Settings.load`, `Analytics` and `Analytics.from_env`."""

    token: str | None
    host: str
    release_version: str | None
    release_package: str | None
    release_runtime: str | None
    cli_launcher_version: str | None
    cli_launcher_package: str | None
    installation_mode: str | None
    auth_mode: str | None
    outbox: Any
    preferences: Any
    secret: str | None
    protocol: str
    prefix: str
    client_name: str
    allowed_origins: str | Iterable[str] | None
    consent: str
    gpc: str
    dnt: str
    flush_at: int
    flush_interval: float
    max_batch_events: int
    max_batch_bytes: int
    max_in_flight: int
    max_retries: int | None
    max_age: float
    forward: bool
    gzip: bool
    connect_timeout: float
    read_timeout: float
    shutdown_timeout: float
    disable_geoip: bool
    historical_migration: bool
    max_body: int
    body_timeout: float
    rate: str | None
    undeclared: str
    precision: str
    trusted_proxies: int
    webviews: bool
    on_event: Callable[[Payload], Payload | None] | None
    on_drop: Callable[[str, int], object] | None
    on_receipt: Callable[[Receipt], object] | None
    debug: bool
    catalogue: Catalogue | None
    routes: Iterable[str] | None


# `eq=False`: nobody compares two, and the methods for fifty fields would cost half a megabyte.
@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """Every setting of one `Analytics`, read once and never changed (spec §3).

    Durations are seconds, sizes are bytes. `disabled_by` names what switched analytics off, None
    if it is on. `sources` says for each setting where its value came from: `argument`, the
    variable's name, `release default` or `default`.
    """

    token: str | None = field(repr=False)
    host: str
    release_version: str | None
    release_package: str | None
    release_runtime: str | None
    cli_launcher_version: str | None
    cli_launcher_package: str | None
    installation_mode: str | None
    auth_mode: str | None
    outbox: Any = field(repr=False)
    preferences: Any = field(repr=False)
    secret: str | None = field(repr=False)
    protocol: Literal["v0", "v1"]
    prefix: str
    client_name: str
    allowed_origins: tuple[str, ...]
    consent: Literal["default-on", "ask"]
    gpc: Signal
    dnt: Signal
    flush_at: int
    flush_interval: float
    max_batch_events: int
    max_batch_bytes: int
    max_in_flight: int
    max_retries: int | None
    max_age: float
    forward: bool
    gzip: bool
    connect_timeout: float
    read_timeout: float
    shutdown_timeout: float
    disable_geoip: bool
    historical_migration: bool
    max_body: int
    body_timeout: float
    rate: str | None
    undeclared: Literal["label", "drop"]
    precision: Literal["exact", "coarse"]
    trusted_proxies: int
    webviews: bool
    on_event: Callable[[Payload], Payload | None] | None
    on_drop: Callable[[str, int], object] | None
    on_receipt: Callable[[Receipt], object] | None
    debug: bool
    catalogue: Catalogue | None
    routes: tuple[str, ...] | None
    disabled_by: str | None
    sources: Mapping[str, str]

    @property
    def enabled(self) -> bool:
        """Whether events are taken at all."""
        return self.disabled_by is None

    @property
    def server_key(self) -> bytes:
        """The key of every HMAC that stands for a user: the secret, or from the token (spec §1)."""
        if self.secret:
            return self.secret.encode()
        token = (self.token or "").encode()
        return hmac.new(token, b"second_mw server key", hashlib.sha256).digest()

    @classmethod
    def load(
        cls,
        given: Mapping[str, Any],
        environ: Mapping[str, str] | None = None,
        *,
        default_token: str | None = None,
    ) -> Settings:
        """Return the settings of these arguments and, if given, this environment.

        Args:
            given: keyword arguments; they win over the environment.
            environ: where the variables are read, None for nowhere. The off switches are read
                from the process's environment whatever is given here.
            default_token: a release's own token, which `SECOND_POSTHOG_TOKEN` overrides.

        Raises:
            ConfigurationError: a value is wrong; the message names it and what is allowed.
            TypeError: an argument is none of the settings.
        """
        if unknown := sorted(set(given) - set(_BY_NAME)):
            raise TypeError(f"unknown setting: {', '.join(unknown)}")
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for entry in FIELDS:
            values[entry.name], sources[entry.name] = _read(entry, given, environ or {})
        if values["token"] is None and default_token is not None:
            values["token"] = _parsed(_BY_NAME["token"], "default_token", default_token)
            sources["token"] = "release default"  # noqa: S105
        switch = off_switch(os.environ) or (environ and off_switch(environ)) or None
        disabled_by = switch or (None if values["token"] else "no token")
        return cls(**values, disabled_by=disabled_by, sources=MappingProxyType(sources))


def off_switch(environ: Mapping[str, str]) -> str | None:
    """Return the name of the off switch that is on in this environment, None if none is."""
    for name in OFF_SWITCHES:
        if environ.get(name, "").strip().lower() not in _OFF_SWITCH_IS_OFF:
            return name
    return None


def masked(value: object) -> str:
    """Return a secret as a log may show it: its first four characters and its length.

    >>> masked("phc_abcdefgh")
    'phc_… (12 characters)'
    """
    text = str(value)
    return f"{text[:4] if len(text) > 8 else ''}… ({len(text)} characters)"


def _read(entry: Field, given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Any, str]:
    if entry.name in given and not (given[entry.name] == "" and entry.name == "token"):
        return _parsed(entry, entry.name, given[entry.name]), "argument"
    for variable in entry.variables:
        # Compose files and CI set a variable to nothing to mean "not set".
        if environ.get(variable, "").strip():
            return _parsed(entry, variable, environ[variable]), variable
    return entry.default, "default"


def _parsed(entry: Field, name: str, value: Any) -> Any:
    shown = masked(value) if entry.secret else repr(value)
    try:
        return entry.parse(value)
    except ConfigurationError as error:
        text = str(error).format(name=name, value=shown, masked=masked(value))
        raise ConfigurationError(text) from None
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise ConfigurationError(
            f"{name} is {shown}, which is not allowed: it must be {entry.allowed}. "
            "`second-mw docs readme` has all settings."
        ) from None
