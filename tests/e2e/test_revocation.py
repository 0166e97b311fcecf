"""What a token or the policy allowed ends with it: how soon, and what becomes of the messages."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest

from tests.e2e.callers import POLICY, REVOKED_WITHIN, Callers, bearer
from tests.e2e.http_client import Answer, Http, Sse, ask, eventually
from tests.e2e.http_gateway import DEMO, Served, serving
from tests.e2e.live_gateway import LiveGateway, running, write_config

TOPIC = "/mq/demo/Topics/events"
QUEUE = "/mq/demo/Queues/jobs"
JOINT = "/events?uri=demo::Topics::events&uri=demo::Topics::small"
RELOADED = "mq_gateway_config_reload_success"
PLAIN = {"Content-Type": "text/plain"}
#: Bytes of a message for a reader that is to stall, and how many of them.
LARGE, MANY = 64 << 10, 40


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    return Callers(tmp_path)


@pytest.fixture
def alice(callers: Callers) -> dict[str, str]:
    return bearer(callers.add("alice"))


@pytest.fixture
def carol(callers: Callers) -> dict[str, str]:
    """Who may the same, and is never revoked."""
    return bearer(callers.add("carol"))


@pytest.fixture
async def served(callers: Callers, alice: dict[str, str], carol: dict[str, str]) -> AsyncIterator[Served]:
    async with serving(auth=callers.auth()) as gateway:
        yield gateway


async def _publish(port: int, path: str, body: bytes, headers: dict[str, str]) -> None:
    answer = await ask(port, "POST", path, body, PLAIN | headers)
    assert answer.status == 200, answer


async def _receive(port: int, headers: dict[str, str], most: int, wait: float = 0) -> list[str]:
    answer = await ask(port, "POST", f"{QUEUE}/receive?max={most}&wait={wait}&ack=auto", b"", headers)
    return [message["body"] for message in answer.json["messages"]] if answer.status == 200 else []


async def _none_open(served: Served) -> None:
    async def none() -> bool:
        return not served.app.state.context.streams

    await eventually(none, "the end of every stream", REVOKED_WITHIN)


class Timed:
    """How long the block took, against what a revocation may take."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        took = time.monotonic() - self._began
        assert kind is not None or took < REVOKED_WITHIN, took


# A token is revoked.


