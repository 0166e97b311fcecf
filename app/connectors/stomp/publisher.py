"""Publishing on a link: a place in the window, a receipt for each frame, a deadline for everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from app.config.settings import ServiceSettings
from app.connectors.base import Destination
from app.connectors.stomp.confirms import Pending
from app.connectors.stomp.declarations import Declarations
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.link import Link
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.session import Session
from app.domain.errors import (
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    FieldError,
    InvalidHeader,
    Overloaded,
)
from app.domain.message import Publication
from app.domain.uri import MqUri


class Publisher:
    """`window` is how many publishes may be on their way, those that wait for the link included."""

    def __init__(
        self,
        service: str,
        settings: ServiceSettings,
        link: Link,
        quarantine: Quarantine,
        streams: Declarations,
        *,
        window: int,
    ) -> None:
        #: Replaced when the configuration is reloaded.
        self.settings = settings
        self.in_flight = 0
        self._service = service
        self._link = link
        self._quarantine = quarantine
        self._streams = streams
        self._window = window
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Returns when nothing is on its way; the caller sets the deadline."""
        await self._idle.wait()

    def frame(self, dialect: Dialect, destination: Destination, publication: Publication) -> tuple[str, dict[str, str]]:
        """STOMP destination and headers of a SEND that this broker takes; raises BadRequest and its kin."""
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

    async def publish(self, destination: Destination, publication: Publication, timeout: float, confirm: bool) -> None:
        """As MQConnector.publish."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        with self._place():
            session = self._link.current or await self._link.session(timeout)
            if destination.settings.is_stream:
                session = await self._streams.session(self._link, destination, deadline - loop.time())
            path, headers = self.frame(session.dialect, destination, publication)
            if path in session.stale:
                session = await self._link.renewed(deadline - loop.time())
            self._quarantine.refuse(path)
            while not session.transport.is_writable:
                await self._room(session, deadline)
            if destination.settings.arguments and path not in session.declared:
                session.declared.add(path)
                headers.update(session.dialect.declare_headers(destination))
            pending = session.send(path, publication.body, publication.content_type, headers, confirm=confirm)
            try:
                await self._sent(session, pending, deadline, timeout)
            finally:
                # An error's traceback holds this frame, and the frame the error: the body would stay with them.
                del pending

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """A place in the window; raises Overloaded."""
        if self.in_flight >= self._window:
            raise Overloaded(f"{self.in_flight} publishes to {self._service} are in flight", retry_after=1)
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def _room(self, session: Session, deadline: float) -> None:
        """Wait until a broker that does not read takes what it was sent; what comes later is not sent at all."""
        try:
            async with asyncio.timeout_at(deadline):
                await session.transport.writable()
        except TimeoutError:
            raise Overloaded(f"the broker of {self._service} does not read", retry_after=1) from None
        if not session.takes_work:
            raise BrokerUnavailable(f"the link to {self._service} was lost", retry_after=1)

    async def _sent(self, session: Session, pending: Pending | None, deadline: float, timeout: float) -> None:
        """Wait for the RECEIPT, or where none was asked for until the kernel took the frame."""
        asked = pending is not None
        try:
            async with asyncio.timeout_at(deadline):
                await (session.transport.writable() if pending is None else pending.future)
        except TimeoutError:
            raise ConfirmTimeout(f"no confirmation within {timeout:g} s: it may have been delivered") from None
        finally:
            if pending is not None:
                session.forget(pending)
            pending = None  # as in `publish`
        if not asked and not session.is_open:
            raise ConnectionLost("the connection was lost while the frame was handed over")
