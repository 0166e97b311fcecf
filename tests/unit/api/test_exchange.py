"""One request and its answer."""

from __future__ import annotations

import pytest

from app.api.answer import json_answer
from app.api.exchange import SMALL_REMAINDER
from app.domain.errors import Internal, InvalidName
from tests.unit.api.asgi import Call


def _with(*pairs: tuple[bytes, bytes], method: str = "POST") -> Call:
    return Call(method=method, headers=pairs)


@pytest.mark.parametrize("given", [b"a", b"A-1._z", b"x" * 128])
def test_a_clients_id_is_kept(given: bytes) -> None:
    assert _with((b"x-request-id", given)).exchange().request_id == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\n", b"\xc3\xa9", b"<a>"])
def test_a_harmful_id_is_replaced(given: bytes) -> None:
    made = _with((b"x-request-id", given)).exchange().request_id
    assert made != given
    assert made != _with().exchange().request_id


async def test_an_answer_is_a_head_and_a_body() -> None:
    call = _with((b"x-request-id", b"r-1"))
    exchange = call.exchange()
    exchange.cors = ((b"vary", b"Origin"),)
    before = exchange.answered, exchange.complete
    await exchange.answer(json_answer({"a": 1}))
    assert (before, (exchange.answered, exchange.complete)) == ((False, False), (True, True))
    assert len(call.sent) == 2
    assert call.head == {
        "content-type": "application/json",
        "content-length": "7",
        "cache-control": "no-store",
        "x-request-id": "r-1",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
        "content-security-policy": "frame-ancestors 'none'",
        "vary": "Origin",
    }
    assert call.json == {"a": 1}
    assert exchange.access.status == 200


async def test_head_has_the_length_and_not_the_body() -> None:
    call = _with(method="HEAD")
    await call.exchange().answer(json_answer({"a": 1}))
    assert call.head["content-length"] == "7"
    assert call.body == b""


async def test_a_refusal_is_a_problem_and_the_log_knows_its_code() -> None:
    call = _with()
    exchange = call.exchange()
    await exchange.refuse(InvalidName("no"))
    assert call.status == 400
    assert call.json["instance"] == "/mq/demo/Queues/jobs"
    assert "outcome" not in call.json
    assert exchange.access.code == "invalid_name"


@pytest.mark.parametrize(("known", "told"), [("", "unknown"), ("not_sent", "not_sent")])
async def test_what_is_known_of_a_publish_outweighs_the_error(known: str, told: str) -> None:
    call = _with()
    exchange = call.exchange()
    exchange.publish = True
    exchange.access.outcome = known
    await exchange.refuse(Internal("a defect"))
    assert call.json["outcome"] == told


async def test_there_is_one_answer() -> None:
    call = _with()
    exchange = call.exchange()
    await exchange.answer(json_answer({}))
    await exchange.refuse(Internal("late"))
    assert len(call.sent) == 2


@pytest.mark.parametrize(
    ("pairs", "closes"),
    [
        ([], False),
        ([(b"content-length", b"10")], False),
        ([(b"content-length", b"%d" % SMALL_REMAINDER)], False),
        ([(b"content-length", b"%d" % (SMALL_REMAINDER + 1))], True),
        ([(b"content-length", b"-1")], True),
        ([(b"transfer-encoding", b"chunked")], True),
    ],
)
async def test_a_large_body_that_nobody_reads_ends_the_connection(
    pairs: list[tuple[bytes, bytes]], closes: bool
) -> None:
    call = _with(*pairs)
    await call.exchange().refuse(InvalidName("no"))
    assert (call.head.get("connection") == "close") is closes


async def test_a_body_that_was_read_does_not() -> None:
    call = _with((b"transfer-encoding", b"chunked"))
    exchange = call.exchange()
    exchange.body_read = True
    await exchange.refuse(InvalidName("no"))
    assert "connection" not in call.head


def test_the_seam_is_empty_on_other_servers() -> None:
    assert not Call().exchange().is_watched
    assert Call(seam={"abort": print}).exchange().is_watched
