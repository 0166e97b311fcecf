"""Many publishes of one caller side by side: bounds, order, what happens when the process is full or the link lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    ConfirmTimeout,
    ConnectionLost,
    DestinationQuarantined,
    Draining,
    GatewayError,
    Outcome,
    Overloaded,
)
from app.domain.message import Publication, Published
from app.domain.uri import MqUri
from app.gateway import window as window_module
from app.gateway.window import Window

URI = MqUri.parse("svc::Queues::jobs")
TIMEOUT = 2.0


@dataclass
class Broker:
    """Publishes wait until they are let go; `refusals` are raised first, one by each attempt."""

    refusals: dict[int, list[GatewayError]] = field(default_factory=dict)
    attempts: list[int] = field(default_factory=list)
    waiting: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    settled: dict[int, Any] = field(default_factory=dict)
    most: int = 0

    async def publish(self, publication: Publication) -> Published:
        number = int(publication.message_id)
        self.attempts.append(number)
        if self.refusals.get(number):
            raise self.refusals[number].pop(0)
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.waiting))
        try:
            await future
        finally:
            del self.waiting[number]
        return Published(message_id=publication.message_id, mq_uri=URI, confirmed=True, persistent=False)

    def settle(self, number: int, result: Published | GatewayError, seconds: float | None) -> None:
        assert number not in self.settled
        self.settled[number] = result

    def window(self) -> Window[int]:
        return Window(self.publish, self.settle, timeout=TIMEOUT)

    def let_go(self, *numbers: int) -> None:
        for number in numbers or list(self.waiting):
            self.waiting[number].set_result(None)


def publication(number: int, size: int = 1) -> Publication:
    return Publication(body=b"x" * size, message_id=str(number))


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _put_all(window: Window[int], numbers: range, size: int = 1) -> None:
    for number in numbers:
        await window.put(number, publication(number, size))


async def test_no_more_than_the_bound_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "MAX_COUNT", 3)
    broker = Broker()
    async with broker.window() as window:
        putting = asyncio.create_task(_put_all(window, range(5)))
        await turns()
        assert sorted(broker.waiting) == [0, 1, 2]
        broker.let_go(1)
        await turns()
        assert sorted(broker.waiting) == [0, 2, 3]
        while not putting.done():
            broker.let_go()
            await turns()
        broker.let_go()
    assert sorted(broker.settled) == list(range(5))
    assert broker.most == 3


async def test_nor_more_bytes_but_a_large_one_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "MAX_BYTES", 10)
    broker = Broker()
    async with broker.window() as window:
        await window.put(0, publication(0, 100))
        putting = asyncio.create_task(_put_all(window, range(1, 4), 5))
        await turns()
        assert sorted(broker.waiting) == [0]
        broker.let_go()
        await turns()
        assert sorted(broker.waiting) == [1, 2]
        broker.let_go()
        await turns()
        assert putting.done()
        broker.let_go()
    assert all(isinstance(result, Published) for result in broker.settled.values())


async def test_what_finds_no_room_goes_when_another_has_ended_and_keeps_its_place() -> None:
    broker = Broker({1: [Overloaded("full"), Overloaded("full")], 2: [Overloaded("full")]})
    async with broker.window() as window:
        await _put_all(window, range(2))
        await turns()
        putting = asyncio.create_task(_put_all(window, range(2, 4)))
        await turns()
        before = (putting.done(), list(broker.attempts))
        broker.let_go(0)
        await turns(20)
        broker.let_go()
        await putting
        await turns()
        broker.let_go()
    assert before == (False, [0, 1])  # behind one that found no room nothing is sent
    # Alone and without room again: nobody could make any.
    assert [type(broker.settled[number]) for number in range(4)] == [Published, Overloaded, Overloaded, Published]


async def test_those_that_wait_for_room_go_in_their_order() -> None:
    broker = Broker({number: [Overloaded("full")] for number in (1, 2, 3)})
    broker.refusals[1].append(Overloaded("full"))
    async with broker.window() as window:
        for number in (0, 9):
            await window.put(number, publication(number))
        putting = asyncio.create_task(_put_all(window, range(1, 4)))
        await turns()
        broker.let_go(0)
        await turns(30)
        while broker.waiting:
            broker.let_go()
            await turns(12)
        await putting
    assert broker.attempts == [0, 9, 1, 1, 1, 2, 2, 3, 3]


async def test_a_broker_that_does_not_read_is_not_waited_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker({1: [Overloaded("does not read")]})
    window = Window(broker.publish, broker.settle, timeout=0.0)
    async with window:
        await window.put(0, publication(0))
        await window.put(1, publication(1))
        await turns()
        assert isinstance(broker.settled[1], Overloaded)
        broker.let_go()


@pytest.mark.parametrize(
    ("error", "rest"),
    [
        (ConnectionLost("cut"), "broker_unavailable"),
        (BrokerUnavailable("down"), "broker_unavailable"),
        (Draining("shutting down"), "draining"),
        (DestinationQuarantined("rests"), "destination_quarantined"),
    ],
)
async def test_after_a_lost_link_nothing_more_is_sent(error: GatewayError, rest: str) -> None:
    broker = Broker({0: [error]})
    async with broker.window() as window:
        await window.put(0, publication(0))
        await turns()
        await _put_all(window, range(1, 4))
    assert broker.attempts == [0]
    assert broker.settled[0] is error
    assert [broker.settled[number].code.value for number in (1, 2, 3)] == [rest] * 3
    assert {broker.settled[number].outcome for number in (1, 2, 3)} == {Outcome.NOT_SENT}


@pytest.mark.parametrize("error", [BrokerRejected("no"), ConfirmTimeout("late")])
async def test_what_is_wrong_with_one_is_not_the_end_of_the_others(error: GatewayError) -> None:
    broker = Broker({0: [error]})
    async with broker.window() as window:
        await _put_all(window, range(2))
        await turns()
        broker.let_go()
    assert broker.settled[0] is error
    assert isinstance(broker.settled[1], Published)


async def test_a_defect_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_publication: Publication) -> Published:
        raise RuntimeError("a defect")

    broker = Broker()
    async with Window(fail, broker.settle, timeout=1) as window:
        await window.put(0, publication(0))
    assert broker.settled[0].code.value == "internal"
    assert "a defect" in caplog.text


async def test_a_failure_keeps_no_body_in_memory() -> None:
    broker = Broker({0: [ConfirmTimeout("late")]})
    async with broker.window() as window:
        await window.put(0, publication(0))
    assert broker.settled[0].__traceback__ is None


async def test_a_client_that_has_gone_is_waited_for_and_a_cancellation_is_not() -> None:
    broker = Broker()

    async def sending(error: Exception | None) -> None:
        async with broker.window() as window:
            await window.put(len(broker.attempts), publication(len(broker.attempts)))
            await turns()
            if error is not None:
                raise error
            await asyncio.Event().wait()

    task = asyncio.create_task(sending(ValueError("gone")))
    await turns(12)
    assert not task.done()
    broker.let_go()
    with pytest.raises(ValueError, match="gone"):
        await task
    assert isinstance(broker.settled[0], Published)
    task = asyncio.create_task(sending(None))
    await turns(12)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not broker.waiting
    ending = asyncio.create_task(sending(ValueError("gone")))
    await turns(12)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    await turns()
    assert not broker.waiting


@pytest.mark.parametrize("stopped", [None, Draining("no more")])
async def test_one_that_is_given_up_while_it_waits_for_place_is_told_where_that_is_why(
    monkeypatch: pytest.MonkeyPatch, stopped: GatewayError | None
) -> None:
    monkeypatch.setattr(window_module, "MAX_COUNT", 1)
    broker = Broker()
    async with broker.window() as window:
        await window.put(0, publication(0))
        waiting = asyncio.create_task(window.put(1, publication(1)))
        await turns()
        window.stopped = stopped
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        broker.let_go()
    assert broker.attempts == [0]
    assert broker.settled.get(1) is stopped
