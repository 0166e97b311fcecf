"""Every request passes here, and every answer has been here."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.context import Context
from app.api.front import EXCHANGE, Front, Refusal
from app.domain.errors import InvalidName
from tests.unit.api.asgi import GONE, Call, piece

ORIGIN = "https://dash.example"
EVIL = (b"origin", b"https://evil.example")
LOCAL = (b"host", b"127.0.0.1")


class Pages:
    """Stands for FastAPI's stack: answers with its path, or does what the test says."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.failure: Exception | None = None
        self.late = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            return
        if self.failure is not None and not self.late:
            raise self.failure
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        if self.failure is not None:
            raise self.failure
        await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def front(context: Context, pages: Pages) -> Front:
    return Front(pages, context)


async def _ask(front: Front, call: Call) -> Call:
    await front(call.scope, call.receive, call.send)
    return call


def _get(path: str, *headers: tuple[bytes, bytes], method: str = "GET", host: bytes = b"127.0.0.1") -> Call:
    path, _, query = path.partition("?")
    return Call(method=method, path=path, query=query.encode(), headers=[(b"host", host), *headers])


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/mq", 200, None),
        ("HEAD", "/mq", 200, None),
        ("GET", "/mq/demo", 200, None),
        ("GET", "/mq/demo/Queues/jobs", 200, None),
        ("POST", "/mq/demo/Queues/jobs", 200, None),
        ("HEAD", "/mq/demo/Queues/jobs/events", 200, None),
        ("HEAD", "/events?uri=demo::Queues::jobs", 200, None),
        ("GET", "/events", 400, None),
        ("POST", "/events", 405, "GET, HEAD"),
        ("POST", "/mq/demo/Queues/jobs/receive", 204, None),
        ("POST", "/mq/demo/Queues/jobs/ack", 400, None),
        ("POST", "/mq/demo/Queues/jobs/nack", 400, None),
        ("POST", "/mq/demo/Queues/jobs/renew", 400, None),
        ("POST", "/mq/demo/Topics/events/receive", 405, ""),
        ("GET", "/mq/demo/Queues/jobs/receive", 405, "POST"),
        ("GET", "/mq/demo/Queues/jobs/ack", 405, "POST"),
        ("POST", "/mq", 405, "GET, HEAD"),
        ("DELETE", "/mq/demo", 405, "GET, HEAD"),
        ("PUT", "/mq/demo/Queues/jobs", 405, "GET, HEAD, POST"),
        ("OPTIONS", "/mq/demo/Queues/jobs", 405, "GET, HEAD, POST"),
        ("POST", "/mq/demo/Queues/jobs/events", 405, "GET, HEAD"),
        ("GET", "/mq/demo/Queues/jobs/request", 405, "POST"),
        ("BREW", "/mq/demo/Queues/jobs", 405, "GET, HEAD, POST"),
        ("GET", "/mq/", 404, None),
        ("POST", "/mq/demo/Queues/jobs/batch", 400, None),
        ("GET", "/mq/demo/Queues/jobs/batch", 405, "POST"),
        ("POST", "/mq/demo/Queues/jobs/batch/more", 404, None),
        ("GET", "/mq/demo/Queues/a%00", 400, None),
        ("POST", "/mq/peer/leases", 404, None),
    ],
)
async def test_path_and_method_decide(front: Front, method: str, path: str, status: int, allow: str | None) -> None:
    call = await _ask(front, _get(path, method=method))
    assert call.status == status
    assert call.head.get("allow") == allow
    assert "x-request-id" in call.head
    if status >= 400:
        assert call.head["content-type"] == "application/problem+json"
        assert call.json["instance"] == path


async def test_pages_are_asked_by_one_spelling(front: Front, pages: Pages) -> None:
    call = await _ask(front, _get("/health/%6Cive"))
    assert call.body == b"/health/live"
    assert pages.scopes[0]["path"] == "/health/live"
    assert pages.scopes[0]["raw_path"] == b"/health/live"
    assert call.head["x-content-type-options"] == "nosniff"


async def test_head_of_a_page_is_a_get_without_a_body(front: Front, pages: Pages) -> None:
    call = await _ask(front, _get("/", method="HEAD"))
    assert pages.scopes[0]["method"] == "GET"
    assert call.status == 200
    assert call.body == b""


async def test_the_proxys_prefix_is_taken_off(context: Context, pages: Pages) -> None:
    server = context.settings.server.model_copy(update={"root_path": "/gw"})
    context.settings = context.settings.model_copy(update={"server": server})
    front = Front(pages, context)
    assert (await _ask(front, _get("/gw/health/live"))).body == b"/health/live"
    assert (await _ask(front, _get("/health/live"))).body == b"/health/live"
    assert (await _ask(front, _get("/gw/mq/demo"))).status == 200


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        (_get("/mq", host=b"evil.example"), None),
        (_get("/", host=b"evil.example"), None),
        (_get("/mq/demo/Queues/jobs", EVIL, method="POST"), "not_sent"),
        (_get("/mq/demo/Queues/jobs/events", EVIL), None),
        (_get("/mq/demo/Queues/jobs/events", (b"sec-fetch-mode", b"navigate")), None),
        (_get("/mq/demo/Queues/jobs/events", (b"purpose", b"prefetch")), None),
        (_get("/events?uri=demo::Topics::events&uri=demo::Queues::jobs", EVIL), None),
        (_get("/events?uri=demo::Queues::jobs", (b"purpose", b"prefetch")), None),
        (_get("/mq", EVIL, (b"access-control-request-method", b"POST"), method="OPTIONS"), None),
        (_get("/nowhere", EVIL, method="DELETE"), None),
    ],
)
async def test_who_may_not_is_told_so(front: Front, call: Call, outcome: str | None) -> None:
    await _ask(front, call)
    assert call.status == 403
    assert call.json["code"] == "forbidden"
    assert call.json.get("outcome") == outcome
    assert "access-control-allow-origin" not in call.head


