"""All subscriptions on a link: made, restored on every new connection, ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.base import Destination, Listener
from app.connectors.stomp.addresses import one_each
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.link import Link
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.restore import Restorer
from app.connectors.stomp.returns import Returns
from app.connectors.stomp.session import Session
from app.connectors.stomp.stream_cursor import StreamCursor
from app.connectors.stomp.subscription import StompSubscription
from app.domain.errors import BrokerRejected, BrokerUnavailable, ConfirmTimeout, ConnectionLost
from app.domain.stream import StreamStart

logger = logging.getLogger("mq_gateway.stomp")

#: The part of the broker's `consumer_timeout` after which a delivery is given back.
PATIENCE = 0.8


class Consumers:
    """They outlive connections; what their end still has to do goes on without whoever asked for it."""

    def __init__(self, service: str, settings: ServiceSettings, link: Link, quarantine: Quarantine) -> None:
        #: Replaced when the configuration is reloaded.
        self.settings = settings
        #: What is still being done; ended by the connector.
        self.chores: set[asyncio.Task[None]] = set()
        self._service = service
        self._link = link
        self._quarantine = quarantine
        #: Of the present connection.
        self.returns: Returns | None = None
        self._warned = False
        self._restorer = Restorer()
        self._subscriptions: dict[StompSubscription, None] = {}

    async def subscribe(
        self,
        destination: Destination,
        listener: Listener,
        *,
        acknowledge: bool,
        prefetch: int,
        timeout: float,
        start: StreamStart | None = None,
        made: Callable[[StompSubscription], None] | None = None,
    ) -> StompSubscription:
        """As MQConnector.subscribe; `made` gets what it will return before anything comes over it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        session = await self._link.session(timeout)
        cursor = StreamCursor(start) if start is not None else None
        subscription = self._make(
            session.dialect, destination, listener, acknowledge=acknowledge, prefetch=prefetch, cursor=cursor
        )
        if made is not None:
            made(subscription)
        path = subscription.path(session.dialect)
        self._quarantine.refuse(path)
        if path in session.stale:
            session = await self._link.renewed(deadline - loop.time())
        await self._establish(subscription, session, deadline, timeout)
        while session.replaced:  # meanwhile; what it delivered goes back
            session = await self._link.session(deadline - loop.time())
            await self._establish(subscription, session, deadline, timeout)
        if not session.is_open:  # RECEIPT and the end came in one read: nobody was told of a loss
            raise BrokerUnavailable("the link was lost while subscribing", retry_after=1)
        if not subscription.is_over:  # closed while the broker was asked
            self._subscriptions[subscription] = None
        return subscription

    def enlist(
        self, dialect: Dialect, destination: Destination, listener: Listener, *, acknowledge: bool, prefetch: int
    ) -> StompSubscription:
        """One that the next `restore` makes: its listener is told `on_restored` when it stands."""
        subscription = self._make(dialect, destination, listener, acknowledge=acknowledge, prefetch=prefetch)
        self._subscriptions[subscription] = None
        return subscription

    def _make(
        self,
        dialect: Dialect,
        destination: Destination,
        listener: Listener,
        *,
        acknowledge: bool,
        prefetch: int,
        cursor: StreamCursor | None = None,
    ) -> StompSubscription:
        return StompSubscription(
            destination,
            listener,
            acknowledge=acknowledge or cursor is not None,
            prefetch=prefetch,
            patience=self._patience(dialect),
            cursor=cursor,
            on_end=self._forget,
            spawn=self.chore,
        )

    async def _establish(
        self, subscription: StompSubscription, session: Session, deadline: float, timeout: float
    ) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await subscription.establish(session, self.returns)
        except TimeoutError:
            self.chore(subscription.close(timeout))
            raise ConfirmTimeout(f"{self._service} did not confirm the subscription within {timeout:g} s") from None
        except ConnectionLost as error:
            raise BrokerUnavailable(f"the link was lost while subscribing: {error}", retry_after=1) from None
        except asyncio.CancelledError:
            self.chore(subscription.close(timeout))
            raise
        if subscription.ended is not None:
            raise BrokerRejected(f"the broker ended the subscription at once: {subscription.ended}")

    def _patience(self, dialect: Dialect) -> float | None:
        """Seconds for which a delivery may stay unacked; None where giving one back needs more than a NACK."""
        timeout = self.settings.consumer_timeout or dialect.consumer_timeout
        return None if timeout is None or not dialect.nack_requeues else timeout * PATIENCE

    def restore(
        self, session: Session, before: Callable[[], Awaitable[None]] | None = None
    ) -> Coroutine[Any, Any, None]:
        """On a new connection, when `before` is done."""
        self._warn_of_others(session)
        self.returns = Returns(session)
        return self._restore(list(self._subscriptions), session, self.returns, before)

    def _warn_of_others(self, session: Session) -> None:
        """Once: whoever says which of the two it is to be knows."""
        brokers = len(one_each(self._link.addresses))
        if self._warned or self.settings.consume_from is not None or brokers < 2 or not session.dialect.may_be_alone:
            return
        self._warned = True
        logger.warning(
            "%s: %d brokers behind its hosts, and messages come from one of them only; where they know nothing of "
            "each other it has to be `consume_from: all`, and `one` where they do",
            self._service,
            brokers,
        )

    async def _restore(
        self,
        subscriptions: list[StompSubscription],
        session: Session,
        returns: Returns,
        before: Callable[[], Awaitable[None]] | None,
    ) -> None:
        if before is not None:
            await before()
        await self._restorer.restore(subscriptions, session, returns)

    def lost(self) -> None:
        """The connection is gone."""
        for subscription in list(self._subscriptions):
            subscription.lost()

    def _forget(self, subscription: StompSubscription) -> None:
        self._subscriptions.pop(subscription, None)

    def chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this in the background; ended by the connector."""
        task = asyncio.get_running_loop().create_task(work)
        self.chores.add(task)
        task.add_done_callback(self.chores.discard)
        return task
