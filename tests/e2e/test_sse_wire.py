"""The bytes of an event stream, on both brokers: what a publisher may put into one, and what never gets there."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import statistics
import time
from collections.abc import AsyncIterator

import pytest

from tests.brokers.fixtures import ConnectStomp, Unique
from tests.e2e.conftest import Target
from tests.e2e.http_client import PATIENCE, Event, Http, RecordedSse, Sse, post

POSITION = re.compile(rb"[0-9A-Za-z_-]{6,16}\.[0-9]{1,15}")
PLAIN = {"Content-Type": "text/plain"}
LINE_ENDS = pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])


class Topic:
    """A Topic of the test's own, and a recorded stream of it."""

    def __init__(self, target: Target, name: str, stream: RecordedSse, stomp_client: ConnectStomp) -> None:
        self.port = target.port
        self.path = f"/mq/mq/Topics/{name}"
        self.stream = stream
        self._broker = target.broker
        self._stomp_path = f"/topic/{name}"
        self._connect = stomp_client
        self._seen = len(stream.raw)

    async def post(self, body: bytes, headers: dict[str, str] | None = None) -> tuple[Event, bytes]:
        """The event that a POST became, and its bytes."""
        assert (await post(self.port, self.path, body, {**PLAIN, **(headers or {})})).status == 200
        return await self._next()

    async def send(self, body: bytes, headers: dict[str, str] | None = None) -> tuple[Event, bytes]:
        """The event that a SEND of a STOMP client became, and its bytes."""
        client = await self._connect(self._broker)
        await client.send(self._stomp_path, body, headers)
        return await self._next()

    async def both(self, body: bytes) -> tuple[str, bytes]:
        """The same for a POST as for a SEND: what a client is shown, and the bytes behind the id."""
        posted, sent = await self.post(body), await self.send(body)
        assert (posted[0].name, posted[0].data) == (sent[0].name, sent[0].data)
        assert fields(posted[1]) == fields(sent[1])
        return posted[0].data, fields(posted[1])

    async def _next(self) -> tuple[Event, bytes]:
        event = await self.stream.next()
        block, self._seen = self.stream.raw[self._seen :], len(self.stream.raw)
        return event, block


@pytest.fixture
async def topic(target: Target, unique: Unique, stomp_client: ConnectStomp) -> AsyncIterator[Topic]:
    name = unique("wire")
    stream = await RecordedSse.open(target.port, f"/mq/mq/Topics/{name}/events")
    yield Topic(target, name, stream, stomp_client)
    # Whatever the test did to it.
    ids = re.findall(rb"(?m)^id: ?(.*)$", stream.raw)
    assert ids
    assert all(POSITION.fullmatch(each) for each in ids)
    assert re.findall(rb"(?m)^retry.*$", stream.raw) == re.findall(rb"(?m)^retry: [0-9]{1,6}$", stream.raw)
    assert b"\r" not in stream.raw


def fields(block: bytes) -> bytes:
    """An event without its id, which comes first and is checked to be a position."""
    first, _, rest = block.partition(b"\n")
    assert POSITION.fullmatch(first.removeprefix(b"id: ")), block
    return rest


async def test_sse_case_02_the_stream_is_utf8_without_a_bom_and_keeps_one_in_data(topic: Topic) -> None:
    assert topic.stream.raw.startswith(b"retry: ")
    assert await topic.both(b"\xef\xbb\xbf{}") == ("\ufeff{}", b"data: \xef\xbb\xbf{}\n\n")
    text = "\u00e9\U0001f600\u2028\x85"
    assert await topic.both(text.encode()) == (text, b"data: %b\n\n" % text.encode())
    topic.stream.raw.decode()  # raises where it is not UTF-8
    assert topic.stream.headers["content-type"] == "text/event-stream; charset=utf-8"


@LINE_ENDS
async def test_sse_case_03_every_line_end_begins_a_data_line_and_is_a_line_feed(topic: Topic, end: bytes) -> None:
    shown, wire = await topic.both(end.join([b"a", b"", b"b", b""]))
    assert (shown, wire) == ("a\n\nb\n", b"data: a\ndata: \ndata: b\ndata: \n\n")
    assert (await topic.both(end + end))[0] == "\n\n"
    assert (await topic.both(b"1\r2\n3\r\n4\n\r5"))[0] == "1\n2\n3\n4\n\n5"


