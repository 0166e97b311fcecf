"""The link to one mqService: one session at a time, made anew for as long as the gateway runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.base import ConnectorContext
from app.connectors.stomp.addresses import Address, Resolver, resolve
from app.connectors.stomp.backoff import Backoff
from app.connectors.stomp.login import has_backslash
from app.connectors.stomp.session import Session
from app.connectors.stomp.tls import client_context
from app.domain.errors import BrokerUnavailable, Draining
from app.domain.link import TRANSITIONS, LinkError, LinkFailed, LinkFault, LinkState, LinkStatus

logger = logging.getLogger("mq_gateway.stomp")


async def open_session(
    settings: ServiceSettings, address: Address, epoch: int, on_event: Callable[[str], None]
) -> Session:
    """One attempt at one address within `connect_timeout`; raises LinkFailed with the reason."""
    context = _tls_context(settings, address)
    if not has_backslash(settings):
        return await _open(settings, address, epoch, on_event, context)
    # STOMP 1.2 wants CONNECT without escapes, and ActiveMQ reads it so; RabbitMQ reads escapes there too, and
    # who it is is only known afterwards.
    try:
        return await _open(settings, address, epoch, on_event, context, escaped=True)
    except LinkFailed as fault:
        if fault.fault not in {LinkFault.AUTH_FAILED, LinkFault.VHOST_DENIED, LinkFault.CLOSED_BY_BROKER}:
            raise
        first = fault
    try:
        return await _open(settings, address, epoch, on_event, context)
    except LinkFailed as fault:
        # RabbitMQ closes without a word on the second form: what it said to the first is the reason.
        raise (first if fault.fault is LinkFault.CLOSED_BY_BROKER else fault) from None


def _tls_context(settings: ServiceSettings, address: Address) -> ssl.SSLContext | None:
    try:
        return client_context(settings.tls) if settings.tls is not None else None
    except OSError as error:
        raise LinkFailed(LinkFault.TLS, f"{address.name}: our certificate files: {error}") from None


async def _open(
    settings: ServiceSettings,
    address: Address,
    epoch: int,
    on_event: Callable[[str], None],
    context: ssl.SSLContext | None,
    *,
    escaped: bool = False,
) -> Session:
    session = Session(epoch, address, on_event)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            await session.connect(settings, context, escaped=escaped)
    except BaseException as error:
        session.abort(LinkFailed(LinkFault.INTERNAL, "the attempt was given up"))
        if isinstance(error, OSError | LinkFailed):
            raise fault_of(error, address) from None
        raise
    return session


#: The one mapping from what a connect raises to a LinkFault; the first that fits.
_FAULTS: tuple[tuple[type[Exception], LinkFault], ...] = (
    (TimeoutError, LinkFault.TIMEOUT),
    (ConnectionRefusedError, LinkFault.REFUSED),
    (ssl.SSLCertVerificationError, LinkFault.TLS_VERIFY),
    (ssl.SSLError, LinkFault.TLS),
    (ConnectionError, LinkFault.CLOSED_BY_BROKER),
    (OSError, LinkFault.UNREACHABLE),
)


def fault_of(error: OSError | LinkFailed, address: Address) -> LinkFailed:
    """What a connect raised, as LinkFailed with the address in its text."""
    if isinstance(error, LinkFailed):
        fault = error.fault
    else:
        fault = next(fault for kind, fault in _FAULTS if isinstance(error, kind))
    return LinkFailed(fault, f"{address.name} ({address}): {_words(error)}")


def _words(error: OSError | LinkFailed) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or "the connection was closed before it was made"


class Link:
    """Connects, tells, waits, connects again.

    `on_up` is called before anybody else gets the new session; what it returns restores what lived on the link.
    """

    def __init__(
        self,
        service: str,
        settings: ServiceSettings,
        context: ConnectorContext,
        on_up: Callable[[Session], Coroutine[Any, Any, None]],
        on_lost: Callable[[Session], None],
    ) -> None:
        self._service = service
        self._settings = settings
        self._context = context
        self._on_up = on_up
        self._on_lost = on_lost
        self._backoff = Backoff(settings.reconnect)
        self._resolver = Resolver()
        self._change = asyncio.Event()
        self._session: Session | None = None
        self._epoch = 0
        self._state, self._since = LinkState.CONNECTING, time.time()
        self._last_error: LinkError | None = None
        self._next_attempt_at: float | None = None
        self._broker: str | None = None

    @property
    def status(self) -> LinkStatus:
        session = self._session
        return LinkStatus(
            state=self._state,
            since=self._since,
            broker=self._broker,
            address=str(session.address) if session is not None else None,
            last_error=self._last_error,
            next_attempt_at=self._next_attempt_at,
            epoch=self._epoch,
            ever_up=self._broker is not None,
        )

    @property
    def current(self) -> Session | None:
        """The session, if the link takes work now."""
        session = self._session
        return session if session is not None and session.is_open and self._state is LinkState.UP else None

    async def session(self, timeout: float) -> Session:
        """The session to use, waiting for a link that is connecting; raises BrokerUnavailable or Draining."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._is_settling:
                    await self._change.wait()
        if self.current is not None:
            return self.current
        raise self._unavailable()

    @property
    def _is_settling(self) -> bool:
        """An attempt is under way, or will be as soon as the end of the connection has been noticed."""
        return self._state is LinkState.CONNECTING or (self._state is LinkState.UP and self.current is None)

    def _unavailable(self) -> BrokerUnavailable | Draining:
        if self._state in {LinkState.DRAINING, LinkState.CLOSED}:
            return Draining(f"{self._service} takes no new work", retry_after=1)
        reason = f": {self._last_error.detail}" if self._last_error is not None else ""
        wait = max(1.0, (self._next_attempt_at or 0.0) - time.time())
        return BrokerUnavailable(f"the link to {self._service} is {self._state}{reason}", retry_after=wait)

    def _enter(self, state: LinkState) -> None:
        previous = self._state
        if state is previous:
            return
        if state not in TRANSITIONS[previous]:
            raise AssertionError(f"{previous} -> {state} is not in the table")
        self._state, self._since = state, time.time()
        change, self._change = self._change, asyncio.Event()
        change.set()
        self._context.on_state(previous, state)

    async def run(self) -> None:
        """Keep the link until it is drained or cancelled."""
        while True:
            wait = await self._guarded_life()
            if self._state is LinkState.DRAINING:
                return
            if wait > 0:
                self._next_attempt_at = time.time() + wait
                self._enter(LinkState.DOWN)
                await asyncio.sleep(wait)
                self._next_attempt_at = None
            self._enter(LinkState.CONNECTING)

    async def _guarded_life(self) -> float:
        try:
            return await self._one_life()
        except Exception:  # a defect of ours must not leave the service without a link for ever
            logger.exception("%s: keeping the link failed", self._service)
            self._last_error = LinkError(LinkFault.INTERNAL, "the gateway failed; its log says why", time.time())
            return self._backoff.after_failure()

    async def _one_life(self) -> float:
        """Connect and stay until the connection is lost; the seconds to wait before the next attempt."""
        try:
            session = await self._attempt()
        except LinkFailed as fault:
            self._note(fault, "cannot connect")
            return self._backoff.after_failure()
        began = time.monotonic()
        self._note(await self._live(session), "connection lost")
        return self._backoff.after_life(time.monotonic() - began)

    def _note(self, fault: LinkFailed, what: str) -> None:
        self._last_error = LinkError(fault.fault, str(fault), time.time())
        logger.warning("%s: %s: %s (%s)", self._service, what, fault, fault.fault)

    async def _attempt(self) -> Session:
        """The first address that answers; raises the last address's LinkFailed when none does."""
        self._epoch += 1
        failure = LinkFailed(LinkFault.DNS, "no address")
        for address in await self._addresses():
            try:
                return await open_session(self._settings, address, self._epoch, self._context.on_event)
            except LinkFailed as fault:
                failure = fault
        raise failure

    async def _addresses(self) -> list[Address]:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                return await resolve(self._settings.addresses(), self._resolver)
        except TimeoutError:
            raise LinkFailed(LinkFault.DNS, "the names were not resolved in time") from None

    async def _live(self, session: Session) -> LinkFailed:
        self._session, self._broker = session, session.dialect.server or session.dialect.name
        restore = self._on_up(session)
        self._enter(LinkState.UP)
        logger.info("%s: connected to %s at %s", self._service, self._broker, session.address)
        restoring = asyncio.ensure_future(restore)
        try:
            return await asyncio.shield(session.closed)
        finally:
            restoring.cancel()
            (failed,) = await asyncio.gather(restoring, return_exceptions=True)
            if isinstance(failed, Exception):
                logger.error("%s: restoring failed", self._service, exc_info=failed)
            self._session = None
            session.abort(LinkFailed(LinkFault.INTERNAL, "the link was closed"))
            if self._state is LinkState.UP:
                self._enter(LinkState.CONNECTING)
            self._on_lost(session)

    def drain(self) -> None:
        """Take no new work; what is in flight ends."""
        if self._state is LinkState.UP:
            self._enter(LinkState.DRAINING)

    def finish(self) -> None:
        """Over for good."""
        self._resolver.close()
        self._enter(LinkState.CLOSED)
