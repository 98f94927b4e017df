"""What a status means, the same for both protocols, and how a Retry-After is read."""

from __future__ import annotations

import email.utils

import pytest

from second_mw.forwarder.exchange import Answer, Codec, NoAnswer
from second_mw.forwarder.v0 import V0
from second_mw.forwarder.v1 import V1
from second_mw.forwarder.verdicts import About, retry_after, ruling_of_absence
from tests.delivery.build import NOW, batch, payload

CODECS: list[Codec] = [
    V0("phc_test", gzip=False, historical_migration=False),
    V1("phc_test", gzip=False, historical_migration=False),
]

# Status → what it is about, and what an operator must be pointed at.
STATUSES: list[tuple[int, About, str]] = [
    (201, "sender", "SECOND_POSTHOG_HOST"),
    (204, "sender", "SECOND_POSTHOG_HOST"),
    (301, "sender", "SECOND_POSTHOG_HOST"),
    (302, "sender", "SECOND_POSTHOG_HOST"),
    (303, "sender", "SECOND_POSTHOG_HOST"),
    (307, "sender", "SECOND_POSTHOG_HOST"),
    (308, "sender", "SECOND_POSTHOG_HOST"),
    (400, "halve", ""),
    (401, "sender", "SECOND_POSTHOG_TOKEN"),
    (402, "sender", "billing"),
    (403, "sender", "SECOND_POSTHOG_TOKEN"),
    (404, "sender", "SECOND_POSTHOG_HOST"),
    (405, "sender", "SECOND_POSTHOG_HOST"),
    (407, "sender", "HTTPS_PROXY"),
    (408, "retry", "PostHog"),
    (410, "sender", "SECOND_POSTHOG_HOST"),
    (413, "halve", ""),
    (415, "sender", "SECOND_POSTHOG_HOST"),
    (418, "sender", "SECOND_POSTHOG_TOKEN"),
    (422, "sender", "SECOND_POSTHOG_TOKEN"),
    (429, "later", "billing"),
    (431, "sender", "SECOND_POSTHOG_HOST"),
    (500, "retry", "PostHog"),
    (501, "retry", "PostHog"),
    (502, "retry", "PostHog"),
    (503, "retry", "PostHog"),
    (504, "retry", "PostHog"),
    (522, "retry", "PostHog"),
    (600, "sender", "SECOND_POSTHOG_HOST"),
]


@pytest.mark.parametrize("codec", CODECS, ids=["v0", "v1"])
@pytest.mark.parametrize(("status", "about", "named"), STATUSES)
def test_every_status_has_its_meaning(codec: Codec, status: int, about: About, named: str) -> None:
    ruling = codec.judge(Answer(status, {"retry-after": "7"}, b"{}"), batch(payload()), NOW)
    # Of a 429 that says when, as this one does, v0 has a meaning of its own.
    expected = "retry" if isinstance(codec, V0) and status == 429 else about
    assert (ruling.about, ruling.retry_after) == (expected, 7.0)
    assert str(status) in ruling.reason
    assert named in ruling.look_at
    assert not ruling.verdicts


@pytest.mark.parametrize("codec", CODECS, ids=["v0", "v1"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Sign in</html>",
        b"[]",
        b"{}",
        b'"ok"',
        b'{"status":1',
        b'{"status":0}',
        b'{"status":true}',
        b'{"status":"1"}',
        b'{"status":"ok"}',
        b'{"status":["Ok"]}',
        b'{"results":[]}',
        b'{"results":null}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_200_in_foreign_words_is_about_the_sender(codec: Codec, body: bytes) -> None:
    ruling = codec.judge(Answer(200, {}, body), batch(payload()), NOW)
    assert ruling.about == "sender"
    assert "SECOND_POSTHOG_HOST" in ruling.look_at


def test_one_protocols_delivery_is_foreign_to_the_other() -> None:
    v0, v1 = CODECS
    one = batch(payload())
    assert v0.judge(Answer(200, {}, b'{"results":{}}'), one, NOW).about == "sender"
    assert v1.judge(Answer(200, {}, b'{"status":1}'), one, NOW).about == "sender"


@pytest.mark.parametrize("codec", CODECS, ids=["v0", "v1"])
def test_a_refusal_is_kept_as_one_short_printable_line(codec: Codec) -> None:
    body = "schlecht\r\n\x1b[31m\x00 für dich ".encode() + b"x" * 10_000
    ruling = codec.judge(Answer(400, {}, body), batch(payload()), NOW)
    assert ruling.reason.startswith("refused: 400 schlecht [31m für dich xxx")
    assert len(ruling.reason) < 250
    assert ruling.reason.isprintable()


@pytest.mark.parametrize("reason", ["timeout", "connection_error", "proxy_error", "tls_error"])
def test_no_answer_means_to_send_again_and_says_where_to_look(reason: str) -> None:
    ruling = ruling_of_absence(NoAnswer(reason))  # type: ignore[arg-type]
    assert (ruling.about, ruling.reason) == ("retry", reason)
    assert ruling.look_at


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        (" 2.5 ", 2.5),
        ("999999999999", 3600.0),
        (email.utils.formatdate(NOW + 90, usegmt=True), 89.5),
        (email.utils.formatdate(NOW + 90).replace("-0000", "+0000"), 89.5),
        (email.utils.formatdate(NOW + 90), 89.5),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0.0),
        (email.utils.formatdate(NOW + 10**7, usegmt=True), 3600.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("nan", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
        ("Tue, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_or_nothing(
    header: str | None, seconds: float | None
) -> None:
    assert retry_after(header, NOW) == seconds
