"""Behaviours that need a RabbitMQ of their own: certificates as logins, and the memory alarm."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config.settings import ServiceSettings
from app.gateway.probe import probe
from tests.brokers.fixtures import ConnectStomp, Unique, private
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.run import Run
from tests.e2e.http_client import Sse, ask, connections, eventually, post
from tests.e2e.live_gateway import MEMORY, running, stomp, write_config

_CONFIG = {"stomp.ssl_cert_login": "true", "ssl_cert_login_from": "common_name"}


@pytest.fixture(scope="module")
def own_rabbitmq(run: Run) -> Iterator[RabbitMQ]:
    """One for this file."""
    with private(RabbitMQ, run, config=_CONFIG) as broker:
        yield broker


pytestmark = pytest.mark.rabbitmq


async def test_behaviour_19_a_certificate_is_the_login(own_rabbitmq: RabbitMQ, tmp_path: Path, unique: Unique) -> None:
    authority = own_rabbitmq.authority
    await own_rabbitmq.add_user("robot", "unused")
    await own_rabbitmq.set_permissions("robot")
    host, _, port = own_rabbitmq.tls_address.partition(":")
    plain = {"mq_type": "Stomp", "host": host, "port": int(port), "allow_undeclared": True}
    services = {}
    for name in ("robot", "nobody"):
        issued = authority.client(name)
        files = {"cert_file": str(issued.cert_file), "key_file": str(issued.key_file)}
        services[name] = {
            **plain,
            "tls": {"ca_file": str(authority.ca_file), **files},
            "reconnect": {"initial": 60, "max": 60},
        }
    async with running(write_config(tmp_path, services), DIRAC_DEBUG_STOMP="yes") as gateway:
        await gateway.until_up("robot")
        path = f"/mq/robot/Queues/{unique('cert')}"
        assert (await post(gateway.port, path, b"x")).status == 200
        # It is the name in the certificate that RabbitMQ knows us by, and one it does not know is refused.
        logins = (await own_rabbitmq.ctl("list_stomp_connections", "auth_login")).split()
        assert logins.count("robot") == 1
        await gateway.until_link("nobody", lambda view: view["last_error"] is not None)
        assert (await gateway.link("nobody"))["last_error"]["code"] == "auth_failed"
        connects = [line for line in gateway.log.read_text().splitlines() if "CONNECT " in line]
        assert len(connects) >= 2
        assert not any("login" in line or "passcode" in line for line in connects), connects
    found = [finding async for finding in probe("robot", ServiceSettings.model_validate(services["robot"]))]
    assert found[1].good, found
    assert "TLSv1" in found[1].text


async def test_behaviour_35_a_memory_alarm_on_one_connection_ends_posts_in_time_and_passes(
    own_rabbitmq: RabbitMQ, tmp_path: Path, stomp_client: ConnectStomp, unique: Unique
) -> None:
    """With one connection for everything RabbitMQ reads neither publishes nor acks while the alarm lasts."""
    jobs, work, news = (f"/mq/mq/Queues/{unique('jobs')}", unique("work"), f"/mq/mq/Topics/{unique('news')}")
    async with running(write_config(tmp_path, {"mq": stomp(own_rabbitmq), "mem": MEMORY})) as gateway:
        await gateway.until_up("mq")
        client = await stomp_client(own_rabbitmq)
        for number in range(30):
            await client.send(f"/queue/{work}", f"{number}")
        topic = await Sse.open(gateway.port, f"{news}/events")
        assert (await post(gateway.port, jobs, b"before")).status == 200
        await own_rabbitmq.memory_alarm(True)
        try:
            begun = time.monotonic()
            async with connections(gateway.port, 20) as https:
                answers = await asyncio.gather(
                    *(http.ask("POST", f"{jobs}?timeout=1", b"%d" % n) for n, http in enumerate(https))
                )
                # The first SEND may still be taken: then the connection is one that publishes, and blocked.
                answers += await asyncio.gather(*(http.ask("POST", f"{jobs}?timeout=1", b"late") for http in https))
            assert time.monotonic() - begun < 5
            assert (await post(gateway.port, "/mq/mem/Queues/a", b"x")).status == 200
            assert (await ask(gateway.port, "GET", "/health/live")).status == 200
        finally:
            await own_rabbitmq.memory_alarm(False)
        seen = Counter((answer.status, answer.outcome) for answer in answers)
        assert set(seen) <= {(200, "confirmed"), (503, "not_sent"), (504, "unknown")}
        assert seen[504, "unknown"] + seen[503, "not_sent"] >= 20

        async def published() -> bool:
            return (await post(gateway.port, jobs, b"after")).status == 200

        await eventually(published, "a publish after the alarm")
        assert (await post(gateway.port, news, b"after")).status == 200
        seen_by_topic = await topic.until(lambda event: event.data == "after")
        assert [event.name for event in seen_by_topic if event.name != "message"] in ([], ["gap"])
        async with await Sse.open(gateway.port, f"/mq/mq/Queues/{work}/events") as stream:
            assert sorted(int(event.data) for event in await stream.take(30)) == list(range(30))
        confirmed = {b"%d" % n for n, answer in enumerate(answers[:20]) if answer.status == 200}
        await client.subscribe(jobs.replace("/mq/mq/Queues/", "/queue/"))
        found = set()
        while b"after" not in found:
            found.add((await client.next_message())[1])
        assert confirmed <= found
