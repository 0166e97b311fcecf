"""Sessions: when one is over."""

from __future__ import annotations

import time

import pytest

from app.auth import sessions as module
from app.auth.sealed import Seal, SealError
from app.auth.sessions import Sessions
from app.domain.principal import Principal
from tests.unit.auth.moments import Clock, somebody

SEAL = Seal(b"k" * 32, "session")


def _made(principal: Principal, seconds: float = 100) -> str:
    return SEAL.make(principal, until=time.time() + seconds, groups=(), claims={})


@pytest.mark.parametrize(("own", "token", "ends"), [(100, None, 100), (100, 10, 10), (10, 100, 10)])
def test_it_ends_with_whichever_is_first(own: float, token: float | None, ends: float) -> None:
    now = time.time()
    principal = Sessions(SEAL).open(_made(somebody(until=None if token is None else now + token), own))
    assert principal.until == pytest.approx(now + ends, abs=1)
    assert principal.session


def test_the_same_cookie_is_the_same_principal() -> None:
    """By which decisions are remembered."""
    sessions, text = Sessions(SEAL), _made(somebody())
    assert sessions.open(text) is sessions.open(text)
    with pytest.raises(SealError):
        sessions.open(text + "x")


def test_one_that_was_ended_is_over_and_no_other() -> None:
    sessions = Sessions(SEAL)
    one, other = (sessions.open(_made(somebody())) for _ in range(2))
    sessions.end(one)
    sessions.end(one)
    sessions.end(somebody())
    assert [sessions.has_ended(each) for each in (one, other, somebody())] == [True, False, False]


def test_only_so_many_are_remembered_and_none_longer_than_it_would_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OF_ONE", 3)
    clock = Clock(time.time())
    sessions = Sessions(SEAL, clock)
    opened = [sessions.open(_made(somebody())) for _ in range(5)]
    for each in opened:
        sessions.end(each)
    assert [sessions.has_ended(each) for each in opened] == [False, False, True, True, True]
    clock.now += 1000
    sessions.end(opened[0])
    assert not any(sessions.has_ended(each) for each in opened)


def test_nobody_makes_the_ends_of_others_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OF_ONE", 10)
    sessions = Sessions(SEAL)
    victim = sessions.open(_made(somebody("victim")))
    sessions.end(victim)
    for _ in range(50):
        sessions.end(sessions.open(_made(somebody("attacker"))))
    assert sessions.has_ended(victim)


def test_of_all_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENDED", 3)
    sessions = Sessions(SEAL)
    opened = [sessions.open(_made(somebody(f"p{number}"))) for number in range(5)]
    assert [sessions.end(each) for each in opened] == [True] * 5
    assert [sessions.has_ended(each) for each in opened] == [False, False, True, True, True]
    assert not sessions.end(opened[4]), "it was over"
    assert not sessions.end(somebody())
