"""Processes under the control of the tests, and ports for them."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep

LOOPBACK = "127.0.0.1"
_KEEPER = Path(__file__).with_name("keeper.py")
# Below the range of ephemeral ports: a port of a stopped broker must not go to somebody's outgoing connection.
_PORTS = range(12_000, 32_000)
_random = random.SystemRandom()


def free_port() -> int:
    """A TCP port on which nobody listens now."""
    for _ in range(1000):
        port = _random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def accepts(port: int) -> bool:
    """Whether somebody listens on the port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll what tells no one when it changes (another process's port); raises TimeoutError naming `what`."""
    deadline = monotonic() + timeout
    while not condition():
        if monotonic() > deadline:
            raise TimeoutError(f"{what} after {timeout} s")
        sleep(0.02)


def established(port: int) -> int:
    """Connections established to a local port of this machine, seen from the side that listens."""
    return sum(
        fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port
        for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        if table.exists()
        for fields in (line.split() for line in table.read_text().splitlines()[1:])
    )


def stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped by a signal."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            states.append(stat.read_text().rpartition(")")[2].split()[0])
    return set(states) == {"T"}


class KeptProcess:
    """A command running under a keeper: it ends with the test run at the latest (see keeper.py)."""

    def __init__(self, command: Sequence[str], *, run: Path, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self.log = log
        answer = subprocess.run(
            [sys.executable, "-I", "-S", str(_KEEPER), str(run / "lock"), str(log), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=True,
            env=dict(env),
            cwd=cwd,
        )
        keeper, self.pid = map(int, answer.stdout.split())
        (run / "keepers" / str(keeper)).touch()
        self._keeper = ProcessHandle(keeper)

    @property
    def running(self) -> bool:
        return not self._keeper.wait(0)

    def signal(self, number: int) -> None:
        """Signal the process and its children; nothing where they are gone."""
        if self.running:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return

    def end(self, timeout: float) -> None:
        """Terminate and wait; kill after `timeout` seconds."""
        self.signal(signal.SIGCONT)
        if self.running:
            os.kill(self.pid, signal.SIGTERM)
        if not self._keeper.wait(timeout):
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if not self._keeper.wait(10):
            raise TimeoutError(f"process {self.pid} survives SIGKILL")


class ProcessHandle:
    """A process that need not be our child, held by a descriptor: its number cannot be taken by another one."""

    def __init__(self, pid: int) -> None:
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self._handle = -1

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended, `timeout` seconds at most; whether it has."""
        if self._handle >= 0:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            if not poll.poll(max(0.0, timeout) * 1000):
                return False
            os.close(self._handle)
            self._handle = -1
        return True


def wait_for_keepers(run: Path, timeout: float) -> None:
    """Wait until every keeper of a run is gone, `timeout` seconds at most; the lock must be released before."""
    deadline = monotonic() + timeout
    for entry in (run / "keepers").iterdir():
        ProcessHandle(int(entry.name)).wait(deadline - monotonic())
