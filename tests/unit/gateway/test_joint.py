"""Several readers as one: whose turn it is, what stands in the ids, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.uri import DestinationType, MqUri
from app.gateway.joint import JointReader, Member
from app.gateway.stream import Batch, Counts, Format, Reader
from app.wire import sse
from app.wire.vector import UNTOLD, positions
from tests.unit.gateway.fakes import message, turns
from tests.unit.wire.event_source import EventSource


class Scripted(Reader):
    """A reader whose events the test gives; positions are their numbers."""

    def __init__(self, uri: MqUri, opening: bytes = b"") -> None:
        super().__init__(Counts())
        self.uri = uri
        self.opening = opening
        self.number = 0
        self.events: list[bytes] = []
        self.handed: list[int] = []
        self.closed = 0

    def give(self, *bodies: bytes) -> None:
        for body in bodies:
            self.number += 1
            position = None if self.uri.is_queue else f"s.{self.number}"
            self.events.append(sse.message_data(message(body), position))
        self.wake()

    def _has_events(self) -> bool:
        return bool(self.events)

    def _take_events(self, max_bytes: int) -> Batch:
        taken: list[bytes] = []
        while self.events and (not taken or sum(map(len, taken)) + len(self.events[0]) <= max_bytes):
            taken.append(self.events.pop(0))
        return Batch(b"".join(taken), len(taken))

    def handed_over(self, batch: Batch) -> None:
        super().handed_over(batch)
        self.handed.append(batch.events)

    async def close(self) -> None:
        self.closed += 1


def topic(name: str, opening: bytes = b"id: s.0\n\n") -> Scripted:
    return Scripted(MqUri("svc", DestinationType.TOPICS, name), opening)


def queue(name: str, opening: bytes = b"") -> Scripted:
    return Scripted(MqUri("svc", DestinationType.QUEUES, name), opening)


def joint(*readers: Scripted, behind: str = "", form: Format = "data") -> JointReader:
    return JointReader([Member(reader.uri, reader, behind) for reader in readers], form)


def where(text: str, *readers: Scripted) -> list[str]:
    return positions(text, [reader.uri for reader in readers])


def seen(data: bytes, *readers: Scripted) -> list[tuple[str, list[str]]]:
    """Every event with the positions it has in these."""
    return [(event.data, where(event.last_event_id, *readers)) for event in EventSource.read(data).events]


def test_every_event_says_where_all_stand() -> None:
    one, two = topic("one"), topic("two")
    reader = joint(one, two)
    assert where(EventSource.read(reader.opening).last_event_id, one, two) == ["s.0", "s.0"]
    one.give(b"a", b"b")
    two.give(b"c")
    batch = reader.take()
    assert seen(batch.data, one, two) == [("a", ["s.1", "s.0"]), ("b", ["s.2", "s.0"]), ("c", ["s.2", "s.1"])]
    assert (batch.events, batch.shares, batch.end) == (3, ((0, 2), (1, 1)), None)
    one.give(b"d")
    assert seen(reader.take().data, one, two) == [("d", ["s.3", "s.1"])]
    assert reader.take() == Batch(b"", 0)


def test_a_queue_moves_no_position() -> None:
    one, jobs = topic("one"), queue("jobs")
    reader = joint(jobs, one)
    jobs.give(b"job")
    one.give(b"a")
    jobs.give(b"job 2")
    events = EventSource.read(reader.opening + reader.take().data).events
    assert [event.data for event in events] == ["job", "job 2", "a"]
    assert [where(event.last_event_id, one) for event in events] == [["s.0"], ["s.0"], ["s.1"]]


def test_queues_alone_have_no_id() -> None:
    one, two = queue("one", b"event: lease\ndata: 1\n\n"), queue("two", b"event: lease\ndata: 2\n\n")
    reader = joint(one, two)
    assert reader.opening == b"event: lease\ndata: 1\n\nevent: lease\ndata: 2\n\n"
    one.events.append(sse.message_data(message(b"x"), "a-lease"))
    assert reader.take() == Batch(b"id: a-lease\ndata: x\n\n", 1, None, ((0, 1),))


# What is said first.


def _gap(reader: Scripted, position: str) -> bytes:
    return sse.position_only(position) + sse.gap(str(reader.uri), "restart", None, position=position)


@pytest.mark.parametrize("old", ["old-epoc.7", UNTOLD])
def test_a_gap_that_is_not_told_yet_is_in_no_position(old: str) -> None:
    """A client cut off between two gaps is told of the second when it comes back, and with the same words."""
    one, two, three = topic("one"), topic("two"), topic("three")
    one.opening, two.opening = _gap(one, "s.4"), _gap(two, "s.5")
    reader = joint(one, two, three, behind=old)
    first, *gaps = reader.opening.split(b"\n\n")[:-1]
    assert where(first.decode().removeprefix("id: "), one, two, three) == [old, old, "s.0"]
    ids = [gap.partition(b"\n")[0].decode().removeprefix("id: ") for gap in gaps]
    assert [where(each, one, two, three) for each in ids] == [["s.4", old, "s.0"], ["s.4", "s.5", "s.0"]]


def test_a_topic_that_tells_its_gap_later_has_no_position_until_then() -> None:
    late, other = topic("late", b""), topic("other")
    reader = joint(late, other, behind=UNTOLD)
    other.give(b"x")
    assert seen(reader.take().data, late, other) == [("x", [UNTOLD, "s.1"])]
    late.tell(_gap(late, "s.8"))
    assert [place for _, place in seen(reader.take().data, late, other)] == [["s.8", "s.1"]]


def test_one_that_begins_without_a_position_does_so_again() -> None:
    early, other = topic("early", b""), topic("other")
    reader = joint(early, other)
    other.give(b"x")
    assert seen(reader.take().data, early, other) == [("x", ["", "s.1"])]


# Turns.


def test_a_busy_one_leaves_half_of_every_write_to_the_other() -> None:
    busy, quiet = topic("busy"), topic("quiet")
    reader = joint(busy, quiet)
    for number in range(50):
        busy.give(*[b"x" * 100] * 50)
        quiet.give(b"%d" % number)
        batch = reader.take(1000)
        assert dict(batch.shares)[1] == 1, "the quiet one waits for no other write"
        assert len(batch.data) < 1400
    assert len(busy.events) > 1000


def test_two_busy_ones_get_the_same() -> None:
    one, two = topic("one"), topic("two")
    reader = joint(one, two)
    one.give(*[b"x" * 10] * 1000)
    two.give(*[b"x" * 10] * 1000)
    for _ in range(10):
        reader.take(1000)
    assert abs(len(one.events) - len(two.events)) <= 1


def test_large_messages_do_not_take_the_place_of_small_ones() -> None:
    """After one of 100 kB the other Topic has had 100 kB before the next of them comes."""
    large, small = topic("large"), topic("small")
    reader = joint(large, small)
    large.give(*[b"x" * 100_000] * 3)
    small.give(*[b"x" * 100] * 3000)
    had: list[int] = [0, 0]
    for _ in range(300):
        batch = reader.take(1000)
        for number, events in batch.shares:
            had[number] += events * (100_000 if number == 0 else 100)
        if had[0] > 100_000:
            break
    assert had[0] == 200_000
    # Ids cost what they cost.
    assert 60_000 < had[1] <= 101_000


def test_who_was_idle_has_no_claim_for_that_time() -> None:
    busy, idle = topic("busy"), topic("idle")
    reader = joint(busy, idle)
    for _ in range(100):
        busy.give(*[b"x" * 100] * 10)
        reader.take(2000)
    idle.give(*[b"y" * 100] * 100)
    busy.give(*[b"x" * 100] * 100)
    shares: Counter[int] = Counter()
    for _ in range(10):
        shares.update(dict(reader.take(1000).shares))
    assert abs(shares[0] - shares[1]) <= 9, "one write"


SIZES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000)), max_size=60)


@given(SIZES, st.integers(1, 6000))
def test_nothing_is_lost_or_out_of_order_and_a_write_has_its_bound(
    given_: Sequence[tuple[int, int]], bound: int
) -> None:
    readers = [topic(name) for name in "abcd"]
    reader = joint(*readers)
    expected: list[list[bytes]] = [[], [], [], []]
    for number, size in given_:
        body = b"%d:%d:" % (number, len(expected[number])) + b"x" * size
        expected[number].append(body)
        readers[number].give(body)
    got: list[list[bytes]] = [[], [], [], []]
    while reader.is_ready:
        batch = reader.take(bound)
        events = EventSource.read(batch.data).events
        assert events, "what is ready has something"
        # One message more than the bound, and ids in place of the short ones here.
        assert len(batch.data) <= bound + 5100 + 40 * len(events)
        for event in events:
            got[int(event.data[0])].append(event.data.encode())
        assert [events for _, events in batch.shares] == [
            sum(event.data[0] == str(number) for event in events) for number, _ in batch.shares
        ]
    assert got == expected


@settings(max_examples=40)
@given(st.lists(st.integers(100, 3000), min_size=4, max_size=4), st.lists(st.integers(1, 4000), max_size=20))
def test_no_two_busy_ones_are_ever_further_apart_than_a_message(sizes: list[int], bounds: list[int]) -> None:
    readers = [topic(name) for name in "abcd"]
    reader = joint(*readers)
    for bound in bounds:
        for each, size in zip(readers, sizes, strict=True):
            each.give(*[b"x" * size] * (60 - len(each.events)))
        reader.take(bound)
        had = reader._had.values()
        assert max(had) - min(had) <= 4000 + 3100


def test_long_ids_make_no_long_writes() -> None:
    """Of 32 Topics one is busy with messages smaller than the ids."""
    busy, *others = [topic(f"topic-{number}") for number in range(32)]
    reader = joint(busy, *others)
    reader.take()
    busy.give(*[b"x"] * 5000)
    sizes = []
    while reader.is_ready:
        sizes.append(len(reader.take(65536).data))
    assert max(sizes[1:]) <= 2 * 65536
    assert len(sizes) < 60


def test_readers_at_the_same_place_ask_alike() -> None:
    """So that what they get is joined once."""
    shares = set()
    for size in range(1, 400, 7):
        one, two = topic("one"), topic("two")
        reader = joint(one, two)
        one.give(b"x" * size)
        reader.take()
        shares.add(reader._share(65536))
    assert len(shares) <= 3


# Waking and ending.


async def test_it_is_woken_by_each_of_them_and_for_a_reason_only() -> None:
    one, two = topic("one"), topic("two")
    reader = joint(one, two)
    for each in (one, two):
        waiting = asyncio.ensure_future(reader.ready())
        await turns()
        each.wake()
        await turns()
        assert not waiting.done()
        each.give(b"x")
        await turns()
        assert waiting.done()
        assert reader.take().events == 1


async def test_the_end_of_one_is_the_end_of_all_after_what_they_have() -> None:
    one, two, jobs = topic("one"), topic("two"), queue("jobs")
    reader = joint(one, two, jobs)
    one.give(b"a")
    two.give(b"b", b"c")
    one.end("cancelled")
    batches: list[Batch] = []
    while not batches or batches[-1].end is None:
        await reader.ready()
        batches.append(reader.take(1))
    assert sum(batch.events for batch in batches) == 3
    assert batches[-1].end == "cancelled"
    assert (two._end, jobs._end) == ("cancelled", "cancelled")
    assert reader.take().end == "cancelled"


async def test_the_first_end_counts() -> None:
    one, two = topic("one"), topic("two")
    reader = joint(one, two)
    one.end("drain")
    two.end("memory")
    await reader.ready()
    assert reader.take().end == "drain"
    one.wake()
    two.give(b"x")
    assert not reader._ready


async def test_it_can_be_ended_itself() -> None:
    one, two = topic("one"), topic("two")
    reader = joint(one, two)
    two.give(b"x")
    reader.end("drain")
    assert (reader.take(1).events, reader.take(1).end) == (1, "drain")


def test_notices_of_different_readers_take_no_others_place() -> None:
    one, two = topic("one"), topic("two")
    reader = joint(one, two)
    one.push(b": 1\n\n")
    two.push(b": 2\n\n")
    one.push(b": 3\n\n")
    assert reader.take().data == b": 3\n\n: 2\n\n"


def test_only_who_was_in_the_batch_is_told_that_it_is_handed_over() -> None:
    one, two, jobs = topic("one"), topic("two"), queue("jobs")
    reader = joint(one, two, jobs)
    one.give(b"a", b"b")
    jobs.give(b"j")
    batch = reader.take()
    one.give(b"not in this one")
    reader.handed_over(batch)
    assert (one.handed, two.handed, jobs.handed) == ([2], [], [1])
    assert one._counts.delivered == 2


def test_what_a_queue_gave_is_handed_over_before_it_gives_more() -> None:
    one, jobs = topic("one"), queue("jobs")
    reader = joint(one, jobs)
    jobs.give(*[b"x" * 100] * 40)
    one.give(b"a")
    batch = reader.take(1000)
    assert dict(batch.shares) == {0: 1, 1: 2}
    reader.handed_over(batch)
    while reader.is_ready:
        reader.handed_over(reader.take(1000))
    assert sum(jobs.handed) == 40
    assert max(jobs.handed) <= 9


async def test_with_it_all_are_closed_and_freed() -> None:
    one, two = topic("one"), topic("two")
    reader = joint(one, two)
    gone = weakref.ref(reader)
    await reader.close()
    await reader.close()
    assert (one.closed, two.closed) == (2, 2)
    one.give(b"x")  # a Topic may still wake who has just left
    gc.disable()
    try:
        del reader
        assert gone() is None, "nothing waits for a collection"
    finally:
        gc.enable()


@pytest.mark.parametrize("form", ["data", "envelope", "cloudevents"])
def test_every_format_has_its_ids(form: Format) -> None:
    one = topic("one")
    reader = joint(one, form=form)
    one.events.append(sse.FORMATS[form](message(b"x"), "s.1"))
    (event,) = EventSource.read(reader.take().data).events
    assert where(event.last_event_id, one) == ["s.1"]
    assert ('"id":"v.' in event.data) is (form == "envelope")
