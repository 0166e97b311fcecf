"""Which message headers a client may set, and which a consumer sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidHeader
from app.wire.headers import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    check_content_type,
    check_headers,
    check_value,
    is_reserved,
    visible,
)

#: Seen or documented to close a shared connection, to change where a message goes, or to pretend to be the broker.
DANGEROUS = """
    destination content-length content-type receipt transaction id message-id ack subscription host login passcode
    CC BCC user-id durable auto-delete exclusive x-queue-type x-max-length x-message-ttl x-expires x-queue-name
    x-stream-offset x-dead-letter-exchange x-priority x-delay activemq.prefetchSize activemq.subscriptionName
    activemq.retroactive transformation amq-msg-type client-id selector browser mq-message-id expires expiration
    timestamp persistent priority correlation-id reply-to type content-encoding amqp-message-id prefetch-count requeue
    JMSPriority JMSXGroupID JMSXGroupSeq JMSReplyTo JMSXUserID AMQ_SCHEDULED_DELAY AMQ_SCHEDULED_CRON _AMQ_GROUP_ID
    _AMQ_SCHED_DELIVERY __AMQ_CID _HORNETQ_X destination-type subscription-type durable-subscription-name
    consumer-window-size no-local receipt-id accept-version heart-beat session server version redelivered message
    Mq-Delivery-Count
""".split()


@pytest.mark.parametrize("name", DANGEROUS)
def test_reserved_names_are_refused_in_any_case(name: str) -> None:
    for spelled in (name, name.upper(), name.lower(), name.title()):
        assert is_reserved(spelled)
        with pytest.raises(InvalidHeader, match="reserved") as caught:
            check_headers({spelled: "1"})
        assert caught.value.errors[0].where == spelled


@pytest.mark.parametrize(
    "name",
    [
        "JobID",
        "owner",
        "traceparent",
        "tracestate",
        "baggage",
        "ce-id",
        "ce-type",
        "a.b_c-d",
        "0",
        "n" * 128,
        "ccc",
        "mq",
        "x",
    ],
)
def test_names_of_the_callers_own_pass(name: str) -> None:
    check_headers({name: "1"})


@pytest.mark.parametrize(
    "name", ["", "n" * 129, "a b", "a:b", "a\nb", "a\r", "a\0", "é", "a/b", "a\\b", "a=b", "JobID\n", "a,b", "ⅷ"]
)
def test_names_that_do_not_fit_a_header_line_are_refused(name: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        check_headers({name: "1"})
    assert len(caught.value.errors[0].where) <= 128


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0xD800, 0xDC80, 0xDFFF])
def test_control_characters_and_broken_utf8_are_refused_in_values(code: int) -> None:
    bad = chr(code)
    for value in (bad, f"{bad}x", f"x{bad}x", f"x{bad}"):
        with pytest.raises(InvalidHeader, match="control characters"):
            check_headers({"JobID": value})


@pytest.mark.parametrize("value", ["", " ", "a:b\\c", "é日", "\u2028", "\U0001f600", '{"a":1}'])
def test_other_values_pass(value: str) -> None:
    check_headers({"JobID": value})


def test_a_header_is_measured_in_bytes_name_and_value() -> None:
    name = "n" * 92
    check_value(name, "é" * 4050)
    with pytest.raises(InvalidHeader, match=str(MAX_HEADER_BYTES)):
        check_value(name, "é" * 4050 + "x")
    check_value(name, "v" * 8100)
    with pytest.raises(InvalidHeader):
        check_headers({name: "v" * 8101})


def test_so_many_headers_and_no_more() -> None:
    check_headers({f"h{n}": "" for n in range(MAX_HEADERS)})
    with pytest.raises(InvalidHeader, match="65 message headers, at most 64"):
        check_headers({f"h{n}": "" for n in range(MAX_HEADERS + 1)})


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3))
def test_what_passes_is_one_harmless_line(headers: dict[str, str]) -> None:
    try:
        check_headers(headers)
    except InvalidHeader:
        return
    for name, value in headers.items():
        line = f"{name}:{value}"
        assert line.isprintable() or not set(line) & {"\r", "\n", "\0"}
        assert name.isascii()
        assert ":" not in name
        line.encode()


@pytest.mark.parametrize(
    "content_type", ["a", "text/plain", "application/json; charset=utf-8", "x" * 255, 'a/b; c="d:e"', "a b"]
)
def test_content_types_that_fit(content_type: str) -> None:
    check_content_type(content_type)


@pytest.mark.parametrize("content_type", ["", " ", " a", "a ", "é", "a\nb", "a\0", "a\x7f", "x" * 256, "a\n"])
def test_content_types_that_do_not(content_type: str) -> None:
    with pytest.raises(InvalidHeader) as caught:
        check_content_type(content_type)
    assert caught.value.errors[0].where == "content-type"


def test_a_consumer_sees_the_producers_headers_and_not_the_transports() -> None:
    received = {
        "JobID": "1",
        "priority": "4",
        "reply-to": "/queue/a",
        "ack": "T_1@@s@@1",
        "amqp-message-id": "x",
        "content-length": "3",
        "content-type": "text/plain",
        "destination": "/queue/q",
        "id": "leak",
        "message-id": "T_1@@s@@1",
        "mq-message-id": "x",
        "receipt": "leak",
        "redelivered": "false",
        "subscription": "1-1",
        "transaction": "leak",
    }
    assert visible(received) == {"JobID": "1", "priority": "4", "reply-to": "/queue/a"}
