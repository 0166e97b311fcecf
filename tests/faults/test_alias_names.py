"""`consume_from: all`: what the names stand for changes, partly fails, or is configured anew."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.stomp import addresses, alias
from app.connectors.stomp.addresses import Address
from app.domain.link import Connections, LinkFault, LinkState
from tests.faults.alias_site import ALL, Names, Open, Site, until
from tests.faults.conftest import Connect, topic
from tests.faults.peer import ScriptedPeer
from tests.faults.test_reconfigure import changed


def known(here: Site) -> list[Address]:
    """Of those that are consumed from."""
    found = here.it.connector._alias
    assert found is not None
    return [member.address for member in found.members]


async def test_a_name_that_hangs_keeps_no_other_away(
    subject: Connect, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lookup(name: str, port: int) -> list[Address]:
        if name == "dead":
            await asyncio.Event().wait()
        return await names.lookup(name, port)

    monkeypatch.setattr(addresses, "lookup", lookup)
    async with ScriptedPeer.listen() as one:
        names.say("good", one)
        async with subject("", hosts=["dead:1", "good:1"], connect_timeout=0.1, **ALL) as it:
            await until(lambda: it.connector.status.connections == Connections(2, 2))
            await names.again(4)
            assert it.connector.status.state is LinkState.UP
            assert it.fault is LinkFault.DNS


@pytest.mark.parametrize("delay", [0.0, 0.1])
async def test_hosts_that_are_not_configured_any_more_never_see_the_new_password(
    site: Open, names: Names, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    async with site() as here, ScriptedPeer.listen() as new:
        names.say("other", new)

        async def lookup(name: str, port: int) -> list[Address]:
            await asyncio.sleep(delay)
            return await names.lookup(name, port)

        monkeypatch.setattr(addresses, "lookup", lookup)
        other = {"hosts": ["other:1"], "password": "new-secret"}
        given = here.it.settings.model_dump(include={"mq_type", "user", "consume_from", "heartbeat_ms", "reconnect"})
        assert here.it.connector.reconfigure(type(here.it.settings).model_validate(given | other))
        for _ in range(2):
            assert (await new.frame("CONNECT"))["passcode"] == "new-secret"
        for peer in here.peers:
            for connection in peer.connections:
                await connection.wait_ended()
            logins = {frame["passcode"] for _, frame in peer.received if frame.command == "CONNECT"}
            assert "new-secret" not in logins


async def test_a_second_reload_tells_its_password_to_no_host_that_the_first_one_removed(
    subject: Connect, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedPeer.listen() as old, ScriptedPeer.listen() as new:
        names.say("alias", old)
        async with subject(f"alias:{old.port}", **ALL) as it:
            await until(lambda: it.connector.status.connections == Connections(2, 2))
            await old.frames("CONNECT", 2)
            answers = asyncio.Event()

            async def lookup(name: str, port: int) -> list[Address]:
                await answers.wait()
                return await names.lookup(name, port)

            monkeypatch.setattr(addresses, "lookup", lookup)
            names.say("alias", new)
            for port, password in ((1, "first"), (2, "second")):
                assert changed(it, hosts=[f"alias:{port}"], password=password)
            await old.none("CONNECT", 0.1)
            answers.set()
            assert [frame["passcode"] for frame in await new.frames("CONNECT", 2)] == ["second"] * 2
            await old.none("CONNECT", 0.1)


async def test_another_name_for_the_same_address_is_another_certificate(site: Open, names: Names) -> None:
    async with site() as here:
        names.say("renamed", *here.peers)
        assert here.it.connector.reconfigure(here.it.settings.model_copy(update={"hosts": ["renamed:1"]}))
        await until(lambda: {address.name for address in known(here)} == {"renamed"})
        await here.all_up()
        assert len(known(here)) == 2


async def test_an_answer_that_lacks_a_family_makes_no_second_member_of_the_same_broker(
    site: Open, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alias, "GONE_AFTER", 1000)
    async with site(1) as here:
        (four,) = known(here)
        six = Address("alias", "::1", four.port)
        names.book["alias"] = [six]
        asked = names.asked
        await until(lambda: names.asked > asked)
        names.book["alias"] = [six, four]
        await names.again(2)
        assert known(here) == [four]


async def test_a_broker_met_by_ipv6_is_left_at_once_where_its_name_has_ipv4(
    site: Open, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alias, "GONE_AFTER", 1000)
    async with site(1) as here:
        (four,) = known(here)
        six = Address("six", "::1", four.port)
        names.book["six"] = [six]
        assert here.it.connector.reconfigure(here.it.settings.model_copy(update={"hosts": ["six:61613"]}))
        await until(lambda: known(here) == [six])
        names.book["six"] = [six, Address("six", four.ip, four.port)]
        await until(lambda: known(here) == [Address("six", four.ip, four.port)])


async def test_reloads_in_a_row_are_no_look_ups_in_a_row(
    site: Open, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site() as here:
        await here.it.consume(topic())
        monkeypatch.setattr(alias, "LOOK_UP_EVERY", 30.0)
        names.say("alias", here.peers[0])
        for _ in range(5):
            here.it.connector.retry()
            asked = names.asked
            await until(lambda asked=asked: names.asked > asked)  # type: ignore[misc]
        assert len(known(here)) == 2
        monkeypatch.setattr(alias, "LOOK_UP_EVERY", 0.05)
        here.it.connector.retry()
        await until(lambda: len(known(here)) == 1)
