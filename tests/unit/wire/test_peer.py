"""What replicas ask and answer, as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidJson, InvalidParameter
from app.domain.lease import Settled, Settlement
from app.domain.uri import MqUri
from app.wire.peer import Answer, Question, answer_body, parse_answer, parse_question, question_body

JOBS = MqUri.parse("mq::Queues::a/b ü")
SETTLEMENTS = [
    Settlement(verb="ack", mq_uri=JOBS),
    Settlement(verb="nack", mq_uri=JOBS, requeue=False, delay=0.5),
    Settlement(verb="renew", mq_uri=JOBS, subscription="archiver", seconds=30),
]


@pytest.mark.parametrize("settlement", SETTLEMENTS, ids=lambda one: one.verb)
def test_a_question_is_read_as_it_was_asked(settlement: Settlement) -> None:
    question = Question(to="host-1-ab", settlement=settlement, leases=["x.y", "z"])
    assert parse_question(question_body(question)) == question


def test_who_is_there() -> None:
    assert parse_question(question_body(Question())) == Question()
    assert parse_answer(answer_body(Answer("here")), 0) == Answer("here")


def changed(**members: Any) -> bytes:
    question = json.loads(question_body(Question(to="x", settlement=SETTLEMENTS[2], leases=["l"])))
    return json.dumps({**question, **members}).encode()


def each(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


UNASKED = [
    *each("verb", "publish", None, [], {}),
    *each("mq_uri", "no uri", None, 5, "a::Queues::*"),
    *each("subscription", 5, [], True),
    *each("leases", "abc", None, [5], {"a": 1}),
    *each("delay", "1", None, -1, True, 1e300, 10**400),
    *each("seconds", "1", -1, True, []),
]


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b"5", b'"x"', b'{"to":"x"}', *(changed(**members) for members in UNASKED)],
    ids=lambda body: body.decode()[:60],
)
def test_what_no_replica_asks(body: bytes) -> None:
    with pytest.raises(InvalidParameter):
        parse_question(body)


def test_what_is_no_json() -> None:
    with pytest.raises(InvalidJson):
        parse_question(b"{")


def test_an_answer_is_read_as_it_was_given() -> None:
    answer = Answer("there", [Settled("done", 1764295200.25), Settled("expired"), Settled("unknown")])
    assert parse_answer(answer_body(answer), 3) == answer


SETTLED: list[Any] = [5, "done", [], ["done"], ["done", None, 1], [[], None]]
NO_TIMES: list[Any] = ["soon", -1, 1e300, 10**400, True, [], {}]
NO_RESULTS: list[Any] = ["elsewhere", "fine", None, 1, {}]
SETTLED += [["done", at] for at in NO_TIMES] + [[word, None] for word in NO_RESULTS]
NO_ANSWERS: list[Any] = [[], None, 5, "x", {}, {"instance": 5}, {"instance": ""}, {"instance": "x" * 1000}]
NO_ANSWERS += [{"instance": "x", "results": results} for results in ([], [["done", None]] * 2, 5, "x", {"a": 1})]
NO_ANSWERS += [{"instance": "x", "results": [one]} for one in SETTLED]


@pytest.mark.parametrize("value", NO_ANSWERS, ids=lambda value: json.dumps(value)[:60])
def test_what_is_no_answer(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_answer(json.dumps(value).encode(), 1)


@given(st.binary(max_size=100), st.integers(0, 3))
def test_nonsense_is_no_answer(body: bytes, count: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_answer(body, count)
