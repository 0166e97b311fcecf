"""Keeping a lease: it is renewed for as long as the work goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.client.connection import ClientError, printable
from app.client.taking import ANSWER_SECONDS, Taken, Taker

#: Parts of a lease after which it is renewed, and after which a renewal that failed is repeated.
RENEW_AFTER, REPEAT_AFTER = 1 / 2, 1 / 8


@contextmanager
def kept(taker: Taker, taken: Taken, notice: Callable[[str], None]) -> Iterator[None]:
    """Renew the lease in a thread while the context is open; that it was lost is told, and the work goes on."""
    keeper = _Keeper(taker, taken, notice)
    thread = threading.Thread(target=keeper.run, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        keeper.over.set()
        thread.join(ANSWER_SECONDS)  # a renewal that is on its way must not come after the ack


class _Keeper:
    def __init__(self, taker: Taker, taken: Taken, notice: Callable[[str], None]) -> None:
        self.over = threading.Event()
        self._taker = taker
        self._taken = taken
        self._notice = notice

    def run(self) -> None:
        seconds = self._taker.source.lease_seconds
        until = time.monotonic() + seconds
        pause = seconds * RENEW_AFTER
        while not self.over.wait(pause):
            began = time.monotonic()
            said = self._renew()
            if said == "done":
                until, pause = began + seconds, seconds * RENEW_AFTER
            elif said in ("expired", "unknown") or time.monotonic() > until:
                self._lost(said)
                return
            else:
                pause = seconds * REPEAT_AFTER

    def _renew(self) -> str:
        try:
            return self._taker.answer("renew", self._taken.lease)
        except ClientError as error:
            return str(error)

    def _lost(self, said: str) -> None:
        if not self.over.is_set():
            name = printable(self._taken.message_id)
            self._notice(f"message {name}: its lease could not be renewed ({printable(said)}); it comes again")
