"""What is to be sent and is not encrypted yet, as the objects it was given as."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

Buffer = bytes | bytearray | memoryview

#: Bytes of plain text in one record of TLS (RFC 8446 section 5.1).
RECORD = 16 << 10
#: Bytes that are encrypted at once. The rest stays as it is until the client has taken these: what is sent to many
#: clients is one object in memory, and encrypted it would be one for each.
PIECE = 64 << 10


class Backlog:
    """Parts in their order; `size` is their length in bytes. False when there are none."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: deque[Buffer] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, parts: Iterable[Buffer]) -> None:
        """Behind what is there."""
        for part in parts:
            if part:
                self._parts.append(part)
                self.size += len(part)

    def clear(self) -> None:
        """Nobody wants it any more."""
        self._parts.clear()
        self.size = 0

    def take(self) -> Buffer:
        """The first part, or the first PIECE of it; small parts together, as many as one record holds."""
        piece = self._take()
        self.size -= len(piece)
        return piece

    def _take(self) -> Buffer:
        first = self._parts.popleft()
        if len(first) > PIECE:
            view = memoryview(first)
            self._parts.appendleft(view[PIECE:])
            return view[:PIECE]
        parts, size = [first], len(first)
        while self._parts and size + len(self._parts[0]) <= RECORD:
            parts.append(self._parts.popleft())
            size += len(parts[-1])
        return first if len(parts) == 1 else b"".join(parts)
