"""`mq-gateway receive` as a process of its own: what it takes is done once, or comes again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.brokers.process import free_port
from tests.e2e import live_gateway
from tests.e2e.http_client import ask, eventually, get_json
from tests.e2e.live_gateway import MEMORY, ROOT, LiveGateway, running, write_config

QUEUE, TOPIC = "mem::Queues::jobs", "mem::Topics::alerts"
PATH = "/mq/mem/Queues/jobs"
SERVICES = {"mem": {**MEMORY, "topics": {"alerts": {"subscriptions": ["archiver"]}}}}
#: Seconds any step may take on a busy machine.
PATIENCE = 30.0
#: Takes nothing.
FULL = Path("/dev/full")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    async with running(write_config(tmp_path, SERVICES)) as found:
        yield found


class Worker:
    """A running `receive`."""

    def __init__(self, port: int, *options: str, uri: str = QUEUE, stdout: Any = subprocess.PIPE) -> None:
        command = [sys.executable, "-m", "app", "receive", uri, "--url", f"http://127.0.0.1:{port}", *options]
        with contextlib.ExitStack() as opened:
            out = opened.enter_context(stdout.open("wb")) if isinstance(stdout, Path) else stdout
            self.popen = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE
            )

    async def ended(self) -> tuple[int, bytes, str]:
        """Exit code, standard output, standard error."""
        out, err = await asyncio.to_thread(self.popen.communicate, timeout=PATIENCE)
        return self.popen.returncode, out, err.decode()


@contextlib.contextmanager
def _worker(*arguments: Any, **options: Any) -> Any:
    worker = Worker(*arguments, **options)
    try:
        yield worker
    finally:
        worker.popen.kill()
        worker.popen.wait()
        for stream in (worker.popen.stdout, worker.popen.stderr):
            if stream is not None:
                stream.close()


async def _receive(*arguments: Any, **options: Any) -> tuple[int, bytes, str]:
    with _worker(*arguments, **options) as worker:
        result: tuple[int, bytes, str] = await worker.ended()
        return result


async def _publish(gateway: LiveGateway, *bodies: bytes, path: str = PATH, **headers: str) -> None:
    for body in bodies:
        assert (await ask(gateway.port, "POST", path, body, headers)).status == 200


async def _left(gateway: LiveGateway, wait: int = 0) -> list[tuple[str, bool]]:
    """The messages that are in the queue, and whether they were delivered before; they are gone then."""
    found: list[tuple[str, bool]] = []
    while (answer := await ask(gateway.port, "POST", f"{PATH}/receive?max=100&wait={wait}&ack=auto")).status == 200:
        found += [(message["body"], message["redelivered"]) for message in answer.json["messages"]]
    return found


async def _leases(gateway: LiveGateway) -> int:
    return int((await get_json(gateway.port, PATH))["leases"])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _until_there(path: Path) -> None:
    async def there() -> bool:
        return _size(path) > 0

    await eventually(there, f"{path.name} is written", PATIENCE)


# Printing.


async def test_one_message_byte_for_byte(gateway: LiveGateway) -> None:
    await _publish(gateway, b"\x00\xff no line end", b"next")
    assert await _receive(gateway.port) == (0, b"\x00\xff no line end", "")
    assert await _leases(gateway) == 0
    assert await _left(gateway) == [("next", False)]


async def test_several_messages_end_their_lines(gateway: LiveGateway) -> None:
    await _publish(gateway, b"a", b"b")
    code, out, err = await _receive(gateway.port, "--max", "3", "--wait", "0.5")
    assert (code, out, err) == (1, b"a\nb\n", "mq-gateway: no message within 0.5 s\n")
    assert await _left(gateway) == []


async def test_everything_on_one_line(gateway: LiveGateway) -> None:
    await _publish(gateway, b'{"a":\n 1.50}', **{"Content-Type": "application/json", "Mq-Headers": '{"JobID":"7"}'})
    code, out, err = await _receive(gateway.port, "--json")
    assert (code, err, out.count(b"\n")) == (0, "", 1)
    assert b'{"a":  1.50}' in out
    message = json.loads(out)
    assert (message["mq_uri"], message["headers"]["JobID"], message["body"]) == (QUEUE, "7", {"a": 1.5})
    assert await _left(gateway) == []


async def test_what_could_not_be_printed_goes_back_at_once(gateway: LiveGateway) -> None:
    await _publish(gateway, b"kept")
    code, _, err = await _receive(gateway.port, stdout=FULL)
    assert code == 1
    assert err.startswith("mq-gateway: message ")
    assert err.count("\n") == 1
    assert await _left(gateway, wait=5) == [("kept", True)]


async def test_nothing_came_or_cannot_come(gateway: LiveGateway) -> None:
    assert await _receive(gateway.port, "--wait", "0") == (1, b"", "mq-gateway: no message within 0 s\n")
    code, _, err = await _receive(gateway.port, "--follow", uri="other::Queues::jobs")
    assert code == 1
    assert err.startswith("mq-gateway: 404 unknown_service: ")
    code, _, err = await _receive(gateway.port, uri=TOPIC)
    assert code == 1
    assert err.startswith("mq-gateway: 405 method_not_allowed: ")
    code, _, err = await _receive(free_port())
    assert code == 1
    assert "cannot be reached" in err


async def test_from_a_durable_subscription(gateway: LiveGateway, tmp_path: Path) -> None:
    options = ("--subscription", "archiver", "--max", "2")
    command = f'cat >> {tmp_path}/done; [ "$MQ_REDELIVERED" = true ]'
    await _publish(gateway, b"kept", path="/mq/mem/Topics/alerts")
    code, _, err = await _receive(gateway.port, *options, "--exec", command, "--delay", "0", uri=TOPIC)
    assert code == 1
    assert err.endswith("exit code 1; back to the queue\n")
    assert (tmp_path / "done").read_bytes() == b"keptkept"
    code, _, _ = await _receive(gateway.port, *options, "--wait", "0", uri=TOPIC)
    assert code == 1


# Working.


async def test_what_a_command_makes_of_messages(gateway: LiveGateway, tmp_path: Path) -> None:
    for body in (b"0", b"65", b"3"):
        await _publish(gateway, body)
    command = f'read -r code; echo "$code $MQ_REDELIVERED" >> {tmp_path}/done; exit "$code"'
    code, out, err = await _receive(gateway.port, "--max", "3", "--exec", command, "--delay", "6")
    assert (code, out) == (1, b"")
    first, second = err.splitlines()
    assert first.endswith("exit code 65; refused for good")
    assert second.endswith("exit code 3; back to the queue")
    assert (tmp_path / "done").read_text() == "0 false\n65 false\n3 false\n"
    assert await _left(gateway) == []  # the delay
    assert await _left(gateway, wait=15) == [("3", True)]


async def test_long_work_is_not_delivered_twice(gateway: LiveGateway, tmp_path: Path) -> None:
    await _publish(gateway, b"long")
    began = time.monotonic()
    with _worker(gateway.port, "--lease", "2", "--exec", f"echo begun > {tmp_path}/begun; sleep 6") as worker:
        await _until_there(tmp_path / "begun")
        assert await _left(gateway, wait=5) == []
        assert await worker.ended() == (0, b"", "")
    assert time.monotonic() - began > 6
    assert await _left(gateway) == []


async def test_what_a_killed_worker_had_comes_again(gateway: LiveGateway, tmp_path: Path) -> None:
    await _publish(gateway, b"job")
    command = f"echo $$ > {tmp_path}/pid; exec sleep 60"
    with _worker(gateway.port, "--follow", "--lease", "2", "--exec", command) as worker:
        await _until_there(tmp_path / "pid")
        worker.popen.kill()
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    again = f'cat > {tmp_path}/again; echo " $MQ_REDELIVERED" >> {tmp_path}/again'
    assert await _receive(gateway.port, "--exec", again) == (0, b"", "")
    assert (tmp_path / "again").read_text() == "job true\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_is_under_way_is_finished(gateway: LiveGateway, tmp_path: Path, number: signal.Signals) -> None:
    await _publish(gateway, b"first", b"second")
    command = f"cat > {tmp_path}/begun; sleep 1; echo done > {tmp_path}/done"
    with _worker(gateway.port, "--follow", "--exec", command) as worker:
        await _until_there(tmp_path / "begun")
        worker.popen.send_signal(number)
        assert await worker.ended() == (0, b"", "")
    assert (tmp_path / "done").exists()
    assert await _left(gateway, wait=1) == [("second", False)]


async def test_a_second_signal_ends_the_command_and_gives_its_message_back(
    gateway: LiveGateway, tmp_path: Path
) -> None:
    await _publish(gateway, b"job")
    with _worker(gateway.port, "--follow", "--exec", f"echo $$ > {tmp_path}/pid; exec sleep 60") as worker:
        await _until_there(tmp_path / "pid")
        worker.popen.terminate()
        await asyncio.sleep(0.5)
        assert worker.popen.poll() is None
        worker.popen.terminate()
        assert await worker.ended() == (1, b"", "")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert await _left(gateway, wait=5) == [("job", True)]


async def test_a_worker_that_waits_ends_at_once_and_keeps_nothing(gateway: LiveGateway) -> None:
    await _publish(gateway, b"first")
    with _worker(gateway.port, "--follow") as worker:
        assert await asyncio.to_thread(worker.popen.stdout.readline) == b"first\n"
        await asyncio.sleep(1)  # it waits for the next
        worker.popen.terminate()
        began = time.monotonic()
        assert await worker.ended() == (0, b"", "")
    assert time.monotonic() - began < 5
    await _publish(gateway, b"next")
    assert await _left(gateway, wait=5) == [("next", False)]


async def test_a_gateway_that_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(live_gateway, "free_port", lambda: port)
    config = write_config(tmp_path, SERVICES)
    with _worker(port, "--follow") as worker:
        told = [await _line(worker.popen.stderr)]  # it was there first
        for body in (b"before", b"after"):
            async with running(config) as gateway:
                await _publish(gateway, body)
                assert await _line(worker.popen.stdout) == body + b"\n"
                await _settled(gateway)
            told.append(await _line(worker.popen.stderr))
        worker.popen.terminate()
        assert await worker.ended() == (0, b"", "")
    # One line for each time it was away.
    assert all(line.endswith(b"; trying again\n") for line in told)


async def _line(stream: BinaryIO) -> bytes:
    return await asyncio.wait_for(asyncio.to_thread(stream.readline), PATIENCE)


async def _settled(gateway: LiveGateway) -> None:
    async def none_left() -> bool:
        return await _leases(gateway) == 0

    await eventually(none_left, "no lease is left", PATIENCE)


async def test_an_ack_that_came_too_late_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(live_gateway, "free_port", lambda: port)
    config = write_config(tmp_path, SERVICES)
    with _worker(port, "--follow", "--exec", f"cat > {tmp_path}/begun; sleep 5") as worker:
        async with running(config) as gateway:
            await _publish(gateway, b"job")
            await _until_there(tmp_path / "begun")
        async with running(config):
            worker.popen.terminate()
            code, _, err = await worker.ended()
    assert code == 1
    assert err.splitlines()[-1].endswith("the gateway has forgotten its lease; it comes again")
