"""StompMQConnector: an mqService on one STOMP connection, shared by everybody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.base import ConnectorContext, Destination, Listener, MQConnector, Subscription
from app.connectors.stomp.confirms import Pending
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.link import Link
from app.connectors.stomp.restore import Restorer
from app.connectors.stomp.returns import Returns
from app.connectors.stomp.session import Session
from app.connectors.stomp.subscription import StompSubscription
from app.connectors.stomp.suspects import Suspects
from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    DestinationQuarantined,
    FieldError,
    InvalidHeader,
    InvalidName,
    Overloaded,
)
from app.domain.link import LinkStatus
from app.domain.message import Publication
from app.domain.uri import DestinationType, MqUri

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds for what is still to be done when the connection has been ended.
_CHORES_DEADLINE = 1.0


class StompMQConnector(MQConnector):
    """Publishes with a receipt each; subscriptions outlive the connection; a request ends as exactly one outcome."""

    def __init__(self, service: str, settings: ServiceSettings, context: ConnectorContext) -> None:
        super().__init__(service, settings, context)
        self._link = Link(service, settings, context, self._up, self._lost)
        self._dialect = Dialect("", settings.max_frame_bytes)
        self._returns: Returns | None = None
        self._subscriptions: dict[StompSubscription, None] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._running: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._restorer = Restorer()
        self._suspects = Suspects()
        self._ended: tuple[int, tuple[str, ...]] = (-1, ())

    async def start(self) -> None:
        self._running = asyncio.create_task(self._link.run(), name=f"link {self.service}")

    @property
    def status(self) -> LinkStatus:
        return self._link.status

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def max_frame(self) -> int | None:
        return self._dialect.max_frame

    def check_name(self, uri: MqUri) -> None:
        self._dialect.check_name(uri)

    # Publishing.

    def check(self, destination: Destination, publication: Publication) -> None:
        self._send_headers(self._dialect, destination, publication)

    def _send_headers(
        self, dialect: Dialect, destination: Destination, publication: Publication
    ) -> tuple[str, dict[str, str]]:
        path = dialect.path(destination)
        headers = dialect.send_headers(publication, self._reply_path(dialect, publication.reply_to))
        dialect.check_frame(path, {**headers, **dialect.declare_headers(destination)}, publication)
        return path, headers

    def _reply_path(self, dialect: Dialect, reply_to: MqUri | None) -> str | None:
        """The STOMP destination of a reply; raises InvalidHeader where none is declared."""
        if reply_to is None:
            return None
        settings = self.settings.destination(reply_to)
        if settings is None:
            raise InvalidHeader(f"{reply_to} is not declared", errors=[FieldError("reply-to", "a declared mqURI")])
        return dialect.path(Destination(reply_to, settings))

    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> None:
        deadline = asyncio.get_running_loop().time() + timeout
        with self._window():
            session = self._link.current or await self._link.session(timeout)
            path, headers = self._send_headers(session.dialect, destination, publication)
            self._refuse_resting(path)
            while not session.transport.is_writable:
                await self._room(session, deadline)
            if destination.settings.arguments and path not in session.declared:
                session.declared.add(path)
                headers.update(session.dialect.declare_headers(destination))
            pending = session.send(path, publication.body, publication.content_type, headers, confirm=confirm)
            await self._sent(session, pending, deadline, timeout)

    @contextlib.contextmanager
    def _window(self) -> Iterator[None]:
        """A place among the publishes in flight, those that wait for a link included; raises Overloaded."""
        if self._in_flight >= self.context.in_flight:
            raise Overloaded(f"{self._in_flight} publishes to {self.service} are in flight", retry_after=1)
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def _room(self, session: Session, deadline: float) -> None:
        """Wait until a broker that does not read takes what it was sent; what comes later is not sent at all."""
        try:
            async with asyncio.timeout_at(deadline):
                await session.transport.writable()
        except TimeoutError:
            raise Overloaded(f"the broker of {self.service} does not read", retry_after=1) from None
        if not session.is_open:
            raise BrokerUnavailable(f"the link to {self.service} was lost", retry_after=1)

    async def _sent(self, session: Session, pending: Pending | None, deadline: float, timeout: float) -> None:
        """Wait for the RECEIPT, or where none was asked for until the kernel took the frame."""
        try:
            async with asyncio.timeout_at(deadline):
                await (session.transport.writable() if pending is None else pending.future)
        except TimeoutError:
            raise ConfirmTimeout(f"no confirmation within {timeout:g} s: it may have been delivered") from None
        finally:
            if pending is not None:
                session.forget(pending)
        if pending is None and not session.is_open:
            raise ConnectionLost("the connection was lost while the frame was handed over")

    # Consuming.

    async def subscribe(
        self, destination: Destination, listener: Listener, *, acknowledge: bool, prefetch: int, timeout: float
    ) -> Subscription:
        deadline = asyncio.get_running_loop().time() + timeout
        session = await self._link.session(timeout)
        self._refuse_resting(session.dialect.path(destination))
        subscription = StompSubscription(
            destination,
            listener,
            acknowledge=acknowledge,
            prefetch=prefetch,
            on_end=self._forget,
            spawn=self._chore,
        )
        try:
            async with asyncio.timeout_at(deadline):
                await subscription.establish(session, self._returns)
        except TimeoutError:
            self._chore(subscription.close(timeout))
            raise ConfirmTimeout(f"{self.service} did not confirm the subscription within {timeout:g} s") from None
        except ConnectionLost as error:
            raise BrokerUnavailable(f"the link was lost while subscribing: {error}", retry_after=1) from None
        except asyncio.CancelledError:
            self._chore(subscription.close(timeout))
            raise
        if subscription.ended is not None:
            raise BrokerRejected(f"the broker ended the subscription at once: {subscription.ended}")
        self._subscriptions[subscription] = None
        return subscription

    def _forget(self, subscription: StompSubscription) -> None:
        self._subscriptions.pop(subscription, None)

    def _chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    # The life of the link.

    def _up(self, session: Session) -> Coroutine[Any, Any, None]:
        self._dialect = session.dialect
        self._returns = Returns(session)
        session.known_paths.update(self._known_paths(session.dialect))
        session.knows_all = self.settings.allow_undeclared
        self._accuse(session)
        return self._restorer.restore(list(self._subscriptions), session, self._returns)

    def _known_paths(self, dialect: Dialect) -> Iterator[tuple[str, MqUri]]:
        """The STOMP destinations of what is declared; a name this broker cannot have is left out."""
        for kind, declared in (("Queues", self.settings.queues), ("Topics", self.settings.topics)):
            for name, settings in declared.items():
                uri = MqUri(self.service, DestinationType(kind), name)
                with contextlib.suppress(InvalidName):
                    yield dialect.path(Destination(uri, settings)), uri

    def _lost(self, session: Session) -> None:
        self._ended = (session.epoch, tuple(session.suspects))
        for subscription in list(self._subscriptions):
            subscription.lost()

    def _accuse(self, session: Session) -> None:
        """Count the end of the last connection if the broker was there all the time: a restart is nobody's fault."""
        epoch, paths = self._ended
        if session.epoch == epoch + 1:
            for path in self._suspects.ended(paths, asyncio.get_running_loop().time()):
                logger.warning("%s: %s keeps ending the connection and rests", self.service, path)
                self.context.on_event("destination_quarantined")

    def _refuse_resting(self, path: str) -> None:
        """Raises DestinationQuarantined for a destination that keeps ending the connection."""
        rest = self._suspects.rest(path, asyncio.get_running_loop().time())
        if rest > 0:
            raise DestinationQuarantined("this destination keeps ending the broker's connection", retry_after=rest)

    def quarantined(self, destination: Destination) -> bool:
        with contextlib.suppress(InvalidName):
            path = self._dialect.path(destination)
            return self._suspects.rest(path, asyncio.get_running_loop().time()) > 0
        return False

    async def close(self, timeout: float) -> None:
        if self._running is None:
            return
        running, self._running = self._running, None
        session = self._link.current
        self._link.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()
                if session is not None and session.is_open:
                    await session.disconnect()
        running.cancel()  # ends the connection, and with it whatever still waits for an answer
        _done, late = await asyncio.wait({running, *self._chores}, timeout=_CHORES_DEADLINE)
        for task in late:
            task.cancel()
        self._link.finish()
