"""A run of tests: its processes end with it, its remains are removed."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.brokers.broker import Broker
from tests.brokers.process import KeptProcess, free_port
from tests.brokers.run import Run


class Failing(Broker):
    """A broker whose process ends at once; counts how often it was launched."""

    kind = "failing"
    package = "failing"
    launched = 0

    @staticmethod
    def installed() -> bool:
        return True

    @staticmethod
    def port_names() -> tuple[str, ...]:
        return ("stomp",)

    def _prepare(self) -> None:
        pass

    def _launch(self) -> KeptProcess:
        type(self).launched += 1
        return kept(Run(self.run), self.folder, "sh", "-c", "echo no disk; exit 1")

    def _ready(self) -> bool:
        return False


@pytest.fixture
def own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Run.begin()


def kept(run: Run, folder: Path, *command: str) -> KeptProcess:
    return KeptProcess(command, run=run.folder, log=folder / "log", env={"PATH": os.environ["PATH"]}, cwd=folder)


def test_a_process_ends_with_the_run_even_when_stopped(own_run: Run, tmp_path: Path) -> None:
    both = [kept(own_run, tmp_path, "sleep", "60") for _ in range(2)]
    both[1].signal(signal.SIGSTOP)
    assert [process.running for process in both] == [True, True]
    own_run.end()
    assert [process.running for process in both] == [False, False]
    assert not own_run.folder.exists()
    own_run.end()


def test_who_ignores_sigterm_is_killed(own_run: Run, tmp_path: Path) -> None:
    stubborn = kept(own_run, tmp_path, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    while "ready" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    stubborn.end(0.1)
    assert not stubborn.running
    own_run.end()


def test_a_failed_start_is_told_and_not_repeated(own_run: Run) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no disk"):
            own_run.shared(Failing)
    assert Failing.launched == 1
    own_run.end()


def test_only_remains_are_removed(own_run: Run, tmp_path: Path) -> None:
    old, held, young = (tmp_path / f"mqgw-{name}" for name in ("old", "held", "young"))
    for folder in (old, held, young):
        folder.mkdir()
        (folder / "lock").touch()
    for folder in (old, held):
        os.utime(folder / "lock", (0, 0))
    with (held / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Run.begin().end()
    assert [folder.exists() for folder in (old, held, young)] == [False, True, True]
    own_run.end()


def test_a_free_port_is_below_the_ephemeral_ones() -> None:
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < first_ephemeral for _ in range(50))
