"""What waits to be encrypted."""

from __future__ import annotations

from app.http1.backlog import PIECE, RECORD, Backlog


def test_small_parts_share_a_record_and_large_ones_are_cut_without_a_copy() -> None:
    backlog = Backlog()
    large = b"x" * (2 * PIECE + 1)
    backlog.add([b"a", b"", b"b", large, b"c"])
    assert (bool(backlog), backlog.size) == (True, len(large) + 3)
    assert backlog.take() == b"ab"
    pieces = [backlog.take(), backlog.take()]
    assert [isinstance(piece, memoryview) and piece.obj is large for piece in pieces] == [True, True]
    assert [len(piece) for piece in pieces] == [PIECE, PIECE]
    assert (backlog.take(), backlog.size, bool(backlog)) == (b"xc", 0, False)


def test_a_part_of_a_record_stays_as_it_is() -> None:
    backlog, part = Backlog(), b"x" * RECORD
    backlog.add([part, b"y"])
    assert backlog.take() is part
    backlog.clear()
    assert (bool(backlog), backlog.size) == (False, 0)
