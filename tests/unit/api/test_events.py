"""GET on the events of one destination and of several, with a gateway that is real."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from app.api import events
from app.api.context import Context
from app.api.events import Events, is_temporary
from app.connectors.base import Destination
from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    Code,
    ConfirmTimeout,
    Forbidden,
    GatewayError,
    Internal,
    TooManyStreams,
    UnknownDestination,
)
from app.domain.message import Publication
from app.domain.uri import MqUri
from app.gateway.stream import Batch, Counts, Reader, StreamRequest
from tests.unit.api.asgi import Call

JOBS = MqUri.parse("demo::Queues::jobs")
EVENTS = MqUri.parse("demo::Topics::events")
EVENT_SOURCE = [(b"accept", b"text/event-stream")]


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


class OpenSeveral(Open):
    """A stream of what its call's query names."""

    def __init__(self, context: Context, call: Call) -> None:
        super().__init__(context, call, JOBS)

    async def _run(self, handler: Events, uri: MqUri) -> None:
        await handler.several(self.exchange, _let_in)


def _let_in(_uri: MqUri) -> None:
    """Nobody is refused."""


async def test_a_stream_of_several_is_one_stream_and_counts_for_each(context: Context) -> None:
    query = b"uri=demo::Topics::events&uri=demo::Queues::jobs&uri=demo::Queues::text&format=data"
    stream = OpenSeveral(context, Call(method="GET", query=query, receives=[]))
    await stream.wrote(b"id: v.")
    gateway = context.gateway
    assert context.streams == 1
    assert [_value(context, "streams", service="demo", type=kind) for kind in ("Topics", "Queues")] == [1, 1]
    for uri, bodies in ((EVENTS, (b"1", b"2")), (JOBS, (b"3",))):
        for body in bodies:
            publication = Publication(body=body, message_id="m", content_type="application/json")
            await gateway.publish(gateway.resolve(uri), publication, timeout=1)
    for text in (b"data: 1\n", b"data: 2\n", b"data: 3\n"):
        await stream.wrote(text)
    await context.gateway.drain()
    await stream.ended()
    delivered = [_value(context, "events_delivered_total", service="demo", type=kind) for kind in ("Topics", "Queues")]
    assert delivered == [2, 1]
    assert [_value(context, "streams", service="demo", type=kind) for kind in ("Topics", "Queues")] == [0, 0]
    assert _value(context, "streams_closed_total", reason="drain") == 1
    assert context.streams == 0
    assert stream.exchange.access.mq_uri == "demo::Topics::events, demo::Queues::jobs, demo::Queues::text"
    assert [gateway.destination_view(gateway.resolve(uri)).delivered for uri in (EVENTS, JOBS)] == [2, 1]
    assert gateway.destination_view(gateway.resolve(JOBS)).readers == 0


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (b"uri=demo::Topics::events&uri=demo::Topics::nope", Code.UNKNOWN_DESTINATION),
        (b"uri=demo::Topics::events&uri=nope", Code.INVALID_NAME),
        (b"", Code.INVALID_PARAMETER),
    ],
)
async def test_a_stream_of_several_is_refused_as_a_whole(context: Context, query: bytes, code: Code) -> None:
    with pytest.raises(GatewayError) as caught:
        await Events(context).several(Call(method="GET", query=query, headers=EVENT_SOURCE).exchange(), _let_in)
    assert caught.value.code is code
    assert _value(context, "streams_refused_total", reason=code.value) == 1


async def test_head_of_several_subscribes_to_nothing(context: Context) -> None:
    call = Call(method="HEAD", query=b"uri=demo::Topics::events&uri=demo::Queues::jobs")
    await Events(context).several(call.exchange(), _let_in)
    assert (call.status, call.body, call.is_complete) == (200, b"", True)
    assert context.gateway.destination_view(context.gateway.resolve(JOBS)).readers == 0
