"""What is known of the client behind a request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.api.connection import Connection
from tests.unit.api.asgi import GONE, Call, piece
from tests.unit.api.test_event_stream import Seam
from tests.unit.gateway.fakes import turns


async def test_the_seam_tells_who_leaves() -> None:
    seam, gone = Seam(), asyncio.Event()
    connection = Connection(Call(seam=seam.extension()).exchange(), gone.set)
    connection.write_through()
    assert seam.through
    assert not connection.is_closing()
    seam.leave()
    assert gone.is_set()
    assert connection.is_closing()
    connection.abort()
    assert seam.aborted


async def test_any_other_server_does_so_with_its_last_message() -> None:
    gone = asyncio.Event()
    connection = Connection(Call(receives=[piece(b"body"), GONE]).exchange(), gone.set)
    await turns()
    assert gone.is_set()
    assert not connection.is_closing()
    assert connection.unsent() == 0
    connection.write_through()
    connection.abort()
    connection.forget()


async def test_what_is_forgotten_tells_nobody() -> None:
    gone = asyncio.Event()
    call = Call(receives=[])
    connection = Connection(call.exchange(), gone.set)
    connection.forget()
    call.receives.append(GONE)
    await turns()
    assert not gone.is_set()


async def test_a_send_has_time_for_as_long_as_something_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seam = Seam()
    seam.unsent = [30, 20, 20, 10, 10, 10]  # before and after each try
    call = Call(seam=seam.extension())
    tries = 0

    async def stalled(_message: Any) -> None:
        nonlocal tries
        tries += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(call, "send", stalled)
    connection = Connection(call.exchange(), lambda: None)
    with pytest.raises(TimeoutError):
        await connection.send(b"x", patience=0.01)
    assert tries == 3
