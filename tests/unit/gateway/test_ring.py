"""The ring by example; test_ring_model.py has it against a plain list."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from app.gateway.ring import Resume, Ring
from tests.unit.gateway.fakes import message, topic
from tests.unit.wire.event_source import Event, EventSource

URI = topic().uri
ALL = 1 << 30


def _ring(*bodies: bytes | None, events: int = 100, size: int = ALL) -> Ring:
    """A ring with these messages; None is a lost link."""
    ring = Ring(URI, events, size)
    for body in bodies:
        _append(ring, body)
    return ring


def _append(ring: Ring, body: bytes | None) -> None:
    if body is None:
        ring.append_gap()
    else:
        ring.append(message(body))


def _events(ring: Ring, cursor: int, form: str = "data") -> Sequence[Event]:
    return EventSource.read(ring.read(cursor, form, ALL).data).events


def test_an_empty_ring_has_nothing_and_a_place_to_start() -> None:
    ring = _ring()
    assert (ring.last, ring.oldest, ring.buffered) == (0, 1, 0)
    piece = ring.read(0, "data", ALL)
    assert (piece.data, piece.cursor, piece.events, piece.gaps) == (b"", 0, 0, ())
    assert ring.resume(ring.position(0)) == Resume(0)


def test_every_event_carries_the_position_behind_it() -> None:
    ring = _ring(b"a", b"b")
    assert _events(ring, 0) == [Event("a", "message", ring.position(1)), Event("b", "message", ring.position(2))]
    assert _events(ring, 1) == [Event("b", "message", ring.position(2))]


def test_positions_look_as_the_contract_says_and_rings_differ() -> None:
    positions = {_ring().position(7) for _ in range(50)}
    assert len(positions) == 50
    for position in positions:
        assert re.fullmatch(r"[0-9A-Za-z_-]{6,16}\.7", position)


def test_both_formats_are_kept_apart() -> None:
    ring = _ring(b"a")
    assert _events(ring, 0, "data")[0].data == "a"
    assert '"body":"a"' in _events(ring, 0, "envelope")[0].data


def test_readers_at_the_same_place_share_one_piece_of_memory() -> None:
    ring = _ring(b"a", b"b")
    assert ring.read(0, "data", ALL) is ring.read(0, "data", ALL)
    before = ring.read(0, "data", ALL)
    ring.append(message(b"c"))
    assert ring.read(0, "data", ALL).data == before.data + ring.read(2, "data", ALL).data


def test_a_piece_is_bounded_and_has_at_least_one_event() -> None:
    ring = _ring(b"a" * 100, b"b" * 100, b"c" * 100)
    one = ring.read(0, "data", 1)
    assert (one.cursor, one.events) == (1, 1)
    two = ring.read(0, "data", 2 * len(one.data))
    assert (two.cursor, two.events) == (2, 2)
    assert ring.read(0, "data", 2 * len(one.data) - 1).cursor == 1


# What cannot be continued exactly.


def test_a_lost_link_is_an_event_in_its_place() -> None:
    ring = _ring(b"a", None, b"b")
    piece = ring.read(0, "data", ALL)
    assert (piece.events, piece.gaps, piece.cursor) == (2, ("link_lost",), 3)
    events = _events(ring, 0)
    assert [event.type for event in events] == ["message", "gap", "message"]
    assert events[1].data == '{"mq_uri":"svc::Topics::status","reason":"link_lost","missed":null}'
    assert events[1].last_event_id == ring.position(2)
    assert [event.type for event in _events(ring, 1)] == ["gap", "message"]


@pytest.mark.parametrize(
    ("cursor", "resume"),
    [
        (0, Resume(3, "expired", 3)),
        (2, Resume(3, "expired", 1)),
        (3, Resume(3)),
        (4, Resume(4)),
        (5, Resume(5)),
        (6, Resume(3, "restart")),
    ],
)
def test_where_a_reader_goes_on(cursor: int, resume: Resume) -> None:
    ring = _ring(b"1", b"2", b"3", b"4", b"5", events=2)
    assert ring.resume(ring.position(cursor)) == resume


def test_how_many_were_missed_is_not_said_where_a_lost_link_lies_between() -> None:
    ring = _ring(b"1", None, b"3", b"4", b"5", events=2)
    assert ring.resume(ring.position(1)) == Resume(3, "expired", None)
    assert ring.resume(ring.position(2)) == Resume(3, "expired", 1)
    assert ring.missed(1, 3) is None
    assert ring.missed(2, 3) == 1
    assert ring.missed(2, 4) == 2


def test_nor_where_it_lies_in_what_is_skipped_though_kept() -> None:
    ring = _ring(b"1", b"2", None, b"4", b"5", events=3)
    assert ring.missed(0, 2) == 2
    assert ring.missed(0, 3) is None
    assert ring.missed(0, 4) is None


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "x",
        "1",
        ".1",
        "{epoch}",
        "{epoch}.",
        "{epoch}.-1",
        "{epoch}.1.0",
        "{epoch}.1 ",
        " {epoch}.1",
        "{epoch}.1\n",
        "{epoch}.0x1",
        "{epoch}.1e0",
        "{epoch}.\u0661",
        "{epoch}.\u00b9",
        "{epoch}.9999999999999999",
        "{epoch}.1180591620717411303424",
        "AAAAAAAA.1",
        "s.1",
        "offset=1",
        "a" * 10_000,
        "\r\nid: 1",
        "é.1",
    ],
)
def test_an_id_is_ours_to_the_letter_or_it_is_a_restart(odd: str) -> None:
    ring = _ring(b"1", b"2", b"3", events=2)
    assert ring.resume(odd.format(epoch=ring.epoch)) == Resume(1, "restart")


# Bounds.


def test_the_oldest_give_way_to_count_and_to_bytes() -> None:
    assert _ring(*[b"x"] * 10, events=3).oldest == 8
    ring = _ring(*[b"x" * 1000] * 10, size=5000)
    assert ring.buffered <= 5000
    assert ring.last - ring.oldest + 1 == 3


def test_headers_weigh_too() -> None:
    ring = Ring(URI, 100, 5000)
    for _ in range(10):
        ring.append(message(b"", headers={"a": "v" * 1000}))
    assert ring.last - ring.oldest + 1 == 3


def test_the_newest_stays_whatever_its_size() -> None:
    ring = _ring(b"a", b"x" * 10_000, size=100)
    assert (ring.oldest, ring.last) == (2, 2)
    assert _events(ring, 1)[0].data == "x" * 10_000


def test_what_is_encoded_weighs_and_gives_way_with_the_next() -> None:
    ring = _ring(*[b"\n" * 500] * 4, size=8000)
    unread = ring.buffered
    ring.read(0, "data", ALL)
    assert ring.buffered > unread + 4 * 3000
    ring.append(message(b"x"))
    assert ring.buffered <= 8000
    assert ring.oldest > 1


def test_readers_at_many_places_do_not_multiply_the_ring() -> None:
    ring = _ring(*[b"x" * 1000] * 1000, events=1000)
    for cursor in range(1000):
        ring.read(cursor, "data", 65_536)
    entries = 1000 * (1000 + 512 + len(b"id: AAAAAAAA.1000\ndata: \n\n") + 1000)
    assert ring.buffered <= entries + (1 << 20)


def test_bytes_are_counted_back_to_nothing() -> None:
    ring = _ring(*[b"x" * 100, None] * 50, events=10)
    ring.read(90, "data", ALL)
    ring.read(90, "envelope", ALL)
    assert ring.give_way(ALL) > 0
    assert ring.oldest == ring.last
    fresh = _ring(b"y")
    ring.append(message(b"y"))
    ring.give_way(ALL)
    assert ring.buffered == fresh.buffered


def test_giving_way_frees_what_was_asked_and_not_much_more() -> None:
    ring = _ring(*[b"x" * 1000] * 10)
    before = ring.buffered
    freed = ring.give_way(2000)
    assert 2000 <= freed < 2000 + 1512
    assert before - ring.buffered == freed
    assert ring.resume(ring.position(0)) == Resume(2, "expired", 2)
    assert ring.give_way(0) == 0


@pytest.mark.parametrize(("seconds", "cursor"), [(0, 0), (10, 0), (11, 1), (12, 2), (13, 4), (99, 4)])
def test_a_beginning_at_a_time(seconds: int, cursor: int) -> None:
    ring = Ring(topic().uri, 10, 1 << 20)
    assert ring.since(seconds) == 0
    for at in (10.5, 11.5):
        ring.append(message(received_at=at))
    ring.append_gap()
    ring.append(message(received_at=12.5))
    assert ring.since(seconds) == cursor
