"""What the gateway stands on, made for tests: a connector that does as it is told, messages, time that stands still."""

from __future__ import annotations

import asyncio
from typing import Any

from app.config.settings import QueueSettings, ServiceSettings, TopicSettings
from app.connectors.base import ConnectorContext, Delivery, Destination, Listener, MQConnector, Subscription
from app.domain.link import LinkState, LinkStatus
from app.domain.message import Message, Publication
from app.domain.stream import StreamStart
from app.domain.uri import MqUri

SERVICE = ServiceSettings.model_validate({"mq_type": "Memory"})


def queue(name: str = "jobs", **settings: Any) -> Destination:
    return Destination(MqUri.parse(f"svc::Queues::{name}"), QueueSettings.model_validate(settings))


def topic(name: str = "status", **settings: Any) -> Destination:
    return Destination(MqUri.parse(f"svc::Topics::{name}"), TopicSettings.model_validate(settings))


def message(body: bytes = b"x", uri: MqUri | None = None, **fields: Any) -> Message:
    known: dict[str, Any] = {
        "mq_uri": uri or topic().uri,
        "message_id": "m-1",
        "content_type": "text/plain",
        "headers": {},
        "redelivered": False,
        "received_at": 0.0,
    }
    return Message(body=body, **{**known, **fields})


class FakeSubscription(Subscription):
    """Writes down what is asked of it; `closing` lets a test hold its end back."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.acked: list[str] = []
        self.nacked: list[str] = []
        self.rejected: list[str] = []
        self.left: list[str] = []
        #: What ack and reject answer: False as after a reconnect.
        self.takes = True
        self.closed = 0
        self.closing = asyncio.Event()
        self.closing.set()
        self._number = 0

    @property
    def waits(self) -> bool:
        """Whether everything that was delivered is answered."""
        return self._number == len(self.acked) + len(self.nacked) + len(self.rejected)

    def deliver(self, *bodies: bytes) -> None:
        """MESSAGEs from the broker."""
        for body in bodies:
            self._number += 1
            self.listener.on_message(Delivery(message(body), str(self._number), 1))

    def ack(self, delivery: Delivery) -> bool:
        self.acked.append(delivery.token)
        return self.takes

    def reject(self, delivery: Delivery) -> bool:
        self.rejected.append(delivery.token)
        return self.takes

    def nack(self, delivery: Delivery) -> bool:
        self.nacked.append(delivery.token)
        return True

    def leave(self, delivery: Delivery) -> bool:
        self.left.append(delivery.token)
        return True

    async def close(self, timeout: float) -> None:
        assert timeout > 0
        self.closed += 1
        await self.closing.wait()


class FakeConnector(MQConnector):
    """Takes subscriptions when `open` is set; raises what is in `refusals` first."""

    def __init__(
        self, service: str = "svc", settings: ServiceSettings = SERVICE, context: ConnectorContext | None = None
    ) -> None:
        ignored = ConnectorContext(in_flight=1, on_state=lambda _old, _new: None, on_event=lambda _event: None)
        super().__init__(service, settings, context or ignored)
        self.state = LinkState.CONNECTING
        self.open = asyncio.Event()
        self.open.set()
        self.refusals: list[Exception] = []
        self.asked: list[dict[str, Any]] = []
        self.subscriptions: list[FakeSubscription] = []
        self.published: list[Publication] = []
        self.closed = 0

    @property
    def latest(self) -> FakeSubscription:
        return self.subscriptions[-1]

    async def start(self) -> None:
        self.enter(LinkState.UP)

    def enter(self, state: LinkState) -> None:
        previous, self.state = self.state, state
        self.context.on_state(previous, state)

    async def close(self, timeout: float) -> None:
        self.closed += 1
        self.enter(LinkState.CLOSED)

    @property
    def status(self) -> LinkStatus:
        return LinkStatus(state=self.state, since=0.0, ever_up=self.state is LinkState.UP)

    @property
    def in_flight(self) -> int:
        return len(self.published)

    def check(self, destination: Destination, publication: Publication) -> None:
        """Takes everything."""

    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> None:
        await self.open.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        self.published.append(publication)

    async def subscribe(
        self,
        destination: Destination,
        listener: Listener,
        *,
        acknowledge: bool,
        prefetch: int,
        timeout: float,
        start: StreamStart | None = None,
    ) -> Subscription:
        self.asked.append(
            {
                "uri": destination.uri,
                "acknowledge": acknowledge,
                "prefetch": prefetch,
                "timeout": timeout,
                "start": start,
            }
        )
        await self.open.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        self.subscriptions.append(FakeSubscription(listener))
        return self.latest


async def turns(times: int = 5) -> None:
    """Let everything run that can run now."""
    for _ in range(times):
        await asyncio.sleep(0)


class Timers:
    """Stands in for `call_later` of the running loop: nothing fires until `pass_time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, FakeTimer]] = []

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> FakeTimer:
        timer = FakeTimer(callback, args)
        self._due.append((self.now + delay, timer))
        return timer

    @property
    def waiting(self) -> list[float]:
        """Seconds until each timer that is not cancelled."""
        return [when - self.now for when, timer in self._due if not timer.cancelled]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        ready = [timer for when, timer in self._due if when <= self.now]
        self._due = [(when, timer) for when, timer in self._due if when > self.now]
        for timer in ready:
            timer.fire()


class FakeTimer:
    """The part of asyncio.TimerHandle that is used."""

    def __init__(self, callback: Any, args: tuple[Any, ...]) -> None:
        self._callback = callback
        self._args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        if not self.cancelled:
            self._callback(*self._args)
