"""What an adapter needs of an `Analytics`: the seam between the two. A leaf of types only."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from second_mw.payload import Payload
from second_mw.preferences.base import Preferences
from second_mw.settings import Settings

if TYPE_CHECKING:
    from second_mw.endpoint import Endpoint


class OutboxDoor(Protocol):
    """The way into the outbox."""

    @property
    def blocking(self) -> bool:
        """Whether `put` does I/O."""
        ...

    def put(self, events: Sequence[Payload]) -> int:
        """Put all or none; return how many are new."""
        ...

    def submit(self, events: Sequence[Payload]) -> Future[int]:
        """The same, without blocking."""
        ...


class RateDoor(Protocol):
    """Knows who may ask now."""

    @property
    def blocking(self) -> bool:
        """Whether `wait` does I/O."""
        ...

    def wait(self, key: str) -> float | None:
        """Count one request; return None, or in how many seconds the next may come."""
        ...


class Wiring(Protocol):
    """The rooms that an adapter hands requests to and fetches answers from."""

    @property
    def settings(self) -> Settings:
        """What the host set."""
        ...

    @property
    def paths(self) -> frozenset[str]:
        """Which paths are ours, below the mount."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """Decides; made when it is first asked for."""
        ...

    @property
    def outbox(self) -> OutboxDoor:
        """Keeps."""
        ...

    @property
    def preferences(self) -> Preferences:
        """Knows what users chose."""
        ...

    def wrapped(self) -> None:
        """Hear that a host was wrapped."""
        ...

    @property
    def rates(self) -> RateDoor:
        """Counts."""
        ...

    def startup(self) -> None:
        """Start what must run before any event."""
        ...

    def shutdown(self) -> None:
        """Flush within `shutdown_timeout` and stop."""
        ...
