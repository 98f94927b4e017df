"""What the page shows of one entry: its properties with the receipt beside them, and its JSON.

Words and order are decided here, so that the page only draws. JSON leaves as text: a browser
would round a large number.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec

from second_mw.inbox.store import Opened, Row

Group = Literal["dropped", "sent", "added"]

_encode = msgspec.json.Encoder().encode
#: Where a receipt's path goes below the property.
_BELOW: Final = re.compile(r"[.\[]")


class Property(msgspec.Struct, frozen=True):
    """One row of the table.

    Args:
        key: the property, or a path below one.
        value: as JSON text; None if it did not leave, or stands in its parent's value.
        result: of the receipt; `added` for what the server wrote, None without a receipt.
        words: the receipt's, `dropped: free text`; empty without one.
        group: where the row stands: what was dropped comes first.
        nested: whether it is a path below another row's property.
    """

    key: str
    value: str | None
    result: str | None
    words: str
    group: Group
    nested: bool = False


def properties_of(opened: Opened) -> list[Property]:
    """Return the table's rows: dropped, then sent, then what the server wrote itself."""
    lines: list[dict[str, Any]] = (opened.receipt or {}).get("properties", [])
    reserved = [line for line in lines if line.get("rule") == "reserved"]
    dropped = [line for line in lines if line["result"] == "dropped" and line not in reserved]
    others = {line["key"]: line for line in lines if line["result"] != "dropped"}
    below: dict[str, list[dict[str, Any]]] = {}
    for key, line in others.items():
        if key not in opened.properties and line["result"] != "kept":
            below.setdefault(_BELOW.split(key, maxsplit=1)[0], []).append(line)
    rows = [
        Property(line["key"], None, "dropped", _words(line), "dropped", _is_below(line, opened))
        for line in dropped
    ]
    added = [Property(line["key"], None, "added", _words(line), "added") for line in reserved]
    for key, value in opened.properties.items():
        text = _encode(value).decode()
        if key in others:
            rows.append(Property(key, text, others[key]["result"], _words(others[key]), "sent"))
            rows += [
                Property(line["key"], None, line["result"], _words(line), "sent", nested=True)
                for line in below.get(key, ())
            ]
        elif opened.receipt is None:
            rows.append(Property(key, text, None, "", "sent"))
        else:
            added.append(Property(key, text, "added", "added by the server", "added"))
    return rows + added


def _words(line: dict[str, Any]) -> str:
    return f"{line['result']}: {line.get('words') or line.get('rule', '')}"


def _is_below(line: dict[str, Any], opened: Opened) -> bool:
    parent, *rest = _BELOW.split(line["key"], maxsplit=1)
    return bool(rest) and parent in opened.properties


def payload_of(opened: Opened) -> dict[str, Any]:
    """Return the event as PostHog has it."""
    options = {"options": opened.options} if opened.options else {}
    return {
        "event": opened.row.event,
        "uuid": opened.uuid,
        "distinct_id": opened.row.distinct_id,
        "timestamp": opened.timestamp,
        **options,
        "properties": opened.properties,
    }


def shown(opened: Opened) -> bytes:
    """Return what the page needs to show one entry, as JSON."""
    asked = opened.asked
    return _encode(
        {
            "row": opened.row,
            "uuid": opened.uuid,
            "timestamp": opened.timestamp,
            "notes": opened.notes,
            "has_receipt": opened.receipt is not None,
            "properties": properties_of(opened),
            "json": formatted(payload_of(opened)) if opened.row.kind == "event" else "",
            "asked": asked and _without_nothing(asked.request),
            "status": asked and asked.status,
            "asked_at": asked and asked.at,
            "answer": asked and _answer(asked.answer),
            "refused": asked and asked.refused,
            "excerpt": asked and asked.excerpt,
            "batch": [_sibling(row) for row in opened.batch],
        }
    )


def formatted(value: Any) -> str:
    """Return JSON for reading."""
    return msgspec.json.format(_encode(value), indent=2).decode()


def _answer(text: str) -> str:
    try:
        return formatted(msgspec.json.decode(text))
    except msgspec.DecodeError:
        return text


def _without_nothing(request: msgspec.Struct) -> dict[str, Any]:
    fields = msgspec.structs.asdict(request)
    return {name: value for name, value in fields.items() if value not in (None, False)}


def _sibling(row: Row) -> dict[str, Any]:
    return {"id": row.id, "event": row.event, "result": row.result, "details": row.details}
