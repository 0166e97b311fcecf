"""Readers that stop reading: they lose their streams in time, and the others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.brokers.broker import Broker
from tests.brokers.fixtures import Unique
from tests.e2e.crowd import Raw, gather_crowd, open_stream
from tests.e2e.http_client import Http, Sse, eventually
from tests.e2e.live_gateway import LiveGateway, running, stomp, write_config
from tests.e2e.sizes import sized
from tests.e2e.vitals import Times, forget_peak, vitals

READERS = 100
STALLED = 100
WRITE_TIMEOUT = sized(1.5, 10.0)
#: Seconds beyond the write timeout until the socket is gone, those included in which the kernel's buffers fill.
GONE = 5.0
#: Seconds without any stalled reader that the others are compared with.
BEFORE = sized(1.5, 5.0)
#: Between two messages on the Topic, and on the Queue.
EVERY = 0.025
NEWS_BYTES = 8192
#: More, because a consumer gets only its share, and it is the bytes that stall it.
JOB_BYTES = 65_536
#: The default of a Queue.
PREFETCH = 10
#: What a stalled reader keeps the gateway from sending: its write buffer's limit and one batch.
HELD_MIB = 2 * 64 / 1024
#: MiB: the ring, what is joined for readers, and noise.
RING_MIB = 8.0
SLACK = 16.0


class Traffic:
    """A publisher at a steady pace, and readers that note how long each message took from its publish on."""

    def __init__(self, port: int, path: str, size: int) -> None:
        self._port = port
        self._path = path
        self._tail = b" " + b"x" * size
        self.phase = Times("nothing yet")

    def begin(self, name: str) -> Times:
        """From here on what arrives counts for this."""
        self.phase = Times(name)
        return self.phase

    async def publish(self) -> None:
        async with await Http.connect(self._port) as http:
            while True:
                answer = await http.ask("POST", self._path, b"%.6f" % time.monotonic() + self._tail)
                assert answer.status == 200, answer
                await asyncio.sleep(EVERY)

    async def read(self, stream: Sse) -> None:
        while True:
            data = (await stream.next()).data
            self.phase.seconds.append(time.monotonic() - float(data.partition(" ")[0]))

    @contextlib.asynccontextmanager
    async def flowing(self, readers: int) -> AsyncIterator[None]:
        streams = [await Sse.open(self._port, f"{self._path}/events") for _ in range(readers)]
        tasks = [asyncio.ensure_future(work) for work in (self.publish(), *map(self.read, streams))]
        try:
            yield
            # Whoever has ended did so by failing.
            assert not [task.exception() for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def stall(gateway: LiveGateway, path: str, number: int) -> list[Raw]:
    """Readers that read the first bytes and then no more."""
    return await gather_crowd(number, lambda _index: open_stream(gateway.port, path, receive_buffer=4096))


async def until_gone(gateway: LiveGateway, crowd: list[Raw]) -> float:
    """Wait until the gateway holds none of these sockets; the seconds it took."""
    ports = {raw.local_port for raw in crowd}
    begun = time.monotonic()

    async def holds() -> bool:
        return not ports & gateway.client_ports()

    await eventually(holds, "the end of all stalled readers", WRITE_TIMEOUT + GONE)
    return time.monotonic() - begun


async def watch(gateway: LiveGateway, seconds: float) -> None:
    """Look at the sockets as `until_gone` does: that costs this process time, and is no stalled reader's fault."""

    async def holds_nothing() -> bool:
        return not gateway.client_ports()

    with pytest.raises(TimeoutError):
        await eventually(holds_nothing, "the end of everybody", seconds)


@pytest.mark.timeout(180)
async def test_sse_case_40_sse_case_41_readers_that_stop_reading(
    broker: Broker, tmp_path: Path, unique: Unique
) -> None:
    """One on a Topic, one on a Queue, then a hundred on the Topic at the same time."""
    topic, queue = f"/mq/mq/Topics/{unique('news')}", f"/mq/mq/Queues/{unique('jobs')}"
    config = write_config(tmp_path, {"mq": stomp(broker)}, server={"write_timeout": WRITE_TIMEOUT})
    async with running(config) as gateway:
        await gateway.until_up("mq")
        news, jobs = Traffic(gateway.port, topic, NEWS_BYTES), Traffic(gateway.port, queue, JOB_BYTES)
        async with news.flowing(READERS), jobs.flowing(1):
            phases = [(news.begin("Topic before"), jobs.begin("Queue before"))]
            await watch(gateway, BEFORE)
            rss = vitals(gateway.pid).rss
            for number, path in ((1, f"{topic}/events"), (1, f"{queue}/events"), (STALLED, f"{topic}/events")):
                forget_peak(gateway.pid)
                crowd = await stall(gateway, path, number)
                what = f"{number} stalled on {path.split('/')[3]}"
                phases.append((news.begin(f"Topic, {what}"), jobs.begin(f"Queue, {what}")))
                took = await until_gone(gateway, crowd)
                grown = vitals(gateway.pid).peak - rss
                print(f"{broker.kind}: {what}: gone after {took:.1f} s, RSS +{grown:.1f} MiB")
                assert grown < RING_MIB + number * HELD_MIB + SLACK
                for raw in crowd:
                    raw.close()
            (news_before, jobs_before), *others = phases
            print(news_before, jobs_before, sep="\n")
            for news_then, jobs_then in others:
                print(news_then, jobs_then, sep="\n")
                news_then.unchanged_since(news_before, factor=5, floor=1.2)
                # What was prefetched for a stalled consumer comes to another one when it is cut off, not before.
                jobs_then.seconds.sort()
                del jobs_then.seconds[-PREFETCH:]
                jobs_then.unchanged_since(jobs_before, factor=5, floor=1.2)
        stalled = await gateway.metric("mq_gateway_streams_closed_total", reason="stalled")
        assert stalled == STALLED + 2
