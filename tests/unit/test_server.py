"""What of the server needs no process: signals out of season, a port that is taken late."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading

import pytest

from app.config.settings import Settings
from app.http1.rules import Rules
from app.http1.sockets import listen
from app.server import GatewayServer
from tests.e2e.serving import PATIENCE, TinyApp


def _server(started: list[str]) -> GatewayServer:
    settings = Settings.model_validate({"server": {"port": 0, "drain_seconds": 1}})
    rules = Rules.of(settings.server, settings.limits, connections=10)
    return GatewayServer(TinyApp(), settings, rules, started.append)


async def test_a_signal_before_the_loop_is_not_lost() -> None:
    started: list[str] = []
    server = _server(started)
    server.handle_exit(signal.SIGTERM, None)
    async with asyncio.timeout(PATIENCE):
        await server.serve(listen("127.0.0.1", 0))
    assert (server.exit_code, started) == (0, [])


async def test_without_sockets_nothing_is_announced() -> None:
    started: list[str] = []
    server = _server(started)
    asyncio.get_running_loop().call_later(0.1, server.handle_exit, signal.SIGTERM, None)
    async with asyncio.timeout(PATIENCE):
        await server.serve()
    assert (server.exit_code, started) == (0, [])


async def test_a_cancelled_server_drains() -> None:
    up = asyncio.Event()
    server = _server([])
    server._on_started = lambda _: up.set()
    task = asyncio.create_task(server.serve(listen("127.0.0.1", 0)))
    await asyncio.wait_for(up.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    assert server.lifespan.shutdown_event.is_set()


async def test_a_port_that_is_taken_between_bind_and_listen_is_one_clear_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    (ours,) = listen("127.0.0.1", 0)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(ours.getsockname())
        other.listen()
        server = _server([])
        async with asyncio.timeout(PATIENCE):
            await server.serve([ours])
    ours.close()
    assert server.exit_code == 1
    assert caplog.messages == ["cannot listen: Address already in use"]
    assert server.lifespan.shutdown_event.is_set()


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with _server([]).capture_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert seen == [before]


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    server = _server([])
    with server.capture_signals():
        assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    assert signal.getsignal(signal.SIGTERM) == before
