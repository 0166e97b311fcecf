"""How much one caller may send, and how many streams may be open: nobody pays for another."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.e2e.callers import Callers, bearer
from tests.e2e.http_client import Answer, Http, Sse, ask, eventually
from tests.e2e.http_gateway import Served, serving

QUEUE = "/mq/demo/Queues/jobs"
TOPIC = "/mq/demo/Topics/events"
PLAIN = {"Content-Type": "text/plain"}
LINES = {"Content-Type": "application/x-ndjson"}
ARRAY = {"Content-Type": "application/json"}
SOURCE = {"Accept": "text/event-stream"}


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    return Callers(tmp_path)


@pytest.fixture
def alice(callers: Callers) -> dict[str, str]:
    return bearer(callers.add("alice"))


@pytest.fixture
def alice_too(callers: Callers, alice: dict[str, str]) -> dict[str, str]:
    """Another token of the same principal."""
    return bearer(callers.add("second", principal="alice"))


@pytest.fixture
def carol(callers: Callers) -> dict[str, str]:
    return bearer(callers.add("carol"))


async def _post(served: Served, body: bytes, headers: dict[str, str], path: str = QUEUE) -> Answer:
    return await ask(served.port, "POST", path, body, PLAIN | headers)


def _too_many(answer: Answer) -> float:
    """The seconds it says to wait."""
    assert (answer.status, answer.code) == (429, "rate_limited"), answer
    assert answer.json["outcome"] == "not_sent"
    assert answer.json["retriable"] is True
    seconds = int(answer.headers["retry-after"])
    assert seconds >= 1
    return float(seconds)


# Messages and bytes.


async def test_more_messages_than_in_a_second_wait_as_they_are_told(
    callers: Callers, alice: dict[str, str], alice_too: dict[str, str], carol: dict[str, str]
) -> None:
    async with serving(auth=callers.auth(), limits={"messages_per_second": 2}) as served:
        answers = [await _post(served, b"x", alice) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        wait = _too_many(answers[-1])
        _too_many(await _post(served, b"x", alice_too))
        assert (await _post(served, b"x", carol)).status == 200
        await asyncio.sleep(wait)
        assert (await _post(served, b"x", alice)).status == 200


async def test_a_body_larger_than_a_second_is_taken_and_then_it_waits(
    callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    async with serving(auth=callers.auth(), limits={"bytes_per_second": 10_000}) as served:
        assert (await _post(served, b"x" * 25_000, alice)).status == 200
        wait = _too_many(await _post(served, b"", alice))
        assert wait == 2
        assert (await _post(served, b"x", carol)).status == 200
        await asyncio.sleep(wait)
        assert (await _post(served, b"x", alice)).status == 200


async def test_nothing_is_read_before_it_is_refused(callers: Callers, alice: dict[str, str]) -> None:
    async with serving(auth=callers.auth(), limits={"messages_per_second": 0.01}) as served:
        assert (await _post(served, b"x", alice)).status == 200
        for path in (QUEUE, f"{QUEUE}/request", f"{QUEUE}/batch?atomic=true"):
            http = await Http.connect(served.port)
            kind = "application/x-ndjson" if "batch" in path else "text/plain"
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {alice['Authorization']}\r\n"
            head += f"Content-Type: {kind}\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
            answer = await http.ask_raw(head.encode())
            assert _too_many(answer) >= 99, path
        assert served.metric("mq_gateway_publishes_total", service="demo", type="Queues", outcome="not_sent") >= 2


async def test_requests_that_were_let_pass_together_do_not_all_send(callers: Callers, alice: dict[str, str]) -> None:
    """Heads first, and all the bodies at once."""
    async with serving(auth=callers.auth(), limits={"messages_per_second": 2}) as served:
        head = f"POST {QUEUE} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {alice['Authorization']}\r\n"
        head += "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nx"
        opened = [await Http.connect(served.port) for _ in range(12)]
        for http in opened:
            http.writer.write(head.encode())
        assert (await ask(served.port, "GET", "/mq", headers=alice)).status == 200
        answers = await asyncio.gather(*(http.ask_raw(b"y") for http in opened))
        assert 2 <= [answer.status for answer in answers].count(200) <= 4
        assert {answer.status for answer in answers} == {200, 429}


async def test_a_batch_is_slowed_and_not_refused(
    callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    """Longer than a connection may be idle, which it is not: it waits for us."""
    async with serving(auth=callers.auth(), limits={"messages_per_second": 10}, idle_timeout=1) as served:
        began = time.monotonic()
        slowed = asyncio.create_task(ask(served.port, "POST", f"{QUEUE}/batch", b'{"a":1}\n' * 30, LINES | alice))
        array = json.dumps([{"body": 1}] * 3).encode()
        others = await ask(served.port, "POST", f"{QUEUE}/batch", array, ARRAY | carol)
        assert (others.status, others.json["confirmed"]) == (200, 3)
        assert time.monotonic() - began < 1.5
        answer = await slowed
        assert (answer.status, answer.json["confirmed"]) == (200, 30)
        assert 1.8 <= time.monotonic() - began < 6


async def test_all_or_none_are_sent_at_once_and_paid_for_afterwards(callers: Callers, alice: dict[str, str]) -> None:
    async with serving(auth=callers.auth(), limits={"messages_per_second": 10}) as served:
        target = f"{QUEUE}/batch?atomic=true"
        answer = await ask(served.port, "POST", target, b'{"a":1}\n' * 50, LINES | alice)
        assert (answer.status, answer.json["confirmed"]) == (200, 50)
        again = await ask(served.port, "POST", target, b'{"a":1}\n', LINES | alice)
        assert 3 <= _too_many(again) <= 5
        assert served.metric("mq_gateway_publishes_total", service="demo", type="Queues", outcome="confirmed") == 50


async def test_whoever_is_unknown_is_counted_by_address(callers: Callers, alice: dict[str, str]) -> None:
    rules = [{"principals": ["anonymous", "alice", "address 127.0.0.1"], "allow": ["publish"], "uris": ["demo::*"]}]
    look_alike = bearer(callers.add("look-alike", principal="address 127.0.0.1"))
    async with serving(auth=callers.auth(policy=rules), limits={"messages_per_second": 0.01}) as served:
        assert (await _post(served, b"x", {})).status == 200
        _too_many(await _post(served, b"x", {}))
        assert (await _post(served, b"x", alice)).status == 200
        assert (await _post(served, b"x", look_alike)).status == 200


async def test_where_nobody_is_asked_an_address_is_somebody() -> None:
    async with serving(limits={"messages_per_second": 0.01}) as served:
        assert (await _post(served, b"x", {})).status == 200
        _too_many(await _post(served, b"x", {}))


# Streams.


async def _open(served: Served, headers: dict[str, str], target: str = f"{TOPIC}/events") -> Sse:
    return await Sse.open(served.port, target, headers)


async def _streams(served: Served, number: int) -> None:
    async def fits() -> bool:
        found: int = served.app.state.context.streams
        return found == number

    await eventually(fits, f"{number} streams")


@pytest.mark.parametrize(
    ("limit", "is_shared"),
    [("streams_per_principal", False), ("streams_per_address", True), ("streams", True)],
)
async def test_no_more_streams_than_there_are_places(
    callers: Callers,
    alice: dict[str, str],
    alice_too: dict[str, str],
    carol: dict[str, str],
    limit: str,
    is_shared: bool,
) -> None:
    async with serving(auth=callers.auth(), limits={limit: 2}) as served:
        first, second = await _open(served, alice), await _open(served, alice_too, "/events?uri=demo::Topics::small")
        for target in (f"{TOPIC}/events", f"{QUEUE}/events", "/events?uri=demo::Topics::events"):
            full = await ask(served.port, "GET", target, headers=alice)
            assert (full.status, full.code) == (429, "too_many_streams")
            assert int(full.headers["retry-after"]) >= 1
            told = await Sse.open(served.port, target, alice | SOURCE)
            event = await told.next()
            assert (event.name, event.json["code"]) == ("unavailable", "too_many_streams")
            assert told.parser.retry == event.json["retry_ms"]
            assert await told.rest() == []
        assert (await ask(served.port, "HEAD", f"{TOPIC}/events", headers=alice)).status == 200
        other = await ask(served.port, "GET", f"{TOPIC}/events", headers=carol) if is_shared else None
        assert other is None or other.status == 429
        others = None if is_shared else await _open(served, carol)
        # Places come back, in whatever way a client goes.
        first.reset()
        await _streams(served, 1 if is_shared else 2)
        again = await _open(served, alice)
        second.close()
        again.close()
        await _streams(served, 0 if is_shared else 1)
        if others is not None:
            others.reset()
        await _streams(served, 0)
        context = served.app.state.context
        assert not context.streams_of_principals.taken
        assert not context.streams_of_addresses.taken


async def test_a_reader_that_vanishes_without_a_word_gives_its_place_back(
    callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    """It takes nothing, and says nothing: what is sent to it shows that it has gone."""
    async with serving(auth=callers.auth(), limits={"streams_per_principal": 1}, write_timeout=0.5) as served:
        await Sse.open(served.port, f"{TOPIC}/events", alice, receive_buffer=4096)
        assert (await ask(served.port, "GET", f"{TOPIC}/events", headers=alice)).status == 429
        for _ in range(80):
            await _post(served, b"x" * 65536, carol, TOPIC)
        await _streams(served, 0)
        await _open(served, alice)


async def test_refused_streams_take_no_place(callers: Callers, alice: dict[str, str]) -> None:
    async with serving(auth=callers.auth(), limits={"streams_per_principal": 1}) as served:
        for target in (f"{TOPIC}/events?from=never", "/mq/demo/Topics/nowhere/events", "/events"):
            for _ in range(3):
                assert (await ask(served.port, "GET", target, headers=alice)).status in (400, 404)
        await _open(served, alice)
