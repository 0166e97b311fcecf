"""POST of many messages, with a gateway that is real and a broker in memory."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest

from app.api import batch as batch_module
from app.api import report as report_module
from app.api.batch import Batch
from app.api.context import Context
from app.api.exchange import ClientGone, Exchange
from app.connectors.base import Destination
from app.connectors.memory import MemoryMQConnector
from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    Code,
    ConnectionLost,
    GatewayError,
    Outcome,
    Overloaded,
)
from app.domain.message import Message, Publication
from app.domain.uri import MqUri
from tests.unit.api.asgi import GONE, Call, allowed, piece

LINES = (b"content-type", b"application/x-ndjson")
ARRAY = (b"content-type", b"application/json; charset=utf-8")


async def _post(
    context: Context,
    *pieces: bytes,
    queue: str = "jobs",
    query: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (LINES,),
    **more: Any,
) -> Call:
    received = [piece(part, more=True) for part in pieces] + [piece(b"")]
    call = Call(path=f"/mq/demo/Queues/{queue}/batch", query=query, headers=list(headers), receives=received, **more)
    exchange = call.exchange()
    exchange.publish = True
    await Batch(context)(exchange, MqUri.parse(f"demo::Queues::{queue}"))
    return call


async def _array(context: Context, value: Any, **more: Any) -> Call:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return await _post(context, body, headers=[ARRAY, *more.pop("headers", ())], **more)


def _queued(context: Context, queue: str = "jobs") -> list[Message]:
    """What is in a queue in memory."""
    connector = context.gateway._registry.connector("demo")
    assert isinstance(connector, MemoryMQConnector)
    found = connector._queues.get((MqUri.parse(f"demo::Queues::{queue}"), None))
    return [stored.message for stored in found._waiting] if found else []


def _counted(context: Context) -> dict[str, float]:
    found = {}
    for outcome in Outcome:
        labels = {"service": "demo", "type": "Queues", "outcome": outcome.value}
        value = context.metrics.registry.get_sample_value("mq_gateway_publishes_total", labels)
        if value:
            found[outcome.value] = value
    return found


def _shrink(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for 100 bytes, with what is in queues not counted."""
    monkeypatch.setattr(context.gateway.budget, "_limit", 100)
    monkeypatch.setattr(context.gateway.budget, "_held_elsewhere", lambda: 0)


@pytest.fixture
def fails(context: Context, monkeypatch: pytest.MonkeyPatch) -> dict[bytes, GatewayError]:
    """By body, what publishing it raises."""
    found: dict[bytes, GatewayError] = {}
    real = MemoryMQConnector.publish

    async def publish(
        self: MemoryMQConnector, destination: Destination, publication: Publication, **options: Any
    ) -> None:
        if publication.body in found:
            raise found[publication.body]
        await real(self, destination, publication, **options)

    monkeypatch.setattr(MemoryMQConnector, "publish", publish)
    return found


# Lines.


async def test_every_line_is_a_message(context: Context) -> None:
    call = await _post(context, b'{"a": 1.0}\n\n[2', b"]\r\n", b'"three"')
    assert call.status == 200
    assert call.head["content-type"] == "application/json"
    assert call.json == {
        "messages": 3,
        "confirmed": 3,
        "outcomes": {"confirmed": 3},
        "failures": [],
        "failures_omitted": 0,
    }
    messages = _queued(context)
    assert [message.body for message in messages] == [b'{"a": 1.0}', b"[2]", b'"three"']
    assert {message.content_type for message in messages} == {"application/json"}
    assert len({message.message_id for message in messages}) == 3
    assert _counted(context) == {"confirmed": 3}
    assert context.gateway.destination_view(context.gateway.resolve(messages[0].mq_uri)).published == 3


async def test_no_line_is_no_message(context: Context) -> None:
    call = await _post(context, b"\n\r\n")
    assert (call.status, call.json["messages"], call.json["outcomes"]) == (200, 0, {})


async def test_a_destination_may_have_a_content_type_of_its_own(context: Context) -> None:
    call = await _post(context, b"1\nno json\n", queue="text")
    assert (call.status, call.json["outcomes"]) == (207, {"confirmed": 1, "not_sent": 1})
    assert [message.content_type for message in _queued(context, "text")] == ["text/plain"]


