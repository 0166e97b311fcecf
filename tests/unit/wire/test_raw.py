"""A message as the header fields of an HTTP answer: nothing a producer wrote can be read as another field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.message import Message
from app.domain.uri import MqUri
from app.wire import raw


def _message(headers: dict[str, str] | None = None, **fields: Any) -> Message:
    known: dict[str, Any] = {
        "mq_uri": MqUri.parse("svc::Queues::jobs"),
        "message_id": "m-1",
        "body": b"",
        "content_type": None,
        "redelivered": False,
        "received_at": 0.0,
    }
    return Message(headers=headers or {}, **{**known, **fields})


def test_fields_are_named_as_a_publish_names_them() -> None:
    headers = {
        "correlation-id": "c-1",
        "type": "answer",
        "priority": "7",
        "persistent": "true",
        "reply-to": "svc::Queues::other",
        "traceparent": "00-ab",
        "ce-id": "é",
        "JobID": "1",
        "owner": "ünï",
    }
    assert raw.fields(_message(headers, redelivered=True)) == [
        (b"mq-message-id", b"m-1"),
        (b"mq-redelivered", b"true"),
        (b"mq-correlation-id", b"c-1"),
        (b"mq-type", b"answer"),
        (b"mq-priority", b"7"),
        (b"mq-persistent", b"true"),
        (b"mq-reply-to", b"svc::Queues::other"),
        (b"traceparent", b"00-ab"),
        (b"ce-id", "é".encode()),
        (b"mq-headers", rb'{"JobID":"1","owner":"\u00fcn\u00ef"}'),
        (b"mq-header-jobid", b"1"),
        (b"mq-header-owner", "ünï".encode()),
    ]


def test_a_message_with_nothing_has_its_id_alone() -> None:
    assert raw.fields(_message()) == [(b"mq-message-id", b"m-1")]
    assert raw.fields(_message(message_id="")) == []


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        (None, b"application/octet-stream"),
        ("", b"application/octet-stream"),
        ("text/plain; charset=utf-8", b"text/plain; charset=utf-8"),
        ("text/plain\r\nset-cookie: a=b", b"application/octet-stream"),
        ("text/\u00e9", b"application/octet-stream"),
        ("x" * 256, b"application/octet-stream"),
    ],
)
def test_a_content_type_is_one_or_none(given: str | None, answered: bytes) -> None:
    assert raw.content_type(_message(content_type=given)) == answered


def test_what_no_field_can_hold_stands_in_json_only() -> None:
    headers = {"a": "1\r\nset-cookie: b=c", "type": "\x00", "no name": "2", "A": "first", "empty": ""}
    found = raw.fields(_message(headers, message_id="m\n1"))
    assert [name for name, _ in found] == [b"mq-headers", b"mq-header-a"]
    assert json.loads(found[0][1]) == headers
    assert found[1] == (b"mq-header-a", b"first")


def test_del_stands_in_no_field() -> None:
    assert raw.fields(_message({"a": "\x7f"}, message_id="")) == [(b"mq-headers", rb'{"a":"\u007f"}')]


def test_what_there_is_no_room_for_is_counted() -> None:
    headers = {"small": "1", "large": "x" * raw.MAX_BYTES, "last": "2"}
    found = dict(raw.fields(_message(headers)))
    assert json.loads(found[b"mq-headers"]) == {"small": "1", "last": "2"}
    assert found[b"mq-headers-omitted"] == b"1"
    assert dict(raw.fields(_message({"large": "x" * raw.MAX_BYTES}))) == {
        b"mq-message-id": b"m-1",
        b"mq-headers-omitted": b"1",
    }


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=4000), max_size=120))
def test_a_head_is_bounded_and_has_no_line_ends(headers: dict[str, str]) -> None:
    found = raw.fields(_message(headers))
    own = [(name, value) for name, value in found if name.startswith(b"mq-header")]
    assert sum(len(name) + len(value) for name, value in own) <= raw.MAX_BYTES + 100
    assert len([name for name, _ in own if name.startswith(b"mq-header-")]) <= raw.MAX_FIELDS
    assert not any(byte < 0x20 or byte == 0x7F for name, value in found for byte in name + value)
    assert len({name for name, _ in found}) == len(found)
