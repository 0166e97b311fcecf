"""Workers in plain shell, with curl: half of them are killed at random, and every message is processed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.brokers.fixtures import Unique
from tests.e2e.conftest import Target
from tests.e2e.http_client import Http, eventually
from tests.e2e.live_gateway import ROOT
from tests.e2e.sizes import sized

WORKER = ROOT / "docs" / "examples" / "worker.sh"
MESSAGES = sized(120, 1000)
WORKERS = 8
#: Seconds; those of a worker that was killed go back after it.
LEASE = 5
#: Seconds for all of it on a busy machine: each message starts half a dozen programs.
PATIENCE = sized(90, 400)

pytestmark = pytest.mark.timeout(PATIENCE + 30)


class Workers:
    """`WORKERS` of them at any time: who is killed is replaced."""

    def __init__(self, queue: str, done: Path) -> None:
        self.queue = queue
        self.done = done
        self._command = 'read -r line; printf "%s %s\\n" "$line" "$MQ_REDELIVERED" >> "$DONE"'
        self._processes: list[asyncio.subprocess.Process] = []

    async def add(self) -> None:
        environment = {**os.environ, "MQ_LEASE": str(LEASE), "MQ_WAIT": "2", "DONE": str(self.done)}
        process = await asyncio.create_subprocess_exec(
            str(WORKER), self.queue, "sh", "-c", self._command, env=environment, start_new_session=True
        )
        self._processes.append(process)

    def kill(self, process: asyncio.subprocess.Process) -> None:
        """As the kernel or a batch system does, with everything it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    async def kill_one(self) -> None:
        victim = self._processes.pop(random.randrange(len(self._processes)))
        self.kill(victim)
        await victim.wait()

    async def end(self) -> None:
        for process in self._processes:
            self.kill(process)
        await asyncio.gather(*(process.wait() for process in self._processes))

    def processed(self) -> list[list[str]]:
        """Number of the message and whether it was redelivered, in the order of their ends."""
        return [line.split() for line in self.done.read_text().splitlines()] if self.done.exists() else []


async def test_half_of_the_workers_are_killed_and_every_message_is_processed(
    target: Target, unique: Unique, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.fail("curl is not installed")
    name = unique("work")
    path = f"/mq/mq/Queues/{name}"
    async with await Http.connect(target.port) as http:
        for number in range(MESSAGES):
            assert (await http.ask("POST", path, f"{number}\n".encode())).status == 200
    workers = Workers(f"http://127.0.0.1:{target.port}{path}", tmp_path / "done")
    try:
        for _ in range(WORKERS):
            await workers.add()
        for killed in range(1, WORKERS // 2 + 1):
            await _processed(workers, MESSAGES * killed // (WORKERS // 2 + 1))
            await workers.kill_one()
            await workers.add()
        await _processed(workers, MESSAGES)
        await eventually(lambda: _settled(target, path), "no lease is left", 3 * LEASE)
    finally:
        await workers.end()
    times = Counter(number for number, _ in workers.processed())
    assert times.keys() == {str(number) for number in range(MESSAGES)}
    # Whoever was killed after its work and before its answer did it for nothing, and the next one was told so.
    again = {number for number, redelivered in workers.processed() if redelivered == "true"}
    assert {number for number, count in times.items() if count > 1} <= again
    assert sum(times.values()) - MESSAGES <= WORKERS // 2
    print(f"{MESSAGES} messages, {len(again)} redelivered, {sum(times.values()) - MESSAGES} processed twice")


async def _processed(workers: Workers, number: int) -> None:
    async def holds() -> bool:
        return len({message for message, _ in workers.processed()}) >= number

    await eventually(holds, f"{number} messages are processed", PATIENCE)


async def _settled(target: Target, path: str) -> bool:
    async with await Http.connect(target.port) as http:
        found = await http.ask("GET", path)
    return bool(found.json["leases"] == 0)
