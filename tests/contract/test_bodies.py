"""How a body is read: chunked, without a length, cut short, in many parts."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import msgspec
import pytest
from asgiref.testing import ApplicationCommunicator
from hypothesis import example, given
from hypothesis import strategies as st

from second_mw import Catalogue, Refused
from second_mw.body import Batch, Item, decoded, posted
from second_mw.endpoint import Endpoint
from second_mw.privacy.pipeline import Pipeline
from second_mw.settings import Settings
from second_mw.tally import Tally
from tests.hosts import ADA

CAPTURE = "/api/analytics/capture"
EVENT = b'{"event":"page viewed"}'


class Blocks(io.BytesIO):
    """A socket on which reading past the body blocks for ever."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._length = len(body)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or self.tell() + size > self._length:
            raise AssertionError("reading past the body blocks for ever")
        return super().read(size)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def post_wsgi(analytics: Any, body: Any, **environ: Any) -> str:
    statuses: list[str] = []
    wrapped = analytics.wsgi(lambda *_: [b"host"], user=lambda _: ADA)
    wrapped(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": CAPTURE,
            "SERVER_NAME": "app.example",
            "SERVER_PORT": "80",
            "CONTENT_TYPE": "application/json",
            "wsgi.url_scheme": "http",
            "wsgi.input": body,
            **environ,
        },
        lambda status, headers: statuses.append(status),
    )
    return statuses[0]


def test_a_wsgi_body_is_never_read_past_its_content_length(make) -> None:
    assert post_wsgi(make(), Blocks(EVENT), CONTENT_LENGTH=str(len(EVENT))) == "204 No Content"


@pytest.mark.parametrize("length", ["", None, "abc"])
def test_a_wsgi_body_without_a_length_is_not_read(length: str | None, make) -> None:
    environ = {} if length is None else {"CONTENT_LENGTH": length}
    assert post_wsgi(make(), Blocks(EVENT), **environ) == "411 Length Required"


def test_a_chunked_wsgi_body_is_read_where_the_server_ends_it(make) -> None:
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    assert post_wsgi(make(), io.BytesIO(EVENT), **environ) == "204 No Content"
    assert post_wsgi(make(), io.BytesIO(b" " * 300_000), **environ).startswith("413")


def test_a_chunked_wsgi_body_that_the_server_does_not_end_is_not_read(make) -> None:
    assert post_wsgi(make(), Blocks(EVENT), HTTP_TRANSFER_ENCODING="chunked").startswith("411")


def test_a_wsgi_body_that_ends_early_is_taken_as_nothing(make) -> None:
    analytics = make()
    assert post_wsgi(analytics, io.BytesIO(EVENT), CONTENT_LENGTH="500").startswith("400")
    assert analytics.stats()["accepted"] == 0


def test_a_wsgi_body_whose_socket_breaks_is_taken_as_nothing(make) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            raise ConnectionResetError

    analytics = make()
    assert post_wsgi(analytics, Broken(), CONTENT_LENGTH="5").startswith("400")
    assert analytics.stats()["accepted"] == 0


