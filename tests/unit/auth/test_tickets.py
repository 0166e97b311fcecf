"""When a ticket opens a stream."""

from __future__ import annotations

import time

import pytest

from app.auth import tickets as module
from app.auth.sealed import Seal, Sealed, SealError
from app.auth.tickets import OPEN_SECONDS, RETURN_SECONDS, Tickets
from app.domain.errors import TooManyStreams
from tests.unit.auth.moments import Clock, somebody

NEWS = ["demo::Topics::news"]


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def seal() -> Seal:
    return Seal(b"k" * 32, "ticket")


@pytest.fixture
def tickets(seal: Seal, clock: Clock) -> Tickets:
    return Tickets(seal, clock)


def _made(seal: Seal, clock: Clock, uris: object = NEWS) -> str:
    return seal.make(somebody(), until=clock.now + OPEN_SECONDS, groups=(), claims={}, uris=uris)


def _refusal(tickets: Tickets, text: str, uris: list[str] = NEWS, *, returning: bool = False) -> str:
    with pytest.raises(SealError) as refused:
        tickets.check(text, uris, returning=returning)
    return refused.value.reason


def _check(tickets: Tickets, text: str, *, returning: bool = False) -> Sealed:
    return tickets.check(text, NEWS, returning=returning)


def test_it_is_good_for_half_a_minute(tickets: Tickets, seal: Seal, clock: Clock) -> None:
    text = _made(seal, clock)
    clock.now += OPEN_SECONDS - 0.1
    assert _check(tickets, text).principal.name == "alice"
    assert _check(tickets, text, returning=True)
    clock.now += 0.1
    assert _refusal(tickets, text) == "expired"
    assert _refusal(tickets, text, returning=True) == "expired"


def test_once_opened_it_is_for_coming_back_only(tickets: Tickets, seal: Seal, clock: Clock) -> None:
    text = _made(seal, clock)
    end = tickets.use(_check(tickets, text))
    for returning in (False, True):
        assert _refusal(tickets, text, returning=returning) == "ticket"
    clock.now += 10_000
    assert _refusal(tickets, text, returning=True) == "ticket"
    end(True)
    assert _refusal(tickets, text) == "ticket"
    clock.now += RETURN_SECONDS - 0.1
    again = tickets.use(_check(tickets, text, returning=True))
    assert _refusal(tickets, text, returning=True) == "ticket"
    again(True)
    clock.now += RETURN_SECONDS
    assert _refusal(tickets, text, returning=True) == "ticket"


def test_of_two_that_were_both_checked_one_opens(tickets: Tickets, seal: Seal, clock: Clock) -> None:
    ticket = _check(tickets, _made(seal, clock))
    tickets.use(ticket)
    with pytest.raises(SealError, match="ticket"):
        tickets.use(ticket)


def test_where_no_stream_came_of_it_nothing_was_used(tickets: Tickets, seal: Seal, clock: Clock) -> None:
    text = _made(seal, clock)
    tickets.use(_check(tickets, text))(False)
    tickets.use(_check(tickets, text))(True)
    clock.now += RETURN_SECONDS - 1
    tickets.use(_check(tickets, text, returning=True))(False)
    _check(tickets, text, returning=True)
    clock.now += 1
    assert _refusal(tickets, text, returning=True) == "ticket"


@pytest.mark.parametrize(
    "uris",
    [[], ["demo::Topics::other"], [*NEWS, "demo::Topics::other"], ["demo::Topics::news "], ["demo::topics::news"]],
)
def test_it_is_for_exactly_what_it_names(tickets: Tickets, seal: Seal, clock: Clock, uris: list[str]) -> None:
    assert _refusal(tickets, _made(seal, clock), uris) == "ticket"
    assert _refusal(tickets, _made(seal, clock, [*NEWS, "demo::Topics::more"])) == "ticket"


@pytest.mark.parametrize("named", [None, "demo::Topics::news", {"demo::Topics::news": 1}, []])
def test_one_that_names_nothing_opens_nothing(tickets: Tickets, seal: Seal, clock: Clock, named: object) -> None:
    assert _refusal(tickets, _made(seal, clock, named)) == "ticket"


def test_only_so_many_are_remembered_and_none_is_forgotten_that_could_be_used_again(
    tickets: Tickets, seal: Seal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IN_USE", 4)
    first = _made(seal, clock)
    end = tickets.use(_check(tickets, first))
    others = [tickets.use(_check(tickets, _made(seal, clock))) for _ in range(3)]
    with pytest.raises(TooManyStreams):
        tickets.use(_check(tickets, _made(seal, clock)))
    end(True)
    with pytest.raises(TooManyStreams):
        tickets.use(_check(tickets, _made(seal, clock)))
    assert _refusal(tickets, first) == "ticket"
    clock.now += max(RETURN_SECONDS, OPEN_SECONDS)
    tickets.use(_check(tickets, _made(seal, clock)))(True)
    assert len(tickets._uses) == 4
    assert _refusal(tickets, first, returning=True) == "expired"
    for other in others:
        other(True)
