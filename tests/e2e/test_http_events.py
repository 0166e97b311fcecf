"""Event streams over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest

from tests.e2e.http_gateway import PATIENCE, Events, Served, serving, until

JOBS = "/mq/demo/Queues/jobs"
TOPIC = "/mq/demo/Topics/events"
SMALL = "/mq/demo/Topics/small"
EVENT_SOURCE = {"accept": "text/event-stream"}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(heartbeat=0.05, write_timeout=0.5) as running:
        yield running


async def _opened(events: Events) -> str:
    """Read the first bytes; the position a Topic stream begins at."""
    retry = await events.next()
    assert retry.retry is not None
    assert 1000 <= retry.retry <= 5000
    assert (await events.next()).comment is not None
    position = await events.next()
    assert position.data is None
    return position.id or ""


async def _streams(served: Served) -> int:
    return int(served.metric("mq_gateway_streams", service="demo", type="Queues")) + int(
        served.metric("mq_gateway_streams", service="demo", type="Topics")
    )


async def test_every_reader_of_a_topic_sees_every_message(served: Served) -> None:
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(served.stream(f"{TOPIC}/events")) for _ in range(5)]
        for reader in readers:
            await _opened(reader)
        for number in range(20):
            await served.client.post(TOPIC, content=b"%d\nline" % number)
        for reader in readers:
            got = [await reader.message() for _ in range(20)]
            assert [event.data for event in got] == [f"{number}\nline" for number in range(20)]
            assert all(event.id for event in got)


async def test_sse_case_01_sse_case_18_the_head_of_a_stream(served: Served) -> None:
    async with served.stream(f"{TOPIC}/events") as events:
        headers = events.response.headers
        assert events.response.status_code == 200
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert "x-request-id" in headers
        assert "content-length" not in headers
        assert "content-encoding" not in headers


async def test_a_reader_resumes_behind_the_last_it_saw(served: Served) -> None:
    async with served.stream(f"{TOPIC}/events") as events:
        position = await _opened(events)
    for number in range(3):
        await served.client.post(TOPIC, content=b"%d" % number)
    async with served.stream(f"{TOPIC}/events", headers={"last-event-id": position}) as events:
        first = await events.message()
        assert first.data == "0"
    # The header is fresher than the URL an EventSource was made with.
    path = f"{TOPIC}/events?last_event_id={position}"
    async with served.stream(path, headers={"last-event-id": first.id or ""}) as events:
        assert (await events.message()).data == "1"
    async with served.stream(path) as events:
        assert [(await events.message()).data for _ in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "position", ["zzzzzzzz.1", "nonsense", "x" * 5000, "é", "a.b\u00a0c", "0.99999999999999999999999", "-1", "offset=1"]
)
async def test_a_foreign_position_is_a_gap_and_never_silence(served: Served, position: str) -> None:
    async with served.stream(f"{SMALL}/events") as keeps_the_ring:
        await _opened(keeps_the_ring)
        await served.client.post(SMALL, content=b"kept")
        headers = {"last-event-id": position.encode()}
        async with served.stream(f"{SMALL}/events", headers=headers) as events:
            gap = await events.message()
            assert (gap.event, gap.json["reason"]) == ("gap", "restart")
            assert (await events.message()).data == "kept"


async def test_what_fell_out_of_the_ring_is_a_gap_with_a_number(served: Served) -> None:
    async with served.stream(f"{SMALL}/events") as keeps_the_ring:
        position = await _opened(keeps_the_ring)
        for number in range(10):
            await served.client.post(SMALL, content=b"%d" % number)
        async with served.stream(f"{SMALL}/events", headers={"last-event-id": position}) as events:
            gap = await events.message()
            assert gap.event == "gap"
            assert gap.json == {"mq_uri": "demo::Topics::small", "reason": "expired", "missed": 6}
            assert (await events.message()).data == "6"


async def test_a_body_cannot_forge_a_field(served: Served) -> None:
    async with served.stream(f"{TOPIC}/events") as events:
        await _opened(events)
        await served.client.post(TOPIC, content=b"a\rid: 9\r\nevent: evil\n\ndata: x")
        event = await events.message()
        assert event.data == "a\nid: 9\nevent: evil\n\ndata: x"
        assert event.event is None


async def test_bytes_that_are_no_text_come_as_base64(served: Served) -> None:
    async with served.stream(f"{TOPIC}/events") as events:
        await _opened(events)
        await served.client.post(TOPIC, content=b"\xff\x00")
        event = await events.message()
        assert (event.event, event.data) == ("binary", "/wA=")


async def test_sse_case_15_an_idle_stream_says_that_it_lives(served: Served) -> None:
    async with served.stream(f"{TOPIC}/events") as events:
        await _opened(events)
        for _ in range(3):
            beat = await events.next()
            assert beat.comment is not None
            assert beat.data is None


async def test_sse_case_63_a_queue_gives_each_message_to_one(served: Served) -> None:
    async with served.stream(f"{JOBS}/events") as one, served.stream(f"{JOBS}/events") as two:
        for events in (one, two):
            assert (await events.next()).retry
        await until(lambda: served.metric("mq_gateway_streams", service="demo", type="Queues") == 2)
        for number in range(10):
            await served.client.post(JOBS, content=b"%d" % number)
        delivered = {"service": "demo", "type": "Queues"}
        await until(lambda: served.metric("mq_gateway_events_delivered_total", **delivered) == 10)
    view = (await served.client.get(JOBS)).json()
    assert view["delivered"] == 10


async def test_sse_case_29_queue_events_have_no_position(served: Served) -> None:
    await served.client.post(JOBS, content=b"x")
    async with served.stream(f"{JOBS}/events?from=earliest", headers={"last-event-id": "foreign"}) as events:
        event = await events.message()
        assert (event.id, event.event, event.data) == (None, None, "x")


async def test_sse_case_20_head_takes_nothing_from_a_queue(served: Served) -> None:
    await served.client.post(JOBS, content=b"x")
    response = await served.client.head(f"{JOBS}/events")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert (await served.client.head("/mq/demo/Queues/nope/events")).status_code == 404
    async with served.stream(f"{JOBS}/events") as events:
        assert (await events.message()).data == "x"


async def test_a_leaving_client_is_noticed_at_once(served: Served) -> None:
    for _ in range(20):
        async with served.stream(f"{TOPIC}/events") as events:
            await events.next()
    closed = "mq_gateway_streams_closed_total"
    await until(lambda: served.metric(closed, reason="client") == 20)
    assert await _streams(served) == 0
    assert (await served.client.get(TOPIC)).json()["readers"] == 0


async def test_a_stalled_reader_is_cut_off_and_hurts_nobody(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET %b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % TOPIC.encode())
    await until(lambda: served.metric("mq_gateway_streams", service="demo", type="Topics") == 1)
    async with served.stream(f"{TOPIC}/events") as events:
        await _opened(events)
        for _ in range(60):
            await served.client.post(TOPIC, content=b"x" * 200_000)
            assert len((await events.message()).data or "") == 200_000
        closed = "mq_gateway_streams_closed_total"
        await until(lambda: served.metric(closed, reason="stalled") == 1)
        await served.client.post(TOPIC, content=b"still here")
        assert (await events.message()).data == "still here"
    writer.close()


async def test_a_draining_gateway_ends_every_stream_cleanly(served: Served) -> None:
    async with served.stream(f"{TOPIC}/events") as topic, served.stream(f"{JOBS}/events") as queue:
        await _opened(topic)
        await queue.next()
        await served.client.post(TOPIC, content=b"last")
        await served.app.state.gateway_drain()
        events = await topic.rest()
        assert [event.data for event in events if event.data] == ["last"]
        assert events[-1].retry is not None
        assert (await queue.rest())[-1].retry is not None
    assert served.metric("mq_gateway_streams_closed_total", reason="drain") == 2


async def test_a_draining_gateway_tells_an_event_source_to_come_back(served: Served) -> None:
    await served.app.state.gateway_drain()
    async with served.stream(f"{TOPIC}/events", headers=EVENT_SOURCE) as events:
        assert events.response.status_code == 200
        retry = await events.next()
        unavailable = await events.next()
        assert unavailable.event == "unavailable"
        assert unavailable.json == {"code": "draining", "retry_ms": retry.retry}
        assert await events.rest() == []
    response = await served.client.get(f"{TOPIC}/events")
    assert (response.status_code, response.json()["code"]) == (503, "draining")
    assert served.metric("mq_gateway_streams_refused_total", reason="draining") == 2


async def test_sse_case_23_http_10_gets_a_stream_that_ends_with_the_connection(served: Served) -> None:
    """Without chunks; the end of the file is the end of the stream, behind a whole event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET %b/events HTTP/1.0\r\n\r\n" % TOPIC.encode())
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"transfer-encoding" not in head
        assert b"content-length" not in head
        assert b"connection: close" in head
        opening = await reader.readuntil(b"\n\nid: ")
        assert re.fullmatch(rb"retry: [0-9]+\n\n: welcome\n\nid: ", opening)
        await reader.readuntil(b"\n\n")
        await served.client.post(TOPIC, content=b"one\ntwo")
        assert (await reader.readuntil(b"data: two\n\n")).endswith(b"\ndata: one\ndata: two\n\n")
        await served.app.state.gateway_drain()
        rest = await reader.read()
    assert re.fullmatch(rb"(: \n\n)*retry: [0-9]+\n\n", rest)
    writer.close()


