"""Paths that try to reach, or to widen, what their sender may not: on real brokers, where names have meanings.

The attacker may do everything with `mine.*` of the service `mq`, and nothing else. A spy with a plain STOMP client sits
on what it wants to reach; a publish of the owner at the end is the first thing that it sees.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp
from tests.e2e.callers import Callers, bearer
from tests.e2e.http_client import Sse, ask, post
from tests.e2e.live_gateway import LiveGateway, running, stomp, write_config
from tests.stomp_client import StompClient

KINDS = ("Queues", "Topics")
ALL = ["publish", "subscribe", "take", "look"]


@dataclass
class Site:
    """`secret` is a name that nobody else uses."""

    gateway: LiveGateway
    broker: Broker
    secret: str
    attacker: str
    owner: str

    @property
    def mine(self) -> str:
        """What the attacker's names begin with."""
        return f"mine-{self.secret[-8:]}"

    def filled(self, path: str) -> str:
        return path.replace("SECRET", self.secret).replace("mine", self.mine).replace("MINE", self.mine.upper())

    def owns(self, target: str) -> bool:
        """Whether the last part of a path, decoded once, begins as the attacker's names do."""
        return unquote(target.rpartition("/")[2]).startswith(f"{self.mine}.")


@pytest.fixture
async def site(broker: Broker, tmp_path: Path) -> AsyncIterator[Site]:
    callers, number = Callers(tmp_path), uuid.uuid4().hex[:8]
    attacker, owner = callers.add("attacker"), callers.add("owner")
    policy = [
        {"principals": ["attacker"], "allow": ALL, "uris": [f"mq::{kind}::mine-{number}.*" for kind in KINDS]},
        {"principals": ["owner"], "allow": ALL, "uris": ["mq::*"]},
    ]
    services = {"mq": stomp(broker), "other": {"mq_type": "Memory", "allow_undeclared": True}}
    config = write_config(tmp_path, services, auth=callers.auth(policy=policy))
    async with running(config) as gateway:
        gateway.headers = bearer(owner)
        await gateway.until_up("mq")
        yield Site(gateway, broker, f"secret-{number}", attacker, owner)


