"""What a Topic's subscription leaves at a real RabbitMQ."""

from __future__ import annotations

from app.config.settings import Settings
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from app.gateway.stream import StreamRequest
from tests.brokers.fixtures import Unique
from tests.brokers.rabbitmq import RabbitMQ

WAIT = 10.0
_QUEUES = (
    "[[element(4, amqqueue:get_name(Q)), amqqueue:get_exclusive_owner(Q) =/= none, amqqueue:is_durable(Q)]"
    ' || Q <- rabbit_amqqueue:list(<<"/">>)]'
)


async def test_the_queue_behind_it_goes_with_the_connection(rabbitmq: RabbitMQ, unique: Unique) -> None:
    name = unique("news")
    before = {queue[0] for queue in await rabbitmq.eval(_QUEUES)}
    service = {"host": rabbitmq.host, "port": rabbitmq.port, "user": "guest", "password": "guest", "topics": {name: {}}}
    settings = Settings.model_validate({"services": {"mq": service}})
    async with Gateway(settings) as gateway:
        topic = gateway.resolve(MqUri.parse(f"mq::Topics::{name}"))
        reader = await gateway.open_stream(topic, StreamRequest(), timeout=WAIT)
        made = [queue for queue in await rabbitmq.eval(_QUEUES) if queue[0] not in before]
        assert [(exclusive, durable) for _, exclusive, durable in made] == [(True, False)]
        await reader.close()
    assert made[0][0] not in {queue[0] for queue in await rabbitmq.eval(_QUEUES)}
