"""Leases at real brokers: what a worker is promised when a gateway or its link ends."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from tests.brokers.broker import Broker
from tests.brokers.fixtures import Unique
from tests.e2e.conftest import broker
from tests.e2e.http_client import ask, eventually
from tests.e2e.live_gateway import running, write_config
from tests.e2e.test_main_job_readers import depth

__all__ = ["broker"]


async def _receive(port: int, path: str, number: int) -> list[dict[str, Any]]:
    """As many messages as there have to be; asked for with a wait, so that every answer has a body."""
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(messages) < number:
            target = f"{path}/receive?wait=10&max={number - len(messages)}"
            answer = await ask(port, "POST", target)
            assert answer.status == 200, answer.body
            messages += answer.json["messages"]
    return messages


def _service(broker: Broker, *queues: str) -> dict[str, Any]:
    login = {"host": broker.host, "port": broker.port, "user": "guest", "password": "guest"}
    return {"mq": {**login, "queues": {queue: {} for queue in queues}}}


async def test_a_gateway_that_goes_down_gives_back_what_is_leased(
    broker: Broker, unique: Unique, tmp_path: Path
) -> None:
    queue = unique("jobs")
    path = f"/mq/mq/Queues/{queue}"
    config = write_config(tmp_path, _service(broker, queue))
    async with running(config) as gateway:
        await gateway.until_up("mq")
        for number in range(5):
            assert (await ask(gateway.port, "POST", path, b"%d" % number)).status == 200
        messages = await _receive(gateway.port, path, 5)
        body = json.dumps({"leases": [messages[0]["lease"]]}).encode()
        assert (await ask(gateway.port, "POST", f"{path}/ack", body)).status == 200
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended(20) == 0

    async def back() -> bool:
        return await depth(broker, queue) == 4

    await eventually(back, "four messages back on their queue", 20)
    async with running(config) as gateway:
        await gateway.until_up("mq")
        again = await _receive(gateway.port, path, 4)
        assert sorted(one["body"] for one in again) == sorted(one["body"] for one in messages[1:])
        assert all(one["redelivered"] for one in again)
        old = json.dumps({"leases": [messages[1]["lease"]]}).encode()
        answer = await ask(gateway.port, "POST", f"{path}/ack", old)
        assert (answer.status, answer.json["results"][0]["result"]) == (207, "unknown")
