"""What is signed for browsers: what it says, and what is none."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from app.auth.sealed import MAX_CHARACTERS, Seal, SealError, TooLarge
from app.domain.principal import Principal
from tests.unit.auth.moments import somebody

KEY = b"k" * 32
SEAL = Seal(KEY, "session")


def _made(principal: Principal | None = None, seconds: float = 10, **more: Any) -> str:
    groups = more.pop("groups", ())
    return SEAL.make(principal or somebody(), until=time.time() + seconds, groups=groups, claims={"vo": "x"}, **more)


def _refusal(text: str, seal: Seal = SEAL) -> str:
    with pytest.raises(SealError) as refused:
        seal.open(text)
    return refused.value.reason


def test_it_says_whose_it_is() -> None:
    until = time.time() + 100
    principal = somebody(groups=frozenset("ab"), claims={"secret": 1}, until=until)
    opened = SEAL.open(_made(principal, session="s", groups=["a"], extra=[1]))
    found = opened.principal
    assert (found.name, found.way, found.label, found.credential) == ("alice", "token", "alice", "token:alice:0")
    assert (found.groups, found.claims, found.until, found.session) == (frozenset("a"), {"vo": "x"}, until, "s")
    assert opened.more["extra"] == [1]
    assert opened.id


def test_no_two_are_the_same() -> None:
    assert SEAL.open(_made()).id != SEAL.open(_made()).id


def test_its_time() -> None:
    text = _made(seconds=-1)
    assert _refusal(text) == "expired"
    assert SEAL.open(text, at=0.0).principal.name == "alice"


@pytest.mark.parametrize("seal", [Seal(KEY, "ticket"), Seal(b"o" * 32, "session")])
def test_another_purpose_and_another_key_open_nothing(seal: Seal) -> None:
    assert _refusal(_made(), seal) in ("malformed", "signature")


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "a" * (MAX_CHARACTERS + 1), "\xff.\xff.\xff", "\u2028"])
def test_what_is_no_seal(text: str) -> None:
    assert _refusal(text) == "malformed"


@pytest.mark.parametrize(
    "changes",
    [{"exp": None}, {"exp": "soon"}, {"aud": None}, {"sub": 1}, {"groups": None}, {"groups": 1}, {"label": None},
     {"end": ...}, {"session": ...}, {"claims": ...}, {"jti": ...}],
)  # fmt: skip
def test_what_another_version_signed_is_refused_and_breaks_nothing(changes: dict[str, Any]) -> None:
    said = jwt.decode(_made(), options={"verify_signature": False})
    said |= changes
    said = {name: value for name, value in said.items() if value is not ... and value is not None}
    assert _refusal(jwt.encode(said, KEY, "HS256")) == "malformed"


def test_what_does_not_fit_into_a_cookie() -> None:
    with pytest.raises(TooLarge):
        _made(groups=[f"a-long-name-of-a-group-{number}" for number in range(200)])


def test_an_algorithm_that_was_not_asked_for() -> None:
    said = jwt.decode(_made(), options={"verify_signature": False})
    assert _refusal(jwt.encode(said, KEY * 2, "HS512")) == "malformed"
    assert _refusal(jwt.encode(said, "", "none")) == "malformed"
