"""The privacy core: posted bytes to outbox bytes, against msgspec decode and encode of it.

Measured is what the endpoint does with a body once it has it: decoding, the checks of one event,
both modes' rules, the gate, and the bytes that enter the outbox. `warm` posts one body over and
over; `usual` a body each time with ids, numbers and texts of its own, one of a product's few dozen
labels and models, and the anonymous id that one of the user's browsers keeps; `new` one whose
labels, too, were never seen before, from a new browser. Times are of the
process, not of the wall, so that a busy machine disturbs them less.
"""

from __future__ import annotations

import logging
import random
import time
import uuid as uuids
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, Final

import msgspec

from second_mw import AnalyticsUser, Catalogue, Event
from second_mw.body import posted as posted_in
from second_mw.endpoint import Endpoint
from second_mw.privacy.mode import Mode
from second_mw.privacy.pipeline import Pipeline
from second_mw.settings import Settings
from second_mw.tally import Tally
from tests.benchmarks.table import Curve, Spread, Table, interleaved, ratios, spread

TITLE = "the privacy core, against msgspec decode + encode of the same body"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

WORKSPACE: Final = "65f0c0ffee65f0c0ffee65f1"
PROSE: Final = (
    "The board shows every open order of the week, who is working on it and what is late, so that "
    "the team can plan ahead. "
)
#: Bars of the median, in round trips.
BARS: Final = {
    ("page viewed", "anonymized"): 8,
    ("build completed", "anonymized"): 8,
    ("approval shown", "anonymized"): 5,
    ("page viewed", "identified"): 5,
    ("build completed", "identified"): 5,
    ("approval shown", "identified"): 5,
}


def user(number: int = 0, workspaces: int = 2) -> AnalyticsUser:
    """Return a user like any: an id, an address, a name, two workspaces."""
    return AnalyticsUser(
        f"65f0c0ffee65f0c0ffe{number:05x}",
        email=f"ada.lovelace{number}@analytical.example",
        name="Ada Lovelace",
        workspaces={f"{int(WORKSPACE, 16) + place:024x}": "admin" for place in range(workspaces)},
    )


