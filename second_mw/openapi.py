"""The HTTP surface as an OpenAPI 3.1 description, made from the tables that the endpoint obeys.

Pure. Which codes a route can answer stands here and nowhere else; their statuses and sentences
come from `errors.REFUSALS`, so that the description can't say what the endpoint does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from second_mw.endpoint import MAX_BATCH
from second_mw.errors import REFUSALS, Code
from second_mw.privacy.catalogue import Catalogue
from second_mw.settings import Settings
from second_mw.version import VERSION

# What any of the three routes answers before it looks at a body.
_ANY: Final[tuple[Code, ...]] = (
    "cross_origin",
    "not_authenticated",
    "rate_limited",
    "user_lookup_failed",
    "not_taken",
)
_BODY: Final[tuple[Code, ...]] = (
    "invalid_payload",
    "not_onboarded",
    "length_required",
    "payload_too_large",
    "unsupported_media_type",
)
#: Operation → the codes it can answer.
CODES: Final[Mapping[str, tuple[Code, ...]]] = {
    "capture": (
        *_ANY, *_BODY, "invalid_event", "workspace_not_found", "other_user", "outbox_unavailable",
    ),
    "getPreferences": _ANY,
    "putPreferences": (
        *_ANY, *_BODY, "managed_by_host", "gpc", "disabled", "preferences_unavailable",
    ),
    "identify": (*_ANY, *_BODY, "workspace_not_found", "outbox_unavailable"),
}  # fmt: skip

_UUID: Final = {
    "type": "string",
    "pattern": "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[47][0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}"
    "-[0-9A-Fa-f]{12}$",
    "description": "Version 4 or 7. The same one again is stored once.",
}
_CHOICES: Final = {
    "sharing": {"type": "boolean", "description": "Whether any event is taken."},
    "anonymized": {"type": "boolean", "description": "Whether events are anonymized."},
}


def openapi(settings: Settings, catalogue: Catalogue) -> dict[str, Any]:
    """Return the description of the paths that an `Analytics` of these settings answers.

    Args:
        settings: prefix, client name and limits.
        catalogue: the events that are taken.
    """
    prefix = settings.prefix
    capture = {
        **_posting("capture", "Post one event or a batch", _ref("Event"), _ref("Batch")),
        "responses": _responses(
            "capture",
            {
                "200": _json("What became of each event of a batch.", _ref("Results")),
                "204": {"description": "The event was taken, or is not wanted."},
            },
        ),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "second_mw",
            "version": VERSION,
            "summary": "Product analytics events of signed-in users.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            f"{prefix}/capture": {"post": capture},
            f"{prefix}/preferences": {"get": _get_preferences(), "put": _put_preferences()},
            f"{prefix}/identify": {"post": _identify()},
            **{
                f"{prefix}/{name}": {"get": _script(name)}
                for name in (settings.client_name, "settings.js")
            },
        },
        "components": {"schemas": _schemas(catalogue)},
    }


def _get_preferences() -> dict[str, Any]:
    answer = _json("What holds for this user in this request.", _ref("Preferences"))
    return {
        "operationId": "getPreferences",
        "summary": "Read what applies to this user",
        "responses": _responses("getPreferences", {"200": answer}),
    }


def _put_preferences() -> dict[str, Any]:
    answer = _json("What holds now.", _ref("Preferences"))
    return {
        **_posting("putPreferences", "Choose", _ref("Choice")),
        "responses": _responses("putPreferences", {"200": answer}),
    }


def _identify() -> dict[str, Any]:
    done = {"description": "PostHog hears of the user, if the user's events are identified."}
    return {
        **_posting("identify", "Identify this user", _ref("Identify")),
        "responses": _responses("identify", {"204": done}),
    }


def _posting(operation: str, summary: str, *schemas: dict[str, Any]) -> dict[str, Any]:
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": list(schemas)}
    return {
        "operationId": operation,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
    }


def _script(name: str) -> dict[str, Any]:
    return {
        "operationId": name.replace(".", "_"),
        "summary": "The browser's part",
        "responses": {
            "200": {
                "description": "JavaScript, with a strong ETag.",
                "content": {"text/javascript": {"schema": {"type": "string"}}},
            },
            "304": {"description": "The browser has it."},
        },
    }


def _responses(operation: str, good: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation's answers: the good ones, and one for each status of its codes."""
    codes_of: dict[str, list[Code]] = {}
    for code in CODES[operation]:
        codes_of.setdefault(str(REFUSALS[code].status), []).append(code)
    refused = {
        status: _json(
            " ".join(REFUSALS[code].message for code in codes),
            {"allOf": [_ref("Error"), {"properties": {"error": {"enum": list(codes)}}}]},
        )
        for status, codes in codes_of.items()
    }
    return {**good, **dict(sorted(refused.items()))}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(catalogue: Catalogue) -> dict[str, Any]:
    event = {
        "type": "object",
        "required": ["event"],
        "properties": {
            "event": {"enum": sorted(catalogue.events)},
            "properties": {"type": ["object", "null"]},
            "uuid": {"oneOf": [_UUID, {"type": "null"}]},
            "timestamp": {"description": "RFC 3339; the server's time where it can't be read."},
            "anonymousDistinctId": {"description": "anon_ and a UUID of version 4."},
            "subject": {"type": ["string", "null"], "description": "As GET preferences said it."},
        },
    }
    result = {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"enum": ["accepted", "rejected"]},
            "error": {"enum": sorted(REFUSALS)},
        },
    }
    return {
        "Event": event,
        "Batch": {
            "type": "object",
            "required": ["batch"],
            # `event` beside `batch` makes it one event.
            "properties": {
                "batch": {"type": "array", "minItems": 1, "maxItems": MAX_BATCH},
                "event": False,
            },
        },
        "Results": {
            "type": "object",
            "required": ["results"],
            "properties": {"results": {"type": "object", "additionalProperties": result}},
        },
        "Choice": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": _CHOICES,
        },
        "Identify": {
            "type": "object",
            "properties": {"workspaceId": {"type": ["string", "null"]}},
        },
        "Preferences": {
            "type": "object",
            "required": ["enabled", "sharing", "anonymized", "effective", "reason", "subject"],
            "properties": {
                "enabled": {"type": "boolean"},
                "sharing": {"type": ["boolean", "null"]},
                "anonymized": {"type": "boolean"},
                "effective": {"enum": ["anonymized", "identified"]},
                "reason": {
                    "enum": ["user", "default", "host", "gpc", "dnt", "store_failed", "disabled"]
                },
                "subject": {"type": "string", "pattern": "^[0-9a-f]{4}$"},
            },
        },
        "Error": {
            "type": "object",
            "required": ["error", "message"],
            "properties": {"error": {"enum": sorted(REFUSALS)}, "message": {"type": "string"}},
        },
    }
