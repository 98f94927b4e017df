"""What must never leave in either mode, wherever it stands in a text: JSON web tokens, PEM keys,
keys that a known prefix gives away, card numbers and IBANs.

`redact_secrets` cuts them out, `first_secret` names the first, `card_of_number` judges a JSON
number. What identifies a person without being a secret is in shapes.py; which keys name a secret
is in names.py. Everything here takes any string, raises nothing and takes time in proportion to
the length: each search begins at a boundary or at a rare literal and never goes over a run twice.
"""

from __future__ import annotations

import binascii
import re
import string
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final, Literal, NamedTuple

import msgspec

SecretKind = Literal["jwt", "secret", "iban", "card"]


class Span(NamedTuple):
    """Where a secret stands: `text[start:end]`."""

    start: int
    end: int


#: A short label that can hold nothing of this module or of shapes.py: words of at most 15 letters
#: joined by one `_`, `-` or `.`, three digits at the end, a version and a date after it. Kept so
#: narrow that no shape fits in; a test compares its answer with the full scan's.
PLAIN: Final = re.compile(
    r"(?:[A-Za-z]{1,15}[_.-]){0,7}(?:[A-Za-z]{1,15}(?![A-Za-z0-9])|[A-Za-z]{1,12}\d{1,3})"
    r"(?:[-.]\d){0,2}(?:-20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))?",
    re.ASCII,
)
#: The longest text that `PLAIN` is asked about: shorter than a UUID.
PLAIN_LENGTH: Final = 32
#: The shortest digest, and what stands in one but not in words of camel case: a capital too early
#: or too late.
_DIGEST: Final = 20
_NO_WORDS: Final = re.compile(
    r"[a-z][A-Z](?![a-z]{2})|[A-Z]{2}[a-z](?![a-z])|(?<![A-Za-z])(?:[a-z][A-Z]|[A-Z]{2}[a-z])"
)


def is_plain(text: str) -> bool:
    """Whether a text is a short label in which there is nothing to look for.

    >>> is_plain("workspace_home"), is_plain("aa-bb-cc-dd-ee-ff"), is_plain("www.example")
    (True, False, False)
    """
    return (
        len(text) <= PLAIN_LENGTH
        and PLAIN.fullmatch(text) is not None
        # A MAC address may be letters only, and a host's name begin with www.
        and text.count("-") < 5
        and "ww" not in text.lower()
        # So may a digest in base64 be.
        and (len(text) < _DIGEST or text.islower() or not _NO_WORDS.search(text))
    )


#: The shortest text that can hold a secret: `phx_` and eight characters.
_SHORTEST_SECRET: Final = 12
#: The shortest word that can be, or can hold, an id, a key or a MAC address.
_LONG_WORD: Final = 11

# JSON web tokens

# The shortest header, {"alg":"none"}, has 19 characters.
# What is encrypted for a shared key has nothing between its first two dots.
_JWT_HEAD: Final = re.compile(r"(?<![\w-])[\w-]{16,}(?=\.\.?[\w-])", re.ASCII)
_JWT_REST: Final = re.compile(r"(?:\.[\w-]*){1,4}", re.ASCII)
# The base64 of `{"`, `{ ` and `{` with a line break or a tab: how a JSON object can begin.
_JWT_BEGINNING: Final = re.compile(r"e(?:yJ|yA|wo|w0|wk)")
#: A header that is longer holds whole certificates; it is found by its beginning all the same.
_JWT_BEGINNINGS_TRIED: Final = 6


def _jwts(text: str) -> Iterator[Span]:
    end = 0
    for head in _JWT_HEAD.finditer(text):
        if head.start() < end:
            continue
        for tried, beginning in enumerate(_JWT_BEGINNING.finditer(head[0])):
            if tried == _JWT_BEGINNINGS_TRIED:
                break
            if _is_json_object(head[0][beginning.start() :]):
                rest = _JWT_REST.match(text, head.end())
                end = rest.end() if rest else head.end()
                yield Span(head.start() + beginning.start(), end)
                break


def _is_json_object(encoded: str) -> bool:
    try:
        raw = binascii.a2b_base64(
            encoded.replace("-", "+").replace("_", "/") + "=" * (-len(encoded) % 4)
        )
        return isinstance(msgspec.json.decode(raw), dict)
    except (ValueError, RecursionError, msgspec.DecodeError):
        return False


# PEM keys

_PEM_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}KEY[A-Z ]{0,20}-----")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,60}-----")


def _pem_keys(text: str) -> Iterator[Span]:
    position = 0
    while begin := _PEM_BEGIN.search(text, position):
        end = _PEM_END.search(text, begin.end())
        # A key that was cut has no end: everything after its beginning may be the key.
        position = end.end() if end else len(text)
        yield Span(begin.start(), position)


# Keys with a known prefix


class _Known(NamedTuple):
    """Prefixes that only secrets have, the characters that may follow, and whose they are."""

    prefixes: str
    tail: str
    whose: str


