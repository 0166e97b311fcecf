"""Paths and queries that try to reach what the policy does not allow, as a broker reads names and as HTTP reads paths.

Who attacks may publish, subscribe and take only on `mine.*`. What is answered with 200 must name a destination of
those, the broker must have the message there, and nobody listening elsewhere may have got it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes
from uuid import uuid4

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.guarded import Guarded, guarded
from tests.e2e.http_client import Answer, Http, Sse, ask
from tests.e2e.live_gateway import MEMORY, stomp
from tests.stomp_client import StompClient

VERBS = ["publish", "subscribe", "take", "look"]


def _policy(service: str) -> list[dict[str, Any]]:
    mine = [f"{service}::Queues::mine.*", f"{service}::Topics::mine.*"]
    return [
        {"principals": ["mallory"], "allow": VERBS, "uris": mine},
        {"principals": ["boss"], "allow": VERBS, "uris": [f"{service}::*"]},
    ]


@dataclass(frozen=True)
class Site:
    """One service of the gateway; `broker` is None where it is the gateway's own memory."""

    guarded: Guarded
    service: str
    broker: Broker | None
    #: The name of a Queue and a Topic that are not for the one who attacks.
    secret: str

    @property
    def port(self) -> int:
        """Of HTTP."""
        return self.guarded.port

    async def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        """As the one who attacks."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.guarded.ask("mallory", method, target, body, named)

    def quoted(self, name: str) -> str:
        """As the broker's STOMP destination has it."""
        return name.replace("/", "%2F") if isinstance(self.broker, RabbitMQ) else name


def _serve(service: str, broker: Broker | None, folder: Path) -> Iterator[Site]:
    services = {service: MEMORY if broker is None else stomp(broker), "other": MEMORY}
    server = {"root_path": "/gate"}
    with guarded(folder, services, _policy(service), names=("mallory", "boss"), server=server) as found:
        yield Site(found, service, broker, f"secret-{uuid4().hex[:10]}")


@pytest.fixture(scope="module")
def mem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway on its own memory."""
    yield from _serve("mem", None, tmp_path_factory.mktemp("mem"))


@pytest.fixture(scope="module")
def rab(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway on RabbitMQ."""
    yield from _serve("rab", rabbitmq, tmp_path_factory.mktemp("rab"))


