"""The link to one mqService: one session at a time, made anew for as long as the gateway runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.stomp.addresses import Address, resolve
from app.connectors.stomp.backoff import Backoff
from app.connectors.stomp.opening import open_first
from app.connectors.stomp.session import Session
from app.connectors.stomp.succession import Succession, can_overlap, is_outdated, retire
from app.connectors.stomp.work import Work
from app.domain.errors import BrokerUnavailable, Draining
from app.domain.link import TRANSITIONS, LinkError, LinkFailed, LinkFault, LinkState, LinkStatus

logger = logging.getLogger("mq_gateway.stomp")

#: A broker that does not want us; other faults may heal by themselves.
_REFUSALS = frozenset({LinkFault.AUTH_FAILED, LinkFault.VHOST_DENIED})


@dataclass(frozen=True, slots=True)
class Residents:
    """What lives on a link. `up` is called before anybody else gets a new session; what it returns restores the rest.

    `changed` is told of every change of state.
    """

    up: Callable[[Session], Coroutine[Any, Any, None]]
    lost: Callable[[Session], None]
    changed: Callable[[LinkState, LinkState], None]
    on_event: Callable[[str], None]


class Link:
    """Connects, tells, waits, connects again. `name` is for logs and for people.

    It connects to the first configured address that answers, or to `address` only. Its epochs begin after `epoch`.
    """

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        residents: Residents,
        *,
        address: Address | None = None,
        epoch: int = 0,
    ) -> None:
        self.name = name
        #: What the names resolved to when it connected last.
        self.addresses: list[Address] = []
        self._address = address
        self._settings = settings
        self._residents = residents
        self._backoff = Backoff(settings.reconnect)
        self._change = asyncio.Event()
        self._hurry = asyncio.Event()
        #: The present connection is lost, or another one is ready to take its place.
        self._news = asyncio.Event()
        self._work = Work(name)
        self._succession = Succession(self._make_heir, self._news.set, self._work)
        self._session: Session | None = None
        self._epoch = epoch
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
        takes_work = session is not None and session.takes_work and self._state is LinkState.UP
        return session if takes_work else None

    @property
    def is_beginning(self) -> bool:
        """The first attempt is under way: nobody knows yet whether anybody is there."""
        return self._state is LinkState.CONNECTING and self._last_error is None and self._broker is None

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
            return Draining(f"{self.name} takes no new work", retry_after=1)
        reason = f": {self._last_error.detail}" if self._last_error is not None else ""
        wait = max(1.0, (self._next_attempt_at or 0.0) - time.time())
        return BrokerUnavailable(f"the link to {self.name} is {self._state}{reason}", retry_after=wait)

    def _enter(self, state: LinkState) -> None:
        previous = self._state
        if state is previous:
            return
        if state not in TRANSITIONS[previous]:
            raise AssertionError(f"{previous} -> {state} is not in the table")
        self._state, self._since = state, time.time()
        self._wake()
        self._residents.changed(previous, state)

    def _wake(self) -> None:
        """Whoever waits for a session looks again."""
        change, self._change = self._change, asyncio.Event()
        change.set()

    async def run(self) -> None:
        """Keep the link until it is drained or cancelled."""
        try:
            while True:
                wait = await self._guarded_life()
                if self._state is LinkState.DRAINING:
                    return
                if wait > 0:
                    self._next_attempt_at = time.time() + wait
                    self._enter(LinkState.DOWN)
                    await self._pause(wait)
                self._enter(LinkState.CONNECTING)
        finally:
            self._stop_succession()
            await self._work.end()

    async def _pause(self, wait: float) -> None:
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._hurry.wait()
        self._next_attempt_at = None

    async def _guarded_life(self) -> float:
        try:
            return await self._one_life()
        except Exception as error:  # noqa: BLE001 - a defect must not leave the service without a link for ever
            return self._failed(error, "cannot connect")

    async def _one_life(self) -> float:
        """Connect and stay until a connection is lost and has no heir; the seconds to wait before the next attempt."""
        self._epoch += 1
        heir: Session | None = await self._attempt(self._epoch)
        while heir is not None:
            session, began = heir, time.monotonic()
            await self._live(session)
            heir = self._succession.take()
        if session.retiring:
            logger.info("%s: another connection takes the place of this one", self.name)
            return self._backoff.after_life(math.inf)  # however short, it was ended on purpose
        self._note(session.closed.result(), "connection lost")
        return self._backoff.after_life(time.monotonic() - began)

    def _failed(self, error: Exception, what: str) -> float:
        """Note why an attempt failed; the seconds to wait before the next one."""
        if not isinstance(error, LinkFailed):
            logger.error("%s: keeping the link failed", self.name, exc_info=error)
            self._last_error = LinkError(LinkFault.INTERNAL, "the gateway failed; its log says why", time.time())
            return self._backoff.after_failure()
        self._note(error, what)
        return self._backoff.after_refusal() if error.fault in _REFUSALS else self._backoff.after_failure()

    def _note(self, fault: LinkFailed, what: str) -> None:
        self._last_error = LinkError(fault.fault, str(fault), time.time())
        logger.warning("%s: %s: %s (%s)", self.name, what, fault, fault.fault)

    async def _attempt(self, epoch: int) -> Session:
        """The first address that answers; raises LinkFailed."""
        settings = self._settings  # other ones may come meanwhile, and their login is not for these addresses
        self.addresses = await self._resolved(settings)
        return await open_first(settings, self.addresses, epoch, self._residents.on_event)

    async def _resolved(self, settings: ServiceSettings) -> list[Address]:
        if self._address is not None:
            return [self._address]
        return await resolve(settings.addresses(), settings.connect_timeout)

    async def _live(self, session: Session) -> None:
        """Until it is lost, or its heir is there."""
        self._session, self._epoch = session, session.epoch
        self._broker = session.dialect.server or session.dialect.name
        session.closed.add_done_callback(lambda _: self._news.set())
        restore = self._residents.up(session)
        self._enter(LinkState.UP)
        self._wake()  # it may have been up before
        logger.info("%s: connected to %s at %s", self.name, self._broker, session.address)
        self._replace_outdated()  # the configuration may have changed while it was made
        restoring = self._work.begin(restore)
        try:
            while session.is_open and self._succession.heir is None:
                self._news.clear()
                await self._news.wait()
        finally:
            restoring.cancel()
            self._leave(session)

    def _leave(self, session: Session) -> None:
        """It is lost, or gives way to its heir, which takes over in the same turn: the link is never without one."""
        if self._succession.heir is not None:
            self.renew()
            session.replaced = True
            self._session = None
        else:
            self._stop_succession()
            self._session = None
            session.abort(LinkFailed(LinkFault.INTERNAL, "the link was closed"))
            if self._state is LinkState.UP:
                self._enter(LinkState.CONNECTING)
        self._residents.lost(session)

    def retry(self) -> None:
        """Do not wait any longer for the next attempt."""
        self._hurry.set()

    def reconfigure(self, settings: ServiceSettings) -> None:
        """Connect with these from now on, beside the present connection where both may be there at once."""
        self._settings = settings
        self._backoff = Backoff(settings.reconnect)
        self.retry()
        self._replace_outdated()

    def _replace_outdated(self) -> None:
        session = self.current
        if session is None or session.settings is None:
            return
        self._stop_succession()
        if not is_outdated(session.settings, self._settings):
            return
        if can_overlap(session.settings, self._settings):
            self._succession.begin()
        else:
            self.renew()

    async def _make_heir(self) -> Session:
        """The connection to take over, whenever it comes up: a broker may learn the new login later than we do."""
        while True:
            try:
                return await self._attempt(self._epoch + 1)
            except Exception as error:  # noqa: BLE001 - as in `_guarded_life`
                wait = self._failed(error, "the present connection stays, for the new one cannot be made")
            self._residents.on_event("replacement_failed")
            self._next_attempt_at = time.time() + wait
            await self._pause(wait)

    def _stop_succession(self) -> None:
        self._succession.stop()
        self._next_attempt_at = None

    def renew(self) -> None:
        """The present connection takes no new work, and what is in flight there ends; another one takes its place."""
        session = self._session
        if session is not None and session.takes_work:
            session.retiring = True
            self._work.begin(retire(session))

    async def renewed(self, timeout: float) -> Session:
        """As `session`, on another connection than the present one."""
        self.renew()
        return await self.session(timeout)

    def drain(self) -> None:
        """Take no new work; what is in flight ends."""
        self._stop_succession()
        if self._state is LinkState.UP:
            self._enter(LinkState.DRAINING)

    def finish(self) -> None:
        """Over for good."""
        self._enter(LinkState.CLOSED)
