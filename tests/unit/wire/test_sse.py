"""Server-sent events, read back by a parser that was written from the standard."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.message import Message
from app.domain.uri import MqUri
from app.wire import sse
from tests.unit.wire.event_source import Event, EventSource

TOPIC = MqUri.parse("svc::Topics::status")
POSITION = "aB3_-xyz.17"

#: What looks like a field, ends a line or an event, or is read in a special way somewhere.
LOOK_ALIKES = st.sampled_from(
    [
        "\r", "\n", "\r\n", "\n\r", "\n\n", "\r\r", "\ufeff", "\0", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", " ",
        ":", "id: 9", "event: gap", "data: x", "retry: 1", "data", ": comment", "id", "\u00e9", "\U0001f600",
    ]
)  # fmt: skip
TEXTS = st.lists(LOOK_ALIKES | st.text(max_size=5), max_size=12).map("".join)


def _message(body: bytes, content_type: str | None = "text/plain") -> Message:
    return Message(
        mq_uri=TOPIC,
        message_id="m-1",
        body=body,
        content_type=content_type,
        headers={"JobID": "1"},
        redelivered=False,
        received_at=0.0,
    )


def _lines(text: str) -> str:
    """A text as an EventSource shows it: its lines, joined with LF."""
    return "\n".join(re.split("\r\n|\n|\r", text))


@given(TEXTS)
@example("")
@example("a\nevent: x\nid: 9")
@example("a\revent: x\rid: 9")
@example("\ufeff{}")
@example("ends with one\n")
@example(" keeps its space")
@example("\r\n")
def test_sse_case_03_sse_case_04_a_text_body_arrives_line_by_line_and_forges_nothing(text: str) -> None:
    source = EventSource.read(sse.message_data(_message(text.encode()), POSITION))
    assert source.events == [Event(_lines(text), "message", POSITION)]
    assert source.reconnection_ms is None


@given(TEXTS)
def test_sse_case_02_the_first_event_of_a_stream_keeps_a_bom_in_its_data(text: str) -> None:
    source = EventSource.read(sse.message_data(_message(b"\xef\xbb\xbf" + text.encode()), None))
    assert source.events == [Event("\ufeff" + _lines(text))]


@given(st.lists(TEXTS, max_size=5))
def test_sse_case_12_events_follow_each_other_without_touching(texts: list[str]) -> None:
    stream = b"".join(sse.message_data(_message(text.encode()), f"ep-och.{n}") for n, text in enumerate(texts))
    assert EventSource.read(stream).events == [
        Event(_lines(text), "message", f"ep-och.{n}") for n, text in enumerate(texts)
    ]


@given(st.binary(max_size=60))
@example(b"\xff")
@example(b"\xed\xa0\x80")
def test_sse_case_13_any_bytes_arrive_in_one_of_two_ways(body: bytes) -> None:
    (event,) = EventSource.read(sse.message_data(_message(body), POSITION)).events
    if event.type == "binary":
        assert base64.b64decode(event.data, validate=True) == body
        with pytest.raises(UnicodeDecodeError):
            body.decode()
    else:
        assert event == Event(_lines(body.decode()), "message", POSITION)


@given(st.binary(max_size=60) | TEXTS.map(str.encode), st.sampled_from([None, "text/plain", "application/json"]))
def test_an_envelope_is_one_json_object_on_any_body(body: bytes, content_type: str | None) -> None:
    (event,) = EventSource.read(sse.message_envelope(_message(body, content_type), POSITION)).events
    assert (event.type, event.last_event_id) == ("message", POSITION)
    assert json.loads(event.data)["id"] == POSITION


def test_json_with_line_ends_stays_json_in_an_envelope() -> None:
    (event,) = EventSource.read(sse.message_envelope(_message(b'{"a":\r\n1,\r"b":\n2}', "text/json"), None)).events
    value = json.loads(event.data)
    assert value["body"] == {"a": 1, "b": 2}
    assert value["id"] is None


def test_without_a_position_there_is_no_id() -> None:
    assert b"id:" not in sse.message_data(_message(b"x"), None)
    assert b"id:" not in sse.gap("u", "slow", 1, position=None)


def test_sse_case_05_a_position_alone_is_remembered_and_fires_nothing() -> None:
    source = EventSource.read(sse.position_only(POSITION))
    assert source.events == []
    assert source.last_event_id == POSITION


def test_sse_case_15_retry_and_comments_fire_nothing_and_leave_the_position() -> None:
    stream = sse.retry(2345) + sse.comment("welcome") + sse.position_only(POSITION) + sse.comment() + sse.retry(10)
    source = EventSource.read(stream)
    assert source.events == []
    assert [comment.strip() for comment in source.comments] == ["welcome", ""]
    assert (source.reconnection_ms, source.last_event_id) == (10, POSITION)


@pytest.mark.parametrize("missed", [None, 0, 7])
def test_a_gap_says_where_why_and_how_much(missed: int | None) -> None:
    (event,) = EventSource.read(sse.gap("svc::Topics::é\n", "expired", missed, position=POSITION)).events
    assert (event.type, event.last_event_id) == ("gap", POSITION)
    assert json.loads(event.data) == {"mq_uri": "svc::Topics::é\n", "reason": "expired", "missed": missed}


def test_an_event_of_our_own_is_json_on_one_line() -> None:
    data = sse.json_event("status", {"service": "a\nid: 1\r", "link": "up"})
    assert EventSource.read(data).events == [Event('{"service":"a\\nid: 1\\r","link":"up"}', "status")]


def test_a_megabyte_in_one_line_arrives_whole() -> None:
    body = b"x" * (1 << 20)
    assert EventSource.read(sse.message_data(_message(body), None)).events == [Event(body.decode())]
