"""Last-Event-ID: a reader that is cut off again and again sees every event once, or is told exactly what it missed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from pathlib import Path

import pytest

from tests.brokers.fixtures import Unique
from tests.e2e.conftest import Target
from tests.e2e.http_client import Event, Http, Sse, post
from tests.e2e.live_gateway import MEMORY, running, write_config

#: Events a second and how many in all.
RATE = 1000
TOTAL = 3000
CUTS = 20
#: Events published and not read yet, at most: a reader that is further behind than the ring is long is told of a gap.
AHEAD = 500
PLAIN = {"Content-Type": "text/plain"}


async def _publisher(port: int, path: str, first: int, step: int, read: list[Event]) -> None:
    """Every `step`-th number, at its share of the rate, or as fast as a busy machine reads."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with await Http.connect(port) as http:
        for number in range(first, TOTAL, step):
            await asyncio.sleep(max(0.0, begun + number / RATE - loop.time()))
            while number - len(read) > AHEAD:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert (await http.ask("POST", f"{path}?confirm=none", b"%d" % number, PLAIN)).status == 202


async def test_sse_case_27_sse_case_62_twenty_cuts_at_random_places_make_no_hole_and_no_repeat(
    target: Target, unique: Unique
) -> None:
    path = f"/mq/mq/Topics/{unique('ticks')}"
    events: list[Event] = []
    chance = random.Random(20)
    stream = await Sse.open(target.port, f"{path}/events")
    publishing = asyncio.gather(*(_publisher(target.port, path, first, 4, events) for first in range(4)))
    for cut in range(CUTS):
        wanted = len(events) + chance.randrange(1, TOTAL // CUTS)
        while len(events) < wanted:
            events.append(await stream.next())
        last = events[-1].id
        stream.reset() if cut % 2 else stream.close()
        if cut % 3 == 0:
            await asyncio.sleep(0.05)
        stream = await Sse.open(target.port, f"{path}/events", {"Last-Event-ID": last})
    while len(events) < TOTAL:
        events.append(await stream.next())
    await publishing
    with pytest.raises(TimeoutError):
        await stream.next(0.3)
    assert {event.name for event in events} == {"message"}
    assert sorted(int(event.data) for event in events) == list(range(TOTAL))
    numbers = [int(event.id.rpartition(".")[2]) for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + TOTAL))
    # Four connections published, each in its own order, and so they are here.
    bodies = [int(event.data) for event in events]
    for first in range(4):
        assert [body for body in bodies if body % 4 == first] == list(range(first, TOTAL, 4))


async def test_an_event_that_was_only_half_received_comes_again(target: Target, unique: Unique) -> None:
    """The id counts once its event is dispatched, not when its line is read."""
    path = f"/mq/mq/Topics/{unique('half')}"
    async with await Sse.open(target.port, f"{path}/events", receive_buffer=4096) as stream:
        position = stream.last_id
        for number in range(3):
            assert (await post(target.port, path, f"{number} " + "x" * 500_000)).status == 200
        await stream.http.reader.readexactly(5000)
        stream.reset()
    async with await Sse.open(target.port, f"{path}/events", {"Last-Event-ID": position}) as stream:
        assert [event.data[0] for event in await stream.take(3)] == ["0", "1", "2"]


async def _three(target: Target, path: str) -> tuple[str, list[Event]]:
    """The position before three events, and the events."""
    async with await Sse.open(target.port, f"{path}/events") as stream:
        before = stream.last_id
        for number in range(3):
            assert (await post(target.port, path, str(number))).status == 200
        return before, await stream.take(3)


async def test_sse_case_28_sse_case_30_sse_case_31_positions_that_are_not_to_be_trusted(
    target: Target, unique: Unique
) -> None:
    name, other = unique("one"), unique("two")
    path = f"/mq/mq/Topics/{name}"
    _, events = await _three(target, path)
    _, foreign = await _three(target, f"/mq/mq/Topics/{other}")
    epoch = events[0].id.rpartition(".")[0]
    assert re.fullmatch(r"[0-9A-Za-z_-]{6,16}", epoch)
    wrong = [
        foreign[1].id,
        f"{epoch}.9999",
        f"{epoch}.{'9' * 15}",
        f"{epoch}.-1",
        f"{epoch}.1.1",
        f"{epoch}.\u0661",
        f"{epoch}.01x",
        f"x{epoch}.1",
        epoch,
        ".",
        "1",
        "null",
        "x" * 5000,
        "s.17",
    ]
    for position in wrong:
        async with await Sse.open(target.port, f"{path}/events", {"Last-Event-ID": position}) as stream:
            gap, *rest = await stream.take(4)
            assert gap.name == "gap", position
            assert gap.json == {"mq_uri": f"mq::Topics::{name}", "reason": "restart", "missed": None}
            assert gap.id == f"{epoch}.0"
            assert [event.data for event in rest] == ["0", "1", "2"]


