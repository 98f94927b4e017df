"""TypeScript's view of `window.secondAnalytics`, written out from a catalogue.

A host's own front end then learns of a misspelt event or a count that is a string while it is
compiled. What is declared here is a help, not the rule: the server takes undeclared properties too
and judges every value itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from second_mw.privacy.catalogue import COMMON, Catalogue, Event, Kind, KindName

_TYPES: Final[Mapping[KindName, str]] = {
    "count": "number",
    "duration": "number",
    "flag": "boolean",
    "label": "string",
    "model": "string",
    "text": "SecondText",
    "ident": "SecondIdent",
    "route": "string",
}

_HEAD: Final = """\
// What secondAnalytics.capture() takes, from the catalogue.
// Written by `second-mw catalogue --format typescript`; a change here is lost with the next run.

type SecondJson = string | number | boolean | null | SecondJson[] | { [key: string]: SecondJson };

/** Free text: leaves the browser in identified mode only. */
type SecondText = SecondJson;

/** Something that identifies: leaves the browser in identified mode only. */
type SecondIdent = SecondJson;
"""

_TAIL: Final = """\
type SecondEventName = keyof SecondEvents;

interface SecondAnalytics {
  /** Capture an event; it is posted within two seconds, or when the page goes. Never throws. */
  capture<Name extends SecondEventName>(
    name: Name,
    properties?: SecondEvents[Name] & { [key: string]: unknown },
  ): void;
  /** Post what waits, forget the anonymous id and be quiet until the next page load: sign-out. */
  reset(): void;
  /** Post what waits now; resolves when that has been tried. */
  flush(): Promise<void>;
}

interface SecondUsageDataElement extends HTMLElement {
  /** Replaces words of the dialog, by their names. */
  words: { [name: string]: string };
  /** Show the Usage data settings. */
  open(): void;
  close(): void;
}

/** What the server said when the user had changed a switch. */
interface SecondUsageDataChange {
  enabled: boolean;
  sharing: boolean | null;
  anonymized: boolean;
  effective: "anonymized" | "identified";
  reason: "user" | "default" | "host" | "gpc" | "dnt" | "store_failed" | "disabled";
  subject: string;
}

interface Window {
  /** Absent until client.js has loaded: call it as `window.secondAnalytics?.capture(…)`. */
  secondAnalytics?: SecondAnalytics;
}

interface HTMLElementTagNameMap {
  "second-usage-data": SecondUsageDataElement;
}

interface WindowEventMap {
  "second-usage-data-change": CustomEvent<SecondUsageDataChange>;
}
"""


def declarations(catalogue: Catalogue) -> str:
    """Return the text of a `.d.ts` file for a catalogue's events.

    Event names are the keys of `SecondEvents`; each property has the type of its kind, a label with
    a vocabulary the union of its words or any other string.

    >>> print(declarations(Catalogue.default()).splitlines()[0])
    // What secondAnalytics.capture() takes, from the catalogue.
    """
    common = _interface("SecondContext", COMMON.items())
    events = "".join(f"  {_key(event.name)}: {_properties(event)};\n" for event in catalogue)
    return "\n".join((_HEAD, common, f"interface SecondEvents {{\n{events}}}\n", _TAIL))


def _interface(name: str, properties: Iterable[tuple[str, Kind]]) -> str:
    fields = "".join(f"  {_field(key, kind)};\n" for key, kind in properties)
    return f"interface {name} {{\n{fields}}}\n"


def _properties(event: Event) -> str:
    own = [(key, kind) for key, kind in event.properties.items() if key not in COMMON]
    if not own:
        return "SecondContext"
    fields = "".join(f"    {_field(key, kind)};\n" for key, kind in own)
    return f"SecondContext & {{\n{fields}  }}"


def _field(key: str, kind: Kind) -> str:
    return f"{_key(key)}?: {_type(kind)} | null"


def _key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else json.dumps(name)


def _type(kind: Kind) -> str:
    alone = _alone(kind)
    return alone if kind.alternative is None else f"{alone} | {_type(kind.alternative)}"


def _alone(kind: Kind) -> str:
    if kind.name == "list":
        return "unknown[]" if kind.item is None else f"({_type(kind.item)})[]"
    if kind.name == "object":
        fields = "; ".join(f"{_key(key)}?: {_type(field)}" for key, field in kind.fields)
        return f"{{ {fields} }}" if fields else "{ [key: string]: SecondJson }"
    if kind.vocabulary:
        # `string & {}` keeps the words as an editor's suggestions and any other label legal.
        words = " | ".join(json.dumps(word) for word in sorted(kind.vocabulary))
        return f"{words} | (string & {{}})"
    return _TYPES[kind.name]
