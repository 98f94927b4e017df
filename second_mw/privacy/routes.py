"""Route shapes: the kind of page a path leads to, without who or what it is about.

`route_shape` normalises a path, or a shape that a browser made of it, by the product's rules:
under `/w/` nothing stays but the words of the product; elsewhere whatever looks like an id goes.
`Templates` holds another host's own routes: then the shape is the template that matches, or
`:unknown`. Full URLs that may leave in identified mode are cleaned in urls.py; whether a shape
holds this user's identity is identity.py's question. Any string is taken, nothing is raised, and a
shape of a shape is itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote

from second_mw.privacy.exempt import PRODUCT_WORDS, ROUTE_PLACEHOLDERS
from second_mw.privacy.shapes import shape_of
from second_mw.privacy.urls import is_announced
from second_mw.privacy.views import normal, unescaped

UNKNOWN: Final = ":unknown"

#: Bounds of what is looked at and of what comes back.
_LONGEST_PATH: Final = 2_048
_MOST_SEGMENTS: Final = 16
_LONGEST_SEGMENT: Final = 64
_LAYERS: Final = 3

_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_OBJECT_ID: Final = re.compile(r"[0-9a-f]{24}", re.IGNORECASE)
_WORD: Final = re.compile(r"[\w.~+-]+")
#: Ids by their looks: a number of three or more digits, a prefix with `_` before something with a
#: digit (u_1), digits among letters twice (a1b2c), eight characters or more of all three kinds.
_ID: Final = re.compile(
    r"\d{3}|^[A-Za-z]{1,8}_(?=.*\d)|\d[A-Za-z]+\d+[A-Za-z]"
    r"|^(?=.*\d)(?=.*[a-z])(?=.*[A-Z]).{8}"
)


def route_shape(path: str, templates: Templates | None = None) -> str:
    """Return the shape of a path.

    Args:
        path: a path, a URL or a shape; query and fragment go.
        templates: the host's own routes; None means the product's rules.

    >>> route_shape("/w/acme/apps/507f1f77bcf86cd799439011?tab=1")
    '/w/:workspace/apps/:objectId'
    >>> route_shape("/orders/4711", Templates(("/orders/<int:id>",)))
    '/orders/:id'
    """
    if templates is not None:
        return templates.match(path)
    return "/" + "/".join(_shaped(_segments(path)))


# Reading a path

_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^/?#]*")
_SLASHES: Final = re.compile(r"[/\\]+")
_END: Final = re.compile(r"[?#]")


def _segments(path: str) -> list[str]:
    """Return a path's segments, decoded, without empty and dotted ones, as many as may count."""
    cut = len(path) > _LONGEST_PATH
    path = path[:_LONGEST_PATH]
    if "\\" in path:
        # A backslash is a slash to many, unless it begins an escape.
        path = unescaped(path)
    path = normal(path).strip()
    if origin := _ORIGIN.match(path):
        path = path[origin.end() :]
    path = _END.split(path, maxsplit=1)[0]
    for _ in range(_LAYERS):
        if "%" not in path:
            break
        path = normal(unquote(path))
    segments: list[str] = []
    for segment in _SLASHES.split(path):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    if cut:
        # What was cut in its middle may look like a word.
        del segments[-1:]
    return segments[:_MOST_SEGMENTS]


# The product's rules


def _shaped(segments: list[str]) -> Iterator[str]:
    before = ["", *segments]
    under_product = False
    for position, segment in enumerate(segments):
        parent = before[position].casefold()
        if parent == "w" and not under_product:
            under_product = True
            yield ":workspace"
        elif parent == "agents":
            yield ":agent"
        elif parent == "integrations" and before[position - 1].casefold() == "settings":
            yield ":integration"
        elif under_product:
            yield _product_segment(segment)
        else:
            yield "w" if segment in ("w", "W") else _segment(segment, parent)


def _product_segment(segment: str) -> str:
    if segment.casefold() in PRODUCT_WORDS:
        return segment.casefold()
    shape = _segment(segment)
    return shape if shape in ROUTE_PLACEHOLDERS else ":segment"


