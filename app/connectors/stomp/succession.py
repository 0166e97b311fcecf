"""How another connection takes the place of the present one: made before that one ends, or after."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.stomp.session import Session
from app.connectors.stomp.work import Work
from app.domain.link import LinkFailed, LinkFault

#: Seconds for the RECEIPTs of a connection that gives way to another one, and its DISCONNECT.
RETIRE_SECONDS = 5.0
#: What of a service has nothing to do with its connection.
DECLARATIONS = {"queues", "topics", "allow_undeclared", "required", "consumer_timeout", "consume_from"}
#: What counts from the next attempt on, and the present connection can stay.
_ATTEMPTS = {"reconnect", "connect_timeout"}


def is_outdated(present: ServiceSettings, wanted: ServiceSettings) -> bool:
    """Whether a connection made with `present` is not the one that is wanted."""
    return _connection(present) != _connection(wanted)


def _connection(settings: ServiceSettings) -> dict[str, Any]:
    return settings.model_dump(exclude=DECLARATIONS | _ATTEMPTS)


def can_overlap(present: ServiceSettings, wanted: ServiceSettings) -> bool:
    """Whether both connections may be there at once: the broker is the same, and it knows us by no client id.

    ActiveMQ takes a client id from one connection at a time.
    """
    return _place(present) == _place(wanted) and present.client_id is None and wanted.client_id is None


def _place(settings: ServiceSettings) -> tuple[list[tuple[str, int]], str]:
    return settings.addresses(), settings.vhost


class Succession:
    """The heir is made while the present connection works; `make` returns it, however often it has to try.

    `ready` is told when it is there. It is of nobody until it is taken.
    """

    def __init__(
        self,
        make: Callable[[], Coroutine[Any, Any, Session]],
        ready: Callable[[], None],
        work: Work,
    ) -> None:
        self.heir: Session | None = None
        self._make = make
        self._ready = ready
        self._work = work
        self._making: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Make one; another one that was being made is not wanted any more."""
        self.stop()
        self._making = self._work.begin(self._run())

    async def _run(self) -> None:
        self.heir = await self._make()
        self._ready()

    def take(self) -> Session | None:
        """The heir, if it is there: whoever takes it has to end it."""
        heir, self.heir = self.heir, None
        return heir

    def stop(self) -> None:
        """No heir is wanted."""
        making, self._making = self._making, None
        if making is not None:
            making.cancel()
        heir = self.take()
        if heir is not None:
            heir.abort(LinkFailed(LinkFault.INTERNAL, "it is not wanted any more"))


async def retire(session: Session) -> None:
    """The end of a connection that takes no new work: RECEIPTs first, then DISCONNECT, within RETIRE_SECONDS."""
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_SECONDS):
                await session.confirms.settled()
                await session.disconnect()
    finally:
        words = "the broker did not answer in time, and another connection takes over"
        session.abort(LinkFailed(LinkFault.TIMEOUT, words))
