"""One deadline that moves: when it fires, and how few timers it takes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from app.http1.deadline import Deadline


class Handle:
    def __init__(self, when: float, callback: Callable[[], Any]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """A loop whose time the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], Any]) -> Handle:
        self.timers.append(Handle(when, callback))
        return self.timers[-1]

    def move(self, seconds: float) -> None:
        self.now += seconds
        for timer in [each for each in self.timers if each.when <= self.now]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.callback()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fired() -> list[float]:
    return []


@pytest.fixture
def deadline(clock: Clock, fired: list[float]) -> Deadline:
    loop: Any = clock
    assert not isinstance(loop, asyncio.AbstractEventLoop)
    return Deadline(loop, lambda: fired.append(clock.now))


def test_fires_once_when_due(clock: Clock, deadline: Deadline, fired: list[float]) -> None:
    deadline.start(10)
    clock.move(9.9)
    assert not fired
    clock.move(0.1)
    clock.move(1000)
    assert fired == [110]


def test_moving_it_away_takes_no_new_timer(clock: Clock, deadline: Deadline, fired: list[float]) -> None:
    for _ in range(9):
        deadline.start(10)
        clock.move(1)
    assert len(clock.timers) == 1
    clock.move(1)
    assert (fired, len(clock.timers)) == ([], 1)
    clock.move(8)
    assert fired == [118]


def test_moving_it_closer_replaces_the_timer(clock: Clock, deadline: Deadline, fired: list[float]) -> None:
    deadline.start(10)
    deadline.start(2)
    clock.move(2)
    assert fired == [102]
    clock.move(100)
    assert fired == [102]


def test_a_lifted_one_does_not_fire_until_it_is_started_again(
    clock: Clock, deadline: Deadline, fired: list[float]
) -> None:
    deadline.start(10)
    deadline.lift()
    clock.move(20)
    assert (fired, clock.timers) == ([], [])
    deadline.start(5)
    clock.move(5)
    assert fired == [125]


def test_tells_what_is_left(clock: Clock, deadline: Deadline) -> None:
    assert deadline.left() == math.inf
    deadline.start(10)
    clock.now += 4
    assert deadline.left() == 6
    clock.now += 7
    assert deadline.left() == -1
    deadline.lift()
    assert deadline.left() == math.inf


def test_a_released_one_leaves_nothing_behind(clock: Clock, deadline: Deadline, fired: list[float]) -> None:
    deadline.release()
    deadline.start(10)
    deadline.release()
    assert clock.timers[0].cancelled
    clock.move(20)
    assert fired == []