def _segment(segment: str, parent: str = "") -> str:
    """Return a segment as it is, if it is a word and no id, nor a token by the one before it."""
    if segment in ROUTE_PLACEHOLDERS:
        return segment
    if _UUID.fullmatch(segment):
        return ":uuid"
    if _OBJECT_ID.fullmatch(segment):
        return ":objectId"
    word = segment.removeprefix(":")
    if (
        len(segment) > _LONGEST_SEGMENT
        or not _WORD.fullmatch(word)
        or _ID.search(word)
        or shape_of(segment)
        or is_announced(parent, segment)
    ):
        return ":id"
    return segment


# A host's own routes


class _Template(NamedTuple):
    """One template: what it matches, and what stands for it."""

    pattern: re.Pattern[str]
    name: str


#: A parameter as Starlette and FastAPI, Flask and Django, or Express write it.
_PARAMETER: Final = re.compile(
    r"\{(?P<brace>\w+)(?::(?P<brace_type>[^{}]*))?\}"
    r"|<(?:(?P<angle_type>\w+)(?:\([^()<>]*\))?:)?(?P<angle>\w+)>"
    r"|(?:(?<=/)|(?<=^)|(?<=[.-])):(?P<colon>\w+)(?:\([^()]*\))?\??"
    r"|\*(?P<star>\w*)"
)
#: Converter → what it matches within a segment; those that are missing match anything but a slash.
_CONVERTERS: Final = {
    "int": r"-?\d{1,32}",
    "float": r"-?\d{1,32}(?:\.\d{1,32})?",
    "uuid": r"[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}",
    "path": r".+",
}
_ANYTHING: Final = r"[^/]+"


class Templates:
    """A host's routes, compiled once.

    Args:
        templates: paths with parameters as `:id`, `<id>`, `<int:id>`, `{id}` or `{rest:path}`.

    The template with the most fixed text wins where several match, whatever their order.
    """

    def __init__(self, templates: Iterable[str]) -> None:
        compiled = [(_named(template), _pattern(template), template) for template in templates]
        compiled.sort(key=lambda entry: (-_fixed(entry[2]), entry[0]))
        #: The shapes that can come of these routes.
        self.names: frozenset[str] = frozenset(name for name, _, _ in compiled)
        # A host has hundreds of routes, and few under one first word.
        self._open: list[_Template] = []
        self._under: dict[str, list[_Template]] = {_first(name): [] for name in self.names}
        for name, pattern, _ in compiled:
            template = _Template(pattern, name)
            first = _first(name)
            if ":" not in first:
                self._under[first].append(template)
                continue
            for under in (self._open, *self._under.values()):
                under.append(template)

    def match(self, path: str) -> str:
        """Return the template that a path, or a shape, belongs to, in `:name` form."""
        if path in self.names:
            return path
        path = "/" + "/".join(_segments(path))
        if path in self.names:
            return path
        for template in self._under.get(_first(path), self._open):
            if template.pattern.fullmatch(path):
                return template.name
        return UNKNOWN


def _first(path: str) -> str:
    """Return the first segment of a path that begins with a slash."""
    return path.split("/", 2)[1]


def _named(template: str) -> str:
    """Return a template with each parameter as `:name`.

    >>> _named("/users/<int:id>/files/{rest:path}")
    '/users/:id/files/:rest'
    """
    named = _PARAMETER.sub(lambda found: ":" + (_name_of(found) or "rest"), template)
    return "/" + "/".join(part for part in named.split("/") if part)


def _name_of(found: re.Match[str]) -> str:
    return found["brace"] or found["angle"] or found["colon"] or found["star"] or ""


def _pattern(template: str) -> re.Pattern[str]:
    parts: list[str] = []
    position = 0
    for found in _PARAMETER.finditer(template):
        parts.append(re.escape(template[position : found.start()]))
        parts.append(_what_matches(found))
        position = found.end()
    pattern = "".join((*parts, re.escape(template[position:])))
    return re.compile(re.sub("/+", "/", "/" + pattern.strip("/")))


def _what_matches(found: re.Match[str]) -> str:
    kind = "path" if found["star"] is not None else found["brace_type"] or found["angle_type"]
    # A shape that the browser made has the parameter's name where the path has its value.
    return f"(?::{_name_of(found)}|{_CONVERTERS.get(kind or '', _ANYTHING)})"


def _fixed(template: str) -> int:
    """Return how many characters of a template are fixed text."""
    return len(_PARAMETER.sub("", template))
