"""The catalogue: which events are taken, and what is known of each of their properties (spec §5).

The table `_DEFAULT` is the product's own 19 events. A host adds its own with `extend`, or starts
from nothing with `Catalogue(Event(…), …)`. This module says what a property is; what follows from
that is for `sanitize` and `anonymize`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Literal

from second_mw.privacy import names

KindName = Literal[
    "count", "duration", "flag", "label", "model", "text", "ident", "route", "list", "object"
]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a property is.

    `Label("a", "b")` is a label with a vocabulary, `List[Label]` a list of labels,
    `Object[{"width": Count}]` an object with known fields, `Label | Count` either of both.
    """

    name: KindName
    vocabulary: frozenset[str] = frozenset()
    item: Kind | None = None
    fields: tuple[tuple[str, Kind], ...] = ()
    alternative: Kind | None = None

    def __call__(self, *words: str) -> Kind:
        """Return this label with a vocabulary of known values."""
        if self.name != "label":
            raise TypeError(f"only Label takes a vocabulary, not {self.name}")
        if not words or not all(isinstance(word, str) and word for word in words):
            raise TypeError("a vocabulary has one or more non-empty words")
        return Kind("label", frozenset(words))

    def __or__(self, other: Kind) -> Kind:
        """Return the kind whose values are of this one or of the other."""
        if self.alternative is not None:
            raise TypeError("a property is of two kinds at most")
        return Kind(self.name, self.vocabulary, self.item, self.fields, other)

    @property
    def danger(self) -> Literal["text", "ident"] | None:
        """Why no value of this kind may leave in anonymized mode, None if one that passes may."""
        if self.name == "text" or self.name == "ident":
            return self.name
        of_items = self.item.danger if self.item is not None else None
        return of_items or (self.alternative.danger if self.alternative is not None else None)

    @property
    def is_safe(self) -> bool:
        """Whether a value of this kind may leave in anonymized mode, if it passes."""
        return self.danger is None

    def of(self, value: object) -> Kind | None:
        """Return which of a property's kinds a value is of, None if it is of none."""
        takes_flags = self.name in ("flag", "text", "ident")
        if isinstance(value, _TYPES[self.name]) and (takes_flags or not isinstance(value, bool)):
            return self
        if value is None:
            return self
        return self.alternative.of(value) if self.alternative is not None else None


_MANY: Final = (list, tuple, set, frozenset)
#: Kind → the types of its values; a kind that never leaves takes any.
_TYPES: Final[Mapping[KindName, type | tuple[type, ...]]] = {
    "count": (int, float),
    "duration": (int, float),
    "flag": bool,
    "label": str,
    "model": str,
    "route": str,
    "list": _MANY,
    "object": Mapping,
    "text": object,
    "ident": object,
}


class _ListOf:
    """`List[Label]` is a list of labels."""

    def __getitem__(self, item: Kind) -> Kind:
        return Kind("list", item=item)


class _ObjectOf:
    """`Object[{"width": Count}]` is an object with known fields."""

    def __getitem__(self, fields: Mapping[str, Kind]) -> Kind:
        return Kind("object", fields=tuple(fields.items()))


#: A whole number of things.
Count: Final = Kind("count")
#: Milliseconds.
Duration: Final = Kind("duration")
#: True or False.
Flag: Final = Kind("flag")
#: A short machine word, or one of a listed vocabulary.
Label: Final = Kind("label")
#: A runtime's or model's name.
Model: Final = Kind("model")
#: Free text: dropped in anonymized mode.
Text: Final = Kind("text")
#: Something that identifies: dropped in anonymized mode, and its value is kept out elsewhere.
Ident: Final = Kind("ident")
#: The shape of a route; normalised on the server.
Route: Final = Kind("route")
List: Final = _ListOf()
Object: Final = _ObjectOf()

_SURFACES = (
    "onboarding public workspace_home app_chat app_agents settings workspace_agents library "
    "reviews workspace other"
).split()
_SETTINGS_SECTIONS = (
    "overview members teams integrations connected-apps runtime-settings source-control "
    "audit-logs diagnostics other"
).split()

#: On every browser event (spec §5).
PAGE_CONTEXT: Final[Mapping[str, Kind]] = {
    "surface": Label(*_SURFACES),
    "route_shape": Route,
    "viewport_width": Count,
    "viewport_height": Count,
    "onboarding_step": Label("intro", "workspace", "finish", "other"),
    "app_section": Label("chat", "agents", "other"),
    "settings_section": Label(*_SETTINGS_SECTIONS),
    "workspace_section": Label("available-apps", "other"),
}

