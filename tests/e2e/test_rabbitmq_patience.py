"""What makes RabbitMQ stop reading, or end the shared connection, while nobody does anything wrong."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.brokers.fixtures import MakeRabbitMQ, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.http_client import Sse, eventually, post
from tests.e2e.live_gateway import running, stomp, write_config

PERSISTENT = {"Mq-Persistent": "true"}
#: Seconds after which the broker ends a connection with an unacked delivery; it looks every second.
PATIENCE = 5


@pytest.fixture
async def impatient(make_rabbitmq: MakeRabbitMQ) -> RabbitMQ:
    broker = await make_rabbitmq(config={"consumer_timeout": str(PATIENCE * 1000)})
    await broker.eval("application:set_env(rabbit, channel_tick_interval, 1000), ok")
    return broker


async def test_behaviour_35_under_a_memory_alarm_consumers_go_on(
    make_rabbitmq: MakeRabbitMQ, tmp_path: Path, unique: Unique
) -> None:
    broker = await make_rabbitmq()
    jobs = f"/mq/mq/Queues/{unique('jobs')}"
    config = write_config(tmp_path, {"mq": stomp(broker, connections="split", heartbeat_ms=[0, 0])})
    async with running(config) as gateway:
        await gateway.until_up("mq")
        identity = gateway.broker_ports(broker)
        assert len(identity) == 2
        for number in range(100):
            assert (await post(gateway.port, jobs, str(number), PERSISTENT)).status == 200
        await broker.memory_alarm(on=True)
        begun = time.monotonic()
        answers = [await post(gateway.port, f"{jobs}?timeout=1", b"alarm", PERSISTENT) for _ in range(3)]
        # The first is still read; then RabbitMQ reads nothing more from this connection.
        assert {answer.status for answer in answers[1:]} <= {503, 504}
        assert {answer.outcome for answer in answers[1:]} <= {"unknown", "not_sent"}
        assert time.monotonic() - begun < 3 + 1.5
        async with await Sse.open(gateway.port, f"{jobs}/events") as stream:
            # Ten at a time: more come only because ACKs pass.
            assert [event.data for event in await stream.take(100)] == [str(number) for number in range(100)]
        await broker.memory_alarm(on=False)

        async def heals() -> bool:
            return (await post(gateway.port, f"{jobs}?timeout=1", b"after", PERSISTENT)).status == 200

        await eventually(heals, "publishes again")
        assert gateway.broker_ports(broker) == identity


async def test_behaviour_38_a_slow_reader_does_not_exhaust_the_broker_s_patience(
    impatient: RabbitMQ, tmp_path: Path, unique: Unique
) -> None:
    name = unique("jobs")
    jobs = f"/mq/mq/Queues/{name}"
    config = write_config(
        tmp_path, {"mq": stomp(impatient, consumer_timeout=PATIENCE)}, server={"write_timeout": 60, "heartbeat": 1}
    )
    async with running(config) as gateway:
        await gateway.until_up("mq")
        identity = await gateway.broker_pids(impatient)
        stalled = await Sse.open(gateway.port, f"{jobs}/events", receive_buffer=4096)
        bodies = [b"%d %b" % (number, b"x" * 300_000) for number in range(10)]
        for body in bodies:
            assert (await post(gateway.port, jobs, body, PERSISTENT)).status == 200

        async def withdrawn() -> bool:
            count = await gateway.metric("mq_gateway_connector_events_total", service="mq", event="delivery_withdrawn")
            return count >= 5

        await eventually(withdrawn, "messages that go back", PATIENCE + 5)
        # Nobody else takes them: they come to the same reader again and go back again, for longer than the broker
        # would have waited for the first ones.
        await asyncio.sleep(PATIENCE * 1.5)
        assert await gateway.broker_pids(impatient) == identity
        stalled.close()
        async with await Sse.open(gateway.port, f"{jobs}/events?format=envelope") as stream:
            events = [event.json for event in await stream.take(5)]
            assert all(event["redelivered"] for event in events)
        assert await gateway.broker_pids(impatient) == identity
