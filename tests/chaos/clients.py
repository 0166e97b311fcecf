"""Those who use the gateway as it is meant to be used: publishers and readers that never give up."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.client import BROKEN, Connection, Stream
from tests.chaos.ledger import Flow, Outcome, QueueBooks, encode
from tests.chaos.site import Site
from tests.chaos.witness import Witness
from tests.e2e.http_client import Answer, Event

#: Seconds a publish may take, as it asks for.
TIMEOUT = 2.0
#: More seconds until an answer is missing: the gateway's own deadlines are over.
_GRACE = 3.0
_PAUSE = 0.2
_SMALL_BUFFER = 32 << 10


def _outcome(answer: Answer) -> Outcome:
    told = "confirmed" if answer.status == 200 else answer.json.get("outcome", "unknown")
    return Outcome[told.upper()]


@dataclass
class Publisher:
    """One message at a time, `rate` a second at most; tells the ledger what it was told.

    `on_answer` gets every answer with the seconds it took.
    """

    site: Site
    flow: Flow
    path: str
    rate: float
    padding: int = 100
    persistent: bool = False
    on_answer: Callable[[Answer, float, float], None] | None = None
    codes: Counter[str] = field(default_factory=Counter)
    #: Publishes that got no answer in time, on a connection that stood.
    hung: int = 0

    def __post_init__(self) -> None:
        self._number = self.flow.new_publisher()
        self._random = random.Random(f"{self.path} {self._number}")
        self._headers = {"Mq-Persistent": "true"} if self.persistent else {}

    async def run(self) -> None:
        """Until the site stops."""
        while not self.site.stopping.is_set():
            await self.site.ready.wait()
            try:
                async with await Connection.open(self.site.port) as connection:
                    await self._publish_on(connection)
            except BROKEN:
                await asyncio.sleep(_PAUSE / 2)

    async def _publish_on(self, connection: Connection) -> None:
        due = time.monotonic()
        while not self.site.stopping.is_set():
            confirmed = await self._publish(connection)
            # A pace that is kept on the average, without a burst after a pause, and not in step with the others.
            due = max(due + self._random.uniform(0.5, 1.5) / self.rate, time.monotonic() - _PAUSE)
            await asyncio.sleep(max(0.0 if confirmed else _PAUSE / 2, due - time.monotonic()))

    async def _publish(self, connection: Connection) -> bool:
        if connection.reader.at_eof():
            raise EOFError("closed by the gateway between two requests")
        begun = time.monotonic()
        key = self.flow.begin(self._number, begun)
        outcome = Outcome.UNKNOWN
        try:
            async with asyncio.timeout(TIMEOUT + _GRACE):
                answer = await connection.ask(
                    "POST", f"{self.path}?timeout={TIMEOUT:g}", encode(key, self.padding), self._headers
                )
            outcome = _outcome(answer)
            self._note(answer, begun)
        except TimeoutError:
            self.hung += 1
            self.site.say(f"NO ANSWER within {TIMEOUT + _GRACE:g} s: {self.path}")
            raise
        except BROKEN:
            self.codes["no answer"] += 1
            raise
        finally:
            self.flow.end(key, outcome, time.monotonic())
        return outcome is Outcome.CONFIRMED

    def _note(self, answer: Answer, begun: float) -> None:
        self.codes["confirmed" if answer.status == 200 else f"{answer.status} {answer.code}"] += 1
        if self.on_answer is not None:
            self.on_answer(answer, begun, time.monotonic())


class Follower:
    """Comes back to a stream after whatever ended it. `cut_after` seconds it breaks its own connection."""

    accept = "*/*"
    query = ""
    receive_buffer: int | None = None

    def __init__(self, site: Site, path: str, *, cut_after: tuple[float, float] | None = None, seed: int = 0) -> None:
        self.site = site
        self.path = path
        self.ends: Counter[str] = Counter()
        self._cut_after = cut_after
        self._random = random.Random(seed)
        self.connected = False

    @property
    def last_id(self) -> str:
        """Where to go on."""
        return ""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.site.ready.wait()
            try:
                stream = await Stream.open(
                    self.site.port,
                    f"{self.path}/events{self.query}",
                    last_id=self.last_id,
                    accept=self.accept,
                    receive_buffer=self.receive_buffer,
                )
            except BROKEN:
                self.ends["not opened"] += 1
                await asyncio.sleep(_PAUSE)
                continue
            async with stream:
                await self._follow(stream)

    async def _follow(self, stream: Stream) -> None:
        if stream.status != 200:
            self.ends[f"refused {stream.status}"] += 1
            await asyncio.sleep(_PAUSE)
            return
        limit = self._random.uniform(*self._cut_after) if self._cut_after else None
        try:
            async with asyncio.timeout(limit):
                await self._read(stream)
            self.ends["ended in order"] += 1
            await asyncio.sleep(_PAUSE)
        except TimeoutError:
            self.ends["cut by the reader"] += 1
        except BROKEN:
            self.ends["broken"] += 1
        finally:
            self.connected = False

    async def _read(self, stream: Stream) -> None:
        if stream.position or not self.needs_position:
            self.opened(stream)
            self.connected = True
        while (event := await stream.next()) is not None:
            if event.name == "unavailable":
                continue
            self.take(event)
            await self.pace(event)

    needs_position = False

    def opened(self, stream: Stream) -> None:
        """The stream is open."""

    def take(self, event: Event) -> None:
        """An event came."""

    async def pace(self, event: Event) -> None:
        """Be as slow as one is."""


class TopicFollower(Follower):
    """Reads a Topic and tells its witness. `on_event` gets the key's beginning and the time of every message."""

    needs_position = True

    def __init__(
        self,
        site: Site,
        path: str,
        witness: Witness,
        *,
        on_message: Callable[[str, float], None] | None = None,
        bytes_per_second: float | None = None,
        event_source: bool = False,
        cut_after: tuple[float, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(site, path, cut_after=cut_after, seed=seed)
        self.witness = witness
        self.accept = "text/event-stream" if event_source else "*/*"
        self._on_message = on_message
        self._speed = bytes_per_second
        # Megabytes in buffers of ours would be read in leaps, with pauses as long as a stalled reader's.
        self.receive_buffer = None if bytes_per_second is None else _SMALL_BUFFER
        self._generation = 0

    @property
    def last_id(self) -> str:
        return self.witness.last_id

    def opened(self, stream: Stream) -> None:
        restarted = self.site.generation != self._generation
        self._generation = self.site.generation
        self.witness.opened(stream.position, time.monotonic(), restarted=restarted)

    def take(self, event: Event) -> None:
        if event.name == "gap":
            self.witness.gap(event.json["reason"], event.id, time.monotonic())
        elif event.name == "message":
            self.witness.message(event.data, event.id)
            if self._on_message is not None:
                self._on_message(event.data, time.monotonic())

    async def pace(self, event: Event) -> None:
        if self._speed is not None:
            await asyncio.sleep(len(event.data) / self._speed)


class QueueFollower(Follower):
    """One consumer of a Queue; reads to the end of the stream, so that what was handed over is in the books."""

    query = "?format=envelope"

    def __init__(
        self, site: Site, path: str, books: QueueBooks, *, cut_after: tuple[float, float] | None = None, seed: int = 0
    ) -> None:
        super().__init__(site, path, cut_after=cut_after, seed=seed)
        self.books = books

    def take(self, event: Event) -> None:
        message = event.json
        self.books.deliver(message["body"], redelivered=bool(message["redelivered"]))

    def opened(self, stream: Stream) -> None:
        del stream
