"""POST …/request, with a gateway that is real and a broker in memory."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

from app.api.context import Context
from app.api.exchange import ClientGone
from app.api.publish import Publish
from app.api.request_reply import RequestReply
from app.config.settings import QueueSettings
from app.connectors.base import Destination
from app.domain.errors import InvalidHeader, InvalidParameter, NoReply, Outcome
from app.domain.message import Message, Publication
from app.domain.uri import MqUri
from tests.unit.api.asgi import GONE, Call, piece

JOBS = MqUri.parse("demo::Queues::jobs")


async def _request(context: Context, call: Call, uri: MqUri = JOBS) -> Any:
    exchange = call.exchange()
    await RequestReply(context, Publish(context))(exchange, uri)
    return exchange


async def _respond(context: Context, body: bytes, **fields: Any) -> Message:
    consumer = await context.gateway.create_consumer(str(JOBS))
    request = await consumer.get(5)
    assert request is not None
    reply_to = Destination(MqUri.parse("demo::Queues::any"), QueueSettings(destination=request.headers["reply-to"]))
    correlation_id = request.headers["correlation-id"]
    reply = Publication(body=body, message_id="r-1", correlation_id=correlation_id, **fields)
    await context.gateway.publish(reply_to, reply, timeout=5)
    await consumer.close()
    return request


def _outcomes(context: Context) -> dict[str, float]:
    found = {}
    for outcome in Outcome:
        labels = {"service": "demo", "type": "Queues", "outcome": outcome.value}
        found[outcome.value] = context.metrics.registry.get_sample_value("mq_gateway_publishes_total", labels)
    return {name: value for name, value in found.items() if value}


async def test_the_answer_is_the_reply(context: Context) -> None:
    call = Call(headers=[(b"mq-correlation-id", b"mine"), (b"mq-header-a", b"1")], receives=[piece(b"question")])
    reply = {"content_type": "image/png", "headers": {"JobID": "1"}, "type": "answer"}
    _, request = await asyncio.gather(_request(context, call), _respond(context, b"\0\xff\r\n", **reply))
    assert (request.body, request.headers["a"], request.headers["mq-correlation-id"]) == (b"question", "1", "mine")
    assert (call.status, call.body) == (200, b"\0\xff\r\n")
    wanted = {
        "content-type": "image/png",
        "mq-message-id": "r-1",
        "mq-correlation-id": "mine",
        "mq-type": "answer",
        "mq-headers": '{"JobID":"1"}',
        "mq-header-jobid": "1",
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    }
    assert wanted.items() <= call.head.items()
    assert _outcomes(context) == {"confirmed": 1}
    assert context.gateway._requests.buffered == 0


async def test_without_a_reply_it_is_unknown(context: Context) -> None:
    with pytest.raises(NoReply):
        await _request(context, Call(query=b"timeout=0.05"))
    assert _outcomes(context) == {"unknown": 1}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (Call(query=b"confirm=none"), InvalidParameter),
        (Call(query=b"timeout=0"), InvalidParameter),
        (Call(headers=[(b"mq-reply-to", b"demo::Queues::text")]), InvalidHeader),
        (Call(headers=[(b"idempotency-key", b"k")]), InvalidHeader),
    ],
)
async def test_what_a_request_cannot_have_is_refused(context: Context, call: Call, error: type[Exception]) -> None:
    with pytest.raises(error):
        await _request(context, call)
    assert _outcomes(context) == {"not_sent": 1}


async def test_a_client_that_goes_frees_its_place(context: Context) -> None:
    with pytest.raises(ClientGone):
        await asyncio.wait_for(_request(context, Call(receives=[piece(b"x"), piece(b""), GONE])), 1)
    assert context.metrics.registry.get_sample_value("mq_gateway_awaiting_reply", {"service": "demo"}) == 0
    assert _outcomes(context) == {"unknown": 1}


async def test_a_cancelled_request_leaves_nothing(context: Context) -> None:
    task = asyncio.ensure_future(_request(context, Call()))
    consumer = await context.gateway.create_consumer(str(JOBS))
    assert await consumer.get(5) is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.metrics.registry.get_sample_value("mq_gateway_awaiting_reply", {"service": "demo"}) == 0
    await consumer.close()


async def test_a_request_without_a_reply_is_freed_at_once(context: Context) -> None:
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(NoReply):
            await _request(context, Call(query=b"timeout=0.05", receives=[piece(b"question")]))
        await asyncio.sleep(0)
        assert not [each for each in gc.get_objects() if isinstance(each, Publication) and each.body == b"question"]
    finally:
        gc.enable()


async def test_a_problem_of_a_request_names_its_outcome(context: Context) -> None:
    call = Call(query=b"timeout=0.05")
    exchange = call.exchange()
    try:
        await RequestReply(context, Publish(context))(exchange, JOBS)
    except NoReply as error:
        await exchange.refuse(error)
    assert call.status == 504
    problem = json.loads(call.body)
    assert (problem["code"], problem["outcome"], problem["retriable"]) == ("no_reply", "unknown", True)
