"""Two replicas on a real broker: what is said at one of a lease of the other is done at the broker."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.brokers.broker import Broker
from tests.brokers.fixtures import Unique
from tests.e2e.conftest import broker
from tests.e2e.http_client import ask, eventually
from tests.e2e.test_main_job_readers import depth
from tests.e2e.test_peers_processes import Site, results, say, take

__all__ = ["broker"]


async def test_acks_and_nacks_at_another_replica_reach_the_broker(
    broker: Broker, unique: Unique, tmp_path: Path
) -> None:
    queue = unique("jobs")
    path = f"/mq/mq/Queues/{queue}"
    login = {"host": broker.host, "port": broker.port, "user": "guest", "password": "guest"}
    site = Site(tmp_path, {"mq": {**login, "queues": {queue: {}}}})
    async with site.pair() as (one, two):
        await one.until_up("mq")
        await two.until_up("mq")
        leases = await take(two, path, 10)
        assert results(await say(one, path, "renew", *leases)) == ["done"] * 10
        assert results(await say(one, path, "ack", *leases[:7])) == ["done"] * 7

        async def left() -> bool:
            return await depth(broker, queue) == 3

        await eventually(left, "seven acks at the broker", 20)
        assert results(await say(one, path, "nack", leases[7])) == ["done"]
        # The owner dies: what it held is anybody's again, and what is said of it too late is told to nobody.
        two.signal(signal.SIGKILL)
        await two.ended(10)
        assert results(await say(one, path, "ack", leases[8])) == ["elsewhere"]
        again: list[str] = []
        while len(again) < 3:
            answer = await ask(one.port, "POST", f"{path}/receive?wait=20&max=3")
            assert answer.status == 200, answer.body
            again += [message["lease"] for message in answer.json["messages"]]
        assert results(await say(one, path, "ack", *again)) == ["done"] * 3

        async def empty() -> bool:
            return await depth(broker, queue) == 0

        await eventually(empty, "an empty queue", 20)
