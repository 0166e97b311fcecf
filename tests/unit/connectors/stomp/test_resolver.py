"""Names that hang: what they take of the process, and what they do not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest

from app.connectors.stomp import resolver
from app.connectors.stomp.addresses import look_up

INFO = (socket.AF_INET, 1, 6, "", ("192.0.2.4", 1))


class Dns:
    """Names that begin with `hang` are answered when `answers` is set; there is no `nowhere`."""

    def __init__(self) -> None:
        self.answers = Event()
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, _port: int, **_options: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host.startswith("hang"):
            assert self.answers.wait(5)
        if host == "nowhere":
            raise socket.gaierror(-2, "Name or service not known")
        return [INFO]

    def end(self) -> None:
        """Whatever hangs has its answer."""
        self.answers.set()
        for _ in range(500):
            if not resolver._running:
                return
            Event().wait(0.01)
        raise AssertionError(f"still looked up: {resolver._running}")


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    made = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.end()


async def test_names_that_hang_hold_up_no_other(dns: Dns) -> None:
    hang = asyncio.ensure_future(look_up([(f"hang-{number}", 1) for number in range(20)], 5))
    await asyncio.sleep(0)
    found, failures = await look_up([("good", 1), ("nowhere", 1)], 2)
    assert [address.ip for address in found] == ["192.0.2.4"]
    assert failures == {"nowhere": "Name or service not known"}
    dns.answers.set()
    assert len((await hang)[0]) == 20


async def test_a_look_up_that_is_under_way_is_joined_by_all(dns: Dns) -> None:
    for _ in range(3):
        assert (await look_up([("hang", 1), ("hang", 1)], 0.01))[1] == {"hang": "not resolved in time"}
    assert not resolver._running["hang", 1], "who gave up is forgotten"
    joined = asyncio.ensure_future(look_up([("hang", 1), ("hang", 1)], 5))
    await asyncio.sleep(0.01)
    dns.answers.set()
    assert len((await joined)[0]) == 2
    assert dns.asked == ["hang"]


async def test_what_one_does_with_its_answer_is_nothing_to_another(dns: Dns) -> None:
    both = [asyncio.ensure_future(resolver.getaddrinfo("hang", 1)) for _ in range(2)]
    await asyncio.sleep(0)
    dns.answers.set()
    (await both[0]).clear()
    assert await both[1] == [INFO]


async def test_threads_are_counted(dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "MAX_RUNNING", 2)
    names = [("hang-1", 1), ("hang-2", 1), ("good", 1)]
    found, failures = await look_up(names, 0.01)
    assert (found, failures) == ([], {name: "not resolved in time" for name, _ in names})
    assert [address.name for address in (await look_up([("192.0.2.7", 1)], 0.01))[0]] == ["192.0.2.7"]
    dns.end()
    assert len((await look_up(names, 5))[0]) == 3


def test_an_answer_that_comes_after_the_loop_is_nobody_s(dns: Dns) -> None:
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(resolver.getaddrinfo("hang", 1))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert len(resolver._running["hang", 1]) == 1
    loop.close()
    dns.end()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_without_a_thread_the_look_up_fails_and_may_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_thread: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", start)
        with pytest.raises(OSError, match="new thread"):
            await resolver.getaddrinfo("localhost", 1)
    assert await resolver.getaddrinfo("localhost", 1)
