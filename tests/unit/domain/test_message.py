"""Messages and their times."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.message import OCTET_STREAM, Message, Publication, rfc3339
from app.domain.uri import MqUri

URI = MqUri.parse("s::Queues::q")


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1767322985.678, "2026-01-02T03:03:05.678Z"),
        (1767322985.9999, "2026-01-02T03:03:05.999Z"),
    ],
)
def test_times_are_rfc_3339_in_utc_with_milliseconds(timestamp: float, text: str) -> None:
    assert rfc3339(timestamp) == text


@given(st.floats(min_value=0, max_value=4e9))
def test_times_can_be_read_back(timestamp: float) -> None:
    text = rfc3339(timestamp)
    assert len(text) == len("2026-01-02T03:03:05.678Z")
    assert abs(datetime.fromisoformat(text).timestamp() - timestamp) <= 0.002


def test_a_body_is_not_printed() -> None:
    publication = Publication(body=b"secret", message_id="1")
    message = Message(
        mq_uri=URI,
        message_id="1",
        body=b"secret",
        content_type=None,
        headers={},
        redelivered=False,
        received_at=0.0,
    )
    assert "secret" not in f"{publication!r} {message!r}"


def test_a_publication_says_nothing_it_was_not_told() -> None:
    publication = Publication(body=b"", message_id="1")
    assert publication.content_type == OCTET_STREAM
    assert publication.persistent is False
    assert dict(publication.headers) == {}
    assert {publication.ttl_ms, publication.delay_ms, publication.priority, publication.reply_to} == {None}
    assert {publication.correlation_id, publication.type, publication.group} == {None}