#: Known of every event besides its own properties.
COMMON: Final[Mapping[str, Kind]] = {
    **PAGE_CONTEXT,
    "workspace_id": Ident,
    "app_id": Ident,
    "run_id": Ident,
    "tool_call_id": Ident,
    # Where a browser says it is; cleaned into $current_url, $pathname and $referrer (spec §9).
    "page_url": Text,
    "pathname": Text,
    "referrer": Text,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the catalogue.

    Args:
        name: 1 to 200 characters; not one of PostHog's own, which begin with `$`.
        properties: property → kind, beside the page context that every event may carry.
        max_text: the length at which its strings are cut, in characters.

    Raises:
        ValueError: the name is empty, too long or begins with `$`, or a property's name can't
            leave (reserved for the server, or begins with `$`).
    """

    name: str
    properties: Mapping[str, Kind] = field(default_factory=dict)
    max_text: int = 2000

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > 200 or self.name.startswith("$"):
            raise ValueError(f"an event's name has 1 to 200 characters and no $: {self.name!r}")
        for key, kind in self.properties.items():
            if key.startswith("$") or key in names.RESERVED or key in names.UNSAFE:
                raise ValueError(f"{self.name!r}: the property {key!r} is not the host's to set")
            if not isinstance(kind, Kind):
                raise TypeError(f"{self.name!r}: {key!r} needs a kind such as Count or Label")
        object.__setattr__(self, "properties", MappingProxyType({**COMMON, **self.properties}))


_RUN = {
    "runtime_id": Model,
    "runtime_model": Model,
    "runtime_model_family": Model,
}
_BUILD = {
    **_RUN,
    "message_count": Count,
    "user_message_count": Count,
    "assistant_message_count": Count,
    "tool_call_count": Count,
    "attachment_count": Count,
    "duration_ms": Duration,
}
_FILES = {"file_count": Count, "total_bytes": Count, "has_warning": Flag}
_AGENT = {"agent_id": Ident, "agent_name": Ident, "source_version": Label | Count}
_AGENT_PROMPT = {
    **_AGENT,
    "prompt": Text,
    "prompt_length": Count,
    "prompt_included": Flag,
    "prompt_truncated": Flag,
}
_APPROVAL_TYPE = Label("plan", "suggestions", "agents")
_APPROVAL_MODE = Label("manual", "auto")
_INTEGRATION = {
    "can_manage_integrations": Flag,
    "target_surface": Label(
        "connected_apps", "integration_settings", "review_needed", "settings", "app_chat"
    ),
    "integration_count": Count,
    "permission_count": Count,
    "required_secret_count": Count,
    "optional_secret_count": Count,
    "auth_kind": Label("mixed", "oauth", "static_secret", "none"),
    "integration_names": Ident,
    "integration_domains": Ident,
}


def _of(kind: Kind, keys: str) -> dict[str, Kind]:
    return dict.fromkeys(keys.split(), kind)


_APPROVAL_SHOWN = {
    "approval_type": _APPROVAL_TYPE,
    **_of(
        Text,
        "plan_title plan_overview plan_features plan_data_flow plan_agents plan_backend "
        "plan_feature_names suggestions suggestion_titles suggestion_subtitles "
        "agent_descriptions agent_system_prompts",
    ),
    **_of(
        Ident,
        "agents agent_ids agent_names agent_tool_names agent_tool_display_names "
        "agent_integration_names agent_integration_domains agent_data_collection_names "
        "app_tool_names app_tool_display_names app_tool_integration_names "
        "app_tool_integration_domains",
    ),
    **_of(
        Flag,
        "plan_has_title plan_has_overview plan_has_features plan_has_data_flow plan_has_agents "
        "plan_has_backend",
    ),
    **_of(
        Count,
        "plan_feature_count plan_agent_count plan_overview_length plan_data_flow_length "
        "plan_agents_length plan_backend_length suggestion_count suggestion_detail_count "
        "agent_count agent_detail_count app_tool_count app_tool_detail_count agent_tool_count "
        "agent_enabled_tool_count agent_recommended_tool_count agent_custom_tool_count "
        "agent_builtin_tool_count agent_integration_count agent_data_collection_count",
    ),
}

_DEFAULT: Final = (
    Event("page viewed"),
    Event("onboarding finished", {"user_id": Ident, "workspace_role": Ident}),
    Event(
        "chat initiated",
        {
            "app_name": Ident,
            "source": Label("sidebar", "workspace_home", "app_chat", "empty_state", "button"),
            "agent_type": Label("builder", "workspace_agent", "app_agent"),
            "agent_id": Ident,
            "agent_name": Ident,
            **_RUN,
            "selected_skill_count": Count,
            "attachment_count": Count,
            "message": Text,
            "message_length": Count,
            "message_included": Flag,
            "message_truncated": Flag,
        },
    ),
    Event(
        "sidebar clicked",
        {
            "target": Label(
                "profile",
                "app name",
                "new app",
                "agents",
                "library",
                "available apps",
                "settings",
                "new_app",
                "reviews",
            ),
            "publish_status": Label,
        },
    ),
    Event(
        "import existing app clicked",
        {"source": Label("sidebar", "workspace_home", "app_chat", "empty_state", "button")},
    ),
    Event(
        "import existing app triggered",
        {"trigger": Label("button", "drop", "paste", "upload_zip")},
    ),
    Event("build completed", {**_BUILD, **_FILES}),
    Event(
        "build failed",
        {
            **_BUILD,
            "failure_phase": Label(
                "client_stream",
                "run_status",
                "planning",
                "bundling",
                "install",
                "runtime",
                "startup",
            ),
            "error_code": Label,
            "error": Text,
        },
    ),
    Event("approval shown", _APPROVAL_SHOWN, max_text=20_000),
    Event(
        "approval acted",
        {
            "approval_type": _APPROVAL_TYPE,
            "action": Label("approved", "rejected", "requested_changes", "picked_suggestion"),
            "approval_mode": _APPROVAL_MODE,
            "agent_count": Count,
            "app_tool_count": Count,
            "suggestion_count": Count,
            "feedback_length": Count,
        },
    ),
    Event("integration setup started", _INTEGRATION),
    Event("integration setup completed", _INTEGRATION),
    Event("app displayed", _FILES),
    Event("app agent triggered", _AGENT_PROMPT),
    Event("app agent finished", {**_AGENT, "duration_ms": Duration}),
    Event(
        "app agent error",
        {
            **_AGENT_PROMPT,
            "phase": Label("create", "start", "request", "run"),
            "status_code": Count,
            "duration_ms": Duration,
            "error": Text,
        },
    ),
    Event(
        "showed suggestions tool called",
        {"suggestion_count": Count, "suggestion_titles": Text, "suggestions": Text},
    ),
    Event("suggestion picked", {"suggestion_title": Text, "suggestion_titles": Text}),
    Event(
        "agents approved",
        {
            "approval_mode": _APPROVAL_MODE,
            "agent_count": Count,
            "app_tool_count": Count,
            "agent_ids": Ident,
            "agent_names": Ident,
            "agents": Ident,
        },
    ),
)

_WORD = re.compile(r"[^\W\d_]+")


class Catalogue:
    """The events that are taken; immutable.

    >>> catalogue = Catalogue.default().extend(Event("invoice paid", {"amount_cents": Count}))
    >>> "invoice paid" in catalogue, "invoice lost" in catalogue, len(catalogue)
    (True, False, 20)
    """

    def __init__(self, *events: Event) -> None:
        self.events: Mapping[str, Event] = MappingProxyType({e.name: e for e in events})

    @classmethod
    def default(cls) -> Catalogue:
        """Return the product's own 19 events (spec §5)."""
        return cls(*_DEFAULT)

    def extend(self, *events: Event) -> Catalogue:
        """Return a catalogue with these events added; one of the same name is replaced."""
        return Catalogue(*{**self.events, **{e.name: e for e in events}}.values())

    def __contains__(self, name: object) -> bool:
        return name in self.events

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events.values())

    def __len__(self) -> int:
        return len(self.events)

    @cached_property
    def ident_keys(self) -> frozenset[str]:
        """Every key of kind Ident, in normal form and with its `_` left out."""
        return self._keys_of("ident")

    @cached_property
    def text_keys(self) -> frozenset[str]:
        """Every key of kind Text, in normal form and with its `_` left out."""
        return self._keys_of("text")

    @cached_property
    def words(self) -> frozenset[str]:
        """The catalogue's own words, which are no identity: Ms Page may view pages (spec §8)."""
        found: set[str] = set()
        for event in self:
            found.update(_words_of(event.name))
            for key, kind in event.properties.items():
                found.update(_words_of(key))
                for value in _vocabulary_of(kind):
                    found.update(_words_of(value))
        return frozenset(found)

    def _keys_of(self, kind_name: KindName) -> frozenset[str]:
        keys = {
            names.normal_form(key)
            for event in self
            for key, kind in event.properties.items()
            if kind.danger == kind_name
        }
        return frozenset(keys) | names.unseparated(keys)