@LINE_ENDS
async def test_sse_case_04_a_body_forges_no_field_and_no_event(topic: Topic, end: bytes) -> None:
    before = topic.stream.parser.retry
    lines = [b"a", b"event: x", b"id: 9", b"id", b"retry: 1", b"", b"data: second", b": comment", b"data", b"", b""]
    shown, wire = await topic.both(end.join(lines))
    assert shown == b"\n".join(lines).decode()
    assert wire == b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
    assert topic.stream.parser.retry == before
    # One event for each of the two messages, and their positions are ours.
    assert topic.stream.last_id.rpartition(".")[2] == "2"
    event, _ = await topic.post(b"next")
    assert (event.name, event.data) == ("message", "next")


async def test_sse_case_05_an_empty_body_is_an_event_and_an_id_alone_is_none(topic: Topic) -> None:
    opening = topic.stream.last_id
    assert POSITION.fullmatch(opening.encode())
    assert topic.stream.raw.endswith(b"\n\nid: %b\n\n" % opening.encode())
    with pytest.raises(TimeoutError):
        await topic.stream.next(0.1)  # the position came, and fired nothing
    assert await topic.both(b"") == ("", b"data: \n\n")
    assert topic.stream.last_id != opening


async def test_sse_case_06_a_leading_space_stays(topic: Topic) -> None:
    assert await topic.both(b" a\n  b\n:c") == (" a\n  b\n:c", b"data:  a\ndata:   b\ndata: :c\n\n")


async def test_sse_case_07_sse_case_08_sse_case_09_an_id_is_never_the_publishers(topic: Topic) -> None:
    """Nor empty, nor one that means something: the fixture looks at every id of every test here."""
    refused = {
        "Mq-Header-id": "9",
        "Mq-Header-Message-Id": "earliest",
        "Mq-Header-mq-message-id": "#1",
        "Mq-Headers": json.dumps({"ID": "9"}),
    }
    for name, value in refused.items():
        answer = await post(topic.port, topic.path, b"x", {name: value})
        assert (answer.status, answer.code) == (400, "invalid_header"), name
    for value in ("a\nid: 9", "a\rid: 9", "a\0"):
        answer = await post(topic.port, topic.path, b"x", {"Mq-Headers": json.dumps({"note": value})})
        assert (answer.status, answer.code) == (400, "invalid_header"), value
    for broker_id in ("", "#1", "earliest", "a\nid: 9"):
        event, _ = await topic.send(b"sent", {"mq-message-id": broker_id, "last-event-id": broker_id})
        assert event.id.isascii()
        assert len(event.id) < 200
        assert not event.id.startswith("#")
    assert topic.stream.last_id.rpartition(".")[2] == "4"


async def test_sse_case_10_the_name_of_an_event_is_never_the_publishers(topic: Topic) -> None:
    for name in ("gap", "unavailable", "lease", "open", "error", "drain", "ack"):
        words = {"event": name, "retry": "1", "data": "x"}
        event, wire = await topic.post(b"x", {"Mq-Type": name, "Mq-Headers": json.dumps(words)})
        assert (event.name, fields(wire)) == ("message", b"data: x\n\n")
        event, wire = await topic.send(b"y", {**words, "type": name})
        assert (event.name, fields(wire)) == ("message", b"data: y\n\n")
    for value in ("a\nb", "a\rb", "a\0b", "\x1b"):
        answer = await post(topic.port, topic.path, b"x", {"Mq-Headers": json.dumps({"event": value})})
        assert (answer.status, answer.code) == (400, "invalid_header")
    assert b"\nevent:" not in topic.stream.raw


