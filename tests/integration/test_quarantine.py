"""One client's broken destination on a real RabbitMQ, and everybody else on the same connection."""

from __future__ import annotations

import asyncio

import pytest

from app.config.settings import Settings
from app.domain.errors import BrokerRejected, BrokerUnavailable, ConnectionLost, DestinationQuarantined, GatewayError
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from tests.brokers.fixtures import MakeRabbitMQ
from tests.brokers.rabbitmq import RabbitMQ

WAIT = 10.0


@pytest.fixture
async def own(make_rabbitmq: MakeRabbitMQ) -> RabbitMQ:
    return await make_rabbitmq()


async def test_a_missing_exchange_disturbs_the_others_three_times_at_the_most(own: RabbitMQ) -> None:
    queues = {"good": {}, "bad": {"destination": "/exchange/nope/x"}}
    service = {"host": own.host, "port": own.port, "user": own.user, "password": own.password, "queues": queues}
    async with Gateway(Settings.model_validate({"services": {"mq": service}})) as gateway:
        good = await gateway.create_producer("mq::Queues::good")
        bad = await gateway.create_producer("mq::Queues::bad")
        bad_view = gateway.resolve(MqUri.parse("mq::Queues::bad"))
        await good.put(b"first")
        outcomes = [await outcome(bad.put(b"x")) for _ in range(3)]
        async with asyncio.timeout(WAIT):
            while not gateway.destination_view(bad_view).quarantined:
                outcomes.append(await outcome(bad.put(b"x")))
        assert set(outcomes) <= {BrokerRejected, ConnectionLost, BrokerUnavailable, DestinationQuarantined}
        with pytest.raises(DestinationQuarantined):
            await bad.put(b"x")
        epochs = gateway.service("mq").since
        for _ in range(100):
            await good.put(b"fine")
            with pytest.raises(DestinationQuarantined):
                await bad.put(b"x")
        assert gateway.service("mq").since == epochs, "the connection is the same"


async def outcome(publishing: object) -> type[BaseException] | None:
    try:
        await publishing  # type: ignore[misc]
    except GatewayError as error:
        await asyncio.sleep(0.05)  # a client that tries again at once, but not in one breath
        return type(error)
    return None
