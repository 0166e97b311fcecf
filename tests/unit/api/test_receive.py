"""Taking messages over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.api import receive_answer
from app.api.context import Context
from app.api.exchange import ClientGone, Exchange
from app.api.receive import MAX_BODY, Receiving
from app.api.receive_answer import delivery_count
from app.auth.authority import Authority
from app.config.settings import Settings
from app.connectors.base import Destination
from app.domain.errors import (
    BodyTooLarge,
    BrokerRejected,
    Draining,
    InvalidParameter,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    Overloaded,
    UnknownDestination,
)
from app.domain.message import Publication
from app.domain.principal import Principal
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from app.telemetry.metrics import Metrics
from app.wire import raw
from app.wire.lease import peek
from tests.unit.api.asgi import GONE, Call, piece
from tests.unit.api.test_event_stream import Seam
from tests.unit.gateway.fakes import message, turns

JOBS = MqUri.parse("demo::Queues::jobs")
EVENTS = MqUri.parse("demo::Topics::events")
OCTETS = (b"accept", b"application/octet-stream")


class Worker:
    """Asks one application again and again."""

    def __init__(self, context: Context) -> None:
        self.gateway: Gateway = context.gateway
        self.handler = Receiving(context)

    @property
    def jobs(self) -> Destination:
        return self.gateway.resolve(JOBS)

    async def put(self, body: bytes = b'{"n":1}', **fields: Any) -> None:
        known: dict[str, Any] = {"content_type": "application/json", **fields}
        await self.gateway.publish(self.jobs, Publication(body=body, message_id="m-1", **known), timeout=5)

    async def receive(self, query: str = "", *headers: tuple[bytes, bytes], **options: Any) -> Call:
        call = Call(query=query.encode(), headers=headers, **options)
        async with asyncio.timeout(10):
            await self.handler(call.exchange(), JOBS)
        assert call.is_complete
        return call

    @property
    def leased(self) -> int:
        return self.gateway.takings.leases.of(JOBS)


@pytest.fixture
def worker(context: Context) -> Worker:
    return Worker(context)


async def test_messages_come_as_envelopes_with_their_leases(worker: Worker) -> None:
    for number in range(3):
        await worker.put(b'{"n":%d}' % number, headers={"JobID": "7"})
    call = await worker.receive("max=10")
    assert call.status == 200
    assert call.head["content-type"] == "application/json"
    assert call.head["cache-control"] == "no-store"
    assert int(call.head["content-length"]) == len(call.body)
    messages = call.json["messages"]
    assert [one["body"] for one in messages] == [{"n": 0}, {"n": 1}, {"n": 2}]
    first = messages[0]
    assert (first["id"], first["message_id"], first["mq_uri"]) == (None, "m-1", str(JOBS))
    assert first["headers"] == {"JobID": "7"}
    assert (first["content_type"], first["body_encoding"], first["redelivered"]) == ("application/json", "json", False)
    assert first["lease_expires_at"].endswith("Z")
    assert "delivery_count" not in first
    name = peek(first["lease"])
    assert name is not None
    assert (name.instance, name.mq_uri) == (worker.gateway.instance, JOBS)
    assert worker.leased == 3
    assert worker.gateway.takings.buffered() == 0
    assert worker.gateway.destination_view(worker.jobs).leases == 3
    assert worker.gateway.destination_view(worker.jobs).delivered == 3
    assert b'mq_gateway_leases{service="demo"} 3.0' in worker.gateway.metrics.render()


async def test_nothing_is_204(worker: Worker) -> None:
    call = await worker.receive()
    assert call.status == 204
    assert call.body == b""
    assert not {"content-length", "content-type"} & set(call.head)


async def test_a_long_poll_ends_with_the_first_message(worker: Worker) -> None:
    asking = asyncio.ensure_future(worker.receive("wait=20"))
    await turns(20)
    assert not asking.done()
    await worker.put()
    assert len((await asking).json["messages"]) == 1


async def test_auto_is_done_when_the_answer_is_out(worker: Worker) -> None:
    await worker.put()
    call = await worker.receive("ack=auto")
    assert not {"lease", "lease_expires_at"} & set(call.json["messages"][0])
    assert worker.leased == 0
    assert (await worker.receive()).status == 204


async def test_the_body_itself(worker: Worker) -> None:
    await worker.put(b"\x00\xff", content_type="image/x-a", headers={"owner": "ünï"}, type="t")
    call = await worker.receive("lease=60", OCTETS)
    assert call.status == 200
    assert call.body == b"\x00\xff"
    head = call.head
    assert head["content-type"] == "image/x-a"
    assert (head["mq-uri"], head["mq-message-id"], head["mq-redelivered"]) == (str(JOBS), "m-1", "false")
    assert json.loads(head["mq-headers"]) == {"owner": "ünï"}
    assert head["mq-type"] == "t"
    assert head["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert head["mq-received-at"] < head["mq-lease-expires-at"]
    assert peek(head["mq-lease"]) is not None
    await worker.put(b"x", content_type="text/plain", headers={f"h{number}": "v" * 1000 for number in range(40)})
    call = await worker.receive("ack=auto", OCTETS)
    assert int(call.head["mq-headers-omitted"]) + len(json.loads(call.head["mq-headers"])) == 40
    assert sum(len(name) + len(value) for name, value in call.head.items()) < raw.MAX_BYTES + 1000
    assert "mq-lease" not in call.head


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("max=0", "whole number from 1 to 1000"),
        ("max=1001", "whole number from 1 to 1000"),
        ("max=1.5", "whole number"),
        ("max=" + "9" * 5000, "whole number"),
        ("wait=-1", "number from 0 to 20"),
        ("wait=20.1", "number from 0 to 20"),
        ("wait=x", "number from 0 to 20"),
        ("lease=0", "number from 1 to 900"),
        ("lease=901", "number from 1 to 900"),
        ("ack=maybe", "one of auto, explicit"),
        ("lese=1", "not known"),
        ("subscription=a", "for Topics"),
    ],
)
async def test_what_a_request_may_say(worker: Worker, query: str, says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        await worker.receive(query)


async def test_what_stands_in_a_body_is_not_ignored(worker: Worker) -> None:
    with pytest.raises(InvalidParameter, match="in the query"):
        await worker.receive(receives=[piece(b'{"max": 10}')])
    with pytest.raises(BodyTooLarge):
        await worker.receive(receives=[piece(bytes(MAX_BODY + 1))])


async def test_octets_are_one_message(worker: Worker) -> None:
    with pytest.raises(InvalidParameter, match="holds one message"):
        await worker.receive("max=2", OCTETS)
    with pytest.raises(NotAcceptable):
        await worker.receive("", (b"accept", b"text/html"))


async def test_topics_and_what_is_not_there(context: Context) -> None:
    handler = Receiving(context)
    with pytest.raises(MethodNotAllowed) as caught:
        await handler(Call().exchange(), EVENTS)
    assert caught.value.allow == ""
    with pytest.raises(NotFound, match="archiver"):
        await handler(Call(query=b"subscription=archiver").exchange(), EVENTS)
    with pytest.raises(UnknownDestination):
        await handler(Call().exchange(), MqUri.parse("demo::Queues::none"))


async def test_a_subscription_of_a_topic(context: Context, worker: Worker) -> None:
    alerts = MqUri.parse("demo::Topics::alerts")
    publication = Publication(body=b"fire", message_id="m-1", content_type="text/plain")
    await worker.gateway.publish(worker.gateway.resolve(alerts), publication, timeout=5)
    for name in ("archiver", "mailer"):
        call = Call(query=b"subscription=" + name.encode())
        await worker.handler(call.exchange(), alerts)
        (found,) = call.json["messages"]
        assert (found["body"], found["mq_uri"]) == ("fire", str(alerts))
        lease = peek(found["lease"])
        assert lease is not None
        assert lease.subscription == name
    with pytest.raises(NotFound, match="declares no subscription 'other'"):
        await worker.handler(Call(query=b"subscription=other").exchange(), alerts)
    with pytest.raises(MethodNotAllowed, match="name one of"):
        await worker.handler(Call().exchange(), alerts)


async def test_places_are_bounded(context: Context, worker: Worker) -> None:
    asking = [asyncio.ensure_future(worker.receive("wait=20")) for _ in range(context.settings.limits.streams)]
    await turns()
    with pytest.raises(Overloaded):
        await worker.receive()
    worker.gateway.takings.stop()
    assert [call.status for call in await asyncio.gather(*asking)] == [204, 204]


async def test_nobody_who_is_known_takes_all_places(context: Context, worker: Worker) -> None:
    def known(name: str) -> Exchange:
        exchange = Call(query=b"wait=20").exchange()
        exchange.caller = Authority(Settings(), Metrics()).caller(Principal(name=name, way="token", label=name), "")
        return exchange

    first = asyncio.ensure_future(worker.handler(known("alice"), JOBS))
    await turns()
    with pytest.raises(Overloaded, match="requests of this principal"):
        await worker.handler(known("alice"), JOBS)
    second = asyncio.ensure_future(worker.handler(known("bob"), JOBS))
    await turns()
    worker.gateway.takings.stop()
    await asyncio.gather(first, second)
    assert context.settings.limits.streams == 2


async def test_a_drain_ends_a_long_poll(worker: Worker) -> None:
    asking = asyncio.ensure_future(worker.receive("wait=20"))
    await turns(20)
    await worker.gateway.drain()
    assert (await asking).status == 204
    with pytest.raises(Draining):
        await worker.receive()


async def test_a_refusal_of_the_broker(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_args: object, **_options: object) -> None:
        raise BrokerRejected("no")

    monkeypatch.setattr(worker.gateway._registry.connector("demo"), "subscribe", refuse)
    with pytest.raises(BrokerRejected):
        await worker.receive()


# Clients that leave.


@pytest.mark.parametrize("ours", [True, False], ids=["our server", "another"])
async def test_who_leaves_while_waiting_takes_nothing(worker: Worker, ours: bool) -> None:
    seam = Seam()
    call = Call(query=b"wait=20", seam=seam.extension()) if ours else Call(query=b"wait=20")
    asking = asyncio.ensure_future(worker.handler(call.exchange(), JOBS))
    await turns(20)
    if ours:
        seam.leave()
    else:
        asking.cancel()
    with pytest.raises(ClientGone if ours else asyncio.CancelledError):
        await asking
    await worker.put()
    assert len((await worker.receive("wait=5")).json["messages"]) == 1


async def test_another_server_says_who_left(worker: Worker) -> None:
    with pytest.raises(ClientGone):
        await worker.handler(Call(query=b"wait=20", receives=[GONE]).exchange(), JOBS)


async def test_who_left_before_the_answer_was_out_gives_back(worker: Worker) -> None:
    await worker.put()
    seam = Seam()
    seam.closing = True
    call = Call(seam=seam.extension())
    with pytest.raises(ClientGone):
        await worker.handler(call.exchange(), JOBS)
    assert worker.leased == 0
    (again,) = (await worker.receive("wait=5")).json["messages"]
    assert again["redelivered"]


async def test_who_does_not_take_the_answer_is_cut_off(
    worker: Worker, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = context.settings.server.model_copy(update={"write_timeout": 0.05})
    monkeypatch.setattr(context, "settings", context.settings.model_copy(update={"server": server}))
    await worker.put()
    seam = Seam()
    call = Call(seam=seam.extension())

    async def stalled(_message: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(call, "send", stalled)
    with pytest.raises(ClientGone):
        await worker.handler(call.exchange(), JOBS)
    assert seam.aborted
    assert worker.leased == 0


async def test_who_takes_too_little_of_too_much_is_cut_off(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers wait in the outbox, and beyond its bound the oldest goes."""
    monkeypatch.setattr(worker.gateway.outbox, "_limit", 100)
    await worker.put(b"x" * 90, content_type="text/plain")
    seam, sending = Seam(), asyncio.Event()
    call = Call(seam=seam.extension())
    taken = call.send

    async def slow(sent: Any) -> None:
        await taken(sent)
        if sent["type"] == "http.response.body":
            sending.set()
            await asyncio.sleep(0.05)

    monkeypatch.setattr(call, "send", slow)
    asking = asyncio.ensure_future(worker.handler(call.exchange(), JOBS))
    await sending.wait()
    with worker.gateway.outbox.holding(b"y" * 90, lambda: None), pytest.raises(ClientGone):
        await asking
    assert seam.aborted
    assert worker.leased == 0


async def test_a_large_answer_leaves_others_their_turn(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive_answer, "LARGE_PIECE", 10)
    for _ in range(3):
        await worker.put()
    assert len((await worker.receive("max=3")).json["messages"]) == 3


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        ({}, None),
        ({"x-delivery-count": "0"}, 1),
        ({"x-delivery-count": "2"}, 3),
        ({"JMSXDeliveryCount": "2"}, 2),
        ({"x-delivery-count": "many"}, None),
        ({"x-delivery-count": "9" * 5000}, None),
    ],
)
def test_deliveries_are_counted_where_the_broker_does(headers: dict[str, str], count: int | None) -> None:
    assert delivery_count(message(headers=headers)) == count
