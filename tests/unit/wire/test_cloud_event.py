"""CloudEvents in structured mode."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from app.domain.message import Message
from app.domain.uri import MqUri
from app.wire.cloud_event import structured

OWN = {"ce-id": "e-1", "ce-source": "/jobs/1", "ce-type": "org.example.done", "ce-specversion": "1.0"}


def message(body: bytes = b"{}", content_type: str | None = "application/json", **headers: Any) -> Message:
    return Message(
        mq_uri=MqUri.parse("svc.example::Topics::a/b"),
        message_id="m-1",
        body=body,
        content_type=content_type,
        headers=headers,
        redelivered=False,
        received_at=0.0,
    )


def event(of: Message) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(structured(of))
    return found


def test_a_message_that_is_no_cloud_event_becomes_one() -> None:
    assert event(message(b'{"JobID": 1}')) == {
        "specversion": "1.0",
        "id": "m-1",
        "source": "/mq/svc.example/Topics/a%2Fb",
        "type": "mq-gateway.message",
        "time": "1970-01-01T00:00:00.000Z",
        "datacontenttype": "application/json",
        "data": {"JobID": 1},
    }


def test_what_came_in_binary_mode_keeps_its_attributes() -> None:
    found = event(message(b'{"a":1}', **OWN, **{"CE-Subject": "x", "ce-myext": "5", "other": "no"}))
    assert {name: found[name] for name in ("id", "source", "type", "specversion", "subject", "myext")} == {
        "id": "e-1",
        "source": "/jobs/1",
        "type": "org.example.done",
        "specversion": "1.0",
        "subject": "x",
        "myext": "5",
    }
    assert "other" not in found


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("plain", "plain"),
        ('"a \\"b\\""', 'a "b"'),
        ('"', '"'),
        ('"\\"', "\\"),
    ],
)
def test_header_values_are_decoded(value: str, decoded: str) -> None:
    assert event(message(b"{}", **{"ce-subject": value}))["subject"] == decoded


@pytest.mark.parametrize("name", ["ce-", "ce-a.b", "ce-a-b"])
def test_what_is_no_attribute_name_is_left_out(name: str) -> None:
    assert len(event(message(b"{}", **{name: "x"}))) == 7


def test_bodies_that_are_no_json() -> None:
    assert event(message(b"text", "text/plain"))["data"] == "text"
    found = event(message(b"\xff", None))
    assert "data" not in found
    assert base64.b64decode(found["data_base64"]) == b"\xff"
    assert "datacontenttype" not in found


def test_what_came_in_structured_mode_is_passed_on() -> None:
    body = b'{"specversion":"1.0","id":"1","source":"/","type":"t","data": 1.0}'
    assert structured(message(body, "application/cloudevents+json; charset=utf-8")) == body
    assert event(message(b"{", "application/cloudevents+json"))["data"] == "{"
