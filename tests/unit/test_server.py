"""What of the server needs no process: descriptors, signals out of season, a port that is taken late."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import threading

import pytest

from app.config.settings import Settings
from app.http1.rules import Rules
from app.http1.sockets import listen
from app.server import GatewayServer, _connections, raise_descriptor_limit
from tests.e2e.serving import PATIENCE, TinyApp


def _server(started: list[str]) -> GatewayServer:
    settings = Settings.model_validate({"server": {"port": 0, "drain_seconds": 1}})
    rules = Rules.of(settings.server, settings.limits, connections=10)
    return GatewayServer(TinyApp(), settings, rules, started.append)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((100, 400), 400),
        ((400, 400), 400),
        ((100, resource.RLIM_INFINITY), 1 << 20),
        ((100, 1 << 30), 1 << 20),
        ((1 << 29, 1 << 30), 1 << 29),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 1 << 20),
    ],
)
def test_the_soft_limit_is_raised_never_lowered(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert raise_descriptor_limit() == after
    assert asked == ([(after, before[1])] if before[0] == 100 else [])


@pytest.mark.parametrize(("soft", "connections", "warns"), [(1000, 744, False), (999, 743, True), (10, 1, True)])
def test_descriptors_bound_the_connections(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, soft: int, connections: int, warns: bool
) -> None:
    monkeypatch.setattr("app.server.raise_descriptor_limit", lambda: soft)
    assert _connections(744) == connections
    assert ("limits.streams is 744" in caplog.text) is warns


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
