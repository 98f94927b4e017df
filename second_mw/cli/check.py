"""`second-mw check`: every setting with its source, and whether what it names works (spec §13).

Findings come from a table of looks; each says good, warning or bad, what it saw and what to do.
A look that itself fails is a finding, too: this command is for when things are broken.
"""

from __future__ import annotations

import argparse
import os
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import msgspec

from second_mw.cli import screen, served
from second_mw.errors import AnalyticsError, ConfigurationError, OutboxUnavailable
from second_mw.outbox.base import Entry
from second_mw.payload import Payload, rfc3339
from second_mw.settings import FIELDS, Settings, masked

EXAMPLE: Final = "second-mw check shop.web:app --probe"
DESCRIPTION: Final = (
    "Look at every setting with its source, and at whether what it names works.\n"
    "Exit code 1 if anything is bad; each finding says what to do."
)

State = Literal["good", "warning", "bad", "off"]

#: Beside the us and eu hosts, only a host of one's own makes sense.
_POSTHOG_CLOUD: Final = ("us.i.posthog.com", "eu.i.posthog.com")


class Finding(NamedTuple):
    """What one look saw.

    Args:
        about: what was looked at.
        state: `off` is neither good nor bad: it is switched off, or was not looked at.
        seen: what was seen, without a secret.
        todo: what to do, empty if nothing is to be done.
    """

    about: str
    state: State
    seen: str
    todo: str = ""