_WORD: Final = r"[\w-]{8,}"
_ALNUM: Final = r"[A-Za-z0-9]{8,}"
_HEXES: Final = r"[0-9a-f]{32,}"
_UUIDS: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_BASE64: Final = r"[\w+/=-]{8,}"
KNOWN: Final = (
    _Known("sk-", _WORD, "OpenAI, Anthropic, OpenRouter and others"),
    _Known("sk_live_ sk_test_ rk_live_ rk_test_", _ALNUM, "Stripe"),
    _Known("sk_org_live_ sk_org_test_ ek_live_ ek_test_", _ALNUM, "Stripe"),
    _Known("sk_sbox_", r"[a-z0-9]{24,}", "Checkout.com"),
    _Known("pdl_live_apikey_ pdl_sdbx_apikey_", r"\w{24,}", "Paddle"),
    _Known("pi_ seti_ cs_", r"[A-Za-z0-9]{14,}_secret_[A-Za-z0-9]{8,}", "Stripe, of a payment"),
    _Known("whsec_", _BASE64, "Stripe and Svix, webhooks"),
    _Known("ghp_ gho_ ghu_ ghs_ ghr_", _ALNUM, "GitHub"),
    _Known("github_pat_", r"\w{8,}", "GitHub, fine-grained"),
    _Known(
        "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glimt- glagent- gloas- glffct- GR1348941",
        # A newer one says behind dots how long it is, and its checksum.
        r"[\w-]{8,}(?:\.[0-9a-z]{2}\.[0-9a-z]{7,9})?",
        "GitLab",
    ),
    _Known("xoxa- xoxb- xoxc- xoxd- xoxe- xoxo- xoxp- xoxr- xoxs- xapp-", _WORD, "Slack"),
    _Known("AKIA ASIA ABIA ACCA", r"[A-Z0-9]{16}", "AWS"),
    _Known("phx_ phs_ phr_ pha_", _ALNUM, "PostHog; its phc_ is public"),
    _Known("AIza", r"[\w-]{24,}", "Google"),
    _Known("ya29.", _WORD, "Google, OAuth"),
    _Known("GOCSPX-", _WORD, "Google, OAuth clients"),
    _Known("npm_", _ALNUM, "npm"),
    _Known("pypi-", _WORD, "PyPI"),
    _Known("rubygems_", _ALNUM, "RubyGems"),
    _Known("dckr_pat_ dckr_oat_", _WORD, "Docker"),
    _Known("doo_v1_ dop_v1_ dor_v1_", _ALNUM, "DigitalOcean"),
    _Known("shpat_ shpca_ shppa_ shpss_", _ALNUM, "Shopify"),
    _Known("SG.", r"[\w-]{16,}\.[\w-]{16,}", "SendGrid"),
    _Known("hf_ api_org_", _ALNUM, "Hugging Face"),
    _Known("gsk_", _ALNUM, "Groq"),
    _Known("xai-", _WORD, "xAI"),
    _Known("nvapi-", _WORD, "NVIDIA"),
    _Known("pplx-", _ALNUM, "Perplexity"),
    _Known("lin_api_ lin_oauth_ lin_wh_", _ALNUM, "Linear"),
    _Known("ntn_", _ALNUM, "Notion"),
    _Known("sntrys_ sntryu_ sntrya_", _BASE64, "Sentry"),
    _Known("glsa_", r"\w{8,}", "Grafana"),
    _Known("hvs. hvb.", _WORD, "Vault"),
    _Known("dapi", r"[0-9a-f]{32}", "Databricks"),
    _Known("figd_", _WORD, "Figma"),
    _Known("ATATT3 ATCTT3", r"[\w=-]{16,}", "Atlassian"),
    _Known("ATBB", r"[A-Za-z0-9]{24,}", "Bitbucket"),
    _Known("AGE-SECRET-KEY-1", r"[A-Z0-9]{16,}", "age"),
    _Known("1//0", r"[\w-]{24,}", "Google, refresh tokens"),
    _Known("AccountKey= SharedAccessKey=", r"[\w+/=]{24,}", "Azure"),
    _Known("vercel_blob_rw_", _WORD, "Vercel"),
    _Known("nfp_ nfc_ nfo_ nfu_", _ALNUM, "Netlify"),
    _Known("HRKU-", _WORD, "Heroku"),
    _Known("fo1_ fm1_ fm2_", _BASE64, "Fly.io"),
    _Known("sbp_ sb_secret_", _WORD, "Supabase"),
    _Known("pscale_tkn_ pscale_pw_ pscale_oauth_", r"[\w.=-]{8,}", "PlanetScale"),
    _Known("dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.", r"[\w.-]{8,}", "Doppler"),
    _Known("ops_eyJ", _BASE64, "1Password"),
    _Known("tskey-", _WORD, "Tailscale"),
    _Known("pul-", _ALNUM, "Pulumi"),
    _Known("CLOJARS_", _ALNUM, "Clojars"),
    _Known("PMAK-", _WORD, "Postman"),
    _Known("CFPAT-", _WORD, "Contentful"),
    _Known("tfp_", r"[\w.=-]{8,}", "Typeform"),
    _Known("rdme_", _ALNUM, "ReadMe"),
    _Known("pnu_", _ALNUM, "Prefect"),
    _Known("squ_ sqp_ sqa_", _ALNUM, "SonarQube"),
    _Known("sgp_ slk_ sgamp_user_", r"\w{8,}", "Sourcegraph and Amp"),
    _Known("snyk_uat. snyk_sat.", r"[\w.-]{8,}", "Snyk"),
    _Known("NRAK- NRJS- NRII- NRSP-", _WORD, "New Relic"),
    _Known("dt0c01. dt0s01.", r"[\w.-]{8,}", "Dynatrace"),
    _Known("glc_", _BASE64, "Grafana Cloud"),
    _Known("key-", r"[0-9a-f]{32}", "Mailgun"),
    _Known("xkeysib- xsmtpsib-", _WORD, "Brevo"),
    _Known("SK", r"[0-9a-f]{32}", "Twilio"),
    _Known("sq0atp- sq0csp-", _WORD, "Square"),
    _Known("access_token$production$ access_token$sandbox$", r"[\w$]{8,}", "Braintree"),
    _Known("FLWSECK- FLWSECK_TEST-", _WORD, "Flutterwave"),
    _Known("shippo_live_ shippo_test_", _ALNUM, "Shippo"),
    _Known("EZAK EZTK", r"[A-Za-z0-9]{24,}", "EasyPost"),
    _Known("pat-na1- pat-eu1-", _WORD, "HubSpot"),
    _Known("secret_", r"[A-Za-z0-9]{40,}", "Notion, formerly"),
    _Known("sk.eyJ", r"[\w.-]{8,}", "Mapbox"),
    _Known("r8_", r"[A-Za-z0-9]{24,}", "Replicate"),
    _Known("lsv2_pt_ lsv2_sk_", r"\w{8,}", "LangSmith"),
    _Known("tvly-", _WORD, "Tavily"),
    _Known("AQ.", r"[\w-]{24,}", "Google, AI Studio"),
    _Known("sk_", r"[0-9a-f]{48}", "ElevenLabs"),
    _Known("csk-", _ALNUM, "Cerebras"),
    _Known("tgp_v1_", _WORD, "Together"),
    _Known("rpa_", r"[A-Za-z0-9]{24,}", "RunPod"),
    _Known("jina_", r"[\w-]{24,}", "Jina"),
    _Known("wandb_v1_", r"[\w-]{16,}", "Weights & Biases"),
    _Known("pcsk_", _WORD, "Pinecone"),
    _Known("e2b_", r"[A-Za-z0-9]{24,}", "E2B"),
    _Known("bb_live_", _WORD, "Browserbase"),
    _Known("apify_api_", _ALNUM, "Apify"),
    _Known("napi_", r"[A-Za-z0-9]{24,}", "Neon"),
    _Known("rnd_", r"[A-Za-z0-9]{24,}", "Render"),
    _Known("vck_ vcp_ vca_ vci_ vcr_", r"[A-Za-z0-9]{24,}", "Vercel"),
    _Known("CCIPAT_ CCIPRJ_", _WORD, "CircleCI"),
    _Known("bkua_", _ALNUM, "Buildkite"),
    _Known("atlasv1.", r"[\w-]{24,}", "HCP Terraform"),
    _Known("AKCp", r"[A-Za-z0-9]{24,}", "Artifactory"),
    _Known("LTAI", r"[A-Za-z0-9]{16,}", "Alibaba Cloud"),
    _Known("ATTA", r"[A-Za-z0-9]{40,}", "Trello"),
    _Known("sha256~", r"[\w-]{24,}", "OpenShift"),
    _Known("duffel_live_ duffel_test_", _WORD, "Duffel"),
    _Known("ABSK", r"[A-Za-z0-9+/=]{80,}", "AWS, Bedrock"),
    _Known("bedrock-api-key-", _BASE64, "AWS, Bedrock for a day"),
    _Known("fw_", r"(?=[A-Za-z]{0,23}\d)[A-Za-z0-9]{22,}", "Fireworks"),
    _Known("ak- as-", r"(?=[A-Za-z]{0,21}\d)[A-Za-z0-9]{22}(?![A-Za-z0-9])", "Modal"),
    _Known("crsr_ key_", r"[0-9a-f]{64}", "Cursor"),
    _Known("fc-", _HEXES, "Firecrawl"),
    _Known("re_", r"[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}", "Resend"),
    _Known("tr_prod_ tr_dev_ tr_stg_", r"[A-Za-z0-9]{16,}", "Trigger.dev"),
    _Known("signkey-prod- signkey-test- signkey-branch-", _HEXES, "Inngest"),
    _Known("vtwn_", r"[A-Za-z0-9]{24,}", "Val Town"),
    _Known("unkey_", r"[A-Za-z0-9]{20,}", "Unkey"),
    _Known("polar_oat_ polar_pat_", r"[A-Za-z0-9]{24,}", "Polar"),
    _Known("cal_live_ cal_test_", _HEXES, "Cal.com"),
    _Known("essu_", r"[\w+/=-]{32,}", "Elastic Cloud"),
    _Known("hcaik_ hcbik_ hcxik_ hcamk_", r"[a-z0-9]{32,}", "Honeycomb"),
    _Known("xaat- xapt-", _UUIDS, "Axiom"),
    _Known("sdk- api-", _UUIDS, "LaunchDarkly"),
    _Known("access-sandbox- access-development- access-production-", _UUIDS, "Plaid"),
    _Known("depot_project_ depot_org_", _HEXES, "Depot"),
    _Known("pat.", r"[\w-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}", "Harness"),
    _Known("v1.0-", r"[0-9a-f]{24}-[0-9a-f]{64,}", "Cloudflare, origin certificates"),
    _Known("v1.", r"[0-9a-f]{40}", "GitHub, installations of old"),
    _Known("API-", r"[A-Z0-9]{26}", "Octopus Deploy"),
    _Known("oy2", r"[a-z0-9]{43}", "NuGet"),
    _Known("sl.", r"(?:u\.)?[\w-]{100,}", "Dropbox"),
    _Known("EAA", r"[A-Z][\w-]{58,}", "Facebook and Square"),
    _Known("AAAAAAAAAAAAAAAAAAAAA", r"[\w%-]{32,}", "X, formerly Twitter"),
    _Known("WPL_AP1.", r"[A-Za-z0-9]{12,}\.[\w+/=-]{8,}", "LinkedIn"),
    _Known("A3-", r"[A-Z0-9]{6}-[A-Z0-9-]{11,12}(?:-[A-Z0-9]{5}){3}", "1Password"),
    _Known("eyJrIjoi", r"[A-Za-z0-9]{48,}", "Grafana, formerly"),
    _Known("cmVmdGtu", r"[A-Za-z0-9]{40,}", "Artifactory, references"),
    _Known("klarna_live_api_ klarna_test_api_", r"[\w-]{24,}", "Klarna"),
    _Known("live_", r"(?=[A-Za-z]{0,29}\d)[A-Za-z0-9]{30,}", "Mollie and Lob"),
    _Known("sm_aat_ sm_pat_ sm_sat_", r"[A-Za-z0-9]{16,}", "SettleMint"),
    _Known("tk-us-", r"[\w-]{40,}", "Scalingo"),
    _Known("fio-u-", r"[\w-]{40,}", "Frame.io"),
    _Known("ico-", r"[A-Za-z0-9]{32}", "Infracost"),
    _Known("p8e-", r"[A-Za-z0-9]{32}", "Adobe"),
    _Known("authToken=", r"[\w.+/=-]{8,}", "npm's settings"),
    _Known("secret-token:", r"[\w.~%+/=-]{8,}", "whoever follows RFC 8959"),
)
#: What an Authorization header holds; the word itself may stay.
_BEARER: Final = r"(?<=[Ee][Aa][Rr][Ee][Rr][\s:])[\w.~+/=-]{8,}"
#: Keys in whose middle a sign is known: Microsoft Entra's, and those of Telegram's bots.
_SIGNED: Final = r"(?<=\dQ~)[\w.~-]{28,}|(?<=\d:AA)[\w-]{33}"
_KNOWN: Final = re.compile(
    f"{_BEARER}|{_SIGNED}"
    + "|(?<![A-Za-z0-9])(?:"
    + "|".join(
        f"(?:{'|'.join(map(re.escape, known.prefixes.split()))})(?:{known.tail})" for known in KNOWN
    )
    + ")",
    re.ASCII,
)
#: Looking for a literal costs a hundredth of the pattern.
_HINTS: Final = tuple(prefix for known in KNOWN for prefix in known.prefixes.split())
PREFIXES: Final = frozenset(_HINTS)
_HINTS_OF_LETTERS: Final = tuple(hint for hint in _HINTS if hint.isalnum())
#: The words with which the other prefixes begin: one look for a hundred.
_HEADS: Final = frozenset(re.split(r"[^A-Za-z0-9]", hint)[0] for hint in _HINTS)
_SIGNS_AS_SPACES: Final = {code: " " for code in range(128) if not chr(code).isalnum()}
_HINTS_WITHIN: Final = ("earer", "EARER", "Q~", ":AA")
_ALNUM_RUN: Final = re.compile(r"[A-Za-z0-9]+")