async def test_sse_case_11_retry_is_digits_and_nothing_else(topic: Topic, target: Target) -> None:
    """On every stream that begins, and on one that ends with its first event; the fixture looks at the others."""
    retry = re.compile(rb"retry: [1-9][0-9]{3,4}")
    for path in (topic.path, "/mq/mq/Queues/idle", "/mq/mem/Topics/idle"):
        async with await RecordedSse.open(target.port, f"{path}/events") as stream:
            assert retry.fullmatch(stream.blocks[0])
            assert stream.raw.count(b"retry") == 1
    for body in (b"retry: 1", b"x\nretry: soon", b"\rretry:1"):
        assert (await topic.both(body))[0] == body.decode().replace("\r", "\n")
    assert topic.stream.parser.retry == int(topic.stream.blocks[0].removeprefix(b"retry: "))


async def test_sse_case_13_what_is_no_utf8_is_base64_and_says_so(topic: Topic) -> None:
    for body in (b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"a\n\nid: 9\xff", bytes(range(256))):
        shown, wire = await topic.both(body)
        assert base64.b64decode(shown, validate=True) == body
        assert wire == b"event: binary\ndata: %b\n\n" % base64.b64encode(body)
    assert (await topic.both(b"\0"))[0] == "\0"


async def test_sse_case_14_escapes_of_stomp_are_decoded_and_reach_no_field(topic: Topic) -> None:
    """Header values with every character that STOMP escapes, from a client that is not ours."""
    hard = "a\nid: 9\n\ndata: x\\n\\c:"
    async with await RecordedSse.open(topic.port, f"{topic.path}/events?format=envelope") as envelopes:
        opened = len(envelopes.raw)
        await topic.send(b"x", {"note": hard, "mq-message-id": hard, "content-type": "text/plain"})
        envelope = (await envelopes.next()).json
        assert envelope["headers"]["note"] == hard
        assert envelope["body"] == "x"
        first, second, *rest = envelopes.raw[opened:].split(b"\n")
        assert (first, rest) == (b"id: " + envelope["id"].encode(), [b"", b""])
        assert json.loads(second.removeprefix(b"data: ")) == envelope


async def test_sse_case_16_a_megabyte_on_one_line_arrives_and_what_is_too_large_is_refused(topic: Topic) -> None:
    body = b"x" * (1 << 20)
    shown, wire = await topic.both(body)
    assert shown == body.decode()
    assert wire == b"data: " + body + b"\n\n"
    head = f"POST {topic.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4200000\r\n\r\n"
    async with await Http.connect(topic.port) as http:
        answer = await http.ask_raw(head.encode())
    assert (answer.status, answer.code, answer.outcome) == (413, "body_too_large", "not_sent")


