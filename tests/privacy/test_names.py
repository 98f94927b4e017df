"""Keys: their normal form, and which identify. The tables are written out here once more, so that
a rule that goes missing from the code is missed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from second_mw.privacy import names

EXACT = """
user user_id uid user_email mail e_mail user_name username display_name surname login handle
nickname
first_name last_name full_name account_id tenant org organization company workspace
workspace_id
workspace_role app app_id app_name run run_id agent agents agent_id agent_name owner author member
members customer email phone name id prompt message error error_message error_stack stack trace
suggestion suggestions page_url url href pathname path referrer ip user_agent lat lon latitude
longitude birthday dob age zip postcode ssn salary
""".split()

ENDINGS = """
_id _ids _email _emails _name _names _url _urls _uri _phone _address _token _key _secret _password
_ip _path _slug _slugs _domain _domains
""".split()

SURVIVORS = """
workspace_section user_message_count message_length author_count tokenizer app_section agent_type
has_warning total_bytes duration_ms plan_title_length username_length identity idle valid
emails_sent
ages zipped pathfinder runtime stacked traced organizer renamed tokens keys_pressed urlencoded
""".split()


@pytest.mark.parametrize("key", EXACT)
def test_a_key_that_names_a_person_or_a_thing_of_theirs_identifies(key: str) -> None:
    assert names.identifies(names.normal_form(key))


@pytest.mark.parametrize("key", EXACT)
def test_so_does_its_unseparated_camel_pascal_and_screaming_spelling(key: str) -> None:
    words = key.split("_")
    camel = words[0] + "".join(word.title() for word in words[1:])
    for spelling in ("".join(words), camel, camel[0].upper() + camel[1:], key.upper(),
                     "-".join(words), ".".join(words), f" {key} ", f"{key}2", f"{key}_17",
                     "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in key),
                     "\u200b".join(key)):  # fmt: skip
        assert names.identifies(names.normal_form(spelling)), spelling


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_key_that_ends_in_or_is_an_identifying_ending_identifies(ending: str) -> None:
    assert names.identifies(names.normal_form(f"billing{ending}"))
    assert names.identifies(names.normal_form(ending[1:]))


@pytest.mark.parametrize("key", SURVIVORS)
def test_only_exact_names_and_endings_identify_never_a_part(key: str) -> None:
    assert not names.identifies(names.normal_form(key))


@pytest.mark.parametrize(
    ("key", "normal"),
    [
        ("userEmail", "user_email"),
        ("UserID", "user_id"),
        ("userIDs", "user_ids"),
        ("pageURL", "page_url"),
        ("URLs", "urls"),
        ("HTTPServer", "http_server"),
        ("USER_ID", "user_id"),
        ("VALID", "valid"),
        ("user..e-mail", "user_e_mail"),
        ("__name__", "name"),
        ("name_2", "name"),
        ("2024", "2024"),
        ("", ""),
    ],
)
def test_the_normal_form(key: str, normal: str) -> None:
    assert names.normal_form(key) == normal


@pytest.mark.parametrize(
    "key",
    "password userPassword client_secret secret passwd api_key apiKey APIKEY accessKey private_key "
    "Authorization cookie".split(),
)
def test_a_key_that_names_a_secret_holds_one(key: str) -> None:
    assert names.holds_secret(names.normal_form(key))


@pytest.mark.parametrize("key", ["secretary", "password_length", "required_secret_count", "keys"])
def test_a_key_that_only_sounds_so_holds_none(key: str) -> None:
    assert not names.holds_secret(names.normal_form(key))


@pytest.mark.parametrize(
    "key",
    ["anonymized", "Anonymized", "ANONYMIZED", "anonymized2", " anonymized ", "ａnonymized",
     "anony\u200bmized", "an-onymized"],
)  # fmt: skip
def test_the_events_own_word_is_found_in_any_spelling(key: str) -> None:
    assert names.asks_for_anonymity(key)


@pytest.mark.parametrize("key", ["anonymous", "is_anonymized", "anonymize", "z", "anonymizedd"])
def test_no_other_key_is_the_events_own_word(key: str) -> None:
    assert not names.asks_for_anonymity(key)


@given(st.text())
def test_the_normal_form_is_its_own_normal_form_and_takes_any_text(key: str) -> None:
    normal = names.normal_form(key)
    assert names.normal_form(normal) == normal


def test_a_key_of_any_length_is_judged_by_its_ends() -> None:
    digits = "1" * 5000
    assert names.normal_form("user" + "_-" * 4000 + "email" + "_1" * 4000) == "user_email"
    assert names.normal_form("-" * 9000 + "userEmail" + digits) == "user_email"
    assert names.normal_form("x" * 9000 + "_email").endswith("x_email")
    assert names.normal_form(digits).isdecimal()
