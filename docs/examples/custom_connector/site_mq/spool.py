"""SpoolMQConnector: publishes by writing one file per message into a folder, for a batch system that reads it.

A complete example of a connector of your own: it publishes, refuses what it cannot do, and has no consumers.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from app.connectors.base import ConnectorContext, Destination, Listener, MQConnector, Subscription
from app.config.settings import ServiceSettings
from app.domain.errors import BrokerUnavailable, NotSupportedByBroker
from app.domain.link import LinkState, LinkStatus
from app.domain.message import Publication


class SpoolMQConnector(MQConnector):
    """One folder per Queue below `options: {folder: …}`."""

    def __init__(self, service: str, settings: ServiceSettings, context: ConnectorContext) -> None:
        super().__init__(service, settings, context)
        self._folder = Path(settings.options["folder"])
        self._state, self._since = LinkState.CONNECTING, time.time()

    def _enter(self, state: LinkState) -> None:
        previous, self._state, self._since = self._state, state, time.time()
        self.context.on_state(previous, state)

    async def start(self) -> None:
        self._enter(LinkState.UP if self._folder.is_dir() else LinkState.DOWN)

    async def close(self, timeout: float) -> None:
        if self._state is not LinkState.CLOSED:
            self._enter(LinkState.CLOSED)

    @property
    def status(self) -> LinkStatus:
        up = self._state is LinkState.UP
        return LinkStatus(state=self._state, since=self._since, broker="Spool", address=str(self._folder), ever_up=up)

    @property
    def in_flight(self) -> int:
        return 0

    def check(self, destination: Destination, publication: Publication) -> None:
        if not destination.uri.is_queue:
            raise NotSupportedByBroker("a spool has no Topics")
        if publication.ttl_ms is not None or publication.delay_ms is not None:
            raise NotSupportedByBroker("a spool knows no time")

    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> None:
        self.check(destination, publication)
        if self._state is not LinkState.UP:
            raise BrokerUnavailable(f"{self._folder} is not there", retry_after=10)
        # Files block, so they are written in a thread: a connector never blocks the event loop.
        async with asyncio.timeout(timeout):
            await asyncio.to_thread(self._write, destination.uri.name, publication)

    def _write(self, queue: str, publication: Publication) -> None:
        folder = self._folder / queue.replace("/", "_")
        folder.mkdir(exist_ok=True)
        hidden = folder / f".{publication.message_id}"
        hidden.write_bytes(publication.body)
        hidden.rename(folder / publication.message_id)  # readers see whole messages only

    async def subscribe(
        self, destination: Destination, listener: Listener, *, acknowledge: bool, prefetch: int, timeout: float
    ) -> Subscription:
        raise NotSupportedByBroker("a spool is read by the batch system")
