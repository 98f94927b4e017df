"""Bodies made to cost: bombs, lies about length, depth, numbers, keys, encodings, slow senders."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import pytest

from tests.abuse.drive import (
    EVENT,
    IDENTIFY,
    JSON,
    PREFERENCES,
    Attack,
    Told,
    asgi_reply,
    check,
    event,
    scope_of,
)
from tests.hosts import ADA, asgi_host
from tests.stores import Kept

POST = Told()
LIMIT = 256 * 1024
BOMB = gzip.compress(b"\0" * 50_000_000)
GZIP = POST.but(content_encoding="gzip")


def invalid(name: str, *parts: bytes, **settings: Any) -> Attack:
    return Attack(name, replace(POST, parts=parts), 400, "invalid_payload", settings)


def taken(name: str, *parts: bytes) -> Attack:
    return Attack(name, replace(POST, parts=parts), 204)


def zipped(name: str, body: bytes, status: int, code: str | None = None) -> Attack:
    return Attack(name, replace(GZIP, parts=(body,)), status, code)


def with_x(value: bytes) -> bytes:
    return b'{"event":"page viewed","properties":{"x":' + value + b"}}"


ATTACKS = [
    # Size
    Attack("a body over the limit", replace(POST, parts=(b" " * (LIMIT + 1),)), 413,
           "payload_too_large"),
    Attack("in many small parts, without a length",
           replace(POST, parts=(b" " * 1000,) * 300, length=None), 413, "payload_too_large"),
    Attack("a length of twenty digits", replace(POST, length="9" * 20), 413, "payload_too_large"),
    Attack("a length of five thousand digits", replace(POST, length="9" * 5000), 413,
           "payload_too_large"),
    taken("the last byte that fits", EVENT.ljust(LIMIT)),
    taken("one byte at a time", *(EVENT[i : i + 1] for i in range(len(EVENT)))),
    Attack("chunks and no length", replace(POST, length=None), 204),
    Attack("chunks and a length", replace(POST.but(transfer_encoding="chunked"), length=None), 204),
    Attack("empty parts without end", replace(POST, parts=(b"",) * 10_000 + (EVENT,)), 204),
    # gzip
    zipped("gzip", gzip.compress(EVENT), 204),
    zipped("a bomb, a thousand to one", BOMB, 413, "payload_too_large"),
    zipped("a bomb in a second member", gzip.compress(EVENT) + BOMB, 413, "payload_too_large"),
    zipped("exactly as large as allowed", gzip.compress(EVENT.ljust(LIMIT)), 204),
    zipped("one byte larger", gzip.compress(EVENT.ljust(LIMIT + 1)), 413, "payload_too_large"),
    zipped("two members", gzip.compress(EVENT[:9]) + gzip.compress(EVENT[9:]), 204),
    zipped("a thousand empty members", gzip.compress(b"") * 1000, 400, "invalid_payload"),
    zipped("cut short", gzip.compress(EVENT)[:-1], 400, "invalid_payload"),
    zipped("a wrong checksum", gzip.compress(EVENT)[:-8] + b"\0" * 8, 400, "invalid_payload"),
    zipped("something after it", gzip.compress(EVENT) + b"x", 400, "invalid_payload"),
    zipped("zlib, not gzip", zlib.compress(EVENT), 400, "invalid_payload"),
    zipped("nothing", b"", 400, "invalid_payload"),
    Attack("gzip in gzip", replace(POST.but(content_encoding="gzip, gzip"),
                                   parts=(gzip.compress(gzip.compress(EVENT)),)),
           415, "unsupported_media_type"),
    Attack("an unknown encoding", POST.but(content_encoding="br"), 415, "unsupported_media_type"),
    Attack("identity", POST.but(content_encoding="Identity"), 204),
    Attack("GZIP in capitals", replace(POST.but(content_encoding="GZIP"),
                                       parts=(gzip.compress(EVENT),)), 204),
    # Depth
    invalid("lists 100,000 deep", with_x(b"[" * 100_000 + b"]" * 100_000)),
    invalid("objects 40,000 deep", with_x(b'{"a":' * 40_000 + b"1" + b"}" * 40_000)),
    invalid("brackets that never close", b"[" * 200_000),
    invalid("brackets after a string that never ends", b'{"a":"' + b"[{" * 100_000),
    taken("as deep as allowed", with_x(b"[" * 60 + b"]" * 60)),
    taken("brackets side by side", with_x(b"[" + b"[]," * 20_000 + b"[]]")),
    # Numbers
    taken("an integer of 300 digits", with_x(b"9" * 300)),
    invalid("an integer of 100,000 digits", with_x(b"9" * 100_000)),
    taken("beyond 64 bits", with_x(b"18446744073709551616")),
    invalid("beyond a double", with_x(b"1e400")),
    taken("too small for a double", with_x(b"1e-400")),
    invalid("NaN", with_x(b"NaN")),
    invalid("Infinity", with_x(b"-Infinity")),
    invalid("a leading zero", with_x(b"01")),
    invalid("hexadecimal", with_x(b"0x1F")),
    # Keys
    taken("40,000 keys", b'{"event":"page viewed","properties":{'
          + b",".join(b'"%x":1' % i for i in range(20_000)) + b"}}"),
    taken("one key 10,000 times", b'{"event":"page viewed","properties":{'
          + b",".join([b'"k":1'] * 10_000) + b"}}"),
    taken("of two events the last", b'{"event":"no such","event":"page viewed"}'),
    Attack("of two events the last, once more",
           replace(POST, parts=(b'{"event":"page viewed","event":"no such"}',)), 400,
           "invalid_event"),
    taken("__proto__", *event(properties={"__proto__": {"x": 1}, "constructor": 1})),
    taken("a key of 100,000 characters", *event(properties={"k" * 100_000: 1})),
    # Text
    taken("an unpaired surrogate", with_x(b'"\\ud800"')),
    taken("surrogates the wrong way round", with_x(b'"\\udc00\\ud800"')),
    taken("a surrogate as a key", b'{"event":"page viewed","properties":{"\\udfff":1}}'),
    Attack("a surrogate in the name", replace(POST, parts=(b'{"event":"page viewed\\ud800"}',)),
           400, "invalid_event"),
    invalid("a surrogate beside broken JSON", b'{"event":"\\ud800"'),
    taken("NUL in a value", *event(properties={"x": "a\0b"})),
    invalid("NUL as a byte", EVENT + b"\0"),
    Attack("NUL in the name", replace(POST, parts=event(event="page viewed\0")), 400,
           "invalid_event"),
    invalid("bytes that are no UTF-8", with_x(b'"\xff\xfe"')),
    invalid("overlong UTF-8", with_x(b'"\xc0\xaf"')),
    invalid("UTF-16", EVENT.decode().encode("utf-16")),
    invalid("UTF-32", EVENT.decode().encode("utf-32-le")),
    invalid("a byte-order mark", b"\xef\xbb\xbf" + EVENT),
    invalid("a comment", b"/* */" + EVENT),
    invalid("single quotes", b"{'event':'page viewed'}"),
    invalid("a trailing comma", b'{"event":"page viewed",}'),
    invalid("two values", EVENT + EVENT),
    # Types
    invalid("the batch of a batch", b'{"batch":[' + b",".join([EVENT] * 101) + b"]}"),
    invalid("a number as the event", b'{"event":1}'),
    invalid("an object as the event", b'{"event":{"toString":"page viewed"}}'),
    invalid("a number as the uuid", *event(uuid=7)),
    invalid("a uuid in braces", *event(uuid="{0190a6e4-3d5b-7c1e-8a52-0123456789ab}")),
    invalid("a uuid and a new line", *event(uuid="0190a6e4-3d5b-7c1e-8a52-0123456789ab\n")),
    invalid("digits of another script in a uuid",
            *event(uuid="0190a6e4-3d5b-7c1e-8a52-0123456789a\u0661")),
    # Media types
    *(Attack(f"{charset} as the charset",
             POST.but(content_type=f"application/json; charset={charset}"), status, code)
      for charset, status, code in [
          ("utf-8", 204, None), ('"UTF-8"', 204, None), ("us-ascii", 204, None),
          ("utf-16", 415, "unsupported_media_type"), ("utf-7", 415, "unsupported_media_type"),
          ("latin-1", 415, "unsupported_media_type"), ("\xff", 415, "unsupported_media_type"),
      ]),
    *(Attack(f"{media} as the media type", POST.but(content_type=media), 415,
             "unsupported_media_type")
      for media in ["", "application/jsonx", "application/vnd.api+json", "multipart/form-data",
                    "application/x-www-form-urlencoded", "application/json, text/html", "*/*",
                    "text/json", "application /json"]),
    Attack("capitals", POST.but(content_type="Application/JSON"), 204),
    Attack("headers of 60,000 characters", POST.but(x_padding="x" * 60_000), 204),
    Attack("five hundred headers",
           replace(POST, headers=(*JSON, *((f"x-{i}", "y") for i in range(500)))), 204),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_hostile_body_gets_its_status_and_leaves_nothing(attack, ask, make) -> None:
    check(attack, ask, make(**attack.settings))


def test_a_bomb_is_refused_after_the_limit_and_not_after_memory(ask, make) -> None:
    analytics = make()
    told = replace(GZIP, parts=(BOMB,))
    ask(analytics, told)
    tracemalloc.start()
    try:
        assert ask(analytics, told).status == 413
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * LIMIT


@pytest.mark.parametrize("length", ["-1", "-500", "+5", "5.0", "0x5", "", " ", "²", "abc", "5,5"])
def test_a_length_that_is_none_is_never_read_by_wsgi(length: str, make) -> None:
    from tests.abuse.drive import by_wsgi

    analytics = make()
    told = replace(POST, length=length)
    assert by_wsgi(analytics, told).code == "length_required"
    assert analytics.stats()["accepted"] == 0


@pytest.mark.parametrize(
    ("path", "method"), [(PREFERENCES, "PUT"), (IDENTIFY, "POST")], ids=["preferences", "identify"]
)
def test_the_small_bodies_have_a_small_limit_and_may_be_zipped(path, method, ask, make) -> None:
    analytics = make()
    small = Told(method, path, JSON, (b'{"sharing":true}',))
    zipped_small = replace(small.but(content_encoding="gzip"), parts=(gzip.compress(small.body),))
    status = 200 if method == "PUT" else 204
    assert [ask(analytics, told).status for told in (small, zipped_small)] == [status, status]
    for body in (b" " * 5000, gzip.compress(b" " * 5000)):
        told = replace(small, parts=(body,))
        if body[:2] == b"\x1f\x8b":
            told = told.but(content_encoding="gzip")
        assert ask(analytics, told).code == "payload_too_large"


# Slow bodies, under ASGI (under WSGI it is the server that waits for the body)


async def _slow(analytics: Any, *, cancel: bool = False) -> Any:
    """Post a body of which only the beginning comes."""
    wrapped = analytics.asgi(asgi_host, user=lambda _: ADA, user_blocks=False)
    messages = [{"type": "http.request", "body": EVENT[:5], "more_body": True}]
    sent: list[Any] = []
    waits = asyncio.Event()

    async def receive() -> Any:
        if messages:
            return messages.pop()
        waits.set()
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    request = asyncio.ensure_future(wrapped(scope_of(POST), receive, send))
    await waits.wait()
    if cancel:
        request.cancel()
    await request
    return sent


def test_a_body_that_trickles_in_is_given_up(make) -> None:
    analytics = make(body_timeout=0.05)
    start, _ = asyncio.run(_slow(analytics))
    assert start["status"] == 400
    stats = analytics.stats()
    assert (stats["accepted"], stats["slow_bodies"]) == (0, 1)
    assert stats["rejected"] == {"invalid_payload": 1}


def test_a_server_that_cancels_a_request_is_obeyed(make) -> None:
    analytics = make()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_slow(analytics, cancel=True))
    assert analytics.stats()["accepted"] == 0


def test_after_a_slow_body_the_task_can_wait_again(make) -> None:
    analytics = make(body_timeout=0.05)

    async def twice() -> int:
        await _slow(analytics)
        await asyncio.sleep(0)
        wrapped = analytics.asgi(asgi_host, user=lambda _: ADA, user_blocks=False)
        return (await asgi_reply(wrapped, POST)).status

    assert asyncio.run(twice()) == 204


def test_what_of_the_host_is_ready_goes_before_an_event(make) -> None:
    analytics = make()
    taken_by_then: list[int] = []

    async def host(*asgi: Any) -> None:
        taken_by_then.append(analytics.stats()["accepted"])
        await asgi_host(*asgi)

    wrapped = analytics.asgi(host, user=lambda _: ADA, user_blocks=False)

    async def beside() -> list[int]:
        # The first of all makes ready what the next ones find.
        await asgi_reply(wrapped, POST)
        both = [asgi_reply(wrapped, POST), asgi_reply(wrapped, replace(POST, path="/orders"))]
        return [reply.status for reply in await asyncio.gather(*both)]

    assert asyncio.run(beside()) == [204, 200]
    assert (taken_by_then, analytics.stats()["accepted"]) == ([1], 2)


def test_without_asyncio_there_is_no_deadline_and_all_else_works(make) -> None:
    """As under trio: stepping the coroutine by hand is an event loop of its own."""
    analytics = make()
    wrapped = analytics.asgi(asgi_host, user=lambda _: ADA, user_blocks=False)
    request = asgi_reply(wrapped, POST)
    with pytest.raises(StopIteration) as done:
        request.send(None)
    assert done.value.value.status == 204


def test_a_client_that_is_gone_when_it_is_answered_troubles_nobody(make) -> None:
    analytics = make(outbox=Kept())
    wrapped = analytics.asgi(asgi_host, user=lambda _: ADA, user_blocks=False)

    async def receive() -> Any:
        return {"type": "http.request", "body": EVENT}

    async def send(_: Any) -> None:
        raise OSError("the client has gone")

    asyncio.run(wrapped(scope_of(POST), receive, send))
    assert analytics.stats()["accepted"] == 1
