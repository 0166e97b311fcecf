"""A broker that is stopped (SIGSTOP: connected, silent) costs its own service, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.brokers.broker import Broker
from tests.brokers.fixtures import Unique
from tests.e2e.http_client import Answer, Http, Sse, eventually, post
from tests.e2e.live_gateway import MEMORY, LiveGateway, running, stomp, write_config
from tests.e2e.sizes import sized
from tests.e2e.vitals import MIB, Times, forget_peak, repeating, vitals

MEMORY_BYTES = sized(8, 32) * MIB
#: With bodies of 64 KiB more than the memory holds.
CONNECTIONS = sized(200, 700)
SECONDS = sized(2.5, 15.0)
BODY = b"x" * 65536
#: Of a publish to the stopped broker, in seconds; the full size leaves time for each to be over many times.
DEADLINE = 1.0
#: Seconds an answer may come after the deadline on a machine that is busy with other tests.
LATE = 1.0
#: MiB beside the memory that is promised: what the interpreter keeps of freed memory, and for each connection a body
#: that came and is about to be refused.
SLACK = 16.0 + CONNECTIONS * 3 / 64


@dataclass
class Flood:
    """Posts to a broker that does not answer, and what became of each."""

    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)
    unknown: Times = field(default_factory=lambda: Times("answered 504"))
    not_sent: Times = field(default_factory=lambda: Times("answered 503"))

    async def run(self, port: int, path: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._client(port, path, end) for _ in range(CONNECTIONS)))

    async def _client(self, port: int, path: str, end: float) -> None:
        async with await Http.connect(port) as http:
            while time.monotonic() < end:
                begun = time.perf_counter()
                answer = await http.ask("POST", f"{path}?timeout={DEADLINE}", BODY)
                self._note(answer, time.perf_counter() - begun)
                if answer.status == 503:
                    await asyncio.sleep(0.2)

    def _note(self, answer: Answer, took: float) -> None:
        self.outcomes[answer.status, str(answer.code)] += 1
        assert answer.outcome == {504: "unknown", 503: "not_sent"}[answer.status], answer
        (self.unknown if answer.status == 504 else self.not_sent).seconds.append(took)


class Others:
    """What goes on at the same gateway, timed: publishes, an event's way through the broker, probes."""

    def __init__(self, gateway: LiveGateway, topic: str, stream: Sse, https: list[Http]) -> None:
        self._topic = topic
        self._stream = stream
        self._https = https
        self._port = gateway.port

    async def measure(self, seconds: float, meanwhile: Callable[[], Awaitable[None]] | None = None) -> list[Times]:
        calls = [self._post_broker, self._post_memory, self._event, self._live, self._metrics]
        found = [Times(name) for name in ("POST other broker", "POST memory", "event", "/health/live", "/metrics")]
        async with repeating(0.02, *zip(found, calls, strict=True)):
            await (meanwhile() if meanwhile is not None else asyncio.sleep(seconds))
        return found

    async def _ask(self, at: int, method: str, path: str, body: bytes | None = None) -> None:
        answer = await self._https[at].ask(method, path, body)
        assert answer.status == 200, answer

    async def _post_broker(self) -> None:
        await self._ask(0, "POST", "/mq/other/Queues/limits", b"x")

    async def _post_memory(self) -> None:
        await self._ask(1, "POST", "/mq/mem/Queues/limits", b"x")

    async def _event(self) -> None:
        await self._ask(2, "POST", self._topic, b"news")
        assert (await self._stream.next()).data == "news"

    async def _live(self) -> None:
        await self._ask(3, "GET", "/health/live")

    async def _metrics(self) -> None:
        await self._ask(4, "GET", "/metrics")


@pytest.mark.timeout(180)
async def test_a_stopped_broker_costs_the_others_nothing(
    stoppable: Broker, other: Broker, tmp_path: Path, unique: Unique
) -> None:
    services = {"stopped": stomp(stoppable), "other": stomp(other), "mem": MEMORY}
    config = write_config(tmp_path, services, limits={"memory_bytes": MEMORY_BYTES})
    topic, news = f"/mq/other/Topics/{unique('news')}", f"/mq/stopped/Topics/{unique('news')}"
    async with running(config) as gateway:
        await gateway.until_up("stopped", "other")
        kept = await Sse.open(gateway.port, f"{news}/events")
        stream = await Sse.open(gateway.port, f"{topic}/events")
        others = Others(gateway, topic, stream, [await Http.connect(gateway.port) for _ in range(5)])
        before = await others.measure(1.5)

        await stoppable.pause()
        quiet = await others.measure(1.5)
        at_rest = vitals(gateway.pid).rss
        forget_peak(gateway.pid)
        flood = Flood()
        path = f"/mq/stopped/Queues/{unique('jobs')}"
        during = await others.measure(0, lambda: flood.run(gateway.port, path, SECONDS))
        grown = vitals(gateway.pid).peak - at_rest
        view = await gateway.link("stopped")
        for phase, found in (("before", before), ("stopped", quiet), ("flooded", during)):
            print(phase, *found, sep="\n  ")
        print(dict(flood.outcomes), flood.unknown, flood.not_sent, f"RSS +{grown:.1f} MiB", view["link"], sep="\n  ")
        await stoppable.resume()

        for times, now, then in zip(before, quiet, during, strict=True):
            now.unchanged_since(times, factor=5, floor=0.9 * DEADLINE)
            then.unchanged_since(times, factor=10, floor=0.9 * DEADLINE)
        for probe in (*quiet[3:], *during[3:]):
            assert probe.p50 < 0.1, probe
        assert max(flood.unknown.worst, flood.not_sent.worst) < DEADLINE + LATE
        assert min(flood.unknown.seconds) >= DEADLINE - 0.1 or view["link"] != "up"
        assert flood.outcomes[503, "overloaded"] > 0
        assert grown < MEMORY_BYTES / MIB + SLACK
        await heals(gateway, news, kept)


async def heals(gateway: LiveGateway, news: str, kept: Sse) -> None:
    """Publishes are confirmed again, and the stream that was open all the time goes on.

    Where the link was lost, what is published before the gap is told is part of the gap.
    """

    async def confirmed() -> bool:
        return (await post(gateway.port, news, "healed")).status == 200

    async def goes_on() -> bool:
        await eventually(confirmed, "a confirmed publish", 30)
        with contextlib.suppress(TimeoutError):
            await kept.until(lambda event: event.data == "healed", 0.5)
            return True
        return False

    begun = time.perf_counter()
    await eventually(goes_on, "an event on the stream that was open", 30)
    print(f"healed {time.perf_counter() - begun:.2f} s after SIGCONT")
