"""Reading the configuration anew: what is told, and what stays as it was."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from app.auth.authority import Authority
from app.config.errors import ConfigError, Problem
from app.config.loader import Loaded
from app.config.settings import Settings
from app.domain.errors import ConnectionLost, UnknownService
from app.domain.message import Publication
from app.domain.uri import MqUri
from app.gateway import closing
from app.gateway import reload as module
from app.gateway.gateway import Gateway
from app.gateway.reload import Reloader
from app.gateway.stream import Reader, StreamRequest
from app.gateway.topic import Topic
from app.gateway.topic_reader import TopicReader
from app.telemetry.metrics import Metrics
from tests.unit.gateway.fakes import turns

AUTHORITY = Authority(Settings(), Metrics())
MEMORY: dict[str, Any] = {"mq_type": "Memory", "queues": {"jobs": {}}, "topics": {"status": {}}}


def loaded(*warnings: str, services: dict[str, Any] | None = None, **sections: Any) -> Loaded:
    given = {"services": services or {"svc": MEMORY}, **sections}
    return Loaded(Settings.model_validate(given), warnings)


class Bench:
    """A gateway, and what its configuration is at the next reading."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.next: Callable[[], Loaded] = loaded

    async def reload(self, next_: Callable[[], Loaded]) -> bool:
        return await Reloader(next_, self.gateway, AUTHORITY)()

    @property
    def success(self) -> bool:
        return b"mq_gateway_config_reload_success 1.0" in self.gateway.metrics.render()

    async def open(self, text: str) -> Reader:
        destination = self.gateway.resolve(MqUri.parse(text))
        return await self.gateway.open_stream(destination, StreamRequest(), timeout=5)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(closing, "FAREWELL_SECONDS", 0)
    async with Gateway(loaded().settings) as gateway:
        yield Bench(gateway)


async def upstream_closed(topic: Topic) -> None:
    """Returns when a retired Topic has ended its subscription; a timer of no time and a task do that."""
    for _ in range(100):
        if topic._closing is not None:
            await topic._closing
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the subscription was not ended")


def ended(reader: Reader) -> str | None:
    return reader.take().end


