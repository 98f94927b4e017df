"""HTML from functions: what is not `Html` is escaped, so a page can't forget to."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any, Final, TypeAlias, Union

_VOID: Final = frozenset({"br", "hr", "img", "input", "link", "meta", "use"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = Union[str, "Iterable[Child]", None]


def el(tag: str, *children: Child, **attributes: str | int | bool | None) -> Html:
    """Return an element.

    Args:
        children: text, elements, None for nothing, or iterables of these.
        attributes: `class_` and the like lose their last `_`, others' `_` becomes `-`; True is an
            attribute without a value, False and None leave it out.

    >>> el("a", "R&D", href="/x?a=1&b=2", class_="chip", hidden=False)
    '<a href="/x?a=1&amp;b=2" class="chip">R&amp;D</a>'
    """
    opening = "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{opening}>")
    return Html(f"<{tag}{opening}>{_inside(children)}</{tag}>")


def data_block(element_id: str, value: Any) -> Html:
    """Return JSON for a script of the page: a data block, which a strict CSP lets stand."""
    # A `<` could end the block; its escape means the same in JSON.
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    return Html(f'<script type="application/json" id="{html.escape(element_id)}">{text}</script>')


def document(*children: Child, lang: str = "en") -> str:
    """Return a whole document."""
    return f"<!doctype html>\n{el('html', *children, lang=lang)}\n"


def _attribute(key: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.removesuffix("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def _inside(children: Iterable[Child]) -> str:
    return "".join(
        child
        if isinstance(child, Html)
        else html.escape(child, quote=False)
        if isinstance(child, str)
        else ""
        if child is None
        else _inside(child)
        for child in children
    )
