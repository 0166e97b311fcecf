"""Brokers that did not confirm a subscription in time, each to be asked again: its connection may last for weeks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.connectors.stomp.member import Member

#: Seconds until it is asked again.
AGAIN = 5.0


class Reminders:
    """One at most for each member. `ask` gets those that have a connection; with its next one the others are joined."""

    def __init__(self, ask: Callable[[Member], None]) -> None:
        self._ask = ask
        self._timers: dict[Member, asyncio.TimerHandle] = {}

    def add(self, member: Member) -> None:
        if member not in self._timers:
            self._timers[member] = asyncio.get_running_loop().call_later(AGAIN, self._due, member)

    def drop(self, member: Member) -> None:
        """It is not among ours any more."""
        if member in self._timers:
            self._timers.pop(member).cancel()

    def close(self) -> None:
        """Nobody is asked any more."""
        for member in list(self._timers):
            self.drop(member)

    def _due(self, member: Member) -> None:
        del self._timers[member]
        if member.link.current is not None:
            self._ask(member)
