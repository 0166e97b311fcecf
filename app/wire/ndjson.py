"""Lines of a body that comes in pieces: `application/x-ndjson`, any length, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator

#: White space of JSON (RFC 8259 section 2): a line of nothing else is no line.
_BLANK = b" \t\r"


class Lines:
    """Cuts at line feeds; a carriage return before one belongs to it, blank lines vanish.

    A line of more than `cap` bytes comes out as None where it crosses the cap, and the rest of it is skipped.
    """

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._begun = bytearray()
        self._skipping = False

    @property
    def pending(self) -> int:
        """Bytes of the line that has begun."""
        return len(self._begun)

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        """The lines that end in this piece."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            yield from self._take(piece, start, end)
            yield from self._finish()
            start = end + 1
        yield from self._take(piece, start, len(piece))

    def end(self) -> Iterator[bytes | None]:
        """The last line, where no line feed ends it."""
        yield from self._finish()

    def skip(self) -> None:
        """Forget the line that has begun, and what is to come of it."""
        self._begun.clear()
        self._skipping = True

    def _take(self, piece: bytes, start: int, end: int) -> Iterator[None]:
        if self._skipping:
            return
        # One more for the carriage return, which is not the line's.
        if len(self._begun) + end - start > self._cap + 1:
            self.skip()
            yield None
            return
        self._begun += memoryview(piece)[start:end]

    def _finish(self) -> Iterator[bytes | None]:
        skipped, self._skipping = self._skipping, False
        line = bytes(self._begun)
        # A new one where the old one was large: it would keep its size.
        self._begun = bytearray()
        line = line.removesuffix(b"\r")
        if not skipped and line.strip(_BLANK):
            yield line if len(line) <= self._cap else None
