"""Every kind of leak that we know by name, with an example each: all closed.

Each goes the whole way, from posted bytes to the bytes in the outbox, and is looked for there by a
reader that shares no code with the core. The same reader must see it in what was posted: a case
that hides nothing would show nothing.
"""

from __future__ import annotations

import base64
import decimal
import enum
import fractions
import hashlib
import html
import json
import logging
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from second_mw import Analytics, AnalyticsUser
from second_mw.payload import Payload
from tests.hosts import Reply, Wsgi
from tests.privacy.decoder import found
from tests.privacy.people import CAPTURE, QUILL, analytics_of, person, secrets_of, sent
from tests.stores import Kept

MAIL = QUILL.email or ""
ID = QUILL.id
UUID_4 = "5b3f9c1e-7a42-4d86-9e10-c2d47f8a6b35"
UUID_7 = "0190a6e4-3d5b-7c1e-8a52-0123456789ab"
ULID = "01HX3Z9K7QJ4M2N8P5R6S7T8V9"
KSUID = "2Gd9Zk7QpLmXw4Rt8Vn3Bc6Yh1J"
HEX_24 = "65f0c0ffee65f0c0ffee65f1"
CARD = "4111111111111111"
IBAN = "DE89370400440532013000"
JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)
#: Encrypted for a shared key, as sessions are: nothing stands between its first two dots.
JWE = (
    "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0"
    "..aB3dEf6hIj9kLm2n.zX9kQ2lM7rT4vB8nC3pWyD6f.qR5sT8uV1wX4yZ7aB0cD3e"
)
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"
#: A single word that no rule knows: it must go because of its key alone.
WORD = "thistledown"

NUMBERED = person("4815162342", workspaces={"9073551": None})
BY_UUID = person(UUID_4)
SHORT = person("Kq7z", name="Ødegård Blåfjell")
ACCENTED = person(name="Éléonore Müllerová-Søndergård")
CYRILLIC = person(name="Анастасия Приходько")
GREEK = person(name="Ελευθερία Παπαδοπούλου")
CHINESE = person(name="歐陽修文")
JAPANESE = person(name="佐々木 小次郎")
KOREAN = person(name="남궁민수")
ARABIC = person(name="فاطمة الزهراء")
HEBREW = person(name="אביגיל בןדוד")
HINDI = person(name="अनुष्का चट्टोपाध्याय")
TURKISH = person(name="İpek Işıldağ")
IRISH = person(name="Siobhán O'Dwyerlan")
TAGGED = person(email="quill.feather+newsletter@gmail.com")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def b64url(data: str | bytes) -> str:
    data = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def entities(text: str, form: str) -> str:
    return "".join(form.format(ord(letter)) for letter in text)


def wide(text: str) -> str:
    return "".join(chr(ord(x) + 0xFEE0) if "!" <= x <= "~" else x for x in text)


def sprinkled(text: str, letter: str) -> str:
    return letter.join(text)


def digest(name: str, text: str = MAIL) -> bytes:
    return hashlib.new(name, text.encode(), usedforsecurity=False).digest()


