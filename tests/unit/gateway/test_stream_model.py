"""Readers of a stream against the list of all that was published, in any order of what can happen: each sees every
offset once and in order, or is told of the gap."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from app.config.settings import TopicSettings
from app.connectors.stomp import stream_cursor
from app.gateway import replay, replays, stream_reader, stream_topic
from app.gateway.stream import Counts, Slow, StreamRequest
from app.gateway.stream_reader import StreamReader
from app.gateway.stream_topic import StreamTopic
from tests.unit.gateway.fakes import topic, turns
from tests.unit.gateway.stream_broker import StreamBroker
from tests.unit.wire.event_source import Event, EventSource

#: Small, so that little is needed to leave every bound behind; and no waiting.
LIMITS = {
    (stream_cursor, "EMPTY_AFTER"): 0.02,
    (stream_topic, "EMPTY_AFTER"): 0.02,
    (stream_topic, "QUIET"): 0.0,
    (stream_topic, "LIVE_PREFETCH"): 3,
    (stream_topic, "REPLAY_PREFETCH"): 2,
    (stream_reader, "AHEAD_SECONDS"): 0.0,
    (replay, "NEARBY"): 4,
    (replay, "RETRY"): 0.0,
    (replay, "RING_MESSAGES"): 3,
    (replays, "TOGETHER"): 2,
}


class Seen:
    """What one client saw. `at` is the offset it has seen; None where it begins with whatever comes."""

    def __init__(self, reader: StreamReader, published: dict[int, bytes]) -> None:
        self.reader = reader
        self._published = published
        told = re.match(rb"id: s\.(-?\d+)\n\n", reader.opening)
        self.at: int | None = int(told[1]) if told else None
        self.ended = False
        for event in EventSource.read(reader.opening).events:
            self._event(event)

    def take(self, max_bytes: int) -> bool:
        """False where there was nothing."""
        batch = self.reader.take(max_bytes)
        assert batch.end is None
        for event in EventSource.read(batch.data).events:
            self._event(event)
        self.reader.handed_over(batch)
        return bool(batch.data)

    def _event(self, event: Event) -> None:
        offset = int(event.last_event_id.removeprefix("s."))
        if event.type == "gap":
            told = json.loads(event.data)
            missing = list(self._between(offset + 1))
            if told["reason"] != "restart":  # a hole in the offsets looks as if something was missing
                assert self.at is None or offset > self.at
                assert told["missed"] is None or told["missed"] == len(missing) > 0
            self.at = offset
        else:
            assert self.at is None or offset > self.at, "a repeat"
            assert not list(self._between(offset)), "a hole nobody was told of"
            assert event.data.encode() == self._published[offset]
            self.at = offset

    def _between(self, offset: int) -> Iterator[int]:
        at = self.at
        return (known for known in self._published if at is not None and at < known < offset)


class StreamMachine(RuleBasedStateMachine):
    """One Topic, one stream, many readers that come, go and stall."""

    def __init__(self) -> None:
        super().__init__()
        self._patches = ExitStack()
        for (module, name), value in LIMITS.items():
            self._patches.enter_context(patch.object(module, name, value))
        self._runner = asyncio.Runner()
        self._broker = StreamBroker()
        self._published: dict[int, bytes] = {}
        self._readers: list[Seen] = []

    @initialize(
        events=st.integers(1, 5), size=st.sampled_from([1, 3000, 10_000]), slow=st.sampled_from(["gap", "latest"])
    )
    def make(self, events: int, size: int, slow: Slow) -> None:
        destination = topic(replay="stream", ring_messages=events, ring_bytes=size, slow=slow, linger=3600)
        assert isinstance(destination.settings, TopicSettings)
        self._topic = StreamTopic(
            destination,
            destination.settings,
            self._broker,
            counts=Counts,
            on_gap=lambda _reason: None,
            grew=lambda _size: None,
        )

    def _do(self, what: Callable[[], object] = lambda: None) -> None:
        """Inside the loop, and then let everything run that can run now."""

        async def done() -> None:
            what()
            await turns(8)

        self._runner.run(done())

    # What the broker does.

    @rule(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=6), deliver=st.booleans())
    def publish(self, sizes: list[int], deliver: bool) -> None:
        for size in sizes:
            body = b"%d %s" % (self._broker.log.next, b"x" * size)
            self._published[self._broker.log.publish(body)] = body
        if deliver:
            self.deliver()

    @rule()
    def deliver(self) -> None:
        self._do(self._broker.pump)

    @rule()
    def leave_a_hole(self) -> None:
        self._broker.log.skip()

    @rule(back=st.integers(0, 8))
    def expire(self, back: int) -> None:
        # Not from under a subscription that reads it: a hole there looks like offsets that were never given.
        if self._published:
            self._broker.log.expire(min([self._broker.log.next - back, *self._broker.places]))

    @rule()
    def lose_the_link(self) -> None:
        if self._broker.up:
            self._do(self._broker.lose)

    @rule()
    def restore_the_link(self) -> None:
        if not self._broker.up:
            self._do(self._broker.restore)

    # What clients do.

    @rule(back=st.integers(-3, 12))
    def resume(self, back: int) -> None:
        # Clients only know offsets that there were, or such as are of another stream.
        at = self._broker.log.next - 1 - back
        known = [offset for offset in self._published if offset <= at]
        at = at if back < 0 else max(known, default=-1)
        self._open(StreamRequest(last_event_id=f"s.{at}"))

    @rule(text=st.sampled_from(["s.-2", "s.01", "abcdefgh.1", "s.", "s.9999999999999999999"]))
    def resume_with_a_foreign_id(self, text: str) -> None:
        self._open(StreamRequest(last_event_id=text))

    @rule(earliest=st.booleans())
    def begin(self, earliest: bool) -> None:
        self._open(StreamRequest(start="earliest" if earliest else "now"))

    def _open(self, request: StreamRequest) -> None:
        async def opened() -> StreamReader:
            opening = asyncio.ensure_future(self._topic.open(request, 5))
            while not opening.done():
                await turns(2)
                self._broker.pump()
            reader = await opening
            assert isinstance(reader, StreamReader)
            return reader

        if len(self._readers) < 6 and (self._broker.up or self._topic.readers):
            self._readers.append(Seen(self._runner.run(opened()), self._published))

    @rule(number=st.integers(0, 5), max_bytes=st.sampled_from([1, 400, 1 << 16]))
    def take(self, number: int, max_bytes: int) -> None:
        if number < len(self._readers):
            self._do(lambda: self._readers[number].take(max_bytes))

    @rule(number=st.integers(0, 5))
    def close(self, number: int) -> None:
        if number < len(self._readers):
            self._runner.run(self._readers.pop(number).reader.close())
            self._do()

    # What time and memory do.

    @rule()
    def end_turns(self) -> None:
        def end() -> None:
            for running in list(self._topic.replays._running):
                self._topic.replays._end_turn(running)

        self._do(end)

    @rule(wanted=st.integers(0, 3000))
    def give_way(self, wanted: int) -> None:
        self._do(lambda: self._topic.give_way(wanted))

    def teardown(self) -> None:
        """In the end everybody is where the stream is."""
        try:
            if hasattr(self, "_topic"):
                self.restore_the_link()
                self._runner.run(self._flow())
                self._look()
        finally:
            self._runner.close()
            self._patches.close()

    async def _flow(self) -> None:
        idle = 0
        for _ in range(500):
            if idle == 5:
                return
            moved = self._broker.pump()
            await turns(8)
            for seen in self._readers:
                moved |= seen.take(1 << 16)
            await turns(8)
            idle = 0 if moved else idle + 1
        raise AssertionError("it never comes to rest")

    def _look(self) -> None:
        last = max(self._published, default=None)
        for seen in self._readers:
            assert last is None or seen.at is None or seen.at == last
        while self._readers:
            self.close(0)
        assert self._topic.replays.is_idle
        assert len(self._broker.readings) <= 1
        self._do(self._topic.stop)


TestStream = StreamMachine.TestCase
# One example is a whole life of a Topic, and quick.
TestStream.settings = settings(max_examples=100, deadline=None, stateful_step_count=40)
