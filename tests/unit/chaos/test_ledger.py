"""The ledger counts right and accuses whoever deserves it."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import Flow, Marks, Outcome, QueueBooks, decode, encode, name


class Script:
    """A Queue with one publisher."""

    def __init__(self) -> None:
        self.flow = Flow("Queues/work")
        self.books = QueueBooks(self.flow)
        self.publisher = self.flow.new_publisher()

    def publish(self, outcome: Outcome = Outcome.CONFIRMED) -> int:
        key = self.flow.begin(self.publisher, 1.0)
        self.flow.end(key, outcome, 2.0)
        return key

    def deliver(self, key: int, *, redelivered: bool = False) -> None:
        self.books.deliver(encode(key).decode(), redelivered=redelivered)

    def leave(self, key: int) -> None:
        self.books.leave(encode(key).decode())


@pytest.mark.parametrize(("publisher", "number"), [(0, 0), (3, 17), (200, 5_000_000)])
def test_bodies(publisher: int, number: int) -> None:
    key = publisher << 40 | number
    assert decode(encode(key, 100).decode()) == key
    assert len(encode(key, 100)) > 100
    assert name(key) == f"{publisher}-{number}"


def test_marks() -> None:
    marks = Marks()
    assert marks[5 << 40 | 100_000] == 0
    assert [marks.add(100_000) for _ in range(3)] == [0, 1, 2]
    assert marks.add(1 << 40) == 0
    assert (marks.total(), marks.repeats(), marks[100_000], marks[99_999]) == (2, 2, 3, 0)


def test_what_was_delivered_or_left_is_not_lost() -> None:
    script = Script()
    script.deliver(script.publish())
    script.leave(script.publish())
    script.publish(Outcome.UNKNOWN)
    script.publish(Outcome.NOT_SENT)
    assert script.books.lost() == []
    assert script.flow.wrong == []


def test_a_confirmed_message_is_lost() -> None:
    script = Script()
    script.deliver(script.publish())
    script.publish()
    assert script.books.lost() == ["0-1"]


@pytest.mark.parametrize("outcome", [Outcome.NOT_SENT, Outcome.REJECTED])
def test_what_was_not_sent_is_delivered(outcome: Outcome) -> None:
    script = Script()
    script.deliver(script.publish(outcome))
    script.leave(script.publish(outcome))
    assert len(script.flow.wrong) == 2


def test_what_was_not_sent_is_delivered_before_the_publisher_is_told() -> None:
    script = Script()
    key = script.flow.begin(script.publisher, 1.0)
    script.deliver(key)
    assert script.flow.wrong == []
    script.flow.end(key, Outcome.NOT_SENT, 2.0)
    assert script.flow.wrong == ["Queues/work 0-0 was delivered and is not_sent"]


def test_delivered_again() -> None:
    script = Script()
    marked, unmarked = script.publish(), script.publish()
    script.deliver(marked)
    script.deliver(marked, redelivered=True)
    script.deliver(unmarked)
    script.deliver(unmarked)
    assert (script.books.delivered.repeats(), script.books.unmarked) == (2, 1)


def test_foreign_messages() -> None:
    script = Script()
    script.books.leave("hello")
    script.books.leave("7-7 ")
    assert script.books.foreign == 2
    assert script.books.left.total() == 0


def test_counts() -> None:
    script = Script()
    for outcome in (Outcome.CONFIRMED, Outcome.CONFIRMED, Outcome.UNKNOWN):
        script.publish(outcome)
    script.flow.begin(script.publisher, 3.0)
    counts = script.flow.counts()
    assert (counts["sent"], counts["confirmed"], counts["unknown"], counts["pending"]) == (4, 2, 1, 1)
