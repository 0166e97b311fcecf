"""Durable subscriptions over HTTP: what a Topic says is kept for workers who are away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.fixtures import Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.http_client import ask, post
from tests.e2e.live_gateway import running, stomp, write_config


def _service(topic: str, broker: Broker | None) -> dict[str, Any]:
    declared: dict[str, Any] = {"topics": {topic: {"subscriptions": ["archiver", "mailer"]}}}
    if broker is None:
        return {"mq_type": "Memory", **declared}
    return stomp(broker, **declared)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ]
)
def broker(request: pytest.FixtureRequest) -> Broker | None:
    found: Broker | None = request.getfixturevalue(request.param) if request.param != "memory" else None
    return found


def _topic(unique: Unique, broker: Broker | None) -> str:
    return unique("VirtualTopic.alerts" if isinstance(broker, ActiveMQ) else "alerts")


async def _publish(port: int, path: str, *numbers: int) -> None:
    for number in numbers:
        assert (await post(port, path, str(number))).status == 200


async def _receive(port: int, path: str, number: int, name: str = "archiver") -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while len(messages) < number:
            target = f"{path}/receive?wait=10&max={number - len(messages)}&subscription={name}"
            answer = await ask(port, "POST", target)
            assert answer.status in {200, 204}, answer.body
            messages += answer.json["messages"] if answer.status == 200 else []
    return messages


async def _say(port: int, path: str, what: str, messages: list[dict[str, Any]], name: str = "archiver") -> int:
    body = json.dumps({"leases": [one["lease"] for one in messages]}).encode()
    return (await ask(port, "POST", f"{path}/{what}?subscription={name}", body)).status


async def test_what_is_published_before_any_worker_is_kept_for_each(
    tmp_path: Path, unique: Unique, broker: Broker | None
) -> None:
    topic = _topic(unique, broker)
    path = f"/mq/mq/Topics/{topic}"
    async with running(write_config(tmp_path, {"mq": _service(topic, broker)})) as gateway:
        await _publish(gateway.port, path, *range(5))
        for name in ("archiver", "mailer"):
            messages = await _receive(gateway.port, path, 5, name)
            assert sorted(str(one["body"]) for one in messages) == [str(number) for number in range(5)]
            assert not any(one["redelivered"] for one in messages)
            assert {one["mq_uri"] for one in messages} == {f"mq::Topics::{topic}"}
            other = "mailer" if name == "archiver" else "archiver"
            assert await _say(gateway.port, path, "ack", messages, other) == 207
            assert await _say(gateway.port, path, "renew", messages, name) == 200
            assert await _say(gateway.port, path, "nack", messages[:1], name) == 200
            assert await _say(gateway.port, path, "ack", messages[1:], name) == 200
            (again,) = await _receive(gateway.port, path, 1, name)
            assert again["redelivered"]
            assert await _say(gateway.port, path, "ack", [again], name) == 200
        assert (await ask(gateway.port, "POST", f"{path}/receive?subscription=archiver")).status == 204
        assert (await ask(gateway.port, "POST", f"{path}/receive")).code == "method_not_allowed"
        assert (await ask(gateway.port, "POST", f"{path}/receive?subscription=other")).code == "not_found"


@pytest.mark.rabbitmq
async def test_a_restart_and_another_replica_find_what_waits(
    tmp_path: Path, unique: Unique, rabbitmq: RabbitMQ
) -> None:
    topic = unique("alerts")
    path = f"/mq/mq/Topics/{topic}"
    config = write_config(tmp_path, {"mq": _service(topic, rabbitmq)})
    async with running(config) as first:
        await _publish(first.port, path, *range(10))
    async with running(config) as again, running(config) as other:
        await _publish(other.port, path, *range(10, 20))
        found = []
        for gateway in (again, other):
            messages = await _receive(gateway.port, path, 10)
            # The second may be given what the first one's free lanes had fetched; before the first nobody had any.
            assert gateway is other or not any(one["redelivered"] for one in messages)
            assert await _say(gateway.port, path, "ack", messages) == 200
            found += [int(one["body"]) for one in messages]
        assert sorted(found) == list(range(20))


@pytest.mark.rabbitmq
async def test_a_deleted_queue_is_made_anew_and_costs_the_shared_connection_nothing(
    tmp_path: Path, unique: Unique, rabbitmq: RabbitMQ
) -> None:
    topic = unique("alerts")
    path = f"/mq/mq/Topics/{topic}"
    async with running(write_config(tmp_path, {"mq": _service(topic, rabbitmq)})) as gateway:
        await _publish(gateway.port, path, 1)
        before = (await ask(gateway.port, "GET", "/mq/mq")).json["since"]
        await rabbitmq.ctl("delete_queue", f"{topic}::archiver")
        assert (await ask(gateway.port, "POST", f"{path}/receive?subscription=archiver&wait=1")).status == 204
        await _publish(gateway.port, path, 2)
        (message,) = await _receive(gateway.port, path, 1)
        assert str(message["body"]) == "2"
        assert await _say(gateway.port, path, "ack", [message]) == 200
        assert (await ask(gateway.port, "GET", "/mq/mq")).json["since"] == before
