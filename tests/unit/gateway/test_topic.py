"""Fan-out of a Topic: one subscription for all readers, opened by the first, dropped a while after the last."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.config.settings import TopicSettings
from app.domain.errors import BrokerRejected, BrokerUnavailable, Draining
from app.gateway.stream import Counts, Slow, StreamRequest
from app.gateway.topic import Topic
from app.gateway.topic_reader import TopicReader
from tests.unit.gateway.fakes import FakeConnector, Timers, topic, turns
from tests.unit.wire.event_source import Event, EventSource

LATER = StreamRequest()


class Bench:
    """A Topic on a connector that does as it is told."""

    def __init__(self, **settings: Any) -> None:
        self.connector = FakeConnector()
        self.counts = Counts()
        self.gaps: list[str] = []
        self.grown: list[int] = []
        destination = topic(**settings)
        assert isinstance(destination.settings, TopicSettings)
        self.topic = Topic(
            destination,
            destination.settings,
            self.connector,
            counts=lambda: self.counts,
            on_gap=self.gaps.append,
            grew=self.grown.append,
        )

    async def open(self, **request: Any) -> TopicReader:
        return await self.topic.open(StreamRequest(**request), 5)


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", timers.call_later, raising=False)
    return timers


def _events(data: bytes) -> list[Event]:
    return EventSource.read(data).events


def _bodies(reader: TopicReader) -> list[str]:
    return [event.data for event in _events(reader.take().data)]


# Opening.


async def test_readers_share_one_subscription() -> None:
    bench = Bench(prefetch=7)
    one, two = await bench.open(), await bench.open()
    assert len(bench.connector.asked) == 1
    asked = bench.connector.asked[0]
    assert (asked["acknowledge"], asked["prefetch"]) == (False, 7)
    bench.connector.latest.deliver(b"a", b"b")
    assert _bodies(one) == _bodies(two) == ["a", "b"]
    assert bench.topic.buffered > 0


async def test_readers_that_come_together_wait_for_the_same_subscription() -> None:
    bench = Bench()
    bench.connector.open.clear()
    tasks = [asyncio.ensure_future(bench.open()) for _ in range(3)]
    await turns()
    assert not any(task.done() for task in tasks)
    bench.connector.open.set()
    readers = await asyncio.gather(*tasks)
    assert len(bench.connector.asked) == 1
    assert bench.topic.readers == set(readers)


async def test_a_refusal_reaches_the_reader_and_the_next_one_asks_again() -> None:
    bench = Bench()
    bench.connector.refusals.append(Draining("no"))
    with pytest.raises(Draining):
        await bench.open()
    assert bench.topic.is_idle
    await bench.open()
    assert len(bench.connector.asked) == 2


async def test_a_broker_that_does_not_answer_is_unavailable_and_not_a_defect() -> None:
    bench = Bench()
    bench.connector.open.clear()
    with pytest.raises(BrokerUnavailable, match="not subscribed in time"):
        await bench.topic.open(LATER, 0)
    assert bench.topic.is_idle


async def test_a_reader_that_gives_up_leaves_the_others_waiting() -> None:
    bench = Bench()
    bench.connector.open.clear()
    first, second = asyncio.ensure_future(bench.open()), asyncio.ensure_future(bench.open())
    await turns()
    first.cancel()
    await turns()
    assert not bench.topic.is_idle
    bench.connector.open.set()
    assert await second in bench.topic.readers
    assert first.cancelled()


async def test_a_subscription_that_ends_while_it_is_taken_is_a_refusal() -> None:
    bench = Bench()
    bench.connector.open.clear()
    task = asyncio.ensure_future(bench.open())
    await turns()
    bench.topic.on_cancelled("deleted")
    bench.connector.open.set()
    with pytest.raises(BrokerRejected, match="deleted"):
        await task
    assert bench.topic.is_idle
    await bench.open()
    assert len(bench.connector.asked) == 2


# Where a reader starts.


async def test_now_is_behind_what_was() -> None:
    bench = Bench()
    first = await bench.open()
    bench.connector.latest.deliver(b"old")
    late, early = await bench.open(start="now"), await bench.open(start="earliest")
    bench.connector.latest.deliver(b"new")
    assert _bodies(late) == ["new"]
    assert _bodies(early) == _bodies(first) == ["old", "new"]
    assert bench.gaps == []


async def test_the_first_bytes_say_where_the_reader_is() -> None:
    bench = Bench()
    reader = await bench.open()
    bench.connector.latest.deliver(b"a")
    late = await bench.open()
    source = EventSource.read(late.opening)
    assert source.events == []
    position = source.last_event_id
    bench.connector.latest.deliver(b"b")
    again = await bench.open(last_event_id=position)
    assert _bodies(again) == ["b"]
    assert _bodies(reader) == ["a", "b"]


async def test_a_position_resumes_behind_it() -> None:
    bench = Bench()
    reader = await bench.open()
    bench.connector.latest.deliver(b"a", b"b", b"c")
    first = _events(reader.take().data)[0]
    again = await bench.open(last_event_id=first.last_event_id)
    assert EventSource.read(again.opening).events == []
    assert _bodies(again) == ["b", "c"]


async def test_an_unknown_position_is_a_gap_and_the_oldest_kept() -> None:
    bench = Bench(ring_messages=2)
    await bench.open()
    bench.connector.latest.deliver(b"a", b"b", b"c")
    again = await bench.open(last_event_id="foreign.1")
    (gap,) = EventSource.read(again.opening).events
    assert gap.type == "gap"
    assert json.loads(gap.data) == {"mq_uri": "svc::Topics::status", "reason": "restart", "missed": None}
    assert _bodies(again) == ["b", "c"]
    assert (bench.gaps, bench.counts.gaps) == (["restart"], 1)


async def test_an_expired_position_says_how_many_are_gone() -> None:
    bench = Bench(ring_messages=2)
    reader = await bench.open()
    start = EventSource.read(reader.opening).last_event_id
    bench.connector.latest.deliver(b"a", b"b", b"c")
    again = await bench.open(last_event_id=start)
    (gap,) = EventSource.read(again.opening).events
    assert json.loads(gap.data)["missed"] == 1
    assert gap.last_event_id == EventSource.read(again.opening).last_event_id
    assert _bodies(again) == ["b", "c"]


async def test_an_empty_position_is_none() -> None:
    bench = Bench()
    await bench.open()
    bench.connector.latest.deliver(b"a")
    assert _bodies(await bench.open(last_event_id="", start="earliest")) == ["a"]
    assert bench.gaps == []


# Waiting and taking.


async def test_ready_waits_for_a_message() -> None:
    bench = Bench()
    reader = await bench.open()
    task = asyncio.ensure_future(reader.ready())
    await turns()
    assert not task.done()
    bench.connector.latest.deliver(b"a", b"b")
    await turns()
    assert task.done()
    batch = reader.take()
    assert (batch.events, batch.end) == (2, None)
    reader.handed_over(batch)
    assert bench.counts.delivered == 2


async def test_ready_may_be_cancelled_and_called_again() -> None:
    bench = Bench()
    reader = await bench.open()
    task = asyncio.ensure_future(reader.ready())
    await turns()
    task.cancel()
    await turns()
    bench.connector.latest.deliver(b"a")
    await turns()
    await reader.ready()
    assert _bodies(reader) == ["a"]


async def test_an_envelope_for_who_asked_for_it() -> None:
    bench = Bench()
    reader = await bench.open(format="envelope")
    bench.connector.latest.deliver(b"a")
    assert json.loads(_bodies(reader)[0])["body"] == "a"


async def test_a_large_backlog_comes_in_pieces() -> None:
    bench = Bench()
    reader = await bench.open()
    bench.connector.latest.deliver(*[b"x" * 1000] * 10)
    sizes = []
    while reader._has_events():
        batch = reader.take(2100)
        sizes.append(batch.events)
    assert sizes == [2] * 5


async def test_the_end_comes_behind_what_is_queued() -> None:
    bench = Bench()
    reader = await bench.open()
    bench.connector.latest.deliver(*[b"x" * 1000] * 3)
    reader.end("drain")
    reader.end("cancelled")
    ends = [reader.take(1000).end for _ in range(3)]
    assert ends == [None, None, "drain"]


async def test_the_end_does_not_wait_for_what_comes_after_it() -> None:
    bench = Bench()
    reader = await bench.open()
    bench.connector.latest.deliver(*[b"x" * 1000] * 3)
    reader.end("drain")
    reader.end("cancelled")
    ends = []
    for _ in range(3):
        bench.connector.latest.deliver(b"y" * 1000)
        ends.append(reader.take(1000).end)
    assert ends == [None, None, "drain"]


async def test_the_end_comes_also_when_the_ring_went_on_beyond_it() -> None:
    bench = Bench(ring_messages=2)
    reader = await bench.open()
    bench.connector.latest.deliver(b"a")
    reader.end("drain")
    bench.connector.latest.deliver(b"b", b"c", b"d")
    batch = reader.take()
    assert _events(batch.data)[0].type == "gap"
    assert batch.end == "drain"


# Slow readers.


def _gap(data: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(_events(data)[0].data)
    return value


@pytest.mark.parametrize(
    ("slow", "missed", "bodies"), [("gap", 3, ["3", "4"]), ("latest", 4, ["4"]), (None, 3, ["3", "4"])]
)
async def test_who_fell_behind_is_told_and_goes_on(slow: Slow | None, missed: int, bodies: list[str]) -> None:
    bench = Bench(ring_messages=2)
    reader = await bench.open(slow=slow)
    bench.connector.latest.deliver(*(b"%d" % number for number in range(5)))
    batch = reader.take()
    gap, *rest = _events(batch.data)
    assert json.loads(gap.data) == {"mq_uri": "svc::Topics::status", "reason": "slow", "missed": missed}
    assert [event.data for event in rest] == bodies
    number = int(gap.last_event_id.rpartition(".")[2])
    assert int(rest[0].last_event_id.rpartition(".")[2]) == number + 1
    assert (batch.events, batch.end, bench.gaps) == (len(bodies), None, ["slow"])


async def test_what_the_destination_says_counts_where_the_client_says_nothing() -> None:
    bench = Bench(ring_messages=2, slow="disconnect")
    reader = await bench.open()
    bench.connector.latest.deliver(b"a", b"b", b"c")
    assert reader.take().end == "slow"
    patient = await bench.open(slow="gap")
    bench.connector.latest.deliver(b"d", b"e", b"f")
    assert patient.take().end is None


async def test_disconnect_ends_without_a_word_that_would_move_the_position() -> None:
    bench = Bench(ring_messages=2)
    reader = await bench.open(slow="disconnect")
    start = EventSource.read(reader.opening).last_event_id
    bench.connector.latest.deliver(b"a", b"b", b"c")
    batch = reader.take()
    assert (batch.data, batch.events, batch.end) == (b"", 0, "slow")
    assert reader.take().end == "slow"
    again = await bench.open(last_event_id=start)
    assert _gap(again.opening)["reason"] == "expired"


async def test_a_lost_link_among_the_missed_makes_their_number_unknown() -> None:
    bench = Bench(ring_messages=3)
    skipper, other = await bench.open(slow="latest"), await bench.open(slow="gap")
    bench.connector.latest.deliver(b"a", b"b", b"c")
    bench.topic.on_lost()
    bench.topic.on_restored()
    bench.connector.latest.deliver(b"d")
    assert _gap(skipper.take().data)["missed"] is None
    assert _gap(other.take().data)["missed"] == 2


async def test_a_ring_that_gives_way_costs_only_who_is_behind() -> None:
    bench = Bench()
    behind, ahead = await bench.open(), await bench.open()
    bench.connector.latest.deliver(*[b"x" * 1000] * 3)
    ahead.take()
    joined = 3 * (1000 + len(b"id: AAAAAAAA.1\ndata: \n\n"))
    assert bench.topic.give_way(joined) == joined  # what was joined for readers goes first and costs nobody anything
    assert bench.topic.give_way(1) > 1000
    assert _gap(behind.take().data) == {"mq_uri": "svc::Topics::status", "reason": "slow", "missed": 1}
    assert ahead.take().data == b""


async def test_every_change_of_the_ring_is_told() -> None:
    bench = Bench(ring_messages=3)
    reader = await bench.open()
    for body in (b"a", b"b" * 1000, b"c", b"d"):
        bench.connector.latest.deliver(body)
        assert sum(bench.grown) == bench.topic.buffered
    reader.take()
    assert sum(bench.grown) == bench.topic.buffered
    told = len(bench.grown)
    freed = bench.topic.give_way(500)
    assert len(bench.grown) == told  # who asked knows
    bench.connector.latest.deliver(b"e")
    assert sum(bench.grown) - freed == bench.topic.buffered
    bench.topic.on_cancelled("deleted")
    assert sum(bench.grown) == freed


# The link.


def _told(reader: TopicReader) -> list[str]:
    """What a reader gets: the bodies, and the reasons of gaps."""
    events = _events(reader.take().data)
    return [json.loads(event.data)["reason"] if event.type == "gap" else event.data for event in events]


async def test_a_lost_link_is_told_once_and_in_its_place() -> None:
    bench = Bench()
    reader = await bench.open()
    bench.connector.latest.deliver(b"a")
    bench.topic.on_lost()
    bench.topic.on_lost()
    bench.topic.on_restored()
    bench.topic.on_restored()
    bench.connector.latest.deliver(b"b")
    batch = reader.take()
    assert [event.type for event in _events(batch.data)] == ["message", "gap", "message"]
    assert batch.events == 2
    assert bench.gaps == ["link_lost"]
    bench.topic.on_lost()
    bench.topic.on_restored()
    assert _told(reader) == ["link_lost"]


async def test_it_is_told_when_the_subscription_stands_again_and_not_before() -> None:
    """Who fetches the present state at the gap then misses nothing that is published in between."""
    bench = Bench()
    reader = await bench.open()
    task = asyncio.ensure_future(reader.ready())
    bench.topic.on_lost()
    await turns()
    assert (task.done(), reader.take().data) == (False, b"")
    bench.topic.on_restored()
    await turns()
    assert task.done()
    assert _told(reader) == ["link_lost"]


@pytest.mark.parametrize("start", ["now", "earliest"])
async def test_who_opens_while_the_link_is_down_is_told_too(start: str) -> None:
    bench = Bench()
    await bench.open()
    bench.topic.on_lost()
    late = await bench.open(start=start)
    bench.topic.on_restored()
    bench.connector.latest.deliver(b"after")
    position = EventSource.read(late.opening).last_event_id
    assert _told(late) == ["link_lost", "after"]
    assert _told(await bench.open(last_event_id=position)) == ["link_lost", "after"]
    assert _told(await bench.open()) == []


async def test_a_message_of_the_new_connection_is_behind_the_gap_and_the_next_loss_has_its_own() -> None:
    bench = Bench()
    reader = await bench.open()
    bench.topic.on_lost()
    bench.connector.latest.deliver(b"before the RECEIPT")
    bench.topic.on_lost()
    bench.connector.latest.deliver(b"again")
    bench.topic.on_restored()
    bench.connector.latest.deliver(b"after")
    assert _told(reader) == ["link_lost", "before the RECEIPT", "link_lost", "again", "after"]


async def test_a_new_subscription_begins_without_the_losses_of_the_old_one(timers: Timers) -> None:
    bench = Bench(linger=0)
    await (await bench.open()).close()
    bench.topic.on_lost()
    timers.pass_time(0)
    await turns()
    reader = await bench.open()
    bench.connector.latest.deliver(b"a")
    assert _told(reader) == ["a"]


async def test_who_resumes_across_a_lost_link_is_told_too() -> None:
    bench = Bench()
    reader = await bench.open()
    start = EventSource.read(reader.opening).last_event_id
    bench.topic.on_lost()
    bench.topic.on_restored()
    assert _told(await bench.open(last_event_id=start)) == ["link_lost"]


async def test_when_the_broker_ends_it_every_stream_ends_behind_what_it_has() -> None:
    bench = Bench()
    reader = await bench.open()
    position = EventSource.read(reader.opening).last_event_id
    bench.connector.latest.deliver(b"a")
    bench.topic.on_cancelled("queue deleted")
    batch = reader.take()
    assert ([event.data for event in _events(batch.data)], batch.end) == (["a"], "cancelled")
    await reader.close()
    again = await bench.open(last_event_id=position)
    assert _gap(again.opening)["reason"] == "restart"
    assert len(bench.connector.asked) == 2


# Linger and keep.


async def test_linger_after_the_last_reader_and_then_the_end(timers: Timers) -> None:
    bench = Bench(linger=30)
    one, two = await bench.open(), await bench.open()
    await one.close()
    await one.close()
    assert timers.waiting == []
    await two.close()
    assert timers.waiting == [30]
    timers.pass_time(29)
    assert bench.connector.latest.closed == 0
    timers.pass_time(1)
    await turns()
    assert bench.connector.latest.closed == 1
    assert bench.topic.is_idle


async def test_the_ring_lives_through_linger_for_who_comes_back(timers: Timers) -> None:
    bench = Bench(linger=30)
    reader = await bench.open()
    position = EventSource.read(reader.opening).last_event_id
    await reader.close()
    bench.connector.latest.deliver(b"while away")
    timers.pass_time(29)
    again = await bench.open(last_event_id=position)
    assert timers.waiting == []
    timers.pass_time(100)
    assert _bodies(again) == ["while away"]
    assert bench.connector.latest.closed == 0


async def test_after_linger_a_position_is_foreign(timers: Timers) -> None:
    bench = Bench(linger=1)
    reader = await bench.open()
    position = EventSource.read(reader.opening).last_event_id
    await reader.close()
    timers.pass_time(1)
    await turns()
    again = await bench.open(last_event_id=position)
    assert _gap(again.opening)["reason"] == "restart"
    assert len(bench.connector.asked) == 2


async def test_who_comes_while_it_is_being_closed_gets_a_new_one_without_old_events(timers: Timers) -> None:
    bench = Bench(linger=0)
    reader = await bench.open()
    await reader.close()
    bench.connector.latest.closing.clear()
    timers.pass_time(0)
    await turns()
    old = bench.connector.latest
    task = asyncio.ensure_future(bench.open(start="earliest"))
    await turns()
    assert not task.done()
    old.deliver(b"late")
    old.closing.set()
    again = await task
    assert len(bench.connector.asked) == 2
    assert again.take().data == b""


async def test_who_comes_before_the_closing_began_keeps_it(timers: Timers) -> None:
    bench = Bench(linger=0)
    reader = await bench.open()
    await reader.close()
    timers.pass_time(0)  # the task to close exists and has not run
    again = await bench.open()
    await turns()
    assert bench.connector.latest.closed == 0
    bench.connector.latest.deliver(b"a")
    assert _bodies(again) == ["a"]


async def test_a_failed_opening_does_not_stop_the_linger(timers: Timers) -> None:
    bench = Bench(linger=5)
    reader = await bench.open()
    await reader.close()
    bench.topic._upstream, upstream = None, bench.topic._upstream
    bench.connector.refusals.append(Draining("no"))
    with pytest.raises(Draining):
        await bench.open()
    assert timers.waiting == []
    bench.topic._upstream = upstream
    await (await bench.open()).close()
    assert timers.waiting == [5]


async def test_a_timer_that_fires_too_late_closes_nothing(timers: Timers) -> None:
    bench = Bench(linger=5)
    await bench.open()
    bench.topic._close_if_idle()
    await turns()
    assert bench.connector.latest.closed == 0


async def test_what_is_kept_never_lingers(timers: Timers) -> None:
    bench = Bench(keep=True)
    reader = await bench.open()
    await reader.close()
    assert timers.waiting == []
    assert not bench.topic.is_idle


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Pauses between attempts take no time; the list has their lengths."""
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.extend([seconds] if seconds else [])
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    yield pauses
    monkeypatch.undo()


