"""The bytes this process may hold."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from app.domain.errors import Overloaded
from app.gateway.budget import Budget


class Elsewhere:
    """Rings: they hold, are counted, and give way."""

    def __init__(self, held: int = 0) -> None:
        self.held = held
        self.counted = 0
        self.asked: list[int] = []
        self.least = 0

    def count(self) -> int:
        self.counted += 1
        return self.held

    def give_way(self, wanted: int) -> None:
        self.asked.append(wanted)
        self.held = max(self.least, self.held - wanted)


def test_what_is_reserved_is_held_until_the_end_of_the_block() -> None:
    budget = Budget(100, int)
    with budget.reserve("a", 60), budget.reserve("b", 40):
        assert budget.reserved == 100
        with pytest.raises(Overloaded) as caught, budget.reserve("c", 1):
            raise AssertionError("not reached")
        assert caught.value.retry_after == 1
    assert budget.reserved == 0


def test_an_error_inside_the_block_frees_it() -> None:
    budget = Budget(100, int)
    with pytest.raises(KeyError), budget.reserve("a", 60):
        raise KeyError
    assert budget.reserved == 0


def test_what_grows_is_held_until_the_end_of_the_block() -> None:
    budget = Budget(100, int)
    with budget.holding("a") as held:
        assert budget.reserved == 0
        held.grow(60)
        held.grow(0)
        held.grow(20)
        assert (held.size, budget.reserved) == (80, 80)
    assert budget.reserved == 0


def test_what_cannot_grow_holds_on_to_what_it_has() -> None:
    budget = Budget(100, int)
    with budget.reserve("a", 30), budget.holding("b") as held:
        held.grow(50)
        with pytest.raises(Overloaded):
            held.grow(21)
        assert (held.size, budget.reserved) == (50, 80)
        held.grow(6)
    assert budget.reserved == 0


def test_an_error_while_it_grows_frees_it() -> None:
    budget = Budget(100, int)

    def fail() -> None:
        with budget.holding("a") as held:
            held.grow(60)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert budget.reserved == 0


def test_rings_give_way_to_what_grows() -> None:
    rings = Elsewhere(held=95)
    with Budget(100, rings.count, rings.give_way).holding("a") as held:
        held.grow(5)
        held.grow(15)
        assert rings.asked == [20]  # and a quarter of what it then holds stays free


def test_what_is_held_elsewhere_counts() -> None:
    budget = Budget(100, Elsewhere(held=70).count)
    with budget.reserve("a", 30):
        pass
    with pytest.raises(Overloaded), budget.reserve("a", 31):
        raise AssertionError("not reached")


def test_rings_give_way_before_anybody_is_refused() -> None:
    rings = Elsewhere(held=95)
    budget = Budget(100, rings.count, rings.give_way)
    with budget.reserve("a", 20):
        assert rings.asked == [15]
        assert rings.held == 80


def test_rings_that_cannot_give_enough_are_not_emptied_for_nothing() -> None:
    rings = Elsewhere(held=30)
    budget = Budget(100, rings.count, rings.give_way)
    with budget.reserve("a", 90), pytest.raises(Overloaded), budget.reserve("b", 101):
        raise AssertionError("not reached")
    assert rings.asked == [20]
    assert budget.reserved == 0


def test_what_rings_keep_for_themselves_refuses() -> None:
    rings = Elsewhere(held=95)
    rings.least = 90
    with pytest.raises(Overloaded), Budget(100, rings.count, rings.give_way).reserve("a", 20):
        raise AssertionError("not reached")


def test_counting_is_not_done_for_every_body(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    rings = Elsewhere(held=10)
    budget = Budget(1000, rings.count)
    for _ in range(50):
        with budget.reserve("a", 1):
            pass
    assert rings.counted == 1
    now[0] += 1
    with budget.reserve("a", 1):
        assert rings.counted == 2


def test_before_a_refusal_it_is_counted_anew() -> None:
    rings = Elsewhere(held=90)
    budget = Budget(100, rings.count)
    with budget.reserve("a", 5):
        pass
    rings.held = 0
    with budget.reserve("a", 50):
        assert budget.reserved == 50


def test_rings_that_grow_give_way_with_some_to_spare() -> None:
    rings = Elsewhere()
    budget = Budget(1 << 20, rings.count, rings.give_way)
    with budget.reserve("a", 1000):
        for _ in range(300):
            rings.held += 4096
            budget.grew(4096)
            assert rings.held + 1000 < (1 << 20) + 65_536 + 4096
    assert rings.held > (1 << 20) - 2 * 65_536
    assert len(rings.asked) < 300 * 4096 / 65_536 / 2
    assert min(rings.asked) > (1 << 20) // 64


def test_rings_that_change_without_growing_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    rings = Elsewhere()
    budget = Budget(1 << 20, rings.count, rings.give_way)
    for _ in range(1000):
        budget.grew(50_000)
        budget.grew(-50_000)
    assert rings.counted == 0
    budget.grew(65_536)
    budget.grew(65_536)
    assert rings.counted == 1


def test_what_only_seems_too_much_is_counted_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    rings = Elsewhere(held=10)
    budget = Budget(100_000, rings.count, rings.give_way)
    budget.grew(80_000)
    budget.grew(80_000)
    budget.grew(80_000)
    assert rings.counted == 2
    assert rings.asked == []


def test_a_service_never_takes_what_the_others_need() -> None:
    budget = Budget(1000, int)
    with ExitStack() as hog:
        while budget.reserved < 800:
            hog.enter_context(budget.reserve("dead", 10))
        with pytest.raises(Overloaded, match="publishes to dead hold 800 bytes"):
            hog.enter_context(budget.reserve("dead", 10))
        with budget.reserve("alive", 100), budget.reserve("alive", 10):
            pass
        # Two such leave something for a third, whoever came first.
        with ExitStack() as second:
            while budget.reserved < 960:
                second.enter_context(budget.reserve("dying", 10))
            with pytest.raises(Overloaded, match="publishes to dying"):
                second.enter_context(budget.reserve("dying", 10))
            with budget.reserve("alive", 10):
                pass
    assert budget.reserved == 0
    assert budget._shares == {}


def test_the_first_of_a_service_may_have_all_that_is_free() -> None:
    budget = Budget(1000, int)
    with budget.reserve("a", 1000):
        pass


def test_rings_give_way_before_a_share_is_too_large() -> None:
    rings = Elsewhere(held=900)
    budget = Budget(1000, rings.count, rings.give_way)
    with budget.reserve("a", 80), budget.reserve("a", 20):
        assert rings.held <= 1000 - 100 - 25


def test_what_is_released_can_be_held_by_others() -> None:
    budget = Budget(100, int)
    with budget.holding("svc") as held:
        held.grow(60)
        held.release()
        assert (held.size, budget.reserved) == (0, 0)
        held.grow(40)
        assert budget.reserved == 40
    assert budget.reserved == 0
