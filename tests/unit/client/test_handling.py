"""What is done with a message that was taken."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
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

    def test_a_first_signal_leaves_it_alone_and_a_second_ends_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handling, "END_SECONDS", 0.5)
        command = Command(f"trap '' TERM; echo $$ > {tmp_path}/pid; exec sleep 60", pytest.fail)
        main = threading.get_ident()

        def signals() -> None:
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.01)
            for _ in range(2):
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(0.2)

        thread = threading.Thread(target=signals)
        thread.start()
        with Stop() as stop, pytest.raises(KeyboardInterrupt):
            command(_taken())
        assert stop.asked
        thread.join()
        with pytest.raises(ProcessLookupError):
            os.killpg(int((tmp_path / "pid").read_text()), 0)
