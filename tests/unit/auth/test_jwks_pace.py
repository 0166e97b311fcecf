"""How often an issuer is asked."""

from __future__ import annotations

import pytest

from app.auth.jwks_pace import FetchPace
from tests.unit.auth.jwt_issuer import Clock


class Paced:
    """A pace with its clock; tokens with unknown keys come all the time."""

    def __init__(self, refresh: float = 300.0) -> None:
        self.clock = Clock(0.0)
        self.pace = FetchPace(refresh, clock=self.clock)

    def rest(self) -> int:
        """Whole seconds until the next question may be, which is then the time."""
        start = self.clock.now
        while not self.pace.may_fetch:
            self.clock.now += 1
        return round(self.clock.now - start)


def test_the_first_may_be_at_once() -> None:
    paced = Paced()
    assert paced.pace.may_fetch
    assert paced.pace.until_due == 0


@pytest.mark.parametrize("what", ["asked in vain", "failed"])
def test_rests_double_up_to_a_minute(what: str) -> None:
    paced, rests = Paced(), []
    for _ in range(9):
        if what == "failed":
            paced.pace.failed()
        else:
            paced.pace.brought_none(asked=True)
        rests.append(paced.rest())
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_news_begin_anew() -> None:
    paced = Paced()
    for _ in range(8):
        paced.pace.brought_none(asked=True)
        paced.rest()
    paced.pace.brought_news()
    assert paced.rest() == 1
    paced.pace.brought_none(asked=True)
    assert paced.rest() == 1


def test_what_nobody_asked_for_makes_no_rest_longer() -> None:
    paced = Paced()
    for _ in range(9):
        paced.pace.brought_none(asked=False)
        assert paced.rest() == 1


def test_what_nobody_asked_for_makes_no_rest_shorter() -> None:
    paced = Paced()
    for _ in range(6):
        paced.pace.brought_none(asked=True)
        paced.rest()
    paced.pace.brought_none(asked=True)
    paced.pace.brought_none(asked=False)
    assert paced.rest() == 60


def test_it_is_due_before_the_refresh_is_over_and_not_much_before() -> None:
    paced = Paced(refresh=300)
    found = set()
    for _ in range(20):
        paced.pace.brought_none(asked=False)
        found.add(paced.pace.until_due)
    assert 270 <= min(found) <= max(found) <= 300
    assert len(found) > 1


def test_after_a_failure_it_is_due_sooner() -> None:
    paced = Paced(refresh=30)
    dues = []
    for _ in range(8):
        paced.pace.failed()
        dues.append(paced.pace.until_due)
    assert dues[0] <= 1
    assert max(dues) <= 30
