"""What `manage.py check` says of `SECOND_ANALYTICS`. Nothing is opened, no user is looked up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils.module_loading import import_string

from second_mw.contrib.django.configuration import configured
from second_mw.errors import ConfigurationError
from second_mw.settings import Settings


def check_settings(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Return what is wrong with `settings.SECOND_ANALYTICS`, and how to put it right."""
    return list(_found())


def _found() -> Iterator[CheckMessage]:
    try:
        fields, user = configured()
    except ConfigurationError as error:
        yield Error(str(error), id="second_analytics.E001")
        return
    try:
        # `routes` is read from the URLconf, which may import half of the project.
        loaded = Settings.load({**fields, "routes": None}, os.environ)
    except (TypeError, ConfigurationError) as error:
        yield Error(f"SECOND_ANALYTICS: {error}", id="second_analytics.E002")
        return
    if isinstance(user, str):
        try:
            import_string(user)
        except ImportError as error:
            hint = "It must be the dotted path of a callable that takes the request."
            yield Error(f"SECOND_ANALYTICS['user']: {error}", hint=hint, id="second_analytics.E003")
    if user is None:
        yield from _of_sign_in()
    if loaded.disabled_by == "no token":
        yield Warning(
            "second_mw is disabled because it has no project token.",
            hint="Set SECOND_POSTHOG_TOKEN or SECOND_ANALYTICS['token'] to your PostHog project "
            "token (phc_…).",
            id="second_analytics.W001",
        )


def _of_sign_in() -> Iterator[CheckMessage]:
    for app in ("django.contrib.sessions", "django.contrib.auth"):
        if app not in settings.INSTALLED_APPS:
            yield Warning(
                f"{app} is not in INSTALLED_APPS, so that request.user is not known.",
                hint="Name a callable that knows who is signed in in SECOND_ANALYTICS['user'].",
                id="second_analytics.W002",
            )