async def test_sse_case_26_sse_case_29_header_query_and_from(target: Target, unique: Unique) -> None:
    path = f"/mq/mq/Topics/{unique('order')}"
    before, events = await _three(target, path)

    async def seen(query: str, number: int, headers: dict[str, str] | None = None) -> list[str]:
        async with await Sse.open(target.port, f"{path}/events?{query}", headers) as stream:
            if not number:
                with pytest.raises(TimeoutError):
                    await stream.next(0.1)
            return [event.data for event in await stream.take(number)]

    assert await seen(f"last_event_id={before}", 3) == ["0", "1", "2"]
    assert await seen(f"last_event_id={before}", 1, {"Last-Event-ID": events[1].id}) == ["2"]
    assert await seen(f"last_event_id={events[1].id}", 3, {"Last-Event-ID": before}) == ["0", "1", "2"]
    assert await seen(f"last_event_id={events[0].id}&from=now", 2) == ["1", "2"]
    # Present and empty says nothing; neither does white space.
    assert await seen(f"last_event_id={before}", 3, {"Last-Event-ID": ""}) == ["0", "1", "2"]
    assert await seen("last_event_id=", 1, {"Last-Event-ID": events[1].id}) == ["2"]
    assert await seen("last_event_id=", 0, {"Last-Event-ID": ""}) == []
    assert await seen("last_event_id=&from=earliest", 3, {"Last-Event-ID": " "}) == ["0", "1", "2"]
    assert await seen("from=earliest", 3) == ["0", "1", "2"]
    assert await seen("from=now", 0) == []
    assert await seen("", 0) == []


async def test_sse_case_28_a_ring_smaller_than_the_backlog_says_exactly_how_many_were_missed(target: Target) -> None:
    path = "/mq/mq/Topics/small"
    async with await Sse.open(target.port, f"{path}/events") as stream, await Http.connect(target.port) as http:
        before = stream.last_id
        for number in range(250):
            assert (await http.ask("POST", path, b"%d" % number, PLAIN)).status == 200
        seen = await stream.take(250)
        assert [event.data for event in seen] == [str(number) for number in range(250)]
        for position, missed in ((before, 150), (seen[99].id, 50), (seen[148].id, 1)):
            async with await Sse.open(target.port, f"{path}/events", {"Last-Event-ID": position}) as late:
                gap, *rest = await late.take(101)
                assert (gap.name, gap.json["reason"], gap.json["missed"]) == ("gap", "expired", missed)
                assert [event.data for event in rest] == [str(number) for number in range(150, 250)]
                # The gap's own id is the position just before what follows.
                assert gap.id == seen[149].id
        async with await Sse.open(target.port, f"{path}/events", {"Last-Event-ID": seen[149].id}) as late:
            assert (await late.next()).data == "150"


@pytest.mark.parametrize(("slow", "ends"), [("gap", False), ("latest", False), ("disconnect", True)])
async def test_a_reader_that_falls_behind_is_told_how_many_it_missed(tmp_path: Path, slow: str, ends: bool) -> None:
    """The ring of 100 goes round while the reader does not read."""
    service = {**MEMORY, "topics": {"small": {"ring_messages": 100}}}
    path, body = "/mq/mem/Topics/small", "z" * 60_000
    async with running(write_config(tmp_path, {"mem": service}, server={"write_timeout": 60})) as gateway:
        stream = await Sse.open(gateway.port, f"{path}/events?slow={slow}", receive_buffer=4096)
        async with await Http.connect(gateway.port) as http:
            for number in range(300):
                assert (await http.ask("POST", path, f"{number} {body}".encode(), PLAIN)).status == 200
        seen: list[Event] = []
        with contextlib.suppress(EOFError):
            while not seen or not seen[-1].data.startswith("299 "):
                seen.append(await stream.next())
        gaps = [event for event in seen if event.name == "gap"]
        numbers = [int(event.data.split(" ")[0]) for event in seen if event.name == "message"]
        if ends:
            assert (gaps, stream.ended) == ([], True)
            assert numbers == list(range(len(numbers)))
            assert stream.parser.retry is not None
            return
        assert {gap.json["reason"] for gap in gaps} == {"slow"}
        assert len(numbers) + sum(gap.json["missed"] for gap in gaps) == 300
        assert numbers == sorted(set(numbers))
        kept = len(numbers) - numbers.index(next(number for number in numbers if number > gaps[0].json["missed"]))
        assert kept == (100 if slow == "gap" else 1)


async def test_sse_case_34_after_a_restart_of_the_gateway_the_position_is_a_gap(tmp_path: Path) -> None:
    """Also where the new life has an event of the same number: it is another one."""
    config = write_config(tmp_path, {"mem": MEMORY})
    path = "/mq/mem/Topics/news"
    async with running(config) as gateway, await Sse.open(gateway.port, f"{path}/events") as stream:
        for body in ("old 1", "old 2"):
            assert (await post(gateway.port, path, body)).status == 200
        old = (await stream.take(2))[0].id
    async with running(config) as gateway, await Sse.open(gateway.port, f"{path}/events") as keeps:
        for body in ("new 1", "new 2", "new 3"):
            assert (await post(gateway.port, path, body)).status == 200
        new = await keeps.take(3)
        assert [event.id.rpartition(".")[2] for event in new] == ["1", "2", "3"]
        assert new[0].id != old
        assert new[0].id.rpartition(".")[2] == old.rpartition(".")[2]
        async with await Sse.open(gateway.port, f"{path}/events", {"Last-Event-ID": old}) as stream:
            gap, *rest = await stream.take(4)
            assert (gap.name, gap.json["reason"], gap.json["missed"]) == ("gap", "restart", None)
            assert gap.id.rpartition(".")[0] == new[0].id.rpartition(".")[0] != old.rpartition(".")[0]
            assert [event.data for event in rest] == ["new 1", "new 2", "new 3"]
