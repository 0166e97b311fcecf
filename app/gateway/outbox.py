"""What clients have not taken yet: batches that streams have written and the kernel has no room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Writer:
    data: bytes
    cut_off: Callable[[], None]


class Outbox:
    """Counts each batch once, however many readers it waits for: the bytes are shared.

    Beyond `limit` bytes whoever has waited longest is cut off, but never the latest: a batch larger than the limit
    must reach somebody. `grew` is told of every change, in bytes.
    """

    def __init__(self, limit: int, grew: Callable[[int], None]) -> None:
        self.buffered = 0
        self._limit = limit
        self._grew = grew
        self._holders: dict[int, int] = {}
        self._writers: dict[_Writer, None] = {}

    @contextmanager
    def holding(self, data: bytes, cut_off: Callable[[], None]) -> Iterator[None]:
        """For as long as a client has not taken all of `data`; `cut_off` ends its stream at once."""
        writer = _Writer(data, cut_off)
        self._add(writer)
        try:
            yield
        finally:
            self._remove(writer)

    def _add(self, writer: _Writer) -> None:
        holders = self._holders.get(id(writer.data), 0)
        self._holders[id(writer.data)] = holders + 1
        if not holders:
            self.buffered += len(writer.data)
            self._grew(len(writer.data))
        self._writers[writer] = None
        while self.buffered > self._limit and len(self._writers) > 1:
            oldest = next(iter(self._writers))
            self._remove(oldest)
            oldest.cut_off()

    def _remove(self, writer: _Writer) -> None:
        if writer not in self._writers:  # cut off
            return
        del self._writers[writer]
        self._holders[id(writer.data)] -= 1
        if not self._holders[id(writer.data)]:
            del self._holders[id(writer.data)]
            self.buffered -= len(writer.data)
            self._grew(-len(writer.data))