def _announces_key(words: str) -> bool:
    """Whether a known prefix may stand among these words."""
    if any(map(words.__contains__, _HINTS_OF_LETTERS)):
        return True
    if words.isalnum():
        return False
    # A letter of another script before a prefix bounds it, too.
    if words.isascii() and _HEADS.isdisjoint(words.translate(_SIGNS_AS_SPACES).split()):
        return False
    return any(map(words.__contains__, _HINTS))


def _known_secrets(text: str) -> Iterator[Span]:
    for found in _KNOWN.finditer(text):
        if _is_random(found[0]):
            yield Span(*found.span())


def _is_random(tail: str) -> bool:
    """Whether this is a key and not words: `sk-learn-model-2` is no secret."""
    digits_among_letters = 0
    for run in _ALNUM_RUN.findall(tail):
        digits = sum(map(run.count, "0123456789"))
        if len(run) >= 16 or (digits == len(run) and digits >= 9):
            return True
        if digits < len(run):
            digits_among_letters += digits
    return digits_among_letters >= 4 or changes_too_often(tail, _ODD_BEHIND_A_PREFIX)


# A name and its password in base64, as an Authorization header holds them

# It begins with letters that are the same in Basic and basic.
_BASIC: Final = re.compile(r"asic[\s:]([A-Za-z0-9+/]{8,}={0,2})", re.ASCII)


