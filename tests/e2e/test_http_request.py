"""Request and reply over real sockets: the answer is what a responder at the broker sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.config.settings import QueueSettings
from app.connectors.base import Destination
from app.domain.message import Message, Publication
from app.domain.uri import MqUri
from tests.brokers.fixtures import ConnectStomp, MakeRabbitMQ, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.conftest import Target
from tests.e2e.http_client import ask, connections
from tests.e2e.http_gateway import PATIENCE, Served, serving, until
from tests.e2e.live_gateway import running, stomp, write_config
from tests.faults.peer import Script, ScriptedPeer
from tests.stomp_client import StompClient

ASK = "/mq/demo/Queues/jobs/request"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running_:
        yield running_


@contextlib.asynccontextmanager
async def _responder(served: Served, *, twice: bool = False) -> AsyncIterator[None]:
    """Inside the process: answers every request with what it was asked, in the other case."""

    async def respond(request: Message) -> None:
        path = request.headers["reply-to"]
        reply_to = Destination(MqUri.parse("demo::Queues::any"), QueueSettings(destination=path))
        reply = Publication(
            body=request.body.swapcase(),
            message_id="r-1",
            content_type=request.content_type or "",
            correlation_id=request.headers["correlation-id"],
            headers={"who": "ünï"},
        )
        for _ in range(2 if twice else 1):
            await served.gateway.publish(reply_to, reply, timeout=5)

    consumer = await served.gateway.create_consumer("demo::Queues::jobs", respond)
    yield
    await consumer.close()


async def test_the_reply_is_the_answer(served: Served) -> None:
    async with _responder(served):
        headers = {"content-type": "text/plain", "mq-correlation-id": "mine"}
        response = await served.client.post(ASK, content=b"Question", headers=headers)
    assert (response.status_code, response.content) == (200, b"qUESTION")
    assert response.headers["content-type"] == "text/plain"
    assert response.headers["mq-correlation-id"] == "mine"
    assert response.headers["mq-message-id"] == "r-1"
    assert json.loads(response.headers["mq-headers"]) == {"who": "ünï"}
    assert served.metric("mq_gateway_publishes_total", service="demo", type="Queues", outcome="confirmed") >= 1


async def test_many_callers_get_their_own(served: Served) -> None:
    async with _responder(served, twice=True):
        asked = [b"Body-%d" % number for number in range(50)]
        responses = await asyncio.gather(*(served.client.post(ASK, content=body) for body in asked))
    assert [response.content for response in responses] == [body.swapcase() for body in asked]
    # What came a second time went to nobody.
    assert served.metric("mq_gateway_connector_events_total", service="demo", event="late_reply") == 50


async def test_nobody_replies(served: Served) -> None:
    response = await served.client.post(f"{ASK}?timeout=0.1", content=b"?")
    problem = response.json()
    assert (response.status_code, problem["code"], problem["outcome"]) == (504, "no_reply", "unknown")
    looked = (await served.client.get("/mq/demo/Queues/jobs")).json()
    assert looked["published"] == 1


async def test_a_client_that_goes_leaves_nothing(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST %b?timeout=60 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n?" % ASK.encode())
    consumer = await served.gateway.create_consumer("demo::Queues::jobs")
    assert await consumer.get(PATIENCE) is not None  # it is waiting for its reply
    assert served.metric("mq_gateway_awaiting_reply", service="demo") == 1
    writer.transport.abort()
    await until(lambda: served.metric("mq_gateway_awaiting_reply", service="demo") == 0)
    await consumer.close()


async def test_a_lost_connection_is_told_to_who_waits_for_a_reply() -> None:
    rabbitmq = {"version": "1.2", "server": "RabbitMQ/3.12.4", "heart-beat": "0,0"}
    async with ScriptedPeer.listen(Script(connected=rabbitmq)) as peer:
        services = {"mq": {"mq_type": "Stomp", "hosts": [peer.address], "queues": {"jobs": {}}}}
        async with serving(services) as served:
            asking = [
                asyncio.ensure_future(served.client.post("/mq/mq/Queues/jobs/request?timeout=9", content=b"?"))
                for _ in range(20)
            ]
            for _ in range(20):
                connection, sent = await peer.frame_from("SEND")
            reply = {"correlation_id": sent["correlation-id"], "evil": "1\\r\\nset-cookie\\ca=b"}
            await connection.message(sent["reply-to"], b"!", **reply)
            await until(lambda: any(task.done() for task in asking))
            (answered,) = [task.result() for task in asking if task.done()]
            assert (answered.status_code, answered.content) == (200, b"!")
            assert "set-cookie" not in answered.headers
            connection.reset()
            lost = [task for task in asking if not task.done()]
            problems = [response.json() for response in await asyncio.wait_for(asyncio.gather(*lost), 3)]
            assert {(problem["code"], problem["outcome"]) for problem in problems} == {("connection_lost", "unknown")}
            assert len(problems) == 19


async def _answering(client: StompClient, number: int) -> None:
    """A responder as others write one, in an order of its own: reply to reply-to, copy the correlation id."""
    requests = [await client.next_message(PATIENCE) for _ in range(number)]
    random.Random(number).shuffle(requests)
    for headers, body in requests:
        copied = {"correlation-id": headers["correlation-id"], "content-type": "text/plain"}
        await client.send(headers["reply-to"], b"re: " + body, copied)


@pytest.mark.parametrize("kind", ["Queues", "Topics"])
async def test_a_responder_at_the_broker_answers(
    target: Target, stomp_client: ConnectStomp, unique: Unique, kind: str
) -> None:
    name = unique("ask")
    client = await stomp_client(target.broker)
    await client.subscribe(f"/{kind[:-1].lower()}/{name}")
    responder = asyncio.ensure_future(_answering(client, 500))
    path = f"/mq/mq/{kind}/{name}/request?timeout=20"
    async with connections(target.port, 500) as https:
        answers = await asyncio.gather(*(http.ask("POST", path, b"%d" % n) for n, http in enumerate(https)))
    assert [answer.body for answer in answers] == [b"re: %d" % n for n in range(500)]
    assert {answer.headers["content-type"] for answer in answers} == {"text/plain"}
    await responder


async def test_a_broker_that_dies_ends_what_waits_for_a_reply(
    make_rabbitmq: MakeRabbitMQ, stomp_client: ConnectStomp, tmp_path: Path, unique: Unique
) -> None:
    broker = await make_rabbitmq()
    name = unique("ask")
    client = await stomp_client(broker)
    await client.subscribe(f"/queue/{name}")
    async with running(write_config(tmp_path, {"mq": stomp(broker)})) as gateway:
        await gateway.until_up("mq")
        asking = asyncio.ensure_future(ask(gateway.port, "POST", f"/mq/mq/Queues/{name}/request?timeout=15", b"?"))
        await client.next_message(PATIENCE)
        await broker.kill()
        answer = await asyncio.wait_for(asking, 5)
        assert (answer.status, answer.code, answer.outcome) == (504, "connection_lost", "unknown")


async def test_a_login_that_may_not_make_reply_queues_is_told_so(
    rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique
) -> None:
    user, path = unique("user"), f"/mq/mq/Queues/{unique('ask')}"
    await rabbitmq.add_user(user, "secret")
    await rabbitmq.set_permissions(user, configure=r"^(?!amq\.gen)")
    async with running(write_config(tmp_path, {"mq": stomp(rabbitmq, user=user, password="secret")})) as gateway:
        await gateway.until_up("mq")
        first = await ask(gateway.port, "POST", f"{path}/request", b"?")
        assert (first.status, first.code) == (504, "connection_lost")
        await gateway.until_up("mq")
        for _ in range(2):
            second = await ask(gateway.port, "POST", f"{path}/request", b"?")
            assert (second.status, second.code) == (422, "not_supported_by_broker")
        assert (await ask(gateway.port, "POST", path, b"!")).status == 200
        assert await gateway.metric("mq_gateway_reconnects_total", service="mq") == 1
