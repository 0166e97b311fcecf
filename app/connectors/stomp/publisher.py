"""Publishing on a link: a place in the window, a receipt for each frame, a deadline for everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from app.config.settings import ServiceSettings
from app.connectors.base import Destination
from app.connectors.stomp.confirms import Pending
from app.connectors.stomp.declarations import Declarations
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.link import Link
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.session import Session
from app.connectors.stomp.transaction import MAX_OPEN, Send, Transaction
from app.domain.errors import (
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    FieldError,
    InvalidHeader,
    Overloaded,
)
from app.domain.message import Message, Publication
from app.domain.uri import MqUri


class Patience:
    """How long one publish may take: `timeout` seconds from now on."""

    __slots__ = ("deadline", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.deadline = asyncio.get_running_loop().time() + timeout

    @property
    def left(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where the reply goes, a STOMP destination of this connection, and the reply: it says what a RECEIPT says."""

    path: str
    reply: asyncio.Future[Message]


class Publisher:
    """`window` is how many publishes may be on their way, those that wait for the link included."""

    def __init__(
        self,
        service: str,
        settings: ServiceSettings,
        link: Link,
        quarantine: Quarantine,
        declarations: Declarations,
        *,
        window: int,
    ) -> None:
        #: Replaced when the configuration is reloaded.
        self.settings = settings
        self.in_flight = 0
        self._service = service
        self._link = link
        self._quarantine = quarantine
        self._declarations = declarations
        self._window = window
        self._transactions = asyncio.Semaphore(MAX_OPEN)
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Returns when nothing is on its way; the caller sets the deadline."""
        await self._idle.wait()

    def frame(
        self, dialect: Dialect, destination: Destination, publication: Publication, reply_to: ReplyTo | None = None
    ) -> tuple[str, dict[str, str]]:
        """STOMP destination and headers of a SEND that this broker takes; raises BadRequest and its kin."""
        path = dialect.path(destination)
        reply_path = self._reply_path(dialect, publication.reply_to) if reply_to is None else reply_to.path
        headers = dialect.send_headers(publication, reply_path)
        headers.update(dialect.address_headers(destination))
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

    async def publish(self, destination: Destination, publication: Publication, timeout: float, confirm: bool) -> None:
        """As MQConnector.publish."""
        patience = Patience(timeout)
        with self._place():
            while not await self._send(
                await self.session(destination, patience), destination, publication, patience, confirm=confirm
            ):
                pass  # on the connection that has taken its place

    async def session(self, destination: Destination, patience: Patience) -> Session:
        """The connection for a publish to this destination, once what is to stand behind it stands.

        Raises BrokerUnavailable, Draining, InvalidName, NotSupportedByBroker.
        """
        session = self._link.current or await self._link.session(patience.left)
        if session.stale and session.dialect.path(destination) in session.stale:
            session = await self._link.renewed(patience.left)
        if destination.settings.is_backed:
            session = await self._declarations.publishing(destination, patience.left)
        return session

    async def ask(
        self,
        session: Session,
        destination: Destination,
        publication: Publication,
        patience: Patience,
        reply_to: ReplyTo,
    ) -> None:
        """As `publish`, on this connection; returns at the RECEIPT or at the reply, whichever is first."""
        with self._place():
            if not await self._send(session, destination, publication, patience, reply_to=reply_to):
                raise BrokerUnavailable(f"another connection to {self._service} takes over", retry_after=1)

    async def _send(
        self,
        session: Session,
        destination: Destination,
        publication: Publication,
        patience: Patience,
        *,
        confirm: bool = True,
        reply_to: ReplyTo | None = None,
    ) -> bool:
        """False where nothing was sent, for another connection takes the place of this one."""
        path, headers = self.frame(session.dialect, destination, publication, reply_to)
        self._quarantine.refuse(path)
        if self._waiting or not session.transport.is_writable:
            await self._room(session, patience)
        if session.retiring:
            return False
        _declare_once(session, destination, path, headers)
        pending = session.send(path, publication.body, publication.content_type, headers, confirm=confirm)
        try:
            if reply_to is not None and pending is not None:
                reply_to.reply.add_done_callback(partial(_proven, pending.future))
            await self._sent(session, pending, patience)
            return True
        finally:
            # An error's traceback holds this frame, and the frame the error: the body would stay with them.
            del pending

    async def publish_together(
        self, destination: Destination, publications: Sequence[Publication], timeout: float, confirm: bool
    ) -> None:
        """As MQConnector.publish_together."""
        patience = Patience(timeout)
        with self._place(len(publications)):
            async with self._transaction(patience):
                session = await self.session(destination, patience)
                path, sends = self._sends(session.dialect, destination, publications)
                self._quarantine.refuse(path)
                _declare_once(session, destination, path, sends[0].headers)
                transaction = Transaction(session, publications[0].message_id, path, confirm=confirm)
                with session.confirms.held():  # it ends on the connection it began on
                    await transaction.run(sends, lambda session: self._room(session, patience), patience.deadline)

    def _sends(
        self, dialect: Dialect, destination: Destination, publications: Sequence[Publication]
    ) -> tuple[str, list[Send]]:
        """The STOMP destination and all frames before the first is sent; raises BadRequest and its kin."""
        frames = [self.frame(dialect, destination, each) for each in publications]
        sends = [
            Send(each.body, each.content_type, headers) for each, (_, headers) in zip(publications, frames, strict=True)
        ]
        return frames[0][0], sends

    @contextlib.asynccontextmanager
    async def _transaction(self, patience: Patience) -> AsyncIterator[None]:
        """A place among the open transactions; raises Overloaded."""
        try:
            async with asyncio.timeout_at(patience.deadline):
                await self._transactions.acquire()
        except TimeoutError:
            raise Overloaded(f"{MAX_OPEN} transactions to {self._service} are open", retry_after=1) from None
        try:
            yield
        finally:
            self._transactions.release()

    @contextlib.contextmanager
    def _place(self, count: int = 1) -> Iterator[None]:
        """Places in the window; raises Overloaded."""
        if self.in_flight + count > self._window:
            raise Overloaded(f"{self.in_flight} publishes to {self._service} are in flight", retry_after=1)
        self.in_flight += count
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= count
            if not self.in_flight:
                self._idle.set()

    async def _room(self, session: Session, patience: Patience) -> None:
        """Wait until a broker that does not read takes what it was sent; what comes later is not sent at all.

        Whoever came first goes first, also before one who comes when there is room again: a producer wants his order.
        """
        if session.transport.is_writable and not self._waiting:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout_at(patience.deadline), self._turn:
                while not session.transport.is_writable:
                    await session.transport.writable()
        except TimeoutError:
            raise Overloaded(f"the broker of {self._service} does not read", retry_after=1) from None
        finally:
            self._waiting -= 1

    async def _sent(self, session: Session, pending: Pending | None, patience: Patience) -> None:
        """Wait for the RECEIPT, or where none was asked for until the kernel took the frame."""
        asked = pending is not None
        try:
            async with asyncio.timeout_at(patience.deadline):
                await (session.transport.writable() if pending is None else pending.future)
        except TimeoutError as late:
            late.__traceback__ = None  # it would hold what is behind it until cycles are collected
            waited = f"no confirmation within {patience.timeout:g} s"
            raise ConfirmTimeout(f"{waited}: it may have been delivered") from None
        finally:
            if pending is not None:
                session.forget(pending)
            pending = None  # as in `publish`
        if not asked and not session.is_open:
            raise ConnectionLost("the connection was lost while the frame was handed over")


def _declare_once(session: Session, destination: Destination, path: str, headers: dict[str, str]) -> None:
    """The arguments of the queue go out with the first SEND of a connection."""
    if destination.settings.arguments and path not in session.declared:
        session.declared.add(path)
        headers.update(session.dialect.declare_headers(destination))


def _proven(confirmed: asyncio.Future[None], reply: asyncio.Future[Message]) -> None:
    """Who got the message answered: nobody has to wait for the broker's word any more."""
    if not confirmed.done() and not reply.cancelled() and reply.exception() is None:
        confirmed.set_result(None)
