"""Which replica is where: rounds of questions, and what stays known between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.connectors.stomp.addresses import Address
from app.gateway import peer_directory as module
from app.gateway import peer_names
from app.gateway.peer_channel import Outcome, Peer, PeerFailed
from app.gateway.peer_directory import PeerDirectory
from app.wire.peer import Answer, Question
from tests.unit.gateway.fakes import turns


class Net:
    """Who answers where; `asked` has every address that was asked, in order. A name that is not there hangs."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {"a": ["10.0.0.1"], "b": ["10.0.0.2"]}
        self.there: dict[str, str] = {}
        self.asked: list[str] = []
        self.stalled: set[str] = set()
        self.directory = PeerDirectory([("a", 1), ("b", 1)], self.ask)

    async def ask(self, one: Peer, question: Question) -> Answer:
        assert question == Question()
        ip = one.address.ip
        self.asked.append(ip)
        await asyncio.sleep(0)
        if ip in self.stalled:
            await asyncio.Event().wait()
        if ip not in self.there:
            raise PeerFailed(Outcome.UNREACHABLE)
        return Answer(self.there[ip])

    async def lookup(self, name: str, port: int) -> list[Address]:
        if name not in self.names:
            await asyncio.Event().wait()
        if not self.names[name]:
            raise OSError("no such name")
        return [Address(name, ip, port) for ip in self.names[name]]

    async def find(self, instance: str) -> str | None:
        async with asyncio.timeout(5):
            one = await self.directory.find(instance)
        return None if one is None else one.address.ip


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Net]:
    made = Net()

    async def lookup(name: str, port: int) -> list[Address]:
        return await made.lookup(name, port)

    monkeypatch.setattr(peer_names, "lookup", lookup)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(peer_names, "LOOKUP_SECONDS", 0.05)
    yield made
    made.directory.close()
    await asyncio.sleep(0)


async def test_nobody_is_asked_before_a_lease_names_somebody_and_once_is_enough(net: Net) -> None:
    net.there = {"10.0.0.1": "x", "10.0.0.2": "y"}
    assert net.asked == []
    assert await net.find("y") == "10.0.0.2"
    assert await net.find("x") == "10.0.0.1"
    assert await net.find("y") == "10.0.0.2"
    assert sorted(net.asked) == ["10.0.0.1", "10.0.0.2"]


async def test_all_who_look_share_a_round_and_the_next_one_waits(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.2)
    loop = asyncio.get_running_loop()
    assert await asyncio.gather(*(net.find(f"gone-{number}") for number in range(50))) == [None] * 50
    assert len(net.asked) == 2
    began = loop.time()
    net.there = {"10.0.0.1": "x"}
    assert await net.find("x") == "10.0.0.1"
    assert loop.time() - began > 0.15
    assert len(net.asked) == 4


async def test_who_was_replaced_is_found_no_more_and_who_came_is(net: Net) -> None:
    net.there = {"10.0.0.1": "x"}
    one = await net.directory.find("x")
    assert one is not None
    net.there = {"10.0.0.1": "x2"}
    net.directory.learn(one, "x2")
    assert await net.find("x2") == "10.0.0.1"
    assert await net.find("x") is None


async def test_a_peer_that_stalls_holds_up_who_looks_for_nobody_else(net: Net) -> None:
    net.there, net.stalled = {"10.0.0.2": "y"}, {"10.0.0.1"}
    assert await net.find("y") == "10.0.0.2"


async def test_a_name_that_hangs_holds_up_no_other(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_names, "LOOKUP_SECONDS", 60)
    net.there = {"10.0.0.2": "y"}
    del net.names["a"]
    assert await net.find("y") == "10.0.0.2"


async def test_a_name_that_cannot_be_looked_up_keeps_its_addresses(net: Net) -> None:
    net.there = {"10.0.0.1": "x"}
    assert await net.find("x") == "10.0.0.1"
    net.there, net.names["a"] = {"10.0.0.1": "x2"}, []
    assert await net.find("x2") == "10.0.0.1"
    net.there = {}
    del net.names["a"]
    assert await net.find("x2") == "10.0.0.1"  # nobody has said otherwise yet
    assert await net.find("x3") is None
    net.there = {"10.0.0.1": "x3"}
    assert await net.find("x3") == "10.0.0.1"


async def test_a_name_has_many_addresses_and_they_change(net: Net) -> None:
    net.names = {"a": [f"10.0.1.{number}" for number in range(9)], "b": ["10.0.1.3"]}
    net.there = {f"10.0.1.{number}": f"i{number}" for number in range(9)}
    assert await net.find("i7") == "10.0.1.7"
    assert await net.find("nobody") is None
    assert max(net.asked.count(ip) for ip in net.there) == 2
    net.names["a"] = ["10.0.2.1"]
    net.there["10.0.2.1"] = "new"
    assert await net.find("new") == "10.0.2.1"
    assert await net.find("i7") == "10.0.1.7"  # not listed any more: it drains


