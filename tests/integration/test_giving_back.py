"""A consumer whose callback fails: the message goes back, slowly, and to no dead-letter queue."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time

from app.config.settings import Settings
from app.domain.message import Message
from app.gateway import messengers
from app.gateway.gateway import Gateway
from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.conftest import broker
from tests.e2e.http_client import eventually
from tests.e2e.test_main_job_readers import depth

__all__ = ["broker"]

WAIT = 10.0


async def test_behaviour_39_what_a_callback_refuses_comes_again_without_a_hot_loop(
    broker: Broker, stomp_client: ConnectStomp, unique: Unique
) -> None:
    queue, dead = unique("jobs"), unique("dead")
    arguments = (
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead} if isinstance(broker, RabbitMQ) else {}
    )
    letters = f"/queue/{dead}" if isinstance(broker, RabbitMQ) else "/queue/ActiveMQ.DLQ"
    declared = {queue: {"acknowledgement": True, "arguments": arguments}}
    service = {"host": broker.host, "port": broker.port, "user": "guest", "password": "guest", "queues": declared}
    client = await stomp_client(broker)
    await client.subscribe(letters)
    seen: list[tuple[float, bytes, bool]] = []
    done = asyncio.Event()

    async def work(message: Message) -> None:
        seen.append((time.monotonic(), message.body, message.redelivered))
        if message.body == b"poison" and len(seen) < 4:
            raise ValueError("not today")
        if message.body == b"last":
            done.set()

    async with Gateway(Settings.model_validate({"services": {"mq": service}})) as gateway:
        producer = await gateway.create_producer(f"mq::Queues::{queue}")
        await producer.put(b"poison")
        async with await gateway.create_consumer(f"mq::Queues::{queue}", work):

            async def fourth() -> bool:
                return len(seen) == 4

            await eventually(fourth, "the fourth attempt", WAIT)
            await producer.put(b"last")
            async with asyncio.timeout(WAIT):
                await done.wait()

        async def empty() -> bool:
            return await depth(broker, queue) == 0

        await eventually(empty, "all acked", WAIT)
    assert [(body, again) for _, body, again in seen] == [
        (b"poison", False),
        (b"poison", True),
        (b"poison", True),
        (b"poison", True),
        (b"last", False),
    ]
    pauses = [later[0] - earlier[0] for earlier, later in itertools.pairwise(seen[:4])]
    assert min(pauses) >= messengers.GIVE_BACK_DELAY * 0.9, pauses
    # On ActiveMQ that queue is everybody's.
    with contextlib.suppress(TimeoutError):
        while True:
            assert (await client.next_message(0.3))[1] != b"poison"