async def test_what_changed_is_told_and_so_is_what_counts_later(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mq_gateway.reload")
    other = {"svc": {**MEMORY, "required": True}, "new": MEMORY}
    assert await bench.reload(lambda: loaded("careful", services=other, limits={"streams": 5}, server={"port": 1}))
    text = caplog.text
    assert "careful" in text
    assert "from the next start on: limits.streams, server.port" in text
    assert "added new; changed svc; unchanged: 0" in text
    assert bench.gateway.settings.limits.streams == 10_000
    assert bench.success
    assert await bench.reload(lambda: loaded(services={"new": MEMORY}))
    assert "removed svc" in caplog.text
    assert await bench.reload(lambda: loaded(services={"new": MEMORY}))
    assert "no news" in caplog.text


async def test_peers_count_at_once_and_another_secret_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mq_gateway.reload")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 32)
    auth = {"secret_file": secret}
    before = loaded(auth=auth)
    async with Gateway(before.settings) as gateway:
        assert await Reloader(
            lambda: loaded(auth=auth, server={"peers": ["a", "b:1"], "port": 1}), gateway, AUTHORITY
        )()
        assert gateway.settings.server.peers == ["a", "b:1"]
        assert "from the next start on: server.port" in caplog.text
        secret.write_bytes(b"y" * 32)
        assert await Reloader(lambda: loaded(auth=auth), gateway, AUTHORITY)()
        assert "from the next start on: auth.secret_file, which holds another secret" in caplog.text
        assert gateway.settings.server.peers == []
    async with Gateway(loaded().settings) as gateway:
        caplog.clear()
        assert await Reloader(lambda: loaded(auth=auth, server={"peers": ["a"]}), gateway, AUTHORITY)()
        assert "from the next start on: auth.secret_file, server.peers" in caplog.text
        assert gateway.settings.server.peers == []


async def test_what_cannot_be_read_changes_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> Loaded:
        raise ConfigError([Problem("not a port", "services.svc.port")])

    def broken() -> Loaded:
        raise RuntimeError("a defect")

    hung = threading.Event()

    def hangs() -> Loaded:
        hung.wait()
        return loaded()

    for failing, said in ((wrong, "not a port"), (broken, "reloading failed"), (hangs, "could not be read within")):
        monkeypatch.setattr(module, "LOAD_SECONDS", 0.1 if failing is hangs else 30)
        assert not await bench.reload(failing)
        assert said in caplog.text
        assert not bench.success
    hung.set()
    assert set(bench.gateway.settings.services) == {"svc"}
    assert await bench.reload(loaded)
    assert bench.success


async def test_streams_of_what_is_as_it_was_go_on_and_the_others_end(bench: Bench) -> None:
    topics: dict[str, Any] = {"same": {}, "other": {}, "gone": {}}
    queues: dict[str, Any] = {"same": {}, "other": {}, "gone": {}}
    await bench.reload(lambda: loaded(services={"svc": {**MEMORY, "topics": topics, "queues": queues}}))
    readers = {
        (kind, name): await bench.open(f"svc::{kind}::{name}") for kind in ("Topics", "Queues") for name in topics
    }
    changed = {"same": {}, "other": {"prefetch": 3}, "new": {"keep": True}}
    await bench.reload(lambda: loaded(services={"svc": {**MEMORY, "topics": changed, "queues": changed | {"new": {}}}}))
    ends = {key: ended(reader) for key, reader in readers.items()}
    assert {name for (_, name), end in ends.items() if end == "reload"} == {"other", "gone"}
    assert {name for (_, name), end in ends.items() if end is None} == {"same"}
    again = await bench.open("svc::Topics::other")
    old = readers["Topics", "other"]
    assert isinstance(again, TopicReader)
    assert isinstance(old, TopicReader)
    assert again._topic is not old._topic
    publication = Publication(body=b"x", message_id="1")
    destination = bench.gateway.resolve(MqUri.parse("svc::Topics::other"))
    await bench.gateway.publish(destination, publication, timeout=1)
    assert again.take().events == 1
    for reader in (*readers.values(), again):
        await reader.close()


async def test_a_topic_that_is_kept_is_let_go(bench: Bench) -> None:
    kept = {"svc": {**MEMORY, "topics": {"status": {"keep": True}}}}
    await bench.reload(lambda: loaded(services=kept))
    await turns()
    streams = bench.gateway._streams
    (topic,) = streams._topics.values()
    assert not topic.is_idle
    await bench.reload(loaded)
    assert streams._keepers == {}
    await upstream_closed(topic)
    assert topic.is_idle


async def test_who_opens_while_a_topic_is_retired_comes_back_to_the_new_one(bench: Bench) -> None:
    reader = await bench.open("svc::Topics::status")
    assert isinstance(reader, TopicReader)
    topic = reader._topic
    assert isinstance(topic, Topic)
    await bench.reload(lambda: loaded(services={"svc": {**MEMORY, "topics": {"status": {"prefetch": 5}}}}))
    late = await topic.open(StreamRequest(), 1)
    assert ended(late) == "reload"
    for each in (reader, late):
        await each.close()
    await upstream_closed(topic)
    assert topic.is_idle
    await bench.open("svc::Topics::status")
    assert bench.gateway._streams._retired == []


async def test_a_consumer_of_a_removed_service_is_told(bench: Bench) -> None:
    await bench.reload(lambda: loaded(services={"svc": MEMORY, "gone": MEMORY}))
    consumer = await bench.gateway.create_consumer("gone::Queues::jobs")
    other = await bench.gateway.create_consumer("svc::Queues::jobs")
    await bench.reload(loaded)
    with pytest.raises(ConnectionLost, match="configured otherwise"):
        await consumer.get(1)
    with pytest.raises(UnknownService):
        bench.gateway.service("gone")
    assert await other.get(0) is None
    await turns()
    assert b'link_up{service="gone"}' not in bench.gateway.metrics.render()


async def test_the_policy_counts_at_once(bench: Bench) -> None:
    rule = {"principals": ["dash"], "allow": ["look"], "uris": ["*"]}
    authority = Authority(Settings(), Metrics())
    assert await Reloader(lambda: loaded(auth={"policy": [rule]}), bench.gateway, authority)()
    assert [each.principals for each in authority.rules] == [["dash"]]
