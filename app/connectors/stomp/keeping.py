"""Durable named subscriptions of Topics: made once, and found again at each link-up.

On RabbitMQ only a SUBSCRIBE to the Topic with `x-queue-name` binds a queue to it, and it consumes: of a queue with
messages it would be given the first, and where it fails **RabbitMQ deletes the queue**. So it is sent only while there
is no such queue. Whether there is one tells a SUBSCRIBE that can never succeed: RabbitMQ looks for the queue first
(NOT_FOUND), and then refuses an argument that only streams have (PRECONDITION_FAILED), before there is a consumer.
Either ends the connection, which is one for this errand only. By the source of 3.10 and 4.0; see docs/adr/0017.
"""

from __future__ import annotations

import logging

from app.config.settings import ServiceSettings
from app.connectors.base import Destination
from app.connectors.stomp.declaring import NO_QUEUE, declare, mark
from app.connectors.stomp.dialect import Dialect, Headers
from app.connectors.stomp.errand import errand
from app.connectors.stomp.link import Link
from app.connectors.stomp.route import Route
from app.connectors.stomp.session import Session
from app.connectors.stomp.stream_cursor import OFFSET_HEADER
from app.domain.errors import BrokerRejected, BrokerUnavailable, ConnectionLost
from app.domain.uri import subscription_queue

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds to wait for the connection that consumes.
_DEADLINE = 10.0


class Keeping:
    """`link` is the connection that consumes: with a client id it is the only one that has it."""

    def __init__(self, settings: ServiceSettings, link: Link) -> None:
        #: Replaced when the configuration is reloaded.
        self.settings = settings
        self._link = link
        #: Queues that were not there, and whose making was not confirmed: there may be one now, without its binding.
        self._unbound: set[str] = set()

    def refuse(self, dialect: Dialect, destination: Destination) -> None:
        """Raises NotSupportedByBroker where this subscription cannot be kept."""
        dialect.check_subscription(destination, self.settings.client_id)

    async def keep(self, session: Session, destination: Destination) -> None:
        """Returns when what is published from now on is kept for this subscription; the caller sets the deadline.

        Raises Unavailable, BrokerRejected, ConnectionLost.
        """
        if session.dialect.reads_apart:
            await self._keep_apart(session, destination)
            return
        # Elsewhere it is made by whoever consumes. Without credit ActiveMQ delivers nothing; Artemis gives one message
        # all the same, and has it again at its place, uncounted, with UNSUBSCRIBE.
        consuming = await self._link.session(_DEADLINE)
        dialect, made = consuming.dialect, mark(consuming, destination)
        if made in consuming.declared and not dialect.is_shared(destination):
            return  # a worker may have it, and a second consumer is refused
        await declare(consuming, dialect.source(destination), dialect.subscribe_headers(destination, 0))
        consuming.declared.add(made)

    async def _keep_apart(self, session: Session, destination: Destination) -> None:
        uri, settings = destination.uri, destination.settings
        queue = subscription_queue(uri.name, destination.subscription or "", settings.destination)
        if queue not in self._unbound and await _is_there(session, session.dialect.source(destination)):
            return
        try:
            async with errand(session) as other:
                self._unbound.add(queue)  # only now: a connection that fails made none, and others may
                headers = _making_headers(other.dialect, destination, queue)
                await declare(other, other.dialect.path(destination), headers, queue)
        except BrokerRejected:
            self._unbound.discard(queue)  # it deleted what there was of it
            raise
        self._unbound.discard(queue)
        logger.info("%s: made the queue %s for its subscription", uri, queue)


def _making_headers(dialect: Dialect, destination: Destination, queue: str) -> Headers:
    """Of the SUBSCRIBE to the Topic that makes the queue and binds it."""
    kept = {"x-queue-name": queue, "durable": "true", "auto-delete": "false", dialect.prefetch_header: "1"}
    return dialect.declare_headers(destination) | kept


async def _is_there(session: Session, path: str) -> bool:
    """Whether RabbitMQ has this queue; raises BrokerRejected where it does not say."""
    async with errand(session) as other:
        words = await _refusal(other, path)
    # None: a RabbitMQ that does not look at the argument. There is a consumer, and what it got goes back.
    if words is None or "PRECONDITION_FAILED" in words:
        return True
    if NO_QUEUE in words:
        return False
    raise BrokerRejected(f"the broker does not say whether {path} is there: {words}")


async def _refusal(session: Session, path: str) -> str | None:
    """What it says to a SUBSCRIBE that only a stream would take; None where it takes it."""
    route = Route(path, True, lambda _frame: None, lambda _detail: None)
    _, pending = session.subscribe(route, {session.dialect.prefetch_header: "1", OFFSET_HEADER: "first"})
    try:
        await pending.future
    except BrokerRejected as error:
        return str(error)
    except ConnectionLost as error:
        if session.blame.last_error is None:
            raise BrokerUnavailable(f"the link was lost: {error}", retry_after=1) from None
    return session.blame.last_error
