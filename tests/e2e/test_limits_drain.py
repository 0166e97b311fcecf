"""SIGTERM with everything going on at the same time: streams by the thousand, publishes in flight, stalled readers."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.brokers.broker import Broker
from tests.brokers.fixtures import Unique
from tests.e2e.crowd import Raw, gather_crowd, open_stream
from tests.e2e.http_client import Answer, Http, Sse, eventually, post
from tests.e2e.live_gateway import MEMORY, LiveGateway, running, stomp, write_config
from tests.e2e.sizes import sized

STREAMS = 1000
TOPICS = 7
IN_FLIGHT = 50
DRAIN = sized(4.0, 20.0)
#: Seconds the broker still says nothing after the signal, as long as clients and the drain wait for it.
SILENCE = sized(0.5, 5.0)
#: Seconds after the drain for closing links, with a broker that does not answer.
CLOSING = 10.0
#: Seconds of a machine that is busy with other tests.
LATE = 3.0


class Scene:
    """A gateway on a broker that can be stopped, another one and memory; streams everywhere, publishes in flight."""

    def __init__(self, gateway: LiveGateway, broker: Broker, unique: Unique) -> None:
        self.gateway = gateway
        self._broker = broker
        self._topics = [unique("news") for _ in range(TOPICS)]
        self._queue = unique("jobs")
        self.streams: list[Raw] = []
        self.posts: list[asyncio.Task[Answer]] = []

    async def open_streams(self) -> None:
        services = ("stopped", "other", "mem")
        paths = [f"/mq/{service}/Topics/{topic}/events" for service in services for topic in self._topics]

        async def one(index: int) -> Raw:
            return await open_stream(self.gateway.port, paths[index % len(paths)])

        self.streams = await gather_crowd(STREAMS, one)

    async def stall(self) -> Sse:
        """A reader that has more to read than the buffers hold, and does not."""
        stalled = await Sse.open(self.gateway.port, "/mq/mem/Topics/large/events", receive_buffer=4096)
        for _ in range(10):
            assert (await post(self.gateway.port, "/mq/mem/Topics/large", b"x" * 300_000)).status == 200
        return stalled

    async def post(self, timeout: float) -> None:
        """Stop the broker, then publish; returns when all publishes are in flight."""
        https = [await Http.connect(self.gateway.port) for _ in range(IN_FLIGHT)]
        await self._broker.pause()
        path = f"/mq/stopped/Queues/{self._queue}?timeout={timeout}"
        self.posts = [asyncio.create_task(http.ask("POST", path, b"%d" % at)) for at, http in enumerate(https)]

        async def all_in_flight() -> bool:
            return await self.gateway.metric("mq_gateway_in_flight", service="stopped") == IN_FLIGHT

        await eventually(all_in_flight, "fifty publishes in flight")

    async def answers(self) -> Counter[tuple[int, str]]:
        return Counter((answer.status, answer.outcome) for answer in await asyncio.gather(*self.posts))


async def ends(streams: list[Raw], begun: float) -> tuple[list[int], float]:
    """The `retry:` that each stream ends with, after which its last chunk is clean; when the last one had ended."""

    async def last_words(raw: Raw) -> int:
        rest = await raw.rest()
        raw.close()
        found = re.search(rb"retry: ?(\d+)\n\n\r\n0\r\n\r\n$", rest)
        assert found, rest
        return int(found[1])

    async with asyncio.timeout(DRAIN + LATE):
        retries = await asyncio.gather(*(last_words(raw) for raw in streams))
    return list(retries), time.monotonic() - begun


def spread(retries: list[int]) -> None:
    assert 1000 <= min(retries) < 1500
    assert 4500 < max(retries) <= 5000
    assert max(Counter(retries).values()) < 10


@pytest.mark.timeout(180)
async def test_sse_case_47_sse_case_49_sse_case_51_sigterm_with_everything(
    stoppable: Broker, other: Broker, tmp_path: Path, unique: Unique
) -> None:
    """The broker says nothing at the signal and answers a moment later; one reader is stalled until the deadline."""
    services = {"stopped": stomp(stoppable), "other": stomp(other), "mem": MEMORY}
    config = write_config(tmp_path, services, server={"drain_seconds": DRAIN, "write_timeout": 300})
    async with running(config) as gateway:
        await gateway.until_up("stopped", "other")
        scene = Scene(gateway, stoppable, unique)
        await scene.open_streams()
        stalled = await scene.stall()
        await scene.post(timeout=DRAIN)
        begun = time.monotonic()
        gateway.signal()
        retries, took = await ends(scene.streams, begun)
        await asyncio.sleep(max(0.0, begun + SILENCE - time.monotonic()))
        assert not any(task.done() for task in scene.posts)
        await stoppable.resume()
        answers = await scene.answers()
        answered = time.monotonic() - begun
        code = await gateway.ended(DRAIN + CLOSING)
        ended = time.monotonic() - begun
        print(f"{stoppable.kind}: {STREAMS} streams ended after {took:.2f} s")
        print(f"{dict(answers)} after {answered:.2f} s")
        print(f"retry {min(retries)}..{max(retries)}, {len(set(retries))} different; exit {code} after {ended:.2f} s")
        spread(retries)
        assert answers == {(200, "confirmed"): IN_FLIGHT}
        assert code == 0
        assert DRAIN - 0.5 < ended < DRAIN + LATE
        stalled.close()


@pytest.mark.timeout(180)
async def test_sigterm_with_a_broker_that_never_answers_again(
    stoppable: Broker, other: Broker, tmp_path: Path, unique: Unique
) -> None:
    services = {"stopped": stomp(stoppable), "other": stomp(other), "mem": MEMORY}
    config = write_config(tmp_path, services, server={"drain_seconds": DRAIN, "write_timeout": 300})
    async with running(config) as gateway:
        await gateway.until_up("stopped", "other")
        scene = Scene(gateway, stoppable, unique)
        await scene.open_streams()
        await scene.post(timeout=DRAIN / 4)
        begun = time.monotonic()
        gateway.signal()
        retries, took = await ends(scene.streams, begun)
        answers = await scene.answers()
        answered = time.monotonic() - begun
        code = await gateway.ended(DRAIN + CLOSING + LATE)
        ended = time.monotonic() - begun
        print(f"{stoppable.kind}: {STREAMS} streams ended after {took:.2f} s")
        print(f"{dict(answers)} after {answered:.2f} s")
        print(f"exit {code} after {ended:.2f} s")
        spread(retries)
        assert answers == {(504, "unknown"): IN_FLIGHT}
        assert code == 0
        assert ended < DRAIN + CLOSING
