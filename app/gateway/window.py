"""Many publishes of one caller on their way at the same time, in his order, with bounds in count and bytes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from app.domain.errors import (
    BrokerUnavailable,
    ConnectionLost,
    DestinationQuarantined,
    Draining,
    GatewayError,
    Internal,
    Overloaded,
)
from app.domain.message import Publication, Published

logger = logging.getLogger("mq_gateway.window")

#: Publishes (count), and bytes of their bodies, on their way at the same time; one larger body goes alone.
MAX_COUNT = 1000
MAX_BYTES = 8 << 20

T = TypeVar("T")


class Window(Generic[T]):
    """Use as an async context manager: the end of the block waits for what is on its way.

    `settled` is told once of every publish: its name, its end, and how long that took in seconds, None where it was
    not tried.

    `publish` may last as long as `timeout` seconds. Where it finds this process full while others of the window are on
    their way, it is tried again when one of them has ended. What follows a lost link is not sent any more: who sends
    in an order wants to know where it broke.
    """

    def __init__(
        self,
        publish: Callable[[Publication], Awaitable[Published]],
        settled: Callable[[T, Published | GatewayError, float | None], None],
        *,
        timeout: float,
    ) -> None:
        self._publish = publish
        self._settled = settled
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._refused: deque[asyncio.Future[None]] = deque()
        self._ended = asyncio.Event()
        #: Why nothing more is sent.
        self.stopped: GatewayError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._cancel()
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            self._cancel()
            raise

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._tasks

    async def one_ended(self) -> None:
        """Returns when one that is on its way has ended."""
        if self._tasks:
            self._ended.clear()
            await self._ended.wait()

    async def put(self, name: T, publication: Publication) -> None:
        """Begin to publish, as soon as there is place; the end is told to `settled`."""
        size = len(publication.body)
        try:
            while self.stopped is None and self._is_full(size):
                await self.one_ended()
        except asyncio.CancelledError:
            if self.stopped is not None:
                self._settled(name, self.stopped, None)
            raise
        if self.stopped is not None:
            self._settled(name, self.stopped, None)
            return
        self._bytes += size
        task = self._loop.create_task(self._run(name, publication))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._done(task, size))
        # In this turn of the loop it is handed over or finds no room: the next must not be in front of it.
        await asyncio.sleep(0)

    def _is_full(self, size: int) -> bool:
        full = len(self._tasks) >= MAX_COUNT or self._bytes + size > MAX_BYTES or bool(self._refused)
        return bool(self._tasks) and full

    def _done(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self._bytes -= size
        self._let_one_try()
        # After that one's try: should it be in vain, nothing new is to come before it.
        self._loop.call_soon(self._ended.set)

    def _let_one_try(self) -> None:
        while self._refused:
            waiter = self._refused.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _run(self, name: T, publication: Publication) -> None:
        began = self._loop.time()
        result = await self._result(publication)
        if isinstance(result, GatewayError):
            self._look_why(result)
            result.__traceback__ = result.__context__ = None  # it would keep the body
        self._settled(name, result, self._loop.time() - began)

    async def _result(self, publication: Publication) -> Published | GatewayError:
        try:
            return await self._try(publication)
        except GatewayError as error:
            return error
        except Exception:
            logger.exception("publishing %s failed", publication.message_id)
            return Internal("the gateway failed; its log says why")

    async def _try(self, publication: Publication) -> Published:
        first = True
        while True:
            if self.stopped is not None:
                raise self.stopped
            began = self._loop.time()
            try:
                return await self._publish(publication)
            except Overloaded:
                # What has waited for a broker that does not read has had its time.
                if self._loop.time() - began >= self._timeout or len(self._tasks) == len(self._refused) + 1:
                    raise
            await self._wait_for_another(first=first)
            first = False

    async def _wait_for_another(self, *, first: bool) -> None:
        """Behind those that wait already; whoever was let try in vain is in front of them again."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        (self._refused.append if first else self._refused.appendleft)(waiter)
        await waiter

    def _look_why(self, error: GatewayError) -> None:
        if self.stopped is not None:
            return
        if isinstance(error, ConnectionLost):
            self.stopped = BrokerUnavailable("the link was lost before this message was sent", retry_after=1)
        elif isinstance(error, BrokerUnavailable | Draining | DestinationQuarantined):
            self.stopped = error
