"""From names to addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from app.connectors.stomp import addresses
from app.connectors.stomp.addresses import Address, look_up, one_each, resolve
from app.domain.link import LinkFailed, LinkFault

BOOK: dict[str, list[tuple[Any, ...]]] = {
    "both": [
        (socket.AF_INET, 1, 6, "", ("192.0.2.1", 1)),
        (socket.AF_INET6, 1, 6, "", ("2001:db8::1", 1, 0, 0)),
        (socket.AF_INET, 1, 6, "", ("192.0.2.2", 1)),
        (socket.AF_INET6, 1, 6, "", ("2001:db8::2", 1, 0, 0)),
    ],
    "four": [(socket.AF_INET, 1, 6, "", ("192.0.2.4", 1))],
}


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, _port: int, **_options: Any) -> list[tuple[Any, ...]]:
        if host not in BOOK:
            raise socket.gaierror(-2, "Name or service not known")
        return list(BOOK[host])

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(("ip", "text"), [("192.0.2.1", "192.0.2.1:61613"), ("2001:db8::1", "[2001:db8::1]:61613")])
def test_an_address_prints_as_host_and_port(ip: str, text: str) -> None:
    assert str(Address("name", ip, 61613)) == text


@pytest.mark.usefixtures("book")
async def test_names_in_order_ipv6_first_and_all_of_them() -> None:
    found = await resolve([("four", 1), ("both", 2)], 5)
    assert found[0] == Address("four", "192.0.2.4", 1)
    assert {address.ip for address in found[1:3]} == {"2001:db8::1", "2001:db8::2"}
    assert {address.ip for address in found[3:]} == {"192.0.2.1", "192.0.2.2"}
    assert {(address.name, address.port) for address in found[1:]} == {("both", 2)}


@pytest.mark.usefixtures("book")
async def test_addresses_of_a_name_are_shuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.shuffle", list.reverse)
    ips = [address.ip for address in await resolve([("both", 1)], 5)]
    assert ips == ["2001:db8::2", "2001:db8::1", "192.0.2.2", "192.0.2.1"]


@pytest.mark.usefixtures("book")
async def test_one_name_that_resolves_is_enough() -> None:
    assert [address.name for address in await resolve([("nowhere", 1), ("four", 1)], 5)] == ["four"]


@pytest.mark.usefixtures("book")
async def test_no_name_resolves_names_each_and_its_reason() -> None:
    with pytest.raises(LinkFailed, match="nowhere: Name or service not known; nor-here: Name or") as caught:
        await resolve([("nowhere", 1), ("nor-here", 1)], 5)
    assert caught.value.fault is LinkFault.DNS


@pytest.mark.parametrize("name", ["a..b", ".a", "x" * 64])
async def test_a_name_that_is_none_is_a_failure_of_dns_and_of_nothing_else(name: str) -> None:
    with pytest.raises(LinkFailed) as caught:
        await resolve([(name, 1)], 5)
    assert caught.value.fault is LinkFault.DNS


def test_a_host_with_both_families_is_one_broker() -> None:
    def at(name: str, *ips: str) -> list[Address]:
        return [Address(name, ip, 1) for ip in ips]

    both = at("both", "2001:db8::1", "192.0.2.1", "192.0.2.2")
    six = at("six", "2001:db8::2", "2001:db8::3")
    again = at("again", "192.0.2.2", "192.0.2.3")
    assert one_each([*both, *six, *again]) == [*both[1:], *six, again[1]]
    assert one_each([]) == []


@pytest.mark.usefixtures("book")
async def test_what_does_not_resolve_is_told_beside_what_does() -> None:
    found, failures = await look_up([("nowhere", 1), ("four", 1)], 5)
    assert found == [Address("four", "192.0.2.4", 1)]
    assert failures == {"nowhere": "Name or service not known"}


async def test_a_numeric_address_needs_no_resolver() -> None:
    assert await resolve([("127.0.0.1", 61613)], 5) == [Address("127.0.0.1", "127.0.0.1", 61613)]


async def test_a_name_that_hangs_delays_the_others_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lookup(name: str, port: int) -> list[Address]:
        if name == "hangs":
            await asyncio.Event().wait()
        return [Address(name, "192.0.2.4", port)]

    monkeypatch.setattr(addresses, "lookup", lookup)
    found, failures = await look_up([("hangs", 1), ("four", 1)], 0.02)
    assert found == [Address("four", "192.0.2.4", 1)]
    assert failures == {"hangs": "not resolved in time"}
