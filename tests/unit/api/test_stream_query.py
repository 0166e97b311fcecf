"""What a client asks for of an event stream."""

from __future__ import annotations

import pytest

from app.api.stream_query import parse
from app.config.settings import Settings
from app.domain.errors import InvalidParameter
from app.domain.uri import MqUri
from app.gateway.stream import StreamLease, StreamRequest
from tests.unit.api.asgi import Call

JOBS = MqUri.parse("demo::Queues::jobs")
EVENTS = MqUri.parse("demo::Topics::events")


def _request(query: bytes = b"", uri: MqUri = JOBS, **headers: bytes) -> StreamRequest:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return parse(Call(method="GET", query=query, headers=pairs).exchange(), uri, Settings())


def test_nothing_said_is_the_defaults() -> None:
    assert _request() == StreamRequest()


def test_everything_can_be_said() -> None:
    query = b"format=envelope&slow=latest&from=earliest&last_event_id=e.1&status=true&ack=auto"
    assert _request(query) == StreamRequest(
        format="envelope", last_event_id="e.1", start="earliest", slow="latest", status=True
    )


@pytest.mark.parametrize(
    ("header", "query", "position"),
    [
        (b"h.1", b"last_event_id=q.1", "h.1"),
        (b"", b"last_event_id=q.1", "q.1"),
        (b"", b"last_event_id=", None),
        (b"\xff", b"", "\ufffd"),
        (b"x" * 5000, b"", "x" * 1024),
    ],
)
def test_the_header_wins_and_is_not_trusted(header: bytes, query: bytes, position: str | None) -> None:
    assert _request(query, last_event_id=header).last_event_id == position


@pytest.mark.parametrize(
    "query",
    [
        b"format=xml",
        b"slow=no",
        b"from=then",
        b"status=1",
        b"ack=maybe",
        b"lease=30",
        b"ack=explicit&lease=0",
        b"ack=explicit&lease=901",
        b"topic=x",
        b"from=now&from=now",
    ],
)
def test_what_is_wrong_is_refused(query: bytes) -> None:
    with pytest.raises(InvalidParameter):
        _request(query)


def test_explicit_acks_are_for_queues() -> None:
    assert _request(b"ack=explicit").lease == StreamLease("/mq/demo/Queues/jobs/ack", 30)
    odd = MqUri.parse("demo::Queues::a/b é")
    assert _request(b"ack=explicit&lease=60", odd).lease == StreamLease("/mq/demo/Queues/a%2Fb%20%C3%A9/ack", 60)
    with pytest.raises(InvalidParameter, match="for Queues"):
        _request(b"ack=explicit", EVENTS)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        (b"2026-01-02T03:04:05Z", 1767323045),
        (b"2026-01-02t03:04:05.999z", 1767323045),
        (b"2026-01-02T04:04:05%2B01:00", 1767323045),
    ],
)
def test_it_can_begin_at_a_time(text: bytes, since: int) -> None:
    request = _request(b"from=" + text, EVENTS)
    assert (request.since, request.start) == (since, "now")


@pytest.mark.parametrize("text", [b"2026-01-02", b"2026-13-02T03:04:05Z", b"2026-01-02T04:04:05+01:00", b"0", b"then"])
def test_what_is_no_time_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidParameter, match="RFC 3339"):
        _request(b"from=" + text, EVENTS)
