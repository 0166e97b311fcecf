"""The plan of faults: whole, bounded, and the same for the same seed."""

from __future__ import annotations

import itertools

import pytest

from tests.chaos.faults import KINDS, plan, tail
from tests.chaos.vitals import MIB, Vitals, slope

SEEDS = range(30)


@pytest.mark.parametrize("seconds", [180, 600, 3600])
def test_every_kind_at_least_once(seconds: int) -> None:
    for seed in SEEDS:
        assert {fault.kind for fault in plan(seed, seconds)} == set(KINDS)


@pytest.mark.parametrize("seconds", [30, 60, 180, 3600])
def test_in_time_and_in_order(seconds: int) -> None:
    for seed in SEEDS:
        faults = plan(seed, seconds)
        assert faults == sorted(faults, key=lambda fault: fault.at)
        assert faults[-1].at <= seconds - tail(seconds)
        assert max(fault.at for fault in faults if fault.kind == "gateway restarted") <= seconds / 3


def test_connections_are_not_closed_so_often_that_innocents_rest() -> None:
    for seed in SEEDS:
        closes = [fault.at for fault in plan(seed, 3600) if fault.kind == "connections closed"]
        assert min(later - earlier for earlier, later in itertools.pairwise(closes)) > 30


def test_the_seed_decides() -> None:
    assert plan(7, 600) == plan(7, 600)
    assert plan(7, 600) != plan(8, 600)


def test_slope_in_mib_per_ten_minutes() -> None:
    samples = [
        Vitals(at, rss=50 * MIB + int(at * MIB / 60), descriptors=1, threads=1, cpu=0) for at in range(0, 300, 5)
    ]
    assert slope(samples) == pytest.approx(10, rel=1e-3)
    assert slope(samples[:2]) == 0
