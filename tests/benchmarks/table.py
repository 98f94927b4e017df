"""What a benchmark gives back: tables with medians, spread and ratios, and curves."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A median with the lowest and the highest of its samples."""

    median: float
    low: float
    high: float
    unit: str = ""

    def __str__(self) -> str:
        figure = f"{number(self.median)}{self.unit}"
        return f"{figure} ({number(self.low)} to {number(self.high)})"


@dataclass(frozen=True)
class Curve:
    """Points of one line in a picture, in the order of x."""

    name: str
    x_label: str
    y_label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Table:
    """One table of results.

    Args:
        columns: their names; the first is what a row is about.
        rows: a cell is text, a number, a `Spread` or None (not measured).
        notes: what a reader has to know: what was compared, the bar, what was skipped and why.
        curves: for `--plot`.
        title: what is measured, where a benchmark has several tables.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()
    curves: Sequence[Curve] = field(default=())
    title: str = ""

    def text(self) -> str:
        """Return the table as Markdown, which reads well on a terminal, too."""
        cells = [[str(name) for name in self.columns]]
        cells += [[_cell(value) for value in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([*([self.title, ""] if self.title else []), *lines, *notes])


def number(value: float) -> str:
    """Return a number with three figures that count."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def spread(samples: Sequence[float], unit: str = "") -> Spread:
    """Return median, lowest and highest of the samples."""
    return Spread(statistics.median(samples), min(samples), max(samples), unit)


def ratios(samples: Sequence[float], to: Sequence[float], unit: str = "×") -> Spread:
    """Return the ratios pair by pair: samples of one round belong together."""
    return spread([a / b for a, b in zip(samples, to, strict=True)], unit)


def interleaved(rounds: int, **tasks: Callable[[], float]) -> dict[str, list[float]]:
    """Run the tasks in turn, round after round, so that a slow moment hits them alike.

    Args:
        tasks: each measures itself and returns its figure; the first call of each is a warm-up.

    Returns:
        name → one figure a round.
    """
    for task in tasks.values():
        task()
    figures: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            gc.collect()
            figures[name].append(task())
    return figures