def post_asgi(analytics: Any, *messages: dict[str, Any], **headers: str) -> int | None:
    async def call() -> int | None:
        wrapped = analytics.asgi(lambda *_: None, user=lambda _: ADA, user_blocks=False)
        scope = {
            "type": "http",
            "method": "POST",
            "path": CAPTURE,
            "scheme": "http",
            "server": ("app.example", 80),
            "headers": [
                (b"content-type", b"application/json"),
                *((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()),
            ],
        }
        communicator = ApplicationCommunicator(wrapped, scope)
        for message in messages:
            await communicator.send_input(message)
        await communicator.wait(5)
        if communicator.output_queue.empty():
            return None
        return (await communicator.receive_output(5))["status"]

    return asyncio.run(call())


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_an_asgi_body_in_many_parts_without_a_length_is_read(make) -> None:
    parts = [part(EVENT[i : i + 1], more=True) for i in range(len(EVENT))]
    assert post_asgi(make(), *parts, {"type": "http.request"}) == 204


def test_an_asgi_body_is_read_no_further_than_the_limit(make) -> None:
    huge = part(b" " * 200_000, more=True)
    # Three parts were sent, and the end never comes: the second decides.
    assert post_asgi(make(), huge, huge) == 413


def test_a_content_length_over_the_limit_is_refused_unread(make) -> None:
    assert post_asgi(make(), content_length="300000") == 413


def test_a_content_length_that_lies_changes_nothing(make) -> None:
    assert post_asgi(make(), part(EVENT, more=False), content_length="1") == 204
    assert post_asgi(make(), part(EVENT, more=False), content_length="abc") == 204


def test_a_client_that_goes_away_gets_no_answer_and_takes_nothing(make) -> None:
    analytics = make()
    gone = post_asgi(analytics, part(EVENT[:5], more=True), {"type": "http.disconnect"})
    assert gone is None
    assert analytics.stats()["accepted"] == 0


# What msgspec checks while it decodes, and what is checked afterwards

UUID = "0f8b7a4e-3c1d-4e2f-9a6b-5c4d3e2f1a0b"
ANON = f"anon_{UUID}"
_settings = Settings.load({"token": "phc_test"})
ENDPOINT = Endpoint(_settings, Pipeline(_settings, Catalogue.default(), b"a key"), Tally(), {})

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | st.just(UUID),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
fields: dict[str, st.SearchStrategy[Any]] = {
    "event": st.sampled_from(["page viewed", "no such event"]) | anything,
    "properties": st.fixed_dictionaries(
        {}, optional={"surface": st.just("app"), "anonymized": anything, "workspace_id": anything}
    )
    | anything,
    "uuid": st.sampled_from([UUID, UUID.upper()]) | anything,
    "timestamp": anything,
    "anonymousDistinctId": st.just(ANON) | anything,
    "subject": anything,
    "anonymized": anything,
    "more": anything,
}


def outcome(item: Any, key: str | None) -> Any:
    try:
        return ENDPOINT._posted(item, ADA, key)
    except Refused as refused:
        return refused.code


@given(st.fixed_dictionaries({}, optional=fields), st.sampled_from([None, UUID]))
@example(
    {"event": "page viewed", "uuid": UUID, "anonymousDistinctId": ANON, "properties": {}}, None
)
def test_a_body_is_taken_alike_whoever_checks_it(item: dict[str, Any], key: str | None) -> None:
    body = msgspec.json.encode(item)
    assert outcome(posted(body), key) == outcome(decoded(body), key)
    batch = posted(b'{"batch":[' + body + b"]}")
    items = batch.batch if isinstance(batch, Batch) else batch["batch"]
    assert outcome(items[0], key) == outcome(decoded(body), key)


def test_what_browsers_post_is_checked_while_it_is_decoded() -> None:
    item = {"event": "page viewed", "properties": {"surface": "app"}, "uuid": UUID}
    body = msgspec.json.encode({**item, "timestamp": None, "anonymousDistinctId": ANON})
    assert posted(body) == Item("page viewed", {"surface": "app"}, UUID, None, ANON)
    assert isinstance(posted(b'{"batch":[' + body + b"]}"), Batch)
    assert posted(msgspec.json.encode({**item, "anonymized": True})) == {**item, "anonymized": True}


def nesting(depth: int, *, batch: bool) -> bytes:
    """Return a body that nests so deep, as one event or as a batch of many."""
    inside = depth - (4 if batch else 2)
    event = b'{"event":"page viewed","properties":{"a":' + b"[" * inside + b"]" * inside + b"}}"
    shallow = b'{"event":"page viewed","properties":{"a":[]}},'
    return b'{"batch":[' + shallow * 40 + event + b"]}" if batch else event


@pytest.mark.parametrize("batch", [False, True])
def test_a_body_may_nest_64_deep_and_no_deeper(batch: bool) -> None:
    for head in (b"{", b'{"more":1,'):
        assert posted(head + nesting(64, batch=batch)[1:])
        with pytest.raises(Refused, match="invalid_payload"):
            posted(head + nesting(65, batch=batch)[1:])


def test_a_large_batch_is_checked_while_it_is_decoded() -> None:
    event = b'{"event":"page viewed","properties":{"surface":"app"}}'
    assert isinstance(posted(b'{"batch":[' + b",".join([event] * 100) + b"]}"), Batch)
