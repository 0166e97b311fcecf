"""What goes on after its request was allowed, and when it is looked at again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from app.auth import lasting
from app.auth.lasting import Lasting
from app.domain.principal import Principal
from tests.unit.auth.moments import somebody


class Rights:
    """Whom it is not allowed any more, and why; when whose credential ends."""

    def __init__(self) -> None:
        self.objections: dict[str, str] = {}
        self.ends: dict[str, float] = {}
        self.asked = 0

    def objection(self, principal: Principal, _needs: object) -> str | None:
        self.asked += 1
        if self.ends.get(principal.name, time.time() + 1) <= time.time():
            return "expired"
        return self.objections.get(principal.name)

    def until(self, principal: Principal) -> float | None:
        return self.ends.get(principal.name)


@pytest.fixture
def rights() -> Rights:
    return Rights()


@pytest.fixture
def all_of(rights: Rights) -> Lasting:
    return Lasting(rights.objection, rights.until)


async def _reason(ends: asyncio.Queue[str]) -> str:
    async with asyncio.timeout(5):
        return await ends.get()


async def test_a_review_ends_what_is_not_allowed_and_tells_it_once(rights: Rights, all_of: Lasting) -> None:
    alice: list[str] = []
    bob: list[str] = []
    all_of.begin(somebody("alice"), (), alice.append)
    all_of.begin(somebody("bob"), (), bob.append)
    rights.objections["alice"] = "revoked"
    all_of.review()
    all_of.review()
    assert (alice, bob) == (["revoked"], [])


async def test_what_was_over_before_it_began_ends_at_once(rights: Rights, all_of: Lasting) -> None:
    rights.objections["alice"] = "forbidden"
    ends: list[str] = []
    all_of.begin(somebody("alice"), (), ends.append)()
    assert ends == ["forbidden"]


async def test_what_is_forgotten_is_not_ended(rights: Rights, all_of: Lasting) -> None:
    rights.ends["alice"] = time.time() + 0.05
    ends: list[str] = []
    forget = all_of.begin(somebody("alice"), (), ends.append)
    forget()
    forget()
    rights.objections["alice"] = "revoked"
    all_of.review()
    await asyncio.sleep(0.1)
    assert ends == []


async def test_it_ends_with_its_credential_by_itself(rights: Rights, all_of: Lasting) -> None:
    rights.ends["alice"] = time.time() + 0.05
    ends: asyncio.Queue[str] = asyncio.Queue()
    all_of.begin(somebody("alice"), (), ends.put_nowait)
    assert await _reason(ends) == "expired"
    assert time.time() >= rights.ends["alice"]


async def test_an_end_that_comes_nearer_is_kept(rights: Rights, all_of: Lasting) -> None:
    rights.ends["alice"] = time.time() + 1000
    ends: asyncio.Queue[str] = asyncio.Queue()
    all_of.begin(somebody("alice"), (), ends.put_nowait)
    rights.ends["alice"] = time.time() + 0.05
    all_of.review()
    assert await _reason(ends) == "expired"


async def test_a_clock_that_was_put_back_ends_nothing_early(
    rights: Rights, all_of: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting, "LONGEST", 0.01)
    rights.ends["alice"] = time.time() + 0.2
    ends: asyncio.Queue[str] = asyncio.Queue()
    all_of.begin(somebody("alice"), (), ends.put_nowait)
    assert await _reason(ends) == "expired"
    assert rights.asked > 2
    assert time.time() >= rights.ends["alice"]


async def test_one_that_fails_to_end_does_not_keep_the_others(
    rights: Rights, all_of: Lasting, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_reason: str) -> None:
        raise RuntimeError

    ends: list[str] = []
    for end in (fail, ends.append, fail, ends.append):
        all_of.begin(somebody("alice"), (), end)
    rights.objections["alice"] = "revoked"
    all_of.review()
    assert ends == ["revoked", "revoked"]
    assert len(caplog.records) == 2


async def test_an_end_may_forget_others(rights: Rights, all_of: Lasting) -> None:
    ends: list[str] = []
    forgets: list[Callable[[], None]] = []

    def end(reason: str) -> None:
        ends.append(reason)
        for forget in forgets:
            forget()

    forgets += [all_of.begin(somebody("alice"), (), end) for _ in range(3)]
    rights.objections["alice"] = "revoked"
    all_of.review()
    assert ends == ["revoked"]