async def test_a_destination_may_take_lines_that_are_no_json(context: Context) -> None:
    assert (await _post(context, b"no json\n", queue="lax")).status == 200
    assert _queued(context, "lax")[0].body == b"no json"


async def test_a_bad_line_spoils_only_itself(context: Context) -> None:
    long = b'"' + b"x" * 1000 + b'"'
    call = await _post(context, b"1\nnope\n" + long + b"\n", b"\xff\n2\n")
    assert call.status == 207
    assert call.json["outcomes"] == {"confirmed": 2, "not_sent": 3}
    failures = [
        (failure["index"], failure["id"], failure["code"], failure["outcome"]) for failure in call.json["failures"]
    ]
    assert failures == [
        (1, None, "invalid_json", "not_sent"),
        (2, None, "body_too_large", "not_sent"),
        (3, None, "invalid_json", "not_sent"),
    ]
    assert "1000 bytes" in call.json["failures"][1]["detail"]
    assert [message.body for message in _queued(context)] == [b"1", b"2"]
    assert _counted(context) == {"confirmed": 2, "not_sent": 3}


async def test_where_none_was_taken_the_first_failure_is_the_problem(context: Context) -> None:
    call = await _post(context, b"nope\n" + b"x" * 2000)
    assert call.status == 400
    assert call.head["content-type"] == "application/problem+json"
    problem = call.json
    assert (problem["code"], problem["outcome"], problem["status"]) == ("invalid_json", "not_sent", 400)
    assert (problem["messages"], problem["confirmed"], len(problem["failures"])) == (2, 0, 2)


