"""How slowly a body may come."""

from __future__ import annotations

import math

import pytest

from app.domain.pace import BODY_RATE, time_left


@pytest.mark.parametrize(
    ("left", "size", "expected"),
    [
        (75, 0, 75),
        (75, 1 << 20, 75),  # a burst is not saved up
        (10, 0, 10),  # a piece without bytes earns nothing
        (10, BODY_RATE, 11),
        (10, BODY_RATE * 64, 74),
        (10, BODY_RATE * 66, 75),
        (-0.5, BODY_RATE, 0.5),  # it came just before the deadline was looked at
        (0, math.inf, 75),
        (math.inf, 1, 75),
    ],
)
def test_what_comes_earns_time_up_to_the_patience(left: float, size: float, expected: float) -> None:
    assert time_left(left, size, 75) == expected


@pytest.mark.parametrize(
    ("piece", "every", "whole"),
    [
        (1, 1.0, False),  # a drip
        (1, 74.9, False),
        (100, 0.5, False),
        (BODY_RATE, 1.0, True),  # a slow line
        (BODY_RATE * 2 // 10, 0.2, True),
        (BODY_RATE * 74, 74.0, True),  # a line that stops for a minute and then catches up
        (64 << 10, 0.001, True),
    ],
)
def test_four_mib_come_whole_at_the_rate_and_not_below(piece: int, every: float, whole: bool) -> None:
    left, size = 75.0, 0
    while left >= every and size < 4 << 20:
        left = time_left(left - every, piece, 75)
        size += piece
    assert (size >= 4 << 20) is whole
    if not whole:
        assert size < 20_000
