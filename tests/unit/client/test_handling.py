"""What is done with a message that was taken."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.client import handling
from app.client.handling import Command, Outcome, Printing
from app.client.stopping import Stop
from app.client.taking import Taken


def _taken(content: bytes = b"\x00\xffbody", message_id: str = "m1", *, redelivered: bool = False) -> Taken:
    return Taken(lease="l", message_id=message_id, redelivered=redelivered, content=content)


class TestPrinting:
    """Standard output."""

    def test_byte_for_byte(self) -> None:
        output = io.BytesIO()
        assert Printing(output, b"")(_taken()) is Outcome.DONE
        assert output.getvalue() == b"\x00\xffbody"
        Printing(output, b"\n")(_taken(b""))
        assert output.getvalue() == b"\x00\xffbody\n"

    def test_done_when_the_kernel_has_it(self) -> None:
        reader, writer = os.pipe()
        with open(reader, "rb") as read, open(writer, "wb") as output:
            Printing(output, b"")(_taken(b"x" * 1000))
            assert os.read(read.fileno(), 2000) == b"x" * 1000

    def test_in_pieces_where_the_pipe_is_small(self) -> None:
        reader, writer = os.pipe()
        got: list[bytes] = []
        with open(reader, "rb") as read, open(writer, "wb") as output:
            thread = threading.Thread(target=lambda: got.append(read.read()))
            thread.start()
            Printing(output, b"\n")(_taken(b"x" * 1_000_000))
            output.close()
            thread.join()
        assert got == [b"x" * 1_000_000 + b"\n"]

    def test_what_nobody_reads_is_not_done(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as output, pytest.raises(BrokenPipeError):
            Printing(output, b"")(_taken())

    def test_what_takes_nothing_now(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with open(reader, "rb"), open(writer, "wb") as output, pytest.raises(BlockingIOError):
            Printing(output, b"")(_taken(b"x" * 1_000_000))


class TestCommand:
    """A command of the shell."""

    def test_has_the_message_and_what_is_known_of_it(self, tmp_path: Path) -> None:
        text = f'cat > {tmp_path}/body; printf "%s %s" "$MQ_MESSAGE_ID" "$MQ_REDELIVERED" > {tmp_path}/known'
        command = Command(text, pytest.fail)
        assert command(_taken(message_id="é\0")) is Outcome.DONE
        assert (tmp_path / "body").read_bytes() == b"\x00\xffbody"
        assert (tmp_path / "known").read_bytes() == "é? false".encode()
        assert command(_taken(redelivered=True)) is Outcome.DONE
        assert (tmp_path / "known").read_bytes() == b"m1 true"

    def test_need_not_read_it(self) -> None:
        assert Command("exit 0", pytest.fail)(_taken(b"x" * 1_000_000)) is Outcome.DONE

    @pytest.mark.parametrize(
        ("text", "outcome", "words"),
        [
            ("exit 1", Outcome.AGAIN, "exit code 1; back to the queue"),
            ("exit 65", Outcome.NEVER, "exit code 65; refused for good"),
            ("kill -9 $$", Outcome.AGAIN, "ended by signal 9; back to the queue"),
            ("no-such-command-at-all 2>&-", Outcome.AGAIN, "exit code 127; back to the queue"),
        ],
    )
    def test_what_its_exit_code_means(self, text: str, outcome: Outcome, words: str) -> None:
        told: list[str] = []
        assert Command(text, told.append)(_taken(message_id="a\x1bb")) is outcome
        assert told == [f"message a b: {words}"]


class TestSecondSignal:
    """The first leaves the command alone, one more ends it with all that it has started."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handling, "END_SECONDS", 0.5)

    def test_a_command_that_does_not_listen(self, tmp_path: Path) -> None:
        begun = tmp_path / "pid"
        _interrupted(f"trap '' TERM; echo $$ > {begun}; exec sleep 60", begun)
        with pytest.raises(ProcessLookupError):
            os.killpg(int(begun.read_text()), 0)

    def test_what_outlives_the_shell_is_killed(self, tmp_path: Path) -> None:
        ticks = tmp_path / "ticks"
        _interrupted(f"(trap '' TERM; while :; do echo >> {ticks}; sleep 0.02; done) | cat", ticks)
        size = ticks.stat().st_size
        time.sleep(0.2)
        assert ticks.stat().st_size == size

    def test_and_has_its_time_to_end(self, tmp_path: Path) -> None:
        begun, ended = tmp_path / "begun", tmp_path / "ended"
        end = f"trap 'sleep 0.1; echo > {ended}; exit' TERM"
        _interrupted(f"({end}; echo > {begun}; while :; do sleep 0.02; done); :", begun)
        assert ended.exists()

    def test_a_third_does_not_wait(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handling, "END_SECONDS", 30)
        begun = tmp_path / "begun"
        began = time.monotonic()
        _interrupted(
            f"trap '' TERM; echo > {begun}; exec sleep 60", begun, 0.2, 1
        )  # Popen gives a command 0.25 s after the second
        assert time.monotonic() - began < 15

    @pytest.mark.skipif(sys.platform != "linux", reason="only there a process can be made the parent of orphans")
    def test_orphans_that_are_ours_keep_nobody_waiting(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handling, "END_SECONDS", 30)
        begun = tmp_path / "begun"
        began = time.monotonic()
        with _parent_of_orphans():
            _interrupted(f"sleep 60 | (echo > {begun}; cat); :", begun)
        assert time.monotonic() - began < 15

    def test_what_is_another_users(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(_group: int, _number: int) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "killpg", refused)
        begun = tmp_path / "begun"
        _interrupted(f"echo > {begun}; exec sleep 1", begun)


def _interrupted(text: str, begun: Path, *pauses: float) -> None:
    """Run a command that writes `begun`; from then on there are signals, the first at once."""
    main = threading.get_ident()

    def interrupt() -> None:
        while not begun.exists() or not begun.read_text():
            time.sleep(0.01)
        for pause in (0, *(pauses or (0.2,))):
            time.sleep(pause)
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with Stop() as stop, pytest.raises(KeyboardInterrupt):
        Command(text, pytest.fail)(_taken())
    assert stop.asked
    thread.join()


@contextmanager
def _parent_of_orphans() -> Iterator[None]:
    """As process 1 of a container is (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    prctl = ctypes.CDLL(None).prctl
    assert prctl(36, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(36, 0, 0, 0, 0)
