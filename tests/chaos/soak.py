"""One run from the first start of the brokers to the books of their queues."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.cast import Cast
from tests.chaos.client import Connection
from tests.chaos.faults import Scheduler
from tests.chaos.ledger import QueueBooks
from tests.chaos.site import Site
from tests.chaos.vitals import Vitals, vitals_of
from tests.e2e.http_client import eventually
from tests.stomp_client import StompClient

#: Seconds in which a stopped load must be settled.
SETTLE_SECONDS = 10.0
#: Seconds without a message after which a queue is empty.
_EMPTY_SECONDS = 1.0
_PROGRESS_SECONDS = 10.0


@dataclass
class Trace:
    """What was measured of the gateway, second by second; `generations` says of which process."""

    samples: list[Vitals] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    #: Of the last process: alone before the first client, and alone again after the last one; open connections of
    #: this program are taken off.
    before: Vitals | None = None
    after: Vitals | None = None

    def of(self, generation: int, warm_up: float) -> list[Vitals]:
        """The samples of one process, without the first seconds of its life."""
        pairs = zip(self.samples, self.generations, strict=True)
        own = [sample for sample, number in pairs if number == generation]
        return [each for each in own if each.at >= own[0].at + warm_up] if own else []


class Soak:
    """Runs the cast against the site while the scheduler breaks things."""

    def __init__(self, site: Site, cast: Cast, scheduler: Scheduler) -> None:
        self.site = site
        self.cast = cast
        self.scheduler = scheduler
        self.trace = Trace()
        #: What did not end as it should, as sentences.
        self.failures: list[str] = []

    async def run(self) -> None:
        """The whole of it; brokers are running, and are ended by whoever started them."""
        self.site.started = time.monotonic()
        await self.site.start_gateway()
        async with asyncio.TaskGroup() as group:
            takers = Crew(group, self.cast.takers())
            workers = Crew(group, (each.run() for each in self.cast.workers))
            observers = Crew(group, (self._sample(), self._progress()))
            senders = Crew(group, self.cast.senders())
            await self.scheduler.run()
            await self._until(self.site.seconds - SETTLE_SECONDS / 2)
            await self._calm_down(senders)
            await takers.end()
            await self._measure_alone()
            await self._stop(workers)
            await observers.end()
        await self._empty_queues()

    async def _until(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, self.site.started + seconds - time.monotonic()))

    async def _calm_down(self, senders: Crew) -> None:
        """No more publishes; what was confirmed arrives, then the witnesses swear."""
        self.site.say("calm: publishers stop")
        self.site.stopping.set()
        await senders.end(SETTLE_SECONDS)
        # What has not come by then will be missing.
        with contextlib.suppress(TimeoutError):
            await eventually(self._all_came, "all that was confirmed came", SETTLE_SECONDS)
        for follower in self.cast.followers:
            if follower.connected:
                follower.witness.finish(time.monotonic())
            else:
                self.failures.append(f"{follower.witness.label} had no stream at the end")
        for service, broker in (("mq", self.site.broker), ("calm", self.site.calm)):
            if (connections := await broker.stomp_connections()) != 1:
                self.failures.append(f"{service}: {connections} connections to the broker, not 1")

    async def _all_came(self) -> bool:
        return not any(each.witness.behind for each in self.cast.followers)

    async def _measure_alone(self) -> None:
        """The gateway when nobody is connected any more but the workers, whose sockets are taken off."""
        deadline = time.monotonic() + SETTLE_SECONDS
        self.trace.before = self.site.alone
        while True:
            own = len(Connection.opened)
            found = vitals_of(self.site.gateway.pid)
            if found is None:
                self.failures.append("the gateway is gone")
                return
            self.trace.after = Vitals(found.at, found.rss, found.descriptors - own, found.threads, found.cpu)
            before = self.site.alone
            if before is None or self.trace.after.descriptors <= before.descriptors or time.monotonic() > deadline:
                return
            await asyncio.sleep(0.2)

    async def _stop(self, workers: Crew) -> None:
        """The last drain: the workers read to the end of their streams."""
        ended = await self.site.stop_gateway()
        self.site.say(f"gateway stopped: exit code {ended.code} after {ended.seconds:.1f} s")
        await workers.end(0.5)

    async def _empty_queues(self) -> None:
        broker = self.site.broker
        async with await StompClient.connect(broker.address, user=broker.user, password=broker.password) as client:
            for books in self.cast.books:
                await _empty(client, books)

    # Beside it.

    async def _sample(self) -> None:
        pause = max(1.0, self.site.seconds / 1000)
        while True:
            await self.site.ready.wait()
            found = vitals_of(self.site.gateway.pid)
            if found is not None:
                self.trace.samples.append(found)
                self.trace.generations.append(self.site.generation)
            await asyncio.sleep(pause)

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            counts = sum((flow.counts() for flow in self.cast.flows), start=Counter[str]())
            silent = sum(each.silent for each in self.cast.witnesses)
            gaps = sum(sum(each.gaps.values()) for each in self.cast.witnesses)
            rss = self.trace.samples[-1].rss / (1 << 20) if self.trace.samples else 0
            self.site.say(
                f"sent {counts['sent']} confirmed {counts['confirmed']} unknown {counts['unknown']}"
                f" not_sent {counts['not_sent']} gaps {gaps} silent {silent} rss {rss:.1f} MiB"
            )


class Crew:
    """Some tasks of a group that end together."""

    def __init__(self, group: asyncio.TaskGroup, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        self._tasks = [group.create_task(each) for each in work]

    async def end(self, patience: float = 0.0) -> None:
        """Cancel what still runs after `patience` seconds, and wait."""
        _, late = await asyncio.wait(self._tasks, timeout=patience)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _empty(client: StompClient, books: QueueBooks) -> None:
    name = books.flow.destination.partition("/")[2]
    subscription = await client.subscribe(f"/queue/{name}", ack="auto")
    try:
        while True:
            _, body = await client.next_message(_EMPTY_SECONDS)
            books.leave(body.decode())
    except TimeoutError:
        await client.unsubscribe(subscription)
