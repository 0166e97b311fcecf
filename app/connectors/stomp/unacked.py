"""Deliveries of one subscription that wait for their ack, and none of them for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator


class Unacked:
    """By token, in the order of delivery. `on_late` gets what has waited for `patience` seconds and is still here.

    RabbitMQ ends the whole connection for one delivery that stays unacked for its `consumer_timeout`
    (rabbitmq.com/docs/consumers, "Delivery Acknowledgement Timeout").
    """

    def __init__(self, patience: float | None, on_late: Callable[[list[str]], None]) -> None:
        self._patience = patience
        self._on_late = on_late
        self._due: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, token: str) -> bool:
        return token in self._due

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._due))

    def add(self, token: str) -> None:
        """It was delivered."""
        if self._patience is None:
            self._due[token] = 0.0
            return
        loop = asyncio.get_running_loop()
        self._due[token] = loop.time() + self._patience
        if self._timer is None:
            self._timer = loop.call_later(self._patience, self._look)

    def remove(self, token: str) -> None:
        """It was answered; raises KeyError where it is not here."""
        del self._due[token]

    def clear(self) -> None:
        """They are void, or were given back."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        # Moves with the oldest delivery: one timer for all of them, however many come and go.
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [token for token, due in self._due.items() if due <= now]
        first = next((due for due in self._due.values() if due > now), None)
        self._timer = None if first is None else loop.call_at(first, self._look)
        if late:
            self._on_late(late)
