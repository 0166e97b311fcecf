"""A browser on a Topic with a stream behind it, while replicas and brokers end: no hole and no repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.fixtures import MakeRabbitMQ, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.chromium import Chromium, Page, chromium
from tests.e2e.http_client import Http, post
from tests.e2e.live_gateway import running, stomp, write_config
from tests.e2e.relay import Relay
from tests.e2e.sizes import FULL, sized

__all__ = ["chromium"]

pytestmark = [pytest.mark.browser, pytest.mark.rabbitmq]

#: Publishes in a second, from so many connections.
RATE, PUBLISHERS = 500, 10
SECONDS = sized(3.0, 20.0)
#: Messages in the page before something ends; a busy machine does not reach the rate.
ENOUGH = sized(200, 3000)


@dataclass
class Load:
    """Publishers with one connection each, at a replica or, once that is gone, at the next. Every body is sent once."""

    path: str
    ports: list[int]
    confirmed: set[str] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=count)

    async def run(self, seconds: float) -> None:
        """Publish for so many seconds."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._publish(at, until) for at in range(PUBLISHERS)))

    async def _publish(self, at: int, until: float) -> None:
        due, http = time.monotonic(), None
        while time.monotonic() < until:
            body = str(next(self.numbers))
            try:
                http = http or await Http.connect(self.ports[at % len(self.ports)])
                if (await http.ask("POST", self.path, body.encode())).status == 200:
                    self.confirmed.add(body)
            except (ConnectionError, asyncio.IncompleteReadError):
                http, at = None, at + 1
            due += PUBLISHERS / RATE
            await asyncio.sleep(due - time.monotonic())


async def _read_all(page: Page, load: Load, port: int) -> list[dict[str, Any]]:
    """Every event of the page until the last one published; none is missing, none came twice."""
    assert (await post(port, load.path, "end")).status == 200
    await page.run(ENDED)
    events = await page.seen(1)
    messages = [event for event in events if event["name"] == "message"]
    assert {event["name"] for event in events} <= {"open", "error", "message", "unavailable"}
    assert [event["id"] for event in messages] == [f"s.{offset}" for offset in range(len(messages))]
    bodies = [event["data"] for event in messages]
    assert len(set(bodies)) == len(bodies)
    assert load.confirmed <= set(bodies)
    return events


#: Resolves once the page has the message `end`.
ENDED = """
new Promise((resolve) => {
  const check = () => events.some((event) => event.data === "end") && (resolve(1), true);
  check() || waiting.push(check);
})
"""


def _config(folder: Path, topic: str, broker: RabbitMQ) -> Path:
    return write_config(folder, {"mq": stomp(broker, topics={topic: {"replay": "stream"}})})


async def test_the_replica_it_reads_from_is_killed_under_load(
    tmp_path: Path, chromium: Chromium, rabbitmq: RabbitMQ, unique: Unique
) -> None:
    topic = unique("seen")
    config = _config(tmp_path, topic, rabbitmq)
    async with running(config) as one, running(config) as two:
        relay, load = Relay(one.port, two.port), Load(f"/mq/mq/Topics/{topic}", [one.port, two.port])
        async with relay.listening() as port, chromium.page(f"http://127.0.0.1:{port}/") as page:
            await page.listen(f"{load.path}/events")
            await page.seen(1)
            working = asyncio.ensure_future(load.run(SECONDS))
            await page.seen(ENOUGH)
            one.popen.kill()
            await working
            events = await _read_all(page, load, two.port)
    assert [event["name"] for event in events if event["name"] != "message"] == ["open", "error", "open"]
    assert len(load.confirmed) > ENOUGH
    _tell("a replica killed", events, load)


async def test_everything_is_restarted_under_load(
    tmp_path: Path, chromium: Chromium, make_rabbitmq: MakeRabbitMQ, unique: Unique
) -> None:
    topic, broker = unique("seen"), await make_rabbitmq()
    config = _config(tmp_path, topic, broker)
    relay, load = Relay(), Load(f"/mq/mq/Topics/{topic}", [])
    async with (
        relay.listening() as port,
        running(config) as one,
        running(config) as two,
        chromium.page("about:blank") as page,
    ):
        relay.targets, load.ports = (one.port, two.port), [one.port, two.port]
        await one.until_up("mq")
        await page.load(f"http://127.0.0.1:{port}/")
        await page.listen(f"{load.path}/events")
        await page.seen(1)
        working = asyncio.ensure_future(load.run(SECONDS))
        await page.seen(ENOUGH)
        await broker.stop()
        for gateway in (one, two):
            gateway.signal()
        for gateway in (one, two):
            assert await gateway.ended(30) == 0
        await working
        before = len(load.confirmed)
        await broker.start()
        async with running(config) as again, running(config) as other:
            relay.targets, load.ports = (again.port, other.port), [again.port, other.port]
            for gateway in (again, other):
                await gateway.until_up("mq")
            await load.run(SECONDS)
            events = await _read_all(page, load, other.port)
    assert before > 0
    assert len(load.confirmed) - before > ENOUGH
    _tell("everything restarted", events, load)


def _tell(what: str, events: list[dict[str, Any]], load: Load) -> None:
    if FULL:
        names = [event["name"] for event in events]
        print(
            f"\n{what}: {names.count('message')} events, {len(load.confirmed)} confirmed, "
            f"{names.count('open')} times opened, no hole, no repeat"
        )