async def test_a_foreign_page_may_look_and_read_topics(front: Front) -> None:
    assert (await _ask(front, _get("/mq", EVIL))).status == 200
    assert (await _ask(front, _get("/mq/demo/Topics/events/events", EVIL, method="HEAD"))).status == 200
    assert (await _ask(front, _get("/events?uri=demo::Topics::events", EVIL, method="HEAD"))).status == 200


async def test_a_listed_origin_gets_its_headers_everywhere(front: Front) -> None:
    origin = (b"origin", ORIGIN.encode())
    for call in (_get("/mq", origin), _get("/", origin), _get("/mq/", origin), _get("/mq/demo/Queues/a*", origin)):
        await _ask(front, call)
        assert call.head["access-control-allow-origin"] == ORIGIN
        assert call.head["vary"] == "Origin"


async def test_a_preflight_is_answered_for_every_path(front: Front) -> None:
    headers = [
        (b"origin", ORIGIN.encode()),
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"mq-ttl-ms"),
    ]
    call = await _ask(front, _get("/mq/demo/Queues/jobs", *headers, method="OPTIONS"))
    assert call.status == 204
    assert call.head["access-control-allow-headers"] == "mq-ttl-ms"
    assert [name for name, _ in call.sent[0]["headers"]].count(b"vary") == 1
    assert call.body == b""


@pytest.mark.parametrize("path", ["/mq/demo/Queues/a%2A", "/mq/nope/Queues/jobs", "/mq/demo/Queues"])
async def test_a_publish_to_nowhere_is_counted_and_says_what_became_of_it(
    front: Front, context: Context, path: str
) -> None:
    call = await _ask(front, _get(path, method="POST"))
    assert call.json["outcome"] == "not_sent"
    families = {family.name: family for family in context.metrics.registry.collect()}
    samples = families["mq_gateway_publishes"].samples
    assert sum(sample.value for sample in samples) == 1


@pytest.mark.parametrize(("late", "status"), [(False, 500), (True, 200)])
async def test_a_defect_is_logged_and_never_shown(
    front: Front, pages: Pages, caplog: pytest.LogCaptureFixture, late: bool, status: int
) -> None:
    pages.failure, pages.late = LookupError("a secret"), late
    call = _get("/", (b"x-request-id", b"r-77"))
    if late:
        # Half an answer cannot be taken back: the server has to cut the connection.
        with pytest.raises(LookupError):
            await _ask(front, call)
    else:
        await _ask(front, call)
        assert call.json["code"] == "internal"
        assert call.json["request_id"] == "r-77"
    assert call.status == status
    assert b"secret" not in call.body
    assert "request r-77 failed" in caplog.text
    assert "a secret" in caplog.text


async def test_a_defect_after_the_answer_is_only_logged(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    async def answers_then_fails(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        raise LookupError

    call = await _ask(Front(answers_then_fails, context), _get("/"))
    assert call.body == b"done"
    assert "failed" in caplog.text


async def test_a_client_that_left_is_not_answered(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    call = _get("/mq/demo/Queues/jobs", method="POST")
    call.receives = [piece(b"ha", more=True), GONE]
    with caplog.at_level(logging.INFO, "mq_gateway.access"):
        await _ask(front, call)
    assert not call.sent
    (line,) = [record for record in caplog.records if record.name == "mq_gateway.access"]
    fields: dict[str, Any] = line.__dict__["fields"]
    assert (fields["status"], fields["reason"], fields["outcome"]) == (0, "client", "not_sent")


async def test_every_request_has_one_line(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mq_gateway.access"):
        await _ask(front, _get("/mq/demo/Queues/jobs?no", (b"x-request-id", b"r-1"), method="POST"))
        await _ask(front, _get("/mq/demo/Queues/jobs", (b"x-request-id", b"r-2"), method="POST"))
        await _ask(front, _get("/", (b"x-request-id", b"r-3"), host=b"evil.example"))
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == "mq_gateway.access"]
    assert [(line["request_id"], line["status"]) for line in lines] == [("r-1", 400), ("r-2", 200), ("r-3", 403)]
    assert {"mq_uri", "message_id", "outcome", "principal"} <= lines[1].keys()
    assert lines[2]["code"] == "forbidden"


async def test_lifespan_goes_on_and_websockets_do_not(front: Front, pages: Pages) -> None:
    call = Call()
    await front({"type": "lifespan"}, call.receive, call.send)
    assert pages.scopes[0]["type"] == "lifespan"
    closed: list[Message] = []

    async def send(message: Message) -> None:
        closed.append(message)

    await front({"type": "websocket"}, call.receive, send)
    assert closed == [{"type": "websocket.close", "code": 1008}]


async def test_a_refusal_of_fastapi_is_rendered_as_everywhere() -> None:
    call = Call()
    await Refusal(InvalidName("no"))({EXCHANGE: call.exchange()}, call.receive, call.send)
    assert call.json["code"] == "invalid_name"
