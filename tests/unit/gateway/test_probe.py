"""`check --connect`, against a broker of a few lines on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.config.settings import ServiceSettings
from app.connectors.stomp import addresses
from app.domain.link import LinkError, LinkFault, LinkStatus
from app.gateway import probe as module
from app.gateway.probe import Finding, probe
from tests.stomp_frames import Frame, FrameReader
from tests.unit.gateway.fakes import FakeConnector

Answer = Callable[[Frame], bytes]
Start = Callable[[Answer], Any]

CONNECTED = Frame("CONNECTED", {"version": "1.2", "server": "RabbitMQ/3.10.8", "heart-beat": "0,0"}).encode()


def _polite(frame: Frame) -> bytes:
    if frame.command == "CONNECT":
        return CONNECTED
    return Frame("RECEIPT", {"receipt-id": frame["receipt"]}).encode()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a broker that answers each frame; the port it listens on."""
    servers: list[asyncio.Server] = []

    async def started(answer: Answer) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            frames = FrameReader()
            while data := await reader.read(4096):
                for frame in frames.feed(data):
                    writer.write(answer(frame))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield started
    for server in servers:
        server.close()


async def _findings(**settings: Any) -> list[Finding]:
    service = ServiceSettings.model_validate({"host": "127.0.0.1", "connect_timeout": 5, **settings})
    return [finding async for finding in probe("svc", service)]


async def test_a_broker_that_takes_us(start: Start) -> None:
    port = await start(_polite)
    assert await _findings(port=port, user="dirac", password="not shown", vhost="/site") == [
        Finding(True, f"addresses: 127.0.0.1:{port}"),
        Finding(True, f"127.0.0.1:{port}: plain TCP, RabbitMQ/3.10.8, logged in as dirac, vhost /site"),
    ]


async def test_nobody_logs_in_where_no_user_is_configured(start: Start) -> None:
    port = await start(_polite)
    assert "logged in as nobody" in (await _findings(port=port))[1].text


async def test_a_broker_without_a_name(start: Start) -> None:
    port = await start(
        lambda frame: Frame("CONNECTED", {"version": "1.2"}).encode() if frame.command == "CONNECT" else _polite(frame)
    )
    assert "unnamed broker" in (await _findings(port=port))[1].text


async def test_streams_need_a_broker_that_has_them(start: Start) -> None:
    topics = {"alerts": {"replay": "stream"}, "plain": {}}
    port = await start(_polite)
    assert all(finding.good for finding in await _findings(port=port, topics=topics))
    active = Frame("CONNECTED", {"version": "1.2", "server": "ActiveMQ/5.17.2"}).encode()
    port = await start(lambda frame: active if frame.command == "CONNECT" else _polite(frame))
    found = (await _findings(port=port, topics=topics))[1]
    assert not found.good
    assert "ActiveMQ/5.17.2 has no streams, which `replay: stream` of alerts needs" in found.text


async def test_subscriptions_need_a_broker_that_keeps_them(start: Start) -> None:
    topics = {"alerts": {"subscriptions": ["archiver"]}}
    active = Frame("CONNECTED", {"version": "1.2", "server": "ActiveMQ/5.17.2"}).encode()
    port = await start(lambda frame: active if frame.command == "CONNECT" else _polite(frame))
    found = (await _findings(port=port, topics=topics))[1]
    assert not found.good
    assert "ActiveMQ/5.17.2 cannot do what is configured" in found.text
    assert "client_id" in found.text
    assert all(finding.good for finding in await _findings(port=port, topics=topics, client_id="gateway"))


async def test_each_address_is_tried_on_its_own(start: Start) -> None:
    port = await start(_polite)
    refused = await start(lambda _frame: Frame("ERROR", {"message": "Bad CONNECT"}, b"Access refused").encode())
    found = await _findings(host=None, hosts=[f"127.0.0.1:{refused}", f"127.0.0.1:{port}"], password="not shown")
    assert [finding.good for finding in found] == [True, False, True]
    assert "Bad CONNECT" in found[1].text
    assert "(auth_failed)" in found[1].text
    assert "not shown" not in str(found)


async def test_a_name_that_does_not_resolve_ends_the_probe() -> None:
    (finding,) = await _findings(host="a..b")
    assert not finding.good
    assert finding.text.startswith("names: a..b: ")


async def test_names_that_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_name: str, _port: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(addresses, "lookup", hang)
    assert await _findings(connect_timeout=0.01) == [Finding(False, "names: 127.0.0.1: not resolved in time")]


async def test_a_broker_that_does_not_say_goodbye_is_good_all_the_same(start: Start) -> None:
    port = await start(lambda frame: CONNECTED if frame.command == "CONNECT" else b"")
    assert [finding.good for finding in await _findings(port=port, connect_timeout=0.5)] == [True, True]


# Other connectors.


class Fake(FakeConnector):
    """One that comes up, or does not, and writes down that it was closed."""

    made: Fake
    comes_up = True
    error: LinkError | None = None

    async def start(self) -> None:
        Fake.made = self
        if self.comes_up:
            await super().start()

    @property
    def status(self) -> LinkStatus:
        return LinkStatus(state=self.state, since=0.0, last_error=self.error)


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    kind = type("Kind", (Fake,), {})
    monkeypatch.setattr(module, "connector_class", lambda _mq_type: kind)
    return kind


async def test_memory_is_up() -> None:
    assert await _findings(mq_type="Memory", host=None) == [Finding(True, "Memory: up, Memory")]


async def test_another_connector_that_comes_up(other: type[Fake]) -> None:
    assert await _findings(mq_type="Kafka") == [Finding(True, "Kafka: up, unnamed broker")]
    assert other.made.closed == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, "no answer in time"), (LinkError(LinkFault.REFUSED, "nobody listens", 0.0), "nobody listens")],
)
async def test_another_connector_that_does_not(other: type[Fake], error: LinkError | None, text: str) -> None:
    other.comes_up, other.error = False, error
    assert await _findings(mq_type="Kafka", connect_timeout=0.01) == [Finding(False, f"Kafka: not up: {text}")]
    assert other.made.closed == 1
