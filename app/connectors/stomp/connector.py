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
from app.connectors.stomp.returns import Returns
from app.connectors.stomp.session import Session
from app.connectors.stomp.subscription import StompSubscription
from app.domain.errors import (
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    FieldError,
    GatewayError,
    InvalidHeader,
    InvalidName,
    Overloaded,
)
from app.domain.link import LinkFailed, LinkFault, LinkStatus
from app.domain.message import Publication
from app.domain.uri import DestinationType, MqUri

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds for restoring one subscription after a reconnect.
_RESTORE_DEADLINE = 10.0
_RESTORE_TOGETHER = 100


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
        self._careful = False

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
                session.confirms.forget(pending)
        if pending is None and not session.is_open:
            raise ConnectionLost("the connection was lost while the frame was handed over")

    # Consuming.

    async def subscribe(
        self, destination: Destination, listener: Listener, *, acknowledge: bool, prefetch: int, timeout: float
    ) -> Subscription:
        deadline = asyncio.get_running_loop().time() + timeout
        session = await self._link.session(timeout)
        subscription = StompSubscription(
            destination, listener, acknowledge=acknowledge, prefetch=prefetch, on_end=self._forget
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
        self._subscriptions[subscription] = None
        return subscription

    def _forget(self, subscription: StompSubscription) -> None:
        self._subscriptions.pop(subscription, None)

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # The life of the link.

    def _up(self, session: Session) -> Coroutine[Any, Any, None]:
        self._dialect = session.dialect
        self._returns = Returns(session)
        session.known_paths.update(self._known_paths(session.dialect))
        return self._restore(session, self._returns)

    def _known_paths(self, dialect: Dialect) -> Iterator[tuple[str, MqUri]]:
        """The STOMP destinations of what is declared; a name this broker cannot have is left out."""
        for kind, declared in (("Queues", self.settings.queues), ("Topics", self.settings.topics)):
            for name, settings in declared.items():
                uri = MqUri(self.service, DestinationType(kind), name)
                with contextlib.suppress(InvalidName):
                    yield dialect.path(Destination(uri, settings)), uri

    async def _restore(self, session: Session, returns: Returns) -> None:
        # Should one of them end the connection, nobody knows which: next time they go one after the other.
        careful, self._careful = self._careful, True
        limit = asyncio.Semaphore(1 if careful else _RESTORE_TOGETHER)
        async with asyncio.TaskGroup() as group:
            for subscription in list(self._subscriptions):
                group.create_task(self._restore_one(subscription, session, returns, limit, careful=careful))
        if session.is_open and not session.unattributed:
            self._careful = False

    async def _restore_one(
        self,
        subscription: StompSubscription,
        session: Session,
        returns: Returns,
        limit: asyncio.Semaphore,
        *,
        careful: bool,
    ) -> None:
        async with limit:
            errors = session.unattributed
            try:
                async with asyncio.timeout(_RESTORE_DEADLINE):
                    await subscription.restore(session, returns)
            except ConnectionLost as error:
                logger.warning("%s: %s not restored: %s", self.service, subscription.destination.uri, error)
            except GatewayError as error:
                subscription.cancelled(str(error))
            except TimeoutError:
                # Its readers would wait for ever; on a new connection all are restored again.
                session.abort(LinkFailed(LinkFault.TIMEOUT, "the broker did not confirm a subscription again"))
            # Alone on the wire, so the ERROR is about this one; RabbitMQ may send a RECEIPT all the same.
            if careful and session.unattributed > errors:
                subscription.cancelled(f"the broker refused to subscribe again: {session.last_error}")

    def _lost(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.lost()

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
        running.cancel()
        await asyncio.gather(running, *self._chores, return_exceptions=True)
        self._link.finish()