Look: TypeAlias = Callable[[Settings], Iterator[Finding]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "app", nargs="?", metavar="module:app", help="look at this app's wrapping, too"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="send one event, marked 'second_mw probe', and say what PostHog answers",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document, for machines")


def run(given: argparse.Namespace) -> int:
    """Print settings and findings; 1 if anything is bad."""
    try:
        settings = Settings.load({}, os.environ)
    except ConfigurationError as error:
        findings = [Finding("settings", "bad", str(error), "correct the variable and check again")]
        _print([], findings, as_json=given.json)
        return 1
    looks = dict(LOOKS)
    if given.app:
        looks["app"] = lambda _: _app(given.app)
    if given.probe:
        looks["probe"] = _probe
    findings = [found for name, look in looks.items() for found in _looked(name, look, settings)]
    _print(_rows(settings), findings, as_json=given.json)
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def _looked(name: str, look: Look, settings: Settings) -> list[Finding]:
    try:
        return list(look(settings))
    except AnalyticsError as error:
        return [Finding(name, "bad", str(error))]
    except Exception as error:
        # The exception's text may hold an address with a password: its kind has to do.
        seen = f"the look itself failed: {type(error).__name__}"
        return [Finding(name, "bad", seen, "run the app with logging at DEBUG")]


# What is looked at


def _switch(settings: Settings) -> Iterator[Finding]:
    if settings.disabled_by == "no token":
        todo = "set SECOND_POSTHOG_TOKEN to the project token (PostHog: Project settings)"
        yield Finding("analytics", "bad", "disabled: there is no project token", todo)
    elif settings.disabled_by:
        yield Finding("analytics", "off", f"switched off by {settings.disabled_by}")
    else:
        yield Finding("analytics", "good", "on")


def _token(settings: Settings) -> Iterator[Finding]:
    if settings.token is None:
        return
    if settings.token.startswith("phc_") and len(settings.token) >= 20:
        yield Finding("token", "good", f"looks like a project token: {masked(settings.token)}")
    else:
        todo = "copy the project token, which starts with phc_, from PostHog's Project settings"
        yield Finding("token", "warning", f"is not like a token: {masked(settings.token)}", todo)


def _host(settings: Settings) -> Iterator[Finding]:
    parts = urlsplit(settings.host)
    if parts.hostname in _POSTHOG_CLOUD:
        yield Finding("host", "good", f"PostHog Cloud, {parts.hostname}")
    elif parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"):
        yield Finding("host", "warning", f"{settings.host} is on this machine: an inbox?")
    elif parts.scheme == "http":
        yield Finding("host", "warning", f"{settings.host} is not encrypted", "use https://")
    else:
        yield Finding("host", "good", f"a host of your own, {parts.hostname}")


def _secret(settings: Settings) -> Iterator[Finding]:
    if settings.secret is None:
        todo = "set SECOND_ANALYTICS_SECRET to a long random text, before there are choices to lose"
        seen = "derived from the project token, which is no secret"
        yield Finding("server key", "warning", seen, todo)
    elif len(settings.secret) < 16:
        yield Finding("server key", "warning", "short", "use 32 random characters or more")
    else:
        yield Finding("server key", "good", f"set: {masked(settings.secret)}")


def _outbox(settings: Settings) -> Iterator[Finding]:
    from second_mw.outbox.outbox import open_store

    store = open_store(settings.outbox)
    try:
        sentences = store.check()
        try:
            counts = store.counts()
        except OutboxUnavailable:
            yield Finding("outbox", "bad", " ".join(sentences))
            return
        for sentence in sentences:
            yield Finding("outbox", "warning", sentence)
        waiting = f"{counts.waiting} waiting, {counts.dead} dead"
        if store.durable:
            yield Finding("outbox", "good", f"opened, durable; {waiting}")
        else:
            todo = "set SECOND_ANALYTICS_OUTBOX to sqlite:///path or redis://… to survive a crash"
            yield Finding("outbox", "warning", "memory://: gone with the process", todo)
    finally:
        store.close()


def _preferences(settings: Settings) -> Iterator[Finding]:
    from second_mw.errors import PreferencesUnavailable
    from second_mw.preferences.opening import open_preferences

    preferences = open_preferences(settings.preferences, settings.outbox)
    try:
        try:
            preferences.get("0" * 64)
        except PreferencesUnavailable as error:
            yield Finding("preferences", "bad", str(error), "see SECOND_ANALYTICS_PREFERENCES")
            return
        if preferences.shared:
            yield Finding("preferences", "good", "read; every process sees a user's choice")
        else:
            todo = "set SECOND_ANALYTICS_PREFERENCES to sqlite:///path or redis://…"
            seen = "memory://: one process only, and a restart forgets every choice"
            yield Finding("preferences", "warning", seen, todo)
    finally:
        preferences.close()


def _app(name: str) -> Iterator[Finding]:
    app = served.found(name)
    interface = served.interface_of(app)
    if served.is_wrapped(app):
        yield Finding("app", "good", f"{name} is a {interface.upper()} app and wraps itself")
    else:
        todo = "wrap it (see the README), or serve it with `second-mw run`"
        yield Finding(
            "app", "bad", f"{name} is a {interface.upper()} app that is not wrapped", todo
        )


def _probe(settings: Settings) -> Iterator[Finding]:
    """Send one event that names nobody, past the outbox, and report PostHog's words."""
    if not settings.enabled:
        yield Finding("probe", "off", "not sent: analytics is switched off")
        return
    from second_mw.forwarder.dispatcher import codec_of
    from second_mw.forwarder.exchange import Batch, NoAnswer
    from second_mw.forwarder.transport import HttpTransport
    from second_mw.forwarder.verdicts import ruling_of_absence

    now = time.time()
    payload = Payload(
        "second_mw probe",
        str(uuid.uuid4()),
        f"anon_{uuid.uuid4()}",
        rfc3339(datetime.now(timezone.utc)),
        msgspec.json.encode({"$lib": "second-mw", "$ip": "0.0.0.0", "$geoip_disable": True}),  # noqa: S104
        {"process_person_profile": False},
    )
    batch = Batch.of([Entry("probe", payload, 0, now)], now)
    codec = codec_of(settings)
    transport = HttpTransport(
        settings.host,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
    )
    try:
        answer = transport.send(codec.request(batch, 1, now))
    finally:
        transport.close()
    if isinstance(answer, NoAnswer):
        ruling = ruling_of_absence(answer)
        yield Finding("probe", "bad", f"no answer: {answer.reason}", ruling.look_at)
        return
    ruling = codec.judge(answer, batch, now)
    verdict = ruling.verdict_of("probe")
    if verdict is not None and verdict.result == "delivered":
        seen = f"PostHog took the event {payload.uuid} ({answer.status})"
        yield Finding("probe", "good", seen, "find it under Activity as 'second_mw probe'")
        return
    reason = verdict.reason if verdict is not None and verdict.reason else ruling.reason
    yield Finding("probe", "bad", f"PostHog did not take it: {reason}", ruling.look_at)


LOOKS: Final[dict[str, Look]] = {
    "analytics": _switch,
    "token": _token,
    "host": _host,
    "server key": _secret,
    "outbox": _outbox,
    "preferences": _preferences,
}


# How it is printed


def _rows(settings: Settings) -> list[tuple[str, str, str]]:
    return [
        (entry.name, _shown(getattr(settings, entry.name), secret=entry.secret), source)
        for entry in FIELDS
        if (source := settings.sources[entry.name])
    ]


def _shown(value: Any, *, secret: bool) -> str:
    if value is None:
        return "–"
    if isinstance(value, str) and secret:
        # A store's address is worth reading, its password is not.
        return _without_password(value) if "://" in value else masked(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "–"
    return "set" if callable(value) else str(value)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    userinfo, at, place = rest.rpartition("@")
    return f"{scheme}://{'…@' if at else ''}{place}" if userinfo or not at else url


def _print(rows: list[tuple[str, str, str]], findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        screen.document(
            {
                "settings": {name: {"value": v, "source": s} for name, v, s in rows},
                "findings": [finding._asdict() for finding in findings],
            }
        )
        return
    if rows:
        screen.table(("setting", "value", "from"), rows)
        print()
    screen.table(
        ("", "", "what was seen"), [(f.state, f.about, f.seen) for f in findings], title="Findings"
    )
    for finding in findings:
        if finding.todo:
            print(f"\n{finding.about}: {finding.todo}")
