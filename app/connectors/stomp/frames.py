"""STOMP frames: bytes to frames and back. The frame codec is stomp.py's; the splitting of the stream is ours.

Source: STOMP 1.2, sections "STOMP Frames", "Value Encoding" and "Augmented BNF".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stomp import utils
from stomp.utils import Frame

from app.domain.link import LinkFailed, LinkFault

__all__ = ["HEARTBEAT", "Frame", "FrameReader", "body_of", "encode"]

#: What a heart-beat looks like on the wire.
HEARTBEAT = b"\n"
MAX_HEADER_BLOCK = 1 << 20
MAX_FRAME = 128 << 20

_HEADER_END = re.compile(rb"\n\r?\n")
_CONTENT_LENGTH = re.compile(rb"\ncontent-length:([^\n]*?)\r?\n")
_LENGTH = re.compile(rb"[0-9]{1,12}")


def encode(frame: Frame) -> bytes:
    """A frame as it goes to the wire; header values are already escaped."""
    return b"".join(utils.convert_frame(frame))


def body_of(frame: Frame) -> bytes:
    """The body of a received frame."""
    body = frame.body
    return bytes(body) if body else b""


class FrameReader:
    """Splits what arrives into frames. Heart-beats vanish; a frame may arrive in any number of pieces."""

    def __init__(self, max_frame: int = MAX_FRAME, max_head: int = MAX_HEADER_BLOCK) -> None:
        self._buffer = bytearray()
        # Both keep large bodies linear: bytes below which looking again is useless, and bytes without a NUL.
        self._needed = 1
        self._searched = 0
        self._max_frame = max_frame
        self._max_head = max_head

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete; raises LinkFailed(PROTOCOL) on what is not STOMP."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= self._needed:
            start = self._skip_line_ends(start)
            found = self._find_frame(start)
            if found is None:
                break
            body, end = found
            frame = utils.parse_frame(_head(bytes(self._buffer[start:body])))
            frame.body = bytes(self._buffer[body:end])
            start, self._needed, self._searched = end + 1, 1, 0
            yield frame
        del self._buffer[:start]

    def _skip_line_ends(self, start: int) -> int:
        while start < len(self._buffer) and self._buffer[start] in b"\r\n":
            start += 1
        return start

    def _find_frame(self, start: int) -> tuple[int, int] | None:
        """Where the body of the frame at `start` begins, and its NUL; None while it is incomplete."""
        head = _HEADER_END.search(self._buffer, start)
        # Checked as the whole head or as what there is of it: what passes must not depend on how it was cut.
        if (len(self._buffer) if head is None else head.end()) - start > self._max_head:
            raise LinkFailed(LinkFault.PROTOCOL, f"the broker sent a header block above {self._max_head} bytes")
        if head is None:
            return None
        length = _CONTENT_LENGTH.search(self._buffer, start, head.end())
        if length is None:
            end = self._find_nul(start, head.end())
        else:
            end = self._counted_end(start, head.end() + _number(length.group(1)))
        return None if end is None else (head.end(), end)

    def _find_nul(self, start: int, body: int) -> int | None:
        end = self._buffer.find(b"\0", max(body, start + self._searched))
        self._searched = (len(self._buffer) if end < 0 else end) - start
        self._check_size(self._searched)
        return None if end < 0 else end

    def _counted_end(self, start: int, end: int) -> int | None:
        self._check_size(end - start)
        if len(self._buffer) <= end:
            self._needed = end - start + 1
            return None
        if self._buffer[end] != 0:
            raise LinkFailed(LinkFault.PROTOCOL, "the broker's frame is longer than its content-length")
        return end

    def _check_size(self, size: int) -> None:
        if size > self._max_frame:
            raise LinkFailed(LinkFault.PROTOCOL, f"the broker sent a frame above {self._max_frame} bytes")


def _head(head: bytes) -> bytes:
    """stomp.py takes a CR before a blank line that is an LF alone for a part of the last value."""
    return head[:-3] + b"\n\n" if head.endswith(b"\r\n\n") else head


def _number(length: bytes) -> int:
    """Read as absent, a length that is none would put the end of the frame at any NUL of the body."""
    if not _LENGTH.fullmatch(length):
        raise LinkFailed(LinkFault.PROTOCOL, "the broker sent a content-length that is no number of bytes")
    return int(length)
