"""The replays of one Topic: a few at a time, shared where that can be, the others in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from app.domain.errors import GatewayError
from app.domain.uri import MqUri
from app.gateway.replay import Follower, Replay, Subscribe, start_of

logger = logging.getLogger("mq_gateway.streams")

#: Replays of one Topic at the same time: RabbitMQ reads the stream's files for each of them.
TOGETHER = 4
#: Seconds after which a replay gives its place to those who wait, and queues again.
TURN_SECONDS = 10.0


class Replays:
    """`subscribe` reads the stream; `grew` is called when what they hold changed."""

    def __init__(self, uri: MqUri, subscribe: Subscribe, grew: Callable[[], None]) -> None:
        self._uri = uri
        self._subscribe = subscribe
        self._grew = grew
        self._running: dict[Replay, asyncio.Task[None]] = {}
        self._waiting: dict[Follower, None] = {}
        self._stopped = False

    @property
    def is_idle(self) -> bool:
        return not self._running and not self._waiting

    @property
    def buffered(self) -> int:
        """Bytes held."""
        return sum(replay.ring.buffered for replay in self._running)

    def give_way(self, wanted: int) -> int:
        """Free memory, the fullest first; the bytes freed."""
        freed = 0
        for replay in sorted(self._running, key=lambda replay: replay.ring.buffered, reverse=True):
            if freed >= wanted:
                break
            freed += replay.give_way(wanted - freed)
        return freed

    def join(self, follower: Follower) -> None:
        """This reader needs the past: now where a replay passes by its place, else as soon as there is one."""
        if follower in self._waiting:
            return
        for replay in self._running:
            replay.leave(follower)
        for replay in self._running:
            if replay.covers(follower):
                replay.join(follower)
                follower.wake()
                return
        self._waiting[follower] = None
        self._begin_more()

    def leave(self, follower: Follower) -> None:
        """It does not need the past any more."""
        self._waiting.pop(follower, None)
        for replay in self._running:
            replay.leave(follower)

    def _begin_more(self) -> None:
        while self._waiting and len(self._running) < TOGETHER and not self._stopped:
            waiting = list(self._waiting)
            replay = Replay(self._uri, start_of(waiting[0], waiting), self._grew)
            for follower in filter(replay.covers, waiting):
                del self._waiting[follower]
                replay.join(follower)
            self._running[replay] = asyncio.get_running_loop().create_task(self._run(replay))

    async def _run(self, replay: Replay) -> None:
        turns = asyncio.ensure_future(self._take_turns(replay))
        try:
            await replay.run(self._subscribe)
        except GatewayError as error:
            replay.on_cancelled(str(error))
        except Exception:
            logger.exception("%s: a replay failed", self._uri)
            replay.on_cancelled("it failed")
        finally:
            turns.cancel()
            replay.over.set()
            del self._running[replay]
        self._grew()
        self._queue_again(replay)

    async def _take_turns(self, replay: Replay) -> None:
        while not replay.over.is_set():
            await asyncio.sleep(TURN_SECONDS)
            self._end_turn(replay)

    def _end_turn(self, replay: Replay) -> None:
        if self._waiting:
            replay.over.set()

    def _queue_again(self, replay: Replay) -> None:
        """Whoever still reads there waits behind the others, who go first."""
        followers, replay.followers = list(replay.followers), {}
        for follower in followers:
            follower.quit()
        self._begin_more()
        for follower in followers:
            self.join(follower)
            follower.wake()

    def stop(self) -> None:
        """At shutdown: the end of the connection ends them all."""
        self._stopped = True
        self._waiting.clear()
        for task in self._running.values():
            task.cancel()