# `SECRET` is what the attacker wants. `{Q}` and `{T}` below are for Queues and Topics.
TRICKS = {
    "plainly": "/mq/mq/{Q}/SECRET",
    "a slash in the name": "/mq/mq/{Q}/mine.%2FSECRET",
    "up and down again": "/mq/mq/{Q}/mine.x/../SECRET",
    "up, encoded": "/mq/mq/{Q}/mine.x%2F..%2FSECRET",
    "up, encoded twice": "/mq/mq/{Q}/mine.x%252F..%252FSECRET",
    "dots encoded": "/mq/mq/{Q}/mine.x/%2e%2e/SECRET",
    "a dot": "/mq/mq/{Q}/./SECRET",
    "a backslash": "/mq/mq/{Q}/mine.x%5C..%5CSECRET",
    "an end of text": "/mq/mq/{Q}/SECRET%00mine.x",
    "an end of text behind": "/mq/mq/{Q}/mine.x%00",
    "a parameter of the path": "/mq/mq/{Q};mine.x/SECRET",
    "a parameter behind": "/mq/mq/{Q}/SECRET;mine.x",
    "a parameter in the service": "/mq/mq;x=y/{Q}/SECRET",
    "a carriage return": "/mq/mq/{Q}/mine.x%0D%0Adestination%3A%2Fqueue%2FSECRET",
    "a line feed": "/mq/mq/{Q}/mine.x%0Adestination:/queue/SECRET",
    "an escape of STOMP": "/mq/mq/{Q}/mine.x%5Cndestination%5Cc%2Fqueue%2FSECRET",
    "two names": "/mq/mq/{Q}/mine.x%2CSECRET",
    "two names and a scheme": "/mq/mq/{Q}/mine.x,topic://SECRET",
    "an option of the broker": "/mq/mq/{Q}/mine.x%3Fconsumer.prefetchSize=1",
    "a fully qualified queue": "/mq/mq/{Q}/mine.x::SECRET",
    "a wildcard for all": "/mq/mq/{Q}/mine.%3E",
    "a wildcard for words": "/mq/mq/{Q}/mine.%23",
    "a wildcard for one": "/mq/mq/{Q}/mine.*",
    "nothing but a wildcard": "/mq/mq/{Q}/%3E",
    "a destination of the broker": "/mq/mq/{Q}/%2Fqueue%2FSECRET",
    "an exchange": "/mq/mq/{Q}/%2Fexchange%2Famq.direct%2FSECRET",
    "amq queue": "/mq/mq/{Q}/%2Famq%2Fqueue%2FSECRET",
    "a queue of replies": "/mq/mq/{Q}/%2Freply-queue%2FSECRET",
    "a temporary queue": "/mq/mq/{Q}/%2Ftemp-queue%2FSECRET",
    "a scheme": "/mq/mq/{Q}/queue:%2F%2FSECRET",
    "an mqURI as a name": "/mq/mq/{Q}/mq::Queues::SECRET",
    "another service": "/mq/other/{Q}/mine.x",
    "another service by a slash": "/mq/mq%2F..%2Fother/{Q}/mine.x",
    "the service in capitals": "/mq/MQ/{Q}/mine.x",
    "the name in capitals": "/mq/mq/{Q}/MINE.x",
    "no type": "/mq/mq//SECRET",
    "the type twice": "/mq/mq/{Q}/{Q}/SECRET",
    "our own path twice": "/mq/mq/mq/{Q}/SECRET",
    "an empty part before": "//mq/mq/{Q}/SECRET",
    "an empty part within": "/mq/mq/{Q}//SECRET",
    "a slash at the end": "/mq/mq/{Q}/SECRET/",
    "full width letters": "/mq/mq/{Q}/%EF%BD%8D%EF%BD%89%EF%BD%8E%EF%BD%85.x",
    "a full width slash": "/mq/mq/{Q}/mine.x%EF%BC%8FSECRET",
    "a full width asterisk": "/mq/mq/{Q}/mine.%EF%BC%8A",
    "a full width comma": "/mq/mq/{Q}/mine.x%EF%BC%8CSECRET",
    "a division slash": "/mq/mq/{Q}/mine.x%E2%88%95SECRET",
    "a Cyrillic letter": "/mq/mq/{Q}/mine%D0%B5.x",
    "a zero width space": "/mq/mq/{Q}/%E2%80%8Bmine.x",
    "right to left": "/mq/mq/{Q}/%E2%80%AEmine.x",
    "an accent of its own": "/mq/mq/{Q}/mine%CC%81.x",
    "a slash in too many bytes": "/mq/mq/{Q}/mine.x%C0%AFSECRET",
    "a dot in too many bytes": "/mq/mq/{Q}/%C0%AE%C0%AE/SECRET",
    "bytes that are no UTF-8": "/mq/mq/{Q}/mine.x%FF",
    "a lone surrogate": "/mq/mq/{Q}/mine.x%ED%A0%80",
    "a broken escape": "/mq/mq/{Q}/mine.x%2",
    "an escape of IIS": "/mq/mq/{Q}/mine.x%u002FSECRET",
    "a space before": "/mq/mq/{Q}/%20mine.x",
    "a tab before": "/mq/mq/{Q}/%09mine.x",
    "a plus": "/mq/mq/{Q}/+mine.x",
    "a line separator": "/mq/mq/{Q}/mine.x%E2%80%A8SECRET",
    "a name too long": "/mq/mq/{Q}/mine." + "x" * 251,
    "another host in the target": "http://evil.example/mq/mq/{Q}/SECRET",
    "the user of a host": "http://mine.x@127.0.0.1/mq/mq/{Q}/SECRET",
}
REFUSED = {400, 401, 403, 404, 405}
#: What a name may be called as well as any other: it is the attacker's own.
OWN = {
    "a slash in the name",
    "up, encoded",
    "up, encoded twice",
    "a backslash",
    "an escape of STOMP",
    "a full width slash",
    "a full width asterisk",
    "a full width comma",
    "a division slash",
}


async def test_publishing(site: Site, stomp_client: ConnectStomp) -> None:
    spy = await spying(site, stomp_client)
    before = site.gateway.broker_ports(site.broker)
    for case, path in TRICKS.items():
        for kind in ("Queues", "Topics", "queue"):
            target = site.filled(path.replace("{Q}", kind))
            answer = await post(site.gateway.port, target, b"stolen", bearer(site.attacker))
            if answer.status == 200:
                assert case in OWN, (case, answer)
                assert answer.json["mq_uri"].split("::", 2)[2].startswith(f"{site.mine}."), answer
                assert site.owns(target), (case, answer)
            else:
                assert answer.status in REFUSED, (case, answer)
                assert answer.json.get("outcome", "not_sent") == "not_sent", (case, answer)
    await saw_only_the_owner(site, spy)
    assert site.gateway.broker_ports(site.broker) == before, "on the same connection"


