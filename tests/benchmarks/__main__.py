"""`python -m tests.benchmarks [name …]`: see the package's docstring."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.benchmarks.table import Curve, Table

_NOT_BENCHMARKS = {"__init__", "__main__", "table"}


def benchmarks() -> dict[str, Any]:
    """Return name → module of every benchmark, in the order of their names."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem in _NOT_BENCHMARKS or path.stem.startswith("_"):
            continue
        module = import_module(f"tests.benchmarks.{path.stem}")
        if hasattr(module, "measure"):
            found[path.stem] = module
    return found


def machine() -> str:
    """Return what the figures were taken on."""
    system = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{system}, {os.cpu_count()} cores, {datetime.now(timezone.utc):%Y-%m-%d}"


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for and print it."""
    known = benchmarks()
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Benchmarks: ratios between two things measured in one run.",
        epilog="Benchmarks: " + "; ".join(f"{name}: {m.TITLE}" for name, m in known.items()),
    )
    parser.add_argument("names", nargs="*", metavar="name", choices=[*known, []], default=[])
    parser.add_argument("--short", action="store_true", help="seconds each: does it still run?")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves")
    given = parser.parse_args(arguments)
    results: dict[str, list[Table]] = {}
    print(machine(), file=sys.stderr)
    for name in given.names or known:
        began = time.monotonic()
        measured = known[name].measure(given.short)
        results[name] = [measured] if isinstance(measured, Table) else list(measured)
        if not given.json:
            print(f"\n## {name}: {known[name].TITLE}\n")
            print("\n\n".join(table.text() for table in results[name]), flush=True)
        print(f"({name} took {time.monotonic() - began:.0f} s)", file=sys.stderr)
    if given.json:
        tables = {name: [asdict(table) for table in found] for name, found in results.items()}
        print(json.dumps({"machine": machine(), "tables": tables}, indent=2))
    if given.plot:
        draw(
            [curve for found in results.values() for table in found for curve in table.curves],
            Path(given.plot),
        )
    return 0


def draw(curves: list[Curve], file: Path) -> None:
    """Draw every curve; those with the same axes share a picture."""
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    axes_of: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        axes_of.setdefault((curve.x_label, curve.y_label), []).append(curve)
    if not axes_of:
        raise SystemExit("--plot: none of these benchmarks has a curve")
    figure, panes = pyplot.subplots(
        len(axes_of), 1, figsize=(8, 4.5 * len(axes_of)), squeeze=False, layout="constrained"
    )
    for pane, ((x_label, y_label), lines) in zip(panes[:, 0], axes_of.items(), strict=True):
        for line in lines:
            pane.plot(*zip(*line.points, strict=True), marker="o", label=line.name)
        pane.set(xlabel=x_label, ylabel=y_label)
        pane.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
