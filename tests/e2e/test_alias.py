"""A whole gateway with `consume_from: all` before brokers that know nothing of each other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, MakeActiveMQ, MakeRabbitMQ
from tests.e2e.http_client import Sse, ask, get_json, post
from tests.e2e.live_gateway import LiveGateway, running, write_config
from tests.faults.artemis_peer import ArtemisPeer

NEWS = "/mq/site/Topics/news"
JOBS = "/mq/site/Queues/jobs"


@contextlib.asynccontextmanager
async def before(folder: Path, *addresses: str, **settings: Any) -> AsyncIterator[LiveGateway]:
    """A gateway whose service `site` is all of them."""
    service = {
        "mq_type": "Stomp",
        "hosts": addresses,
        "consume_from": "all",
        "reconnect": {"initial": 0.05, "increase": 0, "max": 0.05},
        "queues": {"jobs": {}},
        "topics": {"news": {}},
        **settings,
    }
    async with running(write_config(folder, {"site": service})) as gateway:
        await all_up(gateway, len(addresses) + 1)
        yield gateway


async def all_up(gateway: LiveGateway, number: int, of: int | None = None) -> None:
    wanted = {"up": number, "of": number if of is None else of}
    await gateway.until_link("site", lambda view: bool(view["connections"] == wanted))


async def test_two_brokers_are_one_service_and_one_of_them_may_fall(tmp_path: Path, stomp_client: ConnectStomp) -> None:
    async with (
        ArtemisPeer.serve() as one,
        ArtemisPeer.serve() as two,
        before(tmp_path, one.address, two.address) as gateway,
    ):
        producers = [await stomp_client(peer.address) for peer in (one, two)]
        async with await Sse.open(gateway.port, f"{NEWS}/events?status=true") as stream:
            for number, producer in enumerate(producers):
                await producer.send("/topic/news", b"%d" % number)
                await producer.send("/queue/jobs", b"%d" % number)
            assert sorted(event.data for event in await stream.take(2)) == ["0", "1"]
            taken: list[dict[str, Any]] = []
            while len(taken) < 2:
                answer = await ask(gateway.port, "POST", f"{JOBS}/receive?max=2&wait=5")
                taken += answer.json["messages"]
            assert sorted(message["body"] for message in taken) == ["0", "1"]
            # An ack goes to where the message came from.
            answer = await ask(gateway.port, "POST", f"{JOBS}/ack?lease={taken[0]['lease']}")
            assert answer.json["results"][0]["result"] == "done"
            mine = int(taken[0]["body"])
            await (one, two)[mine].frame("ACK")
            assert (one, two)[1 - mine].count("ACK") == 0
            await two.shut()
            await all_up(gateway, 2, 3)
            assert (await gateway.link("site"))["link"] == "up"
            assert await gateway.metric("mq_gateway_connections_up", service="site") == 2
            assert await gateway.metric("mq_gateway_connections", service="site") == 3
            assert (await post(gateway.port, NEWS, b"meanwhile")).status == 200
            assert (await stream.next()).data == "meanwhile"
            await two.open()
            await all_up(gateway, 3)
            gap = await stream.next()
            assert (gap.name, gap.json["reason"]) == ("gap", "link_lost")
            producer = await stomp_client(two.address)
            await producer.send("/topic/news", b"again")
            assert (await stream.next()).data == "again"
        assert (await get_json(gateway.port, "/mq/site"))["destinations"][1]["gaps"] == 1


async def test_two_rabbitmq_that_are_no_cluster(
    make_rabbitmq: MakeRabbitMQ, stomp_client: ConnectStomp, tmp_path: Path
) -> None:
    await consumed_from_both(await make_rabbitmq(), await make_rabbitmq(), stomp_client, tmp_path)


async def test_two_activemq_that_are_no_network(
    make_activemq: MakeActiveMQ, stomp_client: ConnectStomp, tmp_path: Path
) -> None:
    await consumed_from_both(await make_activemq(), await make_activemq(), stomp_client, tmp_path)


async def consumed_from_both(one: Broker, two: Broker, stomp_client: ConnectStomp, folder: Path) -> None:
    login = {"user": one.user, "password": one.password}
    async with before(folder, one.address, two.address, **login) as gateway:
        producers = [await stomp_client(broker, user=broker.user, password=broker.password) for broker in (one, two)]
        async with await Sse.open(gateway.port, f"{NEWS}/events") as stream:
            for number, producer in enumerate(producers):
                await producer.send("/topic/news", b"%d" % number)
            assert sorted(event.data for event in await stream.take(2)) == ["0", "1"]
        async with await Sse.open(gateway.port, f"{JOBS}/events") as stream:
            for number, producer in enumerate(producers):
                await producer.send("/queue/jobs", b"%d" % number)
            assert sorted(event.data for event in await stream.take(2)) == ["0", "1"]
        await two.stop()
        await all_up(gateway, 2, 3)
        assert (await post(gateway.port, JOBS, b"meanwhile")).status == 200
        await two.start()
        await all_up(gateway, 3)
