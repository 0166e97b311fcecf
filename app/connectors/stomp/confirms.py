"""Receipts: a map from receipt id to the one request that waits for it, with the frame's destination."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from app.domain.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Pending:
    """A frame whose RECEIPT has not come. `path` is its STOMP destination, empty where it has none.

    `queue` is a name in its headers that an ERROR may quote instead.
    """

    receipt: str
    path: str
    future: asyncio.Future[None]
    queue: str = ""


class Confirms:
    """All pending receipts of one connection. Every one ends: by receipt, by refusal, or with the connection."""

    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}
        self._last = 0
        self._settled: asyncio.Event | None = None
        self._holds = 0

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[Pending]:
        return iter(tuple(self._pending.values()))

    def expect(self, path: str = "", queue: str = "") -> Pending:
        """Register a receipt that the next frame will ask for; the ids are never used twice on a connection."""
        self._last += 1
        pending = Pending(f"r{self._last}", path, asyncio.get_running_loop().create_future(), queue)
        self._pending[pending.receipt] = pending
        return pending

    async def settled(self) -> None:
        """Returns when nobody waits for a receipt, or will before long; the caller sets the deadline."""
        while self._pending or self._holds:
            self._settled = self._settled or asyncio.Event()
            self._settled.clear()
            await self._settled.wait()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block frames are still to be sent that belong together."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._look()

    def _take(self, receipt: str) -> Pending | None:
        pending = self._pending.pop(receipt, None)
        self._look()
        return pending

    def _look(self) -> None:
        if self._settled is not None and not self._pending:
            self._settled.set()

    def forget(self, pending: Pending) -> None:
        """Nobody waits any longer; a late RECEIPT is ignored."""
        self._take(pending.receipt)

    def resolve(self, receipt: str) -> bool:
        """The RECEIPT came; False where nobody waited for it."""
        pending = self._take(receipt)
        if pending is None or pending.future.done():
            return False
        pending.future.set_result(None)
        return True

    def refuse(self, pending: Pending, error: GatewayError) -> None:
        """The broker refused this one."""
        self.forget(pending)
        if not pending.future.done():
            pending.future.set_exception(error)

    def with_id(self, receipt: str) -> Pending | None:
        return self._pending.get(receipt)

    def fail_all(self, make_error: type[GatewayError], detail: str) -> None:
        """The connection is lost: every one ends now."""
        for pending in self:
            self.refuse(pending, make_error(detail))
