"""The port for health and metrics: open to who reaches it, and there to the end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.brokers.process import free_port
from tests.e2e.live_gateway import MEMORY, ROOT, LiveGateway, running, write_config

PATIENCE = 10.0
TOLD = re.compile(r"health and metrics on http://127\.0\.0\.1:(\d+)")


class Watched:
    """A gateway and a client of its management port."""

    def __init__(self, gateway: LiveGateway, client: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.client = client


async def told(gateway: LiveGateway) -> int:
    """The port that the log names; lines are written in a thread, a moment later."""
    async with asyncio.timeout(PATIENCE):
        while not (found := TOLD.search(gateway.log.read_text())):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return int(found[1])


@contextlib.asynccontextmanager
async def watched(folder: Path, **server: object) -> AsyncIterator[Watched]:
    port = free_port()
    config = write_config(
        folder,
        {"mem": MEMORY},
        server={"management": {"port": port}, "drain_seconds": 5, "header_timeout": 0.5, **server},
    )
    async with running(config) as gateway:
        url = f"http://127.0.0.1:{port}"
        assert await told(gateway) == port
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            yield Watched(gateway, client)


async def test_serves_health_and_metrics_and_nothing_else(tmp_path: Path) -> None:
    async with watched(tmp_path) as seen:
        live, ready = await seen.client.get("/health/live"), await seen.client.get("/health/ready")
        assert (live.status_code, live.json()) == (200, {"status": "live"})
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        # Nobody's name for it is looked at, and no page of another origin is let in.
        strange = {"host": "prometheus.example", "origin": "https://evil.example"}
        metrics = await seen.client.get("/metrics", headers=strange)
        assert metrics.status_code == 200
        assert "mq_gateway_build_info" in metrics.text
        assert not [name for name in metrics.headers if name.startswith("access-control")]
        head = await seen.client.head("/health/live")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "17")
        for path in ("/", "/mq", "/docs", "/metrics/", "/health", "/mq/mem/Queues/jobs/events", "/peer/leases"):
            answer = await seen.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        answer = await seen.client.post("/metrics", content=b"x")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        # The deadlines of connections hold here, too.
        reader, writer = await asyncio.open_connection("127.0.0.1", seen.client.base_url.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        assert (await asyncio.wait_for(reader.read(), PATIENCE)).startswith(b"HTTP/1.1 400 ")
        writer.close()
        metrics = await seen.client.get("/metrics")
        assert 'mq_gateway_refused_connections_total{reason="slow_head"} 1.0' in metrics.text


async def test_answers_during_the_drain_and_holds_nothing_up(tmp_path: Path) -> None:
    async with watched(tmp_path) as seen:
        # A body that does not come keeps the drain waiting.
        reader, writer = await asyncio.open_connection("127.0.0.1", seen.gateway.port)
        head = b"POST /mq/mem/Queues/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"
        writer.write(head + b"{")
        assert (await seen.client.get("/health/ready")).status_code == 200
        seen.gateway.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while (answer := await seen.client.get("/health/ready")).status_code == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert (answer.status_code, answer.json()["status"]) == (503, "draining")
            with contextlib.suppress(OSError):
                while True:
                    (await asyncio.open_connection("127.0.0.1", seen.gateway.port))[1].close()
                    await asyncio.sleep(0.01)
            # The gateway takes nobody any more, and the port is as it was.
            assert (await seen.client.get("/health/live")).status_code == 200
            assert "mq_gateway_build_info" in (await seen.client.get("/metrics")).text
            fresh = httpx.AsyncClient(base_url=seen.client.base_url, timeout=PATIENCE, trust_env=False)
            async with fresh:
                assert (await fresh.get("/health/ready")).status_code == 503
                writer.write(b"}")
                assert (await reader.read()).startswith(b"HTTP/1.1 ")
                writer.close()
                # Two clients have kept their connections.
                assert await seen.gateway.ended(PATIENCE) == 0


@pytest.mark.parametrize("taken", ["management", "main"])
async def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path, taken: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port, free = other.getsockname()[1], free_port()
        management, main = (port, free) if taken == "management" else (free, port)
        config = write_config(tmp_path, {"mem": MEMORY}, server={"management": {"port": management}})
        words = (sys.executable, "-m", "app", "serve", "--config", str(config), "--port", str(main))
        process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = await asyncio.wait_for(process.communicate(), 2 * PATIENCE)
    assert (process.returncode, out) == (1, b"")
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in err.decode()
    assert err.count(b"\n") == 1


async def test_a_free_port_is_told(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"mem": MEMORY}, server={"management": {"port": 0}})
    async with running(config) as gateway:
        port = await told(gateway)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200
