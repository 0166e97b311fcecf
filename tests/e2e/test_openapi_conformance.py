"""The gateway against its own OpenAPI document: Schemathesis asks everything the document allows, and what it does not.

Schemathesis runs as a process of its own. An event stream, which has no end, is read for a fraction of a second and
then checked event by event (conformance/schemathesis.toml and hooks.py). MQ_CONFORMANCE_EXAMPLES makes a longer run,
MQ_CONFORMANCE_SEED another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.brokers.process import free_port
from tests.e2e.http_client import Sse
from tests.e2e.live_gateway import ROOT, LiveGateway, running, write_config

#: Cases for each operation and phase.
EXAMPLES = int(os.environ.get("MQ_CONFORMANCE_EXAMPLES", "12"))
SEED = os.environ.get("MQ_CONFORMANCE_SEED", "1")
#: Seconds for one run, ten times what it takes on cores of its own.
DEADLINE = 150 + 10 * EXAMPLES
_CONFIG = Path(__file__).parent / "conformance" / "schemathesis.toml"

pytestmark = pytest.mark.timeout(DEADLINE + 30)


@contextlib.asynccontextmanager
async def _serving(folder: Path, **limits: int) -> AsyncIterator[LiveGateway]:
    services = {
        "demo": {"mq_type": "Memory", "queues": {"jobs": {}, "a/b": {}}, "topics": {"events": {}}},
        # Nobody listens there: what is answered without a broker is described too.
        "down": {"mq_type": "Stomp", "host": "127.0.0.1", "port": free_port(), "queues": {"jobs": {}}},
    }
    async with running(write_config(folder, services, limits=limits)) as gateway:
        await gateway.until_link("down", lambda view: view["link"] == "down" and view["last_error"] is not None)
        yield gateway


async def _ask(gateway: LiveGateway, folder: Path, *options: str) -> tuple[int, str]:
    """Exit code and report of a run; raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIG)),
        *("run", f"http://127.0.0.1:{gateway.port}/openapi.json", "--checks", "all", "--continue-on-failure"),
        *("--max-examples", str(EXAMPLES), "--seed", SEED, "--no-color", *options),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder), "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, report.decode(errors="replace")


async def test_everything_it_answers_is_described(tmp_path: Path) -> None:
    async with _serving(tmp_path) as gateway:
        code, report = await _ask(gateway, tmp_path)
    assert code == 0, report
    # What found no operation, or nothing to do in a phase, would be in order as well.
    assert "Tested: 17" in report
    assert all(f"✅ {phase}" in " ".join(report.split()) for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"))


async def test_so_is_what_it_refuses_when_it_is_full(tmp_path: Path) -> None:
    async with _serving(tmp_path, body_bytes=8, max_headers=1, header_bytes=64, streams=1) as gateway:
        async with await Sse.open(gateway.port, "/mq/demo/Topics/events/events"):
            code, report = await _ask(
                *(gateway, tmp_path, "--include-operation-id", "publish", "--include-operation-id", "subscribe"),
                *("--phases", "coverage,fuzzing", "--exclude-checks", "positive_data_acceptance"),
            )
        refused = await gateway.metric("mq_gateway_streams_refused_total", reason="too_many_streams")
    assert code == 0, report
    assert "Tested: 2" in report
    assert refused > 0
