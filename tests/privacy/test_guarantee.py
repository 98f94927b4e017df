"""The anonymized mode as a guarantee: for any user and any JSON, not for a list of examples.

Bodies are built by hypothesis, posted, and what lies in the outbox is read by a decoder that shares
no code with the core. `SECOND_MW_EXAMPLES=5000` searches wide and at random; CI repeats a modest
search that is the same every time.
"""

from __future__ import annotations

import base64
import json
import os
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from faker import Faker
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from second_mw import Analytics, AnalyticsUser
from tests.privacy.decoder import found, words, words_found
from tests.privacy.people import QUILL, Sent, analytics_of, sent, without_servers_own

_WIDE = int(os.environ.get("SECOND_MW_EXAMPLES", "0"))


def search(examples: int) -> Any:
    return settings(
        max_examples=_WIDE or examples,
        derandomize=not _WIDE,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def analytics() -> Iterator[Analytics]:
    analytics = analytics_of()
    yield analytics
    analytics.close(timeout=1.0)


# People of many scripts

LOCALES = """ar_EG bg_BG bn_BD cs_CZ da_DK de_DE el_GR en_IN en_US es_MX et_EE fa_IR fi_FI fr_FR
    he_IL hi_IN hr_HR hu_HU hy_AM id_ID it_IT ja_JP ka_GE ko_KR lt_LT lv_LV nl_NL no_NO pl_PL
    pt_BR ro_RO ru_RU sk_SK sl_SI sv_SE ta_IN th_TH tr_TR uk_UA vi_VN zh_CN zh_TW""".split()

#: Words that may leave although they are somebody's name: the product's and the models' own.
OUR_WORDS = frozenset(
    """chat page agent app plan build run auto none drop paste button source library profile public
    settings start create request intro finish members teams integrations diagnostics overview
    claude opus sonnet haiku max mini nano pro large flash turbo gemini grok preview
    event""".split()
)


def _names() -> list[str]:
    found: list[str] = []
    for number, locale in enumerate(LOCALES):
        faker = Faker(locale)
        faker.seed_instance(number)
        found += [faker.name() for _ in range(6)]
    return found


NAMES = [
    *_names(),
    "Siobhán O'Dwyerlan", "D’Artagnolle Brück", "Anne-Sophie Lefèvre-Dumont", "Nguyễn Thị Ánh",
    "İpek Işıldağ", "Łukasz Żółć", "Straße Groß", "ﬁnn ﬂorian", "María José Íñigo", "Jean-Luc",
]  # fmt: skip

_HEX = "0123456789abcdef"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MIXED = _LETTERS + _LETTERS.upper() + "0123456789"


def _text(alphabet: str, low: int, high: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=low, max_size=high or low)


def _crockford(length: int) -> st.SearchStrategy[str]:
    return _text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", length)


IDS = st.one_of(
    st.uuids(version=4).map(str),
    _text(_HEX, 24),
    st.integers(10**7, 10**15).map(str),
    _text(_MIXED, 10, 14).map("usr_{}7".format),
    _crockford(24).map("01{}".format),
    _text(_LETTERS, 9, 14),
    st.builds(
        "{}.{}@{}.example".format, _text(_LETTERS, 5), _text(_LETTERS, 6), _text(_LETTERS, 7)
    ),
    st.builds("auth0|{}".format, _text(_HEX, 24)),
    st.builds("{}-{}".format, _text(_LETTERS, 6), st.integers(1000, 99999)),
    st.builds("org/{}:{}".format, _text(_LETTERS, 8), st.integers(100, 99999)),
)
MAILS = st.builds(
    "{}@{}".format,
    st.one_of(
        _text(_LETTERS, 6, 10),
        st.builds("{}.{}".format, _text(_LETTERS, 5, 8), _text(_LETTERS, 5, 8)),
        st.builds("{}+{}".format, _text(_LETTERS, 6, 9), _text(_LETTERS, 4)),
        st.builds("{}_{}".format, _text(_LETTERS, 6, 9), st.integers(10, 9999)),
    ),
    st.one_of(st.just("gmail.com"), _text(_LETTERS, 8, 12).map("{}.example".format)),
)


@st.composite
def users(draw: Any) -> AnalyticsUser:
    return AnalyticsUser(
        draw(IDS),
        email=draw(st.none() | MAILS),
        name=draw(st.none() | st.sampled_from(NAMES)),
        workspaces=draw(st.none() | st.dictionaries(IDS, st.just("admin"), max_size=2)),
        aliases=draw(st.lists(IDS, max_size=2)),
    )


def parts_of(user: AnalyticsUser) -> list[str]:
    """Return what the promise names: ids, e-mail and local part, name and parts, aliases."""
    local = (user.email or "").partition("@")[0]
    name = user.name or ""
    every = [user.id, user.email or "", *(user.workspaces or ()), *user.aliases]
    every += [local] if len(local) >= 4 else []
    every += [part for part in name.replace("-", " ").split() if len(letters(part)) >= 3]
    every += [name] if len(letters(name)) >= 3 else []
    return [part for part in every if part and not set(words(part).split()) & OUR_WORDS]


def letters(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFC", text) if letter.isalpha())


def is_id(user: AnalyticsUser, part: str) -> bool:
    return part in (user.id, *(user.workspaces or ()), *user.aliases)


# What a part can be written as


def _wide(text: str) -> str:
    return "".join(chr(ord(x) + 0xFEE0) if "!" <= x <= "~" else x for x in text)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "percent": lambda text: quote(text, safe=""),
    "percent, every byte": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "decimal entities": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "hex entities": lambda text: "".join(f"&#x{ord(letter):X};" for letter in text),
    "base64": _b64,
    "base64 without padding": lambda text: _b64(text).rstrip("="),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "JSON": lambda text: json.dumps({"a": [text]}),
    "JSON, in its own letters": lambda text: json.dumps([text], ensure_ascii=False),
    "full width": _wide,
    "zero width": lambda text: "\u200b".join(text),
    "soft hyphens": lambda text: text[:2] + "\u00ad" + text[2:],
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "composed": lambda text: unicodedata.normalize("NFC", text),
}  # fmt: skip
CASES: list[Callable[[str], str]] = [str, str.upper, str.lower, str.title, str.swapcase]
AROUND = [
    "{}", "{}", "tab-{}", "{}-panel", "tab:{}", "x_{}_y", "nav.{}.open", "[{}]", "see {} there",
    "/team/{}", "/w/{}/apps", "ver 1 {}", "1.2.3-{}", "gpt-5 {}", "claude-{}", "({})", '"{}"',
]  # fmt: skip
KEYS = """theme variant label source runtime_model runtime_id error_code publish_status surface
    app_section target app_version route_shape file_count duration_ms has_warning viewport_width
    message user_email agents app_name steps status count x""".split()
EVENTS = ["page viewed", "chat initiated", "build completed", "build failed", "approval shown",
          "sidebar clicked", "app agent error"]  # fmt: skip

ASCII_KEYS = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12),
    st.sampled_from(["left-nav", "gpt-5 mini", "workspace_home", "2025-09-29", "PT1H", "1.2.3"]),
)  # fmt: skip
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=10) | st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def written(draw: Any, part: str) -> str:
    """One way of writing a part: a case, at most two encodings, something around it."""
    form = draw(st.sampled_from(CASES))(part)
    if form.casefold() != part.casefold():
        form = part
    encodings = draw(st.lists(st.sampled_from(list(ENCODINGS)), max_size=2))
    for encoding in encodings:
        form = ENCODINGS[encoding](form)
    return str(draw(st.sampled_from(AROUND)).format(form))


