"""The ring against a plain list, in any order of what can happen to it: no hole, no repeat, `missed` exact."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.gateway.ring import Resume, Ring, _cost
from tests.unit.gateway.fakes import message, topic
from tests.unit.wire.event_source import Event, EventSource

URI = topic().uri
#: Bytes a slice may have.
SLICES = st.sampled_from([1, 500, 1000, 1 << 30])
READERS = st.integers(0, 2)
PADDING = st.integers(0, 300).map(lambda size: b"x" * size) | st.sampled_from([b"\r\nid: 9\n\n", b"\xff", b"\n"])


@dataclass
class Cursor:
    """A reader: how far it is, and what it asks for."""

    form: str
    latest: bool = False
    at: int = 0


class RingMachine(RuleBasedStateMachine):
    """`_entries` is all there ever was, entry n at n - 1; None is a lost link."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[bytes | None] = []
        self._readers = [Cursor("data"), Cursor("data", latest=True), Cursor("envelope")]
        self._oldest = 1

    @initialize(events=st.integers(1, 9), size=st.sampled_from([1, 2000, 5000, 10_000]))
    def make(self, events: int, size: int) -> None:
        self._events, self._bytes = events, size
        self._ring = Ring(URI, events, size)

    # What the broker does.

    @rule(paddings=st.lists(PADDING, min_size=1, max_size=5))
    def append(self, paddings: list[bytes]) -> None:
        for padding in paddings:
            body = b"%d " % (len(self._entries) + 1) + padding
            self._ring.append(message(body))
            self._appended(body)

    @rule()
    def lose_the_link(self) -> None:
        self._ring.append_gap()
        self._appended(None)

    def _appended(self, entry: bytes | None) -> None:
        self._entries.append(entry)
        alone = self._ring.oldest == self._ring.last
        assert alone or self._ring.buffered <= self._bytes

    # What others who need memory do.

    @rule(wanted=st.integers(0, 4000))
    def give_way(self, wanted: int) -> None:
        before = self._ring.buffered
        freed = self._ring.give_way(wanted)
        assert before - self._ring.buffered == freed
        assert freed >= wanted or self._ring.last - self._ring.oldest < 1

    # What readers do.

    @rule(number=READERS, max_bytes=SLICES)
    def read(self, number: int, max_bytes: int) -> None:
        reader = self._readers[number]
        if reader.at + 1 < self._ring.oldest:
            self._catch_up(reader)
        piece = self._ring.read(reader.at, reader.form, max_bytes)
        expected = self._entries[reader.at : piece.cursor]
        assert [self._seen(event, reader.form) for event in EventSource.read(piece.data).events] == [
            (self._ring.position(reader.at + at), body) for at, body in enumerate(expected, 1)
        ]
        assert piece.cursor > reader.at or reader.at == self._ring.last
        assert len(piece.data) <= max_bytes or piece.cursor == reader.at + 1
        assert piece.events == sum(body is not None for body in expected)
        assert piece.gaps == ("link_lost",) * (len(expected) - piece.events)
        reader.at = piece.cursor

    @rule(max_bytes=SLICES)
    def read_one_after_the_other(self, max_bytes: int) -> None:
        for number in range(len(self._readers)):
            self.read(number, max_bytes)

    def _catch_up(self, reader: Cursor) -> None:
        """It fell behind what is kept: it goes on with the oldest or the newest, and is told what it missed."""
        target = self._ring.last - 1 if reader.latest else self._ring.oldest - 1
        assert self._ring.missed(reader.at, target) == self._missed(reader.at, target)
        reader.at = target

    @rule(number=READERS, back=st.integers(-3, 30))
    def resume(self, number: int, back: int) -> None:
        at = max(0, self._ring.last - back)
        found = self._ring.resume(self._ring.position(at))
        target = self._ring.oldest - 1
        if at > self._ring.last:
            assert found == Resume(target, "restart")
        elif at < target:
            assert found == Resume(target, "expired", self._missed(at, target))
        else:
            assert found == Resume(at)
        self._readers[number].at = found.cursor

    @rule(foreign=st.text(max_size=20) | st.from_regex(r"[0-9A-Za-z_-]{8}\.[0-9]{1,3}", fullmatch=True))
    def resume_with_a_foreign_id(self, foreign: str) -> None:
        assert self._ring.resume(foreign) == Resume(self._ring.oldest - 1, "restart")

    # What always holds.

    @precondition(lambda self: hasattr(self, "_ring"))
    @invariant()
    def is_within_its_bounds(self) -> None:
        ring = self._ring
        assert ring.last == len(self._entries)
        assert self._oldest <= ring.oldest <= max(1, ring.last)
        assert ring.last - ring.oldest < self._events
        assert ring.buffered == sum(map(_cost, ring._entries)) + sum(len(piece.data) for piece in ring._slices.values())
        self._oldest = ring.oldest

    def _missed(self, cursor: int, until: int) -> int | None:
        between = self._entries[cursor:until]
        return None if None in between else len(between)

    @staticmethod
    def _seen(event: Event, form: str) -> tuple[str, bytes | None]:
        """The position an event carries, and the body as far as an EventSource can show it."""
        if event.type == "gap":
            assert json.loads(event.data) == {"mq_uri": str(URI), "reason": "link_lost", "missed": None}
            return event.last_event_id, None
        if event.type == "binary":
            return event.last_event_id, base64.b64decode(event.data)
        if form == "data":
            return event.last_event_id, _Lines(event.data.encode())
        value = json.loads(event.data)
        body = value["body"]
        return event.last_event_id, base64.b64decode(body) if value["body_encoding"] == "base64" else body.encode()


class _Lines(bytes):
    """Equal to any bytes with the same lines, however these end."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and bytes(self) == other.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


TestRing = RingMachine.TestCase
# One example is a whole life of a ring, and quick.
TestRing.settings = settings(max_examples=200)
