"""SIGHUP: new and changed services are connected, unchanged ones keep their connection, a bad file changes nothing."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from tests.brokers.activemq import ActiveMQ
from tests.brokers.fixtures import MakeRabbitMQ, Unique
from tests.brokers.process import free_port
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.http_client import Http, Sse, ask, eventually, get_json, post
from tests.e2e.live_gateway import MEMORY, LiveGateway, running, stomp, write_config


async def reload(gateway: LiveGateway, config: Path, services: dict[str, Any], **sections: Any) -> None:
    """Write the file, send SIGHUP, and wait until the log says that it was done."""
    write_config(config.parent, services, **sections)
    await hang_up(gateway)


async def hang_up(gateway: LiveGateway) -> None:
    def ends() -> int:
        log = gateway.log.read_text()
        return log.count("configuration reloaded") + log.count("configuration stays as it was")

    before = ends()
    gateway.signal(signal.SIGHUP)

    async def told() -> bool:
        return ends() > before

    await eventually(told, "the end of a reload")


async def test_a_new_a_changed_a_removed_and_an_unchanged_service(
    rabbitmq: RabbitMQ, activemq: ActiveMQ, tmp_path: Path, unique: Unique
) -> None:
    user = unique("user")
    await rabbitmq.add_user(user, "one")
    await rabbitmq.set_permissions(user)
    changed = stomp(rabbitmq, user=user, password="one")
    config = write_config(tmp_path, {"same": stomp(activemq), "changed": changed, "gone": MEMORY})
    news = unique("news")
    async with running(config) as gateway:
        await gateway.until_up("same", "changed")
        same, before = gateway.broker_ports(activemq), await gateway.broker_pids(rabbitmq)
        streams = {
            name: await Sse.open(gateway.port, f"/mq/{name}/Topics/{news}/events")
            for name in ("same", "changed", "gone")
        }
        await rabbitmq.ctl("change_password", user, "two")
        services = {"same": stomp(activemq), "changed": {**changed, "password": "two"}, "new": stomp(rabbitmq)}
        await reload(gateway, config, services)
        await gateway.until_up("same", "changed", "new")

        async def another_connection() -> bool:
            pids = await gateway.broker_pids(rabbitmq)
            return len(pids) == 2 and not set(pids) & set(before)

        await eventually(another_connection, "the connection with the new password")
        assert gateway.broker_ports(activemq) == same, "what is unchanged keeps its connection"
        gap = await streams["changed"].next()
        assert (gap.name, gap.json["reason"]) == ("gap", "link_lost")
        assert await streams["gone"].rest() == []
        assert streams["gone"].parser.retry is not None
        for name in ("same", "changed"):
            assert (await post(gateway.port, f"/mq/{name}/Topics/{news}", name)).status == 200
            assert (await streams[name].next()).data == name
        assert (await post(gateway.port, f"/mq/new/Queues/{news}", "x")).status == 200
        assert (await post(gateway.port, f"/mq/gone/Queues/{news}", "x")).status == 404
        names = [service["service"] for service in (await get_json(gateway.port, "/mq"))["services"]]
        assert names == ["changed", "new", "same"]
        assert await gateway.metric("mq_gateway_config_reload_success") == 1
        assert await gateway.metric("mq_gateway_reconnects_total", service="same") == 0
        metrics = (await ask(gateway.port, "GET", "/metrics")).body.decode()
        assert 'mq_gateway_link_up{service="gone"}' not in metrics
        assert 'mq_gateway_link_up{service="new"} 1.0' in metrics


async def test_publishes_and_streams_do_not_notice_that_another_destination_is_declared(
    rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique
) -> None:
    jobs, news, more = unique("jobs"), unique("news"), unique("more")
    service = stomp(rabbitmq, allow_undeclared=False, queues={jobs: {}}, topics={news: {}})
    config = write_config(tmp_path, {"mq": service})
    async with running(config) as gateway:
        await gateway.until_up("mq")
        identity = await gateway.broker_pids(rabbitmq)
        stream = await Sse.open(gateway.port, f"/mq/mq/Topics/{news}/events")
        assert (await post(gateway.port, f"/mq/mq/Queues/{more}", "x")).status == 404
        stop = asyncio.Event()

        async def publishes() -> list[int]:
            statuses = []
            async with await Http.connect(gateway.port) as http:
                while not stop.is_set():
                    statuses.append((await http.ask("POST", f"/mq/mq/Queues/{jobs}", b"x")).status)
            return statuses

        publishing = asyncio.create_task(publishes())
        await reload(gateway, config, {"mq": {**service, "queues": {jobs: {}, more: {}}}})
        assert (await post(gateway.port, f"/mq/mq/Queues/{more}", "x")).status == 200
        # A destination whose own options change ends its streams; they come back to the new ones.
        await reload(gateway, config, {"mq": {**service, "topics": {news: {"ring_messages": 5}}}})
        assert await stream.rest() == []
        assert (await post(gateway.port, f"/mq/mq/Queues/{more}", "x")).status == 404
        stop.set()
        assert set(await publishing) == {200}
        assert await gateway.broker_pids(rabbitmq) == identity
        view = await get_json(gateway.port, f"/mq/mq/Queues/{jobs}")
        assert view["published"] > 0, "counters go on"


async def test_what_cannot_be_used_changes_nothing(rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique) -> None:
    service = stomp(rabbitmq)
    config = write_config(tmp_path, {"mq": service, "mem": MEMORY})
    news = f"/mq/mq/Topics/{unique('news')}"
    async with running(config) as gateway:
        await gateway.until_up("mq")
        identity = await gateway.broker_pids(rabbitmq)
        stream = await Sse.open(gateway.port, f"{news}/events")
        for text in (
            "services: [",
            "{}",
            json.dumps({"services": {"mq": {**service, "port": "x"}}}),
            json.dumps({"services": {"mq": {**service, "pasword": "secret-one"}}}),
            json.dumps({"services": {"mq": {**service, "mq_type": "Kafka"}}}),
            json.dumps({"services": {"mq": service}, "server": {"host": "0.0.0.0"}}),
        ):
            config.write_text(text)
            await hang_up(gateway)
            assert await gateway.metric("mq_gateway_config_reload_success") == 0, text
        config.unlink()
        await hang_up(gateway)
        assert (await post(gateway.port, news, "still here")).status == 200
        assert (await stream.next()).data == "still here"
        assert (await post(gateway.port, "/mq/mem/Queues/a", "x")).status == 200
        assert await gateway.broker_pids(rabbitmq) == identity
        await reload(gateway, config, {"mq": service, "mem": MEMORY}, limits={"streams": 7})
        assert await gateway.metric("mq_gateway_config_reload_success") == 1
        log = gateway.log.read_text()
        assert "counts from the next start on: limits.streams" in log
        assert "secret-one" not in log


async def test_a_link_that_waits_is_tried_at_once_and_many_signals_are_few_reloads(
    make_rabbitmq: MakeRabbitMQ, tmp_path: Path
) -> None:
    broker = await make_rabbitmq(start=False)
    slow = {"initial": 600, "max": 600}
    config = write_config(tmp_path, {"mq": stomp(broker, reconnect=slow), "mem": MEMORY})
    async with running(config) as gateway:
        await gateway.until_link("mq", lambda view: view["link"] == "down")
        await broker.start()
        for _ in range(50):
            gateway.signal(signal.SIGHUP)
        await hang_up(gateway)
        await gateway.until_up("mq", timeout=5)
        assert gateway.log.read_text().count("configuration reloaded") < 50
        # Changed while it goes down: the new address counts, and nothing waits for the old one.
        await reload(gateway, config, {"mq": stomp(broker, port=free_port(), reconnect=slow), "mem": MEMORY})
        await gateway.until_link("mq", lambda view: view["last_error"] is not None)
        assert gateway.broker_ports(broker) == set()
        gateway.signal(signal.SIGHUP)
        gateway.signal()
        assert await gateway.ended(10) == 0


async def test_a_service_that_changes_its_type_or_its_connections(
    rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique
) -> None:
    jobs, config = unique("jobs"), write_config(tmp_path, {"mq": stomp(rabbitmq)})
    async with running(config) as gateway:
        await gateway.until_up("mq")
        stream = await Sse.open(gateway.port, f"/mq/mq/Queues/{jobs}/events")
        await reload(gateway, config, {"mq": stomp(rabbitmq, connections="split")})
        assert await stream.rest() == []
        await gateway.until_up("mq")

        async def two() -> bool:
            return len(gateway.broker_ports(rabbitmq)) == 2

        await eventually(two, "the two connections, and the old one gone")
        async with await Sse.open(gateway.port, f"/mq/mq/Queues/{jobs}/events") as again:
            assert (await post(gateway.port, f"/mq/mq/Queues/{jobs}", "one")).status == 200
            assert (await again.next()).data == "one"
        await reload(gateway, config, {"mq": MEMORY})
        assert (await post(gateway.port, f"/mq/mq/Queues/{jobs}", "two")).status == 200

        async def none() -> bool:
            return not gateway.broker_ports(rabbitmq)

        await eventually(none, "the end of the connections")
        assert (await gateway.link("mq"))["broker"] == "Memory"
        assert await gateway.metric("mq_gateway_link_up", service="mq") == 1
