"""Behaviours of links to real brokers, seen through HTTP, by their numbers in docs/conformance.md."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.process import LOOPBACK
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.tls import Authority
from tests.e2e.http_client import Http, Sse, connections, eventually, post
from tests.e2e.live_gateway import MEMORY, LiveGateway, running, stomp, write_config
from tests.faults.relay import Relay

#: Seconds of heart-beat, the shortest that RabbitMQ grants.
BEAT = 1.0


@pytest.fixture
async def black_hole() -> AsyncIterator[int]:
    """A port of this machine that answers no SYN: its listener's queue is full. Nothing leaves the machine."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((LOOPBACK, port))
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.3)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(probe.connect, (LOOPBACK, port))
        yield port


async def test_behaviour_15_a_host_that_swallows_everything(
    black_hole: int, broker: Broker, tmp_path: Path, unique: Unique
) -> None:
    hole = {"mq_type": "Stomp", "host": LOOPBACK, "port": black_hole, "allow_undeclared": True, "connect_timeout": 2}
    services = {"hole": {**hole, "reconnect": {"initial": 30, "max": 30}}, "mq": stomp(broker), "mem": MEMORY}
    path = f"/mq/mq/Queues/{unique('fine')}"
    async with running(write_config(tmp_path, services)) as gateway:
        begun = time.monotonic()
        await gateway.until_up("mq")
        slowest = 0.0
        async with await Http.connect(gateway.port) as http:
            while (view := await gateway.link("hole"))["last_error"] is None:
                asked = time.monotonic()
                assert (await http.ask("POST", path, b"x")).status == 200
                assert (await http.ask("POST", "/mq/mem/Queues/a", b"x")).status == 200
                slowest = max(slowest, time.monotonic() - asked)
                assert time.monotonic() - begun < 5
                await asyncio.sleep(0.02)
        assert view["last_error"]["code"] == "timeout"
        # The attempt began while the process started, a little before the clock of this test.
        assert 1 < time.monotonic() - begun < 4
        assert slowest < 1


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_behaviour_18_the_end_of_a_tls_connection_is_noticed_and_costs_no_cpu(
    rabbitmq: RabbitMQ, authority: Authority, tmp_path: Path, reset: bool
) -> None:
    async with Relay.to(rabbitmq.ports["tls"]) as relay:
        service = stomp(rabbitmq, host="localhost", port=relay.port, tls={"ca_file": str(authority.ca_file)})
        service["reconnect"] = {"initial": 60, "max": 60}
        async with running(write_config(tmp_path, {"mq": service})) as gateway:
            await gateway.until_up("mq")
            await relay.shut(reset=reset)
            await gateway.until_link("mq", lambda view: view["link"] == "down", 1)
            before, begun = cpu_seconds(gateway), time.monotonic()
            await asyncio.sleep(2)
            share = (cpu_seconds(gateway) - before) / (time.monotonic() - begun)
            assert share < 0.05, "one ended connection keeps a core busy"
            got = await post(gateway.port, "/mq/mq/Queues/a", b"x")
            assert (got.status, got.outcome) == (503, "not_sent")


def cpu_seconds(gateway: LiveGateway) -> float:
    """Processor time of the process so far, in user and in kernel mode."""
    fields = Path(f"/proc/{gateway.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_behaviour_20_22_heart_beats_hold_the_third_connection_through_ten_idle_intervals(
    rabbitmq: RabbitMQ, activemq: ActiveMQ, tmp_path: Path
) -> None:
    """Both brokers cut a client that is silent for some intervals, and the gateway a broker that is."""
    async with Relay.to(rabbitmq.port) as rabbit, Relay.to(activemq.port) as active:
        milliseconds = int(BEAT * 1000)
        services = {
            "rabbit": stomp(rabbitmq, port=rabbit.port, heartbeat_ms=[milliseconds, milliseconds]),
            "active": stomp(activemq, port=active.port, heartbeat_ms=[milliseconds, milliseconds]),
        }
        async with running(write_config(tmp_path, services)) as gateway:
            for number in (1, 2, 3):
                for name, relay in (("rabbit", rabbit), ("active", active)):
                    await gateway.until_up(name)
                    assert relay.taken == number
                    if number < 3:
                        await cut(gateway, name, relay)
            sent = {relay: (relay.sent, relay.received) for relay in (rabbit, active)}
            await asyncio.sleep(10 * BEAT)
            for relay, (before_sent, before_received) in sent.items():
                assert relay.taken == 3, f"idle is no reason to reconnect:\n{gateway.log.read_text()}"
                # Nothing but heart-beats, a byte each; the gateway sends two in each interval.
                assert 8 <= relay.sent - before_sent <= 40
                assert 8 <= relay.received - before_received <= 40
            for name in services:
                assert (await gateway.link(name))["link"] == "up"
                assert (await post(gateway.port, f"/mq/{name}/Queues/idle", b"x")).status == 200