class Bodies:
    """Makes bodies as a browser posts them, each with values of its own.

    Args:
        labels: how many different labels and models there are; None makes them up.
    """

    def __init__(self, labels: int | None = None) -> None:
        self._random = random.Random(7)
        self._known: dict[str, list[str]] | None = None
        #: Anonymous ids that browsers keep, none if each event comes from a new one.
        self._browsers: list[str] = []
        if labels is not None:
            self._known = {
                kind: [make() for _ in range(labels)]
                for kind, make in (("label", self.label), ("model", self.model))
            }
            self._browsers = [self._anonymous_id() for _ in range(3)]
        self.makers: dict[str, Callable[[], dict[str, Any]]] = {
            "page viewed": self._page,
            "build completed": self._build,
            "approval shown": self._approval,
        }

    def body(self, event: str, **more: Any) -> bytes:
        """Return a new body of this event."""
        posted = {
            "event": event,
            "properties": {**self.makers[event](), **more},
            "anonymousDistinctId": (
                self._random.choice(self._browsers) if self._browsers else self._anonymous_id()
            ),
            "uuid": self._uuid(),
            "timestamp": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S}.123Z",
        }
        return _encode(posted)

    def _anonymous_id(self) -> str:
        return f"anon_{self._uuid()}"

    def _uuid(self) -> str:
        return str(uuids.UUID(int=self._random.getrandbits(128), version=4))

    def _id(self) -> str:
        return f"{self._random.getrandbits(96):024x}"

    def label(self) -> str:
        """Return a label that was never seen before, or hardly ever, or a known one."""
        if self._known is not None:
            return self._random.choice(self._known["label"])
        word = self._random.choice(("delta", "nova", "pixel", "quartz", "river", "summit"))
        return f"{word}-{self._random.choice('abcdefgh')}{self._random.randrange(1, 999)}"

    def model(self) -> str:
        """Return a model, one of hundreds or a known one."""
        if self._known is not None:
            return self._random.choice(self._known["model"])
        return f"claude-sonnet-4-{self._count(999)}"

    def _count(self, most: int = 2000) -> int:
        return self._random.randrange(most)

    def _page(self) -> dict[str, Any]:
        return {
            "surface": "app_chat",
            "route_shape": "/w/:workspace/apps/:objectId",
            "viewport_width": self._count(),
            "viewport_height": self._count(),
            "app_section": "chat",
            "workspace_id": WORKSPACE,
            "app_id": self._id(),
            "theme": self.label(),
        }

    def _build(self) -> dict[str, Any]:
        return {
            **self._page(),
            "run_id": self._id(),
            "runtime_id": "claude-code",
            "runtime_model": self.model(),
            "runtime_model_family": "claude",
            "message_count": self._count(99),
            "user_message_count": self._count(99),
            "assistant_message_count": self._count(99),
            "tool_call_count": self._count(99),
            "attachment_count": 0,
            "duration_ms": self._random.random() * 99_999,
            "file_count": self._count(99),
            "total_bytes": self._count(10**6),
            "has_warning": False,
        }

    def _approval(self) -> dict[str, Any]:
        flags = "title overview features data_flow agents backend".split()
        counts = (
            "plan_feature_count plan_agent_count plan_overview_length plan_data_flow_length "
            "plan_agents_length plan_backend_length agent_count agent_detail_count app_tool_count "
            "agent_tool_count agent_integration_count"
        ).split()
        return {
            **self._page(),
            "run_id": self._id(),
            "tool_call_id": f"call_{self._id()}",
            "approval_type": "plan",
            "plan_title": f"Order board {self.label()}",
            **{
                f"plan_{part}": f"{self.label()} {PROSE * 11}"
                for part in ("overview", "data_flow", "agents", "backend")
            },
            "plan_features": [f"Board {self.label()}", f"Digest {self.label()}", "Late orders"],
            "plan_feature_names": ["Board", "Digest"],
            "agent_names": [f"Order Watcher {self.label()}", "Digest Writer"],
            "agent_ids": [self._id(), self._id()],
            "agent_tool_names": ["list_orders", "send_mail"],
            **{f"plan_has_{flag}": True for flag in flags},
            **{count: self._count() for count in counts},
        }


class Core:
    """The core as the endpoint uses it."""

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        # The warnings of what is redacted, once for each key, would be most of the output.
        logging.getLogger("second_mw").setLevel(logging.ERROR)
        settings = Settings.load({"token": "phc_benchmark"})
        self.pipeline = Pipeline(settings, catalogue or Catalogue.default(), b"the server key")
        self._endpoint = Endpoint(settings, self.pipeline, Tally(), {})

    def seconds(self, bodies: Sequence[bytes], who: AnalyticsUser, mode: Mode) -> float:
        """Return the seconds that a body takes."""
        posted, finish = self._endpoint._posted, self.pipeline.finish
        began = time.process_time()
        for body in bodies:
            finished = finish(posted(posted_in(body), who), who, mode)
            if finished.taken is not None:
                # As once the outbox has it; else each event would bring a `$identify` with it.
                finished.taken()
        return (time.process_time() - began) / len(bodies)


def round_trip(bodies: Sequence[bytes]) -> float:
    """Return the seconds that msgspec takes to decode a body and encode it again."""
    began = time.process_time()
    for body in bodies:
        _encode(_decode(body))
    return (time.process_time() - began) / len(bodies)


def measure(short: bool) -> list[Table]:
    """Return the ratios, and the curves over size, users, events seen and catalogue entries."""
    rounds, count = (3, 40) if short else (15, 400)
    return [_ratios(rounds, count), _sizes(short), _steady(short)]


