"""Settings: where each value comes from, and what is said of a wrong one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from second_mw import Analytics, ConfigurationError
from second_mw.settings import FIELDS, OFF_SWITCHES, Settings, masked
from tests.stores import Kept

TOKEN = {"SECOND_POSTHOG_TOKEN": "phc_environment"}

DEFAULTS = {
    "token": None, "host": "https://us.i.posthog.com", "release_version": None,
    "release_package": None, "release_runtime": None, "cli_launcher_version": None,
    "cli_launcher_package": None, "installation_mode": None, "auth_mode": None,
    "outbox": "memory://", "preferences": None, "secret": None, "protocol": "v0",
    "prefix": "/api/analytics", "client_name": "client.js", "allowed_origins": (),
    "consent": "default-on", "gpc": "anonymize", "dnt": "ignore", "flush_at": 100,
    "flush_interval": 2.0, "max_batch_events": 1000, "max_batch_bytes": 5_000_000,
    "max_in_flight": 4, "max_retries": None, "max_age": 259_200.0, "forward": True, "gzip": True,
    "connect_timeout": 3.0,
    "read_timeout": 15.0, "shutdown_timeout": 5.0, "disable_geoip": True,
    "historical_migration": False, "max_body": 262_144, "rate": "600/minute",
    "undeclared": "label", "precision": "exact", "trusted_proxies": 0, "body_timeout": 30.0,
    "webviews": False, "on_event": None,
    "on_drop": None, "on_receipt": None, "debug": False, "catalogue": None, "routes": None,
}  # fmt: skip


def test_the_defaults() -> None:
    settings = Settings.load({})
    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS
    assert set(DEFAULTS) == {field.name for field in FIELDS}
    assert set(settings.sources.values()) == {"default"}


FROM_ENVIRONMENT = [
    ("SECOND_POSTHOG_TOKEN", "phc_x", "token", "phc_x"),
    ("SECOND_POSTHOG_HOST", "https://eu.i.posthog.com/", "host", "https://eu.i.posthog.com"),
    ("SECOND_RELEASE_VERSION", "1.2", "release_version", "1.2"),
    ("SENTRY_RELEASE", "1.3", "release_version", "1.3"),
    ("VERCEL_GIT_COMMIT_SHA", "abc", "release_version", "abc"),
    ("SECOND_RELEASE_PACKAGE", "shop", "release_package", "shop"),
    ("SECOND_RELEASE_RUNTIME", "docker", "release_runtime", "docker"),
    ("SECOND_CLI_RELEASE_VERSION", "2", "cli_launcher_version", "2"),
    ("SECOND_CLI_RELEASE_PACKAGE", "cli", "cli_launcher_package", "cli"),
    ("SECOND_INSTALLATION_MODE", "self-hosted", "installation_mode", "self-hosted"),
    ("SECOND_AUTH_MODE", "saml", "auth_mode", "saml"),
    ("SECOND_ANALYTICS_OUTBOX", "memory://?max=5", "outbox", "memory://?max=5"),
    ("SECOND_ANALYTICS_PREFERENCES", "memory://", "preferences", "memory://"),
    ("SECOND_ANALYTICS_SECRET", "s3cret", "secret", "s3cret"),
    ("SECOND_POSTHOG_PROTOCOL", "V1", "protocol", "v1"),
    ("SECOND_ANALYTICS_PREFIX", "/e/v1/", "prefix", "/e/v1"),
    ("SECOND_ANALYTICS_ALLOWED_ORIGINS", "https://A.example, http://b.example:81/",
     "allowed_origins", ("https://a.example", "http://b.example:81")),
    ("SECOND_ANALYTICS_CONSENT", "ask", "consent", "ask"),
    ("SECOND_ANALYTICS_GPC", "drop", "gpc", "drop"),
    ("SECOND_ANALYTICS_DNT", "anonymize", "dnt", "anonymize"),
    ("SECOND_ANALYTICS_FORWARD", "Off", "forward", False),
    ("SECOND_ANALYTICS_FORWARD", "1", "forward", True),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "text", "name", "value"), FROM_ENVIRONMENT)
def test_a_variable_is_read_and_remembered_as_the_source(
    variable: str, text: str, name: str, value: Any
) -> None:
    settings = Settings.load({}, {variable: text})
    assert (getattr(settings, name), settings.sources[name]) == (value, variable)


def test_every_variable_is_in_the_table_above() -> None:
    read = {variable for field in FIELDS for variable in field.variables}
    assert read == {case[0] for case in FROM_ENVIRONMENT}


def test_the_first_of_several_variables_wins_and_an_empty_one_is_not_set() -> None:
    environ = {"SECOND_RELEASE_VERSION": " ", "SENTRY_RELEASE": "2", "VERCEL_GIT_COMMIT_SHA": "3"}
    settings = Settings.load({}, environ)
    assert (settings.release_version, settings.sources["release_version"]) == (
        "2", "SENTRY_RELEASE",
    )  # fmt: skip


def test_what_is_given_wins_over_the_environment() -> None:
    settings = Settings.load({"token": "phc_given"}, TOKEN)
    assert (settings.token, settings.sources["token"]) == ("phc_given", "argument")


@pytest.mark.parametrize("nothing", [None, "", " , ", [], ()])
def test_no_allowed_origins_can_be_said_in_several_ways(nothing: Any) -> None:
    assert Settings.load({"allowed_origins": nothing}).allowed_origins == ()


def test_analytics_reads_no_variable_but_from_env_does(monkeypatch) -> None:
    monkeypatch.setenv("SECOND_POSTHOG_TOKEN", "phc_environment")
    monkeypatch.setenv("SECOND_POSTHOG_HOST", "http://127.0.0.1:9")
    assert not Analytics().settings.enabled
    analytics = Analytics.from_env(outbox=Kept())
    assert (analytics.settings.token, analytics.settings.host) == (
        "phc_environment", "http://127.0.0.1:9",
    )  # fmt: skip


def test_a_releases_own_token_is_overridden_by_the_variable() -> None:
    settings = Settings.load({}, {}, default_token="phc_release")
    assert (settings.token, settings.sources["token"]) == ("phc_release", "release default")
    assert Settings.load({}, TOKEN, default_token="phc_release").token == "phc_environment"


# Wrong values

WRONG = [
    ("token", "phx_123456789", "personal API key"),
    ("token", "two words", "a project token"),
    ("token", 5, "a project token"),
    ("host", "us.i.posthog.com", "has no scheme"),
    ("host", "ftp://x.example", "an ingestion host"),
    ("host", "https://", "an ingestion host"),
    ("host", "https://u:p@x.example", "an ingestion host"),
    ("host", "https://x.example?x=1", "an ingestion host"),
    ("host", "https://x.example:99999", "an ingestion host"),
    ("host", None, "an ingestion host"),
    ("outbox", "kafka://x", "memory://"),
    ("outbox", "memory://?max=0", "memory://"),
    ("outbox", object(), "memory://"),
    ("preferences", "kafka://x", "memory://"),
    ("preferences", 5, "memory://"),
    ("protocol", "v2", "v0 or v1"),
    ("prefix", "api", "a path"),
    ("prefix", "/", "a path"),
    ("prefix", "/a/../b", "a path"),
    ("prefix", "/a b", "a path"),
    ("client_name", "../client.js", "a file name"),
    ("client_name", "settings.js", "a file name"),
    ("client_name", "client.css", "a file name"),
    ("allowed_origins", "app.example", "origins"),
    ("allowed_origins", ["https://x.example/path"], "origins"),
    ("allowed_origins", 5, "origins"),
    ("consent", "always", "default-on or ask"),
    ("gpc", "yes", "anonymize, drop or ignore"),
    ("dnt", "1", "anonymize, drop or ignore"),
    ("flush_at", 0, "a whole number"),
    ("flush_at", 1.5, "a whole number"),
    ("flush_at", True, "a whole number"),
    ("flush_interval", 0, "seconds"),
    ("flush_interval", float("nan"), "seconds"),
    ("flush_interval", "soon", "seconds"),
    ("flush_interval", True, "seconds"),
    ("max_batch_events", 10_001, "1 to 10000"),
    ("max_batch_bytes", 1, "bytes"),
    ("max_in_flight", 0, "1 to 64"),
    ("max_retries", -1, "0 or more"),
    ("max_age", 0, "seconds"),
    ("forward", "perhaps", "on or off"),
    ("forward", 1, "on or off"),
    ("gzip", "yes", "True or False"),
    ("connect_timeout", -1, "seconds"),
    ("shutdown_timeout", -1, "0 or more"),
    ("max_body", 0, "bytes"),
    ("rate", "fast", "a rate"),
    ("undeclared", "keep", "label or drop"),
    ("precision", "rough", "exact or coarse"),
    ("trusted_proxies", -1, "0 or more"),
    ("on_event", "x", "a callable"),
    ("on_drop", 5, "a callable"),
    ("on_receipt", 5, "a callable"),
    ("debug", 1, "True or False"),
    ("catalogue", {}, "a Catalogue"),
    ("routes", "/x", "route templates"),
    ("routes", ["x"], "route templates"),
    ("release_version", 5, "a line of text"),
    ("secret", 5, "a long random text"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(
    name: str, value: Any, said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({name: value})
    assert str(caught.value).startswith(name)
    assert said in str(caught.value)


def test_a_wrong_variable_is_named_with_what_it_held() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({}, {"SECOND_ANALYTICS_GPC": "maybe"})
    assert str(caught.value) == (
        "SECOND_ANALYTICS_GPC is 'maybe', which is not allowed: it must be anonymize, drop or "
        "ignore. `second-mw docs readme` has all settings."
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SECOND_POSTHOG_TOKEN", "phx_averysecretkey"),
        ("SECOND_ANALYTICS_OUTBOX", "redis+x://:averysecretkey@h/0"),
        ("SECOND_ANALYTICS_PREFERENCES", "kafka://averysecretkey"),
    ],
)
def test_what_a_secret_held_is_masked(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({}, {variable: value})
    assert variable in str(caught.value)
    assert "averysecretkey" not in str(caught.value)


def test_no_representation_shows_a_secret() -> None:
    settings = Settings.load({"token": "phc_averysecret", "secret": "averysecret"})
    assert "averysecret" not in repr(settings)


def test_masking_keeps_little_of_a_long_secret_and_nothing_of_a_short_one() -> None:
    assert (masked("phc_abcdefgh"), masked("short")) == (
        "phc_… (12 characters)",
        "… (5 characters)",
    )


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(TypeError, match="unknown setting: flush_on"):
        Settings.load({"flush_on": 1})


# Hosts


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://app.posthog.com", "https://us.i.posthog.com"),
        ("https://us.posthog.com/", "https://us.i.posthog.com"),
        ("https://eu.posthog.com", "https://eu.i.posthog.com"),
        ("https://posthog.example/ingest/", "https://posthog.example/ingest"),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("http://[::1]:8765", "http://[::1]:8765"),
    ],
)
def test_a_host_is_used_as_an_ingestion_host(given: str, used: str, caplog) -> None:
    assert Settings.load({"host": given}).host == used
    assert caplog.records == []


def test_an_unencrypted_host_elsewhere_is_warned_of(caplog) -> None:
    Settings.load({"host": "http://posthog.example"})
    (record,) = caplog.records
    assert (record.levelno, "http://" in record.getMessage()) == (logging.WARNING, True)


# Off switches


@pytest.mark.parametrize("switch", OFF_SWITCHES)
@pytest.mark.parametrize("value", ["1", "true", "yes", "on", "x", " 1 "])
def test_any_off_switch_wins_over_every_argument(switch: str, value: str, monkeypatch) -> None:
    monkeypatch.setenv(switch, value)
    assert Analytics(token="phc_given").settings.disabled_by == switch
    assert Analytics.from_env(token="phc_given").settings.disabled_by == switch


@pytest.mark.parametrize("switch", OFF_SWITCHES)
@pytest.mark.parametrize("value", ["", "0", "false", "FALSE", "no", "off", " off "])
def test_an_off_switch_that_is_off_disables_nothing(switch: str, value: str, monkeypatch) -> None:
    monkeypatch.setenv(switch, value)
    assert Analytics(token="phc_given", outbox=Kept()).settings.enabled


def test_the_off_switches_are_read_at_every_construction(monkeypatch) -> None:
    assert Analytics(token="phc_x", outbox=Kept()).settings.enabled
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert not Analytics(token="phc_x", outbox=Kept()).settings.enabled


@pytest.mark.parametrize("given", [{}, {"token": None}, {"token": ""}])
def test_no_token_means_disabled_with_one_warning_that_says_how_to_enable(given, caplog) -> None:
    analytics = Analytics(**given)
    assert analytics.settings.disabled_by == "no token"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "SECOND_POSTHOG_TOKEN" in record.getMessage()
