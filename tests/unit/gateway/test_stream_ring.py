"""Rings whose positions are offsets."""

from __future__ import annotations

import pytest

from app.connectors.base import Delivery
from app.domain.stream import Missing
from app.gateway.stream_ring import POSITION, ReplayRing, StreamRing
from tests.unit.gateway.fakes import message, topic

URI = topic().uri


def _delivery(offset: int | None, missing: Missing | None = None) -> Delivery:
    return Delivery(message(b"%d" % (offset or 0)), str(offset), 1, offset, missing)


def _filled(*offsets: int, events: int = 10, base: int | None = None) -> StreamRing:
    ring = StreamRing(URI, events, 1 << 20, base)
    for offset in offsets:
        ring.add(_delivery(offset))
    return ring


def test_positions_are_offsets() -> None:
    ring = _filled(5, 6, 9)
    assert [ring.position(cursor) for cursor in range(4)] == ["s.4", "s.5", "s.6", "s.9"]
    assert (ring.base, ring.end) == (4, 9)
    assert _filled().position(0) == "s.-1"


@pytest.mark.parametrize(
    ("offset", "cursor"), [(3, None), (4, 0), (5, 1), (6, 2), (7, 2), (8, 2), (9, 3), (99, 3), (-1, None)]
)
def test_the_cursor_behind_an_offset(offset: int, cursor: int | None) -> None:
    assert _filled(5, 6, 9).cursor_after(offset) == cursor


def test_what_is_evicted_is_behind_the_base() -> None:
    ring = _filled(5, 6, 9, 10, events=2)
    assert (ring.base, ring.oldest) == (6, 3)
    assert ring.cursor_after(5) is None
    assert ring.cursor_after(6) == 2
    assert ring.position(2) == "s.6"


def test_nothing_is_known_of_an_empty_ring() -> None:
    assert _filled().cursor_after(-1) is None
    assert _filled(base=7).cursor_after(7) == 0


def test_a_gap_stands_before_its_message() -> None:
    ring = _filled(base=2)
    ring.add(_delivery(9, "expired"))
    piece = ring.read(0, "data", 1 << 20)
    assert piece.gaps == ("expired",)
    assert piece.events == 1
    assert b'id: s.8\nevent: gap\ndata: {"mq_uri":"svc::Topics::status","reason":"expired","missed":null}' in piece.data
    assert b"id: s.9\ndata: 9" in piece.data
    assert ring.cursor_after(7) == 0
    assert ring.cursor_after(8) == 1, "who has seen all before it misses nothing"


def test_a_delivery_without_an_offset_is_a_defect() -> None:
    with pytest.raises(ValueError, match="offset"):
        _filled().add(_delivery(None))


def test_what_nobody_took_is_kept() -> None:
    ring = ReplayRing(URI, 2, 1 << 20, -1)
    for offset in range(5):
        ring.add(_delivery(offset))
    assert ring.oldest == 1
    ring.taken = 4
    ring.add(_delivery(5))
    assert ring.oldest == 5
    assert ring.give_way(1 << 20) == 0


@pytest.mark.parametrize("text", ["s.0", "s.-1", "s.10", "s.999999999999999999"])
def test_positions(text: str) -> None:
    assert POSITION.fullmatch(text)


@pytest.mark.parametrize("text", ["", "s.", "s.01", "s.-0", "s.-2", "s.1 ", "s.1\n", "S.1", "s.٣", "s." + "9" * 19])
def test_what_is_no_position(text: str) -> None:
    assert POSITION.fullmatch(text) is None
