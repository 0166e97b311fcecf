"""A key answers again what was published once, and nothing else."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from app.config.settings import LimitSettings
from app.connectors.base import Destination
from app.domain.errors import (
    BrokerRejected,
    ConfirmTimeout,
    Draining,
    IdempotencyInProgress,
    IdempotencyMismatch,
    InvalidJson,
    Outcome,
    Overloaded,
)
from app.domain.message import Publication, Published
from app.domain.uri import MqUri
from app.gateway.idempotency import KEY_BYTES, MEMORY_PART, Once
from tests.unit.gateway.fakes import queue

BASE = Publication(body=b"x", message_id="key", headers={"a": "1"}, correlation_id="c")


class Sender:
    """Gateway.publish as the test wants it: `failures` are raised in order, `hold` keeps what is sent under way."""

    def __init__(self, *failures: BaseException, **limits: Any) -> None:
        self.sent: list[Publication] = []
        self.failures = list(failures)
        self.hold = asyncio.Event()
        self.hold.set()
        self.grown = 0
        self.once = Once(self.publish, LimitSettings(**limits), self.note)

    def note(self, size: int) -> None:
        self.grown += size

    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> Published:
        self.sent.append(publication)
        await self.hold.wait()
        if self.failures:
            raise self.failures.pop(0)
        return Published(
            message_id=publication.message_id,
            mq_uri=destination.uri,
            confirmed=confirm,
            persistent=publication.persistent,
        )

    async def put(
        self, publication: Publication = BASE, *, who: str = "me", to: Destination | None = None, confirm: bool = True
    ) -> Published:
        return await self.once.publish(who, to or queue(), publication, timeout=5, confirm=confirm)


@pytest.mark.parametrize("confirm", [True, False])
async def test_the_same_answer_comes_again_and_nothing_is_sent(confirm: bool) -> None:
    sender = Sender()
    first = await sender.put(replace(BASE, persistent=True), confirm=confirm)
    assert first == Published(message_id="key", mq_uri=queue().uri, confirmed=confirm, persistent=True)
    # What is asked about waiting is not a part of the message, nor is the trace of the attempt.
    traced = replace(BASE, persistent=True, headers={"traceparent": "00-2", "a": "1"})
    assert await sender.put(traced, confirm=True) == first
    assert len(sender.sent) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"body": b"y"},
        {"headers": {"a": "2"}},
        {"headers": {}},
        {"content_type": "text/plain"},
        {"persistent": True},
        {"ttl_ms": 1},
        {"delay_ms": 1},
        {"priority": 1},
        {"correlation_id": None},
        {"type": "t"},
        {"group": "g"},
        {"reply_to": MqUri.parse("svc::Queues::other")},
    ],
)
async def test_another_message_under_the_key_is_refused(change: dict[str, Any]) -> None:
    sender = Sender()
    await sender.put()
    with pytest.raises(IdempotencyMismatch) as caught:
        await sender.put(replace(BASE, **change))
    assert (caught.value.outcome, caught.value.retriable) == (Outcome.NOT_SENT, False)
    assert len(sender.sent) == 1


async def test_a_key_holds_for_one_principal_and_one_destination() -> None:
    sender = Sender()
    await sender.put()
    await sender.put(who="somebody else")
    await sender.put(to=queue("other"))
    await sender.put(replace(BASE, message_id="another", body=b"y"))
    assert len(sender.sent) == 4


async def test_a_repeat_of_what_is_on_its_way_is_told_so() -> None:
    sender = Sender()
    sender.hold.clear()
    task = asyncio.ensure_future(sender.put())
    await asyncio.sleep(0)
    with pytest.raises(IdempotencyInProgress) as caught:
        await sender.put()
    assert caught.value.retry_after == 1
    with pytest.raises(IdempotencyMismatch):
        await sender.put(replace(BASE, body=b"y"))
    sender.hold.set()
    assert await task == await sender.put()
    assert len(sender.sent) == 1


@pytest.mark.parametrize("failure", [Draining("no"), BrokerRejected("no"), InvalidJson("no")])
async def test_what_was_not_sent_or_refused_is_sent_again_whatever_it_is(failure: Exception) -> None:
    sender = Sender(failure)
    with pytest.raises(type(failure)):
        await sender.put()
    assert sender.once.buffered == 0
    await sender.put(replace(BASE, body=b"corrected"))
    assert [publication.message_id for publication in sender.sent] == ["key", "key"]


@pytest.mark.parametrize("failure", [ConfirmTimeout("?"), asyncio.CancelledError(), RuntimeError("a defect")])
async def test_what_is_unknown_is_sent_again_under_the_same_id_and_stays_the_same(failure: BaseException) -> None:
    sender = Sender(failure, Draining("no"))
    with pytest.raises(type(failure)):
        await sender.put()
    with pytest.raises(IdempotencyMismatch):  # it may have been delivered
        await sender.put(replace(BASE, body=b"y"))
    with pytest.raises(Draining):
        await sender.put()
    with pytest.raises(IdempotencyMismatch):  # the first attempt may have been
        await sender.put(replace(BASE, body=b"y"))
    first = await sender.put()
    assert await sender.put() == first
    assert [publication.message_id for publication in sender.sent] == ["key"] * 3


async def test_a_key_is_forgotten_after_the_window() -> None:
    sender = Sender(idempotency_window=0.01)
    await sender.put()
    await asyncio.sleep(0.02)
    await sender.put(replace(BASE, body=b"y"))
    assert len(sender.sent) == 2


async def test_the_oldest_answers_go_first() -> None:
    sender = Sender(idempotency_keys=2)
    for key in ("1", "2", "3"):
        await sender.put(replace(BASE, message_id=key))
    assert sender.once.buffered == 2 * KEY_BYTES == sender.grown
    await sender.put(replace(BASE, message_id="3"))
    await sender.put(replace(BASE, message_id="2"))
    assert len(sender.sent) == 3
    await sender.put(replace(BASE, message_id="1"))
    assert len(sender.sent) == 4


async def test_what_is_on_its_way_is_not_forgotten() -> None:
    sender = Sender(idempotency_keys=1)
    sender.hold.clear()
    task = asyncio.ensure_future(sender.put())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await sender.put(replace(BASE, message_id="2"))
    sender.hold.set()
    await task
    await sender.put(replace(BASE, message_id="2"))
    assert sender.grown == KEY_BYTES


def test_keys_take_a_part_of_the_memory_at_most() -> None:
    async def keys(**limits: Any) -> int:
        return Sender(**limits).once._keys

    assert asyncio.run(keys(memory_bytes=1 << 20)) == (1 << 20) // MEMORY_PART // KEY_BYTES
    assert asyncio.run(keys(memory_bytes=1 << 30)) == 100_000


async def test_a_key_costs_what_is_counted() -> None:
    sender = Sender()
    await sender.put()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, 2001):
            await sender.put(replace(BASE, message_id=f"{number:>250}"))
            sender.sent.clear()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert KEY_BYTES / 2 < (after - before) / 2000 < KEY_BYTES


async def test_what_is_sent_again_for_a_key_is_the_same_message_and_what_is_new_is_another() -> None:
    sender = Sender(ConfirmTimeout("?"), ConfirmTimeout("?"), ConfirmTimeout("?"), idempotency_window=1)
    for _ in range(2):
        with pytest.raises(ConfirmTimeout):
            await sender.put()
    with pytest.raises(ConfirmTimeout):
        await sender.put(who="other")
    first, again, other = (publication.duplicate_id for publication in sender.sent)
    assert first is not None
    assert first == again != other
    await sender.put(to=queue("elsewhere"))
    sender.once._ended.clear()  # the window is over
    await sender.put(replace(BASE, body=b"y"))
    assert len({publication.duplicate_id for publication in sender.sent}) == 4
    assert sender.sent[0] == replace(BASE, duplicate_id=first)
