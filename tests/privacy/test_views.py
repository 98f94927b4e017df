"""What a string reads as once it is decoded, two layers deep."""

from __future__ import annotations

import base64
import json
import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from second_mw.privacy.views import normal, readings, views

MAIL = "ada@example.org"
B64 = base64.b64encode(MAIL.encode()).decode()


def b64(text: str, encoding: str = "utf-8") -> str:
    return base64.b64encode(text.encode(encoding)).decode()


ENCODED = [
    quote(MAIL),
    "".join(f"%{byte:02x}" for byte in MAIL.encode()),
    f"see {quote(MAIL, safe='')} there",
    MAIL.replace("@", "&#64;"),
    MAIL.replace("@", "&#x40;"),
    MAIL.replace("@", "&commat;"),
    MAIL.replace("@", "\\u0040"),
    MAIL.replace("@", "\\u{40}"),
    MAIL.replace("@", "\\x40"),
    json.dumps({"to": [MAIL]}),
    json.dumps([{MAIL: 1}]).replace("@", "\\u0040"),
    json.dumps(MAIL).replace("a", "\\u0061"),
    B64,
    B64.rstrip("="),
    f"id-{B64}",
    f"id_{B64}",
    f"state={B64};x",
    b64('{"id": "ünï", "to": "ada@example.org"}'),
    base64.urlsafe_b64encode(f"??>>{MAIL}".encode()).decode(),
    base64.b64encode(f"??>>{MAIL}".encode()).decode(),
    b64(MAIL, "utf-16-le"),
    base64.b64encode(b"\xff\x01" + MAIL.encode() * 2).decode(),
    MAIL.encode().hex(),
    MAIL.encode().hex().upper(),
    f"0x{MAIL.encode().hex()}",
    f"h-{MAIL.encode().hex()}.",
    MAIL.encode().hex(":"),
    f"dump {MAIL.encode().hex('-').upper()}.",
    b64(f"\u0141 {MAIL}", "utf-16-le"),
    b64(f"\u0141 {MAIL}", "utf-16-be"),
    b64(MAIL, "utf-16"),
    base64.b64encode(b"\x00\xd8" + MAIL.encode("utf-16-le")).decode(),
    "ａｄａ＠ｅｘａｍｐｌｅ.org",
    "a\u200bda@exam\u00adple.org",
    "ada@example\u202e.org",
    "a\u0301da@example.org",
    "𝐚𝐝𝐚@example.org",
]


@pytest.mark.parametrize("text", ENCODED)
def test_an_encoded_address_is_read(text: str) -> None:
    assert any(MAIL in view for view in views(text))


@pytest.mark.parametrize("text", ENCODED)
@pytest.mark.parametrize("encode", [b64, lambda text: text.encode().hex(), quote, json.dumps])
def test_two_layers_are_read(text: str, encode: object) -> None:
    assert callable(encode)
    twice = encode(text)
    assert any(MAIL in view for view in (twice, *views(twice)))


def test_a_third_layer_is_not() -> None:
    assert not any(MAIL in view for view in views(b64(b64(b64(MAIL)))))


PLAIN = """
12:30:45 | 20-11-26 | 22.04.10 | 45:00:10 | 64-01-02-03 | a1-b2-c3 | 2026-11-26 | 1.2.3.4
workspace_home | claude-sonnet-4-5-20250929 | gpt-5-mini | integration_settings | left-nav | pt-BR
Settings | Europe/Berlin | UnhandledPromiseRejection | America/Argentina/Buenos_Aires | node18.19.0
GitHub | OpenAI | USER | API | ECONNREFUSED | application/json | text/html | 2025-09-29 | a.b.c
20250929123045 | 1700000000000 | 1920x1080 | facade | decade | fafafa | deadbeef | PT1H30M | 100 %
gpt-4o-mini | v2.0.0-rc.1 | the build failed, try again | The Build Failed | e2e-test | H264 | YWRH1
0.1234567890123456 | python3.12.1 | [1,2 | {} | "" | [] | R&D | 5 > 3 && 2 > 1 | C:\\
"""


