"""The witness catches what a broken gateway would do, and accuses no innocent one."""

from __future__ import annotations

import math

from tests.chaos.ledger import Flow, Outcome, encode
from tests.chaos.witness import Witness


class Script:
    """One publisher and one reader on a clock that goes on with every step."""

    def __init__(self) -> None:
        self.flow = Flow("Topics/news")
        self.witness = Witness(self.flow, "reader")
        self.publisher = self.flow.new_publisher()
        self.now = 0.0
        self.at = 0
        self.life = "epoch-1"

    def tick(self) -> float:
        self.now += 1
        return self.now

    @property
    def position(self) -> str:
        return f"{self.life}.{self.at}"

    def open(self, *, restarted: bool = False) -> None:
        self.witness.opened(self.position, self.tick(), restarted=restarted)

    def publish(self, outcome: Outcome = Outcome.CONFIRMED) -> int:
        key = self.flow.begin(self.publisher, self.tick())
        self.flow.end(key, outcome, self.tick())
        return key

    def deliver(self, *keys: int) -> None:
        for key in keys:
            self.at += 1
            self.witness.message(encode(key).decode(), self.position)

    def gap(self, reason: str) -> None:
        self.at += reason == "link_lost"
        self.witness.gap(reason, self.position, self.tick())

    def finish(self) -> None:
        self.witness.finish(self.tick())

    def verdict(self) -> tuple[int, int, int]:
        """Silent gaps, duplicates, reordered ones."""
        return self.witness.silent, self.witness.duplicated, self.witness.reordered


def opened() -> Script:
    script = Script()
    script.open()
    return script


def test_everything_came() -> None:
    script = opened()
    script.deliver(*(script.publish() for _ in range(5)))
    script.finish()
    assert script.verdict() == (0, 0, 0)
    assert script.witness.seen.total() == 5


def test_a_message_is_missing_between_two() -> None:
    script = opened()
    first, _missing, third = (script.publish() for _ in range(3))
    script.deliver(first, third)
    assert script.verdict() == (1, 0, 0)
    assert script.witness.complaints == ["reader: 0-1 was confirmed and never came"]


def test_the_last_message_is_missing() -> None:
    script = opened()
    script.deliver(script.publish())
    script.publish()
    assert script.verdict() == (0, 0, 0)
    script.finish()
    assert script.verdict() == (1, 0, 0)


def test_what_is_missing_is_known_from_another_publisher_too() -> None:
    script = opened()
    script.publish()
    script.publisher = script.flow.new_publisher()
    script.deliver(script.publish())
    assert script.verdict() == (1, 0, 0)


def test_what_was_published_before_the_stream_is_not_missed() -> None:
    script = Script()
    script.publish()
    script.open()
    script.deliver(script.publish())
    script.finish()
    assert script.verdict() == (0, 0, 0)


def test_an_announced_gap_excuses_what_is_before_it() -> None:
    script = opened()
    script.deliver(script.publish())
    script.publish()
    script.gap("link_lost")
    script.deliver(script.publish())
    script.finish()
    assert script.verdict() == (0, 0, 0)
    assert script.witness.gaps == {"link_lost": 1}


def test_a_gap_excuses_nothing_that_began_after_it() -> None:
    script = opened()
    script.gap("link_lost")
    script.publish()
    script.deliver(script.publish())
    assert script.verdict() == (1, 0, 0)


def test_a_gap_that_is_read_late_excuses_nothing_after_the_first_message_behind_it() -> None:
    script = opened()
    first, _missing, third = (script.publish() for _ in range(3))
    script.gap("link_lost")
    script.deliver(first, third)
    assert script.verdict() == (1, 0, 0)


def test_a_message_comes_twice() -> None:
    script = opened()
    key = script.publish()
    script.deliver(key, key)
    assert script.verdict() == (0, 1, 0)


def test_a_message_comes_twice_across_a_gap() -> None:
    script = opened()
    key = script.publish()
    script.deliver(key)
    script.gap("restart")
    script.deliver(key)
    assert script.verdict() == (0, 1, 0)


def test_two_messages_are_swapped() -> None:
    script = opened()
    first, second = script.publish(), script.publish()
    script.deliver(second, first)
    assert script.verdict() == (0, 0, 1)


def test_publishes_at_the_same_time_have_no_order() -> None:
    script = opened()
    first = script.flow.begin(script.publisher, script.tick())
    second = script.flow.begin(script.flow.new_publisher(), script.tick())
    script.deliver(second, first)
    for key in (first, second):
        script.flow.end(key, Outcome.CONFIRMED, script.tick())
    script.finish()
    assert script.verdict() == (0, 0, 0)


def test_unknown_messages_may_come_late_or_never() -> None:
    script = opened()
    late, _never = script.publish(Outcome.UNKNOWN), script.publish(Outcome.UNKNOWN)
    script.deliver(script.publish(), late)
    script.finish()
    assert script.verdict() == (0, 0, 0)


def test_an_unknown_message_does_not_prove_when_the_subscription_stood() -> None:
    script = opened()
    late = script.publish(Outcome.UNKNOWN)
    script.publish()
    script.gap("link_lost")
    # The old connection's frame is handled after the new subscription, the confirmed one was before it.
    script.deliver(late, script.publish())
    script.finish()
    assert script.verdict() == (0, 0, 0)


def test_positions_jump_without_a_word() -> None:
    script = opened()
    script.deliver(script.publish())
    script.at += 1
    script.deliver(script.publish())
    assert script.verdict() == (1, 0, 0)


def test_resuming_goes_on_where_it_was() -> None:
    script = opened()
    script.deliver(script.publish())
    script.open()
    script.deliver(script.publish())
    script.finish()
    assert script.verdict() == (0, 0, 0)


def test_resuming_elsewhere_is_silent() -> None:
    script = opened()
    script.at += 7
    script.open()
    script.deliver(script.publish())
    assert script.witness.silent == 1


def test_resuming_elsewhere_is_announced() -> None:
    script = opened()
    script.at += 7
    script.open()
    script.gap("expired")
    script.deliver(script.publish())
    script.finish()
    assert script.verdict() == (0, 0, 0)


def test_a_restart_must_be_told() -> None:
    script = opened()
    script.life = "epoch-2"
    script.open(restarted=True)
    script.deliver(script.publish())
    assert script.witness.silent == 1


def test_a_restart_must_be_told_as_one() -> None:
    script = opened()
    script.life = "epoch-2"
    script.open(restarted=True)
    script.gap("link_lost")
    assert script.witness.silent == 1


def test_a_restart_was_told() -> None:
    script = opened()
    script.deliver(script.publish())
    script.publish()
    script.life, script.at = "epoch-2", 0
    script.open(restarted=True)
    script.gap("restart")
    script.deliver(script.publish())
    script.finish()
    assert script.verdict() == (0, 0, 0)


def test_a_restart_nobody_told_until_the_end() -> None:
    script = opened()
    script.life = "epoch-2"
    script.open(restarted=True)
    script.finish()
    assert script.witness.silent == 1


def test_a_message_of_nobody() -> None:
    script = opened()
    script.witness.message("0-17 ", "epoch-1.1")
    script.witness.message("hello", "epoch-1.2")
    assert len(script.witness.complaints) == 2
    assert script.witness.seen.total() == 0


def test_how_much_is_still_to_come() -> None:
    script = opened()
    key = script.publish()
    assert script.witness.behind == 1
    script.deliver(key)
    assert script.witness.behind == 0
    assert math.isinf(script.flow.ended(script.flow.begin(script.publisher, script.tick())))
