"""What workers say of their leases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.api.context import Context
from app.api.receive import Receiving
from app.api.settle import Ack, Nack, Renew, Settle
from app.domain.errors import (
    BadRequest,
    InvalidJson,
    InvalidParameter,
    MethodNotAllowed,
    NotFound,
    UnsupportedEncoding,
)
from app.domain.message import Publication
from app.domain.uri import MqUri
from tests.unit.api.asgi import Call, piece

JOBS = MqUri.parse("demo::Queues::jobs")


class Worker:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def take(self, number: int = 1) -> list[str]:
        gateway = self._context.gateway
        for at in range(number):
            publication = Publication(body=b"%d" % at, message_id=f"m-{at}")
            await gateway.publish(gateway.resolve(JOBS), publication, timeout=5)
        return [one["lease"] for one in await self.receive(f"max={number}")]

    async def receive(self, query: str) -> list[dict[str, Any]]:
        call = Call(query=query.encode())
        await Receiving(self._context)(call.exchange(), JOBS)
        messages: list[dict[str, Any]] = call.json["messages"] if call.status == 200 else []
        return messages

    async def say(self, what: type[Settle], body: Any = None, query: str = "", uri: MqUri = JOBS) -> Call:
        data = b"" if body is None else json.dumps(body).encode()
        call = Call(query=query.encode(), receives=[piece(data)])
        await what(self._context)(call.exchange(), uri)
        return call


@pytest.fixture
def worker(context: Context) -> Worker:
    return Worker(context)


def results(call: Call) -> list[str]:
    return [one["result"] for one in call.json["results"]]


async def test_acks_are_answered_in_the_order_asked(worker: Worker) -> None:
    one, two = await worker.take(2)
    call = await worker.say(Ack, {"leases": [two, one]})
    assert call.status == 200
    assert call.json == {"results": [{"lease": two, "result": "done"}, {"lease": one, "result": "done"}]}
    assert await worker.receive("") == []


async def test_not_all_done_is_207(worker: Worker) -> None:
    (lease,) = await worker.take()
    call = await worker.say(Ack, {"leases": [lease, lease + "x", "nonsense", lease]})
    assert call.status == 207
    assert results(call) == ["done", "unknown", "unknown", "done"]
    assert results(await worker.say(Nack, {"leases": [lease]})) == ["expired"]


async def test_one_lease_in_the_query(worker: Worker) -> None:
    (lease,) = await worker.take()
    call = await worker.say(Ack, query=f"lease={lease}")
    assert (call.status, results(call)) == (200, ["done"])
    with pytest.raises(InvalidParameter, match="stands for a body"):
        await worker.say(Ack, {"leases": [lease]}, query=f"lease={lease}")


async def test_a_nack_gives_back(worker: Worker) -> None:
    (lease,) = await worker.take()
    assert (await worker.say(Nack, {"leases": [lease], "requeue": True, "delay": 0})).status == 200
    (again,) = await worker.receive("wait=5")
    assert again["redelivered"]
    assert again["lease"] != lease


async def test_a_nack_waits_a_second_unless_told_otherwise(worker: Worker) -> None:
    (lease,) = await worker.take()
    now = asyncio.get_running_loop().time()
    assert (await worker.say(Nack, query=f"lease={lease}")).status == 200
    assert len(await worker.receive("wait=5")) == 1
    assert asyncio.get_running_loop().time() - now >= 1


async def test_a_nack_without_requeue_refuses_for_good(worker: Worker) -> None:
    (lease,) = await worker.take()
    assert (await worker.say(Nack, {"leases": [lease], "requeue": False})).status == 200
    assert await worker.receive("wait=0.3") == []


async def test_renew_tells_until_when(worker: Worker) -> None:
    (lease,) = await worker.take()
    call = await worker.say(Renew, {"leases": [lease, "x"], "lease": 90.5})
    assert call.status == 207
    first, second = call.json["results"]
    assert first["lease_expires_at"].endswith("Z")
    assert second == {"lease": "x", "result": "unknown"}
    assert (await worker.say(Renew, query=f"lease={lease}")).json["results"][0]["lease_expires_at"]


@pytest.mark.parametrize(
    ("what", "body", "says"),
    [
        (Ack, [], "JSON object"),
        (Ack, {}, "1 to 1000"),
        (Ack, {"leases": []}, "1 to 1000"),
        (Ack, {"leases": ["x"] * 1001}, "1 to 1000"),
        (Ack, {"leases": "x"}, "1 to 1000"),
        (Ack, {"leases": [1]}, "is a text"),
        (Ack, {"leases": ["x" * 4097]}, "4096 characters"),
        (Ack, {"leases": ["x"], "delay": 1}, "known are leases"),
        (Nack, {"leases": ["x"], "lease": 1}, "known are leases, requeue, delay"),
        (Nack, {"leases": ["x"], "requeue": "yes"}, "true or false"),
        (Nack, {"leases": ["x"], "delay": -1}, "from 0 to 900"),
        (Nack, {"leases": ["x"], "delay": True}, "from 0 to 900"),
        (Nack, {"leases": ["x"], "delay": "1"}, "from 0 to 900"),
        (Renew, {"leases": ["x"], "lease": 901}, "from 1 to 900"),
        (Renew, {"leases": ["x"], "lease": 0.5}, "from 1 to 900"),
    ],
)
async def test_what_a_body_may_say(worker: Worker, what: type[Settle], body: Any, says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        await worker.say(what, body)


async def test_what_is_no_body(worker: Worker, context: Context) -> None:
    with pytest.raises(InvalidJson):
        await worker.say(Ack)
    with pytest.raises(MethodNotAllowed):
        await worker.say(Ack, {"leases": ["x"]}, uri=MqUri.parse("demo::Topics::events"))
    with pytest.raises(UnsupportedEncoding):
        await Ack(context)(Call(headers=((b"content-encoding", b"gzip"),)).exchange(), JOBS)
    with pytest.raises(BadRequest):
        await worker.say(Ack, query="leases=x")


@pytest.mark.parametrize(
    ("what", "body"), [(Ack, {}), (Nack, {"delay": 0}), (Nack, {"requeue": False}), (Renew, {"lease": 5})]
)
async def test_a_lease_of_a_subscription_is_answered_there(
    worker: Worker, context: Context, what: type[Settle], body: dict[str, Any]
) -> None:
    alerts, gateway = MqUri.parse("demo::Topics::alerts"), context.gateway
    await gateway.publish(gateway.resolve(alerts), Publication(body=b"x", message_id="m-1"), timeout=5)
    call = Call(query=b"subscription=archiver")
    await Receiving(context)(call.exchange(), alerts)
    said = {"leases": [one["lease"] for one in call.json["messages"]], **body}
    assert results(await worker.say(what, said, "subscription=mailer", alerts)) == ["unknown"]
    assert results(await worker.say(what, said, "subscription=archiver", alerts)) == ["done"]
    with pytest.raises(NotFound):
        await worker.say(what, said, "subscription=other", alerts)


async def test_while_draining_leases_can_still_be_answered(worker: Worker, context: Context) -> None:
    (lease,) = await worker.take()
    await context.gateway.drain()
    assert (await worker.say(Ack, {"leases": [lease]})).status == 200
