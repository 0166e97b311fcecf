"""Messages that try to be more than one event, and positions that try to be more than they are.

Streams are read by a parser that was written from the standard and nothing of ours: what it dispatches is exactly
what was sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from app.domain.uri import MqUri
from app.wire.vector import tag
from tests.brokers.activemq import ActiveMQ
from tests.brokers.broker import Broker
from tests.brokers.fixtures import ConnectStomp, Unique
from tests.brokers.rabbitmq import RabbitMQ
from tests.e2e.guarded import Guarded, guarded
from tests.e2e.http_client import RecordedSse, Sse, ask, eventually
from tests.e2e.live_gateway import MEMORY, stomp
from tests.unit.wire.event_source import Event, EventSource

VERBS = ["publish", "subscribe", "take", "look"]
POLICY: list[dict[str, Any]] = [
    {"principals": ["mallory"], "allow": VERBS, "uris": ["*::*::mine.*"]},
    {"principals": ["boss"], "allow": VERBS, "uris": ["*"]},
]
FORMATS = ["data", "envelope", "cloudevents"]
LAST = b"the last one"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """In memory: rings that are kept, and a Topic with a stream behind it."""
    topics: dict[str, Any] = {f"mine.{name}": {"keep": True, "ring_messages": 5} for name in ("kept", "other")}
    topics |= {"theirs": {"keep": True}, "mine.logged": {"replay": "stream", "ring_messages": 4}}
    topics["logged"] = {"replay": "stream"}
    services = {"mem": {**MEMORY, "topics": topics}}
    folder = tmp_path_factory.mktemp("events")
    limits = {"streams_per_principal": 100}
    with guarded(folder, services, POLICY, names=("mallory", "boss"), limits=limits) as found:
        yield found


# Bodies, names and headers that look like fields of a stream.

BODIES = {
    "field": b"event: gap",
    "fields": b"x\nevent: gap\ndata: {}\nid: 99",
    "event": b"x\n\nevent: gap\ndata: {}\n\n",
    "event after carriage returns": b"x\r\revent: gap\rdata: {}\r\r",
    "event after both": b"x\r\n\r\nevent: gap\r\ndata: {}\r\n\r\n",
    "carriage return, line feed apart": b"x\n\r\n\revent: gap\n\rdata: 1",
    "id": b"x\n\nid: abcdef.1\n\n",
    "id and envelope": b'x\n\nid: abcdef.1\ndata: {"id":"abcdef.1"',
    "envelope": b'data: {"id":"x"}',
    "retry": b"\n\nretry: 1\n\n",
    "comment": b"\n\n: comment\n\n",
    "nothing": b"",
    "line feed": b"\n",
    "line feeds": b"\n\n\n\n",
    "carriage return": b"\r",
    "carriage return at the end": b"x\r",
    "line feed first": b"\nx",
    "space first": b" x",
    "colon first": b": x",
    "byte order mark": b"\xef\xbb\xbfdata: x",
    "NUL": b"x\0\n\nid: \0",
    "line separator": "x\u2028\u2028event: gap\u2028".encode(),
    "next line": "x\u0085\u0085event: gap\u0085".encode(),
    "form feed and vertical tab": b"x\x0c\x0b\x1c\x1d\x1e\n\x0b\nevent: gap",
    "no text": b"\xff\xfe\n\nevent: gap\n\n",
    "overlong line feeds": b"x\xc0\x8a\xc0\x8aevent: gap",
    "text cut off": b"x\n\nevent: gap\n\n\xe2\x80",
    "UTF-16": "x\n\nevent: gap\n\n".encode("utf-16"),
    "chunk": b"x\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "end of an envelope": b'"}\n\nevent: gap\ndata: {}\n\n',
    "stomp": b"x\0\nMESSAGE\ndestination:/topic/x\n\nx\0",
    "long": b"x\n\nevent: gap\ndata: 1\n\n" * 5_000,
}
#: Bodies of JSON, which an envelope pastes as they are.
DOCUMENTS = {
    "spaces": b'{\n\n"event"\r\r:\r\n\r\n"gap"\n\n}\n\n',
    "spaces around": b"\r\n\r\n[1]\r\n\r\n",
    "a text of escapes": b'"\\n\\nevent: gap\\n\\n"',
    "fields": b'{"id":"x","message_id":"x","mq_uri":"x","body":1,"headers":{}}',
    "more than one": b'{"a":1,"a":2}',
    "deep": b"[" * 500 + b"]" * 500,
    "number": b"1E400",
    "half a pair": b'"\\ud800"',
}
KINDS = {
    "text": "text/plain",
    "event stream": "text/event-stream",
    "json that is none": "application/x-json",
    "fields": "text/plain; data: x",
    "quotes": 'a/b"}; x="\\n',
}


@dataclass(frozen=True)
class Sent:
    """A message that was published."""

    name: str
    body: bytes
    content_type: str
    message_id: str
    headers: dict[str, str]


async def _publish(site: Guarded, uri: str, **more: bytes) -> list[Sent]:
    """Everything, to one destination, and the last one behind it."""
    sent = []
    cases = [(name, body, "text/plain") for name, body in BODIES.items()]
    cases += [(f"json {name}", body, "application/json") for name, body in DOCUMENTS.items()]
    cases += [(f"type {name}", b"x\n\nevent: gap\n\n", kind) for name, kind in KINDS.items()]
    cases.append(("last", LAST, "text/plain"))
    for name, body, kind in cases:
        own = {"Job": '"}\\n\\nevent: gap', "ce-type": "x%0A%0Aevent: gap%0Adata: 1", "traceparent": "id: 1\\r\\r"}
        headers = {"Content-Type": kind, "Mq-Headers": json.dumps(own), "Mq-Correlation-Id": "x\\n\\nid: 1"}
        answer = await site.ask("mallory", "POST", path(uri), body, headers)
        assert answer.status == 200, (name, answer)
        sent.append(Sent(name, body, kind, answer.json["message_id"], own))
    return sent


def path(uri: str) -> str:
    parsed = MqUri.parse(uri)
    return f"/mq/{parsed.service}/{parsed.type}/{quote(parsed.name, safe='')}"


async def _read(stream: RecordedSse, number: int) -> list[Event]:
    """All events up to the last one, as the other parser has them; both parsers agree."""
    seen = await stream.until(lambda event: LAST.decode() in event.data)
    stream.close()
    source = EventSource.read(stream.raw)
    assert [(event.name, event.data) for event in seen] == [(event.type, event.data) for event in source.events]
    assert len(source.events) == number, [event.type for event in source.events if event.type != "message"]
    assert source.reconnection_ms is not None
    assert 1000 <= source.reconnection_ms <= 5000
    return source.events


def _lines(text: str) -> str:
    """A text as an event has it: each kind of line end is one line feed."""
    return re.sub("\r\n|\r", "\n", text)


def is_told(form: str, event: Event, sent: Sent, uri: str) -> None:
    """The event is this message, whole, and nothing else."""
    try:
        text: str | None = sent.body.decode()
    except UnicodeDecodeError:
        text = None
    if form == "data":
        binary = (base64.b64encode(sent.body).decode(), "binary")
        assert (event.data, event.type) == (binary if text is None else (_lines(text), "message")), sent.name
        return
    assert event.type == "message", sent.name
    told = json.loads(event.data)
    if form == "envelope":
        assert (told["message_id"], told["mq_uri"], told["content_type"]) == (sent.message_id, uri, sent.content_type)
        assert told["headers"]["Job"] == sent.headers["Job"]
        assert told["headers"]["correlation-id"] == "x\\n\\nid: 1"
        assert told["id"] in (None, event.last_event_id)
        body = told["body"]
    else:
        assert (told["id"], told["specversion"], told["source"]) == (sent.message_id, "1.0", path(uri))
        assert told["type"] == "x\n\nevent: gap\ndata: 1"
        body = told["data"] if "data" in told else told["data_base64"]
    if sent.content_type == "application/json":
        assert body == json.loads(sent.body), sent.name
    else:
        assert body == (base64.b64encode(sent.body).decode() if text is None else text), sent.name


async def opened(site: Guarded, target: str, name: str = "mallory", **headers: str) -> RecordedSse:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return await RecordedSse.open(site.port, target, {**site.as_(name), **named})


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["Topics", "Queues", "joint", "Topics with a stream"])
async def test_every_message_is_one_event(site: Guarded, unique: Unique, form: str, kind: str) -> None:
    uri = f"mem::{'Queues' if kind == 'Queues' else 'Topics'}::mine.{unique('fields')}"
    if kind == "Topics with a stream":
        uri = "mem::Topics::mine.logged"
    target = f"{path(uri)}/events?format={form}"
    if kind == "joint":
        target = f"/events?{urlencode([('uri', uri), ('uri', 'mem::Topics::mine.quiet'), ('format', form)])}"
    stream = await opened(site, target)
    sent = await _publish(site, uri)
    events = await _read(stream, len(sent))
    for event, message in zip(events, sent, strict=True):
        is_told(form, event, message, uri)
    ids = [event.last_event_id for event in events]
    if kind == "Queues":
        assert set(ids) == {""}
    else:
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[0-9A-Za-z_.,-]+", text) for text in ids)


NAMES = [
    "mine. data: x",
    "mine.:",
    "mine.id: 1",
    'mine."}',
    "mine.\\n\\nevent\\c gap",
    "mine.<b&amp;",
    "mine.\u00e9\u3000",
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NAMES)
async def test_names_of_destinations(site: Guarded, unique: Unique, name: str, form: str) -> None:
    """They stand in gaps, in envelopes, in sources and in the answer of a lease."""
    uri = f"mem::Topics::{name}{unique(form)}"
    stream = await opened(site, f"{path(uri)}/events?format={form}", Last_Event_ID="nonsense")
    assert (await site.ask("mallory", "POST", path(uri), LAST)).status == 200
    gap, event = await _read(stream, 2)
    assert (gap.type, json.loads(gap.data)["mq_uri"], event.type) == ("gap", uri, "message")
    if form == "envelope":
        assert json.loads(event.data)["mq_uri"] == uri
    lease = await opened(site, f"{path(uri.replace('Topics', 'Queues'))}/events?ack=explicit")
    told = await lease.next()
    assert (told.name, told.json["ack_url"]) == ("lease", f"{path(uri.replace('Topics', 'Queues'))}/ack")
    lease.close()


# Foreign producers, whose headers may hold anything.

FOREIGN = {
    "line feeds": "x\n\nevent: gap\ndata: {}\n\n",
    "carriage returns": "x\r\revent: gap\rdata: {}\r\r",
    "id": "x\n\nid: abcdef.9\n\n",
    "id and envelope": 'x\n\nid: abcdef.1\ndata: {"id":"abcdef.1"',
    "quotes": '"}\n\nevent: gap\ndata: {"',
    "line separator": "x\u2028\u2028event: gap",
    "next line": "x\u0085\u0085event: gap",
    "backslashes": "x\\n\\nevent\\c gap\\",
    "percent": "x%0A%0Aevent: gap",
}
_HEADERS = (
    "mq-message-id",
    "correlation-id",
    "type",
    "reply-to",
    "job",
    "ce-id",
    "ce-source",
    "content-type",
    "a\n\nid: 1",
)


@pytest.fixture(scope="module")
def rab(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A gateway on RabbitMQ."""
    yield from _at(rabbitmq, tmp_path_factory.mktemp("rab"))


