"""How the glue writes a framework's routes down for `Settings(routes=…)` (spec §6, §16)."""

from __future__ import annotations

from typing import Final

#: Types that match other things than any one segment of a path.
_TYPED: Final = frozenset({"int", "float", "uuid", "path"})


def parameter(name: str, kind: str | None = None) -> str:
    """Return a parameter of a template, with its type where that says more than "one segment".

    >>> parameter("id", "int"), parameter("slug", "str"), parameter("rest", "path")
    ('<int:id>', ':slug', '<path:rest>')
    """
    return f"<{kind}:{name}>" if kind in _TYPED else f":{name}"
