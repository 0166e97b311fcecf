"""One memory for all: who fills it up pays, whatever buffer it is that fills."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.brokers.process import LOOPBACK
from tests.e2e.crowd import Raw, gather_crowd, open_stream
from tests.e2e.http_client import Http, Sse, eventually, post
from tests.e2e.live_gateway import MEMORY, running, write_config
from tests.e2e.sizes import sized
from tests.e2e.vitals import MIB, Times, forget_peak, repeating, vitals
from tests.faults.peer import Script, ScriptedPeer

STALLED = sized(300, 1000)
MEMORY_BYTES = 32 * MIB
WRITE_TIMEOUT = sized(2.0, 10.0)
FLOW = "/mq/mem/Topics/flow"
#: MiB beside the memory that is promised: what the interpreter and its allocator keep of what was freed.
SLACK = 32.0


async def flood(port: int, body: bytes, over: asyncio.Event) -> Counter[int]:
    """Publish as fast as it goes; statuses."""
    found: Counter[int] = Counter()
    async with await Http.connect(port) as http:
        while not over.is_set():
            found[(await http.ask("POST", FLOW, body)).status] += 1
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kib", [10, 100, 1000])
async def test_readers_that_stall_in_a_flood_stay_within_the_memory(tmp_path: Path, kib: int) -> None:
    """All readers of a Topic but one stop reading; each would be content with a copy of its own."""
    limits, server = {"memory_bytes": MEMORY_BYTES}, {"write_timeout": WRITE_TIMEOUT}
    async with running(write_config(tmp_path, {"mem": MEMORY}, limits=limits, server=server)) as gateway:

        async def one(_index: int) -> Raw:
            return await open_stream(gateway.port, f"{FLOW}/events", receive_buffer=4096)

        crowd = await gather_crowd(STALLED, one)
        quick = await Sse.open(gateway.port, f"{FLOW}/events")
        before = vitals(gateway.pid)
        forget_peak(gateway.pid)
        over, probe = asyncio.Event(), Times("/health/live")
        got = 0

        async def read() -> None:
            nonlocal got
            while True:
                got += (await quick.next()).name == "message"

        async def only_one_left() -> bool:
            return await gateway.metric("mq_gateway_streams", service="mem") == 1

        reading = asyncio.create_task(read())
        http = await Http.connect(gateway.port)
        async with repeating(0.01, (probe, lambda: http.ask("GET", "/health/live"))):
            flooding = [asyncio.create_task(flood(gateway.port, b"x" * kib * 1024, over)) for _ in range(2)]
            await eventually(only_one_left, "the end of the stalled readers", WRITE_TIMEOUT + 15)
            over.set()
            statuses = sum(await asyncio.gather(*flooding), Counter())
        after = vitals(gateway.pid)
        ended = {
            reason: await gateway.metric("mq_gateway_streams_closed_total", reason=reason)
            for reason in ("stalled", "slow", "memory", "client")
        }
        print(
            f"{STALLED} stalled, {kib} KiB: peak +{after.peak - before.rss:.0f} MiB, then +{after.rss - before.rss:.0f}"
        )
        print(f"published {dict(statuses)}, the quick one got {got}, ended {ended}, {probe}")
        reading.cancel()
        for raw in crowd:
            raw.close()
        assert got > 10
        assert statuses[200] > 10
        assert after.peak - before.rss < MEMORY_BYTES / MIB + SLACK
        assert sum(ended.values()) == STALLED


async def test_a_silent_broker_leaves_the_others_room(tmp_path: Path) -> None:
    """Publishes wait for it until the memory refuses more of them; those to another service still find some."""
    async with ScriptedPeer.listen(Script(receipts=False)) as peer:
        silent = {"host": LOOPBACK, "port": peer.port, "allow_undeclared": True}
        config = write_config(tmp_path, {"silent": silent, "mem": MEMORY}, limits={"memory_bytes": MEMORY_BYTES})
        async with running(config) as gateway:
            await gateway.until_up("silent")
            refused: list[int] = []

            async def wait() -> None:
                async with await Http.connect(gateway.port) as http:
                    refused.append((await http.ask("POST", "/mq/silent/Queues/jobs?timeout=15", b"x" * MIB)).status)

            waiting = [asyncio.create_task(wait()) for _ in range(40)]

            async def full() -> bool:
                return len(refused) > 0

            await eventually(full, "the memory to be full")
            others = [(await post(gateway.port, "/mq/mem/Topics/others", b"y" * MIB)).status for _ in range(10)]
            print(f"{len(refused)} of {len(waiting)} refused, others {others}")
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert set(refused) == {503}
            assert others == [200] * 10
