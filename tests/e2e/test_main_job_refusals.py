"""What would make a broker close the shared connection is refused through HTTP, and the connection stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.conftest import Target
from tests.e2e.http_client import Answer, Http, Sse, ask, post


@pytest.fixture
async def same_connection(target: Target, unique: Unique) -> AsyncIterator[None]:
    """The gateway's connection at the broker is the same one after the test, and it works."""
    await target.gateway.until_up("mq")
    before = target.gateway.broker_ports(target.broker)
    assert len(before) == 1
    pids = await _pids(target)
    yield
    assert (await post(target.port, f"/mq/mq/Queues/{unique('after')}", b"x")).status == 200
    assert target.gateway.broker_ports(target.broker) == before
    assert await _pids(target) == pids
    assert await target.gateway.metric("mq_gateway_reconnects_total", service="mq") == 0


async def _pids(target: Target) -> list[str]:
    return await target.gateway.broker_pids(target.broker) if isinstance(target.broker, RabbitMQ) else []


def refused(answer: Answer, code: str, status: int = 400) -> None:
    assert (answer.status, answer.code) == (status, code), answer
    assert answer.outcome == "not_sent"
    assert answer.headers["content-type"] == "application/problem+json"


NAMES = (
    # Both brokers, section by section: ERROR then close, EOF without a word, or a meaning of the broker's own.
    "CC BCC cc user-id USER-ID expiration expires timestamp priority JMSPriority JMSXGroupSeq JMSXGroupID JMSType "
    "AMQ_SCHEDULED_DELAY AMQ_SCHEDULED_CRON amq_scheduled_period transformation amq-msg-type activemq.retroactive "
    "x-queue-type x-max-length x-expires x-message-ttl x-stream-offset x-dead-letter-exchange x-queue-name durable "
    "auto-delete exclusive destination content-length content-type receipt transaction id message-id mq-message-id "
    "ack subscription host login passcode client-id selector browser reply-to correlation-id type persistent "
    "prefetch-count redelivered amqp-message-id content-encoding destination-type heart-beat accept-version session"
).split()
BAD_NAMES = (
    "",
    " ",
    "a b",
    "a\nb",
    "a\r\nb",
    "a:b",
    "a\\b",
    "a\0b",
    "\u00e9",
    "a" * 129,
    "a\x7f",
    "\ud800",
    "a\n\nb\0",
)


@pytest.mark.usefixtures("same_connection")
async def test_sse_case_61_headers_of_the_brokers_and_bad_names(target: Target, unique: Unique) -> None:
    path = f"/mq/mq/Queues/{unique('refusals')}"
    async with await Http.connect(target.port) as http:
        for name in (*NAMES, *BAD_NAMES):
            given = json.dumps({name: "abc"})
            refused(await http.ask("POST", path, b"x", {"Mq-Headers": given}), "invalid_header")
            if name in NAMES:
                refused(await http.ask("POST", path, b"x", {f"Mq-Header-{name}": "abc"}), "invalid_header")


@pytest.mark.usefixtures("same_connection")
async def test_sse_case_07_values(target: Target, unique: Unique) -> None:
    path = f"/mq/mq/Queues/{unique('refusals')}"
    bad = ["a\nb", "a\rb", "a\0b", "a\n\nSEND\ndestination:/queue/stolen\n\n\0", "\x7f", "\x85", "\ud800", "\x1b[0m"]
    async with await Http.connect(target.port) as http:
        for value in bad:
            refused(await http.ask("POST", path, b"x", {"Mq-Headers": json.dumps({"a": value})}), "invalid_header")
        for given in [
            '{"a":1}',
            '{"a":null}',
            '{"a":{}}',
            "[]",
            "x",
            '{"a":"1","a":"2"}',
            '{"a":"1","A":"2"}',
            "{",
            '"',
        ]:
            refused(await http.ask("POST", path, b"x", {"Mq-Headers": given}), "invalid_header")
        latin = (
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nMq-Header-a: \xe9\r\nContent-Length: 1\r\n\r\nx" % path.encode()
        )
        refused(await http.ask_raw(latin), "invalid_header")