async def test_who_is_not_listed_and_does_not_answer_is_forgotten(net: Net) -> None:
    net.there = {"10.0.0.1": "x"}
    assert await net.find("x") == "10.0.0.1"
    net.names["a"], net.there = ["10.0.0.9"], {}
    for _ in range(2):
        assert await net.find("nobody") is None
    net.asked.clear()
    assert await net.find("nobody") is None
    assert sorted(net.asked) == ["10.0.0.2", "10.0.0.9"]


async def test_who_stalls_or_is_a_stranger_rests(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_SECONDS", 0.3)
    outcomes = {"10.0.0.1": Outcome.NONSENSE, "10.0.0.2": Outcome.REFUSED}
    ask = net.ask

    async def fails(one: Peer, question: Question) -> Answer:
        if (outcome := outcomes.get(one.address.ip)) is None:
            return await ask(one, question)
        net.asked.append(one.address.ip)
        raise PeerFailed(outcome)

    net.directory._ask = fails
    for _ in range(3):
        assert await net.find("x") is None
    assert (net.asked.count("10.0.0.1"), net.asked.count("10.0.0.2")) == (1, 3)
    outcomes.clear()
    net.there["10.0.0.1"] = "x"
    assert await net.find("x") is None
    await asyncio.sleep(0.3)
    assert await net.find("x") == "10.0.0.1"


async def test_there_is_an_end_to_addresses(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    net.names = {"a": [f"10.1.{number}.1" for number in range(200)], "b": ["10.0.0.2"]}
    assert await net.find("nobody") is None
    assert len(net.asked) == module.MAX_ADDRESSES
    assert "no more are asked" in caplog.text


async def test_other_peers_are_configured(net: Net) -> None:
    net.there = {"10.0.0.1": "x", "10.0.0.2": "y"}
    assert await net.find("x") == "10.0.0.1"
    net.directory.reload([("b", 1)])
    assert await net.find("y") == "10.0.0.2"
    assert await net.find("x") is None
    net.directory.reload([("b", 1)])
    net.asked.clear()
    assert await net.find("y") == "10.0.0.2"
    assert net.asked == []
    net.directory.reload([])
    assert await net.find("y") is None
    assert net.asked == []


async def test_a_defect_of_a_round_leaves_nobody_waiting(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_one: Peer, _question: Question) -> Answer:
        raise RuntimeError("a defect")

    net.directory._ask = broken
    assert await net.find("x") is None
    assert "looking for peers failed" in caplog.text


async def test_closing_ends_a_round_and_who_waits_for_it(net: Net) -> None:
    net.stalled = {"10.0.0.1", "10.0.0.2"}
    net.there = dict.fromkeys(net.stalled, "x")
    waits = asyncio.ensure_future(net.find("x"))
    await asyncio.sleep(0.05)
    net.directory.close()
    assert await waits is None


async def test_other_peers_are_configured_while_a_round_is_under_way(net: Net) -> None:
    net.there, net.stalled = {"10.0.0.1": "x", "10.0.0.2": "y"}, {"10.0.0.1"}
    net.directory.reload([("a", 1)])
    waits = asyncio.ensure_future(net.find("y"))
    await turns(10)
    assert net.asked == ["10.0.0.1"]
    net.directory.reload([("b", 1)])
    net.stalled.clear()
    assert await waits == "10.0.0.2"
    assert await net.find("x") is None
    assert net.asked.count("10.0.0.1") == 1


async def test_no_peers_are_configured_while_a_round_is_under_way(net: Net) -> None:
    net.there, net.stalled = {"10.0.0.1": "x"}, {"10.0.0.2"}
    waits = asyncio.ensure_future(net.find("y"))
    await turns(10)
    net.directory.reload([])
    assert await waits is None
    assert await net.find("x") is None
    net.stalled.clear()
    net.directory.reload([("a", 1)])
    assert await net.find("x") == "10.0.0.1"


async def test_what_is_looked_up_for_an_old_configuration_is_not_kept(net: Net) -> None:
    answered, lookup = asyncio.Event(), net.lookup

    async def slow(name: str, port: int) -> list[Address]:
        await answered.wait()
        return await lookup(name, port)

    net.lookup = slow  # type: ignore[method-assign]
    net.there = {"10.0.0.1": "x"}
    waits = asyncio.ensure_future(net.find("x"))
    await turns(10)
    answered.set()
    net.directory.reload([("b", 1)])
    assert await waits is None
    assert await net.find("x") is None
