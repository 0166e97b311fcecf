"""Places by who has them."""

from __future__ import annotations

import pytest

from app.auth.places import Places
from app.domain.errors import TooManyStreams


def test_each_has_as_many_as_there_are() -> None:
    places = Places(2, "this principal")
    with places.one("a"), places.one("a"), places.one("b"):
        assert places.taken == {"a": 2, "b": 1}
        with pytest.raises(TooManyStreams, match="2 event streams of this principal"), places.one("a"):
            pass
        assert places.taken == {"a": 2, "b": 1}
    assert not places.taken


def test_a_block_that_fails_gives_its_place_back() -> None:
    places = Places(1, "this principal")
    with pytest.raises(RuntimeError), places.one("a"):
        raise RuntimeError
    with places.one("a"):
        assert places.taken == {"a": 1}


def test_without_an_end() -> None:
    places = Places(None, "this address")
    with places.one("a"), places.one("a"), places.one("a"):
        assert places.taken == {"a": 3}
    assert not places.taken


def test_nobody_is_remembered_for_having_been_refused() -> None:
    places = Places(1, "this principal")
    for number in range(1000):
        with places.one(f"{number}"):
            pass
    assert not places.taken
