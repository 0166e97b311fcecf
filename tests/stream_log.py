"""What a RabbitMQ stream does with offsets, as observed on 3.10.8: inclusive, and clamped without a word."""

from __future__ import annotations


class StreamLog:
    """The messages by offset. Offsets rise; `skip` leaves a hole in them, `expire` is retention."""

    def __init__(self) -> None:
        self.messages: dict[int, bytes] = {}
        self.next = 0
        self._times: dict[int, int] = {}

    def publish(self, body: bytes, time: int = 0) -> int:
        offset, self.next = self.next, self.next + 1
        self.messages[offset], self._times[offset] = body, time
        return offset

    def skip(self, count: int = 1) -> None:
        self.next += count

    def expire(self, before: int) -> None:
        """Everything before this offset goes; the newest message always stays."""
        for offset in [offset for offset in self.messages if offset < min(before, max(self.messages))]:
            del self.messages[offset]

    @property
    def first(self) -> int:
        return min(self.messages, default=self.next)

    def begin(self, spec: str) -> int:
        """The offset at which a reader with this `x-stream-offset` begins."""
        kind, _, value = spec.partition("=")
        if kind == "offset":
            return max(int(value), self.first)
        if kind == "timestamp":
            return min((offset for offset in self.messages if self._times[offset] >= int(value)), default=self.next)
        return {"first": self.first, "last": max(self.messages, default=self.next), "next": self.next}[kind]

    def at(self, offset: int) -> tuple[int, bytes] | None:
        """The first message at or behind an offset."""
        found = min((known for known in self.messages if known >= offset), default=None)
        return None if found is None else (found, self.messages[found])