async def cut(gateway: LiveGateway, service: str, relay: Relay) -> None:
    """End the connection and wait until the gateway has noticed."""
    since = (await gateway.link(service))["since"]
    relay.cut()
    await gateway.until_link(service, lambda view: view["since"] != since)


async def test_behaviour_21_a_frozen_broker_ends_what_is_pending_while_a_large_write_is_blocked(
    broker: Broker, tmp_path: Path, unique: Unique
) -> None:
    async with Relay.to(broker.port) as relay:
        service = stomp(broker, port=relay.port, heartbeat_ms=[1000, 1000])
        async with running(write_config(tmp_path, {"mq": service, "mem": MEMORY})) as gateway:
            await gateway.until_up("mq")
            path = f"/mq/mq/Queues/{unique('frozen')}?timeout=30"
            assert (await post(gateway.port, path, b"x")).status == 200
            relay.freeze()
            begun = time.monotonic()
            async with connections(gateway.port, 10) as https:
                small = [asyncio.create_task(http.ask("POST", path, b"small")) for http in https[:6]]
                await gateway_has(gateway, 6)
                large = [asyncio.create_task(http.ask("POST", path, bytes(4_000_000))) for http in https[6:]]
                answers = await asyncio.gather(*small)
                seconds = time.monotonic() - begun
                others = await asyncio.gather(*large)
            assert Counter((a.status, a.code, a.outcome) for a in answers) == {(504, "connection_lost", "unknown"): 6}
            # Two intervals, half of one between two looks, and what shared cores cost.
            assert seconds < 2.5 + 1.5
            assert {(a.status, a.outcome) for a in others} <= {(504, "unknown"), (503, "not_sent")}
            assert others[0].outcome == "unknown"


async def gateway_has(gateway: LiveGateway, number: int) -> None:
    """Wait until so many publishes are in flight."""

    async def holds() -> bool:
        return await gateway.metric("mq_gateway_in_flight", service="mq") >= number

    await eventually(holds, f"{number} in flight")


async def test_behaviour_09_every_stream_gets_what_is_published_after_a_reconnect(
    broker: Broker, tmp_path: Path, stomp_client: ConnectStomp, unique: Unique
) -> None:
    topics = [unique("news") for _ in range(15)]
    queues = [unique("work") for _ in range(15)]
    async with (
        Relay.to(broker.port) as relay,
        running(write_config(tmp_path, {"mq": stomp(broker, port=relay.port)})) as gateway,
    ):
        await gateway.until_up("mq")
        paths = [f"/mq/mq/Topics/{name}/events" for name in topics]
        paths += [f"/mq/mq/Queues/{name}/events" for name in queues]
        streams = await asyncio.gather(*(Sse.open(gateway.port, path) for path in paths))
        for number in (1, 2):
            relay.reset()
            for stream in streams[:15]:
                gap = await stream.next()
                assert (gap.name, gap.json["reason"]) == ("gap", "link_lost")
            assert relay.taken == number + 1
            # Of another producer: it knows nothing of the gateway's connection.
            client = await stomp_client(broker)
            for name in topics:
                await client.send(f"/topic/{name}", f"{number} {name}")
            for name in queues:
                await client.send(f"/queue/{name}", f"{number} {name}")
            for name, stream in zip(topics, streams[:15], strict=True):
                assert (await stream.next()).data == f"{number} {name}"
            for name, stream in zip(queues, streams[15:], strict=True):
                # An ack that was cut off with the connection lets the message before come twice.
                body = f"{number} {name}"
                seen = await stream.until(lambda event, body=body: event.data == body)  # type: ignore[misc]
                assert {event.data for event in seen} <= {body, f"{number - 1} {name}"}
