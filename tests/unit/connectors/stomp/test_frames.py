"""The splitting of the stream into frames, and the encoding."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.stomp.frames import HEARTBEAT, MAX_HEADER_BLOCK, Frame, FrameReader, body_of, encode
from app.domain.link import LinkFailed, LinkFault
from tests import stomp_frames
from tests.pieces import PLACES, cut, single_bytes

Parts = tuple[str, dict[str, str], bytes]

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters=":\\"), min_size=1, max_size=8
)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["a:b", "a\\nb", "\r", "\n", "\\", ":", " a ", "content-length:1"]
)
BODIES = st.binary(max_size=40) | st.sampled_from(
    [b"", b"\0", b"\n\n", b"\0\n\0", b"\r\n\r\n", b"SEND\n\n\0", b"MESSAGE\ncontent-length:1\n\nx\0"]
)
FRAMES: st.SearchStrategy[Parts] = st.tuples(
    st.sampled_from(["MESSAGE", "RECEIPT", "ERROR"]),
    st.dictionaries(NAMES.filter(lambda name: name != "content-length"), VALUES, max_size=4),
    BODIES,
)


def _wire(parts: Parts) -> bytes:
    """What a broker sends: encoded by the codec of the tests, not by the one under test."""
    return stomp_frames.Frame(*parts).encode()


def _parts(frame: Frame) -> Parts:
    headers = {name: value for name, value in frame.headers.items() if name != "content-length"}
    return frame.cmd, headers, body_of(frame)


def _read(chunks: Iterable[bytes], reader: FrameReader | None = None) -> list[Parts]:
    reader = reader or FrameReader()
    return [_parts(frame) for chunk in chunks for frame in reader.feed(chunk)]


@given(
    st.lists(st.tuples(st.sampled_from([b"", b"\n", b"\r\n", b"\n\n\n"]), FRAMES), max_size=5),
    PLACES,
)
def test_frames_arrive_whole_however_the_stream_is_cut(frames: list[tuple[bytes, Parts]], places: list[int]) -> None:
    data = b"".join(beat + _wire(parts) for beat, parts in frames)
    assert _read(cut(data, places)) == [parts for _, parts in frames]


@given(st.lists(FRAMES, min_size=1, max_size=3))
def test_one_byte_at_a_time(frames: list[Parts]) -> None:
    data = b"\n".join(map(_wire, frames))
    assert _read(single_bytes(data)) == frames


@given(FRAMES)
def test_the_rest_of_a_chunk_is_kept_for_the_next(parts: Parts) -> None:
    data = _wire(parts)
    reader = FrameReader()
    assert _read([data + data[:-1]], reader) == [parts]
    assert _read([data[-1:]], reader) == [parts]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("blank", [b"\n", b"\r\n"])
def test_lines_end_with_lf_or_crlf_also_mixed(end: bytes, blank: bytes) -> None:
    for lines in ([b"MESSAGE", b"a:b", b"content-length:4"], [b"MESSAGE", b"content-length:4", b"a:b"]):
        data = end.join(lines) + end + blank + b"\n\n\0x\0"
        assert _read([data]) == [("MESSAGE", {"a": "b"}, b"\n\n\0x")]


def test_heart_beats_alone_are_nothing() -> None:
    reader = FrameReader()
    assert _read([HEARTBEAT, b"\r\n", HEARTBEAT * 1000], reader) == []
    assert _read([b"RECEIPT\nreceipt-id:r1\n\n\0"], reader) == [("RECEIPT", {"receipt-id": "r1"}, b"")]


def test_without_content_length_the_body_ends_at_the_first_nul() -> None:
    assert _read([b"MESSAGE\n\nabc", b"def", b"\0MESSAGE\n\n\0"]) == [("MESSAGE", {}, b"abcdef"), ("MESSAGE", {}, b"")]


def test_of_a_repeated_header_the_first_counts() -> None:
    assert _read([b"MESSAGE\na:1\ncontent-length:2\na:2\ncontent-length:1\n\n\0x\0"]) == [
        ("MESSAGE", {"a": "1"}, b"\0x")
    ]


def test_headers_are_unescaped_and_broken_utf8_is_marked() -> None:
    assert _read([b"MESSAGE\na\\cb:\\n\\r\\c\\\\\nc:\xff\n\n\0"]) == [
        ("MESSAGE", {"a:b": "\n\r:\\", "c": "\ufffd"}, b"")
    ]


def test_a_body_longer_than_announced_is_not_stomp() -> None:
    with pytest.raises(LinkFailed, match="longer than its content-length") as caught:
        _read([b"MESSAGE\ncontent-length:1\n\nxy\0"])
    assert caught.value.fault is LinkFault.PROTOCOL


def test_frames_before_the_broken_one_are_delivered() -> None:
    frames = FrameReader().feed(b"RECEIPT\n\n\0MESSAGE\ncontent-length:0\n\nx\0")
    assert next(frames).cmd == "RECEIPT"
    with pytest.raises(LinkFailed):
        next(frames)


@pytest.mark.parametrize("announced", [b"MESSAGE\ncontent-length:101\n\n", b"MESSAGE\n\n" + b"x" * 100])
def test_a_frame_above_the_limit_ends_the_connection_before_it_is_held(announced: bytes) -> None:
    with pytest.raises(LinkFailed, match="above 100 bytes") as caught:
        _read([announced], FrameReader(max_frame=100))
    assert caught.value.fault is LinkFault.PROTOCOL


@pytest.mark.parametrize("late", [b"MESSAGE\n\n" + b"x" * 92 + b"\0", b"MESSAGE\na:" + b"x" * 92 + b"\n\n\0"])
def test_the_limits_do_not_depend_on_how_much_comes_at_once(late: bytes) -> None:
    for pieces in ([late], [late[:50], late[50:]], single_bytes(late)):
        with pytest.raises(LinkFailed, match="above") as caught:
            _read(pieces, FrameReader(max_frame=100, max_head=100))
        assert caught.value.fault is LinkFault.PROTOCOL


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b" 1", b"1 ", b"0x1", b"1_0", b"1.0", b"\xd9\xa1", b"9" * 13])
def test_a_content_length_that_is_no_number_is_not_stomp(length: bytes) -> None:
    with pytest.raises(LinkFailed, match="content-length") as caught:
        _read([b"MESSAGE\ncontent-length:" + length + b"\n\nx\0"])
    assert caught.value.fault is LinkFault.PROTOCOL


def test_a_frame_at_the_limit_passes() -> None:
    head = b"MESSAGE\ncontent-length:74\n\n"
    assert _read([head, b"x" * 74 + b"\0"], FrameReader(max_frame=len(head) + 74)) == [("MESSAGE", {}, b"x" * 74)]


def test_headers_without_end_are_given_up() -> None:
    reader = FrameReader()
    assert _read([b"MESSAGE\n" + b"a" * (MAX_HEADER_BLOCK - 8)], reader) == []
    with pytest.raises(LinkFailed, match="header block above 1048576"):
        _read([b"a"], reader)


@pytest.mark.parametrize("head", [b"MESSAGE\ncontent-length:33554432\n\n", b"MESSAGE\n\n"])
def test_a_large_body_in_small_pieces_takes_linear_time(head: bytes) -> None:
    piece = b"x" * 4096
    began = time.process_time()
    ((_, _, body),) = _read([head, *[piece] * 8192, b"\0"])
    assert len(body) == 32 << 20
    # Looking at everything again for each of the 8192 pieces would read 128 GiB.
    assert time.process_time() - began < 3


@given(FRAMES)
def test_what_we_encode_another_codec_reads(parts: Parts) -> None:
    command, headers, body = parts
    escaped = {name: stomp_frames._escape(value) for name, value in headers.items()}
    if body:
        escaped["content-length"] = str(len(body))
    (frame,) = stomp_frames.FrameReader().feed(encode(Frame(command, escaped, body)))
    assert (frame.command, frame.body) == (command, body)
    assert {name: value for name, value in frame.headers.items() if name != "content-length"} == headers


def test_a_frame_without_body_has_an_empty_one() -> None:
    assert body_of(Frame("RECEIPT")) == b""
    assert body_of(Frame("MESSAGE", body=bytearray(b"x"))) == b"x"
