"""GET /events at real brokers: Topics of a broker and of the gateway's own memory, Queues, streams, on one stream."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.brokers.fixtures import Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.conftest import Target
from tests.e2e.http_client import Event, Http, Sse, ask, post
from tests.e2e.live_gateway import MEMORY, running, stomp, write_config

#: Events of each Topic, a second of each, and times at which the connection is cut.
TOTAL = 400
RATE = 200
CUTS = 12
PLAIN = {"Content-Type": "text/plain"}


def several(*uris: str, **more: str) -> str:
    return "/events?" + urlencode([*(("uri", uri) for uri in uris), *more.items()])


def path_of(uri: str) -> str:
    return "/mq/" + uri.replace("::", "/")


async def publish(port: int, uri: str, total: int = TOTAL) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with await Http.connect(port) as http:
        for number in range(total):
            await asyncio.sleep(max(0.0, begun + number / RATE - loop.time()))
            assert (await http.ask("POST", path_of(uri), b"%d" % number, PLAIN)).status == 200


async def test_sse_case_27_cuts_make_no_hole_and_no_repeat_in_any_of_them(target: Target, unique: Unique) -> None:
    uris = [f"mq::Topics::{unique('one')}", f"mq::Topics::{unique('two')}", f"mem::Topics::{unique('three')}"]
    chance = random.Random(12)
    got: dict[str, list[int]] = defaultdict(list)
    seen = 0
    stream = await Sse.open(target.port, several(*uris))
    publishing = asyncio.gather(*(publish(target.port, uri) for uri in uris))
    last = stream.last_id
    for cut in range(CUTS):
        wanted = seen + chance.randrange(1, 2 * TOTAL // CUTS)
        while seen < min(wanted, TOTAL * len(uris)):
            event = await stream.next()
            got[event.json["mq_uri"]].append(int(event.json["body"]))
            assert event.name == "message"
            assert event.id == event.json["id"]
            seen, last = seen + 1, event.id
        stream.reset() if cut % 2 else stream.close()
        chance.shuffle(uris)
        stream = await Sse.open(target.port, several(*uris), {"Last-Event-ID": last})
    while seen < TOTAL * len(uris):
        event = await stream.next()
        got[event.json["mq_uri"]].append(int(event.json["body"]))
        seen += 1
    await publishing
    with pytest.raises(TimeoutError):
        await stream.next(0.3)
    assert got == {uri: list(range(TOTAL)) for uri in uris}


async def test_a_queue_beside_topics_gives_each_message_once(target: Target, unique: Unique) -> None:
    jobs, news = f"mq::Queues::{unique('jobs')}", f"mq::Topics::{unique('news')}"
    async with (
        await Sse.open(target.port, several(jobs, news)) as one,
        await Sse.open(target.port, several(news, jobs)) as two,
    ):
        for number in range(20):
            assert (await post(target.port, path_of(jobs), str(number))).status == 200
        assert (await post(target.port, path_of(news), "end")).status == 200
        events: list[Event] = []
        for stream in (one, two):
            events += await stream.until(lambda event: event.json["mq_uri"] == news)

        async def late(stream: Sse) -> list[Event]:
            found = []
            try:
                while True:
                    found.append(await stream.next(0.5))
            except TimeoutError:
                return found

        for found in await asyncio.gather(late(one), late(two)):
            events += found
    taken = [event.json["body"] for event in events if event.json["mq_uri"] == jobs]
    assert sorted(map(int, taken)) == list(range(20))
    assert [event.json["body"] for event in events if event.json["mq_uri"] == news] == ["end", "end"]


async def test_a_topic_that_never_rests_leaves_the_other_its_place(target: Target, unique: Unique) -> None:
    busy, quiet = f"mq::Topics::{unique('busy')}", f"mq::Topics::{unique('quiet')}"
    async with await Sse.open(target.port, several(busy, quiet, slow="latest")) as stream:
        stop = asyncio.Event()

        async def flood() -> None:
            async with await Http.connect(target.port) as http:
                while not stop.is_set():
                    assert (await http.ask("POST", f"{path_of(busy)}?confirm=none", b"x" * 2000, PLAIN)).status == 202

        flooding = asyncio.gather(flood(), flood())
        for number in range(10):
            assert (await post(target.port, path_of(quiet), str(number))).status == 200
            found = await stream.until(lambda event: event.json["mq_uri"] == quiet)
            assert found[-1].json["body"] == str(number)
        stop.set()
        await flooding


@pytest.mark.rabbitmq
async def test_sse_case_35_a_vector_is_good_on_another_replica_where_streams_are(
    tmp_path: Path, unique: Unique, rabbitmq: RabbitMQ
) -> None:
    one, two, plain = (unique(name) for name in ("one", "two", "plain"))
    service = stomp(rabbitmq, topics={one: {"replay": "stream", "ring_messages": 5}, two: {"replay": "stream"}})
    uris = [f"mq::Topics::{name}" for name in (one, two, plain)]
    config = write_config(tmp_path, {"mq": service, "mem": MEMORY})
    async with running(config) as first, running(config) as second:
        async with await Sse.open(first.port, several(*uris)) as stream:
            for number in range(10):
                for uri in uris:
                    assert (await post(first.port, path_of(uri), str(number))).status == 200
            seen = await stream.take(30)
        cut = seen[11]
        before = [sum(event.json["mq_uri"] == uri for event in seen[:12]) for uri in uris]
        async with await Sse.open(second.port, several(*uris), {"Last-Event-ID": cut.id}) as stream:
            rest = await stream.take(20 - before[0] - before[1] + 1)
        for uri, number in zip(uris[:2], before, strict=False):
            told = [event.json["body"] for event in rest if event.json["mq_uri"] == uri]
            assert told == [str(at) for at in range(number, 10)]
        assert [event.json.get("reason") for event in rest if event.json["mq_uri"] == uris[2]] == ["restart"]


async def test_what_this_broker_cannot_have_is_told_with_the_others(target: Target, unique: Unique) -> None:
    answer = await ask(target.port, "GET", several(f"mq::Topics::{unique('fine')}", "mq::Topics::a*", "no::Topics::x"))
    assert (answer.status, answer.code) == (400, "invalid_name")
    assert [error["where"] for error in answer.json["errors"]] == ["uri[1]", "uri[2]"]
