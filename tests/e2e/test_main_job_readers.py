"""Readers: Topics to everybody, Queues shared, and nothing lost or locked when a reader goes away."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.conftest import Target
from tests.e2e.http_client import Http, Sse, eventually, get_json, post

FAST = {"Content-Type": "text/plain"}


async def unacked(broker: RabbitMQ, queue: str) -> int:
    """Messages of a queue that are handed out and not acked."""
    pairs = await broker.eval(
        "[[element(4, amqqueue:get_name(Q)), proplists:get_value(messages_unacknowledged,"
        ' rabbit_amqqueue:info(Q, [messages_unacknowledged]))] || Q <- rabbit_amqqueue:list(<<"/">>)]'
    )
    return int(dict(pairs)[queue])


async def depth(broker: Broker, queue: str) -> int:
    if isinstance(broker, RabbitMQ):
        return (await broker.queues())[queue]
    assert isinstance(broker, ActiveMQ)
    return await broker.depth(queue)


async def publish(port: int, path: str, bodies: list[str]) -> None:
    async with await Http.connect(port) as http:
        for body in bodies:
            answer = await http.ask("POST", path, body.encode(), FAST)
            assert answer.status == 200, answer


async def settled(broker: Broker, queue: str, free: int) -> None:
    """Wait until `free` messages are in the queue and none of them is locked."""

    async def holds() -> bool:
        locked = await unacked(broker, queue) if isinstance(broker, RabbitMQ) else 0
        return locked == 0 and await depth(broker, queue) == free

    await eventually(holds, f"{free} messages, none locked")


async def test_sse_case_62_every_reader_of_a_topic_gets_every_message(target: Target, unique: Unique) -> None:
    path = f"/mq/mq/Topics/{unique('news')}"
    bodies = [f"news {number}" for number in range(100)]
    async with (
        await Sse.open(target.port, f"{path}/events") as one,
        await Sse.open(target.port, f"{path}/events") as two,
    ):
        await publish(target.port, path, bodies)
        for reader in (one, two):
            assert [event.data for event in await reader.take(100)] == bodies


async def test_sse_case_63_readers_of_a_queue_share_it_and_what_came_before_waits(
    target: Target, unique: Unique
) -> None:
    queue = unique("jobs")
    path = f"/mq/mq/Queues/{queue}"
    bodies = [f"job {number}" for number in range(60)]
    await publish(target.port, path, bodies[:20])
    assert await depth(target.broker, queue) == 20
    got: list[list[str]] = [[], []]

    async def read(stream: Sse, into: list[str]) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                into.append((await stream.next()).data)

    async with (
        await Sse.open(target.port, f"{path}/events") as one,
        await Sse.open(target.port, f"{path}/events") as two,
    ):
        tasks = [asyncio.create_task(read(stream, into)) for stream, into in zip((one, two), got, strict=True)]
        await publish(target.port, path, bodies[20:])
        await settled(target.broker, queue, 0)

        async def all_read() -> bool:
            return sum(map(len, got)) >= 60

        await eventually(all_read, "sixty messages")
        for task in tasks:
            task.cancel()
    assert sorted(got[0] + got[1]) == sorted(bodies)
    assert min(map(len, got)) >= 10


@pytest.mark.parametrize("way", ["fin", "rst"])
async def test_sse_case_63_what_was_not_handed_over_goes_to_the_next_reader(
    target: Target, unique: Unique, way: str
) -> None:
    """The first reader stops reading, so that prefetched messages sit in the gateway, and then vanishes."""
    queue = unique("jobs")
    path = f"/mq/mq/Queues/{queue}"
    large = "x" * 300_000
    stalled = await Sse.open(target.port, f"{path}/events", receive_buffer=4096)
    await publish(target.port, path, [f"{number} {large}" for number in range(30)])
    left = await depth(target.broker, queue)
    assert 10 <= left <= 30
    stalled.reset() if way == "rst" else stalled.close()
    await settled(target.broker, queue, await depth(target.broker, queue))
    left = await depth(target.broker, queue)
    async with await Sse.open(target.port, f"{path}/events?format=envelope") as reader:
        events = [event.json for event in await reader.take(left)]
        numbers = [int(event["body"].split(" ")[0]) for event in events]
        # No hole behind what went into the first reader's socket, and the prefetched ones are marked.
        assert sorted(numbers) == list(range(30 - left, 30))
        assert any(event["redelivered"] for event in events)
        assert not all(event["redelivered"] for event in events)
        await settled(target.broker, queue, 0)


async def test_a_stalled_reader_loses_its_stream_and_nobody_else_anything(target: Target, unique: Unique) -> None:
    path, queue = f"/mq/mq/Topics/{unique('news')}", unique("jobs")
    body = "y" * 200_000
    closed = await target.gateway.metric("mq_gateway_streams_closed_total", reason="stalled")
    stalled = await Sse.open(target.port, f"{path}/events?slow=latest", receive_buffer=4096)
    stuck = await Sse.open(target.port, f"/mq/mq/Queues/{queue}/events", receive_buffer=4096)
    async with await Sse.open(target.port, f"{path}/events") as quick:
        reading = asyncio.create_task(quick.take(60))
        await publish(target.port, path, [f"{number} {body}" for number in range(60)])
        assert [int(event.data.split(" ")[0]) for event in await reading] == list(range(60))
        await publish(target.port, f"/mq/mq/Queues/{queue}", [f"{number} {body}" for number in range(40)])

        async def both_closed() -> bool:
            return await target.gateway.metric("mq_gateway_streams_closed_total", reason="stalled") == closed + 2

        await eventually(both_closed, "the write timeout of 1.5 s", 5)
        for stream in (stalled, stuck):
            local = stream.http.writer.get_extra_info("sockname")[1]
            assert local not in target.gateway.client_ports()
    # What was not handed over is free again: a reader that reads gets the rest.
    left = await depth(target.broker, queue)
    assert left > 0
    await settled(target.broker, queue, left)
    async with await Sse.open(target.port, f"/mq/mq/Queues/{queue}/events") as reader:
        numbers = [int(event.data.split(" ")[0]) for event in await reader.take(left)]
    assert sorted(numbers) == list(range(40 - left, 40))
    stalled.close()
    stuck.close()


async def test_nothing_stays_locked_after_two_hundred_subscriptions_under_load(
    target: Target, unique: Unique, stomp_client: ConnectStomp
) -> None:
    """Readers come and go by reset and by close while messages flow; every message is delivered or free."""
    queue = unique("jobs")
    path = f"/mq/mq/Queues/{queue}"
    links = target.gateway.broker_ports(target.broker)
    got: set[str] = set()
    twice: list[str] = []
    done = asyncio.Event()

    async def come_and_go(number: int) -> None:
        for cycle in range(25):
            stream = await Sse.open(target.port, f"{path}/events?format=envelope")
            with contextlib.suppress(TimeoutError):
                for _ in range(cycle % 4):
                    event = (await stream.next(0.5)).json
                    if event["body"] in got and not event["redelivered"]:
                        twice.append(event["body"])
                    got.add(event["body"])
            stream.reset() if (cycle + number) % 2 else stream.close()

    async def load() -> int:
        sent = 0
        async with await Http.connect(target.port) as http:
            while not done.is_set():
                assert (await http.ask("POST", path, b"m%d" % sent, FAST)).status == 200
                sent += 1
        return sent

    loading = asyncio.create_task(load())
    await asyncio.gather(*(come_and_go(number) for number in range(8)))
    done.set()
    sent = await loading

    async def nothing_is_locked() -> bool:
        return not isinstance(target.broker, RabbitMQ) or await unacked(target.broker, queue) == 0

    await eventually(nothing_is_locked, "no message locked")
    left = await depth(target.broker, queue)
    client = await stomp_client(target.broker)
    await client.subscribe(f"/queue/{queue}")
    rest = [body.decode() for body in await client.messages(left)]
    await client.silence(0.2)
    assert twice == []
    assert len(rest) == len(set(rest))
    # At most once from the socket on: what a vanished client had not read of its socket is lost with it.
    assert got | set(rest) <= {f"m{number}" for number in range(sent)}
    assert target.gateway.broker_ports(target.broker) == links
    view = await get_json(target.port, path)
    assert (view["readers"], view["leases"]) == (0, 0)


async def test_a_topic_without_readers_keeps_its_publishers_happy(target: Target, unique: Unique) -> None:
    answer = await post(target.port, f"/mq/mq/Topics/{unique('nobody')}", b"x")
    assert (answer.status, answer.json["confirmed"]) == (200, True)
