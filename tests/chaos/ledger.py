"""What became of every message: a byte and two times for each, so that an hour of them fits in some megabytes."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from enum import IntEnum

#: A message is known by one number: its publisher above these bits, its number from 0 below.
_BITS = 40
_NUMBERS = (1 << _BITS) - 1


class Outcome(IntEnum):
    """What the publisher knows; UNKNOWN also where the connection ended without an answer."""

    PENDING = 0
    CONFIRMED = 1
    REJECTED = 2
    UNKNOWN = 3
    NOT_SENT = 4


#: Whoever was told one of these must never see the message delivered.
NEVER_DELIVERED = (Outcome.REJECTED, Outcome.NOT_SENT)


def encode(key: int, padding: int = 0) -> bytes:
    """The body of a message: publisher, number, and a filling of `padding` bytes."""
    return b"%d-%d %s" % (key >> _BITS, key & _NUMBERS, b"x" * padding)


def decode(body: str) -> int:
    """The key of a body; raises ValueError for what is none of ours."""
    publisher, _, number = body.partition(" ")[0].partition("-")
    return int(publisher) << _BITS | int(number)


def name(key: int) -> str:
    """The key for a person, as in the body."""
    return f"{key >> _BITS}-{key & _NUMBERS}"


class Marks:
    """A count for every message of a flow, a byte each."""

    def __init__(self) -> None:
        self._counts: dict[int, bytearray] = {}

    def add(self, key: int) -> int:
        """Count one more; returns how many there were before."""
        publisher, number = key >> _BITS, key & _NUMBERS
        counts = self._counts.setdefault(publisher, bytearray())
        if number >= len(counts):
            counts.extend(bytes(number + 1024 - len(counts)))
        before = counts[number]
        counts[number] = min(before + 1, 255)
        return before

    def __getitem__(self, key: int) -> int:
        counts = self._counts.get(key >> _BITS, b"")
        number = key & _NUMBERS
        return counts[number] if number < len(counts) else 0

    def total(self) -> int:
        """How many different messages were counted."""
        return sum(len(counts) - counts.count(0) for counts in self._counts.values())

    def repeats(self) -> int:
        """How often a message was counted once more than once."""
        return sum(count - 1 for counts in self._counts.values() for count in counts if count > 1)


class Flow:
    """Everything published to one destination, and who saw it.

    `confirmed` holds the keys in the order of their confirmation, which is an order the broker kept too: whoever
    began to publish after a confirmation is behind it in every queue.
    """

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.confirmed = array("Q")
        #: Delivered although the publisher was told that it was not sent, or was refused.
        self.wrong: list[str] = []
        self._outcomes: list[bytearray] = []
        self._begun: list[array[float]] = []
        self._ended: list[array[float]] = []
        self._sightings: list[Marks] = []

    def new_publisher(self) -> int:
        """A publisher, who sends one message at a time."""
        self._outcomes.append(bytearray())
        self._begun.append(array("d"))
        self._ended.append(array("d"))
        return len(self._outcomes) - 1

    def watch(self) -> Marks:
        """Marks of a new observer: what is marked there was delivered to somebody."""
        marks = Marks()
        self._sightings.append(marks)
        return marks

    def begin(self, publisher: int, now: float) -> int:
        """A publish begins; the key of its message."""
        self._outcomes[publisher].append(Outcome.PENDING)
        self._begun[publisher].append(now)
        self._ended[publisher].append(math.inf)
        return publisher << _BITS | len(self._outcomes[publisher]) - 1

    def end(self, key: int, outcome: Outcome, now: float) -> None:
        """The publisher was told, or will never be."""
        self._outcomes[key >> _BITS][key & _NUMBERS] = outcome
        self._ended[key >> _BITS][key & _NUMBERS] = now
        if outcome is Outcome.CONFIRMED:
            self.confirmed.append(key)
        elif any(marks[key] for marks in self._sightings):
            self.judge(key)

    def judge(self, key: int) -> None:
        """A message was delivered: wrong where its publisher was told that it never would be."""
        outcome = self.outcome(key)
        if outcome in NEVER_DELIVERED:
            self.wrong.append(f"{self.destination} {name(key)} was delivered and is {outcome.name.lower()}")

    def outcome(self, key: int) -> Outcome:
        """Raises IndexError for what was never published."""
        return Outcome(self._outcomes[key >> _BITS][key & _NUMBERS])

    def begun(self, key: int) -> float:
        """When its publish began."""
        return self._begun[key >> _BITS][key & _NUMBERS]

    def ended(self, key: int) -> float:
        """When its publisher was told; infinity before."""
        return self._ended[key >> _BITS][key & _NUMBERS]

    def counts(self) -> Counter[str]:
        """Messages by outcome, and `sent`: all of them."""
        found = Counter({outcome.name.lower(): sum(o.count(outcome) for o in self._outcomes) for outcome in Outcome})
        found["sent"] = sum(map(len, self._outcomes))
        return found


class QueueBooks:
    """A Queue: what its readers got, and what was left in it at the end."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.delivered = flow.watch()
        self.left = flow.watch()
        #: Delivered again without the broker's word that it was.
        self.unmarked = 0
        self.foreign = 0

    def deliver(self, body: str, *, redelivered: bool) -> None:
        """A reader got it."""
        key = self._key(body)
        if key is not None:
            self.unmarked += self.delivered.add(key) > 0 and not redelivered
            self.flow.judge(key)

    def leave(self, body: str) -> None:
        """It was in the queue at the end."""
        key = self._key(body)
        if key is not None:
            self.left.add(key)
            self.flow.judge(key)

    def _key(self, body: str) -> int | None:
        try:
            key = decode(body)
            self.flow.outcome(key)
        except (ValueError, IndexError):
            self.foreign += 1
            return None
        return key

    def lost(self) -> list[str]:
        """Confirmed, and neither delivered nor left."""
        return [name(key) for key in self.flow.confirmed if not (self.delivered[key] or self.left[key])]