def _ratios(rounds: int, count: int) -> Table:
    core, bodies, usual, rows = Core(), Bodies(), Bodies(labels=24), []
    ada = user()
    for (event, mode), bar in BARS.items():
        same = [bodies.body(event)] * count

        def fresh(bodies: Bodies, event: str = event, mode: str = mode) -> float:
            given = [bodies.body(event) for _ in range(count)]
            # Both for the first time: a body that was never read is in no cache of the processor.
            return core.seconds(given, ada, mode) / round_trip(given)  # type: ignore[arg-type]

        figures = interleaved(
            rounds,
            floor=lambda same=same: round_trip(same),  # type: ignore[misc]
            warm=lambda same=same, mode=mode: core.seconds(same, ada, mode),  # type: ignore[misc]
            usual=lambda fresh=fresh: fresh(usual),  # type: ignore[misc]
            new=lambda fresh=fresh: fresh(bodies),  # type: ignore[misc]
        )
        rows.append(
            (
                event,
                mode,
                len(same[0]),
                _in_µs(figures["floor"]),
                _in_µs(figures["warm"]),
                ratios(figures["warm"], figures["floor"]),
                spread(figures["usual"], "×"),
                spread(figures["new"], "×"),
                f"{bar}×",
            )
        )
    return Table(
        ("event", "mode", "bytes", "round trip", "warm", "warm ÷ trip", "usual", "new", "bar"),
        rows,
        ("receipts off; a receipt makes an event take the careful walk",),
        title="Posted bytes to outbox bytes",
    )


def _sizes(short: bool) -> Table:
    core, bodies, rows = Core(), Bodies(), []
    ada = user()
    points: dict[str, list[tuple[float, float]]] = {}
    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "text that is dropped": lambda size: {"plan_overview": (PROSE * (size // 90 + 1))[:size]},
        "many labels": lambda size: {
            f"label_{n:05}x": bodies.label() for n in range(max(1, size // 28))
        },
        "many named things": lambda size: {
            "agent_names": [bodies.label() for _ in range(max(1, size // 14))],
            "theme": "dark",
        },
    }
    modes: tuple[Mode, ...] = ("anonymized", "identified")
    for name, properties in kinds.items():
        for mode in modes:
            for size in (100, 1_000, 10_000, 100_000, 262_144):
                given = [bodies.body("approval shown", **properties(size)) for _ in range(2)]
                samples = [core.seconds(given, ada, mode) for _ in range(3 if short else 9)]
                took = spread(samples).median
                points.setdefault(f"{name}, {mode}", []).append((len(given[0]), took * 1e6))
    for name, line in points.items():
        rows.append((name, *(f"{took:,.0f} µs" for _, took in line)))
    return Table(
        ("body", "100 B more", "1 kB", "10 kB", "100 kB", "256 KiB"),
        rows,
        ("an approval, which has 2 kB of its own, with so much more of one kind",),
        [Curve(name, "bytes", "µs", line) for name, line in points.items()],
        "Cost against the size of the body",
    )


def _steady(short: bool) -> Table:
    many = 200 if short else 5_000
    bodies, rows = Bodies(), []
    given = [bodies.body("build completed") for _ in range(200)]
    fresh, busy = Core(), Core()
    for number in range(many):
        busy.seconds([given[number % 200]], user(number), "anonymized")
    seen = Core()
    for _ in range(many // 10):
        seen.seconds([bodies.body("build completed") for _ in range(10)], user(), "anonymized")
    wide = Core(
        Catalogue.default().extend(*(Event(f"event {number}") for number in range(many // 5)))
    )
    administrator = user(workspaces=many)
    figures = interleaved(
        3 if short else 15,
        fresh=lambda: fresh.seconds(given, user(), "anonymized"),
        busy=lambda: busy.seconds(given, user(), "anonymized"),
        seen=lambda: seen.seconds(given, user(), "anonymized"),
        wide=lambda: wide.seconds(given, user(), "anonymized"),
        rich=lambda: fresh.seconds(given, administrator, "anonymized"),
    )
    for name, what in (
        ("busy", f"after {many:,} other users"),
        ("seen", f"after {many:,} other events"),
        ("wide", f"with {many // 5:,} more events in the catalogue"),
        ("rich", f"a user with {many:,} workspaces"),
    ):
        rows.append((what, ratios(figures[name], figures["fresh"])))
    return Table(("build completed", "÷ a fresh core"), rows, title="What it does not depend on")


def _in_µs(samples: Sequence[float]) -> Spread:
    return spread([seconds * 1e6 for seconds in samples], " µs")
