"""Bodies: JSON or not, text or not, and the envelope."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidJson
from app.domain.message import Message
from app.domain.uri import MqUri
from app.wire.payload import as_text, check_json, envelope, is_json, is_valid_json, parse_json

URI = MqUri.parse("svc::Queues::jobs")
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _message(body: bytes, **fields: Any) -> Message:
    known: dict[str, Any] = {
        "mq_uri": URI,
        "message_id": "m-1",
        "content_type": "application/json",
        "headers": {},
        "redelivered": False,
        "received_at": 1767322985.678,
    }
    return Message(body=body, **{**known, **fields})


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/cloudevents+json", True),
        (" text/json ;q", True),
        ("application/problem+json;v=1", True),
        ("application/jsonl", False),
        ("application/json-seq", False),
        ("text/plain; a=application/json", False),
        ("application/xml", False),
        ("", False),
        (None, False),
    ],
)
def test_which_media_types_are_json(content_type: str | None, *, expected: bool) -> None:
    assert is_json(content_type) is expected


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b" [1]\r\n",
        b'"x"',
        b"null",
        b"-0",
        b"1e999",
        b'{"a":1,"a":2}',
        b'"\xe2\x80\xa8"',
        b'"\\ud83d\\ude00"',
        b'"\\udcff"',
        b'["\\ud800\\u0041"]',
        b"123456789012345678901234567890",
    ],
)
def test_json_of_rfc_8259_passes(body: bytes) -> None:
    check_json(body)
    assert is_valid_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{]",
        b"[1,]",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"1 2",
        b"{}{}",
        b"{'a':1}",
        b"tru",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b'"a\nb"',
        b'"a\x00b"',
        b'"\\x"',
        b'"\\ud8"',
        b'"\\uzzzz"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00}\x00",
        b"\xc2\xa01",
        b"\x0c1",
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJson, match="not valid JSON"):
        check_json(body)
    assert not is_valid_json(body)


@pytest.mark.parametrize("depth", [10, 300, 600])
def test_depth_is_no_reason_to_refuse(depth: int) -> None:
    check_json(b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000,
        b"[" * 300 + b"]" * 299,
        b"[" * 300 + b"NaN" + b"]" * 300,
        b"[" * 300 + b'"\xff"' + b"]" * 300,
    ],
)
def test_a_deep_body_that_is_wrong_or_endless_is_refused_and_kills_nobody(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        check_json(body)


@given(JSON_VALUES, st.booleans())
def test_whatever_python_writes_as_json_passes(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    try:
        body = text.encode()
    except UnicodeEncodeError:  # a lone surrogate cannot be written as it is
        body = json.dumps(value).encode()
    assert parse_json(body) == json.loads(body)


@given(st.binary(max_size=40) | st.text('[]{}",:\\u0d8e+-.1 \n', max_size=30).map(str.encode))
def test_nothing_passes_that_another_parser_refuses(body: bytes) -> None:
    if is_valid_json(body):
        json.loads(body.decode())


def _is_json(body: bytes) -> bool:
    """By Python's own parser, without the constants that RFC 8259 does not know."""
    try:
        json.loads(body.decode(), parse_constant=_refuse)
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


_TOKENS = st.sampled_from(
    [
        *r"""[ ] { } : , " \ / 0 -0 01 1. .5 1e5 1E+ - + true false null NaN Infinity -Infinity "a" "a": \u0041 \ud800
        "\ud800" "\udc00\ud800" \x 'a' // é""".split(),
        *("\ufeff", " ", "\t", "\x00", "\x0c", "\x7f"),
    ]
)


@given(
    st.lists(_TOKENS, max_size=12).map(lambda tokens: "".join(tokens).encode())
    | st.tuples(
        JSON_VALUES.map(lambda value: json.dumps(value).encode()), st.binary(max_size=2), st.integers(0, 60)
    ).map(lambda parts: parts[0][: parts[2]] + parts[1] + parts[0][parts[2] :])
)
def test_what_is_json_is_what_another_parser_says(body: bytes) -> None:
    assert is_valid_json(body) == _is_json(body)


@pytest.mark.parametrize("text", ["", "a", "é", "\ufeffa", "\0", "\ufffd", "\U0001f600"])
def test_utf8_is_text(text: str) -> None:
    assert as_text(text.encode()) == text


@pytest.mark.parametrize("body", [b"\xff", b"a\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_other_bytes_are_not(body: bytes) -> None:
    assert as_text(body) is None


def test_an_envelope_has_exactly_the_members_of_the_contract() -> None:
    message = _message(b'{"a": 1.10}', headers={"JobID": "1", "owner": "é"}, redelivered=True)
    assert json.loads(envelope(message, "ep-och1.5")) == {
        "id": "ep-och1.5",
        "message_id": "m-1",
        "mq_uri": "svc::Queues::jobs",
        "content_type": "application/json",
        "headers": {"JobID": "1", "owner": "é"},
        "body": {"a": 1.1},
        "body_encoding": "json",
        "redelivered": True,
        "received_at": "2026-01-02T03:03:05.678Z",
    }


@given(JSON_VALUES, st.sampled_from([None, 1, "\t"]))
def test_a_json_body_is_pasted_byte_for_byte(value: Any, indent: int | str | None) -> None:
    body = json.dumps(value, indent=indent).encode()
    encoded = envelope(_message(body), None)
    assert b',"body":' + body + b',"body_encoding":"json"' in encoded


def test_digits_and_order_of_a_json_body_survive() -> None:
    body = b'{"z":1.000000000000000000001,"a":10000000000000000000000}'
    assert body in envelope(_message(body), None)


@given(st.binary(max_size=50), st.sampled_from([None, "text/plain", "application/json", "x/y+json"]))
def test_whatever_the_body_it_can_be_had_back(body: bytes, content_type: str | None) -> None:
    value = json.loads(envelope(_message(body, content_type=content_type), "p"))
    match value["body_encoding"]:
        case "json":
            assert is_json(content_type)
            assert value["body"] == json.loads(body)
        case "text":
            assert value["body"].encode() == body
        case "base64":
            assert base64.b64decode(value["body"], validate=True) == body
            assert as_text(body) is None
        case other:
            raise AssertionError(other)


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10)), st.none() | st.text(max_size=10))
def test_headers_of_any_producer_fit_an_envelope(headers: dict[str, str], content_type: str | None) -> None:
    value = json.loads(envelope(_message(b"x", headers=headers, content_type=content_type), None))
    assert value["headers"] == headers
    assert value["content_type"] == content_type


def test_a_lone_surrogate_in_a_header_cannot_break_an_envelope() -> None:
    assert json.loads(envelope(_message(b"x", headers={"a": "b\udc80"}), None))["headers"] == {"a": "b?"}
