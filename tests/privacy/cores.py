"""A small builder: what the privacy core makes of one event of one user."""

from __future__ import annotations

from typing import Any

import msgspec

from second_mw import AnalyticsUser, Catalogue
from second_mw.payload import Payload
from second_mw.privacy.pipeline import Finished, Pipeline, Posted
from second_mw.settings import Settings

ADA = AnalyticsUser(
    "65f0c0ffee65f0c0ffee65f0",
    email="ada.lovelace@analytical.example",
    name="Ada Lovelace",
    workspaces={"w_engine_room": "admin"},
    aliases=("enchantress",),
)
KEY = b"the server key"


def core(*, receipts: bool = True, catalogue: Catalogue | None = None, **fields: Any) -> Pipeline:
    settings = Settings.load({"token": "phc_test", **fields})
    return Pipeline(settings, catalogue or Catalogue.default(), KEY, receipts=receipts)


def finish(
    properties: dict[str, Any],
    *,
    event: str = "page viewed",
    user: AnalyticsUser = ADA,
    mode: Any = "anonymized",
    pipeline: Pipeline | None = None,
    **posted: Any,
) -> Finished:
    return (pipeline or core()).finish(Posted(event, properties, **posted), user, mode)


def payload_of(properties: dict[str, Any], **kwargs: Any) -> Payload:
    """The event's own payload, without a `$identify` before it."""
    return finish(properties, **kwargs).payloads[-1]


def left_of(properties: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """What leaves of what was posted: the payload's properties without the server's own."""
    pipeline = kwargs.setdefault("pipeline", core())
    left = msgspec.json.decode(payload_of(properties, **kwargs).properties)
    return {
        key: value
        for key, value in left.items()
        if key not in pipeline.added and key not in ("anonymized", "analytics_consent_version")
    }
