"""Bodies and their headers go through byte for byte, in both directions."""

from __future__ import annotations

import base64
import json

import pytest

from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.bodies import HARD, as_event
from tests.e2e.conftest import Target
from tests.e2e.http_client import Http, Sse, ask, post

LARGE = 4_000_000


async def test_behaviour_26_27_hard_bodies_arrive_byte_for_byte_at_a_stomp_client(
    target: Target, stomp_client: ConnectStomp, unique: Unique
) -> None:
    queue = unique("bodies")
    async with await Http.connect(target.port) as http:
        for body in HARD.values():
            answer = await http.ask("POST", f"/mq/mq/Queues/{queue}", body, {"Content-Type": "application/x-hard"})
            assert answer.status == 200
    client = await stomp_client(target.broker)
    await client.subscribe(f"/queue/{queue}")
    for name, body in HARD.items():
        headers, received = await client.next_message()
        assert (received, headers["content-type"]) == (body, "application/x-hard"), name


async def test_behaviour_26_27_hard_bodies_of_a_stomp_client_arrive_at_an_event_stream(
    target: Target, stomp_client: ConnectStomp, unique: Unique
) -> None:
    topic = unique("bodies")
    client = await stomp_client(target.broker)
    path = f"/mq/mq/Topics/{topic}/events"
    async with (
        await Sse.open(target.port, path) as data,
        await Sse.open(target.port, f"{path}?format=envelope") as envelopes,
    ):
        for body in HARD.values():
            await client.send(f"/topic/{topic}", body, {"content-type": "text/plain"})
        for name, body in HARD.items():
            event, envelope = await data.next(), (await envelopes.next()).json
            assert (event.name, event.data) == as_event(body), name
            assert _body(envelope) == body, name
            assert envelope["content_type"] == "text/plain"


def _body(envelope: dict[str, str]) -> bytes:
    if envelope["body_encoding"] == "base64":
        return base64.b64decode(envelope["body"])
    assert envelope["body_encoding"] == "text"
    return envelope["body"].encode()


async def test_four_million_bytes(target: Target, stomp_client: ConnectStomp, unique: Unique) -> None:
    queue, topic = unique("large"), unique("large")
    body = bytes(range(256)) * (LARGE // 256)
    client = await stomp_client(target.broker)
    assert (await post(target.port, f"/mq/mq/Queues/{queue}", body)).status == 200
    await client.subscribe(f"/queue/{queue}")
    assert (await client.next_message())[1] == body
    text = ("z" * 99 + "\n") * (LARGE // 100)
    async with await Sse.open(target.port, f"/mq/mq/Topics/{topic}/events") as stream:
        assert (await post(target.port, f"/mq/mq/Topics/{topic}", text)).status == 200
        assert (await stream.next()).data == text
    refused = await ask(
        target.port, "POST", f"/mq/mq/Queues/{queue}", None, {"Content-Length": "4128769", "Expect": "100-continue"}
    )
    assert (refused.status, refused.code, refused.outcome) == (413, "body_too_large", "not_sent")


async def test_json_goes_through_as_it_is(target: Target, stomp_client: ConnectStomp, unique: Unique) -> None:
    queue, topic = unique("json"), unique("json")
    # Spaces, key order, a repeated key, an exponent and an escape: all would change on the way through a parser.
    body = b'{ "b":1e2,\n"a" : "\\u00e9", "a": 2 }'
    answer = await post(target.port, f"/mq/mq/Queues/{queue}", body, {"Content-Type": "application/json"})
    client = await stomp_client(target.broker)
    await client.subscribe(f"/queue/{queue}")
    headers, received = await client.next_message()
    assert (received, headers["content-type"]) == (body, "application/json")
    assert headers["mq-message-id"] == answer.json["message_id"]
    async with await Sse.open(target.port, f"/mq/mq/Topics/{topic}/events?format=envelope") as stream:
        published = await post(target.port, f"/mq/mq/Topics/{topic}", body, {"Content-Type": "application/json"})
        event = await stream.next()
        assert (event.json["body_encoding"], event.json["message_id"]) == ("json", published.json["message_id"])
        assert json.loads(event.data)["body"] == {"b": 100.0, "a": 2}
        assert '"b":1e2' in event.data
    refused = await post(target.port, f"/mq/mq/Queues/{queue}", b"{'a': 1}", {"Content-Type": "application/json"})
    assert (refused.status, refused.code) == (400, "invalid_json")


async def test_behaviour_23_headers_and_properties_arrive(
    target: Target, stomp_client: ConnectStomp, unique: Unique
) -> None:
    queue, replies = unique("headers"), unique("replies")
    client = await stomp_client(target.broker)
    await client.subscribe(f"/queue/{queue}")
    value = "a:b\\c \u00e9\u4e2d\\n"
    given = {
        "Mq-Persistent": "true",
        "Mq-Priority": "7",
        "Mq-Correlation-Id": "c:1",
        "Mq-Type": "t",
        "Mq-Reply-To": f"mq::Queues::{replies}",
        "Mq-Header-colour": value,
        "Mq-Headers": json.dumps({"JobID": "1", "Odd_name.x-y": ""}),
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "ce-type": "com.example.x",
    }
    answer = await post(target.port, f"/mq/mq/Queues/{queue}", b"x", given)
    assert answer.status == 200, answer
    headers, _ = await client.next_message()
    assert headers["colour"] == value
    assert (headers["JobID"], headers["Odd_name.x-y"]) == ("1", "")
    assert (headers["correlation-id"], headers["type"], headers["priority"]) == ("c:1", "t", "7")
    assert headers["traceparent"] == given["traceparent"]
    assert headers["ce-type"] == given["ce-type"]
    assert headers["persistent"] == "true"
    assert headers["reply-to"] == f"/queue/{replies}"


@pytest.mark.parametrize("name", ["a/b", "a b", "\u00e9t\u00e9", "100%", "a;b=c", "\U0001f600", "%25"])
async def test_behaviour_29_a_name_is_the_same_queue_for_post_get_and_stomp(
    target: Target, stomp_client: ConnectStomp, unique: Unique, name: str
) -> None:
    queue = unique(name)
    quoted = "".join(f"%{byte:02X}" for byte in queue.encode())
    assert (await post(target.port, f"/mq/mq/Queues/{quoted}", b"one")).status == 200
    async with await Sse.open(target.port, f"/mq/mq/queue/{quoted}/events?format=envelope") as stream:
        event = (await stream.next()).json
        assert (event["body"], event["mq_uri"]) == ("one", f"mq::Queues::{queue}")
    assert (await post(target.port, f"/mq/mq/queues/{quoted}", b"two")).status == 200
    client = await stomp_client(target.broker)
    native = queue.replace("/", "%2F") if isinstance(target.broker, RabbitMQ) else queue
    await client.subscribe(f"/queue/{native}")
    assert await client.messages(1) == [b"two"]
