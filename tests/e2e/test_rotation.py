"""Another password at a real broker under load: nobody is to notice."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.brokers.fixtures import Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.http_client import Http, Sse, eventually
from tests.e2e.live_gateway import LiveGateway, running, stomp, write_config
from tests.e2e.test_reload import hang_up

PUBLISHERS = 8


class Load:
    """Publishers without a pause, by turns to a Queue and to a Topic."""

    def __init__(self, port: int, queue: str, topic: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.queued = 0
        self.last = b""
        self._port, self._paths = port, (f"/mq/mq/Queues/{queue}", f"/mq/mq/Topics/{topic}")
        self._over = asyncio.Event()
        self._running = [asyncio.ensure_future(self._publish(number)) for number in range(PUBLISHERS)]

    async def _publish(self, publisher: int) -> None:
        async with await Http.connect(self._port) as http:
            number = 0
            while not self._over.is_set():
                for path in self._paths:
                    status = (await http.ask("POST", path, b"%d-%d" % (publisher, number))).status
                    self.statuses[status] += 1
                    self.queued += "Queues" in path
                number += 1

    async def goes_on(self) -> None:
        """Wait until some more are through."""
        wanted = self.statuses.total() + 10 * PUBLISHERS

        async def through() -> bool:
            return self.statuses.total() >= wanted

        await eventually(through, "publishes that go on")

    async def end(self) -> None:
        self._over.set()
        await asyncio.gather(*self._running)


async def _is_another(gateway: LiveGateway, broker: RabbitMQ, before: list[str]) -> None:
    async def another() -> bool:
        pids = await gateway.broker_pids(broker)
        return len(pids) == len(before) and not set(pids) & set(before)

    await eventually(another, "the connection with the new password, and the old one gone")


@pytest.mark.parametrize("connections", ["single", "split"])
async def test_a_password_is_rotated_under_load(
    rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique, connections: str
) -> None:
    user, jobs, news, secret = unique("user"), unique("jobs"), unique("news"), tmp_path / "password"
    await rabbitmq.add_user(user, "first-secret")
    await rabbitmq.set_permissions(user)
    secret.write_text("first-secret\n")
    service = stomp(rabbitmq, user=user, password=None, password_file=str(secret), connections=connections)
    config = write_config(tmp_path, {"mq": service})
    async with running(config) as gateway:
        await gateway.until_up("mq")
        before = await gateway.broker_pids(rabbitmq)
        stream = await Sse.open(gateway.port, f"/mq/mq/Topics/{news}/events")
        load = Load(gateway.port, jobs, news)
        await load.goes_on()

        secret.write_text("second-secret\n")  # before the broker has it
        await hang_up(gateway)
        await gateway.until_link("mq", lambda view: view["last_error"] is not None)
        view = await gateway.link("mq")
        assert (view["link"], view["last_error"]["code"]) == ("up", "auth_failed")
        await load.goes_on()
        assert await gateway.broker_pids(rabbitmq) == before

        await rabbitmq.ctl("change_password", user, "second-secret")
        await hang_up(gateway)  # or wait for the next attempt
        await _is_another(gateway, rabbitmq, before)
        await load.goes_on()
        await load.end()

        assert set(load.statuses) == {200}
        assert (await rabbitmq.queues())[jobs] == load.queued
        *_, gap = await stream.until(lambda event: event.name == "gap")
        assert gap.json["reason"] == "link_lost"
        assert await gateway.metric("mq_gateway_reconnects_total", service="mq") == 0
        assert await gateway.metric("mq_gateway_connector_events_total", service="mq", event="replacement_failed") > 0
        log = gateway.log.read_text()
        assert "the present connection stays" in log
        assert "-secret" not in log
