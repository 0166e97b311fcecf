"""DIRAC's producers and consumers as a Python API: async, errors are raised, no S_OK dictionaries."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, Self

from app.connectors.base import Delivery, Destination, MQConnector, Subscription
from app.domain.errors import ConnectionLost
from app.domain.message import OCTET_STREAM, Message, Publication, Published
from app.wire.ids import new_message_id

logger = logging.getLogger("mq_gateway.messengers")

#: Seconds for giving back and UNSUBSCRIBE.
CLOSE_DEADLINE = 5.0
#: Seconds before a message whose callback raised goes back: a message that always fails must not spin.
GIVE_BACK_DELAY = 1.0


class Publish(Protocol):
    """Gateway.publish."""

    async def __call__(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> Published: ...


class Producer:
    """Publishes to one destination on the connection of its mqService, which all producers share."""

    def __init__(self, destination: Destination, publish: Publish) -> None:
        self.destination = destination
        self._publish = publish

    async def put(
        self,
        body: bytes,
        *,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        persistent: bool | None = None,
        timeout: float = 5.0,
    ) -> Published:
        """Publish a body as it is and wait for the broker's RECEIPT; raises GatewayError (see its tree)."""
        settings = self.destination.settings
        publication = Publication(
            body=body,
            message_id=new_message_id(),
            content_type=content_type or settings.default_content_type or OCTET_STREAM,
            headers=headers or {},
            persistent=settings.persistent if persistent is None else persistent,
        )
        return await self._publish(self.destination, publication, timeout=timeout)

    async def put_json(self, value: Any, **options: Any) -> Published:  # noqa: ANN401 - any JSON value
        """Publish a value as JSON, as DIRAC's `put` does; options as for `put`."""
        return await self.put(json.dumps(value).encode(), content_type="application/json", **options)


class Consumer:
    """Takes from one destination. Of a Queue it is one consumer among others, of a Topic a subscriber of its own.

    With `Acknowledgement` a message is acked after the callback returned and given back when it raised; without,
    on arrival. `get` acks what it returns. A Topic's messages beyond `MAX_WAITING` or `MAX_WAITING_BYTES` push out
    the oldest; `missed` counts them.
    """

    MAX_WAITING = 1024
    MAX_WAITING_BYTES = 64 << 20

    def __init__(self, destination: Destination, callback: Callable[[Message], Awaitable[None]] | None) -> None:
        self.destination = destination
        #: Messages of a Topic that nobody took in time, since the start.
        self.missed = 0
        self._callback = callback
        self._waiting: deque[Delivery] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._subscription: Subscription | None = None
        self._working: asyncio.Task[None] | None = None
        self._cancelled: str | None = None
        self._closed = False

    async def open(self, connector: MQConnector, timeout: float) -> None:
        """Subscribe; called once by the Gateway."""
        self._subscription = await connector.subscribe(
            self.destination,
            self,
            acknowledge=self.destination.uri.is_queue,
            prefetch=self.destination.settings.prefetch,
            timeout=timeout,
        )
        if self._callback is not None:
            self._working = asyncio.create_task(self._work(self._callback))

    @property
    def buffered(self) -> int:
        """Bytes of messages nobody has taken yet."""
        return self._waiting_bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def get(self, timeout: float = 0.0) -> Message | None:
        """The next message, or None when none came within `timeout` seconds; raises ConnectionLost when cancelled."""
        try:
            async with asyncio.timeout(timeout):
                return self._taken(await self._next())
        except TimeoutError:
            return self._taken(self._pop()) if self._waiting else None

    async def _next(self) -> Delivery:
        while not self._waiting:
            if self._cancelled is not None:
                raise ConnectionLost(f"the broker ended the subscription: {self._cancelled}")
            self._arrived.clear()
            await self._arrived.wait()
        return self._pop()

    def _pop(self) -> Delivery:
        delivery = self._waiting.popleft()
        self._waiting_bytes -= len(delivery.message.body)
        return delivery

    def _clear(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0

    def _taken(self, delivery: Delivery) -> Message:
        self._ack(delivery)
        return delivery.message

    def _ack(self, delivery: Delivery) -> None:
        if self._subscription is not None:
            self._subscription.ack(delivery)

    async def _work(self, callback: Callable[[Message], Awaitable[None]]) -> None:
        try:
            while not self._closed:
                await self._handle(await self._next(), callback)
        except ConnectionLost as error:
            logger.error("%s: nothing more comes: %s", self.destination.uri, error)  # noqa: TRY400 - no defect of ours

    async def _handle(self, delivery: Delivery, callback: Callable[[Message], Awaitable[None]]) -> None:
        late = self.destination.settings.acknowledgement
        if not late:
            self._ack(delivery)
        try:
            await callback(delivery.message)
        except Exception:
            logger.exception("%s: the callback failed on %s", self.destination.uri, delivery.message.message_id)
            if late and self._subscription is not None:
                await asyncio.sleep(GIVE_BACK_DELAY)
                self._subscription.nack(delivery)
        else:
            if late:
                self._ack(delivery)

    async def close(self) -> None:
        """Stop; what was not acked goes back to its Queue. Idempotent.

        A callback may close its own consumer: it then runs to its end, and with `Acknowledgement` its message too
        goes back. Called from elsewhere this cancels the callback.
        """
        self._closed = True
        try:
            await self._stop_working()
        finally:  # also where a task of the callback closes, which the cancelled callback cancels in turn
            subscription, self._subscription = self._subscription, None
            self._clear()
            if subscription is not None:
                await subscription.close(CLOSE_DEADLINE)

    async def _stop_working(self) -> None:
        working = self._working
        if working is None or working is asyncio.current_task():
            return
        working.cancel()
        await asyncio.wait([working])  # and not `await working`: a cancellation must not come back to it

    # What the connector calls.

    def on_message(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._waiting_bytes += len(delivery.message.body)
        while not self.destination.uri.is_queue and self._is_overfull():
            self._pop()
            self.missed += 1
        self._arrived.set()

    def _is_overfull(self) -> bool:
        # The newest stays whatever its size.
        many = len(self._waiting) > self.MAX_WAITING or self._waiting_bytes > self.MAX_WAITING_BYTES
        return many and len(self._waiting) > 1

    def on_lost(self) -> None:
        if self.destination.uri.is_queue:
            self._clear()  # the broker gives them to somebody again

    def on_restored(self) -> None:
        """Nothing to do: messages go on."""

    def on_withdrawn(self, token: str) -> None:
        for delivery in [each for each in self._waiting if each.token == token]:
            self._waiting.remove(delivery)
            self._waiting_bytes -= len(delivery.message.body)

    def on_cancelled(self, detail: str) -> None:
        self._cancelled = detail
        self._arrived.set()
