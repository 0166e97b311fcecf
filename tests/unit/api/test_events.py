"""GET on a destination's events, with a gateway that is real."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from app.api import events
from app.api.context import Context
from app.api.events import Events, is_temporary, parse
from app.config.settings import Settings
from app.connectors.base import Destination
from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    Code,
    ConfirmTimeout,
    Forbidden,
    GatewayError,
    Internal,
    InvalidParameter,
    TooManyStreams,
    UnknownDestination,
)
from app.domain.uri import MqUri
from app.gateway.stream import Batch, Counts, Reader, StreamLease, StreamRequest
from tests.unit.api.asgi import Call

JOBS = MqUri.parse("demo::Queues::jobs")
EVENTS = MqUri.parse("demo::Topics::events")
EVENT_SOURCE = [(b"accept", b"text/event-stream")]


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


def _value(context: Context, name: str, **labels: str) -> float:
    return context.metrics.registry.get_sample_value(f"mq_gateway_{name}", labels) or 0.0


class Open:
    """A stream that runs while the test goes on."""

    def __init__(self, context: Context, call: Call, uri: MqUri) -> None:
        self.call = call
        self.exchange = call.exchange()
        self.task = asyncio.ensure_future(self._run(Events(context), uri))

    async def _run(self, handler: Events, uri: MqUri) -> None:
        await handler(self.exchange, uri)

    async def wrote(self, text: bytes) -> None:
        async with asyncio.timeout(5), self.call.changed:
            await self.call.changed.wait_for(lambda: self.call.sent and text in self.call.body)

    async def ended(self) -> None:
        async with asyncio.timeout(5):
            await self.task


async def test_a_stream_is_counted_while_it_lasts_and_when_it_ends(context: Context) -> None:
    stream = Open(context, Call(method="GET", receives=[]), EVENTS)
    await stream.wrote(b"id: ")
    labels = {"service": "demo", "type": "Topics"}
    assert _value(context, "streams", **labels) == 1
    assert context.streams == 1
    await context.gateway.drain()
    await stream.ended()
    assert _value(context, "streams", **labels) == 0
    assert _value(context, "streams_closed_total", reason="drain") == 1
    assert context.streams == 0
    assert stream.exchange.access.reason == "drain"
    assert stream.exchange.access.mq_uri == str(EVENTS)


async def test_a_cancelled_stream_gives_back_and_is_counted(context: Context) -> None:
    stream = Open(context, Call(method="GET", receives=[]), JOBS)
    await stream.wrote(b"welcome")
    stream.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream.task
    assert _value(context, "streams_closed_total", reason="error") == 1
    assert context.gateway.destination_view(context.gateway.resolve(JOBS)).readers == 0


async def test_head_says_the_headers_and_subscribes_to_nothing(context: Context) -> None:
    call = Call(method="HEAD")
    await Events(context)(call.exchange(), JOBS)
    assert call.head["content-type"] == "text/event-stream; charset=utf-8"
    assert call.body == b""
    assert call.is_complete
    assert context.gateway.destination_view(context.gateway.resolve(JOBS)).readers == 0


@pytest.mark.parametrize(
    ("call", "uri", "code"),
    [
        (Call(method="GET"), "demo::Topics::nope", Code.UNKNOWN_DESTINATION),
        (Call(method="GET", headers=[(b"accept", b"text/html")]), str(EVENTS), Code.NOT_ACCEPTABLE),
        (Call(method="HEAD", headers=[(b"accept", b"text/html")]), str(EVENTS), Code.NOT_ACCEPTABLE),
        (Call(method="GET", query=b"ack=explicit"), str(EVENTS), Code.INVALID_PARAMETER),
        (Call(method="GET", query=b"x=1", headers=EVENT_SOURCE), str(JOBS), Code.INVALID_PARAMETER),
    ],
)
async def test_refusals_are_counted_by_code(context: Context, call: Call, uri: str, code: Code) -> None:
    with pytest.raises(GatewayError) as caught:
        await Events(context)(call.exchange(), MqUri.parse(uri))
    assert caught.value.code is code
    assert _value(context, "streams_refused_total", reason=code.value) == 1


async def test_there_are_so_many_places_and_they_come_back(context: Context) -> None:
    streams = [Open(context, Call(method="GET", receives=[]), EVENTS) for _ in range(2)]
    for stream in streams:
        await stream.wrote(b"id: ")
    with pytest.raises(TooManyStreams):
        await Events(context)(Call(method="GET").exchange(), EVENTS)
    streams[0].task.cancel()
    await asyncio.wait([streams[0].task])
    third = Open(context, Call(method="GET", receives=[]), EVENTS)
    await third.wrote(b"id: ")
    for stream in (streams[1], third):
        stream.task.cancel()
    await asyncio.wait([streams[1].task, third.task])


@pytest.mark.parametrize(
    ("error", "low", "high"),
    [
        (BrokerUnavailable("down"), 1000, 5000),
        (BrokerUnavailable("down", retry_after=30), 30_000, 60_000),
        (ConfirmTimeout("no answer to SUBSCRIBE"), 1000, 5000),
        (TooManyStreams("full"), 1000, 5000),
    ],
)
async def test_an_event_source_is_told_to_come_back(
    context: Context, monkeypatch: pytest.MonkeyPatch, error: GatewayError, low: int, high: int
) -> None:
    async def refuse(*_args: object, **_options: object) -> Reader:
        raise error

    monkeypatch.setattr(context.gateway, "open_stream", refuse)
    call = Call(method="GET", headers=EVENT_SOURCE)
    exchange = call.exchange()
    await Events(context)(exchange, EVENTS)
    assert call.status == 200
    retry, event, data = call.body.decode().strip().replace("\n\n", "\n").split("\n")
    told: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert event == "event: unavailable"
    assert told == {"code": error.code.value, "retry_ms": int(retry.removeprefix("retry: "))}
    assert low <= told["retry_ms"] <= high
    assert call.is_complete
    assert exchange.access.code == error.code.value
    with pytest.raises(type(error)):
        await Events(context)(Call(method="GET").exchange(), EVENTS)


def test_only_what_may_pass_is_temporary() -> None:
    assert is_temporary(BrokerUnavailable("x"))
    assert is_temporary(TooManyStreams("x"))
    assert not is_temporary(UnknownDestination("x"))
    assert not is_temporary(Forbidden("x"))
    # Each try of a browser would reach the broker again, and may end the connection that all share.
    assert not is_temporary(BrokerRejected("x"))
    assert not is_temporary(Internal("x"))


class Clinging(Reader):
    """Ends at once, and does not let go."""

    def _has_events(self) -> bool:
        return True

    def _take_events(self, max_bytes: int) -> Batch:
        return Batch(b"", 0, "slow")

    async def close(self) -> None:
        await asyncio.Event().wait()


async def test_a_reader_that_does_not_let_go_is_left(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def open_stream(_destination: Destination, _request: StreamRequest, *, timeout: float) -> Reader:
        assert timeout > 0
        return Clinging(Counts())

    monkeypatch.setattr(context.gateway, "open_stream", open_stream)
    monkeypatch.setattr(events, "CLOSE_SECONDS", 0.01)
    with caplog.at_level(logging.WARNING, "mq_gateway.api"):
        await Open(context, Call(method="GET", receives=[]), EVENTS).ended()
    assert "not closed within" in caplog.text


async def test_an_error_after_the_first_byte_is_not_answered_twice(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Clinging):
        def _take_events(self, max_bytes: int) -> Batch:
            raise BrokerUnavailable("in the middle")

        async def close(self) -> None:
            """Nothing to give back."""

    async def open_stream(*_args: object, **_options: object) -> Reader:
        return Failing(Counts())

    monkeypatch.setattr(context.gateway, "open_stream", open_stream)
    call = Call(method="GET", headers=EVENT_SOURCE)
    with pytest.raises(BrokerUnavailable):
        await Events(context)(call.exchange(), EVENTS)
    assert b"unavailable" not in call.body
