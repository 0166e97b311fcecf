"""Attacks on readers: bodies and headers that look like fields of an event stream, and positions nobody was given."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.callers import Callers, bearer
from tests.e2e.http_client import Event, Sse, ask, get_json, post
from tests.e2e.live_gateway import LiveGateway, running, write_config
from tests.e2e.vitals import vitals

BODIES = {
    "a field of its own": b"x\nevent: gap\ndata: {}\n\n",
    "an end of the event": b"x\n\ndata: stolen\n\n",
    "an id": b"x\nid: 0-0\n\n",
    "a retry": b"retry: 1\n",
    "carriage returns": b"x\rdata: stolen\r\r",
    "both kinds of line ends": b"x\r\n\r\ndata: stolen\r\n\r\n",
    "a line feed before all": b"\n\ndata: stolen",
    "a colon before all": b": comment\n\n",
    "nothing but line ends": b"\n\n\n",
    "an end of text": b"x\0\nid: 1",
    "a mark of byte order": b"\xef\xbb\xbfdata: stolen\n\n",
    "a line separator": "x\u2028data: stolen\u2029".encode(),
    "next line": "x\u0085data: stolen".encode(),
    "a form feed": b"x\x0cdata: stolen\x0b\x1c",
    "no UTF-8": b"\xff\ndata: stolen\n\n\xfe",
    "a page": b"<script>alert(1)</script>",
    "our own events": b'event: unavailable\ndata: {"code":"draining","retry_ms":1}\n\n',
    "a chunk of HTTP": b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "nothing": b"",
}


#: What the reader may read.
OPEN = ("news", "more")


@dataclass
class Site:
    gateway: LiveGateway
    reader: str
    writer: str

    @property
    def port(self) -> int:
        return self.gateway.port


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    callers = Callers(tmp_path)
    reader, writer = callers.add("reader"), callers.add("writer")
    policy = [
        {
            "principals": ["reader"],
            "allow": ["subscribe", "look"],
            "uris": ["demo::Topics::news", "demo::Topics::more"],
        },
        {"principals": ["writer"], "allow": ["publish", "subscribe", "look"], "uris": ["demo::*"]},
    ]
    topics: dict[str, Any] = {"news": {}, "more": {}, "secret": {}}
    config = write_config(tmp_path, {"demo": {"mq_type": "Memory", "topics": topics}}, auth=callers.auth(policy=policy))
    async with running(config) as gateway:
        yield Site(gateway, reader, writer)


def lines(body: bytes) -> str:
    """A body as an event's data: each kind of line end is one of a stream (WHATWG HTML, section 9.2.6)."""
    return body.decode().replace("\r\n", "\n").replace("\r", "\n")


async def test_bodies_as_data(site: Site) -> None:
    stream = await Sse.open(site.port, "/mq/demo/Topics/news/events", bearer(site.reader))
    for case, body in BODIES.items():
        assert (await post(site.port, "/mq/demo/Topics/news", body, bearer(site.writer))).status == 200
        event = await following(stream)
        try:
            assert (event.name, event.data) == ("message", lines(body)), case
        except UnicodeDecodeError:
            assert (event.name, base64.b64decode(event.data)) == ("binary", body), case


@pytest.mark.parametrize("form", ["envelope", "cloudevents"])
async def test_bodies_and_headers_in_json(site: Site, form: str) -> None:
    """Also header values, types and ids of a message: each event is one object, with what was sent."""
    targets = [f"/mq/demo/Topics/news/events?format={form}", f"/events?uri=demo::Topics::news&format={form}"]
    streams = [await Sse.open(site.port, target, bearer(site.reader)) for target in targets]
    for case, body in BODIES.items():
        tricks = {
            "Content-Type": "text/plain; x=data: stolen",
            "Mq-Type": "x data: stolen",
            "Mq-Correlation-Id": "id: 1",
            "Mq-Headers": json.dumps({"note": "event: gap\u2028data: stolen \\n\\ndata: stolen"}),
        }
        answer = await post(site.port, "/mq/demo/Topics/news", body, {**bearer(site.writer), **tricks})
        if answer.status == 400:  # a separator of lines is no part of a header
            tricks.pop("Mq-Headers")
            answer = await post(site.port, "/mq/demo/Topics/news", body, {**bearer(site.writer), **tricks})
        assert answer.status == 200, answer
        for stream in streams:
            event = await following(stream)
            found = json.loads(event.data)
            sent = found["body"] if form == "envelope" else found.get("data", found.get("data_base64"))
            encoded = found.get("body_encoding") == "base64" or "data_base64" in found
            assert (base64.b64decode(sent) if encoded else sent.encode()) == body, (case, found)
            assert event.name == "message", case


