"""Clients that mean harm, or are merely broken: they cost the gateway a bounded place, and nobody else anything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.brokers.fixtures import Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.crowd import Raw, each, gather_crowd, post_head
from tests.e2e.http_client import eventually, post
from tests.e2e.live_gateway import MEMORY, LiveGateway, running, stomp, write_config
from tests.e2e.sizes import sized
from tests.e2e.vitals import MIB, Times, repeating, vitals

HALF_OPEN = sized(1000, 8000)
VANISHED = sized(500, 5000)
LARGE_HEADS = 100
#: With half of each, more than the memory.
STOPPED_BODIES = 100
BODY = MIB
MEMORY_BYTES = 32 * MIB
PATIENCE = 2.0
#: Seconds for a head: full-size, as long as the crowd needs to be there all at once.
HEAD_PATIENCE = sized(2.0, 10.0)
#: MiB for what a connection costs beside what it sends: 8 000 of them were measured.
CONNECTION_MIB = 0.016
#: MiB of noise: what the interpreter keeps of freed memory.
SLACK = 24.0


async def answered(port: int) -> None:
    """A well-behaved client's publish."""
    answer = await post(port, "/mq/mem/Queues/others", b"x")
    assert answer.status == 200, answer


async def freed(gateway: LiveGateway, descriptors: int) -> None:
    """Wait until the process holds no more descriptors than before."""

    async def holds() -> bool:
        return vitals(gateway.pid).descriptors <= descriptors

    await eventually(holds, f"{descriptors} descriptors, there are {vitals(gateway.pid).descriptors}")


async def test_thousands_of_half_open_connections(tmp_path: Path) -> None:
    """Half of them never say a word, half stop within the head."""
    config = write_config(tmp_path, {"mem": MEMORY}, server={"header_timeout": HEAD_PATIENCE})
    async with running(config) as gateway:
        before = vitals(gateway.pid)
        times = Times("publishes of others")

        async def half(number: int) -> Raw:
            raw = await Raw.connect(gateway.port)
            if number % 2:
                await raw.send(post_head("/mq/mem/Queues/jobs", 10)[:-3])
            return raw

        async with repeating(0.02, (times, lambda: answered(gateway.port))):
            crowd = await gather_crowd(HALF_OPEN, half)
            during = vitals(gateway.pid)
            await freed(gateway, before.descriptors + 2)
        print(f"{HALF_OPEN} half-open: {during.descriptors} descriptors, RSS {before.rss:.0f} -> {during.rss:.0f} MiB")
        print(times)
        told = [await raw.rest() for raw in crowd[:100]]
        for raw in crowd:
            raw.close()
        assert times.p99 < 1
        assert {answer[:12] for answer in told} <= {b"", b"HTTP/1.1 400"}
        assert vitals(gateway.pid).rss - before.rss < SLACK + HALF_OPEN * CONNECTION_MIB
        await freed(gateway, before.descriptors)


@pytest.mark.parametrize("way", ["fin", "rst"])
async def test_a_head_and_then_nobody(rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique, way: str) -> None:
    queue = unique("jobs")
    async with running(write_config(tmp_path, {"mq": stomp(rabbitmq), "mem": MEMORY})) as gateway:
        await gateway.until_up("mq")
        path = f"/mq/mq/Queues/{queue}"
        assert (await post(gateway.port, path, b"first")).status == 200
        before = vitals(gateway.pid)

        async def vanish(number: int) -> None:
            raw = await Raw.connect(gateway.port)
            await raw.send(post_head(path, 100) + b"part"[: number % 5])
            raw.reset() if way == "rst" else raw.close()

        await each(vanish, range(VANISHED))
        await freed(gateway, before.descriptors)
        assert await gateway.metric("mq_gateway_in_flight", service="mq") == 0
        assert (await post(gateway.port, path, b"last")).status == 200
        assert (await rabbitmq.queues())[queue] == 2
        assert vitals(gateway.pid).rss - before.rss < SLACK


async def test_bodies_that_stop_in_the_middle(rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique) -> None:
    """They are never published, hold no more than the memory there is, and give it back."""
    queue = unique("jobs")
    limits, server = {"memory_bytes": MEMORY_BYTES}, {"idle_timeout": PATIENCE}
    services = {"mq": stomp(rabbitmq), "mem": MEMORY}
    async with running(write_config(tmp_path, services, limits=limits, server=server)) as gateway:
        await gateway.until_up("mq")
        path = f"/mq/mq/Queues/{queue}"
        assert (await post(gateway.port, path, b"first")).status == 200
        before = vitals(gateway.pid)

        async def half(_number: int) -> Raw:
            raw = await Raw.connect(gateway.port)
            # Refused ones are no longer read: what they have not sent yet stays with them.
            sending = asyncio.ensure_future(raw.send(post_head(path, BODY) + b"y" * (BODY // 2)))
            await asyncio.wait({sending}, timeout=0.5)
            sending.cancel()
            await asyncio.wait({sending})
            return raw

        crowd = await gather_crowd(STOPPED_BODIES, half)
        during = vitals(gateway.pid)
        small = [(await post(gateway.port, path, b"small")).status for _ in range(20)]
        answers = [(await raw.rest())[:12] for raw in crowd]
        for raw in crowd:
            raw.close()
        counted = {status: answers.count(status) for status in sorted(set(answers))}
        print(f"{STOPPED_BODIES} bodies of {BODY // MIB} MiB stop halfway: {counted}, small ones meanwhile {small}")
        print(f"RSS {before.rss:.0f} -> {during.rss:.0f}, peak {during.peak:.0f} MiB")
        assert set(counted) <= {b"HTTP/1.1 400", b"HTTP/1.1 503", b""}
        assert counted[b"HTTP/1.1 400"] > 0
        assert during.rss - before.rss < MEMORY_BYTES / MIB + SLACK
        await freed(gateway, before.descriptors)
        # The place is free again: what needs most of it finds it.
        whole = [await post(gateway.port, path, b"z" * (3 * MIB)) for _ in range(5)]
        assert [answer.status for answer in whole] == [200] * 5
        assert (await rabbitmq.queues())[queue] == 6 + small.count(200)


async def test_large_heads_are_not_kept(tmp_path: Path) -> None:
    """Neither by a connection between two requests nor by a stream that goes on."""
    fields = b"".join(b"Mq-Header-%d: %s\r\n" % (number, b"x" * 8000) for number in range(60))
    target = b"/mq/mem/Topics/events"
    publish = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n%b\r\nx" % (target, fields)
    stream = b"GET %b/events HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (target, fields)
    async with running(write_config(tmp_path, {"mem": MEMORY})) as gateway:
        crowd = []

        async def ask(request: bytes, answer: bytes) -> None:
            raw = await Raw.connect(gateway.port)
            await raw.send(request)
            await raw.read_until(answer)
            crowd.append(raw)

        for _ in range(5):  # what parsing such heads takes is there
            await ask(publish, b"confirmed")
        before = vitals(gateway.pid)
        for _ in range(LARGE_HEADS):
            await ask(publish, b"confirmed")
            await ask(stream, b"welcome")
        during = vitals(gateway.pid)
        for raw in crowd:
            raw.close()
        sent = 2 * LARGE_HEADS * len(publish) / MIB
        print(f"{sent:.0f} MiB of heads: RSS {before.rss:.0f} -> {during.rss:.0f} MiB")
        assert during.rss - before.rss < SLACK < sent / 2