@st.composite
def wrapped(draw: Any, value: Any) -> Any:
    """The value at some depth, with other JSON beside it."""
    for _ in range(draw(st.integers(0, 5))):
        beside = draw(ANY_JSON) if draw(st.booleans()) else "left-nav"
        key = draw(st.sampled_from(["level", "context", "theme", "steps"]))
        value = draw(
            st.sampled_from([[value], [beside, value], {key: value}, {key: value, "other": beside}])
        )
    return value


def of_the_request(done: Sent) -> str:
    """What came from the request, as it leaves."""
    return done.payloads[-1].properties.decode()


ENVELOPE = {"uuid": "5b3f9c1e-7a42-4d86-9e10-c2d47f8a6b35"}


@search(150)
@given(data=st.data())
def test_identity_planted_anywhere_in_any_encoding_is_in_no_byte_of_what_leaves(
    data: st.DataObject, analytics: Analytics
) -> None:
    user = data.draw(users())
    parts = parts_of(user)
    assume(parts)
    part = data.draw(st.sampled_from(parts))
    form = data.draw(written(part))
    properties = {"theme": "left-nav", "filler": data.draw(ANY_JSON)}
    key = form if data.draw(st.integers(0, 4)) == 0 else data.draw(st.sampled_from(KEYS))
    value = data.draw(wrapped({form: 1} if data.draw(st.integers(0, 4)) == 0 else form))
    event = data.draw(st.sampled_from(EVENTS))
    without = sent(user, properties, event=event, fields=ENVELOPE, analytics=analytics)
    done = sent(user, {**properties, key: value}, event=event, fields=ENVELOPE, analytics=analytics)
    assert (without.status, done.status) == (204, 204), "the gate had to hold it back"
    look = found if is_id(user, part) or part == user.email else words_found
    before = look(of_the_request(without), [part])
    assert look(of_the_request(done), [part]) == before


