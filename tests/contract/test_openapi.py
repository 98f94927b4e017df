"""The OpenAPI description says what the endpoint does, and all of it."""

from __future__ import annotations

import json
import re

from second_mw.errors import REFUSALS
from second_mw.openapi import CODES, openapi
from second_mw.privacy.catalogue import Catalogue
from second_mw.settings import Settings


def described(**fields: object) -> dict[str, object]:
    return openapi(Settings.load(fields), Catalogue.default())


def test_every_code_is_described_somewhere() -> None:
    codes = {code for answered in CODES.values() for code in answered}
    assert codes == set(REFUSALS) - {"method_not_allowed"}


def test_it_names_the_paths_that_are_ours(make) -> None:
    fields = {"prefix": "/e/v1", "client_name": "c.js"}
    assert list(described(**fields)["paths"]) == list(make(**fields).endpoint.routes)


def test_each_operation_answers_the_statuses_of_its_codes() -> None:
    for path in described()["paths"].values():
        for operation in path.values():
            codes = CODES.get(operation["operationId"])
            if codes is not None:
                statuses = {int(s) for s in operation["responses"] if int(s) >= 400}
                assert statuses == {REFUSALS[code].status for code in codes}


def test_every_reference_leads_somewhere() -> None:
    document = described()
    schemas = document["components"]["schemas"]
    named = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert set(named) == set(schemas)
    assert schemas["Event"]["properties"]["event"]["enum"] == sorted(Catalogue.default().events)
