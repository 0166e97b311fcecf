"""Logging in at real brokers with what people really have as passwords, and not logging in."""

from __future__ import annotations

from typing import Any

import pytest

from app.config.settings import ServiceSettings
from app.gateway.probe import Finding, probe
from tests.brokers.fixtures import MakeActiveMQ
from tests.brokers.rabbitmq import RabbitMQ

AWKWARD = "p:a\\s\\\\w #ö€ "


async def findings(**settings: Any) -> list[Finding]:
    service = ServiceSettings.model_validate({"host": "127.0.0.1", **settings})
    return [finding async for finding in probe("svc", service)]


async def test_an_awkward_password_on_rabbitmq(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.add_user("awkward", AWKWARD)
    await rabbitmq.set_permissions("awkward")
    found = await findings(port=rabbitmq.port, user="awkward", password=AWKWARD)
    assert [finding.good for finding in found] == [True, True], found
    found = await findings(port=rabbitmq.port, user="awkward", password=AWKWARD + "x")
    assert "auth_failed" in found[1].text
    assert AWKWARD not in found[1].text


async def test_an_awkward_password_on_activemq(make_activemq: MakeActiveMQ) -> None:
    password = "p:a\\s #x"
    broker = await make_activemq(users={"awkward": password})
    found = await findings(port=broker.port, user="awkward", password=password)
    assert [finding.good for finding in found] == [True, True], found


@pytest.mark.parametrize(
    ("settings", "fault"),
    [({"password": "wrong"}, "auth_failed"), ({"vhost": "/missing"}, "vhost_denied")],
    ids=["password", "vhost"],
)
async def test_behaviour_12_13_a_refused_login_says_why(
    rabbitmq: RabbitMQ, settings: dict[str, str], fault: str
) -> None:
    login = {"user": "guest", "password": "guest", **settings}
    found = await findings(port=rabbitmq.port, **login)
    assert not found[1].good
    assert fault in found[1].text


async def test_a_line_end_in_a_password_goes_nowhere(rabbitmq: RabbitMQ) -> None:
    found = await findings(port=rabbitmq.port, user="guest", password="guest\nhost:/other")
    assert not found[1].good
    assert "line end" in found[1].text
