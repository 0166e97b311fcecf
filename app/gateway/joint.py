"""One client's stream of several destinations: what their readers have, by turns, under one event id."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.domain.uri import MqUri
from app.gateway.stream import Batch, Counts, Format, Reader
from app.wire import sse
from app.wire.vector import Vector

#: A share is at least one part in so many of a write: less makes more work than it helps anybody.
SMALLEST_SHARE = 64
_END = b"\n\n"


@dataclass(frozen=True, slots=True)
class Member:
    """One destination of a stream. `behind` is the position the reader was to go on behind, empty without one."""

    uri: MqUri
    reader: Reader
    behind: str


class JointReader(Reader):
    """Needs no task and no buffer of its own: it is woken by its readers, and takes from them what one write can have.

    The ready reader that has had the fewest bytes is next (start-time fair queueing), so a busy Topic, or one of large
    messages, delays the others by no more than one write. Who comes back from idleness has no claim for that time.
    """

    def __init__(self, members: Sequence[Member], form: Format) -> None:
        super().__init__(Counts())
        self._readers = [member.reader for member in members]
        self._numbers = {reader: number for number, reader in enumerate(self._readers)}
        topics = [member for member in members if not member.uri.is_queue]
        #: Where each Topic stands in the vector.
        self._places = {member.reader: place for place, member in enumerate(topics)}
        self._vector = Vector([member.uri for member in topics])
        self._envelopes = form == "envelope"
        #: Those that may have something.
        self._ready = dict.fromkeys(self._readers)
        #: Bytes that each has had, and what the last one had had when its turn came.
        self._had = dict.fromkeys(self._readers, 0)
        self._turn = 0
        #: How much longer the ids made what was taken last.
        self._swell = 1.0
        self._unended = set(self._readers)
        self.opening = self._begin(members)
        for reader in self._readers:
            reader.owner = self
            reader.opening = b""

    def _begin(self, members: Sequence[Member]) -> bytes:
        """Leases; the position; then what cannot be continued exactly.

        Until its gap is told a Topic stays where the client said: one that is cut off before is told the same again.
        """
        leases: list[bytes] = []
        gaps: list[tuple[int, bytes]] = []
        for member in members:
            opening, place = member.reader.opening, self._places.get(member.reader)
            if place is None:
                leases.append(opening)
                continue
            position, _, rest = opening.partition(_END)
            self._vector.move(place, member.behind.encode())
            if rest:
                gaps.append((place, rest))
            elif position:
                self._vector.move(place, position.removeprefix(b"id: "))
        where = sse.position_only(bytes(self._vector).decode()) if self._places else b""
        told = [self._vector.stamp(place, gap, envelopes=False) for place, gap in gaps]
        return b"".join([*leases, where, *told])

    # What its readers tell.

    def woken(self, reader: Reader) -> None:
        if reader not in self._ready and reader in self._unended:
            self._had[reader] = max(self._had[reader], self._turn)
            self._ready[reader] = None
        self.wake()

    def end(self, reason: str) -> None:
        super().end(reason)
        for reader in list(self._unended):
            reader.end(reason)

    # What the writer of the stream calls.

    def _has_events(self) -> bool:
        return any(reader.is_ready for reader in self._ready)

    def _take_events(self, max_bytes: int) -> Batch:
        share = self._share(max_bytes)
        parts: list[bytes] = []
        shares: dict[Reader, int] = {}
        size = 0
        while self._ready and size < max_bytes:
            reader = min(self._ready, key=self._had.__getitem__)
            if reader in shares and reader not in self._places:
                break  # what a Queue gave is to be handed over before it gives more
            batch = self._take_from(reader, share)
            parts.append(batch.data)
            shares[reader] = shares.get(reader, 0) + batch.events
            size += len(batch.data)
        told = tuple((self._numbers[reader], events) for reader, events in shares.items() if events)
        return Batch(b"".join(parts), sum(shares.values()), None, told)

    def _share(self, max_bytes: int) -> int:
        """Bytes that each may have of one write, before the ids make them more.

        Powers of two: rings join what readers at the same place ask for in the same size only once.
        """
        share = int(max_bytes / self._swell) // max(1, len(self._ready))
        return max(1 << share.bit_length() >> 1, max_bytes // SMALLEST_SHARE, 1)

    def _take_from(self, reader: Reader, max_bytes: int) -> Batch:
        del self._ready[reader]
        self._turn = self._had[reader]
        batch = self._stamped(reader, reader.take(max_bytes))
        self._had[reader] = self._turn + len(batch.data)
        if batch.end is not None:
            self._unended.discard(reader)
            self.end(batch.end)
        elif reader.is_ready:
            self._ready[reader] = None
        return batch

    def _stamped(self, reader: Reader, batch: Batch) -> Batch:
        place = self._places.get(reader)
        if place is None or not batch.data:
            return batch
        data = self._vector.stamp(place, batch.data, envelopes=self._envelopes)
        self._swell = len(data) / len(batch.data)
        return replace(batch, data=data)

    def handed_over(self, batch: Batch) -> None:
        for number, events in batch.shares:
            self._readers[number].handed_over(Batch(b"", events))

    async def close(self) -> None:
        for reader in self._readers:
            reader.owner = None
        await asyncio.gather(*(reader.close() for reader in self._readers))
