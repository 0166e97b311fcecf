"""Pauses between attempts."""

from __future__ import annotations

from app.client.pausing import FIRST_PAUSE, LONGEST_PAUSE, Pauses


def test_they_grow_to_a_bound() -> None:
    pauses = Pauses()
    wanted = [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(12)]
    for most in wanted:
        assert most / 2 <= pauses.next() <= most
    assert wanted[-1] == LONGEST_PAUSE


def test_the_gateway_may_ask_for_more_within_reason() -> None:
    assert Pauses().next(7) == 7
    assert Pauses().next(9999) == 60
    assert Pauses().next(0) > 0


def test_they_are_spread() -> None:
    assert len({Pauses().next() for _ in range(20)}) > 1
