"""Showing events."""

from __future__ import annotations

import io
import json

import pytest

from app.client.events import ServerEvent
from app.client.output import EventPrinter


def _show(event: ServerEvent, *, envelope: bool = False, as_json: bool = False) -> tuple[bytes, list[str], bool]:
    output, notices = io.BytesIO(), list[str]()
    printer = EventPrinter(output, notices.append, envelope=envelope, as_json=as_json)
    shown = printer.show(event)
    return output.getvalue(), notices, shown


@pytest.mark.parametrize(
    ("event", "written"),
    [
        (ServerEvent("message", "a\nb", ""), b"a\nb\n"),
        (ServerEvent("binary", "AP8=", ""), b"\x00\xff\n"),
        (ServerEvent("binary", "not base64!", ""), b"not base64!\n"),
        (ServerEvent("of-a-later-version", "é", ""), "é\n".encode()),
    ],
)
def test_a_message_is_its_body(event: ServerEvent, written: bytes) -> None:
    assert _show(event) == (written, [], True)


def test_as_json_one_object_a_line() -> None:
    written, _, _ = _show(ServerEvent("message", "a\né", "e.1"), as_json=True)
    assert json.loads(written) == {"event": "message", "id": "e.1", "data": "a\né"}
    assert written.count(b"\n") == 1
    assert json.loads(_show(ServerEvent("binary", "AP8=", ""), as_json=True)[0]) == {
        "event": "binary",
        "id": None,
        "data": "AP8=",
    }


def test_an_envelope_is_pasted_into_the_object() -> None:
    envelope = '{"body": {"a": 1}}'
    assert _show(ServerEvent("message", envelope, ""), envelope=True)[0] == envelope.encode() + b"\n"
    written, _, _ = _show(ServerEvent("message", envelope, ""), envelope=True, as_json=True)
    assert json.loads(written)["data"] == {"body": {"a": 1}}


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            ServerEvent("gap", '{"mq_uri": "d::Topics::t", "reason": "slow", "missed": 3}', ""),
            "gap in d::Topics::t (slow): 3 messages missed",
        ),
        (
            ServerEvent("gap", '{"mq_uri": "d::Topics::t", "reason": "restart", "missed": null}', ""),
            "gap in d::Topics::t (restart): an unknown number of messages missed",
        ),
        (ServerEvent("status", '{"link": "down"}\x1b', ""), 'status: {"link": "down"} '),
    ],
)
def test_what_the_gateway_says_is_a_notice(event: ServerEvent, sentence: str) -> None:
    assert _show(event, as_json=True) == (b"", [sentence], False)
