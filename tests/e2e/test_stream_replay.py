"""Topics with a stream behind them, over HTTP: ids that are good everywhere and after everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.fixtures import Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.http_client import Event, Sse, ask, post
from tests.e2e.live_gateway import running, stomp, write_config
from tests.faults.peer import ScriptedPeer


def _service(topic: str, broker: RabbitMQ | None) -> dict[str, Any]:
    declared: dict[str, Any] = {"topics": {topic: {"replay": "stream", "ring_messages": 5}}}
    if broker is None:
        return {"mq_type": "Memory", **declared}
    return stomp(broker, **declared)


async def _publish(port: int, path: str, *numbers: int) -> None:
    for number in numbers:
        assert (await post(port, path, str(number))).status == 200


def _seen(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.id, event.data) for event in events]


def _all(*numbers: int) -> list[tuple[str, str]]:
    return [(f"s.{number}", str(number)) for number in numbers]


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> RabbitMQ | None:
    found: RabbitMQ | None = request.getfixturevalue("rabbitmq") if request.param == "rabbitmq" else None
    return found


async def test_every_position_is_good(tmp_path: Path, unique: Unique, broker: RabbitMQ | None) -> None:
    topic = unique("alerts")
    path = f"/mq/mq/Topics/{topic}"
    config = write_config(tmp_path, {"mq": _service(topic, broker)})
    async with running(config) as gateway, await Sse.open(gateway.port, f"{path}/events") as live:
        await _publish(gateway.port, path, *range(20))
        assert _seen(await live.take(20)) == _all(*range(20))
        for seen in (-1, 0, 7, 14, 18, 19):
            async with await Sse.open(gateway.port, f"{path}/events", {"Last-Event-ID": f"s.{seen}"}) as stream:
                assert _seen(await stream.take(19 - seen)) == _all(*range(seen + 1, 20))
        async with await Sse.open(gateway.port, f"{path}/events?from=earliest") as stream:
            assert _seen(await stream.take(20)) == _all(*range(20))
        async with await Sse.open(gateway.port, f"{path}/events?from=2020-01-02T03:04:05Z") as stream:
            assert _seen(await stream.take(20)) == _all(*range(20))
            await _publish(gateway.port, path, 20)
            assert _seen(await stream.take(1)) == _seen(await live.take(1)) == _all(20)
        async with await Sse.open(gateway.port, f"{path}/events", {"Last-Event-ID": "s.999"}) as stream:
            gap, *events = await stream.take(22)
            assert (gap.name, json.loads(gap.data)["reason"]) == ("gap", "restart")
            assert _seen(events) == _all(*range(21))


async def test_a_ring_begins_at_a_time_too(tmp_path: Path) -> None:
    services = {"mq": {"mq_type": "Memory", "topics": {"plain": {"keep": True}}}}
    async with running(write_config(tmp_path, services)) as gateway:
        path = "/mq/mq/Topics/plain"
        await _publish(gateway.port, path, 0, 1)
        async with await Sse.open(gateway.port, f"{path}/events?from=2020-01-02T03:04:05Z") as stream:
            assert [event.data for event in await stream.take(2)] == ["0", "1"]
        async with await Sse.open(gateway.port, f"{path}/events?from=2120-01-02T03:04:05Z") as stream:
            await _publish(gateway.port, path, 2)
            assert [event.data for event in await stream.take(1)] == ["2"]


@pytest.mark.rabbitmq
async def test_another_replica_and_a_restart_go_on_exactly(tmp_path: Path, unique: Unique, rabbitmq: RabbitMQ) -> None:
    topic = unique("alerts")
    path = f"/mq/mq/Topics/{topic}"
    config = write_config(tmp_path, {"mq": _service(topic, rabbitmq)})
    async with running(config) as first:
        async with await Sse.open(first.port, f"{path}/events") as stream:
            await _publish(first.port, path, *range(10))
            assert _seen(await stream.take(10)) == _all(*range(10))
        async with running(config) as second:
            await _publish(second.port, path, 10)
            async with await Sse.open(second.port, f"{path}/events", {"Last-Event-ID": "s.3"}) as stream:
                assert _seen(await stream.take(7)) == _all(*range(4, 11))
    async with (
        running(config) as again,
        await Sse.open(again.port, f"{path}/events", {"Last-Event-ID": "s.9"}) as stream,
    ):
        assert _seen(await stream.take(1)) == _all(10)


@pytest.mark.rabbitmq
async def test_what_was_published_before_the_first_reader_is_in_the_stream(
    tmp_path: Path, unique: Unique, rabbitmq: RabbitMQ
) -> None:
    """It is declared at link-up: a Topic nobody ever subscribed to loses nothing."""
    topic = unique("alerts")
    path = f"/mq/mq/Topics/{topic}"
    async with running(write_config(tmp_path, {"mq": _service(topic, rabbitmq)})) as gateway:
        await _publish(gateway.port, path, *range(3))
        async with await Sse.open(gateway.port, f"{path}/events?from=earliest") as stream:
            assert _seen(await stream.take(3)) == _all(*range(3))


async def test_a_broker_without_streams_is_a_422(tmp_path: Path, scripted_peer: ScriptedPeer) -> None:
    scripted_peer.script.connected = {"version": "1.2", "server": "ActiveMQ/5.17.2", "heart-beat": "0,0"}
    service = {"hosts": [scripted_peer.address], "topics": {"alerts": {"replay": "stream"}}}
    async with running(write_config(tmp_path, {"mq": service})) as gateway:
        await gateway.until_up("mq")
        for accept in ("text/event-stream", "*/*"):
            answer = await ask(gateway.port, "GET", "/mq/mq/Topics/alerts/events", headers={"Accept": accept})
            assert (answer.status, answer.code) == (422, "not_supported_by_broker")
        answer = await post(gateway.port, "/mq/mq/Topics/alerts", "x")
        assert (answer.status, answer.code, answer.outcome) == (422, "not_supported_by_broker", "not_sent")
