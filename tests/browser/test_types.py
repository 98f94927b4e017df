"""The TypeScript declarations: what a host's own front end learns of the catalogue."""

from __future__ import annotations

import re

import pytest

from second_mw.browser.types import declarations
from second_mw.privacy.catalogue import (
    COMMON,
    Catalogue,
    Count,
    Duration,
    Event,
    Flag,
    Ident,
    Kind,
    Label,
    List,
    Model,
    Object,
    Route,
    Text,
)


def field_of(kind: Kind, key: str = "it") -> str:
    """Return how a property of this kind is declared."""
    text = declarations(Catalogue(Event("e", {key: kind})))
    (line,) = re.findall(r'  "?e"?: SecondContext & \{\n    (.*);\n  \};', text)
    return line


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        (Count, "number"),
        (Duration, "number"),
        (Flag, "boolean"),
        (Label, "string"),
        (Model, "string"),
        (Route, "string"),
        (Text, "SecondText"),
        (Ident, "SecondIdent"),
        (Label("b", 'a "quoted" one'), '"a \\"quoted\\" one" | "b" | (string & {})'),
        (Label | Count, "string | number"),
        (Label("v1") | Count, '"v1" | (string & {}) | number'),
        (List[Count], "(number)[]"),
        (List[Label("a")], '("a" | (string & {}))[]'),
        (Kind("list"), "unknown[]"),
        (Object[{"width": Count, "a-b": Flag}], '{ width?: number; "a-b"?: boolean }'),
        (Object[{}], "{ [key: string]: SecondJson }"),
    ],
    ids=str,
)
def test_a_property_has_the_type_of_its_kind(kind: Kind, typed: str) -> None:
    assert field_of(kind) == f"it?: {typed} | null"


@pytest.mark.parametrize(
    ("key", "written"), [("file_count", "file_count"), ("naïve", '"na\\u00efve"'), ("a b", '"a b"')]
)
def test_a_key_that_is_no_plain_name_is_quoted(key: str, written: str) -> None:
    assert field_of(Count, key) == f"{written}?: number | null"


def test_the_names_of_events_are_a_union() -> None:
    text = declarations(Catalogue.default().extend(Event('invoice "paid"')))
    events = text.partition("interface SecondEvents {\n")[2].partition("\n}\n")[0]
    names = re.findall(r'^  ("(?:[^"\\]|\\.)*"|\w+): ', events, re.MULTILINE)
    assert names == [
        *(f'"{event.name}"' for event in Catalogue.default()),
        r'"invoice \"paid\""',
    ]
    assert "type SecondEventName = keyof SecondEvents;" in text


def test_every_event_may_say_where_it_happened() -> None:
    text = declarations(Catalogue(Event("e", {"surface": Label, "n": Count})))
    context = text.partition("interface SecondContext {\n")[2].partition("}\n")[0]
    assert re.findall(r"(\w+)\?:", context) == list(COMMON)
    # Said once, for all of them.
    assert text.count("surface?:") == 1


def test_the_one_name_on_window_is_declared() -> None:
    text = declarations(Catalogue.default())
    assert "secondAnalytics?: SecondAnalytics;" in text
    for member in ("capture<", "reset(): void", "flush(): Promise<void>"):
        assert member in text
    assert text.count("{") == text.count("}")
    assert text.endswith("}\n")