async def test_no_more_than_a_thousand_failures_are_told(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MAX_FAILURES", 3)
    call = await _post(context, b"nope\n" * 10)
    assert [failure["index"] for failure in call.json["failures"]] == [0, 1, 2]
    assert (call.json["messages"], call.json["failures_omitted"]) == (10, 7)


async def test_handed_over_is_not_confirmed(context: Context) -> None:
    call = await _post(context, b"1\n2\n", query=b"confirm=none")
    assert (call.status, call.json["confirmed"], call.json["outcomes"]) == (202, 0, {"unconfirmed": 2})
    call = await _post(context, b"1\nnope\n", query=b"confirm=none")
    assert (call.status, call.json["outcomes"]) == (207, {"unconfirmed": 1, "not_sent": 1})


async def test_what_is_unknown_is_told_as_the_worst(context: Context, fails: dict[bytes, GatewayError]) -> None:
    fails[b"1"] = BrokerRejected("refused")
    fails[b"2"] = ConnectionLost("cut")
    call = await _post(context, b"1\n2\n3\n")
    assert call.status == 502
    assert call.json["outcome"] == "unknown"
    assert call.json["outcomes"] == {"not_sent": 1, "rejected": 1, "unknown": 1}
    assert [failure["code"] for failure in call.json["failures"]] == [
        "broker_rejected",
        "connection_lost",
        "broker_unavailable",
    ]


async def test_after_a_lost_link_the_rest_is_read_and_not_sent(
    context: Context, fails: dict[bytes, GatewayError]
) -> None:
    fails[b"1"] = BrokerUnavailable("down", retry_after=3)
    call = await _post(context, b"0\n1\n2\n", b"3\n4\n")
    assert (call.status, call.json["outcomes"]) == (207, {"confirmed": 1, "not_sent": 4})
    call = await _post(context, b"1\n2\n3\n")
    assert (call.status, call.head["retry-after"], call.json["messages"]) == (503, "3", 3)
    assert [message.body for message in _queued(context)] == [b"0"]


async def test_while_draining_the_rest_is_not_sent(context: Context) -> None:
    received: asyncio.Queue[Any] = asyncio.Queue()
    received.put_nowait(piece(b"1\n", more=True))
    call = Call(headers=[LINES])
    exchange = allowed(Exchange(call.scope, received.get, call.send))
    task = asyncio.create_task(Batch(context)(exchange, MqUri.parse("demo::Queues::jobs")))
    for _ in range(20):
        await asyncio.sleep(0)
    await context.gateway.drain()
    received.put_nowait(piece(b"2\n3\n"))
    await task
    assert (call.status, call.json["outcomes"]) == (207, {"confirmed": 1, "not_sent": 2})
    assert {failure["code"] for failure in call.json["failures"]} == {"draining"}
    again = await _post(context, b"2\n3\n")
    assert (again.status, again.json["code"], again.json["outcomes"]) == (503, "draining", {"not_sent": 2})


async def test_while_draining_a_client_that_goes_on_sending_gets_its_report(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "FAREWELL_SECONDS", 0.05)
    await context.gateway.drain()
    call = Call(headers=[LINES], receives=[piece(b"1\n2\n", more=True)])
    await asyncio.wait_for(Batch(context)(call.exchange(), MqUri.parse("demo::Queues::jobs")), 5)
    assert (call.status, call.json["outcomes"]) == (503, {"not_sent": 2})


async def test_a_client_that_leaves_has_sent_what_it_sent(context: Context) -> None:
    call = Call(headers=[LINES], receives=[piece(b"1\n2\n3", more=True), GONE])
    exchange = call.exchange()
    with pytest.raises(ClientGone):
        await Batch(context)(exchange, MqUri.parse("demo::Queues::jobs"))
    assert [message.body for message in _queued(context)] == [b"1", b"2"]
    assert call.sent == []
    assert (exchange.access.messages, exchange.access.outcome) == (2, "confirmed")


async def test_a_body_shorter_than_its_length_has_no_report(context: Context) -> None:
    with pytest.raises(ClientGone):
        await _post(context, b"1\n", headers=[LINES, (b"content-length", b"5")])


async def test_a_body_that_comes_too_slowly_ends_with_a_report(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = context.gateway.settings.server.model_copy(update={"idle_timeout": 0.05})
    monkeypatch.setattr(context.gateway, "settings", context.gateway.settings.model_copy(update={"server": server}))
    call = Call(headers=[LINES], receives=[piece(b"1\n2", more=True)])
    exchange = call.exchange()
    exchange.publish = True
    await Batch(context)(exchange, MqUri.parse("demo::Queues::jobs"))
    assert (call.status, call.json["code"], call.json["outcome"]) == (400, "malformed_request", "confirmed")
    assert call.json["confirmed"] == 1


async def test_what_the_request_says_holds_for_every_message(context: Context) -> None:
    headers = [LINES, (b"mq-header-jobid", b"7"), (b"mq-priority", b"4"), (b"mq-persistent", b"false")]
    await _post(context, b"1\n2\n", headers=headers)
    assert [dict(message.headers) for message in _queued(context)] == [{"jobid": "7", "priority": "4"}] * 2


async def test_a_line_waits_for_memory_while_others_are_on_their_way(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The begun line finds no memory; there is some as soon as the message before it is confirmed."""
    let_go = asyncio.Event()
    real = MemoryMQConnector.publish

    async def publish(self: MemoryMQConnector, *arguments: Any, **options: Any) -> None:
        await let_go.wait()
        await real(self, *arguments, **options)

    monkeypatch.setattr(MemoryMQConnector, "publish", publish)
    _shrink(context, monkeypatch)
    task = asyncio.create_task(_post(context, b'"' + b"x" * 78 + b'"\n"' + b"y" * 50, b'z"\n'))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    let_go.set()
    assert (await task).status == 200
    assert [len(message.body) for message in _queued(context)] == [80, 53]
    assert context.gateway.budget.reserved == 0


async def test_a_line_for_which_there_is_no_memory_fails_alone(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shrink(context, monkeypatch)
    call = await _post(context, b"1\n", b'"' + b"x" * 200, b'"\n2\n')
    assert (call.status, call.json["outcomes"]) == (207, {"confirmed": 2, "not_sent": 1})
    assert call.json["failures"][0]["code"] == "overloaded"
    assert context.gateway.budget.reserved == 0


@pytest.mark.parametrize("content_type", [None, b"text/plain", b"application/x-ndjson-seq"])
async def test_another_content_type_is_refused(context: Context, content_type: bytes | None) -> None:
    headers = [] if content_type is None else [(b"content-type", content_type)]
    with pytest.raises(GatewayError, match="application/x-ndjson") as caught:
        await _post(context, b"1\n", headers=headers)
    assert caught.value.code is Code.INVALID_HEADER


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        (b"atomic=yes", [], Code.INVALID_PARAMETER),
        (b"atomics=true", [], Code.INVALID_PARAMETER),
        (b"timeout=0", [], Code.INVALID_PARAMETER),
        (b"", [(b"content-encoding", b"gzip")], Code.UNSUPPORTED_ENCODING),
        (b"", [(b"mq-headers", b'{"CC":1}')], Code.INVALID_HEADER),
        (b"", [(b"idempotency-key", b"k")], Code.INVALID_HEADER),
        (b"", [(b"mq-reply-to", b"other::Queues::replies")], Code.INVALID_HEADER),
    ],
)
async def test_a_bad_head_is_refused_as_a_whole(
    context: Context, query: bytes, headers: list[tuple[bytes, bytes]], code: Code
) -> None:
    with pytest.raises(GatewayError) as caught:
        await _post(context, b"1\n", query=query, headers=[LINES, *headers])
    assert caught.value.code is code
    assert _queued(context) == []


# An array.


async def test_every_element_is_a_message(context: Context) -> None:
    body = (
        b'[{"body": {"n": 1.0}}, {"body_text": "h\xc3\xa9", "content_type": "text/html", "persistent": false},'
        b' {"body_base64": "/wA=", "headers": {"JobID": "1"}, "priority": 7, "correlation_id": "c", "ttl_ms": 60000,'
        b' "id": "mine", "delay_ms": null}, {"body": null}, {"body_text": ""}]'
    )
    call = await _array(context, body)
    assert call.status == 200, call.json
    got = [(message.body, message.content_type, dict(message.headers)) for message in _queued(context)]
    assert got == [
        (b'{"n": 1.0}', "application/json", {"persistent": "true"}),
        ("hé".encode(), "text/html", {}),
        (
            b"\xff\x00",
            "application/octet-stream",
            {"JobID": "1", "priority": "7", "correlation-id": "c", "persistent": "true"},
        ),
        (b"null", "application/json", {"persistent": "true"}),
        (b"", "text/plain; charset=utf-8", {"persistent": "true"}),
    ]


async def test_a_message_s_own_headers_are_before_those_of_the_request(context: Context) -> None:
    headers = [(b"mq-header-jobid", b"7"), (b"mq-header-site", b"x"), (b"mq-priority", b"4")]
    await _array(context, [{"body": 1, "headers": {"JobID": "1"}, "priority": 5}, {"body": 2}], headers=headers)
    found = [{k: v for k, v in message.headers.items() if k != "persistent"} for message in _queued(context)]
    assert found == [{"site": "x", "JobID": "1", "priority": "5"}, {"jobid": "7", "site": "x", "priority": "4"}]


@pytest.mark.parametrize(
    ("element", "code"),
    [
        (5, "malformed_request"),
        ({}, "malformed_request"),
        ({"body": 1, "body_text": "x"}, "malformed_request"),
        ({"body": 1, "bodi": 2}, "malformed_request"),
        ({"body_text": 1}, "malformed_request"),
        ({"body_base64": "%"}, "malformed_request"),
        ({"body_text": "\ud800"}, "malformed_request"),
        ({"body": 1, "priority": True}, "malformed_request"),
        ({"body": 1, "priority": 10}, "invalid_header"),
        ({"body": 1, "ttl_ms": 1.5}, "malformed_request"),
        ({"body": 1, "ttl_ms": 0}, "invalid_header"),
        ({"body": 1, "persistent": "true"}, "malformed_request"),
        ({"body": 1, "correlation_id": ""}, "invalid_header"),
        ({"body": 1, "id": ""}, "malformed_request"),
        ({"body": 1, "content_type": "a\nb"}, "invalid_header"),
        ({"body": 1, "headers": {"a": 1}}, "invalid_header"),
        ({"body": 1, "headers": {"CC": "x"}}, "invalid_header"),
        ({"body": 1, "headers": {"a": "x", "A": "y"}}, "invalid_header"),
        ({"body": 1, "headers": {f"h{n}": "" for n in range(65)}}, "headers_too_large"),
        ({"body": 1, "delay_ms": 5}, "not_supported_by_broker"),
        ({"body_text": "{", "content_type": "application/json"}, "invalid_json"),
    ],
    ids=str,
)
async def test_a_bad_element_spoils_only_itself(context: Context, element: Any, code: str) -> None:
    call = await _array(context, [{"body": 1}, element, {"body": 2}])
    assert (call.status, call.json["confirmed"]) == (207, 2)
    (failure,) = call.json["failures"]
    assert (failure["index"], failure["code"], failure["outcome"]) == (1, code, "not_sent")


async def test_a_failure_has_the_callers_own_name(context: Context) -> None:
    call = await _array(context, [{"body": 1, "id": "a"}, {"id": "b"}, {"id": 5}])
    assert [failure["id"] for failure in call.json["failures"]] == ["b", None]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b'[{"body":1}, {"body":', Code.INVALID_JSON), (b"", Code.INVALID_JSON), (b"{}", Code.MALFORMED_REQUEST)],
)
async def test_what_is_no_array_is_refused_as_a_whole(context: Context, body: bytes, code: Code) -> None:
    with pytest.raises(GatewayError) as caught:
        await _array(context, body)
    assert caught.value.code is code
    assert _queued(context) == []


async def test_an_array_is_under_the_cap_as_a_whole(context: Context) -> None:
    with pytest.raises(GatewayError) as caught:
        await _array(context, [{"body_base64": base64.b64encode(b"x" * 90).decode()}] * 10)
    assert caught.value.code is Code.BODY_TOO_LARGE


# All or none.


@pytest.mark.parametrize(("query", "status"), [(b"atomic=true", 200), (b"atomic=true&confirm=none", 202)])
async def test_all_of_them(context: Context, query: bytes, status: int) -> None:
    call = await _post(context, b"1\n2\n3\n", query=query)
    assert call.status == status, call.json
    outcome = "confirmed" if status == 200 else "unconfirmed"
    assert call.json["outcomes"] == {outcome: 3}
    assert [message.body for message in _queued(context)] == [b"1", b"2", b"3"]
    assert _counted(context) == {outcome: 3}
    assert context.gateway.budget.reserved == 0


async def test_or_none(context: Context) -> None:
    call = await _array(
        context, [{"body": 1}, {"id": "x"}, {"body": 1, "delay_ms": 1}, {"body": 2}], query=b"atomic=true"
    )
    assert call.status == 400
    assert (call.json["code"], call.json["outcome"]) == ("malformed_request", "not_sent")
    assert (call.json["messages"], call.json["outcomes"]) == (4, {"not_sent": 4})
    assert [(failure["index"], failure["code"]) for failure in call.json["failures"]] == [
        (1, "malformed_request"),
        (2, "not_supported_by_broker"),
    ]
    assert _queued(context) == []
    assert _counted(context) == {"not_sent": 4}


async def test_a_refusal_of_another_status_is_a_400_for_all(context: Context) -> None:
    call = await _post(context, b"1\n" + b"x" * 1001, query=b"atomic=true")
    assert (call.status, call.json["code"], call.json["failures"][0]["code"]) == (
        400,
        "malformed_request",
        "body_too_large",
    )


async def test_no_more_than_a_thousand(context: Context) -> None:
    assert (await _post(context, b"1\n" * 1000, query=b"atomic=true")).status == 200
    with pytest.raises(GatewayError, match="1000") as caught:
        await _post(context, b"1\n" * 1001, query=b"atomic=true")
    assert caught.value.code is Code.INVALID_PARAMETER
    assert len(_queued(context)) == 1000


async def test_none_at_all_is_no_transaction(context: Context) -> None:
    assert (await _post(context, b"", query=b"atomic=true")).json["messages"] == 0


async def test_without_memory_for_all_of_them_nothing_is_sent(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shrink(context, monkeypatch)
    with pytest.raises(Overloaded):
        await _post(context, b'"' + b"x" * 58 + b'"\n', b'"' + b"x" * 58 + b'"\n', query=b"atomic=true")
    assert _queued(context) == []
    assert context.gateway.budget.reserved == 0


async def test_what_becomes_of_the_transaction_becomes_of_all(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish_together(*_arguments: Any, **_options: Any) -> None:
        raise ConnectionLost("cut")

    monkeypatch.setattr(MemoryMQConnector, "publish_together", publish_together)
    call = await _post(context, b"1\n2\n", query=b"atomic=true")
    assert (call.status, call.json["code"], call.json["outcome"]) == (504, "connection_lost", "unknown")
    assert call.json["outcomes"] == {"unknown": 2}
