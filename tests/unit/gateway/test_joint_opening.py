"""All destinations of a stream, or none and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.connectors.base import Destination
from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    DestinationQuarantined,
    GatewayError,
    TooManyStreams,
)
from app.domain.uri import MqUri
from app.gateway.joint import JointReader
from app.gateway.joint_opening import Wanted, open_joint
from app.gateway.stream import Reader, StreamRequest
from app.wire.vector import UNTOLD, Vector
from tests.unit.gateway.fakes import queue, topic, turns
from tests.unit.gateway.test_joint import Scripted

ONE, TWO, JOBS = topic("one"), topic("two"), queue("jobs")
OTHER = Destination(MqUri.parse("other::Topics::one"), ONE.settings)


class Opener:
    """Stands in for Gateway.open_stream."""

    def __init__(self) -> None:
        self.asked: dict[MqUri, StreamRequest] = {}
        self.timeouts: list[float] = []
        self.refusals: dict[MqUri, BaseException] = {}
        self.held: dict[MqUri, asyncio.Event] = {}
        self.opened: list[Scripted] = []

    async def __call__(self, destination: Destination, request: StreamRequest, *, timeout: float) -> Reader:
        self.asked[destination.uri] = request
        self.timeouts.append(timeout)
        if destination.uri in self.held:
            await self.held[destination.uri].wait()
        if destination.uri in self.refusals:
            raise self.refusals[destination.uri]
        self.opened.append(Scripted(destination.uri, b"" if destination.uri.is_queue else b"id: s.0\n\n"))
        return self.opened[-1]

    async def open(self, *destinations: Destination, request: StreamRequest | None = None) -> JointReader:
        asked = request or StreamRequest()
        wanted = [Wanted(each, asked, number) for number, each in enumerate(destinations)]
        return await open_joint(self, wanted, timeout=5)


def _id(*known: tuple[Destination, str]) -> str:
    vector = Vector([each.uri for each, _ in known])
    for number, (_, position) in enumerate(known):
        vector.move(number, position.encode())
    return bytes(vector).decode()


async def _positions(last_event_id: str | None, *destinations: Destination) -> list[str | None]:
    opener = Opener()
    await opener.open(*destinations, request=StreamRequest(last_event_id=last_event_id))
    return [opener.asked[each.uri].last_event_id for each in destinations]


async def test_each_gets_its_own_position() -> None:
    known = _id((ONE, "epochepo.1"), (TWO, "s.7"))
    assert await _positions(known, ONE, TWO) == ["epochepo.1", "s.7"]
    assert await _positions(known, TWO, JOBS, ONE) == ["s.7", None, "epochepo.1"]
    assert await _positions(None, ONE, TWO) == [None, None]


async def test_what_came_since_is_a_gap_and_what_went_is_forgotten() -> None:
    known = _id((ONE, "epochepo.1"), (TWO, "s.7"))
    assert await _positions(known, OTHER, TWO) == [UNTOLD, "s.7"]


async def test_one_that_had_no_position_yet_begins_as_it_did() -> None:
    assert await _positions(_id((ONE, ""), (TWO, "s.7")), ONE, TWO) == [None, "s.7"]


@pytest.mark.parametrize("text", ["epochepo.1", "s.1", "v.", "x" * 1024])
async def test_a_foreign_id_is_a_gap_in_all(text: str) -> None:
    assert await _positions(text, ONE, JOBS, TWO) == [UNTOLD, None, UNTOLD]


async def test_a_gap_to_come_shows_in_the_first_id() -> None:
    reader = await Opener().open(ONE, request=StreamRequest(last_event_id="foreign"))
    assert reader.opening == f"id: {_id((ONE, 's.0'))}\n\n".encode()


async def test_each_link_is_told_of_once() -> None:
    opener = Opener()
    await opener.open(ONE, OTHER, TWO, JOBS, request=StreamRequest(status=True))
    told = {uri for uri, request in opener.asked.items() if request.status}
    assert told == {ONE.uri, OTHER.uri}


async def test_queues_are_opened_when_the_topics_are() -> None:
    opener = Opener()
    opener.held[TWO.uri] = asyncio.Event()
    opening = asyncio.ensure_future(opener.open(JOBS, ONE, TWO))
    await turns()
    assert set(opener.asked) == {ONE.uri, TWO.uri}
    opener.held[TWO.uri].set()
    await opening
    assert set(opener.asked) == {ONE.uri, TWO.uri, JOBS.uri}
    assert all(0 < timeout <= 5 for timeout in opener.timeouts)


async def test_all_that_is_wrong_is_told_and_nothing_stays_open() -> None:
    opener = Opener()
    opener.refusals = {TWO.uri: BrokerUnavailable("down", retry_after=3), OTHER.uri: BrokerRejected("no")}
    with pytest.raises(BrokerRejected) as caught:
        await opener.open(ONE, TWO, OTHER, JOBS)
    assert [(each.where, each.message) for each in caught.value.errors] == [
        ("uri[1]", "svc::Topics::two: down"),
        ("uri[2]", "other::Topics::one: no"),
    ]
    assert caught.value.retry_after == 3
    assert [(reader.uri, reader.closed) for reader in opener.opened] == [(ONE.uri, 1)]
    assert JOBS.uri not in opener.asked, "a Queue gives nothing to a stream that is refused"


async def test_one_subscription_at_a_time_so_that_it_is_known_which_one_ended_the_connection() -> None:
    opener = Opener()
    opener.held = {ONE.uri: asyncio.Event(), OTHER.uri: asyncio.Event()}
    opening = asyncio.ensure_future(opener.open(ONE, TWO, OTHER, JOBS))
    await turns()
    assert set(opener.asked) == {ONE.uri, OTHER.uri}, "services do not wait for each other"
    opener.refusals[ONE.uri] = BrokerRejected("no")
    for held in opener.held.values():
        held.set()
    with pytest.raises(BrokerRejected):
        await opening
    assert set(opener.asked) == {ONE.uri, OTHER.uri}
    assert [(reader.uri, reader.closed) for reader in opener.opened] == [(OTHER.uri, 1)]


async def test_what_is_refused_before_the_broker_is_asked_stops_nothing() -> None:
    opener = Opener()
    opener.refusals = {each.uri: DestinationQuarantined("it rests") for each in (ONE, TWO)}
    with pytest.raises(DestinationQuarantined):
        await opener.open(ONE, TWO)
    assert set(opener.asked) == {ONE.uri, TWO.uri}


async def test_streams_do_not_wait_for_each_other() -> None:
    streams = [topic(name, replay="stream") for name in "abc"]
    opener = Opener()
    opener.held = {each.uri: asyncio.Event() for each in streams}
    opening = asyncio.ensure_future(opener.open(*streams, ONE))
    await turns()
    assert len(opener.asked) == 4
    for held in opener.held.values():
        held.set()
    await opening


async def test_a_queue_that_is_refused_ends_the_topics() -> None:
    opener = Opener()
    opener.refusals[JOBS.uri] = TooManyStreams("full")
    with pytest.raises(TooManyStreams):
        await opener.open(ONE, JOBS)
    assert [reader.closed for reader in opener.opened] == [1]


@pytest.mark.parametrize("held", [[ONE], [TWO], [JOBS], [ONE, TWO]])
async def test_who_gives_up_while_it_opens_leaves_nothing(held: list[Destination]) -> None:
    opener = Opener()
    opener.held = {each.uri: asyncio.Event() for each in held}
    opening = asyncio.ensure_future(opener.open(ONE, TWO, JOBS))
    await turns()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert all(reader.closed == 1 for reader in opener.opened)


@pytest.mark.parametrize("defect", [lambda: ZeroDivisionError("x"), asyncio.CancelledError])
async def test_a_defect_is_raised_as_it_is(defect: Callable[[], BaseException]) -> None:
    opener = Opener()
    opener.refusals[TWO.uri] = defect()
    with pytest.raises(type(defect())) as caught:
        await opener.open(ONE, TWO)
    assert not isinstance(caught.value, GatewayError)
    assert [reader.closed for reader in opener.opened] == [1]