def _words_of(text: str) -> Iterable[str]:
    return _WORD.findall(text.casefold())


def _vocabulary_of(kind: Kind) -> Iterator[str]:
    yield from kind.vocabulary
    for inner in (kind.item, kind.alternative, *(known for _, known in kind.fields)):
        if inner is not None:
            yield from _vocabulary_of(inner)


# The catalogue for people


def markdown(catalogue: Catalogue) -> str:
    """Return the catalogue as a Markdown document for people who read it: one table an event."""
    lines = [
        "# Events",
        "",
        f"{len(catalogue)} events are taken; any other name is refused. What is declared here may"
        " leave in anonymized mode unless it says that it is dropped; what isn't declared is judged"
        " by its key and value.",
        "",
        "## On every event",
        "",
        *_markdown_table(COMMON),
    ]
    for event in catalogue:
        own = {key: kind for key, kind in event.properties.items() if COMMON.get(key) != kind}
        lines += ["", f"## {event.name}", ""]
        lines += _markdown_table(own) if own else ["No properties of its own."]
    return "\n".join(lines) + "\n"


def _markdown_table(properties: Mapping[str, Kind]) -> Iterator[str]:
    yield "| property | kind | known values | anonymized mode |"
    yield "|---|---|---|---|"
    for key, kind in properties.items():
        values = ", ".join(f"`{word}`" for word in sorted(kind.vocabulary)) or "–"
        cells = (f"`{key}`", _kind_in_words(kind), values, _FATE[kind.danger])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_FATE: Final = {
    None: "kept, if it passes",
    "text": "dropped: free text",
    "ident": "dropped: identifies",
}
_KIND_WORDS: Final[Mapping[KindName, str]] = {
    "count": "a count",
    "duration": "milliseconds",
    "flag": "yes or no",
    "label": "a machine word",
    "model": "a model's or runtime's name",
    "text": "free text",
    "ident": "something that identifies",
    "route": "a route's shape",
    "list": "a list",
    "object": "an object",
}


