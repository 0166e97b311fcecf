"""Runs one command in a session of its own and ends it when the test run is over, however the run ended.

Usage: keeper.py LOCK LOG COMMAND...

Detaches, and prints its own process id and the command's. The test run holds an exclusive flock on LOCK. The kernel
releases it at the end of the run even after SIGKILL, and then the keeper terminates what it keeps. Runs isolated from
the virtual environment (python -I -S): standard library only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

#: Seconds between SIGTERM and SIGKILL.
PATIENCE = 10


def signal_group(group: int, number: int) -> None:
    """Signal every process of a group that may be gone already."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def end_with(lock: Path, child: subprocess.Popen[bytes]) -> None:
    """Wait for the lock, then terminate the child."""
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        # A stopped process does not see SIGTERM before it goes on.
        signal_group(child.pid, signal.SIGCONT)
        signal_group(child.pid, signal.SIGTERM)
        threading.Timer(PATIENCE, signal_group, (child.pid, signal.SIGKILL)).start()
        child.wait()


def detach() -> None:
    """Go on as a child of init: whoever started the keeper has nothing to reap."""
    if os.fork():
        os._exit(0)
    os.setsid()


def main(lock: str, log: str, *command: str) -> None:
    detach()
    with Path(log).open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    print(os.getpid(), child.pid, flush=True)
    os.close(sys.stdout.fileno())
    threading.Thread(target=end_with, args=(Path(lock), child), daemon=True).start()
    child.wait()
    signal_group(child.pid, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
