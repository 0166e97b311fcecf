"""What offsets mean: where to go on, what is a repeat, what is missing."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.stomp.rabbitmq import RabbitMQ
from app.connectors.stomp.stream_cursor import Place, StreamCursor
from app.connectors.stomp.stream_frames import (
    declaring_headers,
    declaring_path,
    reading_headers,
    reading_path,
    stream_name,
)
from app.domain.stream import EMPTY_AFTER, FIRST, LAST, NEXT, StreamStart, after
from tests.unit.gateway.fakes import topic


@pytest.mark.parametrize(
    ("start", "asked"),
    [
        (FIRST, "first"),
        (LAST, "last"),
        (NEXT, "next"),
        (after(-1), "offset=0"),
        (after(0), "offset=0"),
        (after(41), "offset=41"),
        (after(10**30), f"offset={2**63 - 1}"),
        (StreamStart("time", 1767323045), "timestamp=1767323045"),
    ],
)
async def test_what_is_asked_first(start: StreamStart, asked: str) -> None:
    assert StreamCursor(start).ask() == asked


@pytest.mark.parametrize("start", [FIRST, LAST, NEXT, after(3), StreamStart("time", 5)])
async def test_after_a_reconnect_it_asks_for_what_it_had_last(start: StreamStart) -> None:
    cursor = StreamCursor(start)
    cursor.ask()
    cursor.place("9")
    assert cursor.ask() == "offset=9"
    assert cursor.place("9") == Place(9, repeated=True)
    assert cursor.place("10") == Place(10)


@pytest.mark.parametrize(
    ("last", "first", "place"),
    [
        (4, "4", Place(4, repeated=True)),
        (4, "5", Place(5)),
        (4, "6", Place(6, "expired")),
        (4, "0", Place(0, "restart")),
        (-1, "0", Place(0)),
        (-1, "1", Place(1, "expired")),
    ],
)
async def test_the_first_offset_of_a_connection_tells(last: int, first: str, place: Place) -> None:
    cursor = StreamCursor(after(last))
    cursor.ask()
    assert cursor.place(first) == place


async def test_later_offsets_may_have_holes() -> None:
    cursor = StreamCursor(FIRST)
    cursor.ask()
    assert [cursor.place(offset) for offset in ("7", "9", "30")] == [Place(7), Place(9), Place(30)]
    assert cursor.place("9") == Place(9, repeated=True)


@pytest.mark.parametrize("text", [None, "", "-1", "1.5", "٣", "x"])
async def test_what_is_no_offset(text: str | None) -> None:
    assert StreamCursor(FIRST).place(text) is None


async def test_where_there_was_nothing_all_that_came_since_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    cursor = StreamCursor(LAST)
    assert cursor.ask() == "last"
    now[0] = EMPTY_AFTER / 2
    assert cursor.ask() == "last", "the answer may still have been on its way"
    now[0] = EMPTY_AFTER * 2
    assert cursor.ask() == "offset=0"
    assert cursor.place("0") == Place(0)


async def test_a_stream_made_anew_is_begun_with_its_first_message() -> None:
    cursor = StreamCursor(after(4))
    cursor.ask()
    cursor.begin_anew()
    assert [cursor.ask(), cursor.ask()] == ["first", "first"]
    assert [cursor.place("4"), cursor.place("5")] == [Place(4, "restart"), Place(5)]
    assert cursor.ask() == "offset=5"


async def test_what_came_last_is_missed_until_something_comes() -> None:
    cursor = StreamCursor(after(4))
    cursor.ask()
    before = cursor.misses_last
    cursor.place("4")
    assert (before, cursor.misses_last) == (True, False)


@pytest.mark.parametrize("start", [FIRST, LAST, after(-1)])
async def test_who_had_nothing_misses_nothing(start: StreamStart) -> None:
    cursor = StreamCursor(start)
    cursor.ask()
    assert not cursor.misses_last


async def test_the_stream_and_its_retention() -> None:
    known = topic("alerts", replay="stream", stream="s/1", stream_max_age="7D")
    assert stream_name(known) == "s/1"
    assert declaring_path(RabbitMQ(), known) == "/queue/s%2F1"
    assert reading_path(RabbitMQ(), known) == "/amq/queue/s%2F1"
    assert declaring_headers(known) == {
        "x-queue-type": "stream",
        "durable": "true",
        "auto-delete": "false",
        "prefetch-count": "1",
        "x-stream-offset": "offset=9223372036854775807",
        "x-max-age": "7D",
    }
    assert reading_headers(StreamCursor(FIRST), 7) == {"prefetch-count": "7", "x-stream-offset": "first"}
    unnamed = topic("alerts", replay="stream")
    assert stream_name(unnamed) == "alerts-stream"
    assert "x-max-age" not in declaring_headers(unnamed)
