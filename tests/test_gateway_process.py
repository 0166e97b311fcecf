"""The fixture that runs the gateway as a process."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from tests.conftest import StartGateway


async def test_the_demo_starts_and_stops(gateway_process: StartGateway) -> None:
    gateway = await gateway_process()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{gateway.url}/mq/demo/Queues/jobs", content=b"x")
    assert answer.status_code == 200
    assert await gateway.terminate() == 0
    assert gateway.url in gateway.output


async def test_a_configuration_is_used(gateway_process: StartGateway) -> None:
    gateway = await gateway_process({"services": {"lab": {"mq_type": "Memory", "queues": {"jobs": {}}}}})
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{gateway.url}/mq/lab")).status_code == 200
    gateway.signal(signal.SIGKILL)
    assert await gateway.ended() == -signal.SIGKILL


async def test_a_bad_configuration_is_told(gateway_process: StartGateway, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 1"):
        await gateway_process(tmp_path / "missing.yaml")
