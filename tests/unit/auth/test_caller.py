"""What a caller may, for how long and how much."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.auth.authority import Authority
from app.auth.caller import NOBODY, Caller
from app.config.settings import Settings
from app.domain.errors import Forbidden, InvalidCredentials, RateLimited, Unauthenticated
from app.domain.principal import ANONYMOUS, Principal, Verb
from app.domain.uri import MqUri
from app.telemetry.metrics import Metrics

NEWS = MqUri.parse("demo::Topics::news")
NEEDS = ((Verb.SUBSCRIBE, NEWS),)
RULES: list[dict[str, Any]] = [{"principals": ["*"], "allow": ["subscribe", "look"], "uris": ["demo::Topics::*"]}]
#: Somebody whom no file and no token says anything of.
ALICE = Principal(name="alice", way="made-up", label="alice")


def _authority(**limits: float) -> Authority:
    auth = {"mode": "certificate", "policy": RULES}
    return Authority(Settings.model_validate({"auth": auth, "limits": limits}), Metrics())


@pytest.fixture
def authority() -> Authority:
    return _authority()


@pytest.fixture
def alice(authority: Authority) -> Caller:
    return authority.caller(ALICE, "10.0.0.1")


def test_nobody_may_anything() -> None:
    assert not NOBODY.may(Verb.LOOK, NEWS)
    assert not NOBODY.sees_service("demo")
    assert not NOBODY.may_look()
    for refused in (NOBODY.require_known, lambda: NOBODY.require_still(Verb.LOOK, NEWS)):
        with pytest.raises(Unauthenticated):
            refused()
    assert isinstance(NOBODY.lapsed("revoked"), InvalidCredentials)
    NOBODY.check_rate()
    NOBODY.send(1, 1)


async def test_nothing_of_nobody_lasts() -> None:
    ends: list[str] = []
    NOBODY.lasting(NEEDS, ends.append)()
    assert ends == ["forbidden"]


def test_what_the_policy_says(alice: Caller, authority: Authority) -> None:
    alice.require(Verb.SUBSCRIBE, NEWS)
    alice.require_still(Verb.SUBSCRIBE, NEWS)
    assert (alice.sees(NEWS), alice.sees_service("demo"), alice.sees_service("other")) == (True, True, False)
    assert alice.may_look()
    authority.adopt([])
    assert not alice.may_look()
    with pytest.raises(Forbidden):
        alice.require_still(Verb.SUBSCRIBE, NEWS)


async def test_the_result_of_what_is_allowed_all_the_time(alice: Caller) -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await alice.while_allowed(NEEDS, work()) == 7
    everybody = Authority(Settings(), Metrics()).caller(ANONYMOUS, "")
    assert await everybody.while_allowed(NEEDS, work()) == 7


async def _for_ever(begun: asyncio.Event, ended: list[str]) -> None:
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


@contextlib.asynccontextmanager
async def _working(caller: Caller) -> AsyncIterator[tuple[asyncio.Task[None], list[str]]]:
    begun, ended = asyncio.Event(), list[str]()
    task = asyncio.create_task(caller.while_allowed(NEEDS, _for_ever(begun, ended)))
    await begun.wait()
    yield task, ended


async def test_work_that_is_not_allowed_any_more_is_cancelled(alice: Caller, authority: Authority) -> None:
    async with _working(alice) as (task, ended):
        authority.adopt([])
        with pytest.raises(Forbidden, match="any more"):
            await task
        assert ended == ["ended"]


async def test_work_that_somebody_else_cancels_is_just_cancelled(alice: Caller, authority: Authority) -> None:
    async with _working(alice) as (task, ended):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["ended"]
    authority.adopt([])  # nobody waits for that any more


async def test_errors_of_the_work_are_its_own(alice: Caller) -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await alice.while_allowed(NEEDS, fail())


async def test_a_result_that_is_there_is_not_lost_with_the_client(alice: Caller) -> None:
    """What was taken from a queue must reach whoever can give it back."""
    given: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    kept: list[str] = []

    async def take() -> str:
        try:
            return await given
        finally:
            if given.done() and not given.cancelled():
                kept.append(given.result())

    task = asyncio.create_task(alice.while_allowed(NEEDS, take()))
    await asyncio.sleep(0)
    given.set_result("a message")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kept == ["a message"]


async def test_what_was_over_before_it_began(alice: Caller, authority: Authority) -> None:
    authority.adopt([])
    with pytest.raises(Forbidden):
        await alice.while_allowed(NEEDS, _for_ever(asyncio.Event(), []))


async def test_those_who_are_unknown_are_counted_where_they_are() -> None:
    authority = _authority(messages_per_second=0.001)
    here, there = (authority.caller(ANONYMOUS, address) for address in ("10.0.0.1", "10.0.0.2"))
    look_alike = authority.caller(Principal(name="address 10.0.0.1", way="made-up", label="address 10.0.0.1"), "")
    here.check_rate()
    here.send(1, 0)
    with pytest.raises(RateLimited):
        here.check_rate()
    for other in (there, look_alike, authority.caller(ALICE, "10.0.0.1")):
        other.check_rate()
        await other.send_paced(0)
        with pytest.raises(RateLimited):
            other.send(1, 0)


async def test_without_rates_nothing_is_counted(alice: Caller) -> None:
    for _ in range(100):
        alice.check_rate()
        alice.send(1000, 1 << 30)
        await alice.send_paced(1 << 30)
