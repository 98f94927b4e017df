"""`second-mw export`: what is kept here about one person, as JSON (access, GDPR Art. 15)."""

from __future__ import annotations

import argparse
from typing import Any, Final

from second_mw.cli import durable, screen
from second_mw.cli.outbox import found_as_data
from second_mw.errors import AnalyticsError
from second_mw.preferences.base import Preferences
from second_mw.preferences.opening import open_preferences
from second_mw.settings import Settings
from second_mw.user import user_key

EXAMPLE: Final = "second-mw export --user u_4711 --outbox sqlite:///events.db"
DESCRIPTION: Final = (
    "Print what is kept here about one person, as JSON: the choice, and events that wait or\n"
    "are dead.\n\n"
    "Anonymized events carry no user: find them by the browser's anonymous id, which the\n"
    "person sees under Usage data settings (--distinct-id anon_…). The user's choice is kept\n"
    "under a key: set SECOND_ANALYTICS_SECRET or SECOND_POSTHOG_TOKEN as the app has it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    durable.add_person(parser)
    durable.add_outbox(parser)


def run(given: argparse.Namespace) -> int:
    """Print one JSON document."""
    person = durable.person(given)
    settings = durable.settings_of(given)
    with durable.opened(settings) as store:
        events = [found_as_data(found) for found in store.export(person.distinct_ids)]
    screen.document(
        {
            "choice": _choice(settings, person.user_id),
            "events": events,
            "elsewhere": elsewhere(settings, person),
        }
    )
    return 0


def _choice(settings: Settings, user_id: str | None) -> dict[str, Any] | None:
    if user_id is None:
        return None
    preferences, key = opened_preferences(settings, user_id)
    try:
        choice = preferences.get(key)
    finally:
        preferences.close()
    if choice is None:
        return None
    return {"sharing": choice.sharing, "anonymized": choice.anonymized}


def opened_preferences(settings: Settings, user_id: str) -> tuple[Preferences, str]:
    """Return the preference store and the key that stands for a user in it.

    Raises:
        AnalyticsError: the server key is not known here.
    """
    if not (settings.secret or settings.token):
        raise AnalyticsError(
            "a user's choice is kept under a key made with SECOND_ANALYTICS_SECRET (or "
            "SECOND_POSTHOG_TOKEN): set it as the app has it"
        )
    preferences = open_preferences(settings.preferences, settings.outbox)
    return preferences, user_key(settings.server_key, user_id)


def elsewhere(settings: Settings, person: durable.Person) -> list[str]:
    """Return what is to be asked of PostHog itself, in sentences."""
    ids = ", ".join(person.distinct_ids)
    return [
        f"PostHog ({settings.host}) keeps the events it took: under Persons, find {ids}; 'Delete "
        "person' with its events erases, and the events' export answers an access request.",
        "Anonymized events have no person there: filter Activity by distinct_id.",
    ]
