"""Messages that came over lanes, and that nobody has taken yet."""

from __future__ import annotations

from collections import Counter

from app.connectors.base import Delivery
from app.gateway.lane import Lane


class Parked:
    """In the order in which they came. Who takes one out accounts for its bytes."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Lane, str], Delivery] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, lane: Lane, delivery: Delivery) -> None:
        """It came over this lane."""
        lane.parked.add(delivery.token)
        self._waiting[lane, delivery.token] = delivery

    def take(self) -> tuple[Lane, Delivery]:
        """The oldest; there must be one."""
        lane, token = next(iter(self._waiting))
        lane.parked.discard(token)
        return lane, self._waiting.pop((lane, token))

    def drop(self, lane: Lane, token: str) -> int:
        """Nobody will take this one; the bytes freed, 0 where it does not wait here."""
        lane.parked.discard(token)
        delivery = self._waiting.pop((lane, token), None)
        return 0 if delivery is None else len(delivery.message.body)

    def drop_all(self, lane: Lane) -> int:
        """Nobody will take those of this lane; the bytes freed."""
        return sum(self.drop(lane, token) for token in list(lane.parked))

    def let_go(self, lane: Lane) -> int:
        """Give back those behind leases, as over several brokers; the bytes freed."""
        waiting = [self._waiting[lane, token] for token in lane.parked]
        return sum(self.drop(lane, delivery.token) for delivery in waiting if lane.let_go(delivery))

    def largest(self) -> list[tuple[Lane, int]]:
        """Lanes with the bytes that wait on them, most first."""
        sizes: Counter[Lane] = Counter()
        for (lane, _token), delivery in self._waiting.items():
            sizes[lane] += len(delivery.message.body)
        return sizes.most_common()
