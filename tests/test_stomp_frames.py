"""The tests' own codec, by the examples and rules of the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stomp_frames import Frame, FrameReader

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(
    frames=st.lists(
        st.builds(Frame, st.sampled_from(["SEND", "MESSAGE"]), st.dictionaries(_TEXT, _TEXT), st.binary(max_size=50)),
        max_size=4,
    ),
    cut=st.integers(1, 40),
)
def test_what_is_encoded_is_read_again_in_any_pieces(frames: list[Frame], cut: int) -> None:
    clean = [
        Frame(frame.command, {k: v for k, v in frame.headers.items() if k != "content-length"}, frame.body)
        for frame in frames
    ]
    data = b"\n".join(frame.encode() for frame in clean)
    reader = FrameReader()
    found = [frame for at in range(0, len(data), cut) for frame in reader.feed(data[at : at + cut])]
    assert [(frame.command, frame.body) for frame in found] == [(frame.command, frame.body) for frame in clean]
    for frame, original in zip(found, clean, strict=True):
        headers = {key: value for key, value in frame.headers.items() if key != "content-length" or not frame.body}
        assert headers == original.headers
    assert reader.pending == b""


@pytest.mark.parametrize(
    ("data", "frames", "beats"),
    [
        (b"\n\r\nRECEIPT\nreceipt-id:1\n\n\0\n", [Frame("RECEIPT", {"receipt-id": "1"})], 3),
        (b"RECEIPT\r\nreceipt-id:1\r\n\r\n\0", [Frame("RECEIPT", {"receipt-id": "1"})], 0),
        (b"MESSAGE\na:1\na:2\n\nbody\0", [Frame("MESSAGE", {"a": "1"}, b"body")], 0),
        (b"CONNECTED\nserver:a\\cb\n\n\0", [Frame("CONNECTED", {"server": "a\\cb"})], 0),
        (b"MESSAGE\na:b\\t\\c\n\n\0", [Frame("MESSAGE", {"a": "b\\t:"})], 0),
        (b"MESSAGE\ncontent-length:3\n\na\0b", [], 0),
    ],
)
def test_reading(data: bytes, frames: list[Frame], beats: int) -> None:
    reader = FrameReader()
    assert list(reader.feed(data)) == frames
    assert reader.beats == beats


@pytest.mark.parametrize("data", [b"MESSAGE\nx\n\n\0", b"MESSAGE\ncontent-length:1\n\nabc\0"])
def test_what_is_not_stomp_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"colon|NUL"):
        list(FrameReader().feed(data))