@pytest.fixture(scope="module")
def act(activemq: ActiveMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A gateway on ActiveMQ."""
    yield from _at(activemq, tmp_path_factory.mktemp("act"))


def _at(broker: Broker, folder: Path) -> Iterator[Guarded]:
    with guarded(folder, {"mq": stomp(broker)}, POLICY, names=("mallory", "boss")) as found:
        yield found


_AT_BROKERS = [
    pytest.param(("rab", "rabbitmq"), marks=pytest.mark.rabbitmq, id="rab"),
    pytest.param(("act", "activemq"), marks=pytest.mark.activemq, id="act"),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["Topics", "Queues", "joint"])
@pytest.mark.parametrize("where", _AT_BROKERS)
async def test_foreign_producers(
    request: pytest.FixtureRequest,
    stomp_client: ConnectStomp,
    unique: Unique,
    where: tuple[str, str],
    kind: str,
    form: str,
) -> None:
    site, broker = (request.getfixturevalue(name) for name in where)
    await site.until_up()
    name = f"mine.{unique('foreign')}"
    uri = f"mq::{'Queues' if kind == 'Queues' else 'Topics'}::{name}"
    target = f"{path(uri)}/events?format={form}"
    if kind == "joint":
        target = f"/events?{urlencode([('uri', uri), ('uri', 'mq::Topics::mine.quiet'), ('format', form)])}"
    stream = await opened(site, target)
    client = await stomp_client(broker)
    number = 0
    for header in _HEADERS:
        for value in FOREIGN.values():
            destination = f"/{'queue' if kind == 'Queues' else 'topic'}/{name}"
            await client.send(destination, f"body {number}", {header: value})
            number += 1
    await client.send(destination, LAST)
    events = await _read(stream, number + 1)
    assert {event.type for event in events} == {"message"}
    if form == "data":
        assert [event.data for event in events[:-1]] == [f"body {each}" for each in range(number)]
        return
    told = [json.loads(event.data) for event in events[:-1]]
    assert [each["body" if form == "envelope" else "data"] for each in told] == [f"body {n}" for n in range(number)]
    if form == "envelope":
        assert {each["mq_uri"] for each in told} == {uri}
        assert all(each["id"] in (None, event.last_event_id) for each, event in zip(told, events, strict=False))
        assert [each["message_id"] for each in told[: len(FOREIGN)]] == list(FOREIGN.values())


# Positions.

EPOCH = "AAAAAAAA"
HUGE = "9" * 400
#: `P` stands for a position that is good on another Topic, `E` for the epoch of the Topic itself.
POSITIONS = {
    "zero": f"{EPOCH}.0",
    "ahead": "E.6",
    "far ahead": "E.999999999999999",
    "2^31": "E.2147483648",
    "2^53": "E.9007199254740993",
    "2^63 - 1": "E.9223372036854775807",
    "2^63": "E.9223372036854775808",
    "2^64": "E.18446744073709551616",
    "giant": f"E.{HUGE}",
    "5000 digits": "E." + "1" * 5000,
    "negative": "E.-1",
    "negative zero": "E.-0",
    "plus": "E.+1",
    "point": "E.1.0",
    "exponent": "E.1e0",
    "hexadecimal": "E.0x1",
    "underscore": "E.1_0",
    "space": "E. 1",
    "space behind the point": "E .1",
    "tab": "E.1\t0",
    "no number": "E.",
    "no epoch": ".1",
    "epoch alone": "E",
    "epoch twice": "E.E.1",
    "epoch in capitals": "U.1",
    "epoch cut off": "C.1",
    "epoch and a letter": "Ex.1",
    "arabic digits": "E.\u0663",
    "fullwidth digits": "E.\uff13",
    "superscript": "E.\u00b3",
    "fullwidth point": "E\uff0e1",
    "zero width": "E.\u200b1",
    "of another Topic": "P",
    "stream": "s.0",
    "stream, huge": f"s.{HUGE}",
    "vector": "v.AAAAAAE.1",
    "vector of itself": "v.OE.1",
    "vector of another": "v.TP",
    "vector without end": "v." + "AAAAAAE.1," * 100,
    "list": "E.1,E.2",
    "star": "*",
    "quote": "E.1'--",
    "json": '{"id":1}',
    "NUL, encoded": "E.1%00",
    "line feed, encoded": "E.1%0Aevent: gap",
    "slashes": "../../etc/passwd",
    "text": "latest",
    "null": "null",
    "letters": "a" * 8000,
    "bytes": "\udcff\udcfe",
}


async def _position(site: Guarded, uri: str, name: str = "boss") -> str:
    """Where the Topic stands."""
    stream = await opened(site, f"{path(uri)}/events", name)
    while not stream.last_id:
        stream.received(await _chunk(stream))
    stream.close()
    return stream.last_id


async def _chunk(stream: Sse) -> bytes:
    size = int((await stream.http.reader.readuntil(b"\r\n")).strip(), 16)
    return (await stream.http.reader.readexactly(size + 2))[:-2]


async def _fill(site: Guarded, uri: str, *bodies: str) -> None:
    batch = json.dumps([{"body_text": body} for body in bodies]).encode()
    answer = await site.ask("boss", "POST", f"{path(uri)}/batch", batch, {"Content-Type": "application/json"})
    assert answer.status == 200, answer


@pytest.fixture
async def kept(site: Guarded) -> dict[str, str]:
    """A Topic of mine with just five messages, the last ones; another one; and one of others that holds a secret."""
    await _fill(site, "mem::Topics::mine.kept", *"12345")
    await _fill(site, "mem::Topics::mine.other", *"abcde")
    await _fill(site, "mem::Topics::theirs", "secret")
    return {
        "kept": await _position(site, "mem::Topics::mine.kept"),
        "other": await _position(site, "mem::Topics::mine.other"),
        "theirs": await _position(site, "mem::Topics::theirs"),
    }


def _made(text: str, kept: dict[str, str], of: str) -> str:
    """The position that a case of the table means."""
    epoch, _, number = kept["kept"].partition(".")
    words = {
        "E": epoch,
        "U": epoch.swapcase(),
        "C": epoch[:-1],
        "P": kept[of],
        "T": tag(MqUri.parse("mem::Topics::theirs" if of == "theirs" else f"mem::Topics::mine.{of}")),
        "O": tag(MqUri.parse("mem::Topics::mine.kept")),
    }
    if text == "E.6":
        return f"{epoch}.{int(number) + 1}"
    return re.sub("[EUCPTO]", lambda found: words[found[0]], text) if "passwd" not in text else text


@pytest.mark.parametrize(("place", "of"), [("header", "theirs"), ("query", "other")])
@pytest.mark.parametrize("name", POSITIONS)
async def test_positions_are_never_trusted(site: Guarded, kept: dict[str, str], name: str, of: str, place: str) -> None:
    """One that is not of this ring: a gap, and the oldest that are kept, and nothing of any other."""
    wanted = _made(POSITIONS[name], kept, of)
    target = f"{path('mem::Topics::mine.kept')}/events"
    headers = {"Last-Event-ID": wanted} if place == "header" else {}
    if place == "query":
        target += f"?last_event_id={quote(wanted.encode(errors='surrogateescape'), safe='')}"
    stream = await RecordedSse.open(site.port, target, {**site.as_("mallory"), **headers}, expect=None)
    if stream.status != 200:
        assert stream.status == 400, stream.status
        assert name in ("bytes", "letters", "5000 digits", "tab"), name
        return
    gap, *events = await stream.take(6)
    assert (gap.name, gap.json["reason"], gap.json["mq_uri"]) == ("gap", "restart", "mem::Topics::mine.kept")
    assert [event.data for event in events] == list("12345")
    stream.close()


VECTORS = {
    "of others": "v.SQ",
    "of mine and others": "v.OK,SQ",
    "of others and mine": "v.SQ,OK",
    "mine at the place of others": "v.OQ",
    "others at the place of mine": "v.SK",
    "mine twice": "v.OK,OK",
    "a single position": "K",
    "a single position of others": "Q",
    "tags of nobody": "v.AAAAAAK",
    "no tag": "v.K",
    "nothing": "v.",
    "commas": "v.,,,",
    "huge": "v.O" + "x" * 25,
    "long": "v.O" + "," * 2000,
    "untold of others": "v.S-",
    "empty of others": "v.S",
    "letters": "V.OK",
    "spaces": "v.OK, SQ",
    "stream": "v.Os.0",
    "number huge": "v.OE.99999999999999",
}


@pytest.mark.parametrize("name", VECTORS)
async def test_vectors_entitle_to_nothing(site: Guarded, kept: dict[str, str], name: str) -> None:
    """A joint stream has what it was asked for and what the caller may read, whatever its position names."""
    words = {"K": kept["kept"], "Q": kept["theirs"], "E": kept["kept"].partition(".")[0]}
    words |= {"O": tag(MqUri.parse("mem::Topics::mine.kept")), "S": tag(MqUri.parse("mem::Topics::theirs"))}
    wanted = re.sub("[KQEOS]", lambda found: words[found[0]], VECTORS[name])
    one = "/events?uri=mem::Topics::mine.kept"
    stream = await opened(site, one, Last_Event_ID=wanted)
    await _fill(site, "mem::Topics::theirs", "secret")
    await _fill(site, "mem::Topics::mine.kept", "end")
    events = await stream.until(lambda event: event.name == "message" and event.json["body"] == "end")
    told = [(event.json["mq_uri"], event.json.get("body", event.name)) for event in events]
    assert {uri for uri, _ in told} == {"mem::Topics::mine.kept"}
    assert told[-1][1] == "end"
    assert all(body in ("gap", "end", *"12345") for _, body in told)
    stream.close()
    for more in ("&uri=mem::Topics::theirs", "&uri=mem::Topics::logged", "&uri=mem::Queues::theirs"):
        answer = await ask(site.port, "GET", one + more, None, {**site.as_("mallory"), "Last-Event-ID": wanted})
        assert (answer.status, answer.code) == (403, "forbidden"), answer


async def test_a_position_of_ones_own_is_good(site: Guarded, kept: dict[str, str]) -> None:
    """The control: what the gateway has given goes on where it says, without a gap."""
    epoch, _, number = kept["kept"].partition(".")
    stream = await opened(site, f"{path('mem::Topics::mine.kept')}/events", Last_Event_ID=f"{epoch}.{int(number) - 2}")
    assert [(event.name, event.data) for event in await stream.take(2)] == [("message", "4"), ("message", "5")]
    stream.close()
    early = await opened(site, f"{path('mem::Topics::mine.kept')}/events", Last_Event_ID=f"{epoch}.0")
    gap, *events = await early.take(6)
    if int(number) > 5:
        assert (gap.json["reason"], gap.json["missed"]) == ("expired", int(number) - 5)
        assert [event.data for event in events] == list("12345")
    early.close()


_BEYOND = ["s.999999", "s.2147483648", "s.9007199254740993", "s.999999999999999999"]
OFFSETS = [
    *("s.-2", "s.-0", "s.+1", "s.00", "s.01", "s.1.0", "s.1e3", "s.0x1", "s. 1", "s.1\u00a0", "S.1", "s.", "s", "1"),
    *("s.\u0663", "s.9223372036854775807", "s.9223372036854775808", "s.18446744073709551616", f"s.{HUGE}"),
    *(f"s.{HUGE * 10}", "s.1,s.2", "s.1;2", f"{EPOCH}.1", "s.1%00", "s.first", "s.next", "s.last", "s.offset=0"),
    *("s.timestamp=0", "v.s.1", "AAAAAAs.1"),
]


@pytest.mark.parametrize("text", OFFSETS)
async def test_offsets_of_a_stream(site: Guarded, text: str) -> None:
    await _is_not_believed(site, text)


async def test_offsets_beyond_what_there_is(site: Guarded) -> None:
    """At the same time: another replica may be ahead, so these are waited for."""
    await asyncio.gather(*(_is_not_believed(site, text) for text in _BEYOND))


async def _is_not_believed(site: Guarded, text: str) -> None:
    """A gap, and everything from the first on, of this Topic."""
    await _fill(site, "mem::Topics::mine.logged", "x")
    await _fill(site, "mem::Topics::logged", "secret")
    stream = await opened(site, f"{path('mem::Topics::mine.logged')}/events?format=envelope", Last_Event_ID=text)
    gap, first = await stream.take(2)
    assert (gap.name, gap.json["reason"]) == ("gap", "restart")
    assert (first.json["id"], first.json["mq_uri"]) == ("s.0", "mem::Topics::mine.logged")
    stream.close()


# Many of them.


def _resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def test_nothing_is_kept_of_positions_that_were_made_up(site: Guarded) -> None:
    """Some thousand requests of seven kilobytes each, a few at a time; afterwards there is nothing of them."""
    target = path("mem::Topics::mine.kept")

    async def storm(begin: int, number: int) -> None:
        for each in range(begin, begin + number):
            made = f"{each:08d}.{each}" if each % 2 else f"v.{each:06d}{each:08d}.1"
            joint = "/events?uri=mem::Topics::mine.kept&uri=mem::Topics::mine.other"
            made_up = {**site.as_("mallory"), "Last-Event-ID": made, "X-Padding": "x" * 7000}
            async with await Sse.open(site.port, joint if each % 3 else f"{target}/events", made_up):
                pass

    await asyncio.gather(*(storm(each * 1000, 100) for each in range(4)))
    before = _resident(site.gateway.pid)
    await asyncio.gather(*(storm(100_000 + each * 1000, 300) for each in range(4)))

    async def all_gone() -> bool:
        return int((await site.ask("boss", "GET", target)).json["readers"]) == 0

    await eventually(all_gone, "no reader left")
    assert _resident(site.gateway.pid) - before < 6 << 20
    assert (await site.ask("boss", "GET", target)).json["readers"] == 0
