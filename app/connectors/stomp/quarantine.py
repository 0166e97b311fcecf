"""Destinations that rest, for all connections of one connector: counted at their ends, refused before the wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from app.connectors.stomp.session import Session
from app.connectors.stomp.suspects import Suspects
from app.domain.errors import DestinationQuarantined

logger = logging.getLogger("mq_gateway.stomp")


class Quarantine:
    """Told of every connection that comes up and of every one that is lost."""

    def __init__(self, service: str, on_event: Callable[[str], None]) -> None:
        self._service = service
        self._on_event = on_event
        self._suspects = Suspects()
        #: By link: epoch of the connection lost last, and who was in flight there.
        self._ended: dict[str, tuple[int, tuple[str, ...]]] = {}

    def lost(self, link: str, session: Session) -> None:
        """A connection of this link is gone."""
        self._ended[link] = (session.epoch, tuple(session.suspects))

    def forget(self, link: str) -> None:
        """There is no such link any more."""
        self._ended.pop(link, None)

    def up(self, link: str, session: Session) -> None:
        """Count the end of the last connection if the broker was there all the time: a restart is nobody's fault."""
        epoch, paths = self._ended.get(link, (-1, ()))
        if session.epoch != epoch + 1:
            return
        for path in self._suspects.ended(link, paths, asyncio.get_running_loop().time()):
            logger.warning("%s: %s keeps ending the connection and rests", self._service, path)
            self._on_event("destination_quarantined")

    def refuse(self, path: str) -> None:
        """Raises DestinationQuarantined for a destination that keeps ending the connection."""
        rest = self._rest(path)
        if rest > 0:
            raise DestinationQuarantined("this destination keeps ending the broker's connection", retry_after=rest)

    def holds(self, path: str) -> bool:
        """Whether the destination rests."""
        return self._rest(path) > 0

    def _rest(self, path: str) -> float:
        return self._suspects.rest(path, asyncio.get_running_loop().time())
