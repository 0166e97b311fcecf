"""A bucket for each: what may be sent now, and when the next."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth import rates
from app.auth.rates import MAX_BUCKETS, Rate, Rates
from app.domain.errors import RateLimited
from tests.unit.auth.moments import Clock


def test_as_many_at_once_as_in_a_second_and_then_one_by_one() -> None:
    clock = Clock()
    rate = Rate(4, "messages", clock)
    for _ in range(4):
        rate.check("a")
        rate.take("a", 1)
    with pytest.raises(RateLimited, match="more than 4 messages a second") as refused:
        rate.check("a")
    assert refused.value.retry_after == pytest.approx(0.25)
    rate.check("b")
    clock.now += 0.24
    assert rate.wait("a") > 0
    clock.now += 0.0101
    assert rate.wait("a") == 0
    clock.now += 1000
    for _ in range(4):
        rate.take("a", 1)
    assert rate.wait("a") > 0, "what was not used does not gather"


def test_without_a_rate_nobody_is_remembered() -> None:
    rate = Rate(None, "messages", Clock())
    rate.take("a", 1e12)
    rate.check("a")
    assert not rate.is_limited
    assert not rate._buckets


@given(st.floats(0.001, 1e9), st.lists(st.floats(0, 1e9), min_size=1, max_size=20))
def test_whoever_waits_as_told_may_send_and_has_no_more_than_the_rate(per_second: float, sizes: list[float]) -> None:
    clock = Clock()
    began = clock.now
    rate = Rate(per_second, "bytes", clock)
    for size in sizes:
        clock.now += rate.wait("a") + 1e-6  # no clock is finer than that
        assert rate.wait("a") == 0
        rate.take("a", size)
    burst = max(1.0, per_second)
    most = burst + (clock.now - began) * per_second
    assert sum(sizes[:-1]) <= most * (1 + 1e-6) + 1


def test_100_000_principals_are_no_100_000_buckets() -> None:
    clock = Clock()
    rate = Rate(1, "messages", clock)
    for number in range(100_000):
        rate.check(f"{number}")
        rate.take(f"{number}", 1)
    assert len(rate._buckets) == MAX_BUCKETS
    with pytest.raises(RateLimited):
        rate.check("99999")


def test_whoever_comes_often_is_not_forgotten_for_others() -> None:
    rate = Rate(1, "messages", Clock())
    rate.take("a", 1000)
    for number in range(3 * MAX_BUCKETS):
        rate.take(f"{number}", 1)
        if number % 1000 == 0:
            assert rate.wait("a") > 0


@pytest.mark.parametrize(("messages", "size"), [(1.0, None), (None, 1.0), (1.0, 1e6), (1e6, 1.0)])
def test_either_rate_refuses(messages: float | None, size: float | None) -> None:
    both = Rates(messages, size)
    assert both.are_limited
    both.take("a", 1, 1)
    with pytest.raises(RateLimited):
        both.check("a")
    with pytest.raises(RateLimited):
        both.take("a", 1, 1)
    both.check("b")


def test_what_was_refused_is_not_counted() -> None:
    both = Rates(1, None)
    both.take("a", 1, 0)
    for _ in range(100):
        with pytest.raises(RateLimited) as refused:
            both.take("a", 1, 0)
    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= 1


async def test_pace_waits_for_the_turn() -> None:
    both = Rates(20, None)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(24):
        await both.pace("a")
        both.take("a", 1, 0)
    assert loop.time() - began >= 0.19


def test_limits_that_are_none() -> None:
    both = Rates(None, None)
    assert not both.are_limited
    both.check("a")
    both.take("a", 10, math.ceil(1e9))
    assert rates.BURST_SECONDS == 1.0
