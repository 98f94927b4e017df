"""The app for `INSTALLED_APPS`: template tags, and checks of the settings at start-up."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class SecondAnalyticsConfig(AppConfig):  # type: ignore[misc] # Django has no types
    """`"second_mw.contrib.django"` in `INSTALLED_APPS`."""

    name: str = "second_mw.contrib.django"
    label: str = "second_analytics"
    verbose_name: str = "Second analytics"

    def ready(self) -> None:
        """Register the system checks."""
        from second_mw.contrib.django.checks import check_settings

        register(check_settings)
