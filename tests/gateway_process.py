"""The gateway as a process of its own, run as an operator runs it, measured by coverage like the rest."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.brokers.process import LOOPBACK, free_port

START_SECONDS = 20.0
STOP_SECONDS = 30.0
_ROOT = Path(__file__).parents[1]
#: What a child needs of our environment; coverage and nothing of a user's own settings.
_PASSED_ON = ("PATH", "LANG", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START", "COVERAGE_FILE")


def child_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment for a gateway in a process: a home of its own, measured by coverage where the tests are."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "HOME": str(home), **more}


class GatewayProcess:
    """`python -m app serve`. `url` is the base URL without a slash at its end; `log` holds all it wrote."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def output(self) -> str:
        """What it wrote until now, both streams."""
        return self.log.read_text(errors="replace")

    async def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Start `serve` with further arguments and wait until it is live; raises RuntimeError with its output."""
        self._spawn(arguments, environment or {})
        await self._wait_until_live()

    def _spawn(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "app", "serve", "--port", str(self.port), *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=child_environment(self.log.parent, **environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def terminate(self, timeout: float = STOP_SECONDS) -> int:
        """SIGTERM, and wait for the exit code. Raises TimeoutError."""
        self.signal(signal.SIGTERM)
        return await self.ended(timeout)

    def signal(self, number: signal.Signals) -> None:
        self._started().send_signal(number)

    async def ended(self, timeout: float = STOP_SECONDS) -> int:
        """Wait for the exit code; negative where a signal ended it. Raises TimeoutError."""
        try:
            return await asyncio.to_thread(self._started().wait, timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"the gateway still runs after {timeout} s:\n{self.output}") from error

    def discard(self) -> None:
        """End it in any case: SIGTERM first, so that coverage is written."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the gateway was never started")
        return self._process

    async def _wait_until_live(self) -> None:
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(trust_env=False) as client:
            while not await self._live(client):
                if self._started().poll() is not None:
                    raise RuntimeError(f"the gateway ended with {self._started().returncode}:\n{self.output}")
                await asyncio.sleep(0.02)

    async def _live(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(f"{self.url}/health/live")
        except httpx.TransportError:
            return False
        return answer.status_code == 200
