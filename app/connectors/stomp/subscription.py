"""One consumer that outlives reconnects: a new subscription id in every epoch, acks fenced by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from stomp import constants as stomp
from stomp.utils import Frame

from app.connectors.base import Delivery, Destination, Listener, Subscription
from app.connectors.stomp.confirms import Pending
from app.connectors.stomp.declaring import mark
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.received import message_of
from app.connectors.stomp.returns import Returns
from app.connectors.stomp.route import Route
from app.connectors.stomp.session import Session
from app.connectors.stomp.stream_cursor import OFFSET_HEADER, Place, StreamCursor
from app.connectors.stomp.stream_frames import reading_headers, reading_path
from app.connectors.stomp.unacked import Unacked
from app.domain.errors import BrokerUnavailable, GatewayError
from app.domain.link import LinkFailed, LinkFault

#: Seconds for UNSUBSCRIBE and giving back. Then the connection is ended, which gives everything back.
END_DEADLINE = 30.0
#: So many times restoring it may end the connection; for a stream RabbitMQ 3.10.8 does that by accident.
ENDS = 1
STREAM_ENDS = 5
#: Seconds within which a stream delivers again what it delivered last; then it is another one.
SAME_WITHIN = 10.0


class StompSubscription(Subscription):
    """At most `prefetch` deliveries are unacked; only what this epoch delivered can be acked."""

    def __init__(
        self,
        destination: Destination,
        listener: Listener,
        *,
        acknowledge: bool,
        prefetch: int,
        patience: float | None = None,
        cursor: StreamCursor | None = None,
        on_end: Callable[[StompSubscription], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.destination = destination
        self._listener = listener
        self._acknowledge = acknowledge
        self._prefetch = prefetch
        #: Of a stream: where it goes on. What it delivered is never given back, only acked.
        self._cursor = cursor
        self._ends_left = ENDS if cursor is None else STREAM_ENDS
        self._on_end = on_end
        self._spawn = spawn
        #: Why the broker ended it, None while it has not.
        self.ended: str | None = None
        #: It was given up for want of a RECEIPT: nobody refused it.
        self.is_unanswered = False
        self._session: Session | None = None
        self._returns: Returns | None = None
        self._id = ""
        #: Of a durable subscription that stood.
        self._mark = ""
        self._unacked = Unacked(patience, self._withdraw)
        self._closing = False
        self._doubt: asyncio.TimerHandle | None = None

    async def establish(self, session: Session, returns: Returns | None) -> None:
        """SUBSCRIBE on this connection and wait for the RECEIPT; the caller sets the deadline."""
        if self._closing:  # while the connection was waited for
            raise BrokerUnavailable("the subscription was closed meanwhile", retry_after=1)
        self._session, self._returns = session, returns
        self._unacked.clear()
        self._id, pending = self._subscribe(session)
        if self.destination.settings.arguments:
            session.declared.add(self.path(session.dialect))
        try:
            await pending.future
        except GatewayError:
            session.drop_route(self._id)
            raise
        finally:
            session.forget(pending)
        if self.destination.subscription is not None:
            self._mark = mark(session, self.destination)
            session.declared.add(self._mark)

    def path(self, dialect: Dialect) -> str:
        """What it subscribes to: of a stream or a durable subscription the queue itself, not the Topic."""
        return dialect.source(self.destination) if self._cursor is None else reading_path(dialect, self.destination)

    def _subscribe(self, session: Session) -> tuple[str, Pending]:
        if self._cursor is None:
            prefetch = self._prefetch if self._acknowledge else None
            headers = session.dialect.subscribe_headers(self.destination, prefetch)
        else:
            headers = reading_headers(self._cursor, self._prefetch)
        route = Route(self.path(session.dialect), self._acknowledge, self._on_frame, self._on_cancelled)
        return session.subscribe(route, headers)

    @property
    def is_over(self) -> bool:
        """Closed, or about to be."""
        return self._closing

    async def restore(self, session: Session, returns: Returns) -> None:
        """After a reconnect; a refusal cancels the subscription, a lost connection leaves it for the next one."""
        if self._closing:
            return
        await self.establish(session, returns)
        if self._session is session and session.is_open:  # RECEIPT and the end may come in one read
            if self._cursor is not None and self._cursor.misses_last:
                self._doubt = asyncio.get_running_loop().call_later(SAME_WITHIN, self._doubted, session, self._cursor)
            self._listener.on_restored()

    def _doubted(self, session: Session, cursor: StreamCursor) -> None:
        """Somebody deleted the stream while the link was down, and RabbitMQ says nothing of it."""
        if cursor.misses_last and self._session is session and session.is_open and not self._closing:
            cursor.begin_anew()
            self._reopen(session)

    def lost(self) -> None:
        """The connection is gone: what is unacked the broker gives to somebody again."""
        self._forget_session()
        self._unacked.clear()
        self._listener.on_lost()

    def cancelled(self, detail: str) -> None:
        """The broker will not have this subscription."""
        session = self._session
        if session is not None and session.is_open:
            session.unsubscribe(self._id).future.add_done_callback(_retrieve)
        self._refused(session, detail)

    def blamed(self, detail: str) -> None:
        """Restoring it ended the connection again: not for ever."""
        self._ends_left -= 1
        if self._ends_left <= 0:
            self.cancelled(detail)

    def _refused(self, session: Session | None, detail: str) -> None:
        if session is not None and self._cursor is not None:
            session.on_ended(self.path(session.dialect))  # it may be gone
        self._on_cancelled(detail)

    def _on_cancelled(self, detail: str) -> None:
        if self._session is not None:
            self._session.declared.discard(self._mark)  # what it read may be gone
        self._let_go()
        self.ended = detail
        self._on_end(self)
        self._listener.on_cancelled(detail)

    def _on_frame(self, frame: Frame) -> None:
        token = frame.headers.get(stomp.HDR_ACK, "")
        if self._acknowledge:
            self._unacked.add(token)
        session = self._session
        if self._closing or session is None:
            return
        if self._cursor is not None:
            self._on_stream_frame(frame, token, session, self._cursor.place(frame.headers.get(OFFSET_HEADER)))
        else:
            self._listener.on_message(Delivery(message_of(frame, session, self.destination.uri), token, session.epoch))

    def _on_stream_frame(self, frame: Frame, token: str, session: Session, place: Place | None) -> None:
        if place is None:
            self.cancelled("its messages have no offsets: it is no stream")
            return
        self._ends_left = STREAM_ENDS
        if place.repeated:
            self._unacked.remove(token)
            session.ack(token)
        else:
            message = message_of(frame, session, self.destination.uri)
            self._listener.on_message(Delivery(message, token, session.epoch, place.offset, place.missing))

    def ack(self, delivery: Delivery) -> bool:
        session = self._owner(delivery)
        if session is None:
            return False
        self._unacked.remove(delivery.token)
        session.ack(delivery.token)
        return True

    def nack(self, delivery: Delivery) -> bool:
        session = self._owner(delivery)
        if session is None or self._cursor is not None:
            return False
        if not session.dialect.nack_requeues:
            return self._reopen_for(delivery, session)
        self._unacked.remove(delivery.token)
        session.nack(delivery.token)
        return True

    def _reopen_for(self, delivery: Delivery, session: Session) -> bool:
        """Only ending the subscription gives it back; what else is unacked comes again with it, marked redelivered."""
        others = [token for token in self._unacked if token != delivery.token]
        self._reopen(session)
        for token in others:
            self._listener.on_withdrawn(token)
        return True

    def reject(self, delivery: Delivery) -> bool:
        session = self._owner(delivery)
        if session is None or self._cursor is not None:
            return False
        self._unacked.remove(delivery.token)
        session.reject(delivery.token)
        return True

    def _owner(self, delivery: Delivery) -> Session | None:
        """The connection that delivered it and still waits for an answer: an answer never crosses an epoch.

        After UNSUBSCRIBE it is too late: it all goes back, and a second answer would end RabbitMQ's connection.
        """
        session = self._session
        if session is None or not session.is_open or self._closing or delivery.epoch != session.epoch:
            return None
        return session if delivery.token in self._unacked else None

    def _withdraw(self, tokens: list[str]) -> None:
        """Before the broker loses its patience: these go back, and an ack of theirs does nothing from now on."""
        session = self._session
        if session is None or not session.is_open or self._closing:
            return
        for token in tokens:
            self._unacked.remove(token)
            session.nack(token) if self._cursor is None else session.ack(token)
            session.on_event("delivery_withdrawn")
            self._listener.on_withdrawn(token)

    def _reopen(self, session: Session) -> None:
        if self._returns is not None and self._cursor is not None:
            self._returns.ended(self._id, stream=True)
        session.unsubscribe(self._id).future.add_done_callback(_retrieve)
        session.drop_route(self._id)
        self._unacked.clear()
        self._id, pending = self._subscribe(session)
        pending.future.add_done_callback(lambda future: self._reopened(session, future))

    def _reopened(self, session: Session, future: asyncio.Future[None]) -> None:
        error = future.exception()
        if isinstance(error, GatewayError) and self._session is session and session.is_open:
            self._refused(session, str(error))

    async def close(self, timeout: float) -> None:
        if self._closing:
            return
        self._closing = True
        self._on_end(self)
        session = self._session
        if session is not None and session.is_open:
            # Goes on where the caller's patience ends: what is unacked must not stay locked to the connection.
            await asyncio.wait([self._spawn(self._finish(session))], timeout=timeout)
        else:
            self._let_go()

    async def _finish(self, session: Session) -> None:
        try:
            async with asyncio.timeout(END_DEADLINE):
                await self._unsubscribe(session)
        except GatewayError:
            pass  # the connection is lost: its end gives everything back
        except TimeoutError:
            if self._acknowledge:
                session.abort(LinkFailed(LinkFault.TIMEOUT, "the broker did not confirm the end of a subscription"))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Nothing keeps what has ended: a timer for late acks would, with the listener and all its messages."""
        self._returns = None
        self._forget_session()
        self._unacked.clear()

    def _forget_session(self) -> None:
        if self._session is not None:
            self._session.drop_route(self._id)  # where another connection took over, this one still delivers
            self._session = None
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    async def _unsubscribe(self, session: Session) -> None:
        returns = self._returns
        locked = self._acknowledge and session.dialect.keeps_unacked
        if locked and returns is not None:
            returns.ended(self._id, stream=self._cursor is not None)
        await session.unsubscribe(self._id).future
        if locked and returns is not None and self._unacked:
            await returns.give_back(self._unacked, stream=self._cursor is not None)


def _retrieve(future: asyncio.Future[None]) -> None:
    future.exception()