@pytest.mark.usefixtures("same_connection")
async def test_typed_properties(target: Target, unique: Unique) -> None:
    path = f"/mq/mq/Queues/{unique('refusals')}"
    numbers = ["abc", "-1", "1.5", "0x1", "", "1e3", "99999999999", "1_0", "\u0661"]
    given: list[tuple[str, str]] = [("Mq-Ttl-Ms", value) for value in [*numbers, "0"]]
    given += [("Mq-Priority", value) for value in [*numbers, "10"]]
    given += [("Mq-Delay-Ms", value) for value in numbers]
    given += [("Mq-Persistent", value) for value in ["yes", "1", "True\t1", ""]]
    given += [("Mq-Correlation-Id", "c" * 256), ("Mq-Type", "t" * 256), ("Mq-Group", ""), ("Mq-Unknown", "x")]
    given += [
        ("Mq-Reply-To", value) for value in ["/queue/x", "/temp-queue/x", "mem::Queues::x", "mq::Queues::a,b", "x"]
    ]
    async with await Http.connect(target.port) as http:
        for name, value in given:
            refused(await http.ask("POST", path, b"x", {name: value}), "invalid_header")
        for name in ("Mq-Delay-Ms", "Mq-Group"):
            answer = await http.ask("POST", path, b"x", {name: "1"})
            assert answer.status == 200 or answer.code == "not_supported_by_broker", answer
        for query in (
            "confirm=maybe",
            "timeout=abc",
            "timeout=-1",
            "timeout=nan",
            "timeout=inf",
            "unknown=1",
            "timeout=1&timeout=2",
        ):
            refused(await http.ask("POST", f"{path}?{query}", b"x"), "invalid_parameter")


@pytest.mark.usefixtures("same_connection")
async def test_how_many_and_how_large(target: Target, unique: Unique, stomp_client: ConnectStomp) -> None:
    queue = unique("refusals")
    path = f"/mq/mq/Queues/{queue}"
    async with await Http.connect(target.port) as http:

        async def given(headers: dict[str, str]) -> Answer:
            return await http.ask("POST", path, b"x", {"Mq-Headers": json.dumps(headers)})

        async def single(value: str) -> Answer:
            # A connection each: a head that is too large is answered and ends its connection.
            return await post(target.port, path, b"x", {"Mq-Header-a": value})

        assert (await given({f"h{number}": "v" for number in range(64)})).status == 200
        assert (await given({f"h{number}": "v" for number in range(65)})).status in (400, 431)
        assert (await single("v" * 8191)).status == 200
        for value in ("v" * 8192, "\u00e9" * 4096, "v" * 20_000):
            assert (await single(value)).status in (400, 431), len(value)
        # Escapes double colons and backslashes: 8 KiB become 16 on the wire, and a header line of ActiveMQ has 10.
        for value in (":" * 8191, "\\" * 8191, ":\\" * 4095):
            answer = await single(value)
            assert answer.status == 200 if isinstance(target.broker, RabbitMQ) else answer.status in (400, 431)
        assert (await single(":" * 5000)).status == 200
        # All at once: 64 headers of 8 KiB go in one frame of half a megabyte, or are refused, never half.
        many = await given({f"h{number}": ":" * 4000 for number in range(64)})
        assert many.status in (200, 400, 431), many
    client = await stomp_client(target.broker)
    await client.subscribe(f"/queue/{queue}")
    headers, _ = await client.next_message()
    assert sum(name.startswith("h") and name[1:].isdigit() for name in headers) == 64


@pytest.mark.usefixtures("same_connection")
async def test_content_types(target: Target, unique: Unique) -> None:
    path = f"/mq/mq/Queues/{unique('refusals')}"
    async with await Http.connect(target.port) as http:
        for value in ("a/b\\n", "a:b", "text/plain; x=\\c", "application/xml; charset=\\", "a" * 255):
            assert (await http.ask("POST", path, b"x", {"Content-Type": value})).status == 200, value
        for value in ("a" * 256, "text/\u00e9"):
            refused(await http.ask("POST", path, b"x", {"Content-Type": value}), "invalid_header")
        for raw in (b"text/plain\x00x", b"text/\x0bplain", b"a\rb", b"text/plain\nreceipt:x"):
            request = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Type: %b\r\nContent-Length: 1\r\n\r\nx"
            async with await Http.connect(target.port) as other:
                answer = await other.ask_raw(request % (path.encode(), raw))
            assert answer.status == 400, (raw, answer)
        for value in ("gzip", "br", "gzip, identity"):
            refused(
                await ask(target.port, "POST", path, b"x", {"Content-Encoding": value}), "unsupported_encoding", 415
            )


