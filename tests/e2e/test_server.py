"""The server as a process: signals, the drain and its deadline, exit codes, descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.serving import PATIENCE, Client

ROOT = Path(__file__).parents[2]
GET = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Process:
    """The program under test, its lines and its end."""

    def __init__(self, given: dict[str, Any]) -> None:
        given = {**given, "server": {"port": 0, "drain_seconds": 5, **given.get("server", {})}}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.drain_app", json.dumps(given)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port = 0

    def line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def started(self) -> None:
        url = self.line()
        assert url.startswith("http://127.0.0.1:"), self.end()
        self.port = int(url.rpartition(":")[2])

    def connect(self, path: bytes = b"") -> Client:
        client = Client(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE))
        if path:
            client.send(GET % path)
        return client

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Exit code, what it said, what it logged."""
        out, log = self.popen.communicate(timeout=PATIENCE)
        return self.popen.returncode, out, log


@contextlib.contextmanager
def process(*, started: bool = True, **given: Any) -> Generator[Process]:
    made = Process(given)
    try:
        if started:
            made.started()
        yield made
    finally:
        if made.popen.poll() is None:
            made.popen.kill()
        made.popen.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(number: int) -> None:
    with process() as server, server.connect() as idle:
        begun = time.monotonic()
        server.signal(number)
        assert idle.rest() == b""
        code, out, log = server.end()
        assert (code, out.split()) == (0, ["drain", "stopping"])
        assert "Traceback" not in log
        assert time.monotonic() - begun < 2


async def test_a_thousand_streams_end_themselves_in_order() -> None:
    with process() as server:
        streams = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(1000)]
        for reader, writer in streams:
            writer.write(GET % b"/stream")
            assert (await reader.readuntil(b":\n\n\r\n")).startswith(b"HTTP/1.1 200 ")
        begun = time.monotonic()
        server.signal()
        ends = [await reader.read() for reader, _ in streams]
        assert set(ends) == {b"d\r\nretry: 1000\n\n\r\n0\r\n\r\n"}
        code, out, _ = await asyncio.to_thread(server.end)
        assert (code, out.split()) == (0, ["drain", "stopping"])
        assert time.monotonic() - begun < 5
        for _, writer in streams:
            writer.close()


def test_what_is_in_flight_is_answered_and_nothing_new_is_taken() -> None:
    with process() as server, server.connect(b"/slow") as busy, server.connect(b"/") as used:
        assert used.response().status == 200
        assert server.line() == "slow"
        server.signal()
        assert used.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        assert busy.response().body == b"slow"
        assert busy.rest() == b""
        assert server.end()[0] == 0


def test_drain_delay_keeps_serving_until_balancers_have_noticed() -> None:
    with process(server={"drain_delay": 0.6}) as server, server.connect(b"/") as used:
        assert used.response().status == 200
        server.signal()
        assert server.line() == "drain"
        used.send(GET % b"/")
        assert used.response().status == 503
        with server.connect(b"/") as late:
            assert late.response().status == 503
        assert used.rest() == b""
        assert server.end()[0] == 0


def test_a_stalled_reader_is_cut_off_at_the_deadline() -> None:
    with process(server={"drain_seconds": 0.5, "write_timeout": 60}) as server, server.connect(b"/stubborn"):
        assert server.line() == "written"
        begun = time.monotonic()
        server.signal()
        code, out, log = server.end()
        assert (code, out.split()) == (0, ["drain", "cancelled", "stopping"])
        assert "cutting off 1 connections" in log
        assert 0.5 <= time.monotonic() - begun < 3


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_forces(numbers: tuple[int, int]) -> None:
    with process(server={"drain_seconds": 600, "drain_delay": 600}) as server, server.connect(b"/stubborn"):
        assert server.line() == "written"
        begun = time.monotonic()
        server.signal(numbers[0])
        assert server.line() == "drain"
        server.signal(numbers[1])
        assert server.end()[0] == 0
        assert time.monotonic() - begun < 3


def test_a_hang_up_ends_nothing() -> None:
    with process() as server:
        server.signal(signal.SIGHUP)
        with server.connect(b"/") as client:
            assert client.response().status == 200
        server.signal()
        code, _, log = server.end()
        assert code == 0
        assert "no configuration to read anew" in log


@pytest.mark.parametrize(
    ("app", "said"),
    [({"hook": False}, []), ({"hook": "fails"}, ["drain"]), ({"hook": "hangs"}, ["drain"])],
)
def test_a_drain_hook_that_is_missing_fails_or_hangs_stops_nothing(app: dict[str, Any], said: list[str]) -> None:
    with process(app=app, server={"drain_seconds": 0.5}) as server:
        server.signal()
        code, out, log = server.end()
        assert (code, out.split()) == (0, [*said, "stopping"])
        assert ("the drain failed" in log) == (app["hook"] == "fails")


def test_a_lifespan_that_fails_to_stop_is_a_failure() -> None:
    with process(app={"shutdown": "fails"}) as server:
        server.signal()
        assert server.end()[0] == 1


def test_a_lifespan_that_hangs_at_the_end_can_be_forced() -> None:
    with process(app={"shutdown": "hangs"}) as server:
        server.signal()
        assert server.line() == "drain"
        server.signal()
        assert server.line() == "stopping"
        assert server.end()[0] == 0


def test_a_lifespan_that_fails_to_start_ends_the_process() -> None:
    with process(app={"startup": "fails"}, started=False) as server:
        code, out, log = server.end()
        assert (code, out) == (1, "")
        assert "as the test wants it" in log


def test_signals_end_a_start_that_hangs() -> None:
    with process(app={"startup": "hangs"}, started=False) as server:
        assert server.line() == "starting"
        server.signal()
        server.signal(signal.SIGINT)
        assert server.end()[:2] == (0, "")


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(server={"port": port}, started=False) as server:
            code, out, log = server.end()
            assert (code, out) == (1, "")
            assert log == f"ERROR mq_gateway.server cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_the_descriptor_limit_is_raised_and_what_does_not_fit_is_said() -> None:
    with process(descriptors=[100, 400], limits={"streams": 200}) as server:
        limits = Path(f"/proc/{server.popen.pid}/limits").read_text(encoding="utf-8")
        assert [line.split()[3:5] for line in limits.splitlines() if "open files" in line] == [["400", "400"]]
        server.signal()
        code, _, log = server.end()
        assert code == 0
        assert "limits.streams is 200, but the descriptor limit of 400 leaves 144" in log
