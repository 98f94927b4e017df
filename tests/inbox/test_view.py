"""What the page shows of one entry: the table's rows, their order and their words."""

from __future__ import annotations

import json
from typing import Any

from second_mw import Analytics, AnalyticsUser
from second_mw.inbox.store import Opened, Row
from second_mw.inbox.view import Property, formatted, properties_of, shown
from second_mw.privacy.receipt import Receipt

ROW = Row(1, 1, "2026-11-24T04:03:00.123Z", "event", "chat initiated", "anon_1", "anonymized",
          "ok", None, 0, None, None)  # fmt: skip


def opened(properties: dict[str, Any], receipt: dict[str, Any] | None = None) -> Opened:
    return Opened(ROW, "u", "t", properties, {}, (), receipt, None, ())


def line(key: str, result: str, rule: str = "count", words: str = "a count") -> dict[str, str]:
    return {"key": key, "result": result, "rule": rule, "words": words}


def receipt(*lines: dict[str, str]) -> dict[str, Any]:
    return {"properties": list(lines)}


def test_without_a_receipt_the_table_shows_what_left_and_says_nothing() -> None:
    assert properties_of(opened({"file_count": 12, "label": "x"})) == [
        Property("file_count", "12", None, "", "sent"),
        Property("label", '"x"', None, "", "sent"),
    ]


def test_what_was_dropped_comes_first_then_what_left_then_what_the_server_added() -> None:
    rows = properties_of(
        opened(
            {"$lib": "second-mw", "file_count": 12},
            receipt(
                line("file_count", "kept"),
                line("message", "dropped", "free_text", "free text"),
            ),
        )
    )
    assert rows == [
        Property("message", None, "dropped", "dropped: free text", "dropped"),
        Property("file_count", "12", "kept", "kept: a count", "sent"),
        Property("$lib", '"second-mw"', "added", "added by the server", "added"),
    ]


def test_what_happened_below_a_property_stands_below_it() -> None:
    rows = properties_of(
        opened(
            {"extra": {"a": 1, "b": ["[redacted:text]"]}},
            receipt(
                line("extra.a", "kept"),
                line("extra.user_email", "dropped"),
                line("extra.b[0]", "redacted"),
                line("extra", "kept", "container", "judged value by value"),
                line("gone.b", "redacted"),
            ),
        )
    )
    assert [(row.key, row.result, row.nested) for row in rows] == [
        ("extra.user_email", "dropped", True),
        ("extra", "kept", False),
        ("extra.b[0]", "redacted", True),
    ]


def test_what_the_server_writes_itself_counts_as_added_and_not_as_a_loss() -> None:
    rows = properties_of(
        opened({"anonymized": True}, receipt(line("anonymized", "dropped", "reserved")))
    )
    assert [(row.key, row.value, row.result, row.group) for row in rows] == [
        ("anonymized", None, "added", "added"),
        ("anonymized", "true", "added", "added"),
    ]


def test_words_that_a_receipt_lacks_are_its_rule() -> None:
    (row,) = properties_of(opened({"a": 1}, {"properties": [{"key": "a", "result": "kept"}]}))
    assert row.words == "kept: "


def test_the_privacy_cores_own_receipt_is_shown_in_its_words() -> None:
    receipts: list[Receipt] = []
    analytics = Analytics(token="phc_test", host="http://127.0.0.1:9", on_receipt=receipts.append)
    user = AnalyticsUser("u_1234567", email="maren@kestrel.example")
    analytics.capture(user, "chat initiated", {"message": "hello there", "message_length": 11})
    analytics.close(timeout=0.1)
    rows = properties_of(opened({"message_length": 11}, receipts[0].as_dict()))
    assert [(row.key, row.words) for row in rows] == [
        ("message", "dropped: free text"),
        ("message_length", "kept: a count"),
    ]


def test_numbers_leave_as_text_that_no_browser_rounds() -> None:
    document = json.loads(shown(opened({"big": 2**60 + 1})))
    assert document["properties"][0]["value"] == str(2**60 + 1)
    assert f'"big": {2**60 + 1}' in document["json"]


def test_json_is_formatted_for_reading() -> None:
    assert formatted({"a": [1]}) == '{\n  "a": [\n    1\n  ]\n}'
