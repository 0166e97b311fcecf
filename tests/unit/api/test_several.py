"""What GET /events names, and all that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from app.api.several import parse
from app.config.settings import QueueSettings, Settings, TopicSettings
from app.connectors.base import Destination
from app.domain.errors import Forbidden, GatewayError, InvalidName, InvalidParameter, UnknownDestination
from app.domain.uri import MqUri
from app.gateway.joint_opening import Wanted
from app.gateway.stream import StreamLease, StreamRequest
from tests.unit.api.asgi import Call

A, B, JOBS = "demo::Topics::a", "demo::Topics::b", "demo::Queues::jobs"


def _resolve(uri: MqUri) -> Destination:
    if uri.name == "unknown":
        raise UnknownDestination(f"{uri} is not declared")
    return Destination(uri, QueueSettings() if uri.is_queue else TopicSettings())


def _named(*uris: str, more: str = "") -> bytes:
    return ("&".join([*(f"uri={quote(uri, safe='')}" for uri in uris), more])).strip("&").encode()


def _parse(
    query: bytes, check: Callable[[MqUri], None] = lambda _uri: None, limit: int = 32, **headers: bytes
) -> list[Wanted]:
    settings = Settings.model_validate({"limits": {"uris_per_stream": limit}, "server": {"root_path": "/gw"}})
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return parse(Call(method="GET", query=query, headers=pairs).exchange(), settings, check, _resolve)


def _refused(query: bytes, **options: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        _parse(query, **options)
    return caught.value


def test_envelopes_and_whatever_else_is_said() -> None:
    assert [(str(each.uri), each.number, each.request) for each in _parse(_named(B, A))] == [
        (B, 0, StreamRequest(format="envelope")),
        (A, 1, StreamRequest(format="envelope")),
    ]
    query = _named(A, JOBS, more="format=data&slow=latest&from=earliest&last_event_id=q&status=true&ack=auto")
    expected = StreamRequest(format="data", slow="latest", start="earliest", last_event_id="h", status=True)
    assert [each.request for each in _parse(query, last_event_id=b"h")] == [expected, expected]


def test_one_is_a_stream_too() -> None:
    assert len(_parse(_named(A))) == 1


def test_whoever_is_named_again_is_there_once() -> None:
    found = _parse(_named(A, B, A, "demo::topic::b", "demo::TOPICS::a"))
    assert [(str(each.uri), each.number) for each in found] == [(A, 0), (B, 1)]


def test_names_are_decoded_once() -> None:
    (found,) = _parse(b"uri=demo%3A%3ATopics%3A%3Aa%252F%26b%2Fc+d")
    assert found.uri.name == "a%2F&b/c d"


def test_explicit_acks_say_whose_they_are() -> None:
    first, second = _parse(_named(JOBS, "demo::Queues::a/b", more="ack=explicit&lease=60"))
    assert first.request.lease == StreamLease("/gw/mq/demo/Queues/jobs/ack", 60, JOBS)
    assert second.request.lease == StreamLease("/gw/mq/demo/Queues/a%2Fb/ack", 60, "demo::Queues::a/b")


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"format=data",
        _named(A, more="format=xml"),
        _named(A, more="from=then"),
        _named(A, more="topic=x"),
        _named(A, more="from=now&from=now"),
        _named(A, more="lease=30"),
        _named(JOBS, A, more="ack=explicit"),
        _named(JOBS, more="ack=explicit&lease=0"),
        b"uri=demo::Topics::%zz",
        b"uri=%ff",
    ],
)
def test_what_is_wrong_is_refused(query: bytes) -> None:
    assert isinstance(_refused(query), InvalidParameter)


def test_there_are_so_many_and_no_more() -> None:
    uris = [f"demo::Topics::{number}" for number in range(4)]
    assert len(_parse(_named(*uris[:3], uris[0], uris[1]), limit=3)) == 3
    assert "1 to 3 destinations, and here 4" in str(_refused(_named(*uris), limit=3))
    assert "1 to 32 destinations, and here 33" in str(_refused(_named(*map(str, range(33)))))


def test_all_that_is_wrong_with_them_is_told_at_once() -> None:
    error = _refused(_named(A, "demo::Topics::unknown", "nonsense", "demo::Topics::a*", "demo::Sorts::a", B))
    assert isinstance(error, InvalidName)
    assert [field.where for field in error.errors] == ["uri[1]", "uri[2]", "uri[3]", "uri[4]"]
    assert all(text in str(error.errors) for text in ("nonsense", "demo::Topics::a*", "demo::Sorts::a", "unknown"))
    error = _refused(_named(A, "demo::Topics::unknown", "demo::Queues::unknown"))
    assert isinstance(error, UnknownDestination)
    assert [field.where for field in error.errors] == ["uri[1]", "uri[2]"]


def test_who_may_not_read_one_learns_nothing_of_the_others() -> None:
    def check(uri: MqUri) -> None:
        if uri.is_queue:
            raise Forbidden("not from there")

    error = _refused(_named("demo::Topics::unknown", "nonsense", JOBS), check=check)
    assert isinstance(error, Forbidden)
    assert (str(error), error.errors) == ("not from there", ())
