"""The people whose privacy the tests try to break, and the way an event of theirs goes.

`sent` posts bytes to a wrapped host and hands back the bytes that lie in the outbox: the whole
path, nothing of it replaced but the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from second_mw import Analytics, AnalyticsUser
from second_mw.payload import Payload
from tests.hosts import Wsgi
from tests.stores import Kept

CAPTURE = "/api/analytics/capture"

#: Whose every part is too odd to occur anywhere by chance.
QUILL = AnalyticsUser(
    "usr_7Gk2Pw93Zt5q",
    email="zephyrine.quillfeather@brindlemoor.example",
    name="Zephyrine Quillfeather",
    workspaces={"ws_tarnholme_83": "admin"},
    aliases=("moonwright77",),
)


def person(id: str = "usr_7Gk2Pw93Zt5q", **fields: Any) -> AnalyticsUser:
    """Return a user who is nothing but what is given."""
    return AnalyticsUser(id, **fields)


def secrets_of(user: AnalyticsUser) -> list[str]:
    """Return what must not leave of a user, by the words of the promise alone."""
    local, _, domain = (user.email or "").partition("@")
    parts = (user.name or "").replace("-", " ").split()
    every = [user.id, user.email, user.name, *(user.workspaces or ()), *user.aliases]
    every += [local] if len(local) >= 4 else []
    every += [domain] if domain.endswith(".example") else []
    every += [part for part in parts if len(part) >= 3]
    return [each for each in every if each and len(each) >= 3]


@dataclass(frozen=True)
class Sent:
    """What became of one posted event."""

    status: int
    payloads: tuple[Payload, ...]
    posted: str
    stats: Mapping[str, Any]

    @property
    def properties(self) -> dict[str, Any]:
        """The event's own properties as they leave, the server's own among them."""
        decoded: dict[str, Any] = msgspec.json.decode(self.payloads[-1].properties)
        return decoded

    @property
    def everything(self) -> str:
        """Every character that leaves."""
        return "\n".join(
            "\n".join(
                (
                    payload.event,
                    payload.uuid,
                    payload.distinct_id,
                    payload.timestamp,
                    msgspec.json.encode(payload.options).decode(),
                    payload.properties.decode(),
                )
            )
            for payload in self.payloads
        )


def analytics_of(**settings: Any) -> Analytics:
    """Return an Analytics over a store that keeps everything, at no rate."""
    return Analytics(
        **{
            "token": "phc_test",
            "host": "http://127.0.0.1:9",
            "secret": "the server key",
            "outbox": Kept(),
            "rate": None,
            **settings,
        }
    )


def sent(
    user: AnalyticsUser,
    properties: Any,
    *,
    event: str = "page viewed",
    fields: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    analytics: Analytics | None = None,
    **settings: Any,
) -> Sent:
    """Post one event as the user's browser does, and return what waits for PostHog.

    Args:
        user: who is signed in.
        properties: of the event; any JSON.
        event: its name.
        fields: further fields beside event and properties.
        headers: of the request, in the spelling of `Wsgi`.
        body: posted instead of all these.
        analytics: where to, instead of one made for this event alone; its outbox is emptied.
        settings: of the one made.
    """
    posted = {"event": event, "properties": properties, **(fields or {})}
    body = json.dumps(posted).encode("utf-8", "surrogatepass") if body is None else body
    asked = analytics_of(**settings) if analytics is None else analytics
    try:
        ask = Wsgi(asked, lambda _: user)
        reply = ask(
            "POST", CAPTURE, body, **{"content_type": "application/json", **(headers or {})}
        )
        store = asked.outbox.store
        assert isinstance(store, Kept)
        payloads = tuple(store.payloads)
        store.payloads.clear()
        written = "\n".join([body.decode("utf-8", "replace"), *(headers or {}).values()])
        return Sent(reply.status, payloads, written, asked.stats())
    finally:
        if analytics is None:
            asked.close(timeout=1.0)


def left_of(user: AnalyticsUser, properties: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """Return what leaves of what was posted, without what the server adds."""
    done = sent(user, properties, **given)
    assert done.status == 204, done.stats
    return without_servers_own(done.properties)


def servers_own() -> frozenset[str]:
    """Return the keys that the server writes into every anonymized event."""
    return frozenset(sent(person("nobody-in-particular"), {}).properties)


_SERVERS_OWN: list[frozenset[str]] = []


def without_servers_own(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that come from the request."""
    if not _SERVERS_OWN:
        _SERVERS_OWN.append(servers_own())
    return {key: value for key, value in properties.items() if key not in _SERVERS_OWN[0]}
