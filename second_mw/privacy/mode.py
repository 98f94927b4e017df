"""Which mode an event has, and why (spec §7); only the server's own record ever lifts it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

import msgspec

from second_mw.privacy import names
from second_mw.settings import Settings
from second_mw.user import AnalyticsUser, Choice

Mode = Literal["anonymized", "identified"]
Reason = Literal["user", "default", "host", "gpc", "dnt", "store_failed", "disabled"]
#: An event's own word: `neutral` says nothing, `identified` that it was captured so.
Word = Literal["neutral", "identified", "anonymized"]

_NO_CHOICE: Final = Choice()

#: What the adapters hand over when the preference store failed or took too long.
STORE_FAILED: Final = "store_failed"


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Where a user stands with this request.

    Args:
        mode: the mode an event has that says nothing itself.
        reason: why, in the words of `GET preferences` (spec §4).
        shares: whether anything is taken from this user at all.
    """

    mode: Mode
    reason: Reason
    shares: bool


def asks_store(user: AnalyticsUser) -> bool:
    """Whether the resolver left anything to the preference store."""
    return user.anonymized is None or user.sharing is None


def standing(
    settings: Settings,
    user: AnalyticsUser,
    choice: Choice | Literal["store_failed"] | None,
    *,
    gpc: bool,
    dnt: bool,
) -> Standing:
    """Return the user's standing; whatever is unknown means anonymized.

    Args:
        choice: what the preference store says, None if the user never chose.
        gpc, dnt: whether the request says `Sec-GPC: 1` or `DNT: 1`.
    """
    chosen = choice if isinstance(choice, Choice) else _NO_CHOICE
    mode, reason = _mode(settings, user, choice, gpc=gpc, dnt=dnt)
    return Standing(mode, reason, _shares(settings, user, chosen, gpc=gpc, dnt=dnt))


def _mode(
    settings: Settings,
    user: AnalyticsUser,
    choice: Choice | Literal["store_failed"] | None,
    *,
    gpc: bool,
    dnt: bool,
) -> tuple[Mode, Reason]:
    if not settings.enabled:
        return "anonymized", "disabled"
    if user.anonymized not in (None, False) or not user.can_be_identified:
        return "anonymized", "host"
    if gpc and settings.gpc != "ignore":
        return "anonymized", "gpc"
    if dnt and settings.dnt != "ignore":
        return "anonymized", "dnt"
    # `is False`: a 0 from a database row is no choice the user made.
    if user.anonymized is not None:
        return ("identified" if user.anonymized is False else "anonymized"), "host"
    if choice == STORE_FAILED:
        return "anonymized", "store_failed"
    if not isinstance(choice, Choice) or choice.anonymized is None:
        return "anonymized", "default"
    return ("identified" if choice.anonymized is False else "anonymized"), "user"


def _shares(
    settings: Settings, user: AnalyticsUser, chosen: Choice, *, gpc: bool, dnt: bool
) -> bool:
    if (gpc and settings.gpc == "drop") or (dnt and settings.dnt == "drop"):
        return False
    if user.sharing is not None:
        return user.sharing is True
    if chosen.sharing is not None:
        return chosen.sharing
    return settings.consent == "default-on"


def own_word(
    event: Mapping[str, Any], properties: Mapping[str, Any], asking: Collection[str]
) -> Word:
    """Return what an event says of its mode, at its top level or in its properties (spec §7).

    Args:
        asking: those keys of the properties that ask for anonymity.

    >>> own_word({}, {"Anonymized": False}, ["Anonymized"]), own_word({"anonymized": 0}, {}, [])
    ('identified', 'anonymized')
    """
    word: Word = "neutral"
    if not event and not asking:
        return word
    at_top = [key for key in event if names.asks_for_anonymity(key)]
    for level, keys in ((event, at_top), (properties, asking)):
        for key in keys:
            if level[key] is not False:
                return "anonymized"
            word = "identified"
    return word