def _kind_in_words(kind: Kind) -> str:
    words = _KIND_WORDS[kind.name]
    if kind.item is not None:
        words += f", each {_kind_in_words(kind.item)}"
    if kind.fields:
        words += " of " + ", ".join(
            f"`{key}` ({_kind_in_words(inner)})" for key, inner in kind.fields
        )
    if kind.alternative is not None:
        words += f", or {_kind_in_words(kind.alternative)}"
    return words


def json_schema(catalogue: Catalogue) -> dict[str, Any]:
    """Return a JSON Schema (draft 2020-12) of the events that `POST capture` takes.

    It says what is declared; an undeclared property is no error, it is judged by key and value.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events",
        "oneOf": [_event_schema(event) for event in catalogue],
    }


def _event_schema(event: Event) -> dict[str, Any]:
    return {
        "title": event.name,
        "type": "object",
        "required": ["event"],
        "properties": {
            "event": {"const": event.name},
            "properties": {
                "type": ["object", "null"],
                "properties": {key: _kind_schema(kind) for key, kind in event.properties.items()},
            },
            "uuid": {"type": "string", "format": "uuid"},
            "timestamp": {"type": "string", "format": "date-time"},
            "anonymousDistinctId": {"type": "string", "pattern": "^anon_"},
            "subject": {"type": "string"},
        },
    }


_JSON_TYPES: Final[Mapping[KindName, dict[str, Any]]] = {
    "count": {"type": "number"},
    "duration": {"type": "number"},
    "flag": {"type": "boolean"},
    "label": {"type": "string"},
    "model": {"type": "string"},
    "route": {"type": "string"},
    "text": {},
    "ident": {},
    "list": {"type": "array"},
    "object": {"type": "object"},
}


def _kind_schema(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = {**_JSON_TYPES[kind.name], "description": _kind_in_words(kind)}
    if kind.danger is not None:
        schema["description"] += f" ({_FATE[kind.danger]} in anonymized mode)"
    if kind.vocabulary:
        # The known values: another machine word is taken too, so they are no `enum`.
        schema["examples"] = sorted(kind.vocabulary)
    if kind.item is not None:
        schema["items"] = _kind_schema(kind.item)
    if kind.fields:
        schema["properties"] = {key: _kind_schema(inner) for key, inner in kind.fields}
    if kind.alternative is not None:
        return {"anyOf": [schema, _kind_schema(kind.alternative)]}
    return schema