async def test_reading(site: Site, stomp_client: ConnectStomp) -> None:
    """What the owner has put into the Queue is all there afterwards, and no stream of the attacker's has any of it."""
    kept = f"/mq/mq/Queues/{site.secret}"
    assert (await post(site.gateway.port, kept, b"kept", bearer(site.owner))).status == 200
    before = site.gateway.broker_ports(site.broker)
    for case, path in TRICKS.items():
        target = site.filled(path.replace("{Q}", "Queues"))
        answer = await ask(site.gateway.port, "POST", f"{target}/receive", None, bearer(site.attacker))
        assert answer.status in REFUSED | ({200, 204} if case in OWN and site.owns(target) else set()), (case, answer)
        if case in OWN:
            continue  # a stream of its own would go on for ever
        for kind in ("Queues", "Topics"):
            target = site.filled(path.replace("{Q}", kind))
            answer = await ask(site.gateway.port, "GET", f"{target}/events", None, bearer(site.attacker))
            assert answer.status in REFUSED, (case, answer)
    assert site.gateway.broker_ports(site.broker) == before
    answer = await ask(site.gateway.port, "POST", f"{kept}/receive?ack=auto", None, bearer(site.owner))
    assert [message["body"] for message in answer.json["messages"]] == ["kept"]


URIS = {
    "plainly": "mq::Topics::SECRET",
    "one of two": "mq::Topics::mine.x&uri=mq::Topics::SECRET",
    "a wildcard": "mq::Topics::*",
    "two names": "mq::Topics::mine.x,SECRET",
    "another type": "mq::Queues::SECRET",
    "a type in small letters": "mq::topic::SECRET",
    "encoded twice": "mq%253A%253ATopics%253A%253ASECRET",
    "four parts": "mq::Topics::mine.x::SECRET",
    "another service": "other::Topics::mine.x",
}


async def test_reading_several(site: Site) -> None:
    for case, uris in URIS.items():
        target = site.filled(f"/events?uri={uris}")
        answer = await ask(site.gateway.port, "GET", target, None, bearer(site.attacker))
        assert answer.status in REFUSED, (case, answer)


async def test_a_reply_goes_nowhere_else(site: Site) -> None:
    for text in ("mq::Queues::SECRET", "mq::Topics::SECRET", "/queue/SECRET", "other::Queues::mine.x", "mq::Queues::*"):
        headers = {**bearer(site.attacker), "Mq-Reply-To": site.filled(text)}
        answer = await post(site.gateway.port, site.filled("/mq/mq/Queues/mine.x"), b"x", headers)
        assert (answer.status, answer.code) == (400, "invalid_header"), (text, answer)
    mine = {**bearer(site.attacker), "Mq-Reply-To": site.filled("mq::Queues::mine.replies")}
    assert (await post(site.gateway.port, site.filled("/mq/mq/Queues/mine.x"), b"x", mine)).status == 200


async def test_a_parameter_is_no_path(site: Site) -> None:
    """A stream of one destination takes no other from its query."""
    target = site.filled("/mq/mq/Topics/mine.x/events?uri=mq::Topics::SECRET")
    answer = await ask(site.gateway.port, "GET", target, None, bearer(site.attacker))
    assert (answer.status, answer.code) == (400, "invalid_parameter")


async def test_what_is_its_own_it_may(site: Site) -> None:
    """The policy itself lets the attacker do its work: nothing above was refused because all of it was."""
    path = site.filled("/mq/mq/Topics/mine.news")
    stream = await Sse.open(site.gateway.port, f"{path}/events", headers=bearer(site.attacker))
    assert (await post(site.gateway.port, path, b"hello", bearer(site.attacker))).status == 200
    assert (await stream.until(lambda event: event.data == "hello"))[-1].data == "hello"


async def spying(site: Site, connect: ConnectStomp) -> StompClient:
    """A consumer of what the attacker wants to reach."""
    client = await connect(site.broker)
    for kind in ("queue", "topic"):
        await client.subscribe(f"/{kind}/{site.secret}")
    return client


async def saw_only_the_owner(site: Site, spy: StompClient) -> None:
    """What comes first is what the owner sends now."""
    for kind in ("Queues", "Topics"):
        answer = await post(site.gateway.port, f"/mq/mq/{kind}/{site.secret}", b"marker", bearer(site.owner))
        assert answer.status == 200, answer
    assert await spy.messages(2) == [b"marker", b"marker"]
