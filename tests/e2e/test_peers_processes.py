"""Two gateways as processes, as an operator runs them: told of each other with SIGHUP, stopped, killed, made anew."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.e2e.http_client import Answer, ask, eventually, get_json
from tests.e2e.live_gateway import LiveGateway, running
from tests.e2e.replicas import secret_file
from tests.e2e.test_reload import hang_up

JOBS = "/mq/mem/Queues/jobs"


class Site:
    """A configuration that all replicas share, in a file for each, whose peers are known when they listen."""

    def __init__(self, folder: Path, services: dict[str, Any]) -> None:
        self._folder = folder
        self._secret = secret_file(folder)
        self._services = services
        self._made = 0

    def write(self, path: Path, *peers: int) -> None:
        values = {
            "services": self._services,
            "server": {"peers": [f"127.0.0.1:{port}" for port in peers]},
            "auth": {"secret_file": self._secret},
        }
        path.write_text(json.dumps(values))

    @contextlib.asynccontextmanager
    async def replica(self, *peers: int) -> AsyncIterator[tuple[LiveGateway, Path]]:
        self._made += 1
        config = self._folder / f"{self._made}.yaml"
        self.write(config, *peers)
        async with running(config) as gateway:
            yield gateway, config

    @contextlib.asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[LiveGateway, LiveGateway]]:
        """The second knows the first from the start, the first learns of it with a reload."""
        async with self.replica() as (one, config), self.replica(one.port) as (two, _):
            self.write(config, one.port, two.port)
            await hang_up(one)
            yield one, two


async def take(gateway: LiveGateway, path: str, number: int = 1, lease: int = 60) -> list[str]:
    """Leases of so many new messages."""
    for at in range(number):
        assert (await ask(gateway.port, "POST", path, b"%d" % at)).status == 200
    leases: list[str] = []
    async with asyncio.timeout(20):
        while len(leases) < number:
            target = f"{path}/receive?wait=10&max={number - len(leases)}&lease={lease}"
            answer = await ask(gateway.port, "POST", target)
            assert answer.status == 200, answer.body
            leases += [one["lease"] for one in answer.json["messages"]]
    return leases


async def say(gateway: LiveGateway, path: str, verb: str, *leases: str) -> Answer:
    return await ask(gateway.port, "POST", f"{path}/{verb}", json.dumps({"leases": leases}).encode())


def results(answer: Answer) -> list[str]:
    return [one["result"] for one in answer.json["results"]]


async def test_replicas_answer_for_each_other_through_stops_kills_and_restarts(tmp_path: Path) -> None:
    site = Site(tmp_path, {"mem": {"mq_type": "Memory", "queues": {"jobs": {}}}})
    async with site.pair() as (one, two):
        leases = await take(two, JOBS, 5)
        assert results(await say(one, JOBS, "renew", leases[0])) == ["done"]
        answer = await say(one, JOBS, "ack", *leases[:2])
        assert (answer.status, results(answer)) == (200, ["done", "done"])
        (mine,) = await take(one, JOBS)
        assert results(await say(two, JOBS, "ack", mine)) == ["done"]
        # It is there and says nothing: bounded, and who does not need it does not notice.
        two.signal(signal.SIGSTOP)
        (mine,) = await take(one, JOBS)
        began = time.monotonic()
        waits = asyncio.ensure_future(say(one, JOBS, "ack", leases[2]))
        assert results(await say(one, JOBS, "ack", mine)) == ["done"]
        assert time.monotonic() - began < 1
        assert results(await waits) == ["elsewhere"]
        assert time.monotonic() - began < 7
        two.signal(signal.SIGCONT)

        async def done() -> bool:
            return results(await say(one, JOBS, "ack", leases[2])) == ["done"]

        await eventually(done, "the owner to be heard again")
        two.signal(signal.SIGKILL)
        await two.ended(10)
        assert results(await say(one, JOBS, "ack", leases[3], mine)) == ["elsewhere", "done"]
        async with site.replica(one.port) as (three, _):
            (new,) = await take(three, JOBS)
            assert results(await say(three, JOBS, "ack", leases[4])) == ["elsewhere"]
            assert results(await say(one, JOBS, "ack", new)) == ["elsewhere"]  # not one of its peers yet
            assert (await get_json(three.port, "/mq"))["instance"] != (await get_json(one.port, "/mq"))["instance"]


async def test_a_replica_that_goes_down_is_told_to_the_end(tmp_path: Path) -> None:
    """While it drains it still listens for `drain_delay`, and what is said elsewhere of its leases is done."""
    secret = secret_file(tmp_path)
    service = {"mem": {"mq_type": "Memory", "queues": {"jobs": {}}}}
    configs = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for config in configs:
        values = {"services": service, "server": {"drain_delay": 5}, "auth": {"secret_file": secret}}
        config.write_text(json.dumps(values))
    async with running(configs[0]) as one, running(configs[1], MQ_GATEWAY_SERVER__PEERS=f"127.0.0.1:{one.port}") as two:
        (lease,) = await take(one, JOBS)
        one.signal(signal.SIGTERM)

        async def drains() -> bool:
            return (await ask(one.port, "GET", "/health/ready")).status == 503

        await eventually(drains, "the drain to begin")
        assert results(await say(two, JOBS, "ack", lease)) == ["done"]
        one.signal(signal.SIGTERM)
        assert await one.ended(20) == 0
