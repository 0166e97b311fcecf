"""What is done with a message that was taken: it is printed, or a command gets it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from tempfile import TemporaryFile
from typing import BinaryIO

from app.client.connection import printable
from app.client.taking import Taken

#: The command's exit code for a message that nobody should get again: EX_DATAERR of sysexits.h, "the input is wrong".
EXIT_REFUSE = 65
#: Seconds that a command has to end when it is told to.
END_SECONDS = 5.0
#: Seconds between two looks at whether it has.
LOOK_SECONDS = 0.02


class Outcome(Enum):
    """What the gateway is told."""

    DONE = "ack"
    AGAIN = "back to the queue"
    NEVER = "refused for good"


class Printing:
    """Writes a message, and `after` it a line feed or nothing. Raises OSError, and the message is not done."""

    def __init__(self, output: BinaryIO, after: bytes) -> None:
        # Past the buffer, which would try again at the exit what it could not write.
        self._output = getattr(output, "raw", output)
        self._after = after

    def __call__(self, taken: Taken) -> Outcome:
        """DONE when the kernel has all of it."""
        rest = memoryview(taken.content + self._after)
        while rest:
            written = self._output.write(rest)
            if written is None:
                raise BlockingIOError("standard output takes nothing now")
            rest = rest[written:]
        self._output.flush()
        return Outcome.DONE


class Command:
    """Runs a command of the shell for each message; raises OSError where it cannot be started."""

    def __init__(self, text: str, notice: Callable[[str], None]) -> None:
        self._text = text
        self._notice = notice

    def __call__(self, taken: Taken) -> Outcome:
        """By its exit code: 0 DONE, 65 NEVER, any other AGAIN, which is told."""
        # A file, and not a pipe: the command may leave it unread, or read it while it writes.
        with TemporaryFile() as body:
            body.write(taken.content)
            body.seek(0)
            code = self._run(body, taken)
        if code == 0:
            return Outcome.DONE
        outcome = Outcome.NEVER if code == EXIT_REFUSE else Outcome.AGAIN
        ended = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
        self._notice(f"message {printable(taken.message_id)}: {ended}; {outcome.value}")
        return outcome

    def _run(self, body: BinaryIO, taken: Taken) -> int:
        # A group of its own: Ctrl-C is for us, and the command finishes what it does.
        process = subprocess.Popen(  # noqa: S603  # the command is the caller's
            ["/bin/sh", "-c", self._text], stdin=body, env=_environment(taken), process_group=0
        )
        try:
            return process.wait()
        except BaseException:
            _end(process)
            raise


def _environment(taken: Taken) -> dict[bytes, bytes]:
    """Ours and what is known of the message, as bytes: its id need not fit the locale."""
    message_id = taken.message_id.encode(errors="replace").replace(b"\0", b"?")
    redelivered = str(taken.redelivered).lower().encode()
    return {**os.environb, b"MQ_MESSAGE_ID": message_id, b"MQ_REDELIVERED": redelivered}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and all of its group, which may outlive the shell; one more signal shortens the wait."""
    with suppress(KeyboardInterrupt):
        if _ends(process, signal.SIGTERM):
            return
    _ends(process, signal.SIGKILL)


def _ends(process: subprocess.Popen[bytes], number: int) -> bool:
    """Signal the group; whether nothing is left of it within END_SECONDS."""
    until = time.monotonic() + END_SECONDS
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return True
        except PermissionError:  # what is left is another user's: it may still end by itself
            pass
        number = 0  # from now on it is only looked for
        time.sleep(LOOK_SECONDS)
        _reap(process)
    return False


def _reap(process: subprocess.Popen[bytes]) -> None:
    """A process that has ended is of its group until then. What the shell leaves behind is ours if we are process 1."""
    with suppress(ChildProcessError):
        while os.waitpid(-process.pid, os.WNOHANG)[0]:
            pass
    process.poll()