@pytest.mark.parametrize(
    "text", [word.strip() for line in PLAIN.strip().splitlines() for word in line.split(" | ")]
)
def test_labels_and_words_read_as_nothing_else(text: str) -> None:
    # Four letters may be the base64 of three by chance; such a view names nobody.
    assert not any(len(view.strip()) > 3 for view in views(text))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", ()),
        ("YWRh", ("ada",)),
        ("616461", ("ada",)),
        ("[12345, true, null]", ("12345",)),
        ("%2561da", ("%61da", "ada")),
        ("\\ud83d\\ude00", ("😀",)),
        ("\\ud83d", ("\ufffd",)),
        ("décade", ("decade",)),
    ],
)
def test_views_come_outermost_first(text: str, read: tuple[str, ...]) -> None:
    assert views(text) == read


def test_leaves_beyond_the_bound_are_one_view_together() -> None:
    found = views(json.dumps([f"user {number}" for number in range(100)]))
    assert len(found) == 65
    assert "user 0" in found[-1].split("\n")


@pytest.mark.parametrize("text", ["[" * 5000, '{"a":' * 5000, "[" * 5000 + "]" * 5000, "[1e999]"])
def test_json_that_is_none_or_too_deep_reads_as_nothing(text: str) -> None:
    assert views(text) == ()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("workspace_home", "workspace_home"),
        ("José", "Jose"),
        ("ﬁne ｅｖｅ Ⅳ", "fine eve IV"),
        ("٣३", "33"),
        ("zero\u200bwidth\ufeff\u2066x\u2069", "zerowidthx"),
        ("한글", "한글"),
        ("a\u3164b", "ab"),
        ("e\u20dd", "e"),
    ],
)
def test_the_normal_form_is_what_is_compared(text: str, form: str) -> None:
    assert normal(text) == form


@pytest.mark.parametrize(
    ("text", "name"),
    [("tab-SWRh", "Ida"), ("x_MTIz_y", "123"), ("NS_SURB_ABORTED", "IDA"), ("q.w6lvbmE", "eona")],
)
def test_three_letters_within_words_are_read(text: str, name: str) -> None:
    assert name in readings(text)


@pytest.mark.parametrize(
    "text", ["gemma-3-27b-it", "01-ai/Yi-1.5-34B-Chat", "NS_BINDING_ABORTED", "x-NAo_", "IDY5"]
)
def test_what_two_letters_may_say_by_chance_is_not_read(text: str) -> None:
    assert all(len(reading.strip()) >= 3 for reading in readings(text))


@given(st.text(max_size=60))
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normal(normal(text)) == normal(text)
    assert not any(unicodedata.category(letter) in ("Mn", "Cf") for letter in normal(text))


PIECES = st.sampled_from(
    [
        *("%", "%41", "%25", "&", "&amp;", "&#64;", "\\", "\\u0061", "{", "}", "[", '"', ":", ","),
        *(B64, "YWRh", MAIL, "616461", "é", "\ud800", "\u200b", " ", "a", "A1", "ﷺ", "=", "-", "_"),
        *("/", "+", "\\ud83d"),
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join))


@given(TEXTS)
def test_views_differ_from_the_text_and_are_few_and_short(text: str) -> None:
    found = views(text)
    assert text not in found
    assert len(set(found)) == len(found)
    assert sum(map(len, found)) <= 64 * 18 * (len(text) + 1)


@given(st.from_regex(r"[A-Z]?[a-z]{2,12}([ _.:/-][a-z]{1,12}[0-9]{0,3}){0,4}", fullmatch=True))
def test_the_short_cut_for_labels_hides_nothing(text: str) -> None:
    assert {view.strip() for view in views(text + " " * 80)} - {text} <= {*views(text), ""}


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("C", "M", "Z")), min_size=6)
)
def test_any_text_in_hex_is_read(text: str) -> None:
    assert normal(text) in views(text.encode().hex())
