"""What a worker refuses for good goes where the broker keeps such messages."""

from __future__ import annotations

import asyncio

from app.config.settings import Settings
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.conftest import broker
from tests.e2e.http_client import eventually
from tests.e2e.test_main_job_readers import depth

__all__ = ["broker"]

WAIT = 10.0


async def test_behaviour_39_what_is_refused_for_good_is_dead_lettered(
    broker: Broker, stomp_client: ConnectStomp, unique: Unique
) -> None:
    queue, dead = unique("jobs"), unique("dead")
    rabbit = isinstance(broker, RabbitMQ)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead} if rabbit else {}
    login = {"host": broker.host, "port": broker.port, "user": "guest", "password": "guest"}
    service = {**login, "queues": {queue: {"arguments": arguments}}}
    client = await stomp_client(broker)
    # On ActiveMQ that queue is everybody's.
    await client.subscribe(f"/queue/{dead}" if rabbit else "/queue/ActiveMQ.DLQ")
    poison = f"poison of {queue}".encode()
    async with Gateway(Settings.model_validate({"services": {"mq": service}})) as gateway:
        uri = MqUri.parse(f"mq::Queues::{queue}")
        producer = await gateway.create_producer(str(uri))
        await producer.put(poison)
        (lease,) = await gateway.take(gateway.resolve(uri), most=1, seconds=60, wait=WAIT)
        assert gateway.takings.nack(uri, gateway.takings.token(lease), requeue=False, delay=0) == "done"
        async with asyncio.timeout(WAIT):
            while (await client.next_message(WAIT))[1] != poison:
                pass

        async def empty() -> bool:
            return await depth(broker, queue) == 0

        await eventually(empty, "the queue to be empty", WAIT)
