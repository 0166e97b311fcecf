"""Deliveries that wait for their ack."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.stomp.unacked import Unacked

PATIENCE = 0.05


class Late:
    """What was late, and an awaitable wish for more of it."""

    def __init__(self) -> None:
        self.tokens: asyncio.Queue[list[str]] = asyncio.Queue()

    def __call__(self, tokens: list[str]) -> None:
        self.tokens.put_nowait(tokens)

    async def next(self) -> list[str]:
        async with asyncio.timeout(5):
            return await self.tokens.get()


async def test_what_waits_too_long_is_told_and_what_came_later_in_its_own_time() -> None:
    late = Late()
    unacked = Unacked(PATIENCE, late)
    began = asyncio.get_running_loop().time()
    unacked.add("a")
    unacked.add("b")
    unacked.remove("a")
    await asyncio.sleep(PATIENCE / 2)
    unacked.add("c")
    assert await late.next() == ["b"]
    assert asyncio.get_running_loop().time() - began >= PATIENCE - 0.002
    unacked.remove("b")
    assert await late.next() == ["c"]
    assert list(unacked) == ["c"]


async def test_nobody_is_late_where_everything_was_answered_and_the_next_one_is_watched_again() -> None:
    late = Late()
    unacked = Unacked(PATIENCE, late)
    unacked.add("a")
    unacked.remove("a")
    await asyncio.sleep(PATIENCE * 2)
    assert late.tokens.empty()
    unacked.add("b")
    assert await late.next() == ["b"]


async def test_after_a_clear_nobody_is_told() -> None:
    late = Late()
    unacked = Unacked(PATIENCE, late)
    unacked.add("a")
    unacked.clear()
    assert not unacked
    await asyncio.sleep(PATIENCE * 2)
    assert late.tokens.empty()


async def test_without_patience_it_only_remembers() -> None:
    late = Late()
    unacked = Unacked(None, late)
    unacked.add("a")
    assert "a" in unacked
    assert (len(unacked), list(unacked)) == (1, ["a"])
    unacked.remove("a")
    with pytest.raises(KeyError):
        unacked.remove("a")