def buried(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = {f"level_{'abcdefgh'[level]}": value} if level % 2 else [value]
    return {"tree": value}


@dataclass(frozen=True)
class Leak:
    """One way out, and what must not take it."""

    name: str
    properties: Any = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    user: AnalyticsUser = QUILL
    event: str = "page viewed"
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_secrets(self) -> list[str]:
        return [*secrets_of(self.user), *self.secrets]


def keyed(name: str, key: str, value: Any = WORD) -> Leak:
    """A word that only its key gives away."""
    return Leak(name, {key: value}, (WORD,))


def shape(name: str, value: str, key: str = "theme", event: str = "page viewed") -> Leak:
    """A stranger's identifier, which only its shape gives away."""
    return Leak(name, {key: value}, (value,), event=event)


def own(name: str, value: Any, user: AnalyticsUser = QUILL, *secrets: str) -> Leak:
    """Something of the user's own under a harmless key."""
    return Leak(name, {"theme": value}, secrets, user)


KEYS = [
    keyed("a user_email", "user_email"),
    keyed("a nested user_email", "context", {"user_email": WORD}),
    keyed("a user_email in a list of objects", "people", [{"user_email": WORD}]),
    Leak("a user_email seven levels down", buried({"user_email": WORD}, 6), (WORD,)),
    keyed("a camelCase userEmail", "userEmail"),
    keyed("a PascalCase UserEmail", "UserEmail"),
    keyed("a shouted USER_EMAIL", "USER_EMAIL"),
    keyed("a UserID", "UserID"),
    keyed("a userId", "userId"),
    keyed("userIDs", "userIDs"),
    keyed("an unseparated userid", "userid"),
    keyed("an unseparated useremail", "useremail"),
    keyed("unseparated userids", "userids", [WORD]),
    keyed("unseparated usernames", "UserNames", [WORD]),
    keyed(
        "an unseparated workspaceid, deeper than the event's own", "context", {"workspaceid": WORD}
    ),
    keyed("an unseparated appname", "appname"),
    keyed("a kebab user-e-mail", "user-e-mail"),
    keyed("a dotted user.email", "user.email"),
    keyed("a spaced user email", "user email"),
    keyed("a numbered user_email_2", "user_email_2"),
    keyed("a numbered userEmail2", "userEmail2"),
    keyed("a key in full-width letters", "ｕｓｅｒ＿ｅｍａｉｌ"),
    keyed("a key in mathematical letters", "𝐮𝐬𝐞𝐫_𝐞𝐦𝐚𝐢𝐥"),
    keyed("a zero-width space in a key", "user_\u200bemail"),
    keyed("a byte-order mark in a key", "\ufeffuser_email"),
    keyed("white space round a key", "  user_email\t"),
    keyed("a key longer than 80 characters whose tail identifies", "x" * 78 + "_user_email"),
    keyed("any key in _name", "favourite_colleague_name"),
    keyed("any key in _names", "colleague_names"),
    keyed("any key in Name", "colleagueName"),
    keyed("any key in _url", "callback_url"),
    keyed("any key in URL", "callbackURL"),
    keyed("any key in _slug", "team_slug"),
    keyed("any key in _domain", "tenant_domain"),
    keyed("any key in _phone", "work_phone"),
    keyed("any key in _address", "postal_address"),
    keyed("any key in _ip", "client_ip"),
    keyed("any key in _path", "file_path"),
    keyed("any key in _token", "session_token"),
    keyed("any key in _key", "licence_key"),
    keyed("the key name", "name"),
    keyed("the key owner", "owner"),
    keyed("the key customer", "customer"),
    keyed("the key nickname", "nickname"),
    keyed("the key login", "login"),
    keyed("the key organization", "organization"),
    keyed("the key referrer", "referrer"),
    keyed("the key user_agent", "userAgent"),
    keyed("the key stack", "stack"),
    keyed("a prompt of another event", "prompt"),
    keyed("a Text of another event", "planTitle"),
    keyed("an Ident of another event", "integrationDomains"),
    keyed("a declared key in an undeclared spelling", "runtimeId"),
    keyed("a declared key at an undeclared depth", "context", {"runtime_id": WORD}),
    keyed("a $-key", "$set", {"theme": WORD}),
    keyed("a $-key in full width", "＄set", {"theme": WORD}),
    keyed("a $-key behind a zero-width space", "\u200b$set", {"theme": WORD}),
    keyed("a nested $set", "context", {"$set": {"theme": WORD}}),
    keyed("$set_once", "$set_once", {"theme": WORD}),
    keyed("$groups", "$groups", {"company": WORD}),
    keyed("$anon_distinct_id", "$anon_distinct_id"),
    keyed("$current_url", "$current_url"),
    keyed("$session_id", "$session_id"),
    keyed("__proto__", "__proto__", {"theme": WORD}),
    keyed("constructor", "constructor", {"theme": WORD}),
    keyed("a distinct_id among the properties", "distinct_id"),
    keyed("a release_version of the browser's", "release_version"),
    keyed("the value of a secret's key", "authorization"),
    keyed("the value of a password", "old_password"),
    keyed("an object under a secret's key", "cookie", {"theme": WORD}),
    keyed("a user as an object", "user", {"theme": WORD}),
    keyed("a list under an identifying key", "members", [WORD]),
    keyed("a number's key with a word", "lat", WORD),
    keyed("a salary", "salary", WORD),
]

DATA_AS_KEYS = [
    Leak("an e-mail as a key", {"counts": {"stranger@elsewhere.example": 3}},
         ("stranger@elsewhere.example",)),
    Leak("the user's e-mail as a key", {"counts": {MAIL: 3}}),
    Leak("the user's id as a key", {"counts": {ID: 3}}),
    Leak("the workspace's id as a key", {"ws_tarnholme_83": 3}),
    Leak("a workspace's id inside a key", {"clicks:ws_tarnholme_83": 3}),
    Leak("the user's name as a key", {"Quillfeather": 3}),
    Leak("the user's name inside a key", {"clicks_by_quillfeather": 3}),
    Leak("the user's name in base64 behind a letter of its alphabet", {"x": "xcXVpbGxmZWF0aGVy"}),
    Leak("the user's name inside a camelCase key", {"clicksByQuillfeatherToday": 3}),
    Leak("an alias as a key", {"moonwright77": 3}),
    Leak("a base64 key", {b64url(MAIL): 3}),
    Leak("a hex key", {MAIL.encode().hex(): 3}),
    Leak("a percent-encoded key", {percent(MAIL): 3}),
    Leak("a full-width key", {wide("quillfeather"): 3}),
    Leak("a numeric id as a key", {"counts": {"4815162342": 3}}, user=NUMBERED),
    Leak("a UUID as a key", {"counts": {UUID_4: 3}}, (UUID_4,)),
    Leak("an ObjectId as a key", {"counts": {HEX_24: 3}}, (HEX_24,)),
    Leak("a hash as a key", {"counts": {digest("sha256").hex(): 3}}, (digest("sha256").hex(),)),
    Leak("free text as a key", {"what the stranger said": 3}, ("what the stranger said",)),
    Leak("identity behind a key's 80th character", {"x" * 80 + "-quillfeather": 3}),
    Leak("identity across a key's 80th character", {"x" * 70 + "-quillfeather": 3}),
    Leak("a token as a key", {"counts": {"Zx9Kq2Lm7Rt4Vb8Nc3Pw": 3}}, ("Zx9Kq2Lm7Rt4Vb8Nc3Pw",)),
]  # fmt: skip

IDENTITY = [
    own("the e-mail in a label", MAIL),
    own("the e-mail in a longer label", f"to:{MAIL}"),
    own("the e-mail in upper case", MAIL.upper()),
    own("the local part", "zephyrine.quillfeather"),
    own("the local part in a label", "inbox-of-zephyrine.quillfeather"),
    own("a +tag", "quill.feather+newsletter", TAGGED, "quill.feather"),
    own("the domain of the e-mail", "brindlemoor.example"),
    own("a subdomain of it", "mail.brindlemoor.example"),
    own("the id", ID),
    own("the id in upper case", ID.upper()),
    own("the id in lower case", ID.lower()),
    own("the id in the middle of a label", f"pre{ID}post"),
    own("a short id as the whole value", "kQ7Z", SHORT, "Kq7z"),
    own("a workspace's id", "ws_tarnholme_83"),
    own("a workspace's id in a label", "tab:ws_tarnholme_83/home"),
    own("an alias", "MoonWright77"),
    own("an alias in a label", "by-moonwright77-today"),
    own("the full name", "Zephyrine Quillfeather"),
    own("the first name", "zephyrine"),
    own("the last name behind a dash", "nav-quillfeather"),
    own("the last name behind an underscore", "nav_quillfeather"),
    own("the last name split by camel case", "navQuillfeatherPanel"),
    own("the last name before digits", "quillfeather2024"),
    own("the last name behind a slash", "team/quillfeather"),
    own("the full name joined", "zephyrinequillfeather"),
    own("the full name joined inside a label", "tab-zephyrinequillfeather"),
    own("the full name joined by a dot", "zephyrine.quillfeather-1"),
    own("the full name joined by an underscore", "Zephyrine_Quillfeather"),
    own("the full name joined by a dash", "zephyrine-quillfeather"),
    own("a name with its accents", "x-Éléonore", ACCENTED, "Éléonore"),
    own("a name without its accents", "eleonore", ACCENTED, "Éléonore"),
    own("a name with its accents decomposed", "x-E\u0301le\u0301onore", ACCENTED, "Éléonore"),
    own("one half of a double name", "tab-Müllerová", ACCENTED, "Müllerová"),
    own("the user's plain name with accents put on", "q\u0301uillfeather"),
    own("a Cyrillic name", "tab-Приходько", CYRILLIC),
    own("a Cyrillic name in capitals", "x-ПРИХОДЬКО", CYRILLIC),
    own("a Greek name", "tab-Παπαδοπούλου", GREEK),
    own("a Greek name in capitals, its sigma and accents gone", "x-ΠΑΠΑΔΟΠΟΥΛΟΥ", GREEK),
    own("a Chinese name", "tab-歐陽修文", CHINESE),
    own("a Japanese name, joined", "tab-佐々木小次郎", JAPANESE),
    own("one part of a Japanese name", "tab-小次郎", JAPANESE),
    own("a Korean name", "tab-남궁민수", KOREAN),
    own("an Arabic name", "tab-فاطمة", ARABIC),
    own("a Hebrew name", "tab-אביגיל", HEBREW),
    own("a Hindi name", "tab-चट्टोपाध्याय", HINDI),
    own("a Turkish name with its dotless letter", "tab-Işıldağ", TURKISH),
    own("a name with an apostrophe", "O'Dwyerlan", IRISH, "Dwyerlan"),
    own("one half of a double name, its apostrophe gone", "tab-odwyerlan",
        person(name="Siobhán O'Dwyerlan-Thistlewood"), "odwyerlan"),
    own("a name whose apostrophe is curly", "tab-O’Dwyerlan", IRISH, "Dwyerlan"),
    own("a name whose apostrophe is gone", "odwyerlan", IRISH, "Dwyerlan"),
    own("a Turkish name in capitals", "IŞILDAĞ", TURKISH, "Isildag"),
    own("a Turkish name without its dotless letter", "tab-isildag", TURKISH, "Isildag"),
    own("a Polish name as a keyboard spells it", "tab-Zolkiewska", person(name="Olga Żółkiewska"),
        "Zolkiewska"),
    own("a Danish name whose slug lost its letters", "docs-s-ren-kj-rg-rd-2",
        person(name="Søren Kjærgård"), "s-ren-kj-rg-rd"),
    own("a German name whose slug lost its letters", "team/j-rg-m-llerstein",
        person(name="Jörg Müllerstein"), "j-rg-m-llerstein"),
    own("a Danish name whose slug kept a ring", "s_ren_kj_rgard",
        person(name="Søren Kjærgård"), "s_ren_kj_rgard"),
    own("a Danish name as a keyboard spells it", "kjaergard", person(name="Ib Kjærgård"),
        "kjaergard"),
    own("a name with ue for ü", "luedenscheidt2", person(name="Utanna Lüdenscheidt"),
        "luedenscheidt"),
    own("a name with ß in capitals", "WEISSBROT", person(name="Greta Weißbrot")),
    own("the full name joined, its title left out", "gretaweissbrot",
        person(name="Madam Greta Weißbrot"), "gretaweissbrot"),
    own("first and last name joined", "minhkhai", person(name="Minh Thanh Khai"), "minhkhai"),
    own("a name that is written last name first, joined", "adelalovelorn",
        person(name="Lovelorn, Adela"), "adelalovelorn"),
    own("a part of a name in camel case", "tab-lovelorn", person(name="AdaLovelorn"), "lovelorn"),
    own("a user name's letters without its digits", "lovelorn", person(name="lovelorn77"),
        "lovelorn"),
    own("the id with other separators", "usr-7Gk2Pw93Zt5q"),
    own("the id without separators", "usr7gk2pw93zt5q"),
    own("the id with more separators", "x_usr.7gk2.pw93/zt5q"),
    own("the account's id behind who issued it", "tab-9f3k2p7w",
        person("auth0|9f3k2p7w"), "9f3k2p7w"),
    own("the id without what stands before it", "7Gk2Pw93Zt5q", QUILL, "7Gk2Pw93Zt5q"),
    own("a workspace's id without what stands before it", "tarnholme_83", QUILL, "tarnholme_83"),
    own("a number behind a prefix, as a number", 4815162342, person("user_4815162342"),
        "4815162342"),
    own("a part of the address, of which no name is known", "tab-thistlewood",
        person(email="barnaby.thistlewood@gmail.com"), "thistlewood"),
    own("the other part of it", "Barnaby_2", person(email="barnaby-thistlewood+x@gmail.com"),
        "barnaby"),
    own("a workspace's id without separators", "wstarnholme83"),
    own("a workspace's id of words, joined otherwise", "brindle_moor",
        person(workspaces={"brindle-moor": None})),
    own("a telephone number's digits as a number", 4915123456789,
        person(aliases=("+49 151 23456789",)), "4915123456789"),
    own("the domain above the e-mail's", "brindlemoor.example",
        person(email="z@eu.mail.brindlemoor.example"), "brindlemoor.example"),
    own("a company's domain that begins as a public one", "live.brindlemoor.example",
        person(email="z@live.brindlemoor.example")),
    own("the network's spelling of the e-mail's domain", "xn--brndle-4ya.example",
        person(email="z@bründle.example"), "xn--brndle-4ya.example"),
    own("the whole address without its signs", "zephyrinequillfeatherbrindlemoorexample"),
    own("the id's address, of which no name is known, in parts", "tab-thistlewood",
        person("barnaby.thistlewood@gmail.com"), "thistlewood"),
    own("a name whose apostrophe is a letter", "odwyerlan", person(name="Siobhán OʼDwyerlan"),
        "Dwyerlan"),
    own("what follows an apostrophe that is a letter", "dwyerlan",
        person(name="Siobhán OʼDwyerlan"), "Dwyerlan"),
    own("a Hawaiian name without its okina", "tab-kaahumanu", person(name="Keoni Kaʻahumanu"),
        "Kaahumanu"),
    own("an apostrophe that is an acute accent", "dangeloni", person(name="Ugolino D´Angeloni"),
        "dangeloni"),
    own("an Azerbaijani name as a keyboard spells it", "tab-memmedova",
        person(name="Leyla Məmmədova"), "memmedova"),
    own("a number of a snowflake's length as a float", 175928847299117056.0,
        person("175928847299117056"), "7592884729911706"),
    own("such a number that a float can't hold", 103547991597142817347.0,
        person("google-oauth2|103547991597142817347"), "0354799159714"),
    own("a numeric id as a number, its zeros gone", 48151623, person("0048151623"), "48151623"),
    own("a number behind a prefix and a hyphen, as a number", 4815162342,
        person("user-4815162342"), "4815162342"),
    own("a numeric id as text", "4815162342", NUMBERED),
    own("a numeric id in a label", "user-4815162342", NUMBERED),
    own("a numeric id as a number", 4815162342, NUMBERED),
    own("a numeric id as a negative number", -4815162342, NUMBERED),
    own("a numeric id as a float", 4815162342.5, NUMBERED, "4815162342"),
    own("a numeric id behind the point", 0.4815162342, NUMBERED, "4815162342"),
    own("a numeric id in a list", [1, 4815162342], NUMBERED),
    own("a numeric workspace id", 9073551, NUMBERED),
    Leak("a numeric id as a declared Count", {"viewport_width": 4815162342}, user=NUMBERED),
    own("the id, a UUID, in capitals", UUID_4.upper(), BY_UUID),
    own("the id, a UUID, without hyphens", UUID_4.replace("-", ""), BY_UUID, UUID_4),
    own("one item of a list", ["left", "quillfeather", "right"]),
    own("an item of a list in a list", [[["quillfeather"]]]),
    Leak("a value seven levels down", buried({"label": "quillfeather"}, 6)),
    Leak("a declared label", {"source": "by-quillfeather"}, event="chat initiated"),
    Leak("a value near a vocabulary's", {"surface": "workspace_home_quillfeather"}),
    Leak("an error code", {"error_code": "E_QUILLFEATHER"}, event="build failed"),
    Leak("a Model", {"runtime_model": "gpt-5-quillfeather"}, event="chat initiated"),
    Leak("a Model with spaces", {"runtime_model": "gpt-5 Quillfeather"}, event="chat initiated"),
    Leak("a Model with brackets", {"runtime_model": "gpt-5 (quillfeather)"},
         event="chat initiated"),
    Leak("a fine-tune's name", {"runtime_model": "ft:gpt-4o:acme-corp:quillfeather:9x"},
         ("acme-corp",), event="chat initiated"),
    Leak("a fine-tune's name in any string", {"theme": "ft:gpt-4o:acme-corp::9x"},
         ("acme-corp",)),
    Leak("an arn", {"runtime_model": "arn:aws:bedrock:us-east-1:thistledown/claude"}, (WORD,),
         event="chat initiated"),
    Leak("an @ in a Model", {"runtime_model": "claude-code@thistledown"}, (WORD,),
         event="chat initiated"),
    Leak("a version", {"app_version": "1.2.3-quillfeather"}),
    Leak("a Count that is a word", {"file_count": "quillfeather"}, event="build completed"),
    Leak("a Flag that is a word", {"has_warning": "quillfeather"}, event="build completed"),
    Leak("a Duration that is an object", {"duration_ms": {"by": "quillfeather"}},
         event="build completed"),
    Leak("a Label that is a list", {"source": ["quillfeather"]}, event="chat initiated"),
    Leak("a word that ends at the 2,000th character", {"theme": "x " * 994 + "quillfeather"}),
    Leak("a word across the 2,000th character", {"theme": "x-" * 996 + "quillfeather" * 3}),
    Leak("a word cut at the 20,000th character",
         {"remark": "x-" * 9996 + "quillfeather" * 3}, event="approval shown"),
]  # fmt: skip

ENCODED = [
    own("base64 of the e-mail", b64(MAIL)),
    own("base64 without its padding", b64(MAIL).rstrip("=")),
    own("base64url of the e-mail", b64url("??" + MAIL)),
    own("base64 of the id", b64url(ID)),
    own("base64 of the last name", b64url("quillfeather")),
    own("base64 behind a prefix", f"id:{b64url(MAIL)}"),
    own("base64 behind a prefix that is base64 too", f"x{b64url(MAIL)}"),
    own("base64 of JSON", b64url(json.dumps({"u": MAIL}))),
    own("base64 of UTF-16", base64.b64encode(MAIL.encode("utf-16-le")).decode()),
    own("base64 twice", b64url(b64(MAIL))),
    own("a name in capitals in base64", "SEFOREU-panel", person(name="Paolo Hande"), "Hande"),
    own("a name in base64 between underscores", "x_TUFKQQ_y", person(name="Maja Iversen")),
    own("a Cyrillic name in base64url", "tab-0JrQsNC_0YPRgdGC0LjQvQ",
        person(name="Вадим Капустин")),
    own("a Greek name in base64url", "claude-zp3OrM69z4TPg86_z4U", person(name="Στέλλα Νάντσου")),
    own("a Chinese name in base64url", "1.2.3-6buD5b-X5by3", person(name="黃志強")),
    own("an Armenian name in base64url", "tab-1L_VodaA1avVttWl", person(name="Կարինե Նահապետյան")),
    own("a Bengali name in base64url", "tab-4Kaq4KeN4Kaw4Ka-4Kau4Ka-4Kao4Ka_4KaV",
        person(name="জয়ন্ত প্রামানিক")),
    own("a name in a placeholder of ours", "[redacted:quillfeather]"),
    own("a short name in base64url", "Wm_DqWxh", person(name="Zoéla Lorena")),
    own("base64 of base64 of a name", "VFVGU1NVRQ", person(name="Maria Polizzi"), "Maria"),
    own("hex of base64 of a name", "51564a55565649-panel", person(name="Artur Syroka"), "Artur"),
    own("base64 of base64 in a label", "tab:U0VWT1ZGTkRTRVZN", person(name="Hentschel")),
    own("hex of the e-mail", MAIL.encode().hex()),
    own("hex in capitals", MAIL.encode().hex().upper()),
    own("hex behind 0x", "0x" + MAIL.encode().hex()),
    own("hex of a short name", "x-" + b"Kq7z".hex(), person(aliases=("Kq7z",))),
    own("hex of the last name, spaced by dots", f"a.{b'quillfeather'.hex()}.b"),
    own("hex byte for byte", b"Puigvert".hex(":"), person(name="Nuria Puigvert"), "Puigvert"),
    own("hex of a short name byte for byte", f"tab.{b'Puig'.hex('-')}", person(name="Nuria Puig"),
        "Puig"),
    own("base64 of UTF-16 beyond ASCII", "TQDhAGkAcgBlAA", person(name="Máire Quillan"), "Máire"),
    own("base64 of UTF-16 beyond Latin 1", "tab:QQF1AGsAYQBzAHoA",
        person(name="Łukasz Quillan"), "Łukasz"),
    own("base64 of an ObjectId's bytes", "tab:ZfDA_-5l8MD_7mXx", person(HEX_24),
        "ZfDA_-5l8MD_7mXx"),
    own("base64 of a UUID's bytes", "Wz-cHnpCTYaeEMLUf4prNQ", BY_UUID, "Wz-cHnpCTYaeEMLUf4prNQ"),
    own("base64 of hex", b64url(MAIL.encode().hex())),
    own("hex of base64", b64(MAIL).encode().hex()),
    own("percent-encoding", percent(MAIL)),
    own("percent-encoding twice", percent(percent(MAIL))),
    own("percent-encoding of one letter", "q%75illfeather"),
    own("percent-encoding of percent signs", "q%2575illfeather"),
    own("HTML entities, named", MAIL.replace("@", "&commat;").replace(".", "&period;")),
    own("HTML entities, decimal", entities("quillfeather", "&#{};")),
    own("HTML entities, hex", entities("quillfeather", "&#x{:x};")),
    own("HTML entities twice", html.escape(entities("quillfeather", "&#{};"))),
    own("JSON in a string", json.dumps({"by": "quillfeather"})),
    own("JSON in JSON in a string", json.dumps({"a": json.dumps({"by": "quillfeather"})})),
    own("JSON in a string with escapes", '{"by":"quill\\u0066eather"}'),
    own("a bare escape", "quill\\u0066eather"),
    own("a JSON array in a string", json.dumps(["quillfeather"])),
    own("a JSON key in a string", json.dumps({"quillfeather": 1})),
    own("a numeric id in JSON in a string", '{"u":4815162342}', NUMBERED),
    own("full-width letters", wide("quillfeather")),
    own("full-width letters in a label", "tab-" + wide("quillfeather")),
    own("mathematical letters", "x𝓆𝓊𝒾𝓁𝓁𝒻ℯ𝒶𝓉𝒽ℯ𝓇"[1:]),
    own("circled letters", "ⓠⓤⓘⓛⓛⓕⓔⓐⓣⓗⓔⓡ"),
    own("ligatures", "quill\ufb00eather"[:5] + "feather"),
    own("zero-width spaces", sprinkled("quillfeather", "\u200b")),
    own("zero-width joiners", sprinkled("quillfeather", "\u200d")),
    own("soft hyphens", sprinkled("quillfeather", "\u00ad")),
    own("word joiners", sprinkled("quillfeather", "\u2060")),
    own("bidi controls", "\u202equill\u202cfeather\u2066"),
    own("variation selectors", sprinkled("quillfeather", "\ufe0f")),
    own("combining marks", sprinkled("quillfeather", "\u0301")),
    own("control characters", sprinkled("quillfeather", "\x01")),
    own("an unpaired surrogate", "quillfeather\ud800"),
    own("mixed case", "qUiLlFeAtHeR"),
    own("mixed encodings in one string", "q%75ill&#102;e\u200bather"),
    own("entities in base64", b64url(entities("quillfeather", "&#{};"))),
    own("percent-encoding in JSON", json.dumps({"a": percent("quillfeather")})),
    own("full-width digits of a numeric id", wide("4815162342"), NUMBERED),
    own("Arabic digits of a numeric id", "٤٨١٥١٦٢٣٤٢", NUMBERED, "4815162342"),
    *[
        own(f"{name} of the e-mail in {form}", write(digest(name)), QUILL, write(digest(name)))
        for name, form, write in (
            ("md5", "hex", bytes.hex),
            ("sha1", "hex", bytes.hex),
            ("sha256", "hex", bytes.hex),
            ("sha512", "hex", bytes.hex),
            ("md5", "base64url", b64url),
            ("sha1", "base64url", b64url),
            ("sha256", "base64url", b64url),
            ("sha512", "base64url", b64url),
        )
    ],
    own("sha256 in base64 with padding", base64.b64encode(digest("sha256")).decode(), QUILL,
        base64.b64encode(digest("sha256")).decode()),
    own("16 digits of a hash", digest("sha1").hex()[:16], QUILL, digest("sha1").hex()[:16]),
    own("a hash behind a prefix", f"gravatar:{digest('md5').hex()}", QUILL, digest("md5").hex()),
    own("a hash in capitals", digest("md5").hex().upper(), QUILL, digest("md5").hex()),
]  # fmt: skip

SHAPES = [
    shape("a stranger's e-mail", "stranger@elsewhere.example"),
    shape("an e-mail in a list of labels", "a,stranger@elsewhere.example,b"),
    shape("an e-mail with an umlaut's domain", "stranger@xn--bcher-kva.example"),
    shape("a URL", "https://elsewhere.example/stranger"),
    shape("a URL of another scheme", "ftp://elsewhere.example/stranger"),
    shape("a URL with a token", "https://elsewhere.example/?token=abcdefgh"),
    shape("a UUID", UUID_4),
    shape("a UUID of version 7", UUID_7),
    shape("a UUID in capitals", UUID_4.upper()),
    shape("a UUID in a label", f"app:{UUID_4}"),
    shape("an ObjectId", HEX_24),
    shape("an ObjectId in a label", f"app-{HEX_24}"),
    shape("a ULID", ULID),
    shape("a KSUID", KSUID),
    shape("a JWT", JWT),
    shape("a JWT in a text", f"Bearer {JWT}"),
    shape("an IPv4 address", "203.0.113.77"),
    shape("an IPv4 address with its port", "203.0.113.77:4711"),
    shape("an IPv6 address", "2001:db8:85a3::8a2e:370:7334"),
    shape("an IPv6 address behind a name and a colon", "ip6:2001:db8:85a3::8a2e:370:7334"),
    shape("a whole IPv6 address behind a name", "client:2001:db8:1:2:3:4:5:6"),
    shape("a MAC address", "00:1b:44:11:3a:b7"),
    shape("a MAC address with dashes", "00-1B-44-11-3A-B7"),
    shape("a phone number", "+4915112345678"),
    shape("a phone number with spaces", "+49 151 12345678"),
    shape("a phone number in groups", "415-555-2671"),
    shape("a phone number with brackets", "(0151) 12345678"),
    shape("a phone number in two groups", "0151-12345678"),
    shape("a card", CARD),
    shape("a card with spaces", "4111 1111 1111 1111"),
    shape("a card with dashes", "4111-1111-1111-1111"),
    shape("a card in a label", f"card:{CARD}"),
    shape("a card as a form sends it", "4111+1111+1111+1111"),
    shape("a card with slashes", "4111/1111/1111/1111"),
    shape("a card with colons", "pan:4111:1111:1111:1111"),
    shape("an address in a cloud host's name", "ec2-203-0-113-77.compute-1"),
    Leak("a card as a number", {"theme": int(CARD)}, (CARD,)),
    Leak("a card as a whole float", {"theme": float(CARD)}, (CARD,)),
    Leak("a card as a number in a list", {"theme": [1, int(CARD)]}, (CARD,)),
    shape("an Amex card", "378282246310005"),
    shape("an IBAN", IBAN),
    shape("an IBAN with spaces", "DE89 3704 0044 0532 0130 00"),
    shape("hex of 16", "9f86d081884c7d65"),
    shape("a git hash", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"),
    shape("an opaque token", "Zx9Kq2Lm7Rt4Vb8Nc3Pw"),
    shape("an opaque token of small letters and digits", "zx9kq2lm7rt4vb8nc3pw"),
    shape("an opaque token in a label", "state:Zx9Kq2Lm7Rt4Vb8Nc3Pw"),
    shape("a stranger's md5 in base64, broken by its slashes", "tg9/e5X3Wd/mwXO/VxgDhA"),
    shape("a stranger's sha1 in base64, broken by its signs", "9n+Uy3/ZJdXJb+vUa7/Cz2l5hSo"),
    shape("a stranger's sha256 in base64", "D9jnXCOG7ZX/6/x/J6J5twwtvA0V+gkJ32Io2rMfMNU"),
    shape("a stranger's fingerprint", "SHA256:D9jnXCOG7ZX/6/x/J6J5twwtvA0V+gkJ32Io2rMfMNU"),
    shape("a digest in base64url without a digit", "DrmhzeTEPcvKfN_eBj-nAxQhYs"),
    shape("a digest in base64url without a digit among letters", "ZSZYOugljrs-NSwWCYss_XcvKfB"),
    shape("a short random id", "ZSZ3OugljrsNSwWCYss-_"),
    shape("an AWS secret", "Gz5kh3xw5a56XUaz4bI/BC6vndrhV9Ossg4Afh2/"),
    shape("a key sk-", "sk-proj-abcdefghijklmnopqrstuvwx"),
    shape("a key ghp_", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    shape("a key xoxb-", "xoxb-123456789012-abcdefghijkl"),
    shape("a key AKIA", "AKIAIOSFODNN7EXAMPLE"),
    shape("a key of LinkedIn's, in parts", "WPL_AP1.Je1l5kHK3mbQyI2H.8gXwD0WU"),
    shape("a key of 1Password's, in parts", "A3-ICBJUK-N4FHSPG1HBD-TBL41-4LLEO-PEAGZ"),
    shape("a key glpat- that its own signs break", "glpat-LWywhfP-MW3NSVmtGbSa"),
    shape("a key dckr_pat_ with few digits", "dckr_pat_Tf0baNaMYmbdzw_Isz0psundmjv"),
    shape("a key GOCSPX-", "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"),
    shape("a key sq0atp-", "sq0atp-Vh3nQb_tXwPz-kLmR7sYcF"),
    shape("a key SK", "SK" + HEX_24 + "65f0c0ff"),
    shape("a key phx_", "phx_abcdefghijklmnopqrstuvwxyz012345"),
    shape("a PEM key", PEM),
    shape("a home directory", "/home/thistledown/project"),
    shape("a Mac's home directory", "/Users/thistledown/project"),
    shape("a home directory in a label", "file:/Users/thistledown/project"),
    shape("a Windows home directory", "C:\\Users\\thistledown\\project"),
    shape("a stranger's name in free text", "written by Barnaby Thistledown"),
    shape("free text", "the stranger said hello"),
    shape("a word in another alphabet", "Приходько"),
    shape("a label longer than 64", "thistledown-" * 6),
    shape("an e-mail as a version", "stranger@elsewhere.example", "app_version"),
    shape("an e-mail as a declared label", "stranger@elsewhere.example", "source",
          "chat initiated"),
    shape("a UUID as a declared label", UUID_4, "publish_status", "sidebar clicked"),
    shape("a stranger's e-mail in base64", b64url("stranger@elsewhere.example")),
    shape("a stranger's e-mail in hex", b"stranger@elsewhere.example".hex()),
    shape("a stranger's e-mail percent-encoded", "stranger%40elsewhere.example"),
    shape("an IPv4 address in JSON", '{"a":"203.0.113.77"}'),
    shape("an IPv4 address in base64", b64url("203.0.113.77")),
]  # fmt: skip

NAMED_BY_THE_EVENT = [
    Leak("an app's name as a slug", {"app_name": "Thistle Payroll", "theme": "thistle-payroll"},
         ("Thistle Payroll",), event="chat initiated"),
    Leak("an app's name joined", {"app_name": "Thistle Payroll", "theme": "ThistlePayroll"},
         ("Thistle Payroll",), event="chat initiated"),
    Leak("an app's name joined by underscores",
         {"app_name": "Thistle Payroll", "theme": "x_thistle_payroll"}, ("Thistle Payroll",),
         event="chat initiated"),
    Leak("an app's name joined by dots",
         {"app_name": "Thistle Payroll", "theme": "thistle.payroll"}, ("Thistle Payroll",),
         event="chat initiated"),
    Leak("an app's name as a key", {"app_name": "Thistledown", "counts": {"thistledown": 1}},
         (WORD,), event="chat initiated"),
    Leak("an app's name in an undeclared spelling", {"appName": "Thistledown", "theme": WORD},
         (WORD,)),
    Leak("an app's name that stands after the label", {"theme": WORD, "app_name": "Thistledown"},
         (WORD,), event="chat initiated"),
    Leak("an agent's id as a label", {"agent_id": "brambles-9", "theme": "brambles-9"},
         ("brambles-9",), event="app agent finished"),
    Leak("an agent's name", {"agent_names": ["Thistledown", "x"], "theme": "by-thistledown"},
         (WORD,), event="agents approved"),
    Leak("an agent in an object", {"agents": {"agent_name": "Thistledown"}, "theme": WORD},
         (WORD,), event="agents approved"),
    Leak("an agent in a list of objects", {"agents": [{"name": "Thistledown"}], "theme": WORD},
         (WORD,), event="agents approved"),
    Leak("an Ident deep in an object", {"context": {"app_name": "Thistledown"}, "theme": WORD},
         (WORD,)),
    Leak("an app's name in a route's shape",
         {"app_name": "Thistle Payroll", "route_shape": "/team/thistle-payroll"},
         ("Thistle Payroll",), event="chat initiated"),
    Leak("a workspace's role as a label", {"workspace_role": WORD, "theme": WORD}, (WORD,),
         event="onboarding finished"),
    Leak("a tool call's id", {"tool_call_id": "call_brambles", "theme": "call_brambles"},
         ("call_brambles",)),
    Leak("an integration's domain", {"integration_domains": ["thistledown.example"],
                                     "theme": "thistledown.example"}, (WORD,),
         event="integration setup started"),
]  # fmt: skip


def route(name: str, path: str, *secrets: str, user: AnalyticsUser = QUILL) -> Leak:
    return Leak(name, {"route_shape": path}, secrets, user)


ROUTES = [
    route("escapes of full-width letters in a route",
          "/team/" + "".join(f"\\u{ord(letter):04x}" for letter in wide("quillfeather")),
          "uff51/uff55/uff49/uff4c"),
    route("a raw workspace in a route", "/w/ws_tarnholme_83/settings"),
    route("a raw app's id in a route", f"/w/:workspace/apps/{HEX_24}", HEX_24),
    route("a raw UUID in a route", f"/apps/{UUID_4}", UUID_4),
    route("a UUID in capitals in a route", f"/apps/{UUID_4.upper()}", UUID_4),
    route("an app's slug under /w/", f"/w/:workspace/{WORD}", WORD),
    route("an agent's slug", f"/w/:workspace/agents/{WORD}", WORD),
    route("an integration's segment", f"/w/:workspace/settings/integrations/{WORD}", WORD),
    route("a ULID in a route", f"/apps/{ULID}", ULID),
    route("a KSUID in a route", f"/apps/{KSUID}", KSUID),
    route("a number in a route", "/orders/4815162342", "4815162342"),
    route("an e-mail in a route", "/people/stranger@elsewhere.example",
          "stranger@elsewhere.example"),
    route("a percent-encoded e-mail in a route", "/people/stranger%40elsewhere.example",
          "stranger@elsewhere.example"),
    route("an e-mail percent-encoded twice in a route", "/people/stranger%2540elsewhere.example",
          "stranger@elsewhere.example"),
    route("a query in a route", f"/settings?user={WORD}", WORD),
    route("a fragment in a route", f"/settings#{WORD}", WORD),
    route("a percent-encoded query in a route", f"/settings%3Fuser%3D{WORD}", WORD),
    route("a whole URL as a route", f"https://{WORD}.example/w/{WORD}", WORD),
    route("a matrix parameter in a route", f"/w/:workspace;jsessionid={WORD}/settings", WORD),
    route("doubled slashes in a route", f"//w//{WORD}", WORD),
    route("a dotted route", f"/w/x/../{WORD}", WORD),
    route("the user's name in a route", "/team/quillfeather"),
    route("the user's name in a route, encoded", "/team/q%75illfeather"),
    route("the user's id in a route", f"/team/{ID}"),
    route("a JWT in a route", f"/reset/{JWT}", JWT),
    route("a reset token of letters and a digit in a route", "/reset/thistledown1", "thistledown1"),
    route("an invitation's code in a route", "/invite/aBcdEfgh/accept", "aBcdEfgh"),
    route("an invitation's code behind two words", "/accept_invite/aBcdEfgh", "aBcdEfgh"),
    route("a short code in a route", "/magic/AbC12x", "AbC12x"),
    route("a token in a route", "/reset/Zx9Kq2Lm7Rt4Vb8Nc3Pw", "Zx9Kq2Lm7Rt4Vb8Nc3Pw"),
    route("an IPv4 address in a route", "/hosts/203.0.113.77", "203.0.113.77"),
    route("a hash in a route", f"/avatar/{digest('md5').hex()}", digest("md5").hex()),
    route("a route that is no string", ["/w", WORD + " x"], WORD),  # type: ignore[arg-type]
]  # fmt: skip


def beside(name: str, user: AnalyticsUser = QUILL, *secrets: str, **fields: Any) -> Leak:
    """Something in the event's other fields."""
    return Leak(name, {}, secrets, user, fields=fields)


ENVELOPE = [
    beside("an anonymous id that is the user's id", BY_UUID,
           anonymousDistinctId=f"anon_{UUID_4}"),
    beside("an anonymous id that is the user's id in capitals", BY_UUID,
           anonymousDistinctId=f"anon_{UUID_4.upper()}"),
    beside("an anonymous id that is an alias without hyphens",
           person(aliases=(UUID_4.replace("-", ""),)), anonymousDistinctId=f"anon_{UUID_4}"),
    beside("an anonymous id that is a workspace", person(workspaces={UUID_4: None}),
           anonymousDistinctId=f"anon_{UUID_4}"),
    beside("an anonymous id that holds a numeric id", person("481516234299"),
           anonymousDistinctId="anon_5b3f9c1e-7a42-4d86-9e10-481516234299"),
    beside("an anonymous id that is an e-mail", anonymousDistinctId=MAIL),
    beside("an anonymous id with a tail", anonymousDistinctId=f"anon_{UUID_4}-quillfeather"),
    beside("an anonymous id that is an object", anonymousDistinctId={"id": MAIL}),
    beside("a uuid that is the user's id", BY_UUID, uuid=UUID_4),
    beside("a uuid that is the user's id in capitals", BY_UUID, uuid=UUID_4.upper()),
    beside("a uuid that holds a numeric id", person("481516234299"),
           uuid="5b3f9c1e-7a42-4d86-9e10-481516234299"),
    beside("a uuid that holds an alias", person(aliases=("c2d47f8a6b35",)), uuid=UUID_4),
    beside("a timestamp that is a text", timestamp="quillfeather"),
    beside("a timestamp with a text behind it", timestamp="2026-11-25T10:00:00Z quillfeather"),
    beside("a timestamp that is an object", timestamp={"by": "quillfeather"}),
    beside("a distinct_id beside the event", distinct_id=ID),
    beside("$set beside the event", **{"$set": {"email": MAIL}}),
    beside("options beside the event", options={"by": MAIL}),
    beside("any other field beside the event", person=MAIL),
    Leak("an anonymous id among the properties", {"anonymousDistinctId": MAIL}),
    Leak("anonymized as a text of the user's", {"anonymized": MAIL}),
    Leak("a subject among the properties", {"subject": MAIL}),
]  # fmt: skip

HEADERS = [
    Leak("a user agent", headers={"user_agent": f"Browser of {WORD}"}, secrets=(WORD,)),
    Leak("a referer", headers={"referer": f"https://app.example/w/{WORD}"}, secrets=(WORD,)),
    Leak("a cookie", headers={"cookie": f"session={WORD}"}, secrets=(WORD,)),
    Leak("an address handed on by a proxy", headers={"x_forwarded_for": "203.0.113.77"},
         secrets=("203.0.113.77",)),
    Leak("an address in Forwarded", headers={"forwarded": "for=203.0.113.77"},
         secrets=("203.0.113.77",)),
    Leak("an authorization", headers={"authorization": f"Bearer {WORD}"}, secrets=(WORD,)),
    Leak("a request's id", headers={"x_request_id": UUID_4}, secrets=(UUID_4,)),
    Leak("a language", headers={"accept_language": f"x-{WORD}"}, secrets=(WORD,)),
]  # fmt: skip

LEAKS = [
    *KEYS, *DATA_AS_KEYS, *IDENTITY, *ENCODED, *SHAPES, *NAMED_BY_THE_EVENT, *ROUTES, *ENVELOPE,
    *HEADERS,
]  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.name)
def test_nothing_of_it_leaves(leak: Leak) -> None:
    properties = {**leak.properties, "steps_done": 3}
    done = sent(leak.user, properties, event=leak.event, fields=leak.fields, headers=leak.headers)
    assert found(done.posted, leak.all_secrets), "the case hides nothing that the reader can see"
    assert (done.status, len(done.payloads)) == (204, 1), "the gate had to hold it back"
    assert found(done.everything, leak.all_secrets) == []
    assert done.properties["steps_done"] == 3
    assert done.payloads[0].distinct_id.startswith("anon_")


def test_every_leak_has_a_name_of_its_own() -> None:
    names = [leak.name for leak in LEAKS]
    assert len(set(names)) == len(names) >= 150


# The same leaks by other doors


@pytest.fixture(scope="module")
def analytics() -> Iterator[Analytics]:
    analytics = analytics_of()
    yield analytics
    analytics.close(timeout=1.0)


@pytest.mark.parametrize(
    "leak", [*KEYS, *DATA_AS_KEYS, *IDENTITY, *ENCODED, *SHAPES, *NAMED_BY_THE_EVENT, *ROUTES],
    ids=lambda leak: leak.name,
)  # fmt: skip
def test_nothing_of_it_leaves_by_server_code(leak: Leak, analytics: Analytics) -> None:
    captured = analytics.capture(leak.user, leak.event, {**leak.properties, "steps_done": 3})
    assert captured, captured.code
    (payload,) = taken(analytics)
    assert found(payload.properties, leak.all_secrets) == []
    assert b'"steps_done":3' in payload.properties


class Word(str):
    """A str of the host's own kind."""


class Names(str, enum.Enum):
    """An enumeration of texts."""

    LAST = "quillfeather"


PYTHON: dict[str, tuple[Any, AnalyticsUser]] = {
    "a UUID": (uuid.UUID(UUID_4), BY_UUID),
    "bytes": (b"quillfeather", QUILL),
    "a bytearray": (bytearray(b"quillfeather"), QUILL),
    "a Decimal": (decimal.Decimal("4815162342"), NUMBERED),
    "a Fraction": (fractions.Fraction(4815162342, 7), NUMBERED),
    "a path": (pathlib.PurePosixPath("/srv/quillfeather"), QUILL),
    "an enumeration": (Names.LAST, QUILL),
    "a str of another class": (Word("quillfeather"), QUILL),
    "a str of another class as a key": ({Word("quillfeather"): 1}, QUILL),
    "bytes as a key": ({b"quillfeather": 1}, QUILL),
    "a number as a property": ({4815162342: 1}, NUMBERED),
    "a number as a key": ({4815162342: 1}, NUMBERED),
    "a tuple as a key": ({("quillfeather",): 1}, QUILL),
    "a set": ({"quillfeather"}, QUILL),
    "a frozen set": (frozenset({"quillfeather"}), QUILL),
    "a tuple": (("quillfeather", 1), QUILL),
    "a dataclass": (Leak("quillfeather"), QUILL),
    "an exception": (ValueError("quillfeather"), QUILL),
    "a user": (QUILL, QUILL),
    "an int of another class": (enum.IntEnum("Ids", {"ONE": 4815162342}).ONE, NUMBERED),  # type: ignore[attr-defined]
}  # fmt: skip


@pytest.mark.parametrize("name", PYTHON)
def test_no_python_value_of_server_code_carries_it_out(name: str, analytics: Analytics) -> None:
    value, user = PYTHON[name]
    assert analytics.capture(user, "page viewed", {"theme": value, "x": [value], "n": 3})
    (payload,) = taken(analytics)
    assert found(payload.properties, secrets_of(user)) == []
    assert b'"n":3' in payload.properties


@pytest.mark.parametrize("key", [4815162342, None, True, b"quillfeather", ("quillfeather",)])
@pytest.mark.parametrize("mode", [None, False], ids=["anonymized", "identified"])
def test_a_property_whose_key_is_no_text_goes_alone(
    key: Any, mode: bool | None, analytics: Analytics
) -> None:
    user = replace(QUILL, anonymized=mode)
    assert analytics.capture(user, "page viewed", {key: WORD, "n": 3})
    left = taken(analytics)[-1].properties
    assert b'"n":3' in left
    assert found(left, [WORD]) == []


def test_receipts_logs_and_headers_say_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    receipts: list[Any] = []
    caplog.set_level(logging.DEBUG)
    analytics = analytics_of(on_receipt=receipts.append, debug=True)
    try:
        for leak in LEAKS:
            reply = ask(analytics, leak)
            assert reply.status == 204
            said = [
                *map(str, msgspec.to_builtins(receipts)),
                *reply.headers.values(),
                *(logged(record) for record in caplog.records),
            ]
            assert said
            assert found("\n".join(said), leak.all_secrets) == [], leak.name
            receipts.clear()
            caplog.clear()
            taken(analytics)
    finally:
        analytics.close(timeout=1.0)


@pytest.mark.parametrize(
    "key", ["quillfeather", "by_zephyrine", "ws_tarnholme_83", "usr-7Gk2Pw93Zt5q", "moonwright77"]
)
def test_no_warning_names_a_key_that_holds_identity(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "second_mw")
    for _ in range(3):
        assert sent(QUILL, {key: "some free text", "plan_note": "more of it"}).status == 204
    assert "plan_note" in caplog.text
    assert key not in caplog.text


def logged(record: logging.LogRecord) -> str:
    """A record as it is written, its traceback too."""
    return logging.Formatter("%(message)s").format(record)


def ask(analytics: Analytics, leak: Leak) -> Reply:
    body = {"event": leak.event, "properties": leak.properties, **leak.fields}
    return Wsgi(analytics, lambda _: leak.user)(
        "POST", CAPTURE, json.dumps(body).encode(), content_type="application/json", **leak.headers
    )


def taken(analytics: Analytics) -> list[Payload]:
    store = analytics.outbox.store
    assert isinstance(store, Kept)
    payloads = list(store.payloads)
    store.payloads.clear()
    return payloads


# To be known is no consent to leak a secret

PASSWORD = "correcthorsebattery"
RESET = "Zx9Kq2Lm7Rt4Vb8Nc3PwYd6F"

#: What identified mode keeps back, too: property → secret.
SECRETS: dict[str, tuple[dict[str, Any], str]] = {
    "a JWT": ({"theme": JWT}, JWT),
    "a JWT in a text": ({"message": f"my token is {JWT}, keep it"}, JWT),
    "a PEM key": ({"message": PEM}, "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"),
    "a key sk-": ({"message": "use sk-proj-abcdefghijklmnopqrstuvwx"}, "abcdefghijklmnopqrstuvwx"),
    "a key ghp_": ({"theme": "ghp_16C7e42F292c6912E7710c838347Ae178B4a"}, "16C7e42F292c6912E7710c"),
    "a key xoxb-": ({"theme": "xoxb-123456789012-abcdefghijkl"}, "abcdefghijkl"),
    "a key AKIA": ({"theme": "AKIAIOSFODNN7EXAMPLE"}, "AKIAIOSFODNN7EXAMPLE"),
    "a key phx_": ({"theme": "phx_abcdefghijklmnopqrstuvwxyz012345"}, "abcdefghijklmnopqrstuvwxyz"),
    "a key NRAK-": ({"message": "NRAK-7GX2P0QKZ41VNB8D5MWJ3RT6YH9"}, "7GX2P0QKZ41VNB8D5MWJ3RT6YH9"),
    "a key NRII- in prose": ({"message": "NRII-kTbhAfdyxdRwR-zHXrzdEfqAXRwQpLmT"}, "kTbhAfdyxdRwR"),
    "a key SK of Twilio's": ({"message": f"SK{HEX_24}65f0c0ff"}, HEX_24),
    "a key of Modal's in prose": (
        {"message": "as as-Ol1SwGqDXPwYJHijMzgqwB says"},
        "Ol1SwGqDXPwYJ",
    ),
    "a key of Fireworks'": ({"message": "use fw_iwHrmSNqMmhyTFcVtXfsXA7b now"}, "iwHrmSNqMmhyTF"),
    "a key of Resend's": ({"message": "re_cTtpEyDw_NKFusihLvKVQknRAQfmFcWCv"}, "NKFusihLvKVQkn"),
    "a key of 1Password's": (
        {"message": "keep A3-ASWWYB-K9RYLJVDRD4-TBL7T-PLL6O-PEAGZ well"},
        "K9RYLJVDRD4",
    ),
    "what a payment is confirmed with": (
        {"message": "pi_MtwBwLkdIwHuixZaYrKJUKri_secret_YrKJUKribcBjcGVHVfZ"},
        "YrKJUKribcBjcGVHVfZ",
    ),
    "a secret that says so by the book": (
        {"message": "at secret-token:wTkhA-fdyxd/SwRhzHXrzdEf it is"},
        "SwRhzHXrzdEf",
    ),
    "npm's setting": (
        {"message": f"//registry.npmjs.example/:_authToken={UUID_4}"},
        UUID_4,
    ),
    "a key of Telegram's bots": (
        {"message": "508834076:AAC2kBXAFQRtZzUxJuBz9ExY2s2lXAgOQ6Dvq fails"},
        "C2kBXAFQRtZzUxJuBz9ExY2",
    ),
    "a key of Entra's": (
        {"message": "wants KFa9Q~tCqIzanYHEKnLgGvEr~rTbsASNKgOvi_x to be kept"},
        "tCqIzanYHEKnLgGvEr",
    ),
    "a key of Bedrock's": ({"message": f"ABSK{b64(RESET * 4)}"}, b64(RESET * 4)[8:40]),
    "the checksum of a key of GitLab's": (
        {"message": "glpat-LWywhfPMWqNSVmtGbSaxwTkhAfdy.01.qvwhd5h7v it was"},
        "qvwhd5h7v",
    ),
    "a password of a driver's address": (
        {"message": f"jdbc:sqlserver://db:1433;user=sa;password={PASSWORD};x=1"},
        PASSWORD,
    ),
    "a key of Azure's": ({"message": f"AccountKey={'Zx9Kq2Lm7Rt4Vb8Nc3Pw' * 3}=="}, "Zx9Kq2Lm7Rt4"),
    "a key glpat- in prose": ({"message": "use glpat-LWywhfP-MW3NSVmtGbSa now"}, "LWywhfP-MW3NS"),
    "a key GOCSPX- in prose": (
        {"message": "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"},
        "wTkhAfdyxd-SwR",
    ),
    "a name and password of an Authorization header": (
        {"message": "sent Authorization: Basic dGhpc3RsZTpjb3JyZWN0aG9yc2ViYXR0ZXJ5 to it"},
        PASSWORD,
    ),
    "a short name and password of such a header": (
        {"message": "sent Authorization: Basic cXVpbGw6aHVudA to it"},
        "cXVpbGw6aHVudA",
    ),
    "a key glrt- in prose": ({"message": "use glrt-LWywhfP-MW3NSVmtGbSa now"}, "LWywhfP-MW3NS"),
    "a key AIza in prose": (
        {"message": "use AIzaSyDkLmW-xYzAbCdEfGh-IjKlMnOpQr_StUv now"},
        "SyDkLmW-xYzAbCdEfGh",
    ),
    "a key sb_secret_ in prose": (
        {"message": "use sb_secret_wTkhAfdyxd-SwRhzHXrzdEf_AXRwQpLm now"},
        "wTkhAfdyxd-SwR",
    ),
    "an encrypted token without a key of its own": (
        {"message": f"my cookie is {JWE}, keep it"},
        "zX9kQ2lM7rT4vB8nC3pW",
    ),
    "a password with a question mark": (
        {"message": f"at postgres://app:{PASSWORD}?x@db.example/x"},
        PASSWORD,
    ),
    "a password with a #": ({"message": f"at https://u:{PASSWORD}#x@app.example/"}, PASSWORD),
    "a key of AI Studio's": (
        {"message": "use AQ.Ab8RN6KzX9kQ2lM7rT4vB8nC3pWyD6"},
        "Ab8RN6KzX9kQ2lM7rT4vB8nC3pWyD6",
    ),
    "a fragment in prose": ({"message": f"at x.example#access_token={PASSWORD}"}, PASSWORD),
    "a card": ({"message": f"card {CARD}"}, CARD),
    "a card with spaces": ({"message": "4111 1111 1111 1111"}, CARD),
    "a card as a number": ({"theme": int(CARD)}, CARD),
    "an IBAN": ({"message": f"to {IBAN}."}, IBAN),
    "a password": ({"password": PASSWORD}, PASSWORD),
    "an old password": ({"old_password": PASSWORD}, PASSWORD),
    "a client's secret": ({"clientSecret": PASSWORD}, PASSWORD),
    "a nested password": ({"form": {"fields": [{"userPassword": PASSWORD}]}}, PASSWORD),
    "an API key": ({"apiKey": PASSWORD}, PASSWORD),
    "an authorization": ({"Authorization": f"Bearer {PASSWORD}"}, PASSWORD),
    "a cookie": ({"cookie": {"session": PASSWORD}}, PASSWORD),
    "a private key": ({"private_key": PASSWORD}, PASSWORD),
    "an access token": ({"accessToken": PASSWORD}, PASSWORD),
    "a refresh token": ({"form": {"refresh_token": PASSWORD}}, PASSWORD),
    "a pwd": ({"pwd": PASSWORD}, PASSWORD),
    "a header's API key": ({"X-API-Key": PASSWORD}, PASSWORD),
    "a header's cookies": ({"set-cookie": PASSWORD}, PASSWORD),
    "a URL's password": ({"message": f"https://u:{PASSWORD}@app.example/"}, PASSWORD),
    "a URL's query": ({"message": f"see https://app.example/?code={PASSWORD}"}, PASSWORD),
    "a URL's fragment": ({"message": f"https://app.example/#access={PASSWORD}"}, PASSWORD),
    "a reset link": ({"message": f"https://app.example/reset/{RESET}"}, RESET),
    "a page's query": ({"page_url": f"https://app.example/w/1?token={PASSWORD}"}, PASSWORD),
    "a page's reset link": ({"page_url": f"https://app.example/reset/{RESET}"}, RESET),
    "a page's JWT": ({"page_url": f"https://app.example/reset/{JWT}"}, JWT),
    "a path's reset link": ({"pathname": f"/reset/{RESET}"}, RESET),
    "a referrer's query": ({"referrer": f"https://app.example/?next={PASSWORD}"}, PASSWORD),
    "a referrer's password": ({"referrer": f"https://u:{PASSWORD}@app.example/"}, PASSWORD),
    "a token in JSON in a string": ({"message": json.dumps({"t": JWT})}, JWT),
    "a query behind escaped slashes": (
        {"message": f'{{"u":"https:\\/\\/x.example\\/?t={PASSWORD}"}}'},
        PASSWORD,
    ),
    "a query of a local host": ({"message": f"at localhost:3000/?code={PASSWORD}"}, PASSWORD),
    "a query of an address": ({"message": f"at 127.0.0.1:80/?x={PASSWORD}"}, PASSWORD),
    "a query of a host of one word": ({"message": f"intranet/?x={PASSWORD}"}, PASSWORD),
    "a URL that is percent-encoded": (
        {"message": f"to https%3A%2F%2Fx.example%2F%3Fx%3D{PASSWORD}"},
        PASSWORD,
    ),
    "a code behind two words of a path": (
        {"page_url": "https://app.example/accept-invite/AbC123xyz9"},
        "AbC123xyz9",
    ),
    "a short code of a path": ({"page_url": "https://app.example/verify/481623"}, "481623"),
    "a $-key": ({"$set": {"theme": PASSWORD}}, PASSWORD),
    "a deeper $-key": ({"context": {"$groups": {"theme": PASSWORD}}}, PASSWORD),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_leaves_in_neither_mode(name: str) -> None:
    properties, secret = SECRETS[name]
    for user in (QUILL, replace(QUILL, anonymized=False)):
        done = sent(user, properties, event="chat initiated")
        assert done.status == 204
        assert found(done.posted, [secret])
        assert found(done.everything, [secret]) == []
    assert done.payloads[-1].distinct_id == QUILL.id


def test_an_identified_event_keeps_what_its_user_agreed_to() -> None:
    posted = {
        "message": "build me a shop, says Zephyrine", "app_name": "Thistle Payroll",
        "theme": "quillfeather", "agent_id": "brambles-9",
        "page_url": "https://app.example/w/1?utm_source=mail&x=1#top",
    }  # fmt: skip
    done = sent(replace(QUILL, anonymized=False), posted, event="chat initiated")
    left = done.properties
    assert {key: left[key] for key in list(posted)[:4]} == dict(list(posted.items())[:4])
    assert left["$current_url"] == "https://app.example/w/1?utm_source=mail"
