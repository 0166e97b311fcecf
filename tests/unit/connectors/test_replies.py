"""The table of requests that wait for a reply."""

from __future__ import annotations

import asyncio

import pytest

from app.connectors.replies import OWN_ID, Replies
from app.domain.errors import ConnectionLost, Overloaded
from app.domain.message import Message, Publication
from app.domain.uri import MqUri

URI = MqUri.parse("svc::Queues::jobs")


def _message(body: bytes) -> Message:
    return Message(
        mq_uri=URI, message_id="r", body=body, content_type=None, headers={}, redelivered=False, received_at=0.0
    )


async def test_a_reply_finds_its_request_by_an_id_nobody_guesses() -> None:
    told: list[str] = []
    replies = Replies("svc", 2, told.append)
    with replies.expect(URI) as one, replies.expect(URI) as two:
        assert one.correlation_id != two.correlation_id
        assert len(one.correlation_id) == 22
        assert replies.take(two.correlation_id) is two
        two.reply.set_result(_message(b"2"))
        assert (await two.reply).body == b"2"
        assert replies.take(two.correlation_id) is None
        assert replies.take("guess") is None
        assert len(replies) == 1
    assert replies.take(one.correlation_id) is None
    assert told == ["late_reply"] * 3
    assert len(replies) == 0


async def test_the_window_is_a_bound() -> None:
    replies = Replies("svc", 1, lambda _event: None)
    with replies.expect(URI), pytest.raises(Overloaded, match="1 requests to svc"), replies.expect(URI):
        pass
    with replies.expect(URI):
        pass


async def test_the_end_of_a_queue_ends_only_what_waits_there() -> None:
    replies = Replies("svc", 9, lambda _event: None)
    owner = object()
    with replies.expect(URI) as here, replies.expect(URI) as there:
        here.owner = owner
        replies.fail(owner, lambda: ConnectionLost("gone"))
        replies.fail(owner, lambda: ConnectionLost("gone twice"))
        with pytest.raises(ConnectionLost, match=r"gone$"):
            await here.reply
        assert not there.reply.done()


async def test_a_reply_to_who_has_just_left_is_late() -> None:
    told: list[str] = []
    replies = Replies("svc", 9, told.append)
    with replies.expect(URI) as awaited:
        awaited.reply.cancel()
        assert replies.take(awaited.correlation_id) is None
    assert told == ["late_reply"]
    await asyncio.sleep(0)


async def test_the_callers_own_id_travels_beside_ours() -> None:
    replies = Replies("svc", 9, lambda _event: None)
    with replies.expect(URI) as awaited:
        own = awaited.asked(Publication(body=b"", message_id="m", headers={"a": "1"}, correlation_id="mine"))
        assert own.headers == {"a": "1", OWN_ID: "mine"}
        assert own.correlation_id == awaited.correlation_id
        none = awaited.asked(Publication(body=b"", message_id="m"))
        assert none.headers == {}
