"""What must hold for the STOMP frame reader on any stream of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from zlib import crc32

from app.connectors.stomp.frames import FrameReader, body_of
from app.domain.link import LinkFailed, LinkFault
from tests import stomp_frames
from tests.pieces import cut, single_bytes

#: Bytes. Small, so that short inputs reach them.
MAX_FRAME = 512
MAX_HEAD = 256

Parts = tuple[str, dict[str, str], bytes]


@dataclass
class Reading:
    """The frames that came, and the words of the fault that ended the stream."""

    frames: list[Parts] = field(default_factory=list)
    fault: str | None = None


def check(data: bytes) -> None:
    """Raises AssertionError, or whatever else than a fault of the protocol the reader raises."""
    whole = read([data])
    assert read(single_bytes(data)) == whole
    assert read(cut(data, Random(crc32(data)).choices(range(10_000), k=5))) == whole
    _check_round_trip(whole.frames)
    _check_other_codec(data, whole)


def read(pieces: Iterable[bytes]) -> Reading:
    """Feed a reader; it must hold no more than its limits allow after each piece."""
    reader, found = FrameReader(max_frame=MAX_FRAME, max_head=MAX_HEAD), Reading()
    try:
        for piece in pieces:
            for frame in reader.feed(piece):  # one by one: those before a fault count
                found.frames.append((frame.cmd, dict(frame.headers), body_of(frame)))
            assert len(reader._buffer) <= MAX_FRAME + 1
    except LinkFailed as failed:
        if failed.fault is not LinkFault.PROTOCOL:
            raise
        found.fault = str(failed)
    return found


def _check_round_trip(frames: Iterable[Parts]) -> None:
    """What was read and is written by the tests' codec is read again as the same."""
    for command, headers, body in frames:
        # CONNECTED is written without escapes; other commands than these no broker sends.
        if command in {"MESSAGE", "RECEIPT", "ERROR"}:
            own = {name: value for name, value in headers.items() if name != "content-length"}
            data = stomp_frames.Frame(command, own, body).encode()
            ((again, read_headers, read_body),) = _read_unbounded(data)
            read_headers.pop("content-length", None)
            assert (again, read_headers, read_body) == (command, own, body)


def _read_unbounded(data: bytes) -> list[Parts]:
    return [(frame.cmd, dict(frame.headers), body_of(frame)) for frame in FrameReader().feed(data)]


def _check_other_codec(data: bytes, ours: Reading) -> None:
    """Where the tests' codec reads the stream too, both see the same."""
    if ours.fault is not None:
        return
    try:
        theirs = list(stomp_frames.FrameReader().feed(data))
    except ValueError:  # it is stricter: no UTF-8, no colon in a line
        return
    assert [(frame.command, frame.body) for frame in theirs] == [(command, body) for command, _, body in ours.frames]
    for frame, (command, headers, _) in zip(theirs, ours.frames, strict=True):
        # It leaves CONNECTED as it came, and knows a header without a name.
        if command not in {"CONNECT", "CONNECTED"}:
            assert {name: value for name, value in frame.headers.items() if name} == headers
