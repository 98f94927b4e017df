"""What is no identity although it may look like one: the one list that scan and gate both read.

Every gap between what the scan exempts and what the gate exempts would cost a whole good event.
The catalogue's own words belong here too; they are `Catalogue.words`.
"""

from __future__ import annotations

from typing import Final

#: Mail providers whose domain says nothing of the person (spec §8).
PUBLIC_MAIL: Final = frozenset(
    """
    gmail.com googlemail.com msn.com ymail.com rocketmail.com me.com mac.com proton.me
    protonmail.com protonmail.ch pm.me mail.com email.com gmx.com web.de freenet.de t-online.de
    posteo.de mailbox.org arcor.de mail.ru bk.ru inbox.ru list.ru rambler.ru ya.ru qq.com 163.com
    126.com yeah.net sina.com sohu.com foxmail.com naver.com daum.net hanmail.net fastmail.com
    fastmail.fm hey.com tutanota.com tutanota.de tuta.io orange.fr wanadoo.fr free.fr sfr.fr
    laposte.net libero.it virgilio.it tiscali.it alice.it wp.pl o2.pl onet.pl interia.pl seznam.cz
    centrum.cz btinternet.com sky.com talktalk.net ntlworld.com comcast.net verizon.net att.net
    sbcglobal.net bellsouth.net cox.net charter.net earthlink.net rogers.com shaw.ca sympatico.ca
    bigpond.com optusnet.com.au xtra.co.nz uol.com.br bol.com.br terra.com.br rediffmail.com
    ziggo.nl kpnmail.nl telenet.be skynet.be bluewin.ch hushmail.com duck.com
    """.split()
)
#: Providers with a domain in many countries: yahoo.co.uk, hotmail.fr.
PUBLIC_MAIL_BRANDS: Final = frozenset(
    "yahoo hotmail outlook live gmx aol icloud yandex zoho".split()
)

#: What a placeholder may say between `[redacted:` and `]`: any other word is the browser's own.
PLACEHOLDER_KINDS: Final = frozenset(
    """
    text secret jwt iban card email url uuid objectid ulid ksuid ip mac phone hex token path
    """.split()
)
PLACEHOLDERS: Final = frozenset(f"[redacted:{kind}]" for kind in PLACEHOLDER_KINDS)

#: Words of runtimes' and models' names, exempt inside a Model (spec §8): Mr Claude may use
#: claude-code, Ms Max may use qwen-max.
FAMILIES: Final = frozenset(
    """
    claude gpt codex gemini gemma llama mistral mixtral codestral qwen deepseek grok kimi glm phi
    command sora chatgpt o1 o2 o3 o4 o5 o6 o7 o8 o9
    opus sonnet haiku magistral devstral ministral pixtral voxtral nemotron minimax qwq hunyuan
    jamba
    """.split()
)
MODEL_WORDS: Final = frozenset(
    """
    mini nano pro flash lite turbo preview max large medium small xl high low
    instruct chat code coder thinking reasoning vision audio latest beta experimental exp ultra
    plus base fast r vl oss omni realtime live image instant heavy air deep think research reasoner
    distill maverick scout
    """.split()
)
#: Exempt from the comparison with names inside a Model, and nowhere else.
IN_MODELS: Final = FAMILIES | MODEL_WORDS


#: The product's known words under `/w/<workspace>/`: its pages, their sections and steps, and
#: `other`, which the client writes for a segment that it does not know.
PRODUCT_WORDS: Final = frozenset(
    "agents app apps approvals audit-logs available-apps billing build builds chat chats"
    " connected-apps diagnostics edit finish general home import integrations intro library members"
    " new onboarding other overview profile reviews runs runtime-settings settings source-control"
    " suggestions teams usage workspace workspaces".split()
)
#: What a route shape says instead of a segment.
ROUTE_PLACEHOLDERS: Final = frozenset(
    ":workspace :objectId :uuid :integration :agent :id :segment :token :unknown".split()
)
#: The words of route shapes, which are no identity in one: Jane Home may be at
#: `/w/:workspace/home`.
ROUTE_WORDS: Final = frozenset(
    word
    for text in (*PRODUCT_WORDS, *ROUTE_PLACEHOLDERS, ":object:id")
    for part in text.lower().split(":")
    for word in (part, *part.split("-"))
    if word
)


#: Below which countries let people register: acme.co.uk is somebody's, co.uk is not.
_SECOND_LEVELS: Final = frozenset(
    "co com org net ac edu gov gob gouv or ne go ltd plc me sch nhs asso nom web info".split()
)


def is_public_mail(domain: str) -> bool:
    """Whether many people share this mail domain, so that it says nothing of one of them.

    >>> [is_public_mail(d) for d in ("gmail.com", "yahoo.co.uk", "live.acme.example")]
    [True, True, False]
    """
    if domain in PUBLIC_MAIL:
        return True
    brand, _, ending = domain.partition(".")
    second, dot, top = ending.partition(".")
    return brand in PUBLIC_MAIL_BRANDS and (
        not dot or (second in _SECOND_LEVELS and "." not in top)
    )


def domains_of(domain: str) -> list[str]:
    """Return what a user's own mail domain says of an employer: itself and those above it.

    In letters and as the network spells them; nothing of a public provider's.

    >>> domains_of("mail.acme.co.uk"), domains_of("gmail.com")
    (['mail.acme.co.uk', 'acme.co.uk'], [])
    """
    labels = domain.split(".")
    found: list[str] = []
    for first in range(max(1, len(labels) - 1)):
        own = ".".join(labels[first:])
        below = labels[first:]
        if first and len(below) == 2 and below[0] in _SECOND_LEVELS:
            continue
        if is_public_mail(own):
            break
        found += [own, *_respelled(own)]
    return found


def _respelled(domain: str) -> list[str]:
    """Return a domain in the other spelling of its letters beyond ASCII, if it has any."""
    try:
        if not domain.isascii():
            return [domain.encode("idna").decode()]
        if "xn--" in domain:
            return [domain.encode().decode("idna")]
    except UnicodeError:
        pass
    return []