async def following(stream: Sse) -> Event:
    """The next event that carries a message; nothing else may come between."""
    event = await stream.next()
    assert event.name in ("message", "binary"), event
    return event


async def test_a_name_is_no_field(site: Site) -> None:
    """What could be one cannot even be asked for."""
    for name in ("a%0Adata:%20stolen", "a%0D%0Adata:x", "a%00", "a%E2%80%A8data:x"):
        answer = await ask(site.port, "GET", f"/mq/demo/Topics/{name}/events", None, bearer(site.writer))
        assert (answer.status, answer.code) == (400, "invalid_name"), answer


POSITIONS = {
    "empty": "",
    "zero": "0",
    "not a number": "x",
    "negative": "EPOCH.-1",
    "a fraction": "EPOCH.1.5",
    "beyond all": "EPOCH.99999999999999999999",
    "2^63": "EPOCH.9223372036854775808",
    "digits of another script": "EPOCH.\u0661",
    "underscores": "EPOCH.1_0",
    "in hexadecimal": "EPOCH.0x1",
    "with a plus": "EPOCH.+1",
    "with spaces": "EPOCH. 1",
    "another epoch": "AAAAAAAA.1",
    "an epoch in other letters": "EPOCHS.1",
    "an offset of a stream": "s.1",
    "an offset beyond all": "s.18446744073709551616",
    "a vector": "v.AAAA",
    "very long": "EPOCH." + "1" * 5000,
    "a wildcard": "*",
    "SQL": "' OR 1=1 --",
    "a path": "../../etc/passwd",
    "JSON": '{"a":1}',
    "escapes": "EPOCH.1%0aevent:gap",
}


async def test_positions_that_were_never_given(site: Site) -> None:
    """Each is told of as a gap, or is as good as none; none is an error, and none is repeated to anybody."""
    first = await Sse.open(site.port, "/mq/demo/Topics/news/events", bearer(site.reader))
    for number in range(3):
        await post(site.port, "/mq/demo/Topics/news", f"m{number}", bearer(site.writer))
    epoch = (await first.take(3))[-1].id.partition(".")[0]
    for case, text in POSITIONS.items():
        position = text.replace("EPOCHS", epoch.swapcase() + "x").replace("EPOCH", epoch)
        headers = {**bearer(site.reader), "Last-Event-ID": position}
        stream = await Sse.open(site.port, "/mq/demo/Topics/news/events", headers)
        await post(site.port, "/mq/demo/Topics/news", case, bearer(site.writer))
        events = await stream.until(lambda event: event.data == case)  # noqa: B023 - awaited here
        gaps = [event.json["reason"] for event in events if event.name == "gap"]
        assert gaps == ([] if case == "empty" else ["restart"]), (case, events)
        assert {event.name for event in events} <= {"gap", "message"}
        stream.reset()
    first.reset()


async def test_a_vector_opens_nothing_else(site: Site) -> None:
    """An id of several destinations is bound to them, and gives nobody what the policy does not."""
    target = "/events?uri=demo::Topics::news&uri=demo::Topics::secret"
    stream = await Sse.open(site.port, target, bearer(site.writer))
    for topic in ("news", "secret"):
        await post(site.port, f"/mq/demo/Topics/{topic}", topic, bearer(site.writer))
    vector = (await stream.take(2))[-1].id
    headers = {**bearer(site.reader), "Last-Event-ID": vector}
    answer = await ask(site.port, "GET", target, None, headers)
    assert answer.status == 403, answer
    other = await Sse.open(site.port, "/events?uri=demo::Topics::news&uri=demo::Topics::more", headers)
    await post(site.port, "/mq/demo/Topics/more", "end", bearer(site.writer))
    seen = await other.until(lambda event: '"body":"end"' in event.data)
    assert not any("secret" in event.data for event in seen), seen
    for tampered in (vector[:-1], vector + "A", vector.swapcase(), vector[::-1], vector * 10):
        headers["Last-Event-ID"] = tampered
        await Sse.open(site.port, "/mq/demo/Topics/news/events", headers)


async def test_made_up_positions_are_not_kept(site: Site) -> None:
    before = vitals(site.gateway.pid).rss
    for number in range(1000):
        headers = {**bearer(site.reader), "Last-Event-ID": f"{number:08x}.{'9' * 900}"}
        answer = await ask(site.port, "HEAD", "/mq/demo/Topics/news/events", None, headers)
        assert answer.status == 200
    assert vitals(site.gateway.pid).rss - before < 16
    view = await get_json(site.port, "/mq/demo/Topics/news", bearer(site.reader))
    assert view["readers"] == 0
