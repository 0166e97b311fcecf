"""One reading of a stream's past, shared by all readers that are near it, at the pace of the furthest of them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from app.connectors.base import Delivery, Listener, Subscription
from app.domain.errors import BrokerRejected, GatewayError, NotSupportedByBroker
from app.domain.message import Message
from app.domain.stream import StreamStart, after
from app.domain.uri import MqUri
from app.gateway.stream_ring import ReplayRing

logger = logging.getLogger("mq_gateway.streams")

#: Offsets a reader may be ahead of a replay and still wait for it: it gets nothing of what lies between.
NEARBY = 2_000
#: Messages and bytes kept for the other readers of a replay when one has taken them.
RING_MESSAGES = 512
RING_BYTES = 1 << 20
#: Seconds for UNSUBSCRIBE.
CLOSE_DEADLINE = 5.0
#: Seconds for the broker to take the subscription, and between attempts where it did not.
OPEN_DEADLINE = 10.0
RETRY = 1.0

#: Subscribes a listener to the stream from a start, within seconds.
Subscribe = Callable[[Listener, StreamStart, float], Awaitable[Subscription]]


class Follower(Protocol):
    """A reader of the past. `after` is the offset it has seen, None where it has seen none and begins at `start`."""

    after: int | None
    start: StreamStart

    def enter(self, replay: Replay) -> None:
        """It reads from this replay's ring now."""

    def quit(self) -> None:
        """That replay is over, and another one will come."""

    def wake(self) -> None:
        """There may be something to take."""

    def end(self, reason: str) -> None:
        """Its stream ends."""


class Replay:
    """The Listener of one subscription. `grew` is called when what it holds changed."""

    def __init__(self, uri: MqUri, start: StreamStart, grew: Callable[[], None]) -> None:
        self.start = start
        base = start.value if start.kind == "after" else None
        self.ring = ReplayRing(uri, RING_MESSAGES, RING_BYTES, base)
        self.followers: dict[Follower, None] = {}
        #: Nothing more is to be read here.
        self.over = asyncio.Event()
        self._grew = grew
        self._subscription: Subscription | None = None
        #: What nobody has taken, with its number in the ring.
        self._unacked: deque[tuple[int, Delivery]] = deque()
        #: Some follower is behind this offset already: nobody is waited for before it, or one that stalls would hold up
        #: the others. Who falls out of the ring meanwhile asks for another replay.
        self._furthest: int | None = base
        self._woken = False

    def covers(self, follower: Follower) -> bool:
        """Whether this reader can read on from here."""
        if self.over.is_set():
            return False
        if follower.after is None:
            return follower.start == self.start and self.ring.oldest == 1
        known = self.ring.cursor_after(follower.after)
        return known is not None and follower.after <= self.ring.end + NEARBY

    def join(self, follower: Follower) -> None:
        self.followers[follower] = None
        self._know_furthest()
        follower.enter(self)

    def leave(self, follower: Follower) -> None:
        """It reads elsewhere, or not at all; with the last the replay is over."""
        if self.followers.pop(follower, self) is self:
            return
        if not self.followers:
            self.over.set()
        else:
            self._know_furthest()

    def _know_furthest(self) -> None:
        self._furthest = max((each.after for each in self.followers if each.after is not None), default=None)
        cursor = None if self._furthest is None else self.ring.cursor_after(self._furthest)
        if cursor:
            self.taken(cursor)

    def taken(self, cursor: int) -> None:
        """Somebody took everything up to this cursor: the broker may send as much again."""
        self.ring.taken = max(self.ring.taken, cursor)
        while self._unacked and self._unacked[0][0] <= cursor and self._subscription is not None:
            self._subscription.ack(self._unacked.popleft()[1])

    def give_way(self, wanted: int) -> int:
        """Free memory: what was taken first; if that is not enough its readers end. The bytes freed by now."""
        freed = self.ring.give_way(wanted)
        if freed < wanted and self.ring.buffered > RING_BYTES:
            self._end_followers("memory")
        return freed

    def _end_followers(self, reason: str) -> None:
        """Their streams end with what is here; they do not queue again."""
        followers, self.followers = list(self.followers), {}
        self.over.set()
        for follower in followers:
            follower.end(reason)

    async def run(self, subscribe: Subscribe) -> None:
        """Read until it is over; raises BrokerRejected, NotSupportedByBroker where the broker will not have it."""
        subscription = await self._open(subscribe)
        if subscription is None:
            return
        self._subscription = subscription
        self.taken(self.ring.taken)
        await self.over.wait()  # cancelled at shutdown: then the end of the connection ends the subscription
        self._subscription = None
        self._unacked.clear()
        await subscription.close(CLOSE_DEADLINE)

    async def _open(self, subscribe: Subscribe) -> Subscription | None:
        while not self.over.is_set():
            try:
                return await subscribe(self, self.start, OPEN_DEADLINE)
            except (BrokerRejected, NotSupportedByBroker):
                raise
            except GatewayError as error:
                logger.info("%s: no replay yet: %s", self.ring.uri, error)
                await asyncio.sleep(RETRY)
                if self.ring.last:  # something came, and the next attempt would begin before it
                    return None
        return None

    # What the connector calls.

    def on_message(self, delivery: Delivery) -> None:
        if self.over.is_set():
            return
        if delivery.missing == "restart":
            self.on_cancelled("the stream was made anew")
            return
        offset = delivery.offset or 0
        if not self.ring.last and self.start.kind == "time" and _is_older(delivery.message, self.start.value):
            self._skip(delivery)
            return
        self.ring.add(delivery)
        self._unacked.append((self.ring.last, delivery))
        if self._furthest is not None and offset <= self._furthest:
            self.taken(self.ring.last)
        self._grew()
        self.wake()

    def _skip(self, delivery: Delivery) -> None:
        self._unacked.append((0, delivery))
        self.taken(0)

    def wake(self) -> None:
        """Once per turn of the loop: everybody looks for what is there."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._wake_all)

    def _wake_all(self) -> None:
        self._woken = False
        for follower in list(self.followers):
            follower.wake()

    def on_lost(self) -> None:
        """It goes on behind the last one; what was asked for comes anew."""
        self._unacked.clear()

    def on_restored(self) -> None:
        """Messages go on."""

    def on_withdrawn(self, token: str) -> None:
        """Nobody took anything for so long that the broker would lose its patience: readers ask anew."""
        self.over.set()

    def on_cancelled(self, detail: str) -> None:
        logger.warning("%s: a replay was ended: %s", self.ring.uri, detail)
        self._end_followers("cancelled")


def start_of(follower: Follower, others: list[Follower]) -> StreamStart:
    """Where a replay for this reader begins, so that it serves those of the others who are a little behind too."""
    if follower.after is None:
        return follower.start
    near = [other.after for other in others if other.after is not None]
    return after(min(offset for offset in near if follower.after - NEARBY <= offset <= follower.after))


def _is_older(message: Message, seconds: int) -> bool:
    """Whether a message says that it is older: the broker begins with everything it wrote together."""
    told = message.headers.get("timestamp", "")
    return told.isascii() and told.isdigit() and len(told) < 16 and int(told) < seconds