async def test_sse_case_37_no_more_streams_than_there_are_places() -> None:
    async with serving(limits={"streams": 1}) as served:
        async with served.stream(f"{TOPIC}/events") as events:
            await _opened(events)
            response = await served.client.get(f"{TOPIC}/events")
            assert (response.status_code, response.json()["code"]) == (429, "too_many_streams")
            assert int(response.headers["retry-after"]) >= 1
            async with served.stream(f"{TOPIC}/events", headers=EVENT_SOURCE) as refused:
                assert refused.response.status_code == 200
                assert (await refused.next()).retry
                assert (await refused.next()).json["code"] == "too_many_streams"
        await until(lambda: not served.metric("mq_gateway_streams", service="demo", type="Topics"))
        async with served.stream(f"{TOPIC}/events") as events:
            await _opened(events)


async def test_connecting_and_leaving_leaves_nothing_behind(served: Served) -> None:
    before = len(asyncio.all_tasks())
    for _ in range(50):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET %b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % JOBS.encode())
        await writer.drain()
        writer.transport.abort()
    # Connections are accepted in their order: behind this one all others have been.
    await served.raw(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    await until(lambda: len(asyncio.all_tasks()) <= before + 1)
    assert await _streams(served) == 0
    assert (await served.client.get(JOBS)).json()["readers"] == 0


async def test_sse_case_63_what_a_stalled_reader_did_not_take_goes_back_to_the_queue(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET %b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % JOBS.encode())
    await until(lambda: served.metric("mq_gateway_streams", service="demo", type="Queues") == 1)
    for number in range(60):
        await served.client.post(JOBS, content=b"%d " % number + b"x" * 200_000)
    await until(lambda: served.metric("mq_gateway_streams_closed_total", reason="stalled") == 1)
    # What was handed to the socket is gone with it, as `ack=auto` says; everything else is still there, in order.
    handed = int(served.metric("mq_gateway_events_delivered_total", service="demo", type="Queues"))
    assert handed < 60
    async with served.stream(f"{JOBS}/events?format=envelope") as events:
        left = [(await events.message()).json for _ in range(60 - handed)]
    assert [int(message["body"].split()[0]) for message in left] == list(range(handed, 60))
    assert left[0]["redelivered"] is True
    writer.close()
