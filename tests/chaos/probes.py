"""How the others fare meanwhile: services on healthy brokers, health and metrics."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Sequence

from tests.chaos.client import BROKEN, Connection
from tests.chaos.clients import Publisher, TopicFollower
from tests.chaos.ledger import Flow, decode
from tests.chaos.site import Site
from tests.chaos.witness import Witness
from tests.e2e.http_client import Answer

#: Publishes a second to an unaffected service.
_RATE = 10.0


class Probe:
    """POST and stream on one service that nobody touches. What a restart of the gateway takes does not count."""

    def __init__(self, site: Site, service: str) -> None:
        path = f"/mq/{service}/Topics/probe"
        self.service = service
        self.flow = Flow(f"{service} probe")
        self.witness = Witness(self.flow, f"reader of {service}")
        self.posts = array("f")
        #: Longest from the beginning of a publish to its answer, and to its event.
        self.stall = 0.0
        self.failed = 0
        self._site = site
        self.publisher = Publisher(site, self.flow, path, _RATE, on_answer=self._answered)
        self.follower = TopicFollower(site, path, self.witness, on_message=self._came)

    def _answered(self, answer: Answer, begun: float, now: float) -> None:
        if self._site.undisturbed_since(begun):
            self.posts.append(now - begun)
            self.stall = max(self.stall, now - begun)
            self.failed += answer.status != 200

    def _came(self, body: str, now: float) -> None:
        begun = self.flow.begun(decode(body))
        if self._site.undisturbed_since(begun):
            self.stall = max(self.stall, now - begun)


class Watch:
    """Asks one path again and again; `worst` and `failed` do not count restarts of the gateway."""

    def __init__(self, site: Site, path: str, pause: float) -> None:
        self._site = site
        self._path = path
        self._pause = pause
        self.worst = 0.0
        self.failed = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._site.ready.wait()
            begun = time.monotonic()
            status = await self._ask()
            if self._site.undisturbed_since(begun):
                self.worst = max(self.worst, time.monotonic() - begun)
                self.failed += status != 200
            await asyncio.sleep(self._pause)

    async def _ask(self) -> int:
        try:
            async with await Connection.open(self._site.port) as connection:
                return (await connection.ask("GET", self._path)).status
        except BROKEN:
            return 0


class OwnLag:
    """How late the loop of this program is: no figure of the run is better than this."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.05)
            self.worst = max(self.worst, time.monotonic() - begun - 0.05)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of them are; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
