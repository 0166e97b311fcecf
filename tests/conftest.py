"""Shared fixtures: brokers, a scripted STOMP peer, the gateway as a process."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.gateway_process import GatewayProcess

pytest_plugins = ("tests.brokers.fixtures", "tests.faults.fixtures")

# Who starts the tests in the background may have it ignored, and so would everything that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: a shared core is no measure of speed. No database: a run leaves nothing behind.
hypothesis.settings.register_profile("gateway", deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("gateway")

StartGateway = Callable[..., Awaitable[GatewayProcess]]


@pytest.fixture
async def gateway_process(tmp_path: Path) -> AsyncIterator[StartGateway]:
    """Start a gateway: `await gateway_process(config, "--host", …, environment={…})`.

    `config` is a mapping as in a YAML file, the path of a file, or None for the demo.
    """
    started: list[GatewayProcess] = []
    numbers = count(1)

    async def start(config: dict[str, Any] | Path | None = None, *arguments: str, **options: Any) -> GatewayProcess:
        name = f"gateway-{next(numbers)}"
        if isinstance(config, dict):
            path = tmp_path / f"{name}.yaml"
            # JSON is YAML.
            path.write_text(json.dumps(config))
            config = path
        process = GatewayProcess(tmp_path / f"{name}.log")
        started.append(process)
        await process.start(*(("--config", str(config)) if config else ()), *arguments, **options)
        return process

    yield start
    for process in started:
        await asyncio.to_thread(process.discard)
