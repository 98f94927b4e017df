"""`second-mw erase`: erase what is kept here about one person (GDPR Art. 17)."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Final

from second_mw.cli import durable, screen
from second_mw.cli.export import elsewhere, opened_preferences
from second_mw.settings import Settings
from second_mw.user import Choice, user_key

EXAMPLE: Final = "second-mw erase --user u_4711 --outbox sqlite:///events.db"
DESCRIPTION: Final = (
    "Erase what is kept here about one person: the choice, what is remembered of $identify,\n"
    "and events that wait or are dead. Says what to ask of PostHog itself.\n\n"
    "Anonymized events carry no user: name the browser's anonymous id for them, which the\n"
    "person sees under Usage data settings (--distinct-id anon_…). The user's choice is kept\n"
    "under a key: set SECOND_ANALYTICS_SECRET or SECOND_POSTHOG_TOKEN as the app has it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    durable.add_person(parser)
    durable.add_outbox(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document, for machines")


def run(given: argparse.Namespace) -> int:
    """Erase, and say what was erased."""
    person = durable.person(given)
    settings = durable.settings_of(given)
    chosen = False
    with durable.opened(settings) as store:
        if person.user_id is not None:
            chosen = _forget(settings, person.user_id)
            store.key_of_user = partial(user_key, settings.server_key)
        events = store.erase(person.distinct_ids)
    said = elsewhere(settings, person)
    if given.json:
        screen.document({"events": events, "choice": chosen, "elsewhere": said})
        return 0
    print(f"{events:,} {'event' if events == 1 else 'events'} erased")
    if person.user_id is not None:
        print("the user's choice is erased" if chosen else "the user had made no choice")
    for sentence in said:
        print(f"\n{sentence}")
    return 0


def _forget(settings: Settings, user_id: str) -> bool:
    """Erase a user's choice; return whether there was one."""
    preferences, key = opened_preferences(settings, user_id)
    try:
        had = preferences.get(key) is not None
        preferences.put(key, Choice())
    finally:
        preferences.close()
    return had