@search(80)
@given(
    user=users(),
    event=st.sampled_from(EVENTS),
    properties=st.dictionaries(st.text(max_size=12) | st.sampled_from(KEYS), ANY_JSON, max_size=6),
)
def test_what_left_posted_again_leaves_the_same(
    user: AnalyticsUser, event: str, properties: dict[str, Any], analytics: Analytics
) -> None:
    once = without_servers_own(sent(user, properties, event=event, analytics=analytics).properties)
    again = without_servers_own(sent(user, once, event=event, analytics=analytics).properties)
    assert again == once


def turned(value: Any) -> Any:
    """The same JSON, every object's keys the other way round."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@search(80)
@given(
    user=users(),
    event=st.sampled_from(EVENTS),
    properties=st.dictionaries(st.sampled_from(KEYS) | ASCII_KEYS, ANY_JSON, max_size=6),
)
def test_the_order_of_keys_does_not_matter(
    user: AnalyticsUser, event: str, properties: dict[str, Any], analytics: Analytics
) -> None:
    one = sent(user, properties, event=event, analytics=analytics)
    other = sent(user, turned(properties), event=event, analytics=analytics)
    assert one.status == other.status == 204
    assert one.properties == other.properties


#: Pieces that are dear to decoders and scanners.
PIECES = st.sampled_from(
    [
        "%", "%2", "%25", "%00", "%ff", "&#", "&#x110000;", "&#0;", "&amp;", "\\u", "\\ud800",
        "\\x", "{", "[", '"', "eyJ", "eyJhbGciOiJIUzI1NiJ9.", "=", "==", "-", "_", ".", "/", "://",
        "@", "a@b.c", "::", "1", "4111", "\ud800", "\udfff", "\u0000", "\u200b", "\u202e", "\ufeff",
        "ﷺ", "ẞ", "İ", "ﬀ", "①", "𝔸", "e\u0301", "\U000e0041", "0x", "deadbeef", "DE89", "+49",
        "-----BEGIN", "ft:", "arn:", "sk-", "/home/", "C:\\", "\n", "\t", "$", "__proto__",
    ]
)  # fmt: skip
WILD = st.one_of(st.lists(PIECES, max_size=20).map("".join), st.text(max_size=40))
WILD_JSON = st.recursive(
    SCALARS | WILD | st.floats() | st.integers(),
    lambda inner: st.lists(inner, max_size=25) | st.dictionaries(WILD, inner, max_size=6),
    max_leaves=30,
)


@search(80)
@given(
    user=st.builds(
        AnalyticsUser,
        WILD.filter(str.strip),
        email=st.none() | WILD,
        name=st.none() | WILD,
        workspaces=st.none() | st.dictionaries(WILD.filter(bool), st.none() | WILD, max_size=3),
        aliases=st.lists(WILD, max_size=3).map(tuple),
    ),
    event=st.sampled_from(EVENTS),
    properties=st.dictionaries(WILD, WILD_JSON, max_size=6),
    fields=st.dictionaries(
        st.sampled_from(["anonymousDistinctId", "timestamp", "anonymized", "options", "x"]),
        WILD_JSON,
    ),
)
def test_no_input_raises_or_is_held_back_by_the_gate(
    user: AnalyticsUser, event: str, properties: Any, fields: Any, analytics: Analytics
) -> None:
    done = sent(user, properties, event=event, fields=fields, analytics=analytics)
    assert done.status in (204, 400)
    captured = analytics.capture(user, event, properties)
    assert captured.code is None
    _emptied(analytics)


def _emptied(analytics: Analytics) -> None:
    analytics.outbox.store.payloads.clear()  # type: ignore[union-attr]


#: Words that are the product's, the models' and the users' at once.
SHARED = [
    *sorted(OUR_WORDS), "gpt", "codex", "llama", "mistral", "qwen", "deepseek", "o1", "o3", "home",
    "workspace", "workspace_home", "app_chat", "claude-code", "gpt-5", "new app", "available-apps",
    "connected-apps", "runtime", "model", "count", "viewport", "width", "w", "1", "42", "12345",
]  # fmt: skip
_PAIRS = st.sampled_from(["{}", "{}-{}", "{} {}", "{}{}", "{}_{}", "{}.{}", "{}-{}-4.5"])
SHARED_TEXT = st.builds(
    lambda form, one, two: form.format(one, two),
    _PAIRS, st.sampled_from(SHARED), st.sampled_from(SHARED),
)  # fmt: skip


@search(150)
@given(
    user=st.builds(
        AnalyticsUser,
        SHARED_TEXT,
        email=st.none() | st.builds("{}@{}.example".format, SHARED_TEXT, st.sampled_from(SHARED)),
        name=st.none() | SHARED_TEXT | SHARED_TEXT.map(str.title),
        workspaces=st.none() | st.dictionaries(SHARED_TEXT, st.none(), max_size=2),
        aliases=st.lists(SHARED_TEXT, max_size=2).map(tuple),
    ),
    event=st.sampled_from(EVENTS),
    properties=st.dictionaries(
        st.sampled_from(KEYS) | SHARED_TEXT,
        SHARED_TEXT
        | st.sampled_from([1, 42, 12345, 12345.5, True])
        | st.lists(SHARED_TEXT, max_size=3)
        | st.dictionaries(SHARED_TEXT, SHARED_TEXT, max_size=3),
        max_size=6,
    ),
)
def test_scan_and_gate_agree_on_words_that_are_the_products_and_the_users(
    user: AnalyticsUser, event: str, properties: dict[str, Any], analytics: Analytics
) -> None:
    done = sent(user, properties, event=event, analytics=analytics)
    assert done.status == 204, "a good event was lost"
    once = without_servers_own(done.properties)
    again = without_servers_own(sent(user, once, event=event, analytics=analytics).properties)
    assert again == once


# Non-interference

#: Parts of one person, each odd enough to stand nowhere but where it is planted, and of others who
#: have the same shapes: letter for letter, digit for digit.
SHAPED: dict[str, str] = {
    "id": "usr_7Gk2Pw93Zt5q",
    "local": "zephyrinox.quillfeather",
    "domain": "brindlemoor",
    "first": "Zephyrinox",
    "last": "Quillfeather",
    "workspace": "ws_tarnholme_83",
    "alias": "moonwright77",
    "object": "65f2c3ffee65f4c5ffee65f6",
    "number": "4863592748",
    "app": "Thistlewick Bramble",
}
ALIKE: list[dict[str, str]] = [
    {
        "id": "usr_4Xm9Rb28Ks6j",
        "local": "balthasari.hornblowerso",
        "domain": "copperfield",
        "first": "Balthasari",
        "last": "Hornblowerso",
        "workspace": "ws_windhover_27",
        "alias": "sungardner94",
        "object": "65f9c7ffee65f8c2ffee65f3",
        "number": "7529384629",
        "app": "Cloudberrys Compass",
    },
    {
        "id": "usr_2Wd5Nc67Gv9t",
        "local": "mirabellav.stormcatcher",
        "domain": "dovecothill",
        "first": "Mirabellav",
        "last": "Stormcatcher",
        "workspace": "ws_kingfishr_92",
        "alias": "starbeaker36",
        "object": "65f3c8ffee65f2c9ffee65f7",
        "number": "9348527364",
        "app": "Marmaladers Lantern",
    },
]


def _person(parts: dict[str, str]) -> AnalyticsUser:
    return AnalyticsUser(
        parts["id"],
        email=f"{parts['local']}@{parts['domain']}.example",
        name=f"{parts['first']} {parts['last']}",
        workspaces={parts["workspace"]: "admin", parts["number"]: None},
        aliases=(parts["alias"], parts["object"]),
    )


def _all(parts: dict[str, str]) -> dict[str, str]:
    return {
        **parts,
        "email": f"{parts['local']}@{parts['domain']}.example",
        "host": f"{parts['domain']}.example",
        "name": f"{parts['first']} {parts['last']}",
        "joined": f"{parts['first']}{parts['last']}",
        "slug": f"{parts['first']}-{parts['last']}".lower(),
        "app slug": parts["app"].replace(" ", "-").lower(),
    }


#: Encodings that keep the shape: what a base64 text looks like depends on what is in it.
SHAPELY = ["as it is", "percent, every byte", "decimal entities", "JSON", "full width",
           "zero width", "soft hyphens", "HEX"]  # fmt: skip


#: An app's name is not compared with what a model or runtime is called (an app may be a Claude).
UNMODELLED = [key for key in KEYS if not key.startswith("runtime_")]


@st.composite
def planted(draw: Any) -> Callable[[dict[str, str]], str]:
    name = draw(st.sampled_from(sorted({*_all(SHAPED)} - {"domain"})))
    case = draw(st.sampled_from([str, str.upper, str.lower]))
    encodings = draw(st.lists(st.sampled_from(SHAPELY), max_size=2))
    around = draw(st.sampled_from(AROUND))

    def write(parts: dict[str, str]) -> str:
        text = case(_all(parts)[name])
        for encoding in encodings:
            text = ENCODINGS[encoding](text)
        return str(around.format(text))

    return write


def _rendered(value: Any, parts: dict[str, str]) -> Any:
    if callable(value):
        return value(parts)
    if isinstance(value, dict):
        return {_rendered(key, parts): _rendered(item, parts) for key, item in value.items()}
    return [_rendered(item, parts) for item in value] if isinstance(value, list) else value


@search(60)
@given(data=st.data())
def test_two_people_of_the_same_shapes_leave_the_same_bytes(
    data: st.DataObject, analytics: Analytics
) -> None:
    other = data.draw(st.sampled_from(ALIKE))
    inner = st.recursive(
        planted() | SCALARS,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(KEYS) | planted(), inner, max_size=4)
        ),
        max_leaves=10,
    )
    body = data.draw(st.dictionaries(st.sampled_from(UNMODELLED) | planted(), inner, max_size=6))
    body["app_name"] = lambda parts: parts["app"]
    event = data.draw(st.sampled_from(EVENTS))
    left = [
        sent(
            _person(parts),
            _rendered(body, parts),
            event=event,
            fields={**ENVELOPE, "anonymousDistinctId": "anon_0f8fad5b-d9cb-469f-a165-70867728950e"},
            analytics=analytics,
        )
        for parts in (SHAPED, other)
    ]
    assert [done.status for done in left] == [204, 204]
    one, two = (done.payloads[0] for done in left)
    assert one.properties == two.properties
    assert (one.event, one.uuid, one.distinct_id, one.options) == (
        two.event, two.uuid, two.distinct_id, two.options,
    )  # fmt: skip


def test_the_people_compared_have_the_same_shapes() -> None:
    def shape(text: str) -> str:
        return "".join("a" if x.islower() else "A" if x.isupper() else "1" if x.isdigit() else x
                       for x in text)  # fmt: skip

    for other in ALIKE:
        assert {name: shape(text) for name, text in other.items()} == {
            name: shape(text) for name, text in SHAPED.items()
        }


def test_the_decoder_sees_what_it_must() -> None:
    for part in ("Quillfeather", "usr_7Gk2Pw93Zt5q", QUILL.email or ""):
        for name, first in ENCODINGS.items():
            for other, second in ENCODINGS.items():
                text = second(first(part))
                assert found(f"a:{text}", [part]), (name, other)
    assert found(msgspec.json.encode({"a": 1}), ["left-nav"]) == []
