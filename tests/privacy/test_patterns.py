"""No pattern loses itself: hostile texts as short as labels, where a pattern can be exponential.

A pattern that is makes this file run for ever; how long hostile texts of 256 KiB take, which shows
what is quadratic, is measured in `tests/benchmarks/patterns.py`.
"""

from __future__ import annotations

import pytest

from second_mw.privacy import names
from second_mw.privacy.identity import folded, holds, identity_of, words_of
from tests.benchmarks.patterns import FUNCTIONS, HOSTILE, filled
from tests.privacy.cores import ADA, core, finish

MORE = {
    "normal_form": names.normal_form,
    "bare_form": names.bare_form,
    "words_of": words_of,
    "folded": folded,
    "holds": lambda text: holds(identity_of(ADA, frozenset()), text),
}
#: As long as a label, a key, and what the short cuts look at.
SIZES = (24, 32, 64, 80, 200)


@pytest.mark.parametrize("name", [*FUNCTIONS, *MORE])
def test_no_function_loses_itself_in_a_short_text(name: str) -> None:
    function = {**FUNCTIONS, **MORE}[name]
    for unit in (*HOSTILE, "a-", "abc-", "a--", "- ", "-_", "Aa1-", "abc_def-1"):
        for size in SIZES:
            text = filled(unit, size)
            for hostile in (text, "a" + text[:-1] + "+", text[:-1] + "\x00"):
                function(hostile)


@pytest.mark.parametrize("receipts", [True, False])
@pytest.mark.parametrize("mode", ["anonymized", "identified"])
def test_nor_does_the_whole_core(mode: str, receipts: bool) -> None:
    pipeline = core(receipts=receipts)
    for unit in (*HOSTILE, "a-", "abc-", "- "):
        text = filled(unit, 64)
        posted = {
            "theme": "a" + text[:-1] + "+", text: 1, "route_shape": text, "runtime_model": text,
            "agent_name": text,
        }  # fmt: skip
        assert finish(posted, event="build completed", pipeline=pipeline, mode=mode).payloads