async def test_streams_and_long_polls_end_and_nobody_elses(
    served: Served, callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    port = served.port
    targets = [f"{TOPIC}/events", f"{QUEUE}/events", f"{QUEUE}/events?ack=explicit", JOINT]
    mine = [await Sse.open(port, target, alice) for target in targets]
    others = await Sse.open(port, f"{TOPIC}/events", carol)
    polling = asyncio.create_task(ask(port, "POST", f"{QUEUE}/receive?wait=20", b"", alice))
    other_polling = asyncio.create_task(ask(port, "POST", "/mq/demo/Queues/a%2Fb/receive?wait=20", b"", carol))
    with Timed():
        callers.revoke("alice")
        endings = await asyncio.gather(*(stream.rest(REVOKED_WITHIN) for stream in mine))
        polled = await polling
    assert [event.name for events in endings for event in events] == ["lease"]
    assert all(stream.parser.retry for stream in mine)
    assert (polled.status, polled.code) == (401, "unauthenticated")
    await _publish(port, TOPIC, b"news", carol)
    assert (await others.next()).data == "news"
    await _publish(port, "/mq/demo/Queues/a%2Fb", b"job", carol)
    assert (await other_polling).json["messages"][0]["body"] == "job"
    for target in targets:
        assert (await ask(port, "GET", target, headers=alice)).status == 401
    assert served.metric("mq_gateway_streams_closed_total", reason="revoked") == len(targets)
    # Nothing that has ended takes from the queue.
    await _publish(port, QUEUE, b"mine", carol)
    assert await _receive(port, carol, 1, wait=2) == ["mine"]


async def test_what_was_leased_goes_back(
    served: Served, callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    port = served.port
    for number in range(5):
        await _publish(port, QUEUE, b"%d" % number, carol)
    stream = await Sse.open(port, f"{QUEUE}/events?ack=explicit&lease=300", alice)
    await stream.take(6)
    assert await _receive(port, carol, 5) == []
    with Timed():
        callers.revoke("alice")
        await stream.rest(REVOKED_WITHIN)
        back: list[str] = []
        while len(back) < 5:
            back += await _receive(port, carol, 5, wait=1)
    assert sorted(back) == [f"{number}" for number in range(5)]


async def test_whoever_does_not_read_is_cut_off_and_loses_only_what_it_was_given(
    served: Served, callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    port = served.port
    stalled = [await Sse.open(port, f"{path}/events", alice, receive_buffer=4096) for path in (TOPIC, QUEUE)]
    for number in range(MANY):
        for path in (TOPIC, QUEUE):
            await _publish(port, path, b"%03d" % number + b"x" * LARGE, carol)
    given = served.metric("mq_gateway_events_delivered_total", service="demo", type="Queues")
    assert given < MANY
    with Timed():
        callers.revoke("alice")
        await _none_open(served)
    for stream in stalled:
        with pytest.raises(ConnectionError):
            await stream.rest()
    given = served.metric("mq_gateway_events_delivered_total", service="demo", type="Queues")
    left: list[str] = []
    while len(left) + given < MANY and (more := await _receive(port, carol, 10, wait=2)):
        left += [body[:3] for body in more]
    assert len(left) + given == MANY
    assert sorted(set(left)) == [f"{number:03d}" for number in range(int(given), MANY)]


async def test_a_batch_ends_with_a_report_of_what_was_published(
    served: Served, callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    port = served.port
    http = await Http.connect(port)
    lines = b'{"a":1}\n{"a":2}\n{"a":'
    head = f"POST {QUEUE}/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {alice['Authorization']}\r\n"
    head += "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    asked = asyncio.create_task(http.ask_raw(head.encode() + b"%x\r\n%b\r\n" % (len(lines), lines)))
    assert len(await _receive(port, carol, 2, wait=5)) >= 1
    with Timed():
        callers.revoke("alice")
        answer = await asked
    assert (answer.status, answer.code) == (401, "unauthenticated")
    report = answer.json
    assert (report["messages"], report["confirmed"], report["outcomes"]) == (2, 2, {"confirmed": 2})


async def test_a_batch_that_waits_for_its_turn_ends_too(
    callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    async with serving(auth=callers.auth(), limits={"messages_per_second": 0.05}) as served:
        body = b'{"a":1}\n' * 5
        kind = {"Content-Type": "application/x-ndjson"}
        asked = asyncio.create_task(ask(served.port, "POST", f"{QUEUE}/batch", body, alice | kind))
        assert len(await _receive(served.port, carol, 1, wait=5)) == 1
        with Timed():
            callers.revoke("alice")
            answer = await asked
        assert answer.status == 401
        assert answer.json["outcomes"] == {"confirmed": 1, "not_sent": 1}
        assert answer.json["failures"][0]["code"] == "unauthenticated"
        assert await _receive(served.port, carol, 5) == []


@pytest.mark.parametrize("atomic", ["", "?atomic=true"])
async def test_a_batch_whose_body_does_not_come_publishes_nothing(
    served: Served, callers: Callers, alice: dict[str, str], carol: dict[str, str], atomic: str
) -> None:
    http = await Http.connect(served.port)
    head = f"POST {QUEUE}/batch{atomic} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {alice['Authorization']}\r\n"
    head += "Content-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n"
    asked = asyncio.create_task(http.ask_raw(head.encode() + (b"[1]\n" if atomic else b"")))
    await asyncio.sleep(0.1)  # it may be anywhere on its way
    with Timed():
        callers.revoke("alice")
        answer = await asked
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert await _receive(served.port, carol, 1) == []


async def test_a_message_whose_body_came_too_late_is_not_published(
    served: Served, callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    http = await Http.connect(served.port)
    head = f"POST {QUEUE} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {alice['Authorization']}\r\n"
    http.writer.write(f"{head}Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nla".encode())
    stream = await Sse.open(served.port, f"{TOPIC}/events", alice)
    callers.revoke("alice")
    await stream.rest(REVOKED_WITHIN)
    answer = await http.ask_raw(b"te")
    assert (answer.status, answer.json["outcome"]) == (401, "not_sent")
    assert await _receive(served.port, carol, 1) == []


@pytest.mark.parametrize("verb", ["ack", "nack", "renew"])
async def test_what_is_said_of_a_lease_too_late_is_not_heard(
    served: Served, callers: Callers, alice: dict[str, str], verb: str
) -> None:
    body = b'{"leases":["x"]}'
    http = await Http.connect(served.port)
    head = f"POST {QUEUE}/{verb} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {alice['Authorization']}\r\n"
    http.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:5])
    stream = await Sse.open(served.port, f"{TOPIC}/events", alice)
    callers.revoke("alice")
    await stream.rest(REVOKED_WITHIN)
    assert (await http.ask_raw(body[5:])).status == 401


async def test_a_token_that_ends_ends_its_streams_then(served: Served, callers: Callers) -> None:
    ends = float(int(time.time()) + 4)
    token = callers.add("short", principal="alice", seconds=ends - time.time() + 0.5)

    async def known() -> bool:
        return (await ask(served.port, "GET", "/session", headers=bearer(token))).status == 200

    await eventually(known, "the token", REVOKED_WITHIN)
    told = (await ask(served.port, "GET", "/session", headers=bearer(token))).json["expires_at"]
    streams = [await Sse.open(served.port, target, bearer(token)) for target in (f"{TOPIC}/events", JOINT)]
    for stream in streams:
        assert await stream.rest() == []
    assert abs(time.time() - ends) < 1, told
    assert (await ask(served.port, "GET", "/session", headers=bearer(token))).status == 401
    assert served.metric("mq_gateway_streams_closed_total", reason="expired") == 2


# The files.


def _truncated(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _gone(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _not_json(path: Path) -> None:
    path.write_text("tokens:")


def _deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def _bad_entry(path: Path) -> None:
    found = json.loads(path.read_text())
    found["tokens"].append({"name": "*", "hash": "sha256:" + "0" * 64})
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("spoil", [_truncated, _cut, _gone, _folder, _not_json, _deep, _bad_entry])
async def test_a_spoilt_file_of_tokens_changes_nothing(
    served: Served,
    callers: Callers,
    alice: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
) -> None:
    good = callers.path.read_bytes()
    stream = await Sse.open(served.port, f"{TOPIC}/events", alice)
    spoil(callers.path)
    await _metric(served, 0)
    complaints = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(complaints) == 1
    assert "tokens" in complaints[0].getMessage()
    await _publish(served.port, TOPIC, b"still", alice)
    assert (await stream.next()).data == "still"
    if callers.path.is_dir():
        callers.path.rmdir()
    callers.path.write_bytes(good)
    await _metric(served, 1)
    await _publish(served.port, TOPIC, b"and again", alice)
    assert (await stream.next()).data == "and again"


async def _metric(served: Served, wanted: float) -> None:
    async def fits() -> bool:
        return served.metric(RELOADED) == wanted

    await eventually(fits, f"{RELOADED} {wanted}", REVOKED_WITHIN)


async def test_a_file_that_is_replaced_is_read_again(served: Served, callers: Callers, alice: dict[str, str]) -> None:
    """By rename, as everybody who writes carefully does it, and by a symbolic link, as orchestrators do."""
    first = Callers(callers.path.parent / _made(callers.path.parent / "a"))
    token = first.add("carol")
    callers.path.unlink()
    callers.path.symlink_to(first.path)

    async def is_carol() -> bool:
        return (await ask(served.port, "GET", "/session", headers=bearer(token))).status == 200

    await eventually(is_carol, "the other file", REVOKED_WITHIN)
    assert (await ask(served.port, "GET", "/session", headers=alice)).status == 401


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# The policy.


def _write(folder: Path, callers: Callers, rules: list[dict[str, Any]]) -> Path:
    return write_config(folder, {"demo": DEMO}, auth=callers.auth(policy=rules))


async def _sample(gateway: LiveGateway, headers: dict[str, str], name: str) -> str:
    answer: Answer = await ask(gateway.port, "GET", "/metrics", headers=headers)
    return next(line.split()[1] for line in answer.body.decode().splitlines() if line.startswith(f"{name} "))


async def test_a_rule_that_goes_ends_what_it_allowed(
    tmp_path: Path, callers: Callers, alice: dict[str, str], carol: dict[str, str]
) -> None:
    config = _write(tmp_path, callers, POLICY)
    async with running(config) as gateway:
        port = gateway.port
        mine = [await Sse.open(port, target, alice) for target in (f"{TOPIC}/events", f"{QUEUE}/events", JOINT)]
        others = await Sse.open(port, f"{TOPIC}/events", carol)
        polling = asyncio.create_task(ask(port, "POST", f"{QUEUE}/receive?wait=20", b"", alice))
        config.write_text("services: [")

        async def complained() -> bool:
            return await _sample(gateway, carol, RELOADED) == "0.0"

        await eventually(complained, "a complaint", REVOKED_WITHIN)
        await _publish(port, TOPIC, b"1", alice)
        assert [(await stream.next()).name for stream in (mine[0], others)] == ["message", "message"]
        with Timed():
            _write(tmp_path, callers, [POLICY[0] | {"principals": ["carol"]}])
            for stream in mine:
                await stream.rest(REVOKED_WITHIN)
            polled = await polling
        assert (polled.status, polled.code) == (403, "forbidden")
        assert await _sample(gateway, carol, RELOADED) == "1.0"
        for method, path in (("POST", QUEUE), ("GET", f"{TOPIC}/events"), ("GET", TOPIC), ("POST", f"{QUEUE}/receive")):
            answer = await ask(port, method, path, b"" if method == "POST" else None, alice)
            assert (answer.status, answer.code) == (403, "forbidden"), path
        await _publish(port, TOPIC, b"2", carol)
        assert (await others.next()).data == "2"
        assert gateway.log.read_text().count("stays as it was") == 1
