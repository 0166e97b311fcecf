"""Streams that come and go for days: nothing of them stays, neither here nor at the broker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.crowd import Raw, each, get, open_stream
from tests.e2e.http_client import eventually, post
from tests.e2e.live_gateway import LiveGateway, running, stomp, write_config
from tests.e2e.sizes import sized
from tests.e2e.vitals import vitals

CYCLES = sized(1000, 10_000)
CHECKPOINTS = 5
#: MiB that the memory may grow from the second checkpoint to the last: less than a KiB for each full-size cycle.
SLOPE = 5.0
LINGER = 0.2


async def come_and_go(port: int, path: str, number: int) -> None:
    """One stream, ended in one of four ways: closed, reset, closed before the answer, reset amid it."""
    way = number % 4
    if way < 2:
        raw = await open_stream(port, path)
    else:
        raw = await Raw.connect(port)
        await raw.send(get(path))
    if way == 3:
        await raw.read(20)
    raw.close() if way % 2 == 0 else raw.reset()


async def left_at(broker: Broker, queue: str, topic: str) -> tuple[int, int]:
    """Consumers of the queue and bindings to the topic; only RabbitMQ tells."""
    if not isinstance(broker, RabbitMQ):
        return 0, 0
    found = await broker.eval(
        f'Q = rabbit_misc:r(<<"/">>, queue, <<"{queue}">>), '
        '[length([C || C <- rabbit_amqqueue:consumers_all(<<"/">>), proplists:get_value(queue_name, C) =:= Q]), '
        f'length([B || B <- rabbit_binding:list(<<"/">>), element(3, B) =:= <<"{topic}">>])]'
    )
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class Idle:
    """What the gateway holds while nobody is there: tasks, descriptors, threads (counts)."""

    tasks: float
    descriptors: int
    threads: int

    @classmethod
    async def now(cls, gateway: LiveGateway) -> Idle:
        of = vitals(gateway.pid)
        # The connection that asks for the metric is closed here before the gateway sees it: asked last.
        return cls(await gateway.metric("mq_gateway_tasks"), of.descriptors, of.threads)


async def settled(gateway: LiveGateway, broker: Broker, names: tuple[str, str], idle: Idle) -> None:
    """Wait until the gateway holds what it held before the first stream, and the broker knows of no subscription."""

    async def holds() -> bool:
        streams = [await gateway.metric("mq_gateway_streams", type=kind) for kind in ("Queues", "Topics")]
        return streams == [0, 0] and await Idle.now(gateway) == idle and await left_at(broker, *names) == (0, 0)

    try:
        await eventually(holds, "no stream and no subscription", 15)
    except TimeoutError as error:
        now, left = await Idle.now(gateway), await left_at(broker, *names)
        raise AssertionError(f"left: {now} instead of {idle}; at the broker {left}") from error


async def no_consumer_is_left(gateway: LiveGateway, queue: str, client_of: ConnectStomp, broker: Broker) -> None:
    """Whatever is published comes to the one consumer there is; a forgotten one would take its share."""
    bodies = [b"after %d" % number for number in range(100)]
    for body in bodies:
        assert (await post(gateway.port, f"/mq/mq/Queues/{queue}", body)).status == 200
    client = await client_of(broker)
    await client.subscribe(f"/queue/{queue}")
    assert await client.messages(len(bodies)) == bodies


@pytest.mark.timeout(900)
async def test_sse_case_45_ten_thousand_streams_come_and_go(
    broker: Broker, tmp_path: Path, unique: Unique, stomp_client: ConnectStomp
) -> None:
    queue, topic = unique("jobs"), unique("news")
    services = {"mq": stomp(broker, topics={topic: {"linger": LINGER}})}
    paths = [f"/mq/mq/Queues/{queue}/events", f"/mq/mq/Topics/{topic}/events"]
    async with running(write_config(tmp_path, services)) as gateway:
        await gateway.until_up("mq")
        links = gateway.broker_ports(broker)
        idle = await Idle.now(gateway)
        seen: list[float] = []
        for part in range(CHECKPOINTS):
            begun = time.perf_counter()
            numbers = range(part * CYCLES // CHECKPOINTS, (part + 1) * CYCLES // CHECKPOINTS)
            await each(lambda number: come_and_go(gateway.port, paths[number // 4 % 2], number), numbers)
            took = time.perf_counter() - begun
            await settled(gateway, broker, (queue, topic), idle)
            seen.append(vitals(gateway.pid).rss)
            print(f"{broker.kind}: {numbers.stop} cycles, {len(numbers) / took:.0f}/s, RSS {seen[-1]:.1f} MiB, {idle}")
        assert seen[-1] - seen[1] < SLOPE
        # Those who waited for the answer had a stream; of the others, who knows.
        assert await gateway.metric("mq_gateway_streams_closed_total", reason="client") >= CYCLES // 2
        await no_consumer_is_left(gateway, queue, stomp_client, broker)
        assert gateway.broker_ports(broker) == links
        assert await gateway.metric("mq_gateway_reconnects_total") == 0
