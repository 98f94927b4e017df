"""Keys: their normal form, and which of them identify (spec §8, "Keys").

What a key means is decided here and nowhere else; whether a key's own text holds identity or a
shape is a question about a value and belongs to `identity` and `shapes`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

#: Zero-width, bidi and other format characters, which render as nothing (Unicode category Cf),
#: and the fillers and selectors that do so without being in it.
INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

#: Keys that identify, in normal form (spec §8).
EXACT: Final = frozenset(
    """
    user user_id uid user_email mail e_mail user_name username display_name surname login handle
    nickname first_name last_name full_name account_id tenant org organization company workspace
    workspace_id workspace_role app app_id app_name run run_id agent agents agent_id agent_name
    owner author member members customer email phone name id prompt message error error_message
    error_stack stack trace suggestion suggestions page_url url href pathname path referrer ip
    user_agent lat lon latitude longitude birthday dob age zip postcode ssn salary
    """.split()
)

#: Endings that identify; a key that is one without its `_` identifies too (spec §8).
ENDINGS: Final = (
    "_id",
    "_ids",
    "_email",
    "_emails",
    "_name",
    "_names",
    "_url",
    "_urls",
    "_uri",
    "_phone",
    "_address",
    "_token",
    "_key",
    "_secret",
    "_password",
    "_ip",
    "_path",
    "_slug",
    "_slugs",
    "_domain",
    "_domains",
)

#: Keys whose value is a secret in both modes (spec §6), and what others call the same.
SECRET_EXACT: Final = frozenset(
    """
    password secret passwd api_key access_key private_key authorization cookie
    pwd passphrase secret_key x_api_key access_token refresh_token id_token auth_token
    bearer_token session_token set_cookie proxy_authorization
    """.split()
)
SECRET_ENDINGS: Final = ("_password", "_secret")

#: Top-level keys that only the server writes (spec §6).
RESERVED: Final = frozenset(
    """
    distinct_id token api_key uuid timestamp anonymized analytics_consent_version release_version
    release_package release_runtime cli_launcher_version cli_launcher_package second_mw auth_mode
    installation_mode
    """.split()
)

#: Keys that JavaScript objects inherit; an analyst's tool may trip over them.
UNSAFE: Final = frozenset({"__proto__", "constructor", "prototype"})

# ID, IDs and URL are one word each: userIDs is user_ids, not user_i_ds.
_INITIALISM = re.compile(r"(?<![A-Z])(ID|URL)(s?)(?![a-z])")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATORS = re.compile(r"[\W_]+")
_LONGEST_END: Final = 1024


def unseparated(names: Iterable[str]) -> frozenset[str]:
    """Return names in normal form with their `_` left out."""
    return frozenset(name.replace("_", "") for name in names)


_EXACT_ALL: Final = EXACT | {ending[1:] for ending in ENDINGS}
#: More than one of them, which separated ends in `_ids`, `_names` or `_emails`.
_PLURALS: Final = frozenset(
    f"{name}s" for name in EXACT if name.endswith(("_id", "_name", "_email", "username"))
)
_EXACT_UNSEPARATED: Final = unseparated(_EXACT_ALL | _PLURALS)
_SECRET_UNSEPARATED: Final = unseparated(SECRET_EXACT)


def visible(text: str) -> str:
    """Return the text in NFKC, without what can't be seen."""
    return text if text.isascii() else INVISIBLE.sub("", unicodedata.normalize("NFKC", text))


def normal_form(key: str) -> str:
    """Return a key as rules compare it (spec §8).

    >>> [normal_form(k) for k in ("userEmail", "User-E-Mail 2", "userIDs", "ＰageＵＲＬ")]
    ['user_email', 'user_e_mail', 'user_ids', 'page_url']
    """
    if len(key) > 2 * _LONGEST_END:
        # No name is so long: its beginning and its end are all that a rule looks at.
        key = _SEPARATORS.sub("_", key)
        key = _without_digits(key) or key
        key = key if len(key) <= 2 * _LONGEST_END else key[:_LONGEST_END] + key[-_LONGEST_END:]
    text = visible(key)
    if text != text.lower() and not text.isupper():
        text = _INITIALISM.sub(lambda found: found[1].title() + found[2], text)
        text = _CAMEL.sub("_", text)
    text = _SEPARATORS.sub("_", text.casefold()).strip("_")
    # A key of digits alone keeps them: it is data, not a numbered name.
    return _without_digits(text) or text


def _without_digits(text: str) -> str:
    """Return a text without the digits and `_` at its end."""
    end = len(text)
    while end and (text[end - 1] == "_" or text[end - 1].isdecimal()):
        end -= 1
    return text[:end]


_NOT_ALNUM: Final = {code: None for code in range(128) if not chr(code).isalnum()}


def bare_form(key: str) -> str:
    """Return a key's normal form with its `_` left out, for ASCII keys at a tenth of the cost.

    >>> bare_form("user_E-Mail 2"), bare_form("ＵserID")
    ('useremail', 'userid')
    """
    if not key.isascii():
        return normal_form(key).replace("_", "")
    text = key.lower().translate(_NOT_ALNUM)
    return text.rstrip("0123456789") or text


def identifies(normal: str) -> bool:
    """Whether a key in normal form names something that identifies, whatever the catalogue.

    >>> identifies("owner_email"), identifies("useremail"), identifies("author_count")
    (True, True, False)
    """
    return (
        normal in _EXACT_ALL
        or normal.endswith(ENDINGS)
        or normal.replace("_", "") in _EXACT_UNSEPARATED
    )


def holds_secret(normal: str) -> bool:
    """Whether a key in normal form names a secret, whose value leaves in no mode (spec §6)."""
    return (
        normal in SECRET_EXACT
        or normal.endswith(SECRET_ENDINGS)
        or normal.replace("_", "") in _SECRET_UNSEPARATED
    )


def may_say(key: str, letter: str) -> bool:
    """Whether a key has a small letter in its normal form: asked before that is made.

    >>> may_say("Ａnonymiｚed", "z"), may_say("user_id", "z")
    (True, False)
    """
    if key.isascii():
        return letter in key.lower()
    return any(letter in visible(character).casefold() for character in set(key))


def asks_for_anonymity(key: str) -> bool:
    """Whether a key is, in any spelling, the event's own word on its mode (spec §7)."""
    if (len(key) < 10 and key.isascii()) or not may_say(key, "z"):
        return False
    return bare_form(key) == "anonymized"


def means_workspace(key: str) -> bool:
    """Whether a key, in any spelling, names the workspace that an event is about (spec §4)."""
    if "workspace" not in key.lower() if key.isascii() else not may_say(key, "k"):
        return False
    return bare_form(key) == "workspaceid"
