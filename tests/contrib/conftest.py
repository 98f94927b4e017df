"""The pytest plugin's fixtures, by import: the plugin itself stays out so that coverage counts."""

from __future__ import annotations

from second_mw.contrib.pytest_plugin import captured_events, fake_user

__all__ = ["captured_events", "fake_user"]