def _basic_credentials(text: str) -> Iterator[Span]:
    for found in _BASIC.finditer(text):
        encoded = found[1].rstrip("=")
        if len(encoded) % 4 == 1:
            continue
        raw = binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4))
        try:
            name, colon, _ = raw.decode().partition(":")
        except UnicodeDecodeError:
            continue
        if colon and name.isprintable():
            yield Span(*found.span(1))


# How words don't look

#: How odd each change within a run is, beside words. Nearly every capital behind a small letter
#: begins a word of camel case, the less surely the shorter that and the word before it are.
_ODDITIES: Final = (
    (1.0, re.compile(r"(?<=[a-z])[A-Z]|(?<=[0-9])[A-Za-z]")),
    (-0.3, re.compile(r"(?<=[A-Za-z][a-z])[A-Z](?=[a-z])")),
    (-0.3, re.compile(r"(?<=[A-Za-z][a-z]{2})[A-Z](?=[a-z]{2})")),
    (0.7, re.compile(r"(?<=[A-Z])[A-Z](?=[a-z])")),
    (0.6, re.compile(r"(?<=[A-Za-z])[0-9]")),
)
#: Parts of one case are words, abbreviations and versions, such as i18n and H264.
_SMALL_PART: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:[a-z0-9]{1,5}|[A-Z0-9]{1,5})(?![A-Za-z0-9])", re.ASCII
)
#: Of 80,000 names of classes, functions, packages and files none has as many changes for its
#: length, of random bytes 99 in 100 have more.
_ODD: Final = 0.18
_ODD_BEHIND_A_PREFIX: Final = 0.1