async def test_what_is_kept_is_subscribed_before_anybody_comes_and_however_long_it_takes(
    no_pause: list[float],
) -> None:
    bench = Bench(keep=True)
    bench.connector.refusals += [BrokerUnavailable("down")] * 3
    task = asyncio.ensure_future(bench.topic.keep())
    await turns(20)
    assert len(bench.connector.subscriptions) == 1
    assert no_pause[:3] == [1.0] * 3
    bench.connector.latest.deliver(b"before")
    reader = await bench.open(start="earliest")
    assert _bodies(reader) == ["before"]
    task.cancel()
    await turns()
    assert task.cancelled()


async def test_what_is_kept_is_subscribed_again_when_the_broker_ended_it(no_pause: list[float]) -> None:
    bench = Bench(keep=True)
    task = asyncio.ensure_future(bench.topic.keep())
    await turns()
    assert not bench.topic.is_idle
    bench.topic.on_cancelled("deleted")
    assert not bench.topic.is_idle
    await turns(20)
    assert len(bench.connector.subscriptions) == 2
    assert no_pause == [1.0]
    task.cancel()
    await turns()


async def test_at_the_end_nothing_is_unsubscribed_and_nothing_lingers(timers: Timers) -> None:
    bench = Bench()
    await (await bench.open()).close()
    late = await bench.open()
    bench.topic.stop()
    await late.close()
    assert timers.waiting == []
    await turns()
    assert bench.connector.latest.closed == 0


async def test_an_unsubscribing_that_is_under_way_at_the_end_is_not_waited_for(timers: Timers) -> None:
    bench = Bench(linger=0)
    await (await bench.open()).close()
    bench.connector.latest.closing.clear()
    timers.pass_time(0)
    await turns()
    closing = bench.topic._closing
    assert closing is not None
    bench.topic.stop()
    await asyncio.wait([closing])
    assert closing.cancelled()


async def test_all_messages_of_a_turn_wake_a_reader_once() -> None:
    bench = Bench()
    reader = await bench.open()
    woken = []
    reader.wake = lambda: woken.append(1)  # type: ignore[method-assign]
    bench.connector.latest.deliver(b"a", b"b", b"c")
    await turns()
    assert woken == [1]
    bench.connector.latest.deliver(b"d")
    await turns()
    assert woken == [1, 1]
