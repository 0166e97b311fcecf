"""Request and reply on a link: one queue for the replies to everybody, made anew with every connection."""

from __future__ import annotations

import asyncio
import re
import secrets

from stomp.utils import Frame

from app.connectors.base import Destination
from app.connectors.replies import Replies, in_time
from app.connectors.stomp.dialect import ReplyQueues
from app.connectors.stomp.publisher import Patience, Publisher, ReplyTo
from app.connectors.stomp.received import message_of
from app.connectors.stomp.route import Route
from app.connectors.stomp.session import Session
from app.domain.errors import BrokerUnavailable, ConnectionLost, GatewayError, NoReply, NotSupportedByBroker
from app.domain.link import LinkFailed
from app.domain.message import Message, Publication

#: RabbitMQ's last word before it closes: this login may not make the queue for replies.
_NOT_ALLOWED = re.compile(r"access to queue 'amq\.gen-[^']*'[^\n]* refused")


class ReplyQueue:
    """Of one connection, and gone with it. `ended` says why nothing comes over it any more."""

    def __init__(self, session: Session, replies: Replies) -> None:
        self.session = session
        self.path = f"/temp-queue/{secrets.token_hex(8)}"
        self.ended: str | None = None
        #: Whether the broker has taken a request that names it.
        self.proven = False
        self._replies = replies
        self._standing: asyncio.Future[None] | None = None
        route = Route(self.path, False, self._on_frame, self._on_ended)
        if session.dialect.reply_queues is ReplyQueues.IMPLIED:
            session.adopt(self.path, route)
        else:
            _, pending = session.subscribe(route, {})
            self._standing = pending.future
            self._standing.add_done_callback(self._on_answered)
        session.closed.add_done_callback(self._on_closed)

    @property
    def refused(self) -> bool:
        """Whether naming it ended the connection, because this login may not make it."""
        return not self.proven and _NOT_ALLOWED.search(self.session.blame.last_error or "") is not None

    async def stands(self, patience: Patience) -> None:
        """Returns when it can be named; raises BrokerUnavailable, NotSupportedByBroker."""
        if self._standing is None:
            return
        done, _ = await asyncio.wait([self._standing], timeout=patience.left)
        if not done:
            raise BrokerUnavailable("the broker does not confirm the queue for replies", retry_after=1)
        failed = self._standing.exception()
        if isinstance(failed, ConnectionLost):
            raise BrokerUnavailable("the link was lost just now", retry_after=1)
        if failed is not None:
            raise NotSupportedByBroker(f"the broker refuses a queue for replies: {failed}")

    def _on_frame(self, frame: Frame) -> None:
        awaited = self._replies.take(frame.headers.get("correlation-id", ""))
        if awaited is not None:
            awaited.reply.set_result(message_of(frame, self.session, awaited.uri))

    def _on_answered(self, standing: asyncio.Future[None]) -> None:
        failed = standing.exception()
        if failed is not None:
            self._on_ended(str(failed))

    def _on_closed(self, closed: asyncio.Future[LinkFailed]) -> None:
        self._on_ended(f"the connection was lost: {closed.result()}")

    def _on_ended(self, detail: str) -> None:
        if self.ended is None:
            self.ended = detail
            self._replies.fail(self, self._lost)

    def _lost(self) -> GatewayError:
        return ConnectionLost(f"no reply can come any more, and the request may have been delivered: {self.ended}")


class Requester:
    """On the connection that publishes: on RabbitMQ its SENDs make the queue."""

    def __init__(self, service: str, publisher: Publisher, replies: Replies) -> None:
        self._service = service
        self._publisher = publisher
        self._replies = replies
        self._queue: ReplyQueue | None = None

    def forgive(self) -> None:
        """The rights of the login may have changed."""
        if self._queue is not None and self._queue.refused:
            self._queue = None

    async def request(self, destination: Destination, publication: Publication, timeout: float) -> Message:
        """As MQConnector.request."""
        patience = Patience(timeout)
        with self._replies.expect(destination.uri) as awaited:
            try:
                session = await self._publisher.session(destination, patience)
                queue = awaited.owner = self._queue_on(session)
                await queue.stands(patience)
                asked = awaited.asked(publication)
                await self._publisher.ask(session, destination, asked, patience, ReplyTo(queue.path, awaited.reply))
                queue.proven = True
                reply = await in_time(awaited.reply, patience.left)
            finally:
                del awaited  # as in Publisher: an error would keep it, and it the error
        if reply is None:
            raise NoReply(f"the broker took the request, and no reply came within {timeout:g} s")
        return reply

    def _queue_on(self, session: Session) -> ReplyQueue:
        """The queue of this connection; raises NotSupportedByBroker, and BrokerUnavailable where it is lost."""
        if session.dialect.reply_queues is ReplyQueues.NONE:
            raise NotSupportedByBroker(f"{self._service}: replies are not mapped to this broker")
        queue = self._queue
        if queue is not None and queue.refused:  # another try would end the connection for everybody again
            raise NotSupportedByBroker(f"the login of {self._service} may not make queues for replies (amq.gen-…)")
        if queue is None or queue.session is not session or queue.ended is not None:
            queue = self._queue = ReplyQueue(session, self._replies)
        return queue
