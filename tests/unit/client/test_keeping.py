"""Keeping a lease."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.client.connection import Target
from app.client.keeping import kept
from app.client.taking import Source, Taken, Taker
from app.domain.uri import MqUri
from tests.unit.client.scripted import Answer, Scripted, problem, scripted

_URI = MqUri.parse("demo::Queues::jobs")
_LEASE = 0.4
_DONE = Answer(b'{"results":[{"lease":"l1","result":"done"}]}')
_EXPIRED = Answer(b'{"results":[{"lease":"l1","result":"expired"}]}', 207)
_ELSEWHERE = Answer(b'{"results":[{"lease":"l1","result":"elsewhere"}]}', 207)


@contextmanager
def _kept(gateway: Scripted, told: list[str]) -> Iterator[None]:
    target = Target(gateway.url)
    taken = Taken(lease="l1", message_id="m1", redelivered=False, content=b"")
    with target.open(5) as client:
        taker = Taker(target, client, Source(uri=_URI, lease_seconds=_LEASE))
        with kept(taker, taken, told.append):
            yield


def _until_seen(gateway: Scripted, number: int) -> None:
    until = time.monotonic() + 10
    while len(gateway.seen) < number:
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.1)


def test_what_is_soon_done_is_not_renewed() -> None:
    told: list[str] = []
    with scripted() as gateway, _kept(gateway, told):
        pass
    assert (gateway.seen, told) == ([], [])


def test_renewed_at_half_its_time_again_and_again() -> None:
    told: list[str] = []
    with scripted(*[_DONE] * 99) as gateway:
        began = time.monotonic()
        with _kept(gateway, told):
            _until_seen(gateway, 3)
            assert time.monotonic() - began >= 3 * _LEASE / 2
        count = len(gateway.seen)
        time.sleep(_LEASE)
        assert len(gateway.seen) == count
    assert {request.path for request in gateway.seen} == {"/mq/demo/Queues/jobs/renew"}
    assert gateway.seen[0].body == b'{"leases":["l1"]}'
    assert told == []


def test_one_that_is_over_is_told_once() -> None:
    told: list[str] = []
    with scripted(_DONE, _EXPIRED) as gateway, _kept(gateway, told):
        _until_seen(gateway, 2)
        time.sleep(_LEASE)
    assert told == ["message m1: its lease could not be renewed (expired); it comes again"]


def test_a_renewal_that_failed_is_repeated() -> None:
    told: list[str] = []
    failed = (problem(503, "draining"), _ELSEWHERE, Answer(status=0))
    with scripted(*failed, *[_DONE] * 99) as gateway, _kept(gateway, told):
        _until_seen(gateway, 5)
    assert told == []


def test_until_the_lease_is_over() -> None:
    told: list[str] = []
    with scripted(*[_ELSEWHERE] * 99) as gateway, _kept(gateway, told):
        time.sleep(3 * _LEASE)
    assert told == ["message m1: its lease could not be renewed (elsewhere); it comes again"]
    assert len(gateway.seen) < 10
