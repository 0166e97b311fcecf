"""One of the addresses behind a service's hosts: the connection to it, and what is subscribed there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.stomp.addresses import Address
from app.connectors.stomp.consumers import Consumers
from app.connectors.stomp.link import Link, Residents
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.session import Session
from app.domain.link import LinkState


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who else wants to know: `up` of every new connection, `changed` of every change of state."""

    up: Callable[[Session], None]
    changed: Callable[[LinkState, LinkState], None]
    on_event: Callable[[str], None]


class Member:
    """Consumes only. `joined` is told of every new connection before what was subscribed is restored."""

    def __init__(
        self,
        service: str,
        address: Address,
        settings: ServiceSettings,
        quarantine: Quarantine,
        neighbours: Neighbours,
        *,
        epoch: int,
        joined: Callable[[Member, Session], None],
    ) -> None:
        self.address = address
        #: Look-ups in a row that did not have it.
        self.missed = 0
        self._quarantine = quarantine
        self._neighbours = neighbours
        self._joined = joined
        residents = Residents(self._up, self._lost, neighbours.changed, neighbours.on_event)
        self.link = Link(f"{service} ({address})", settings, residents, address=address, epoch=epoch)
        self.consumers = Consumers(service, settings, self.link, quarantine)
        self.running = asyncio.get_running_loop().create_task(self.link.run(), name=f"link {self.link.name}")

    @property
    def is_promising(self) -> bool:
        """It takes a subscription now, or nobody knows yet why it should not."""
        return self.link.current is not None or self.link.is_beginning

    def _up(self, session: Session) -> Coroutine[Any, Any, None]:
        self._neighbours.up(session)
        self._quarantine.up(self.link.name, session)
        self._joined(self, session)
        return self.consumers.restore(session)

    def _lost(self, session: Session) -> None:
        self._quarantine.lost(self.link.name, session)
        self.consumers.lost()

    def reconfigure(self, settings: ServiceSettings) -> None:
        """Connect with these from now on."""
        self.consumers.settings = settings
        self.link.reconfigure(settings)

    async def leave(self) -> None:
        """DISCONNECT after what is still to be done; the caller sets the deadline, and calls `end` in any case."""
        session = self.link.current
        self.link.drain()
        if self.consumers.chores:
            await asyncio.wait(self.consumers.chores)
        if session is not None and session.is_open:
            await session.disconnect()

    async def end(self) -> None:
        """Over for good."""
        self.running.cancel()
        await asyncio.wait([self.running])
        self.link.finish()
        self._quarantine.forget(self.link.name)