@pytest.mark.parametrize("path", ["/mq/mq/Topics/{}/events", "/mq/mq/Queues/{}/events"])
async def test_sse_case_17_a_byte_of_the_body_comes_with_the_head(target: Target, unique: Unique, path: str) -> None:
    """In one segment, before there is anything to tell: a browser calls the stream open at its first byte."""
    for _ in range(10):
        async with await Http.connect(target.port) as http:
            request = f"GET {path.format(unique('idle'))} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            http.writer.write(request.encode())
            async with asyncio.timeout(PATIENCE):
                head, _, chunk = (await http.reader.read(65536)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            size, _, body = chunk.partition(b"\r\n")
            assert len(body) == int(size, 16) + 2
            assert re.match(rb"retry: [1-5][0-9]{3}\n\n: ", body)


async def test_sse_case_19_a_client_that_takes_gzip_gets_every_event_at_once(target: Target, unique: Unique) -> None:
    path = f"/mq/mq/Topics/{unique('gzip')}"
    headers = {"Accept-Encoding": "gzip, deflate, br, zstd", "Accept": "text/event-stream"}
    async with (
        await Sse.open(target.port, f"{path}/events", headers) as stream,
        await Http.connect(target.port) as http,
    ):
        assert "content-encoding" not in stream.headers
        assert "no-transform" in stream.headers["cache-control"]
        seconds = []
        for number in range(20):
            begun = time.monotonic()
            assert (await http.ask("POST", path, b"%d" % number, PLAIN)).status == 200
            # Nothing follows until this one is here.
            assert (await stream.next()).data == str(number)
            seconds.append(time.monotonic() - begun)
        assert statistics.median(seconds) < 0.05


async def test_sse_case_21_a_stream_is_a_stream_or_refused(target: Target, unique: Unique) -> None:
    path = f"/mq/mq/Topics/{unique('accept')}/events"
    for accept in ("text/event-stream", "*/*", "text/*"):
        async with await Sse.open(target.port, path, {"Accept": accept}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
    async with await Http.connect(target.port) as http:
        for accept in ("application/json", "text/html", "text/event-stream;q=0"):
            answer = await http.ask("GET", path, None, {"Accept": accept})
            assert (answer.status, answer.code) == (406, "not_acceptable"), accept


async def test_sse_case_24_events_written_together_are_two_and_one_in_pieces_is_one(
    target: Target, unique: Unique
) -> None:
    path = f"/mq/mq/Topics/{unique('pieces')}"
    body = b"y" * 300_000
    async with await Sse.open(target.port, f"{path}/events", receive_buffer=4096) as stream:
        for number in range(2):
            assert (await post(target.port, path, b"%d%b" % (number, body), PLAIN)).status == 200
        for text in (b"2", b"3", b"4"):
            assert (await post(target.port, path, text, PLAIN)).status == 200
        events = await stream.take(5)
        assert [event.data[0] for event in events] == ["0", "1", "2", "3", "4"]
        assert [len(event.data) for event in events] == [300_001, 300_001, 1, 1, 1]


async def test_sse_case_60_what_was_confirmed_is_seen_by_every_open_stream_under_its_id(
    target: Target, unique: Unique
) -> None:
    path = f"/mq/mq/Topics/{unique('seen')}"
    streams = [await Sse.open(target.port, f"{path}/events?format=envelope") for _ in range(10)]
    async with await Http.connect(target.port) as http:
        answers = [await http.ask("POST", path, b"%d" % number, PLAIN) for number in range(20)]
    assert {answer.status for answer in answers} == {200}
    ids = [answer.json["message_id"] for answer in answers]
    assert len(set(ids)) == 20
    for stream in streams:
        events = await stream.take(20)
        assert [event.json["message_id"] for event in events] == ids
        assert [event.json["id"] for event in events] == [event.id for event in events]


async def test_sse_case_61_no_header_of_the_transport_is_shown_and_none_can_be_set(topic: Topic) -> None:
    reserved = ("x-stream-offset", "subscription", "ack", "receipt", "message-id", "destination", "transaction")
    for name in reserved:
        answer = await post(topic.port, topic.path, b"x", {f"Mq-Header-{name}": "1"})
        assert (answer.status, answer.code, answer.outcome) == (400, "invalid_header", "not_sent"), name
    async with await Sse.open(topic.port, f"{topic.path}/events?format=envelope") as envelopes:
        await topic.post(b"x", {"Mq-Header-Colour": "red"})
        await topic.send(b"x", {"x-stream-offset": "7", "colour": "red"})
        for event in await envelopes.take(2):
            headers = event.json["headers"]
            assert headers["colour"] == "red"
            assert not set(headers) & {*reserved, "content-length", "redelivered"} - {"x-stream-offset"}
            assert event.json["redelivered"] is False


async def test_sse_case_62_the_order_of_each_publisher_is_kept_in_every_stream(target: Target, unique: Unique) -> None:
    """Four connections at once, their requests sent ahead of the answers."""
    path = f"/mq/mq/Topics/{unique('order')}"
    streams = [await Sse.open(target.port, f"{path}/events") for _ in range(3)]
    publishers = [await Http.connect(target.port) for _ in range(4)]
    number = 100
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: "

    async def publish(who: int, http: Http) -> None:
        bodies = [f"{who} {each}" for each in range(number)]
        http.writer.write("".join(f"{head}{len(body)}\r\n\r\n{body}" for body in bodies).encode())
        for _ in bodies:
            assert (await http.ask_raw(b"")).status == 200

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(publish(who, http) for who, http in enumerate(publishers)))
    seen = [[event.data for event in await stream.take(4 * number)] for stream in streams]
    assert seen[0] == seen[1] == seen[2]
    for who in range(4):
        own = [data for data in seen[0] if data.startswith(f"{who} ")]
        assert own == [f"{who} {each}" for each in range(number)]
