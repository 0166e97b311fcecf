"""Who keeps ending the connection."""

from __future__ import annotations

import pytest

from app.connectors.stomp import suspects
from app.connectors.stomp.suspects import ENDS, REST, WINDOW, Suspects


def test_three_ends_within_the_window_are_no_accident() -> None:
    known = Suspects()
    assert known.ended("link", ["/queue/a", "/queue/b"], 0) == []
    assert known.ended("link", ["/queue/a"], 1) == []
    assert known.rest("/queue/a", 1) == 0
    assert known.ended("link", ["/queue/a", "/queue/b"], 2) == ["/queue/a"]
    assert known.rest("/queue/a", 2) == REST
    assert known.rest("/queue/b", 2) == 0


def test_a_rest_ends_and_then_it_takes_three_again() -> None:
    known = Suspects()
    for now in range(ENDS):
        known.ended("link", ["/queue/a"], now)
    assert known.rest("/queue/a", 2 + REST - 1) == 1
    assert known.rest("/queue/a", 2 + REST) == 0
    assert known.ended("link", ["/queue/a"], 2 + REST) == []


def test_ends_that_lie_far_apart_accuse_nobody() -> None:
    known = Suspects()
    for number in range(10):
        assert known.ended("link", ["/queue/a"], number * (WINDOW / 2 + 1)) == []


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MAX_SUSPECTS", 2)
    known = Suspects()
    for _ in range(2):
        known.ended("link", ["/queue/old"], 0)
    known.ended("link", ["/queue/1", "/queue/2"], 0)
    assert known.ended("link", ["/queue/old"], 0) == []


def test_what_has_rested_is_forgotten_though_nobody_asks() -> None:
    known = Suspects()
    for number in range(50):
        for second in range(ENDS):
            known.ended("link", [f"/queue/{number}"], number * (REST + 1) + second)
    assert len(known._resting) <= 1


def test_one_incident_of_several_links_is_one_end_of_each() -> None:
    known = Suspects()
    for second in range(ENDS - 1):
        for link in ("one", "two", "three"):
            assert known.ended(link, ["/queue/a"], second) == []
    assert known.ended("two", ["/queue/a"], ENDS) == ["/queue/a"]
    assert known.rest("/queue/a", ENDS) == REST