def changes_too_often(run: str, odd: float = _ODD) -> bool:
    """Whether a run of 20 letters, digits and signs of base64 or more has no words in it.

    >>> changes_too_often("D9jnXCOG7ZX/6/x/J6J5twwtvA"), changes_too_often("getServerSideProps/v2")
    (True, False)
    """
    if len(run) < _DIGEST or run in (run.lower(), run.upper()):
        return False
    mixed = _SMALL_PART.sub("", run)
    changes = sum(weight * len(change.findall(mixed)) for weight, change in _ODDITIES)
    return changes > odd * sum(map(str.isalnum, run))


# Card numbers

#: (first and last issuer prefix, lengths) of the card schemes, from ISO/IEC 7812's public lists.
ISSUERS: Final = (
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),  # Mastercard, second series
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("6011", "6011", (16, 17, 18, 19)),  # Discover
    ("644", "649", (16, 17, 18, 19)),
    ("65", "65", (16, 17, 18, 19)),
    ("300", "305", (14, 16, 17, 18, 19)),  # Diners Club
    ("3095", "3095", (14, 16, 17, 18, 19)),
    ("36", "36", (14, 15, 16, 17, 18, 19)),
    ("38", "39", (14, 16, 17, 18, 19)),
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("81", "82", (16,)),  # RuPay
    ("508", "508", (16,)),
    ("2200", "2204", (16, 17, 18, 19)),  # Mir
    ("5018", "5018", (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("5020", "5020", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5038", "5038", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5893", "5893", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("6304", "6304", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("6759", "6759", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("6761", "6763", (12, 13, 14, 15, 16, 17, 18, 19)),
)
_ISSUED: Final = {
    str(prefix): lengths
    for first, last, lengths in ISSUERS
    for prefix in range(int(first), int(last) + 1)
}
_PREFIX_SIZES: Final = (1, 2, 3, 4)
#: Digits as the sum of the digits of their doubles.
_DOUBLED: Final = bytes.maketrans(b"0123456789", b"0246813579")
#: What may stand between the digits of a card, an IBAN or a phone number: spaces of any width,
#: dots, hyphens, dashes of any length and low lines.
SEPARATOR: Final = r"[\s.\-_\u00ad\u2010-\u2015\u2212]"
#: Of a card's also what forms and programs write for a space.
_BETWEEN_GROUPS: Final = SEPARATOR[:-1] + "+/:]"
#: Groups of digits with at most two separators between; the whole of it, so that no number is
#: taken out of the middle of a longer one.
_DIGIT_GROUPS: Final = re.compile(rf"\d{{3,}}(?:{_BETWEEN_GROUPS}{{1,2}}\d{{2,}})+|\d{{12,}}")
_DIGIT: Final = re.compile(r"\d")
_DIGITS: Final = re.compile(r"\d+")
_FRACTION: Final = re.compile(r"\.\d+")
_HEX: Final = string.hexdigits
_ALNUMS: Final = string.ascii_letters + string.digits
_TWELVE_DIGITS: Final = re.compile(rf"\d(?:{_BETWEEN_GROUPS}{{0,2}}\d){{11}}")
UUID: Final = re.compile(
    r"[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}", re.IGNORECASE
)
_UUID_SEPARATORS: Final = 4
#: How far a UUID that a card overlaps can reach beyond it, and a hash: the longest has 128 digits.
_UUID_REACH: Final = 36
_HASH_REACH: Final = 128
_MOST_GROUPS: Final = 7


def is_card(digits: str) -> bool:
    """Whether these digits are a card's: issuer, length and Luhn's check digit."""
    return len(digits) in _lengths_of(digits[:4]) and _passes_luhn(digits)


def _in_ascii(digits: str) -> str:
    return digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)


def _lengths_of(beginning: str) -> tuple[int, ...]:
    """Return the lengths of the cards that begin with these four ASCII digits, longest first."""
    lengths = _BY_BEGINNING.get(beginning)
    if lengths is None:
        found = {length for size in _PREFIX_SIZES for length in _ISSUED.get(beginning[:size], ())}
        lengths = _BY_BEGINNING[beginning] = tuple(sorted(found, reverse=True))
    return lengths


#: Filled as it is asked: there are ten thousand beginnings at most, all of ASCII digits.
_BY_BEGINNING: Final[dict[str, tuple[int, ...]]] = {}


def _passes_luhn(digits: str) -> bool:
    raw = digits.encode()
    # Each byte is its digit and 48.
    total = sum(raw[::-1][::2]) + sum(raw[-2::-2].translate(_DOUBLED))
    return (total - 48 * len(raw)) % 10 == 0


def card_of_number(value: float) -> bool:
    """Whether a number of a JSON document is whole and a card number."""
    return 10**11 <= value < 10**19 and value == int(value) and is_card(str(int(value)))


def _cards(text: str) -> Iterator[Span]:
    for run in _DIGIT_GROUPS.finditer(text):
        groups = [group.span() for group in _DIGITS.finditer(text, *run.span())]
        yield from _cards_of(text, groups, _in_ascii("".join(_DIGITS.findall(run[0]))))


def _cards_of(text: str, groups: list[tuple[int, int]], digits: str) -> Iterator[Span]:
    """Yield the cards that groups of digits are written as, from each group on the longest.

    The groups of a written card have three digits or more; its last may have two.
    """
    sizes = [end - start for start, end in groups]
    #: How many digits there are up to the end of each group → which group that is.
    places = {total: place for place, total in enumerate(accumulate(sizes))}
    before, over = 0, 0
    for first, size in enumerate(sizes):
        lengths = _lengths_of(digits[before : before + 4]) if size >= 3 and first >= over else ()
        for length in lengths:
            # Nearly all runs of digits end here: only a card's beginning and length are worth more.
            last = places.get(before + length, first + _MOST_GROUPS)
            if (
                last < first + _MOST_GROUPS
                and min(sizes[first:last], default=size) >= 3
                and _passes_luhn(digits[before : before + length])
            ):
                card = Span(groups[first][0], groups[last][1])
                if _stands_alone(text, card):
                    over = last + 1
                    yield card
                break
        before += size


def _stands_alone(text: str, card: Span) -> bool:
    """Whether the digits are part of no decimal fraction, no hexadecimal run and no UUID."""
    start, end = card
    if text[start - 1 : start] == "." and text[start - 2 : start - 1].isdecimal():
        return False
    fraction = _FRACTION.match(text, end)
    if fraction and fraction[0].strip(".0"):
        return False
    before = text[max(0, start - _HASH_REACH) : start]
    after = text[end : end + _HASH_REACH]
    around = (
        before[len(before.rstrip(_ALNUMS)) :] + after[: len(after) - len(after.lstrip(_ALNUMS))]
    )
    if around and not around.strip(_HEX):
        return False
    near, far = max(0, start - _UUID_REACH), end + _UUID_REACH
    if text.count("-", near, far) + text.count("_", near, far) < _UUID_SEPARATORS:
        return True
    return not any(
        uuid.start() < end and uuid.end() > start for uuid in UUID.finditer(text, near, far)
    )


# IBANs

#: Country → length of an IBAN, from the IBAN registry (SWIFT, release 99).
IBAN_LENGTHS: Final = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FO FI GL NL SD",
        19: "FK MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_IBAN_BEGINNING: Final = re.compile(
    rf"(?:(?<![0-9A-Za-z])|(?<=[a-z])(?=[A-Z]))[A-Za-z]{{2}}\d{{2}}(?={SEPARATOR}?[0-9A-Za-z])",
    re.ASCII,
)
_LETTERS_AND_DIGITS: Final = re.compile(r"[A-Za-z]{2}\d\d", re.ASCII)
_IBAN_REST: Final = {
    length: re.compile(rf"(?:{SEPARATOR}?[0-9A-Za-z]){{{length - 4}}}(?![0-9A-Za-z])", re.ASCII)
    for length in set(IBAN_LENGTHS.values())
}
_SEPARATORS: Final = re.compile(SEPARATOR)
#: What a letter counts: A is 10.
_IBAN_VALUES: Final = str.maketrans(
    {letter: str(int(letter, 36)) for letter in string.ascii_uppercase}
)


def _ibans(text: str) -> Iterator[Span]:
    end = 0
    for beginning in _IBAN_BEGINNING.finditer(text):
        length = IBAN_LENGTHS.get(beginning[0][:2].upper())
        if length is None or beginning.start() < end:
            continue
        rest = _IBAN_REST[length].match(text, beginning.end())
        if rest and _is_iban(beginning[0] + rest[0]):
            end = rest.end()
            yield Span(beginning.start(), end)


def _is_iban(written: str) -> bool:
    """Whether ISO 7064's check digits (mod 97) are right."""
    compact = _SEPARATORS.sub("", written)
    turned = compact[4:] + compact[:4]
    return int(turned.upper().translate(_IBAN_VALUES)) % 97 == 1


# Together

_Finder = tuple[SecretKind, Callable[[str], Iterator[Span]]]
_JWT: Final[_Finder] = ("jwt", _jwts)
_PEM: Final[_Finder] = ("secret", _pem_keys)
_PREFIXED: Final[_Finder] = ("secret", _known_secrets)
_BASIC_AUTH: Final[_Finder] = ("secret", _basic_credentials)
_IBAN: Final[_Finder] = ("iban", _ibans)
_CARD: Final[_Finder] = ("card", _cards)
#: Cutting one secret out can set another free; each round takes at least one.
_ROUNDS: Final = 8


def long_words(text: str) -> str:
    """Return the words of a text that are long enough for an id or a key, a space between.

    In prose this is a small part of the text, and splitting costs less than one pattern.
    """
    words = text.split()
    if len(words) == 1:
        return text
    return " ".join([word for word in words if len(word) >= _LONG_WORD])


def _finders(text: str) -> Iterator[_Finder]:
    """Yield the finders that may find something, by a cheap test for each.

    In this order: a token may hold digits that look like a card.
    """
    words = long_words(text)
    if "." in words and _JWT_HEAD.search(words):
        yield _JWT
    if "-----BEGIN " in text:
        yield _PEM
    if _announces_key(words) or any(map(text.__contains__, _HINTS_WITHIN)):
        yield _PREFIXED
    if "asic" in text:
        yield _BASIC_AUTH
    if not _DIGIT.search(text):
        return
    if _LETTERS_AND_DIGITS.search(text):
        yield _IBAN
    if _TWELVE_DIGITS.search(text):
        yield _CARD


def _class_of(code: int) -> str:
    character = chr(code)
    if character in string.ascii_letters:
        return "a"
    if character in string.digits:
        return "0"
    if character in " \t\n.-_":
        return " "
    if code < 32 or code == 127:
        return "!"
    return character if character == "/" else ","


#: Each character's class: letter, digit, separator, control, slash or another.
_CLASSES: Final = "".join(map(_class_of, range(128))).encode().ljust(256, b"!")
_LONG_RUN: Final = b"a" * 16
_CARD_RUN: Final = b"0" * 12
_CARD_DIGITS: Final = len(_CARD_RUN)
#: So many hyphens, and digits, are looked at one by one.
_FEW_HYPHENS: Final = 16
_FEW_DIGITS: Final = 48
_NEITHER_DIGIT_NOR_SPACE: Final = bytes({*range(256)} - {*b"0123456789"} - {*b" \t\n"})


#: Keys that may have neither four digits in one word nor 16 letters and digits in a row: of those
#: of twenty letters, digits and signs every fifth has not.
_HINTS_IN_PROSE: Final = ("anon_", "dckr_", "sb_secret_", "figd_", "whsec_", "pscale_")
_GITLAB: Final = re.compile(r"gl[a-z]{2,5}-")
_AUTHORIZATION: Final = re.compile(r"B(?:asic|earer)[\s:][\w.~+/=-]{8}", re.ASCII)


def is_quiet(text: str) -> bool:
    """Whether a text, prose for instance, holds nothing to clean: no secret, address or control.

    Every secret but a PEM key and a few vendors' keys has four digits in one word, 16 letters and
    digits in a row, or, if it is written with spaces, a dozen digits. The questions are put to
    bytes, which answers 6 kB of prose in the time of one pattern on a few hundred characters.
    """
    if not text.isascii():
        return False
    raw = text.encode()
    classes = raw.translate(_CLASSES)
    # `in` asks bytes first whether the other is a number, which costs more than to find it.
    find = classes.find
    return (
        find(b"!") < 0
        and find(b"/") < 0
        and classes.replace(b"0", b"a").find(_LONG_RUN) < 0
        and _has_small_figures(raw, classes)
        and not ("=" in text and ("?" in text or "#" in text))
        # A character is found in a tenth of the time of a word.
        and not ("G" in text and ("-----BEGIN" in text or "GOCSPX-" in text))
        and not ("J" in text and "eyJ" in text)
        and not ("_" in text and any(map(text.__contains__, _HINTS_IN_PROSE)))
        and not _may_hold_gitlabs(text)
        and not ("A" in text and "AIza" in text)
        and not (":" in text and "secret-token:" in text)
        and not ("~" in text and "Q~" in text)
        and not ("B" in text and _AUTHORIZATION.search(text) is not None)
        and not ("q" in text and "sq0" in text)
        and not ("N" in text and "NRII-" in text)
    )


def _may_hold_gitlabs(text: str) -> bool:
    """Whether one of GitLab's prefixes may stand in a text: prose has few hyphens to go to."""
    place = text.find("-")
    for _ in range(_FEW_HYPHENS):
        if place < 0:
            return False
        if "gl" in text[max(0, place - 7) : place]:
            break
        place = text.find("-", place + 1)
    return _GITLAB.search(text) is not None


def _has_small_figures(raw: bytes, classes: bytes) -> bool:
    """Whether no word has four digits, and no IBAN and no card is written in short groups.

    Prose has few figures: going from one to the next is a third of looking at each digit.
    """
    digits, in_a_row, end = 0, 0, 0
    begins_an_iban = False
    find = classes.find
    while (place := find(b"0", end)) >= 0:
        if find(b"a", end, place) >= 0:
            # What a card is written in has no letter in it.
            in_a_row = 0
        end = raw.find(b" ", place)
        if end < 0:
            end = len(raw)
        figure = classes.count(b"0", place, end)
        digits += figure
        in_a_row += figure
        if figure >= 4 or in_a_row >= _CARD_DIGITS or digits > _FEW_DIGITS:
            # There may be a line's end in that word, or a letter; or it is no prose.
            return _are_small(raw, classes, _places(classes))
        if not begins_an_iban:
            begins_an_iban = find(b"aa00", max(0, place - 2), end) >= 0
    return digits < _CARD_DIGITS or not begins_an_iban


def _places(classes: bytes) -> list[int]:
    """Return where the first digits stand."""
    places: list[int] = []
    place = classes.find(b"0")
    while place >= 0 and len(places) <= _FEW_DIGITS:
        places.append(place)
        place = classes.find(b"0", place + 1)
    return places


def _are_small(raw: bytes, classes: bytes, digits: list[int]) -> bool:
    """Return what `_has_small_figures` does, asked of each digit."""
    if len(digits) > _FEW_DIGITS:
        figures = raw.translate(None, _NEITHER_DIGIT_NOR_SPACE).split()
        return (
            max(map(len, figures)) < 4
            and classes.find(b"aa00") < 0
            and classes.translate(None, b" ").find(_CARD_RUN) < 0
        )
    find, look = raw.find, classes.find
    for first, fourth in zip(digits, digits[3:], strict=False):
        # The fourth digit stands in the word of the first, unless there is a space between.
        if find(b" ", first, fourth) < 0 and len(raw[first:fourth].split()) == 1:
            return False
    for first, twelfth in zip(digits, digits[11:], strict=False):
        # What a card is written in has no letter in it.
        if look(b"a", first, twelfth) < 0:
            return False
    return len(digits) < _CARD_DIGITS or look(b"aa00") < 0


def first_secret(text: str) -> SecretKind | None:
    """Return the kind of a secret that stands anywhere in the text, None if there is none."""
    if len(text) < _SHORTEST_SECRET:
        return None
    for kind, find in _finders(text):
        if next(find(text), None) is not None:
            return kind
    return None


def redact_secrets(text: str) -> tuple[str, tuple[SecretKind, ...]]:
    """Return the text with `[redacted:<kind>]` for each secret, and the kinds that were found.

    The same object comes back when there is none.

    >>> redact_secrets("paid with 4111 1111 1111 1111")
    ('paid with [redacted:card]', ('card',))
    """
    if len(text) < _SHORTEST_SECRET or is_plain(text):
        return text, ()
    kinds: dict[SecretKind, None] = {}
    for _ in range(_ROUNDS):
        before = text
        for kind, find in _finders(text):
            text, count = _without(text, find(text), f"[redacted:{kind}]")
            if count:
                kinds[kind] = None
        if text is before:
            break
    return text, tuple(kinds)


def _without(text: str, spans: Iterator[Span], placeholder: str) -> tuple[str, int]:
    parts: list[str] = []
    position = 0
    for start, end in spans:
        parts += (text[position:start], placeholder)
        position = end
    if not parts:
        return text, 0
    return "".join((*parts, text[position:])), len(parts) // 2
