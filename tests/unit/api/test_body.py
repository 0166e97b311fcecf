"""Bodies under a cap."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest
from starlette.types import Message, Receive

from app.api.body import Hold, body_pieces, check_encoding, read_body
from app.api.exchange import ClientGone
from app.domain.errors import BodyTooLarge, InvalidHeader, MalformedRequest, Overloaded, UnsupportedEncoding
from app.gateway.budget import Budget
from tests.unit.api.asgi import GONE, Call, piece


def _budget(limit: int = 1 << 20) -> Budget:
    return Budget(limit, int)


def _hold(budget: Budget) -> Hold:
    return partial(budget.holding, "svc")


async def _read(call: Call, *, cap: int = 10, budget: Budget | None = None) -> bytes:
    return await read_body(call.exchange(), _hold(budget or _budget()), cap=cap, patience=5)


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([piece(b"")], b""),
        ([piece(b"0123456789")], b"0123456789"),
        ([piece(b"01", more=True), piece(b"", more=True), piece(b"23")], b"0123"),
        ([piece(b"01", more=True), piece(b"")], b"01"),
        ([{"type": "http.request"}], b""),
    ],
)
async def test_a_body_comes_whole(pieces: list[Message], body: bytes) -> None:
    call = Call(receives=pieces)
    exchange = call.exchange()
    assert await read_body(exchange, _hold(_budget()), cap=10, patience=5) == body
    assert exchange.body_read


async def test_a_length_above_the_cap_is_refused_before_anything_is_read() -> None:
    call = Call(headers=[(b"content-length", b"11")], receives=[piece(b"x" * 11)])
    with pytest.raises(BodyTooLarge, match="10 bytes"):
        await _read(call)
    assert len(call.receives) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(b"x" * 11)],
        [piece(b"x" * 10, more=True), piece(b"x", more=True), piece(b"never read")],
        [piece(b"x" * 11, more=True), piece(b"never read")],
        [piece(b"x" * 10, more=True), piece(b"x")],
    ],
)
async def test_a_body_without_a_length_is_refused_where_it_crosses_the_cap(pieces: list[Message]) -> None:
    call = Call(receives=pieces)
    budget = _budget()
    with pytest.raises(BodyTooLarge):
        await _read(call, budget=budget)
    assert all(message["body"] == b"never read" for message in call.receives)
    assert budget.reserved == 0


@pytest.mark.parametrize("pieces", [[GONE], [piece(b"01", more=True), GONE]])
async def test_a_client_that_left_publishes_nothing(pieces: list[Message]) -> None:
    budget = _budget()
    with pytest.raises(ClientGone):
        await _read(Call(receives=pieces), budget=budget)
    assert budget.reserved == 0


async def test_a_body_shorter_than_announced_is_no_body() -> None:
    with pytest.raises(ClientGone):
        await _read(Call(headers=[(b"content-length", b"5")], receives=[piece(b"1234")]))


async def test_two_lengths_are_none() -> None:
    headers = [(b"content-length", b"5"), (b"content-length", b"6")]
    with pytest.raises(InvalidHeader):
        await _read(Call(headers=headers))


async def test_what_arrives_is_held_in_the_budget() -> None:
    budget = _budget(3)
    call = Call(receives=[piece(b"12", more=True), piece(b"34", more=True), piece(b"")])
    with pytest.raises(Overloaded):
        await _read(call, budget=budget)
    assert budget.reserved == 0


async def test_a_server_without_deadlines_gets_ours() -> None:
    with pytest.raises(MalformedRequest, match=r"0\.01 seconds"):
        await read_body(Call(receives=[]).exchange(), _hold(_budget()), cap=10, patience=0.01)


def _slowly(size: int, every: float) -> Receive:
    """Pieces without end, of `size` bytes, `every` so many seconds."""

    async def receive() -> Message:
        await asyncio.sleep(every)  # this is the client's pace
        return piece(b"x" * size, more=True)

    return receive


async def test_a_drip_does_not_hold_the_deadline_off() -> None:
    exchange, budget = Call().exchange(), _budget()
    exchange.receive = _slowly(1, 0.005)
    with pytest.raises(MalformedRequest, match=r"0\.1 seconds.* 1024 bytes"):
        async with asyncio.timeout(5):
            await read_body(exchange, _hold(budget), cap=1 << 20, patience=0.1)
    assert budget.reserved == 0


async def test_a_slow_body_may_take_longer_than_the_patience() -> None:
    exchange, budget = Call().exchange(), _budget()
    exchange.receive = _slowly(1024, 0.1)
    with pytest.raises(BodyTooLarge):  # where this one ends, after 0.6 seconds
        await read_body(exchange, _hold(budget), cap=5 * 1024, patience=0.4)
    assert budget.reserved == 0


def _dripping(size: int, look: Callable[[], object]) -> Receive:
    """`size` pieces of one byte, and a `look` before the last one."""
    left = size

    async def receive() -> Message:
        nonlocal left
        left -= 1
        if not left:
            look()
        return piece(b"x", more=left > 0)

    return receive


@pytest.mark.parametrize("seam", [None, {"abort": print}])
async def test_a_byte_in_a_piece_of_its_own_costs_a_byte(seam: dict[str, object] | None) -> None:
    size, seen, budget = 50_000, [0], _budget()
    exchange = Call(seam=seam).exchange()
    exchange.receive = _dripping(size, lambda: seen.extend([tracemalloc.get_traced_memory()[0], budget.reserved]))
    tracemalloc.start()
    try:
        body = await read_body(exchange, _hold(budget), cap=size, patience=30)
    finally:
        tracemalloc.stop()
    assert len(body) == size
    assert seen[1] < 1.25 * size + 10_000  # bytearray grows ahead by an eighth; the rest is the request's own
    assert (seen[2], budget.reserved) == (size - 1, 0)


@pytest.mark.parametrize("seam", [None, {"abort": print}])
async def test_a_request_that_is_cancelled_gives_its_bytes_back(seam: dict[str, object] | None) -> None:
    budget = _budget()
    exchange, waits = Call(seam=seam).exchange(), asyncio.Event()
    pieces = [piece(b"0123", more=True)]

    async def receive() -> Message:
        if not pieces:
            waits.set()
            await asyncio.Event().wait()
        return pieces.pop()

    exchange.receive = receive
    reading = asyncio.create_task(read_body(exchange, _hold(budget), cap=10, patience=5))
    await waits.wait()
    assert budget.reserved == 4
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert budget.reserved == 0


async def test_our_server_has_its_own() -> None:
    call = Call(receives=[piece(b"01")], seam={"abort": print})
    assert await _read(call) == b"01"


@pytest.mark.parametrize("value", [b"identity", b"", b"gzip", b"br", b"identity, gzip", b"deflate", b"x"])
def test_an_encoding_is_refused(value: bytes) -> None:
    with pytest.raises(UnsupportedEncoding):
        check_encoding(Call(headers=[(b"content-encoding", value)]).exchange())


def test_no_encoding_is_none() -> None:
    check_encoding(Call(headers=[]).exchange())


async def _pieces(call: Call, patience: float = 5) -> list[bytes]:
    return [part async for part in body_pieces(call.exchange(), patience=patience)]


async def test_a_body_of_any_length_comes_in_pieces() -> None:
    call = Call(receives=[piece(b"01", more=True), piece(b"", more=True), piece(b"2")])
    assert await _pieces(call) == [b"01", b"", b"2"]


@pytest.mark.parametrize("last", [GONE, piece(b"2")], ids=["gone", "short"])
async def test_pieces_without_an_end_are_no_body(last: Message) -> None:
    call = Call(headers=[(b"content-length", b"4")], receives=[piece(b"01", more=True), last])
    with pytest.raises(ClientGone):
        await _pieces(call)


async def test_pieces_that_come_too_slowly_are_refused() -> None:
    with pytest.raises(MalformedRequest, match="too slowly"):
        await _pieces(Call(receives=[piece(b"01", more=True)]), patience=0.02)


async def test_the_time_in_which_nobody_asks_for_a_piece_is_not_the_clients() -> None:
    call = Call(receives=[piece(b"01", more=True), piece(b"2")])
    found = []
    async for part in body_pieces(call.exchange(), patience=0.02):
        await asyncio.sleep(0.05)
        found.append(part)
    assert found == [b"01", b"2"]
