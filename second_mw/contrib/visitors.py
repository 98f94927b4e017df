"""What the glue makes of a framework's own user objects before the resolver judges them.

Flask-Login, Starlette and Django all give a visitor as an object that says `is_authenticated` is
False, and Flask hands out proxies that are gone when their request context is. Neither may reach
the endpoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from second_mw.user import AnalyticsUser

logger: logging.Logger = logging.getLogger("second_mw")


def signed_in(found: Any) -> Any:
    """Return what a host's callable found, without its proxy; None for a framework's visitor.

    >>> from types import SimpleNamespace
    >>> signed_in(SimpleNamespace(is_authenticated=False)) is None
    True
    >>> signed_in("anything else is left for the resolver to judge")
    'anything else is left for the resolver to judge'
    """
    behind = getattr(found, "_get_current_object", None)
    if behind is not None:
        found = behind()
    return None if getattr(found, "is_authenticated", None) is False else found


def user_for_page(find: Callable[[], Any]) -> AnalyticsUser | None:
    """Return the user that a page's script tag is for, None where that is not to be had now.

    The tag then says nothing of the mode and the client asks, so a page never fails because of
    its analytics, and an event loop that renders a template is not blocked by a look-up.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return None
    try:
        found = find()
    except Exception:
        logger.exception("second_mw: the user of a page can't be told; its script tag names none")
        return None
    return found if isinstance(found, AnalyticsUser) else None
