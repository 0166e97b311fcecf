"""One test run: the folder, the lock that keeps its brokers alive, and the brokers that all its processes share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, TypeVar

from tests.brokers.broker import Broker
from tests.brokers.process import wait_for_keepers

_END_SECONDS = 20
_PREFIX = "mqgw-"
#: A folder this old, in seconds, with a free lock is what a killed run left.
_REMAINS_SECONDS = 3600
B = TypeVar("B", bound=Broker)


class Run:
    """What the processes of a test run know together; `folder` is all they need to pass on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: IO[str] | None = None
        self._numbers = count(1)

    @classmethod
    def begin(cls) -> Run:
        """Begin a run: only the process that began it may end it."""
        _remove_remains()
        run = cls(Path(tempfile.mkdtemp(prefix=_PREFIX)))
        (run.folder / "keepers").mkdir()
        run._lock = (run.folder / "lock").open("w")
        fcntl.flock(run._lock, fcntl.LOCK_EX)
        return run

    def end(self) -> None:
        """Let go of the lock: every keeper ends what it keeps. Then remove the folder."""
        if self._lock is None:
            return
        self._lock.close()
        self._lock = None
        wait_for_keepers(self.folder, _END_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_folder(self, kind: str) -> Path:
        """A folder for one private broker; its name is unique in the run and fit for a node name."""
        return self.folder / f"{kind}-{os.getpid()}-{next(self._numbers)}"

    def shared(self, kind: type[B]) -> B:
        """The one broker of this kind, started by whoever asks first, in whatever process."""
        with self._only_one(kind.kind):
            state = self.folder / f"{kind.kind}.json"
            if state.exists():
                return kind.attach(self.folder, state.read_text())
            broker = self._start_once(kind)
            state.write_text(broker.describe())
            return broker

    def _start_once(self, kind: type[B]) -> B:
        """Start it, or fail at once where it failed before: a start that hangs costs a minute."""
        failed = self.folder / f"{kind.kind}.failed"
        if failed.exists():
            raise RuntimeError(f"{kind.kind} did not start: {failed.read_text()}")
        broker = kind(self.folder, self.folder / kind.kind)
        try:
            broker.start_blocking()
        except (OSError, RuntimeError) as error:
            failed.write_text(str(error))
            raise
        broker.share()
        return broker

    @contextlib.contextmanager
    def _only_one(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _remove_remains() -> None:
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/lock"):
        with contextlib.suppress(OSError), lock.open() as file:
            if time.time() - lock.stat().st_mtime > _REMAINS_SECONDS:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
