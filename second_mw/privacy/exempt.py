"""What is no identity although it may look like one: the one list that scan and gate both read.

Every gap between what the scan exempts and what the gate exempts would cost a whole good event.
The catalogue's own words belong here too; they are `Catalogue.words`.
"""

from __future__ import annotations

from typing import Final

#: Mail providers whose domain says nothing of the person (spec §8).
PUBLIC_MAIL: Final = frozenset(
    """
    gmail.com googlemail.com outlook.com hotmail.com live.com msn.com yahoo.com ymail.com aol.com
    icloud.com me.com mac.com proton.me protonmail.com pm.me gmx.com gmx.net gmx.de web.de mail.com
    mail.ru yandex.ru yandex.com qq.com 163.com 126.com zoho.com fastmail.com hey.com tutanota.com
    hotmail.co.uk yahoo.co.uk outlook.de hotmail.fr orange.fr free.fr laposte.net libero.it
    t-online.de
    """.split()
)

#: Words of runtimes' and models' names, exempt inside a Model (spec §8): Mr Claude may use
#: claude-code, Ms Max may use qwen-max.
FAMILIES: Final = frozenset(
    """
    claude gpt codex gemini gemma llama mistral mixtral codestral qwen deepseek grok kimi glm phi
    command sora chatgpt o1 o2 o3 o4 o5 o6 o7 o8 o9
    """.split()
)
MODEL_WORDS: Final = frozenset(
    """
    opus sonnet haiku mini nano pro flash lite turbo preview max large medium small xl high low
    instruct chat code coder thinking reasoning vision audio latest beta experimental exp ultra
    plus base fast
    """.split()
)
#: Exempt from the comparison with names inside a Model, and nowhere else.
IN_MODELS: Final = FAMILIES | MODEL_WORDS
