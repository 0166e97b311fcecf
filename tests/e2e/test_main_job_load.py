"""The main job on a DIRAC site's own file: many publishers and many readers on one STOMP connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from string import Template

from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.http_client import PATIENCE, Http, Sse, connections, post
from tests.e2e.live_gateway import LiveGateway, running

PUBLISHERS = 50
EACH = 100
STREAMS = 200

CFG = Template("""\
DIRAC
{
  Setup = Anything-Production
}
Resources
{
  MQServices
  {
    mardirac3.in2p3.fr
    {
      MQType = Stomp
      Host = $host
      Port = $port
      VHost = /
      User = guest
      Password = guest
      Queues
      {
        $queue
        {
          Acknowledgement = True
          Persistent = False
        }
        $work
        {
        }
      }
      Topics
      {
        $topic
        {
        }
      }
    }
  }
}
""")


class Watch:
    """Who is connected to the broker, looked at again and again while the test runs."""

    def __init__(self, gateway: LiveGateway, broker: Broker) -> None:
        self._gateway = gateway
        self._broker = broker
        self.seen: Counter[frozenset[int]] = Counter()

    async def run(self) -> None:
        while True:
            self.seen[frozenset(self._gateway.broker_ports(self._broker))] += 1
            await asyncio.sleep(0.2)


async def _publish_all(http: Http, target: str, publisher: int) -> list[int]:
    return [(await http.ask("POST", target, b"%d:%d" % (publisher, number))).status for number in range(EACH)]


async def test_five_thousand_posts_and_two_hundred_streams_on_one_connection(
    broker: Broker, tmp_path: Path, stomp_client: ConnectStomp, unique: Unique
) -> None:
    queue, work, topic = unique("TestQueue"), unique("work"), unique("status")
    config = tmp_path / "dirac.cfg"
    config.write_text(CFG.substitute(host=broker.host, port=broker.port, queue=queue, work=work, topic=topic))
    base = "/mq/mardirac3.in2p3.fr"
    async with running(config) as gateway:
        await gateway.until_up("mardirac3.in2p3.fr")
        watch = Watch(gateway, broker)
        watching = asyncio.create_task(watch.run())
        before = await gateway.broker_pids(broker) if isinstance(broker, RabbitMQ) else []
        paths = [f"{base}/Topics/{topic}/events", f"{base}/Queues/{work}/events"] * (STREAMS // 2)
        streams = await asyncio.gather(*(Sse.open(gateway.port, path) for path in paths))
        topics, queues = streams[::2], streams[1::2]

        async with connections(gateway.port, PUBLISHERS) as https:
            jobs = [_publish_all(http, f"{base}/Queues/{queue}", number) for number, http in enumerate(https)]
            answered = await asyncio.gather(*jobs, _tell(gateway.port, f"{base}/Topics/{topic}", 20))
        assert Counter(status for statuses in answered for status in statuses) == {200: PUBLISHERS * EACH + 20}

        for stream in topics:
            assert [event.data for event in await stream.take(20)] == [f"news {number}" for number in range(20)]
        assert await _tell(gateway.port, f"{base}/Queues/{work}", 200) == [200] * 200
        assert sorted(await _shared(queues, 200)) == sorted(f"news {number}" for number in range(200))

        if isinstance(broker, RabbitMQ):
            assert await gateway.broker_pids(broker) == before
            assert len(before) == 1
        watching.cancel()
        assert await gateway.metric("mq_gateway_reconnects_total") == 0
        for stream in streams:
            stream.close()
    (only,) = watch.seen
    assert len(only) == 1
    assert watch.seen.total() > 5

    client = await stomp_client(broker)
    await client.subscribe(f"/queue/{queue}")
    received = await client.messages(PUBLISHERS * EACH)
    for publisher in range(PUBLISHERS):
        mine = [body for body in received if body.startswith(b"%d:" % publisher)]
        assert mine == [b"%d:%d" % (publisher, number) for number in range(EACH)]


async def _tell(port: int, target: str, number: int) -> list[int]:
    async with await Http.connect(port) as http:
        return [(await http.ask("POST", target, b"news %d" % index)).status for index in range(number)]


async def _shared(streams: list[Sse], number: int) -> list[str]:
    """What the readers of one Queue get together."""
    got: list[str] = []
    enough = asyncio.Event()

    async def read(stream: Sse) -> None:
        while True:
            got.append((await stream.next()).data)
            if len(got) >= number:
                enough.set()

    readers = [asyncio.create_task(read(stream)) for stream in streams]
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    for reader in readers:
        reader.cancel()
    return got


async def test_what_is_not_declared_does_not_exist(broker: Broker, tmp_path: Path, unique: Unique) -> None:
    queue = unique("TestQueue")
    config = tmp_path / "dirac.cfg"
    config.write_text(CFG.substitute(host=broker.host, port=broker.port, queue=queue, work="w", topic="t"))
    async with running(config) as gateway:
        for path, code in [
            ("/mq/mardirac3.in2p3.fr/Queues/Test", "unknown_destination"),
            (f"/mq/mardirac3.in2p3.fr/Topics/{queue}", "unknown_destination"),
            (f"/mq/mardirac3.in2p3.fr/Queues/{queue.lower()}", "unknown_destination"),
            (f"/mq/mardirac3/Queues/{queue}", "unknown_service"),
        ]:
            answer = await post(gateway.port, path, b"x")
            assert (answer.status, answer.code, answer.outcome) == (404, code, "not_sent"), path
