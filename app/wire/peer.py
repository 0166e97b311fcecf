"""What one replica asks another, and what it answers, as JSON: who are you, and what became of these leases?

A question without `to` asks only who is there. One that is not meant for whoever reads it is answered with no more than
that, too: a peer may have been replaced, or an address stand for several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from app.domain.errors import GatewayError, InvalidParameter
from app.domain.lease import Result, Settled, Settlement, Verb
from app.domain.uri import MqUri
from app.wire.payload import dumps, parse_json

#: Characters of the name of an instance; host names have 253 at most.
MAX_INSTANCE = 512
#: Results as a peer may say them: whether another one can be reached is for who asks it.
_RESULTS = frozenset(get_args(Result)) - {"elsewhere"}
#: Unix time of the year 10000, from which on RFC 3339 has no words.
_END_OF_TIME = 253_402_300_800


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`to` is the instance it is meant for. Without a settlement it asks who is there."""

    to: str = ""
    settlement: Settlement | None = None
    leases: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Who answers, and what became of the leases in their order; None where it was not asked that."""

    instance: str
    settled: Sequence[Settled] | None = None


def question_body(question: Question) -> bytes:
    """The question as JSON."""
    settlement = question.settlement
    if settlement is None:
        return dumps({})
    return dumps(
        {
            "to": question.to,
            "verb": settlement.verb,
            "mq_uri": str(settlement.mq_uri),
            "subscription": settlement.subscription,
            "requeue": settlement.requeue,
            "delay": settlement.delay,
            "seconds": settlement.seconds,
            "leases": list(question.leases),
        }
    )


def parse_question(body: bytes) -> Question:
    """Raises InvalidJson, or InvalidParameter for what no replica of this version asks."""
    value = parse_json(body)
    if value == {}:
        return Question()
    try:
        return _question(value)
    except (KeyError, TypeError, ValueError, AttributeError, GatewayError):
        raise InvalidParameter("this is no question that a replica of this version asks") from None


def _question(value: Any) -> Question:  # noqa: ANN401 - JSON is any value
    verb, seconds, leases = value["verb"], value["seconds"], value["leases"]
    if verb not in get_args(Verb) or not isinstance(leases, list) or not all(isinstance(one, str) for one in leases):
        raise ValueError("neither a verb nor leases")
    settlement = Settlement(
        verb=verb,
        mq_uri=MqUri.parse(value["mq_uri"]),
        subscription=_text(value["subscription"]),
        requeue=value["requeue"] is True,
        delay=_number(value["delay"]),
        seconds=None if seconds is None else _number(seconds),
    )
    return Question(to=str(value["to"]), settlement=settlement, leases=leases)


def _text(value: Any) -> str | None:  # noqa: ANN401
    if value is not None and not isinstance(value, str):
        raise ValueError("not a text")
    return value


def answer_body(answer: Answer) -> bytes:
    """The answer as JSON."""
    if answer.settled is None:
        return dumps({"instance": answer.instance})
    results = [[one.result, one.expires_at] for one in answer.settled]
    return dumps({"instance": answer.instance, "results": results})


def parse_answer(body: bytes, count: int) -> Answer:
    """The answer to a question about `count` leases; raises ValueError for what is none."""
    try:
        return _answer(parse_json(body), count)
    except (KeyError, TypeError, AttributeError, GatewayError) as error:
        raise ValueError(f"not an answer: {error}") from None


def _answer(value: Any, count: int) -> Answer:  # noqa: ANN401
    instance = value["instance"]
    if not isinstance(instance, str) or not 0 < len(instance) <= MAX_INSTANCE:
        raise ValueError("not the name of an instance")
    results = value.get("results")
    if results is None:
        return Answer(instance)
    if len(results) != count:
        raise ValueError(f"{len(results)} results for {count} leases")
    return Answer(instance, [_settled(*each) for each in results])


def _settled(result: Any, expires_at: Any) -> Settled:  # noqa: ANN401
    if result not in _RESULTS:
        raise ValueError("not a result")
    return Settled(result, None if expires_at is None else _number(expires_at))


def _number(value: Any) -> float:  # noqa: ANN401
    """A time or a duration in seconds; raises ValueError for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _END_OF_TIME:
        return float(value)
    raise ValueError("not a number of seconds")
