"""One declaration: a SUBSCRIBE, and UNSUBSCRIBE at once. What stays is what it made."""

from __future__ import annotations

import asyncio
import logging

from stomp import constants as stomp
from stomp.utils import Frame

from app.connectors.base import Destination
from app.connectors.stomp.dialect import Headers
from app.connectors.stomp.route import Route
from app.connectors.stomp.session import Session
from app.domain.errors import GatewayError

logger = logging.getLogger("mq_gateway.stomp")

#: RabbitMQ, of a queue that is not there.
NO_QUEUE = "NOT_FOUND - no queue '"


async def declare(session: Session, path: str, headers: Headers, queue: str = "", *, acks: bool = False) -> None:
    """SUBSCRIBE to `path` and leave; the caller sets the deadline. Raises BrokerRejected, ConnectionLost.

    `queue` is a name in the headers that an ERROR may quote. What comes all the same goes back with the end of the
    connection, or is acknowledged (`acks`: of a stream, where it would hold credit).
    """

    def on_message(frame: Frame) -> None:
        if acks:
            session.ack(frame.headers.get(stomp.HDR_ACK, ""))

    def on_cancelled(detail: str) -> None:
        logger.warning("%s was deleted while it was declared: %s", queue or path, detail)

    subscription, pending = session.subscribe(Route(path, True, on_message, on_cancelled, queue), headers)
    try:
        await pending.future
    except asyncio.CancelledError:
        if session.is_open:
            ended = session.unsubscribe(subscription).future
            ended.add_done_callback(_retrieve)
            ended.add_done_callback(lambda _: session.drop_route(subscription))  # until then messages may come
        raise
    except GatewayError:
        session.drop_route(subscription)
        raise
    finally:
        session.forget(pending)
    try:
        await session.unsubscribe(subscription).future
    finally:
        session.drop_route(subscription)


def mark(session: Session, destination: Destination) -> str:
    """What `Session.declared` has of a durable subscription that has been consumed from on this connection."""
    return f"{session.dialect.path(destination)} {destination.subscription}"


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # nobody waits for it