@pytest.fixture(scope="module")
def act(activemq: ActiveMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway on ActiveMQ."""
    yield from _serve("act", activemq, tmp_path_factory.mktemp("act"))


_AT_BROKERS = [pytest.param("rab", marks=pytest.mark.rabbitmq), pytest.param("act", marks=pytest.mark.activemq)]


@pytest.fixture(params=["mem", *_AT_BROKERS])
def site(request: pytest.FixtureRequest) -> Site:
    """Each of them."""
    found: Site = request.getfixturevalue(request.param)
    return found


class Spies:
    """Plain clients of the broker on what is forbidden, listening since before the attack."""

    def __init__(self, site: Site, client: StompClient) -> None:
        self._site, self._client = site, client
        self.queue, self.topic = f"/queue/{site.secret}", f"/topic/{site.secret}"

    async def listen(self) -> None:
        await self._client.subscribe(self.topic)

    async def heard(self, body: bytes) -> None:
        """This came on the secret Topic."""
        assert (await self._client.next_message())[1] == body

    async def heard_nothing(self) -> None:
        """What we say ourselves now is the first thing that there is: in the Queue, and for those who listen."""
        await self._client.send(self.topic, b"ours")
        assert (await self._client.next_message())[1] == b"ours"
        await self._client.send(self.queue, b"ours")
        subscription = await self._client.subscribe(self.queue)
        assert (await self._client.next_message())[1] == b"ours"
        await self._client.unsubscribe(subscription)

    async def has(self, uri: str, body: bytes) -> None:
        """The message is in the Queue that this mqURI names, and is the only one."""
        client = self._client
        name = uri.partition("::Queues::")[2]
        subscription = await client.subscribe(f"/queue/{self._site.quoted(name)}")
        assert (await client.next_message())[1] == body
        await client.unsubscribe(subscription)


@contextlib.asynccontextmanager
async def spying(site: Site, stomp_client: ConnectStomp) -> AsyncIterator[Spies | None]:
    """None where there is no broker to listen at. The gateway's one connection is the same afterwards."""
    if site.broker is None:
        yield None
        return
    await site.guarded.until_up()
    before = site.guarded.gateway.broker_ports(site.broker)
    assert len(before) == 1
    found = Spies(site, await stomp_client(site.broker))
    await found.listen()
    yield found
    await found.heard_nothing()
    assert site.guarded.gateway.broker_ports(site.broker) == before


@pytest.fixture
async def spies(site: Site, stomp_client: ConnectStomp) -> AsyncIterator[Spies | None]:
    async with spying(site, stomp_client) as found:
        yield found


def is_refused(answer: Answer) -> bool:
    """Whether it was refused, as a refusal is to look."""
    if answer.status in (200, 204):
        return False
    assert answer.status in (400, 401, 403, 404, 405, 422), answer
    assert answer.code is not None, answer
    return True


def is_mine(site: Site, uri: str) -> bool:
    """Whether the policy allows this very destination, letter for letter."""
    return uri.startswith((f"{site.service}::Queues::mine.", f"{site.service}::Topics::mine."))


# The last part of a path: `S` stands for the name of the secret one.
NAMES = {
    "plain": "S",
    "dot dot slash": "mine./../S",
    "encoded slash": "mine.%2FS",
    "encoded dot dot slash": "mine.%2F..%2FS",
    "dots encoded": "mine.%2F%2e%2e%2FS",
    "all encoded": "%6d%69%6e%65%2e%2f%2e%2e%2fS",
    "slash encoded twice": "mine.%252F..%252FS",
    "slash encoded thrice": "mine.%25252FS",
    "small letters encoded twice": "mine.%252fS",
    "dot dot first": "..%2Fmine.%2F..%2FS",
    "backslash": "mine.\\..\\S",
    "encoded backslash": "mine.%5C..%5CS",
    "backslash and c": "mine.%5CcS",
    "backslash and n": "mine.%5Cndestination%5Cc%2Fqueue%2FS",
    "null byte": "mine.%00S",
    "null byte and the secret": "S%00mine.x",
    "line feed": "mine.%0Adestination:/queue/S",
    "carriage return and line feed": "mine.x%0D%0Adestination:/queue/S%0D%0A",
    "frame within": "mine.x%0A%0A%00SEND%0Adestination:/queue/S%0A%0Ax%00",
    "tab": "S%09mine.x",
    "next line": "mine.%C2%85S",
    "line separator": "mine.%E2%80%A8S",
    "semicolon": "mine.x;S",
    "matrix parameter": "mine.x;name=S",
    "matrix parameter of the secret": "S;x=mine.",
    "matrix parameter and dots": "mine.x;/../S",
    "asterisk": "mine.*",
    "encoded asterisk": "mine.%2A",
    "asterisk alone": "%2A",
    "greater than": "mine.%3E",
    "greater than alone": "%3E",
    "hash": "mine.%23",
    "hash alone": "%23",
    "fullwidth asterisk": "mine.%EF%BC%8A",
    "fullwidth asterisk alone": "%EF%BC%8A",
    "fullwidth hash": "mine.%EF%BC%83",
    "fullwidth greater than": "mine.%EF%BC%9E",
    "fullwidth slash": "mine.%EF%BC%8F..%EF%BC%8FS",
    "fullwidth comma": "mine.x%EF%BC%8CS",
    "fraction slash": "mine.%E2%81%84..%E2%81%84S",
    "division slash": "mine.%E2%88%95S",
    "two dot leader": "mine.%2F%E2%80%A5%2FS",
    "ratio for two colons": "mine.%E2%88%B7S",
    "fullwidth letters": "%EF%BD%8D%EF%BD%89%EF%BD%8E%EF%BD%85.S",
    "cyrillic letter": "min%D0%B5.S",
    "fullwidth dot": "mine%EF%BC%8ES",
    "one dot leader": "mine%E2%80%A4S",
    "combining dot": "mine.%CC%87S",
    "combining before the dot": "mine%CC%81.S",
    "right to left override": "mine.%E2%80%AES",
    "right to left first": "%E2%80%AEmine.S",
    "zero width space": "mine%E2%80%8B.S",
    "zero width first": "%E2%80%8Bmine.S",
    "byte order mark": "%EF%BB%BFmine.S",
    "soft hyphen": "mi%C2%ADne.S",
    "composed": "mine.%C3%A9S",
    "decomposed": "mine.e%CC%81S",
    "capital": "Mine.S",
    "capitals": "MINE.S",
    "kelvin sign": "mine.%E2%84%AA-S",
    "dotless i": "m%C4%B1ne.S",
    "dot behind": "mine.S.",
    "dots": "mine...S",
    "space behind": "mine.S%20",
    "space before": "%20mine.S",
    "space between": "mine.x%20S",
    "no-break space behind": "mine.S%C2%A0",
    "plus": "mine.x+S",
    "prefix alone": "mine",
    "prefix without its end": "mineS",
    "prefix behind": "S.mine.",
    "composite": "mine.x,S",
    "encoded composite": "mine.x%2CS",
    "composite of types": "mine.x%2Ctopic%3A%2F%2FS",
    "composite of types, slashes": "mine.x%2C%2Fqueue%2FS",
    "queue scheme": "queue%3A%2F%2FS",
    "queue scheme, mine": "mine.%2Fqueue%3A%2F%2FS",
    "topic scheme": "topic%3A%2F%2FS",
    "temporary queue scheme": "temp-queue%3A%2F%2FS",
    "prefetch": "mine.x%3Fconsumer.prefetchSize=1000",
    "exclusive": "S%3Fconsumer.exclusive=true",
    "retroactive": "mine.x%3Fconsumer.retroactive=true",
    "address and queue": "mine.x::S",
    "address and queue, encoded": "mine.x%3A%3AS",
    "address and queue of the secret": "S::mine.x",
    "a colon": "mine.x:S",
    "amq queue": "%2Famq%2Fqueue%2FS",
    "amq queue, mine": "mine.x%2F..%2F..%2Famq%2Fqueue%2FS",
    "amq prefix": "amq.topic",
    "amq default": "amq.default",
    "temporary queue": "%2Ftemp-queue%2FS",
    "exchange": "%2Fexchange%2Famq.topic%2FS",
    "exchange, mine": "mine.%2Fexchange%2Famq.fanout",
    "queue": "%2Fqueue%2FS",
    "topic": "%2Ftopic%2FS",
    "reply queue": "%2Freply-queue%2FS",
    "remote temporary queue": "%2Fremote-temp-queue%2FS",
    "virtual topic": "Consumer.x.VirtualTopic.S",
    "virtual topic, mine": "mine.Consumer.x.VirtualTopic.S",
    "advisory": "ActiveMQ.Advisory.Queue",
    "dead letters": "ActiveMQ.DLQ",
    "scheduler": "ActiveMQ.Scheduler.Management",
    "overlong slash": "mine.%C0%AF..%C0%AFS",
    "overlong slash of three": "mine.%E0%80%AFS",
    "overlong dot": "mine.%C0%AE%C0%AE%C0%AFS",
    "overlong null": "mine.%C0%80S",
    "half a surrogate": "mine.%ED%A0%80S",
    "no text": "mine.%FFS",
    "cut off": "mine.S%C3",
    "beyond Unicode": "mine.%F4%90%80%80S",
    "bare percent": "mine.S%",
    "percent u": "mine.%u002FS",
    "percent x": "mine.%zzS",
    "raw bytes": "mine.\xffS",
    "empty": "",
    "dot": ".",
    "dot dot": "..",
    "encoded dot dot": "%2e%2e",
    "too long": "mine." + "x" * 251,
    "too long, encoded": "mine." + "%C3%A9" * 126,
    "placeholder": "mine.{principal}",
    "braces": "{mine.,S}",
    "brackets": "[m]ine.S",
    "question mark encoded": "mine.S%3F",
    "tilde": "~mine.S",
    "percent of a policy": "mine%2ES",
}


@pytest.mark.parametrize("name", NAMES)
async def test_names(site: Site, spies: Spies | None, name: str) -> None:
    """Publish, look, receive, and subscribe to a Topic, each with the same part of a path."""
    part = NAMES[name].replace("S", site.secret)
    queue, topic = (f"/mq/{site.service}/{kind}/{part}" for kind in ("Queues", "Topics"))
    published = await site.ask("POST", queue, b"attack")
    looked = await site.ask("GET", queue)
    broadcast = await site.ask("POST", topic, b"attack")
    received = await site.ask("POST", f"{queue}/receive?ack=auto", b"")
    await _no_wider(site, spies, f"{topic}/events?format=envelope")
    refused = is_refused(published)
    assert is_refused(looked) == is_refused(received) == is_refused(broadcast) == refused
    if not refused:
        uri = published.json["mq_uri"]
        assert uri == f"{site.service}::Queues::{unquote_to_bytes(part).decode()}"
        assert is_mine(site, uri)
        assert looked.json["mq_uri"] == uri
        assert broadcast.json["mq_uri"] == uri.replace("::Queues::", "::Topics::")
        assert received.status == 204 or received.json["messages"][0]["mq_uri"] == uri
        if spies and received.status == 204:
            await spies.has(uri, b"attack")


async def _no_wider(site: Site, spies: Spies | None, target: str) -> None:
    """A stream that opens has its own Topic and no other: what is said on the secret one is not in it."""
    stream = await Sse.open(site.port, target, site.guarded.as_("mallory"), expect=None)
    if stream.status != 200:
        assert stream.status in (400, 403, 404), stream.status
        return
    path = target.partition("/events")[0]
    for other in (site.secret, f"mine.{site.secret}.other"):
        answer = await site.guarded.ask("boss", "POST", f"/mq/{site.service}/Topics/{other}", b"not yours")
        assert answer.status == 200
    if spies:
        await spies.heard(b"not yours")
    last = await site.ask("POST", path, b"last")
    events = [event.json for event in await stream.until(lambda event: event.json["body"] == "last")]
    assert {event["mq_uri"] for event in events} == {last.json["mq_uri"]}
    # The broker may deliver late what was said before the stream was opened, where somebody has read it a moment ago.
    assert {event["body"] for event in events} <= {"attack", "last"}
    stream.close()


# Whole targets: `S` is the secret, `V` the service.
TARGETS = {
    "dots": "/mq/V/Queues/mine.x/../S",
    "dots encoded": "/mq/V/Queues/mine.x/%2e%2e/S",
    "dots to another type": "/mq/V/Queues/mine.x/../../Topics/S",
    "dots to the root": "/mq/V/Queues/mine.x/../../../../metrics",
    "dot": "/mq/V/Queues/./S",
    "slashes": "/mq/V//Queues/S",
    "slashes before the name": "/mq/V/Queues//S",
    "slashes first": "//mq/V/Queues/S",
    "slash behind": "/mq/V/Queues/S/",
    "mine before a slash": "/mq/V/Queues/mine./S",
    "mq twice": "/mq/mq/V/Queues/S",
    "mq in capitals": "/MQ/V/Queues/S",
    "mq encoded": "/%6d%71/V/Queues/S",
    "encoded slash between": "/mq/V%2FQueues/S",
    "encoded slash before the name": "/mq/V/Queues%2FS",
    "encoded slash first": "/%2Fmq/V/Queues/S",
    "service with a name": "/mq/V::Queues::mine.x::/Queues/S",
    "service in capitals": "/mq/v/Queues/S",
    "service with a dot": "/mq/V./Queues/S",
    "service with a space": "/mq/V%20/Queues/S",
    "service with a null byte": "/mq/V%00/Queues/mine.x",
    "service of another": "/mq/other/Queues/mine.x",
    "service asterisk": "/mq/*/Queues/mine.x",
    "no service": "/mq//Queues/mine.x",
    "no type": "/mq/V//mine.x",
    "type temporary": "/mq/V/temp-queue/mine.x",
    "type exchange": "/mq/V/exchange/amq.topic",
    "type amq": "/mq/V/amq/queue",
    "type with a null byte": "/mq/V/Queues%00/mine.x",
    "type with a letter like s": "/mq/V/Queue%C5%BF/S",
    "type of both": "/mq/V/Queues,Topics/S",
    "matrix parameter of the type": "/mq/V/Queues;x=mine./S",
    "matrix parameter of the service": "/mq/V;x/Queues/mine.x",
    "name in the query": "/mq/V/Queues/S?name=mine.x",
    "uri in the query": "/mq/V/Queues/mine.x?uri=V::Queues::S",
    "fragment": "/mq/V/Queues/S#/mq/V/Queues/mine.x",
    "fragment of the secret": "/mq/V/Queues/mine.x#S",
    "question mark first": "?/mq/V/Queues/S",
    "absolute, another host": "http://other.example/mq/V/Queues/S",
    "absolute, another path in the host": "http://127.0.0.1%2Fmq%2FV%2FQueues%2Fmine.x/mq/V/Queues/S",
    "absolute of https": "https://127.0.0.1/mq/V/Queues/S",
    "absolute without a host": "http:///mq/V/Queues/S",
    "absolute of a file": "file:///mq/V/Queues/S",
    "absolute of stomp": "stomp://127.0.0.1:61613/queue/S",
    "absolute of mq": "mq://V/Queues/S",
    "absolute with a user": "http://boss@127.0.0.1/mq/V/Queues/S",
    "authority": "127.0.0.1:80",
    "asterisk": "*",
    "relative": "mq/V/Queues/S",
    "dots first": "/../mq/V/Queues/S",
    "backslashes": "\\mq\\V\\Queues\\S",
    "root": "/gate/mq/V/Queues/S",
    "root twice": "/gate/gate/mq/V/Queues/mine.x",
    "root and dots": "/gate/../mq/V/Queues/S",
    "root encoded": "/%67ate/mq/V/Queues/mine.x",
    "root and slashes": "/gate//mq/V/Queues/mine.x",
    "root in capitals": "/GATE/mq/V/Queues/mine.x",
    "root with a matrix parameter": "/gate;x/mq/V/Queues/mine.x",
    "root as a prefix only": "/gatemq/V/Queues/mine.x",
    "root behind": "/mq/gate/V/Queues/S",
    "batch of the secret": "/mq/V/Queues/S/batch",
    "request of the secret": "/mq/V/Queues/S/request",
    "receive of the secret": "/mq/V/Queues/S/receive",
    "acknowledge of the secret": "/mq/V/Queues/S/ack?lease=x",
    "give back of the secret": "/mq/V/Queues/S/nack?lease=x",
    "renew of the secret": "/mq/V/Queues/S/renew?lease=x",
    "batch twice": "/mq/V/Queues/mine.x/batch/batch",
    "batch encoded": "/mq/V/Queues/S/b%61tch",
    "batch with an encoded slash": "/mq/V/Queues/S%2Fbatch",
    "batch in capitals": "/mq/V/Queues/S/BATCH",
    "peer": "/peer/leases",
    "peer of mine": "/peer/mq/V/Queues/S",
    "metrics": "/metrics",
    "metrics behind a slash": "/metrics/",
    "metrics encoded": "/%6detrics",
    "pages": "/docs/../metrics",
    "pages, encoded": "/docs/%2e%2e/metrics",
    "pages, slash encoded": "/docs/..%2fmetrics",
    "health and dots": "/health/live/../../metrics",
    "all services": "/mq/../metrics",
}


@pytest.mark.parametrize("name", TARGETS)
async def test_targets(mem: Site, name: str) -> None:
    await target_is_refused(mem, name)


async def target_is_refused(site: Site, name: str) -> None:
    """Whatever the method."""
    target = TARGETS[name].replace("V", site.service).replace("S", site.secret)
    for method in ("POST", "GET", "HEAD", "DELETE", "PUT"):
        answer = await site.ask(method, target, b"attack" if method in ("POST", "PUT") else None)
        if method == "HEAD":
            assert answer.status in (400, 401, 403, 404, 405), answer
        else:
            assert is_refused(answer), answer


@pytest.mark.parametrize("prefix", ["", "/gate", "http://other.example", "https://127.0.0.1:1/gate"])
async def test_ways_to_mine(site: Site, spies: Spies | None, unique: Unique, prefix: str) -> None:
    """The control: the same forms lead to what is allowed, and only there."""
    name = f"mine.{unique('way')}"
    answer = await site.ask("POST", f"{prefix}/mq/{site.service}/qUeUe/{name}", b"good")
    assert answer.status == 200
    assert answer.json["mq_uri"] == f"{site.service}::Queues::{name}"
    if spies:
        await spies.has(answer.json["mq_uri"], b"good")


# What a header or a query names.

REPLY_TO = {
    "secret queue": "V::Queues::S",
    "secret topic": "V::Topics::S",
    "mine and more": "V::Queues::mine.x::S",
    "another service": "other::Queues::mine.x",
    "a list": "V::Queues::mine.x,V::Queues::S",
    "a path": "/queue/S",
    "a temporary queue": "/temp-queue/S",
    "a reply queue": "/reply-queue/amq.gen-S",
    "an exchange": "/exchange/amq.topic/S",
    "an amq queue": "/amq/queue/S",
    "wildcard": "V::Queues::mine.*",
    "type of another case, site.secret": "V::qUEUEs::S",
    "spaces": "V :: Queues :: mine.x",
    "space behind the site.secret": "V::Queues::S ",
    "prefetch": "V::Queues::mine.x?consumer.prefetchSize=1",
    "encoded": "V%3A%3AQueues%3A%3AS",
    "encoded name": "V::Queues::%6dine.S",
    "slash": "V::Queues::../S",
    "nothing": "",
}


@pytest.mark.parametrize("name", REPLY_TO)
async def test_reply_to(mem: Site, name: str) -> None:
    await reply_to_is_refused(mem, name)


async def reply_to_is_refused(site: Site, name: str) -> None:
    """As a property, as a header of the message, and in a batch."""
    wanted = REPLY_TO[name].replace("V", site.service).replace("S", site.secret)
    path = f"/mq/{site.service}/Queues/mine.{site.secret}"
    assert is_refused(await site.ask("POST", path, b"attack", Mq_Reply_To=wanted))
    line = json.dumps([{"body": 1, "reply_to": wanted, "headers": {"reply-to": wanted}}]).encode()
    answer = await site.ask("POST", f"{path}/batch", line, Content_Type="application/json")
    assert is_refused(answer)
    assert is_refused(await site.ask("POST", path, b"attack", Mq_Headers=json.dumps({"reply-to": wanted})))


async def test_reply_to_mine(site: Site, unique: Unique) -> None:
    path = f"/mq/{site.service}/Queues/mine.{unique('asks')}"
    answer = await site.ask("POST", path, b"good", Mq_Reply_To=f"{site.service}::Queues::mine.answers")
    assert answer.status == 200


#: The query of the joint stream; `Q` is the secret Queue, `T` the secret Topic, `M` a Topic of mine.
JOINT = {
    "secret topic": "uri=T",
    "secret queue": "uri=Q",
    "secret behind mine": "uri=M&uri=T",
    "secret before mine": "uri=Q&uri=M",
    "secret and not mine twice": "uri=M&uri=M&uri=T",
    "name encoded": "uri=M&%75ri=T",
    "value encoded": "uri=M&uri=E",
    "encoded twice": "uri=M&uri=EE",
    "ampersand encoded": "uri=M%26uri=T",
    "semicolon": "uri=M;uri=T",
    "comma": "uri=M,T",
    "line feed": "uri=M%0AT",
    "null byte": "uri=T%00M",
    "uris": "uris=T&uri=M",
    "brackets": "uri[]=T&uri=M",
    "capital": "Uri=T&uri=M",
    "wildcard": "uri=V::Topics::mine.*",
    "wildcard of all": "uri=V::Topics::*",
    "wildcard of a broker": "uri=V::Topics::%3E",
    "hash": "uri=V::Topics::%23",
    "wildcard type": "uri=V::*::mine.x",
    "no type": "uri=V::mine.x",
    "path": "uri=/mq/V/Topics/mine.x",
    "spaces": "uri=V::Topics::mine.x%20,%20T",
    "plus": "uri=V::Topics::S+",
    "too many": "&".join(f"uri=V::Topics::mine.{number}" for number in range(33)),
    "question mark": "uri=M?uri=T",
    "nothing": "",
    "empty": "uri=",
}


@pytest.mark.parametrize("name", JOINT)
async def test_joint_stream(mem: Site, name: str) -> None:
    await joint_is_refused(mem, name)


async def joint_is_refused(site: Site, name: str) -> None:
    """With and without the root path."""
    queue, topic = (f"{site.service}::{kind}::{site.secret}" for kind in ("Queues", "Topics"))
    words = {"EE": quote(quote(topic, safe=""), safe=""), "E": quote(topic, safe=""), "Q": queue, "T": topic}
    words |= {"M": f"{site.service}::Topics::mine.x", "V": site.service, "S": site.secret}
    text = re.sub(
        r"\b(EE|[EQTMVS])\b",
        lambda found: words[found[1]],
        JOINT[name].replace("%0AT", "%0A T").replace("%00M", "%00 M"),
    )
    for target in (f"/events?{text}", f"/gate/events?{text}"):
        answer = await site.ask("GET", target.replace(" ", ""))
        assert is_refused(answer), answer


SINGLE = ["uri=T", "uri=Q", "destination=S", "name=S", "topic=S", "service=V", "format=envelope&uri=T", "%75ri=T"]


@pytest.mark.parametrize("query", SINGLE)
async def test_a_single_stream_is_of_its_path(mem: Site, query: str) -> None:
    await single_is_refused(mem, query)


async def single_is_refused(site: Site, query: str) -> None:
    """No parameter makes it another one: 400."""
    named = query.replace("T", f"{site.service}::Topics::{site.secret}").replace(
        "Q", f"{site.service}::Queues::{site.secret}"
    )
    for kind in ("Topics", "Queues"):
        answer = await site.ask("GET", f"/mq/{site.service}/{kind}/mine.x/events?{named}")
        assert answer.status == 400, answer
        assert answer.code == "invalid_parameter"


@pytest.mark.parametrize("service", _AT_BROKERS)
async def test_all_of_these_at_a_broker(
    request: pytest.FixtureRequest, unique: Unique, stomp_client: ConnectStomp, service: str
) -> None:
    site: Site = request.getfixturevalue(service)
    async with spying(site, stomp_client) as spies:
        assert spies is not None
        for name in TARGETS:
            await target_is_refused(site, name)
        for name in REPLY_TO:
            await reply_to_is_refused(site, name)
        for name in JOINT:
            await joint_is_refused(site, name)
        for query in SINGLE:
            await single_is_refused(site, query)


@pytest.mark.parametrize("kind", ["Queues", "Topics"])
async def test_a_queue_and_a_topic_are_two(site: Site, spies: Spies | None, unique: Unique, kind: str) -> None:
    """Who may only publish may not read what is published, and the other way round; names of both are the same."""
    name = f"theirs.{unique('both')}"
    answer = await site.guarded.ask("boss", "POST", f"/mq/{site.service}/{kind}/{name}", b"theirs")
    assert answer.status == 200
    for target in (f"{name}/events", f"{name}", f"{name}/receive"):
        method = "POST" if target.endswith("receive") else "GET"
        got = await site.ask(method, f"/mq/{site.service}/{kind}/{target}", b"" if method == "POST" else None)
        assert is_refused(got), got


SMUGGLED = {
    "in a body that is counted": b"POST /mq/V/Queues/mine.x HTTP/1.1\r\nHost: h\r\nAUTH\r\n"
    b"Content-Length: LENGTH\r\n\r\nINNER",
    "in chunks": b"POST /mq/V/Queues/mine.x HTTP/1.1\r\nHost: h\r\nAUTH\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nHEX\r\nINNER\r\n0\r\n\r\n",
    "with Upgrade": (
        b"POST /mq/V/Queues/mine.x HTTP/1.1\r\nHost: h\r\nAUTH\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: LENGTH\r\n\r\nINNER"
    ),
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_a_request_within_a_body_is_a_body(site: Site, spies: Spies | None, name: str) -> None:
    auth, service = f"Authorization: {site.guarded.as_('boss')['Authorization']}", site.service
    inner = (
        f"POST /mq/{service}/Queues/{site.secret} HTTP/1.1\r\nHost: h\r\n{auth}\r\nContent-Length: 1\r\n\r\nx".encode()
    )
    outer = SMUGGLED[name].replace(b"/V/", f"/{service}/".encode()).replace(b"mine.x", f"mine.{site.secret}".encode())
    mallory = f"Authorization: {site.guarded.as_('mallory')['Authorization']}".encode()
    outer = outer.replace(b"AUTH", mallory).replace(b"LENGTH", b"%d" % len(inner)).replace(b"HEX", b"%x" % len(inner))
    async with await Http.connect(site.port) as http:
        answer = await http.ask_raw(outer.replace(b"INNER", inner))
        assert answer.json["mq_uri"] == f"{service}::Queues::mine.{site.secret}"
        assert (await http.ask("GET", "/health/live")).json == {"status": "live"}
    if spies:
        await spies.has(answer.json["mq_uri"], inner)


async def test_nobody_learns_which_destinations_there_are(site: Site) -> None:
    """What is there and forbidden, and what is not there, look the same to the one who attacks."""
    made = await site.guarded.ask("boss", "POST", f"/mq/{site.service}/Queues/{site.secret}.there", b"x")
    assert made.status == 200
    for kind in ("Queues", "Topics"):
        there, not_there = [
            await site.ask("GET", f"/mq/{site.service}/{kind}/{site.secret}.{name}") for name in ("there", "away")
        ]
        assert (there.status, there.code) == (not_there.status, not_there.code)
        assert set(there.json) == set(not_there.json)
    seen = (await site.ask("GET", f"/mq/{site.service}")).body + (await site.ask("GET", "/mq")).body
    assert f"::{site.secret}".encode() not in seen
    assert (await ask(site.port, "GET", f"/mq/{site.service}")).status == 401
