"""How long to wait before an event is sent again (posthog-contract's backoff). Numbers only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Retries in one round where the settings name no number: about two and a half minutes of them.
RETRIES_A_ROUND: Final = 10
#: After a round that was used up, or a 429, the same events are left alone for this long.
BETWEEN_ROUNDS: Final = 30.0
#: The middle of the first delay, and what no delay exceeds.
_FIRST: Final = 0.5
_CAP: Final = 30.0


def backoff(retry: int, random: Callable[[], float]) -> float:
    """Return the seconds before the `retry`th retry (1 is the first).

    Doubles with a jitter of a quarter either way: senders that failed together do not come back
    together, and yet each delay is longer than the one before.

    >>> [backoff(n, lambda: 0.5) for n in (1, 2, 3, 9)]
    [0.5, 1.0, 2.0, 30.0]
    """
    # The exponent is bounded, because 2.0 ** 1100 is an error and not a long time.
    return min(_CAP, _FIRST * 2.0 ** min(retry - 1, 16) * (0.75 + 0.5 * random()))