PATHS = [
    "a,b",
    "a%2Ctopic%3A%2F%2Fb",
    "a%3Fconsumer.exclusive%3Dtrue",
    "a.%3E",
    "a.%2A",
    "%23",
    "a%23",
    "a%0Ab",
    "a%0D%0Ab",
    "a%00b",
    "%7F",
    "a%C2%85b",
    "a::b",
    "a%3A%3Ab",
    "%20a",
    "a%20",
    "%FF",
    "%C0%AF",
    "%ED%A0%80",
    "a" * 256,
    "%C3%A9" * 128,
    "a%E2%80%A8b",
]


@pytest.mark.usefixtures("same_connection")
async def test_sse_case_58_names(target: Target) -> None:
    async with await Http.connect(target.port) as http:
        for name in PATHS:
            for kind in ("Queues", "Topics"):
                if name in ("%20a", "a%20") and isinstance(target.broker, RabbitMQ):
                    continue  # RabbitMQ keeps the space
                refused(await http.ask("POST", f"/mq/mq/{kind}/{name}", b"x"), "invalid_name")
                answer = await http.ask("GET", f"/mq/mq/{kind}/{name}/events")
                assert (answer.status, answer.code) == (400, "invalid_name"), name
        if isinstance(target.broker, RabbitMQ):
            for name in ("a%252Fb", "a%252fb", "%252F"):
                refused(await http.ask("POST", f"/mq/mq/Queues/{name}", b"x"), "invalid_name")


@pytest.mark.usefixtures("same_connection")
async def test_sse_case_58_tricks_with_paths(target: Target, unique: Unique) -> None:
    name = unique("trick")
    async with await Http.connect(target.port) as http:
        for path, statuses in {
            "/mq/mq/Queues/": {400, 404},
            "/mq/mq/Queues//": {400, 404},
            f"/mq/mq//Queues/{name}": {400, 404},
            f"//mq/mq/Queues/{name}": {400, 404},
            f"/mq/mq/Queues/{name}/": {400, 404, 405},
            f"/mq/mq/Queues/a/{name}": {404},
            f"/mq/mq/Queues/..%2f{name}/x": {404},
            f"/mq/mq/../mq/Queues/{name}": {400, 404},
            f"/mq/%6Dq/queue%73/{name}%": {200, 400},
            f"/mq/mq/Queues/{name};a=b": {200},
            f"/mq/mq/temp-queue/{name}": {400, 404},
            f"/mq/mq/exchange/{name}": {400, 404},
            f"/mq/mq/amq%2Fqueue/{name}": {400, 404},
            f"/mq//queue/Queues/{name}": {400, 404},
        }.items():
            answer = await http.ask("POST", path, b"x")
            assert answer.status in statuses, (path, answer)
            if answer.status != 200 and path.startswith("/mq/"):
                assert answer.outcome == "not_sent", path
        dots = await http.ask("POST", "/mq/mq/Queues/..", b"x")
        assert dots.status in (200, 400, 404)


@pytest.mark.usefixtures("same_connection")
async def test_a_storm_of_poison_hurts_no_other_publisher(target: Target, unique: Unique) -> None:
    queue, path = unique("good"), f"/mq/mq/Queues/{unique('poison')}"
    poison: list[dict[str, Any]] = [
        {"Mq-Headers": json.dumps({"CC": "x"})},
        {"Mq-Headers": json.dumps({"expires": "abc"})},
        {"Mq-Priority": "10"},
        {"Mq-Headers": json.dumps({"a\nb": "x"})},
        {"Mq-Header-a": ":" * 9000},
    ]
    stop = asyncio.Event()

    async def attack(headers: dict[str, str]) -> set[int]:
        statuses = set()
        while not stop.is_set():
            statuses.add((await post(target.port, path, b"x", headers)).status)
        return statuses

    attacks = [asyncio.create_task(attack(headers)) for headers in poison]
    async with await Sse.open(target.port, f"/mq/mq/Queues/{queue}/events") as stream:
        async with await Http.connect(target.port) as http:
            for number in range(200):
                assert (await http.ask("POST", f"/mq/mq/Queues/{queue}", b"%d" % number)).status == 200
        assert [event.data for event in await stream.take(200)] == [str(number) for number in range(200)]
    stop.set()
    assert set().union(*await asyncio.gather(*attacks)) <= {400, 431}
