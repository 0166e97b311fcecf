"""Following the events of a destination, across lost connections."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import pytest

from app.client import events
from app.client.connection import ClientError, Target
from app.client.following import Follower, Following
from app.domain.uri import MqUri
from tests.unit.client.scripted import Answer, Scripted, problem, scripted

_URI = MqUri.parse("demo::Topics::events")


class _Watched:
    """A follower with its notices and pauses kept."""

    def __init__(self, gateway: Scripted, *uris: MqUri, **options: str) -> None:
        self.notices: list[str] = []
        self.pauses: list[float] = []
        following = Following(uris=uris or [_URI], **options)
        self.follower = Follower(Target(gateway.url), following, self.notices.append, self.pauses.append)

    def take(self, count: int) -> list[tuple[str, str]]:
        with closing(self.follower.events()) as stream:
            return [(event.id, event.data) for event in islice(stream, count)]


def test_asks_for_what_it_is_told() -> None:
    with scripted(Answer(b"data: a\n\n")) as gateway:
        watched = _Watched(gateway, format="envelope", start="earliest", last_event_id="e.3")
        assert watched.take(1) == [("e.3", "a")]
    request = gateway.seen[0]
    assert request.path == "/mq/demo/Topics/events/events?format=envelope&from=earliest"
    assert request.headers["last-event-id"] == "e.3"
    assert request.headers["accept"] == "text/event-stream, application/problem+json"


def test_several_come_on_one_stream() -> None:
    other = MqUri.parse("demo::Queues::a/b")
    with scripted(Answer(b"id: v.x\ndata: a\n\n"), Answer(b"data: b\n\n")) as gateway:
        watched = _Watched(gateway, _URI, other, format="envelope")
        assert watched.take(2) == [("v.x", "a"), ("v.x", "b")]
    expected = "/events?uri=demo%3A%3ATopics%3A%3Aevents&uri=demo%3A%3AQueues%3A%3Aa%2Fb&format=envelope"
    assert [request.path for request in gateway.seen] == [expected, expected]
    assert gateway.seen[1].headers["last-event-id"] == "v.x"


def test_without_a_position_none_is_sent() -> None:
    with scripted(Answer(b"data: a\n\n")) as gateway:
        assert _Watched(gateway).take(1) == [("", "a")]
    assert "last-event-id" not in gateway.seen[0].headers
    assert gateway.seen[0].path.endswith("/events/events")


def test_goes_on_where_it_was_after_an_end_and_after_a_break() -> None:
    answers = (
        Answer(b"retry: 1500\nid: e.1\ndata: a\n\nid: e.9\ndata: half"),
        Answer(b"id: e.2\ndata: b\n\n", cut=True),
        Answer(status=0),
        Answer(b"id: e.3\ndata: c\n\n"),
    )
    with scripted(*answers) as gateway:
        watched = _Watched(gateway)
        assert watched.take(3) == [("e.1", "a"), ("e.2", "b"), ("e.3", "c")]
    assert [request.headers.get("last-event-id") for request in gateway.seen] == [None, "e.1", "e.2", "e.2"]
    assert watched.pauses == [1.5, 1.5, 1.5]
    assert watched.notices[0] == "the gateway ended the stream; coming back"
    assert watched.notices[1].endswith("; trying again")


def test_waits_as_long_as_it_is_told_within_reason() -> None:
    answers = (
        Answer(b"data: a\n\n"),
        problem(503, "draining", {"Retry-After": "7"}),
        problem(503, "draining", {"Retry-After": "9999"}),
        Answer(b"data: b\n\n"),
    )
    with scripted(*answers) as gateway:
        watched = _Watched(gateway)
        assert [data for _, data in watched.take(2)] == ["a", "b"]
    assert watched.pauses == [3.0, 7.0, 60.0]
    assert watched.notices[1] == "503 draining: why; trying again"


@pytest.mark.parametrize("answer", [problem(404, "unknown_destination"), problem(503, "draining"), Answer(status=0)])
def test_the_first_attempt_must_succeed(answer: Answer) -> None:
    with scripted(answer) as gateway:
        watched = _Watched(gateway)
        with pytest.raises(ClientError):
            watched.take(1)
    assert watched.pauses == []


def test_a_later_refusal_that_no_repeat_helps_ends_it() -> None:
    with scripted(Answer(b"data: a\n\n"), problem(404, "unknown_destination")) as gateway:
        watched = _Watched(gateway)
        with pytest.raises(ClientError, match="404 unknown_destination"):
            watched.take(2)


def test_an_endless_event_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 10)
    with (
        scripted(Answer(b"data: 0123456789abcdef\n\n")) as gateway,
        pytest.raises(ClientError, match="more than 10 bytes"),
    ):
        _Watched(gateway).take(1)
