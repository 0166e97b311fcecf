"""Lines of any number in constant memory, wherever the pieces are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.wire.ndjson import Lines

CAP = 8


def _all(lines: Lines, *pieces: bytes) -> list[bytes | None]:
    found = [line for piece in pieces for line in lines.feed(piece)]
    return found + list(lines.end())


def test_line_feeds_end_lines_and_blank_ones_vanish() -> None:
    assert _all(Lines(CAP), b'1\n\n \t\n{"a":1}\r\n', b"\r\n", b"2") == [b"1", b'{"a":1}', b"2"]


def test_a_line_of_the_cap_is_taken_and_a_longer_one_is_not() -> None:
    assert _all(Lines(CAP), b"12345678\n12345678\r\n123456789\n9\n") == [b"12345678", b"12345678", None, b"9"]
    assert _all(Lines(CAP), b"12345678") == [b"12345678"]
    assert _all(Lines(CAP), b"123456789") == [None]


def test_of_a_long_line_nothing_is_kept() -> None:
    lines = Lines(CAP)
    assert list(lines.feed(b"x" * 100)) == [None]
    for _ in range(10):
        assert list(lines.feed(b"x" * 100)) == []
        assert lines.pending == 0
    assert list(lines.feed(b"\nok\n")) == [b"ok"]


def test_a_line_can_be_given_up() -> None:
    lines = Lines(CAP)
    assert list(lines.feed(b"abc")) == []
    assert lines.pending == 3
    lines.skip()
    assert _all(lines, b"def\nghi") == [b"ghi"]


@given(
    st.lists(st.sampled_from([b"", b" ", b"1", b"12345678", b"123456789", b"x" * 30]), max_size=12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.integers(1, 20), max_size=40),
    st.booleans(),
)
def test_it_does_not_matter_where_pieces_are_cut(parts: list[bytes], eol: bytes, cuts: list[int], ended: bool) -> None:
    body = eol.join(parts) + (eol if ended else b"")
    expected = [part if len(part) <= CAP else None for part in parts if part.strip()]
    pieces = []
    for cut in cuts:
        pieces.append(body[:cut])
        body = body[cut:]
    assert _all(Lines(CAP), *pieces, body) == expected
