"""Links that do not come up: what clients, probes and an operator are told, and that nobody else suffers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.activemq import ActiveMQ
from tests.brokers.fixtures import MakeActiveMQ, Unique
from tests.brokers.process import free_port
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.tls import Authority
from tests.e2e.http_client import Sse, ask, get_json, post
from tests.e2e.live_gateway import MEMORY, LiveGateway, running, stomp, write_config

NOBODY: dict[str, Any] = {"mq_type": "Stomp", "host": "127.0.0.1", "allow_undeclared": True}
#: The loop's, and those in which names are looked up.
FEW_THREADS = 8
EVENT_SOURCE = {"Accept": "text/event-stream"}


async def failed(gateway: LiveGateway, service: str, timeout: float = 5) -> dict[str, str]:
    """The first error of a link."""
    await gateway.until_link(service, lambda view: view["last_error"] is not None, timeout)
    view = await gateway.link(service)
    assert view["link"] in ("down", "connecting")
    error: dict[str, str] = view["last_error"]
    return error


async def test_sse_case_37_a_broker_that_is_down(tmp_path: Path) -> None:
    dead = {**NOBODY, "port": free_port(), "reconnect": {"initial": 30, "max": 30}, "required": True}
    async with running(write_config(tmp_path, {"dead": dead, "mem": MEMORY})) as gateway:
        assert (await failed(gateway, "dead"))["code"] == "refused"
        await gateway.until_link("dead", lambda view: view["link"] == "down")
        for path in ("/mq/dead/Topics/a/events", "/mq/dead/Queues/a/events"):
            async with await Sse.open(gateway.port, path, EVENT_SOURCE) as stream:
                (event,) = await stream.rest()
                assert (event.name, event.json["code"]) == ("unavailable", "broker_unavailable")
                assert stream.parser.retry == event.json["retry_ms"]
                assert stream.headers["content-type"].startswith("text/event-stream")
            for accept in ("*/*", "text/event-stream, */*", "text/event-stream;q=0.9"):
                answer = await ask(gateway.port, "GET", path, None, {"Accept": accept})
                assert (answer.status, answer.code) == (503, "broker_unavailable"), accept
                assert 1 <= int(answer.headers["retry-after"]) <= 34  # 30 s and their jitter
                assert answer.json["retriable"] is True
        begun = time.monotonic()
        answer = await post(gateway.port, "/mq/dead/Queues/a", b"x")
        assert (answer.status, answer.code, answer.outcome) == (503, "broker_unavailable", "not_sent")
        assert int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() - begun < 1, "a link that is down answers at once"
        # What no broker changes is said before what the broker changes.
        assert (await ask(gateway.port, "GET", "/mq/none/Topics/a/events", None, EVENT_SOURCE)).status == 404
        assert (await post(gateway.port, "/mq/mem/Queues/a", b"x")).status == 200
        assert (await ask(gateway.port, "GET", "/health/live")).status == 200
        assert (await ask(gateway.port, "GET", "/health/ready")).status == 503


async def test_ready_once_it_has_been_up_and_then_for_good(make_activemq: MakeActiveMQ, tmp_path: Path) -> None:
    broker = await make_activemq(start=False)
    services = {"mq": stomp(broker, required=True), "mem": MEMORY}
    async with running(write_config(tmp_path, services)) as gateway:
        assert (await failed(gateway, "mq"))["code"] == "refused"
        assert (await ask(gateway.port, "GET", "/health/ready")).status == 503
        await broker.start()
        await gateway.until_up("mq")
        ready = await ask(gateway.port, "GET", "/health/ready")
        assert ready.status == 200
        assert "up" in ready.body.decode()
        await broker.kill()
        await gateway.until_link("mq", lambda view: view["link"] != "up")
        assert (await ask(gateway.port, "GET", "/health/ready")).status == 200


async def test_not_required_is_ready_at_once(tmp_path: Path) -> None:
    dead = {**NOBODY, "port": free_port()}
    async with running(write_config(tmp_path, {"dead": dead})) as gateway:
        assert (await ask(gateway.port, "GET", "/health/ready")).status == 200


@pytest.mark.parametrize("option", ["ca_file", "cert_file"])
async def test_behaviour_17_a_missing_certificate_file_is_an_error_at_start(tmp_path: Path, option: str) -> None:
    missing = tmp_path / "nowhere.pem"
    config = write_config(tmp_path, {"mq": {**NOBODY, "tls": {option: str(missing)}}, "mem": MEMORY})
    begun = time.monotonic()
    gateway = LiveGateway(config)
    try:
        assert await gateway.ended(20) == 1
    finally:
        gateway.kill()
    said = gateway.log.read_text()
    assert option in said
    assert "nowhere.pem" in said
    assert "Traceback" not in said
    assert time.monotonic() - begun < 20


async def test_behaviour_17_tls(rabbitmq: RabbitMQ, authority: Authority, tmp_path: Path, unique: Unique) -> None:
    _, _, port = rabbitmq.tls_address.rpartition(":")
    stranger = Authority(tmp_path / "stranger")
    tls = {**stomp(rabbitmq), "host": "localhost", "port": int(port)}
    services = {
        "good": {**tls, "tls": {"ca_file": str(authority.ca_file)}},
        "system": {**tls, "tls": True},
        "stranger": {**tls, "tls": {"ca_file": str(stranger.ca_file)}},
        "name": {**tls, "tls": {"ca_file": str(authority.ca_file), "server_name": "broker.example"}},
        "plain": {**tls, "port": rabbitmq.port, "tls": {"ca_file": str(authority.ca_file)}, "connect_timeout": 2},
        "mem": MEMORY,
    }
    async with running(write_config(tmp_path, services)) as gateway:
        await gateway.until_up("good")
        path = f"/mq/good/Topics/{unique('tls')}"
        async with await Sse.open(gateway.port, f"{path}/events") as stream:
            assert (await post(gateway.port, path, "over TLS")).status == 200
            assert (await stream.next()).data == "over TLS"
        for service in ("system", "stranger", "name"):
            error = await failed(gateway, service)
            assert error["code"] == "tls_verify", (service, error)
        assert (await failed(gateway, "plain"))["code"] in ("tls", "closed_by_broker", "timeout")


#: One attempt, and then none for as long as a test runs.
ONCE = {"initial": 60, "max": 60}


async def refused_at_once(gateway: LiveGateway, service: str, code: str, reason: str) -> None:
    """The reason is known within two seconds, and a publish is told what the broker said."""
    assert (await failed(gateway, service, 2))["code"] == code
    await gateway.until_link(service, lambda view: view["link"] == "down", 2)
    answer = await post(gateway.port, f"/mq/{service}/Queues/a", b"x")
    assert (answer.status, answer.code, answer.outcome) == (503, "broker_unavailable", "not_sent")
    assert reason in answer.json["detail"], answer
    assert int(answer.headers["retry-after"]) >= 1


async def test_behaviour_12_13_wrong_password_and_missing_vhost(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    secret = "correct horse battery"
    services = {
        "password": stomp(rabbitmq, password=secret, reconnect=ONCE),
        "user": stomp(rabbitmq, user="nobody", reconnect=ONCE),
        "vhost": stomp(rabbitmq, vhost="/missing", reconnect=ONCE),
        "good": stomp(rabbitmq),
    }
    async with running(write_config(tmp_path, services)) as gateway:
        await refused_at_once(gateway, "password", "auth_failed", "Access refused for user 'guest'")
        await refused_at_once(gateway, "user", "auth_failed", "Access refused for user 'nobody'")
        await refused_at_once(gateway, "vhost", "vhost_denied", "Virtual host '/missing' access denied")
        await gateway.until_up("good")
        shown = (await ask(gateway.port, "GET", "/mq")).body + (
            await post(gateway.port, "/mq/password/Queues/a", b"x")
        ).body
        assert secret.encode() not in shown + gateway.log.read_bytes()
        # RabbitMQ would hold a refused connection for ten seconds; only the good one is left.
        assert len(gateway.broker_ports(rabbitmq)) == 1
        assert gateway.threads() <= FEW_THREADS


async def test_behaviour_12_wrong_password_at_activemq(activemq: ActiveMQ, tmp_path: Path) -> None:
    service = stomp(activemq, password="wrong", reconnect=ONCE)
    async with running(write_config(tmp_path, {"mq": service})) as gateway:
        await refused_at_once(gateway, "mq", "auth_failed", "password is invalid")
        assert gateway.broker_ports(activemq) == set()
        assert gateway.threads() <= FEW_THREADS


@contextlib.asynccontextmanager
async def silent_broker() -> AsyncIterator[int]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def test_behaviour_14_a_broker_that_accepts_and_says_nothing(tmp_path: Path) -> None:
    async with silent_broker() as port:
        silent = {**NOBODY, "port": port, "connect_timeout": 4, "reconnect": ONCE}
        services = {"silent": silent, "mem": MEMORY}
        async with running(write_config(tmp_path, services)) as gateway:
            assert (await gateway.link("silent"))["link"] == "connecting"
            started = begun = time.monotonic()
            waiting = asyncio.create_task(post(gateway.port, "/mq/silent/Queues/a?timeout=1", b"x"))
            opening = {
                headers.get("Accept", ""): asyncio.create_task(
                    ask(gateway.port, "GET", f"/mq/silent/{kind}/a/events", None, headers)
                )
                for kind, headers in (("Topics", {"Accept": "*/*"}), ("Queues", {"Accept": "text/event-stream, */*"}))
            }
            while not waiting.done():
                asked = time.monotonic()
                assert (await post(gateway.port, "/mq/mem/Queues/a", b"x")).status == 200
                assert (await ask(gateway.port, "GET", "/health/live")).status == 200
                assert time.monotonic() - asked < 0.5
                await asyncio.sleep(0.02)
            answer = await waiting
            assert (answer.status, answer.code, answer.outcome) == (503, "broker_unavailable", "not_sent")
            assert 1 <= time.monotonic() - begun < 2
            for accept, task in opening.items():
                refused = await task
                assert (refused.status, refused.code) == (503, "broker_unavailable"), accept
            assert (await failed(gateway, "silent", 5))["code"] == "timeout"
            # The attempt began while the process started, a little before the clock of this test.
            assert 2 < time.monotonic() - started < 5
            assert gateway.ports_at(port) == set(), "nothing is left of the attempt"


async def test_a_name_that_does_not_resolve_and_a_broker_that_hangs_up(tmp_path: Path) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    services = {"name": {**NOBODY, "host": "no-such-host.invalid"}, "rude": {**NOBODY, "port": port}, "mem": MEMORY}
    async with server, running(write_config(tmp_path, services)) as gateway:
        assert (await failed(gateway, "name"))["code"] == "dns"
        assert (await failed(gateway, "rude"))["code"] == "closed_by_broker"
        everything = await get_json(gateway.port, "/mq")
        assert {view["service"]: view["link"] for view in everything["services"]}["mem"] == "up"
