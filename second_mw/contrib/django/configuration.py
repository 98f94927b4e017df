"""`settings.SECOND_ANALYTICS`, read and judged; imports no model, so that checks may use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from second_mw.errors import ConfigurationError


def configured() -> tuple[dict[str, Any], Any]:
    """Return the fields for `Analytics.from_env`, and the `user` callable or its dotted path.

    Raises:
        ConfigurationError: the setting is no mapping, or `user` is neither.
    """
    given = getattr(settings, "SECOND_ANALYTICS", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"SECOND_ANALYTICS is a {type(given).__name__}; it must be a dict of settings, such as "
            '{"user": "shop.people.analytics_user"}'
        )
    fields = dict(given)
    user = fields.pop("user", None)
    if not (user is None or isinstance(user, str) or callable(user)):
        raise ConfigurationError(
            f"SECOND_ANALYTICS['user'] is a {type(user).__name__}; it must be a callable that "
            "takes the request, or its dotted path"
        )
    return fields, user
