"""What a publish says beside its body."""

from __future__ import annotations

import json

import pytest

from app.api.publish_request import MAX_MILLISECONDS, PROPERTIES, PublishRequest, parse
from app.api.request_headers import RequestHeaders
from app.domain.errors import InvalidHeader, InvalidParameter
from app.domain.uri import MqUri


def _parse(*pairs: tuple[str, str | bytes], query: bytes = b"") -> PublishRequest:
    headers = [(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in pairs]
    return parse(RequestHeaders(headers), query, longest_timeout=60)


def test_nothing_said_is_the_defaults() -> None:
    assert _parse(("host", "x"), ("accept", "*/*")) == PublishRequest(content_type=None, headers={})


def test_every_property_is_read() -> None:
    request = _parse(
        ("mq-persistent", "True"),
        ("mq-ttl-ms", "1000"),
        ("mq-delay-ms", "1"),
        ("mq-priority", "9"),
        ("mq-correlation-id", "é"),
        ("mq-type", "job"),
        ("mq-group", "g"),
        ("mq-reply-to", "demo::queue::replies"),
    )
    assert request.persistent is True
    assert request.reply_to == MqUri.parse("demo::Queues::replies")
    assert request.properties == {
        "ttl_ms": 1000,
        "delay_ms": 1,
        "priority": 9,
        "correlation_id": "é",
        "type": "job",
        "group": "g",
    }


def test_messages_have_headers_of_their_own() -> None:
    request = _parse(
        ("mq-header-job.id_1", "1"),
        ("mq-headers", '{"JobID":"2","Site":"é"}'),
        ("traceparent", "00-1-2-01"),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("baggage", "k=v"),
        ("ce-id", "7"),
        ("user-agent", "nobody's business"),
    )
    assert request.headers == {
        "job.id_1": "1",
        "JobID": "2",
        "Site": "é",
        "traceparent": "00-1-2-01",
        "tracestate": "a=1,b=2",
        "baggage": "k=v",
        "ce-id": "7",
    }


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        ("application/json", "application/json"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("", None),
        ("application/x-www-form-urlencoded", None),
        ("Application/X-WWW-Form-Urlencoded; charset=utf-8", None),
    ],
)
def test_a_type_nobody_chose_is_none(value: str, content_type: str | None) -> None:
    assert _parse(("content-type", value)).content_type == content_type


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("mq-persistent", "yes", "true or false"),
        ("mq-ttl-ms", "0", f"from 1 to {MAX_MILLISECONDS}"),
        ("mq-ttl-ms", str(MAX_MILLISECONDS + 1), "whole number"),
        ("mq-ttl-ms", "9" * 5000, "whole number"),
        ("mq-ttl-ms", "1.5", "whole number"),
        ("mq-ttl-ms", "-1", "whole number"),
        ("mq-ttl-ms", "1_0", "whole number"),
        ("mq-ttl-ms", "٣", "whole number"),
        ("mq-ttl-ms", "", "whole number"),
        ("mq-delay-ms", "soon", "whole number"),
        ("mq-priority", "10", "from 0 to 9"),
        ("mq-correlation-id", "", "1 to 255 bytes"),
        ("mq-correlation-id", "é" * 128, "1 to 255 bytes"),
        ("mq-correlation-id", "a\tb", "control"),
        ("mq-type", "x" * 256, "1 to 255 bytes"),
        ("mq-group", "", "1 to 255 bytes"),
        ("mq-reply-to", "replies", "mqURI"),
        ("mq-reply-to", "demo::Exchanges::x", "neither Queues nor Topics"),
        ("mq-reply-to", "demo::Queues::a*", "more than a name"),
        ("mq-headers", "{", "JSON object of strings"),
        ("mq-headers", "[]", "JSON object of strings"),
        ("mq-headers", '{"a":1}', "JSON object of strings"),
        ("mq-headers", '{"a":null}', "JSON object of strings"),
        ("mq-headers", '{"a":{"b":"c"}}', "JSON object of strings"),
        ("mq-headers", "[" * 100_000, "JSON object of strings"),
        ("mq-headers", '{"a":"1","a":"2"}', "more than once"),
        ("mq-headers", '{"a":"1","A":"2"}', "more than once"),
        ("content-type", "text/\u00e9", "ASCII"),
        ("content-type", "x" * 256, "255"),
        ("idempotency-key", "", "1 to 255"),
        ("idempotency-key", "a b", "1 to 255"),
        ("idempotency-key", "x" * 256, "1 to 255"),
        ("mq-tll-ms", "1", "nearest is Mq-Ttl-Ms"),
        ("mq-presistent", "1", "nearest is Mq-Persistent"),
        ("mq-heder-a", "1", "nearest is Mq-Header"),
        ("mq-", "1", "not a header of this API"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(InvalidHeader, match=says) as caught:
        _parse((name, value))
    assert caught.value.errors[0].where.lower() == name


@pytest.mark.parametrize("name", ["mq-type", "mq-header-a", "mq-headers", "content-type", "traceparent", "ce-id"])
def test_two_values_are_refused(name: str) -> None:
    with pytest.raises(InvalidHeader, match="more than once"):
        _parse((name, '{"x":"1"}'), (name, '{"x":"1"}'))


@pytest.mark.parametrize("name", ["traceparent", "ce-id"])
def test_two_ways_to_one_header_are_refused(name: str) -> None:
    with pytest.raises(InvalidHeader, match="more than once"):
        _parse((name, "one"), (f"mq-header-{name}", "other"))


@pytest.mark.parametrize("name", ["mq-type", "mq-header-a", "traceparent", "baggage", "ce-id", "content-type"])
def test_bytes_that_are_no_text_are_refused(name: str) -> None:
    with pytest.raises(InvalidHeader, match="UTF-8"):
        _parse((name, b"\xe9"))


def test_one_name_in_two_ways_is_refused() -> None:
    with pytest.raises(InvalidHeader, match="'JobID' is given more than once"):
        _parse(("mq-header-jobid", "1"), ("mq-headers", '{"JobID":"1"}'))


def test_a_key_is_visible_ascii() -> None:
    assert _parse(("idempotency-key", "k-1")).idempotency_key == "k-1"
    assert _parse(("idempotency-key", "~" * 255)).idempotency_key == "~" * 255
    assert _parse().idempotency_key is None


@pytest.mark.parametrize(
    ("query", "confirm", "timeout"),
    [
        (b"", True, 5),
        (b"confirm=none", False, 5),
        (b"confirm=receipt&timeout=0.5", True, 0.5),
        (b"timeout=99", True, 60),
    ],
)
def test_the_query_says_how_long_and_for_what_to_wait(query: bytes, confirm: bool, timeout: float) -> None:
    request = _parse(query=query)
    assert (request.confirm, request.timeout) == (confirm, timeout)


@pytest.mark.parametrize(
    "query", [b"confirm=maybe", b"timeout=0", b"timeout=x", b"tiemout=1", b"confirm=none&confirm=none"]
)
def test_a_wrong_query_is_refused(query: bytes) -> None:
    with pytest.raises(InvalidParameter):
        _parse(query=query)


def test_every_property_has_a_name_for_people() -> None:
    assert {name.decode() for name in PROPERTIES} == {label.lower() for _, label, _ in PROPERTIES.values()}


def test_the_object_is_a_tool_for_odd_names() -> None:
    assert _parse(("mq-headers", json.dumps({"A-b.C_d": "x" * 8000}))).headers == {"A-b.C_d": "x" * 8000}
