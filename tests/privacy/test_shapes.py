"""Which values identify by their shape, which do not, and what is cut out of a text in any mode."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from second_mw.privacy.secrets import IBAN_LENGTHS, KNOWN, PLAIN, PLAIN_LENGTH, is_card, is_plain
from second_mw.privacy.shapes import SHAPES, number_shape, redact_secrets, shape_of

JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
JWE = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..aB3dEf6hIj9kLm2n.zX9kQ2lM7rT4.qR5sT8uV1w"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAK\n-----END RSA PRIVATE KEY-----"

LEAKS = {
    "email": [
        "ada@example.org",
        "mail ada.l+x@sub.example.co.uk!",
        "mailto:ada@example.org",
        "ada@intranet",
        "to=ada@bücher.de",
        '"ada lovelace"@example.org',
        "ada@[10.0.0.1]",
        "postgres://ada:pw@db.internal/x",
    ],
    "url": [
        "https://example.org/a",
        "see HTTP://X.ORG",
        "see www.acme.com for more",
        "//cdn.acme.com/x",
        "file:///etc/x",
        "ftp://a",
        "data:text/plain;base64,QQ",
        "blob:nodedata",
    ],
    "uuid": [
        "8c1fa1b2-0000-4000-8000-0123456789ab",
        "8C1FA1B2-0000-4000-8000-0123456789AB",
        "run_8c1fa1b2-0000-4000-8000-0123456789ab.x",
        "8c1fa1b2_0000_4000_8000_0123456789ab",
        "12345678-1234-1234-1234-123456789012",
    ],
    "objectid": ["507f1f77bcf86cd799439011", "app-507F1F77BCF86CD799439011", "1" * 24],
    "ulid": ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "01arz3ndektsv4rrffq69g5fav"],
    "ksuid": ["0ujtsYcgvSTl8PAuAdqWYSMnLOv"],
    "jwt": [
        JWT,
        f"token_{JWT}",
        f"s.{JWT}",
        JWT.rpartition(".")[0],
        "eyJhbGciOiJub25lIn0.eyJ9",
        "ewogICJhbGciOiAibm9uZSIKfQ.e30.x",
    ],
    "ip": [
        "10.0.0.1",
        "at 192.168.001.001:8080.",
        "v1.2.3.4",
        "ip-10-0-0-1",
        "x_ip_10_0_0_1",
        "fe80::1",
        "[2001:db8:0:0:0:0:0:1]:80",
        "ip_::1",
        "::ffff:10.0.0.1",
    ],
    "mac": ["00:1a:2b:3c:4d:5e", "x 00-1A-2B-3C-4D-5E", "001a.2b3c.4d5e"],
    "phone": [
        "+49 170 1234567",
        "tel:+491701234567",
        "tel:01701234567",
        "(555) 123-4567",
        "0170 1234567",
        "0170/123 45 67",
        "(1555) 1234567",
        "555-123-4567",
        "555.123.4567",
        "1-800-555-1234",
        "078-05-1120",
        "555-123-4567/555-123-4568",
        "2020-10-10 0130 123 4567",
    ],
    "card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111.",
        "order 12 4111 1111 1111 1111",
        "4111 1111 1111 1111 4111 1111 1111 1111",
        "card4111111111111111",
        "4111111111111111.00",
        "378282246310005",
        "3782 822463 10005",
        "5555555555554444",
        "2223003122003222",
        "6011111111111117",
        "30569309025904",
        "3530111333300000",
        "4222222222222",
        "٤١١١١١١١١١١١١١١١",
        "4111111111111111 4111111111111111",
    ],
    "iban": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "gb29nwbk60161331926819",
        "ibanGB29NWBK60161331926819",
        "NO93 8601 1117 947 to pay",
        "MT84MALT011000012345MTLCAST001S",
    ],
    "hex": [
        "deadbeefdeadbeef",
        "d41d8cd98f00b204e9800998ecf8427e",
        "0xdeadbeefcafebabe1",
        "abcdefabcdefabcdef",
        "sha:1234567890abcdef1234",
    ],
    "token": [
        "a1b2c3d4e5f6g7h8i9j0",
        "zxcvbnmasdfghjklqwer1234",
        "ZXCVBNMASDFGHJKLQW12",
        "aBCDEFGHIJKLMNOPQRST",
        "Zx9" * 50,
        "слово" * 4 + "1234",
        "Ox" * 80,
    ],
    "path": [
        "/home/ada",
        "/Users/ada/x",
        "file at /home/ada/x.py:3",
        "-I/home/ada",
        "/mnt/c/Users/ada",
        "/export/home/ada",
        r"C:\Users\ada",
        "c:/users/ada",
        r"C:\\Users\\ada",
        "~ada/notes",
    ],
    "secret": [
        "sk-ant-api03-abcdefghijklmnop",
        "sk-1234567890abcdef",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "github_pat_11ABCDEFG0abcdefghijkl",
        "xoxb-123456789012-abcdefghijkl",
        "key=AKIAIOSFODNN7EXAMPLE",
        "phx_abcdefgh1234",
        "glpat-abcdefghij1234567890",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "npm_abcdefghij1234567890abcdefghij123456",
        "pypi-AgEIcHlwaS5vcmcabcdef",
        "sk_live_abcdefgh12345678",
        "Authorization: Bearer abc123def456",
        PEM,
        PEM[:40],
    ],
}

SURVIVORS = """
claude-sonnet-4-5-20250929 | claude-3-5-sonnet@20241022 | claude-sonnet-4-5[1m] | gpt-5-mini
gpt-4o | gpt-4.1-2025-04-14 | o1-preview-2024-09-12 | gemini-2.5-flash-preview-05-20
anthropic.claude-3-5-sonnet-20241022-v2:0 | us.anthropic.claude-sonnet-4-20250514-v1:0
command-r-plus-08-2024 | integration_settings | agents_approval_required | workspace_home | left-nav
connected-apps | UnhandledPromiseRejection | SSLCertVerificationError | notAuthenticatedException42
Donaudampfschifffahrtsgesellschaft | ÜberprüfungsFehlerMeldung | unhandledpromiserejections
UNHANDLEDPROMISEREJECTION | ECONNREFUSED | pt-BR | en_US.UTF-8 | sk-SK | Europe/Berlin
America/Argentina/Buenos_Aires | 2025-09-29 | 2025-09-29T12:30:45.123Z | 2025-09-29 12:30:45.123456
2025-09-29T12:30:45+02:00 | 2025_09_29_12_30_45_123 | 20250929123045 | 20250929T123045
0001-20250929 | PT1H30M | P1Y2M10DT2H30M | 12:30:45 | 1700000000 | 1700000000000 | 1700000000000000
1700000000000000000 | 2.5e-3 | 1e+16 | 0.1234567890123456 | 1.2345678901234567e-05
1.234567890123456e300 | 0.4111111111111111 | 3.4111111111111111 | 4111111111111111.25
-122.419415500000000 | 1.2.3 | 18.19.0 | node18.19.0 | python3.12.1 | v2.0.0-rc.1 | 10.15.7
react@18.2.0 | text/html; charset=utf-8 | HTTP/1.1 | 1920x1080 | std::vector | a::before | ~5
application/vnd.openxmlformats-officedocument.wordprocessingml.document | /api/v1/users | e2e-test
4111111111111112 | 4111-1111-1111-1112 | #ffffff | 10 000 | 50% | and/or
sk-learn-model-2 | task-management-integration-overview | Bearer token | foo~bar | 1.2.3.4.5
[redacted:secret] | [redacted:card] | 300.1.1.300 | what? yes! | a @ b | @scope/package
eyJub3QganNvbg.x.y | Basic authentication | Basic plan: free | basic telemetry
basic Internationalization | Basic YWRhIGh1bnRlcjI= | jina_reranker_v2 | wandb_v1_project
sha256~of | AQ.level | LTAIbusiness
1,234,567,890 | 1111111111111111 | -----BEGIN CERTIFICATE----- | 123-456
"""
HARMLESS = [word.strip() for line in SURVIVORS.strip().splitlines() for word in line.split(" | ")]


@pytest.mark.parametrize(
    ("kind", "text"), [(k, text) for k, texts in LEAKS.items() for text in texts]
)
def test_an_identifying_shape_is_named(kind: str, text: str) -> None:
    assert shape_of(text) == kind


@pytest.mark.parametrize("text", HARMLESS)
def test_what_identifies_nobody_has_no_shape(text: str) -> None:
    assert shape_of(text) is None


def test_every_kind_of_the_table_has_examples() -> None:
    assert {kind for shape in SHAPES for kind in shape.kinds} == set(LEAKS)


@pytest.mark.parametrize(
    ("kind", "text"), [(k, text) for k, texts in LEAKS.items() for text in texts]
)
@pytest.mark.parametrize("around", ["see: {} .", "{}\nand more", "x=({})", "первый {}"])
def test_a_shape_is_found_anywhere_in_a_text(kind: str, text: str, around: str) -> None:
    assert shape_of(around.format(text)) is not None


@pytest.mark.parametrize("text", ["1.2.3.4", "120.10.6099.109", "1.0.0+20130313144700"])
def test_a_version_is_neither_an_address_nor_a_phone_number(text: str) -> None:
    assert shape_of(text, version=True) is None
    assert shape_of(text) in ("ip", "phone")


def test_a_version_may_still_hold_another_shape() -> None:
    assert shape_of("1.2.3.4 by ada@example.org", version=True) == "email"


@given(st.from_regex(PLAIN, fullmatch=True).filter(is_plain))
@example("ip-1-2-20250929")
@example("A05-20250929")
@example("sk-abcdefghijk123")
@example("ASIAabcdefghijk-4-5-20250929")
@example("aaBbb.aaBbb-AABbbCccDdd-aaBbb123")
def test_the_short_cut_for_plain_labels_never_hides_a_shape(text: str) -> None:
    beyond_the_short_cut = text + " " * PLAIN_LENGTH
    assert shape_of(text) is None
    assert shape_of(beyond_the_short_cut) is None
    assert redact_secrets(beyond_the_short_cut) == (beyond_the_short_cut, ())


# Numbers


@pytest.mark.parametrize("number", [4111111111111111, 378282246310005, 6304000000000000])
def test_a_whole_number_can_be_a_card(number: float) -> None:
    assert number_shape(number) == "card"


@pytest.mark.parametrize(
    "number",
    [
        0,
        -4111111111111111,
        4111111111111112,
        1700000000000,
        1700000000000000,
        20250929123045,
        10**40,
        4111111111111111.5,
        1e300,
    ],
)
def test_other_numbers_have_no_shape(number: float) -> None:
    assert number_shape(number) is None


# Secrets, in both modes


MIXED = "A1B2C3D4E5F6A7B8C9D0E1F2G3"
UUID_TAIL = "5b3f9c1e-7a42-4d86-9e10-c2d47f8a6b35"
#: Whose keys are written like no others: the beginning of the pattern → a tail that it matches.
TAILS = {
    r"[A-Za-z0-9]{14,}_secret_": "3MtwBwLkdIwHu7ix28a3_secret_YrKJUKribcBjcG8HVhfZ",
    r"[\w-]{8,}(?:\.[0-9a-z]{2}": f"{MIXED}.01.121a2b3c4",
    "[a-z0-9]{": (MIXED.lower() * 2)[:43],
    r"(?:u\.)?": MIXED * 4,
    r"(?=[A-Za-z]{0,21}\d)": MIXED[:22],
    r"[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}": "c1tpEyD8_NKFusih9vKVQknRAQfmFcWCv",
    "[0-9a-f]{8}(?:-": UUID_TAIL,
    r"[\w-]{22}\.": "a1b2c3d4e5f6a7b8c9d0e1.0123456789abcdef01234567.a1b2c3d4e5f6a7b8c9d0",
    "[0-9a-f]{24}-": "0123456789abcdef01234567-" + "0123456789abcdef" * 9,
    "[0-9a-f]{40}": "0123456789abcdef0123" * 2,
    "[A-Z0-9]{6}-": "ASWWYB-798JRYLJVD4-23DC2-86TVM-H43EB",
    "[A-Z0-9]{26}": MIXED,
    "[A-Za-z0-9]{32}": (MIXED * 2)[:32],
}


def a_random_tail(pattern: str) -> str:
    for beginning, tail in TAILS.items():
        if pattern.startswith(beginning):
            return tail
    if pattern == "[A-Z0-9]{16}":
        return "ABCDEFGH12345678"
    if pattern.startswith("[0-9a-f]{"):
        return "0123456789abcdef" * (int(pattern[9:11]) // 16)
    if r"\." in pattern:
        return "a1b2c3d4e5f6a7b8c9d0.a1b2c3d4e5f6a7b8c9d0"
    return MIXED * (6 if "100" in pattern or "80" in pattern or "58" in pattern else 2)


@pytest.mark.parametrize(
    ("prefix", "tail"), [(p, known.tail) for known in KNOWN for p in known.prefixes.split()]
)
def test_a_key_with_a_known_prefix_is_cut_out(prefix: str, tail: str) -> None:
    secret = prefix + a_random_tail(tail)
    assert redact_secrets(f"with {secret}, it failed") == (
        "with [redacted:secret], it failed",
        ("secret",),
    )


@pytest.mark.parametrize(
    ("text", "left", "kinds"),
    [
        (f"a {JWT}.", "a [redacted:jwt]", ("jwt",)),
        (f"{JWT} {JWT}", "[redacted:jwt] [redacted:jwt]", ("jwt",)),
        (f"k {PEM} z", "k [redacted:secret] z", ("secret",)),
        (f"k {PEM[:50]}", "k [redacted:secret]", ("secret",)),
        ("Bearer abc123def456!", "Bearer [redacted:secret]!", ("secret",)),
        ("a Basic YWRhOmh1bnRlcjI=!", "a Basic [redacted:secret]!", ("secret",)),
        ("basic:YWRhOmh1bnRlcjI", "basic:[redacted:secret]", ("secret",)),
        (f"a {JWE}.", "a [redacted:jwt].", ("jwt",)),
        ("paid 4111 1111 1111 1111.", "paid [redacted:card].", ("card",)),
        ("4111111111111111,4222222222222", "[redacted:card],[redacted:card]", ("card",)),
        ("to DE89 3704 0044 0532 0130 00 now", "to [redacted:iban] now", ("iban",)),
        (
            f"{JWT} 4111111111111111 ghp_abcdefghijklmnop1234",
            "[redacted:jwt] [redacted:card] [redacted:secret]",
            ("jwt", "secret", "card"),
        ),
    ],
)
def test_secrets_are_cut_out_and_the_rest_stays(
    text: str, left: str, kinds: tuple[str, ...]
) -> None:
    assert redact_secrets(text) == (left, kinds)


@pytest.mark.parametrize("text", [*HARMLESS, "", "short", "ada@example.org wrote on 2025-09-29"])
def test_a_text_without_secrets_comes_back_as_the_same_object(text: str) -> None:
    left, kinds = redact_secrets(text)
    assert left is text
    assert kinds == ()


@pytest.mark.parametrize(
    "text",
    [
        "4c111111-4111-1111-1111-111111111111",
        "8c1fa1b2-4111-1111-1111-1111b2c3d4e5",
        "id abc4111111111111111def",
        "0.4111111111111111",
        "41111111111111111",
        "1700000000000 1700000000001",
    ],
)
def test_digits_of_something_longer_are_no_card(text: str) -> None:
    assert redact_secrets(text) == (text, ())


def test_a_card_inside_a_uuid_of_digits_is_no_card() -> None:
    uuid = "00000000-4111-1111-1111-111100000000"
    assert is_card("4111111111111111")
    assert redact_secrets(f"run {uuid} ended") == (f"run {uuid} ended", ())


def test_a_deeply_nested_header_is_no_token() -> None:
    import base64

    head = base64.urlsafe_b64encode(b'{"a":' * 3000).decode().rstrip("=")
    assert redact_secrets(f"{head}.a.b") == (f"{head}.a.b", ())


def test_a_header_behind_many_false_beginnings_is_given_up_on_in_time() -> None:
    text = "eyJ" * 2000 + ".a"
    assert shape_of(text) == "token"


def test_ibans_of_every_country_have_a_length() -> None:
    assert len(IBAN_LENGTHS) > 80
    assert all(15 <= length <= 33 for length in IBAN_LENGTHS.values())


PIECES = st.sampled_from(
    [
        *("4111", " ", "-", "4111111111111111", "378282246310005", "1", "12", "DE89", "37040044"),
        *(
            "0532013000",
            JWT,
            "eyJ",
            ".",
            "sk-",
            "abcdef123456",
            "ghp_",
            "[redacted:card]",
            "Bearer ",
        ),
        *("-----BEGIN KEY-----", "-----END KEY-----", "@", "+49", "\n", "é", "٤", "0", "/", "x"),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=80),
    st.text(alphabet=string.ascii_letters + string.digits + "-_.:/@+~ =", max_size=80),
    st.lists(PIECES, max_size=14).map("".join),
)


@given(TEXTS)
def test_any_text_has_a_shape_or_none(text: str) -> None:
    assert shape_of(text) in (None, *LEAKS)
    assert shape_of(text, version=True) in (None, *LEAKS)


@given(TEXTS)
def test_cutting_secrets_out_twice_is_cutting_them_out_once(text: str) -> None:
    left, kinds = redact_secrets(text)
    assert redact_secrets(left) == (left, ())
    assert (left is text) == (kinds == ())


@given(TEXTS)
def test_what_is_left_has_none_of_the_secrets_kinds(text: str) -> None:
    assert shape_of(redact_secrets(text)[0]) not in ("jwt", "secret", "iban", "card")
