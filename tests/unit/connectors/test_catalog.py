"""From `mq_type` to the class."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from app.connectors import catalog
from app.connectors.base import MQConnector
from app.connectors.catalog import GROUP, UnknownConnectorError, connector_class, known_types
from app.connectors.memory import MemoryMQConnector
from app.connectors.stomp.connector import StompMQConnector

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Stand in for installed packages: `install(Name="module:object")`."""

    def installed(**offers: str) -> None:
        points = EntryPoints(EntryPoint(name, value, GROUP) for name, value in offers.items())
        monkeypatch.setattr(catalog, "entry_points", lambda group: points.select(group=group))

    return installed


def test_our_own_are_installed() -> None:
    assert {"Memory", "Stomp"} <= set(known_types())
    assert connector_class("Memory") is MemoryMQConnector
    assert connector_class("Stomp") is StompMQConnector


def test_a_site_can_bring_its_own(install: Install) -> None:
    install(Kafka="app.connectors.memory:MemoryMQConnector", Amqp="app.connectors.memory:MemoryMQConnector")
    assert known_types() == ["Amqp", "Kafka"]
    assert connector_class("Kafka") is MemoryMQConnector


@pytest.mark.parametrize("mq_type", ["stomp", "STOMP", "", "Kafka"])
def test_an_unknown_type_names_the_known_ones(mq_type: str) -> None:
    with pytest.raises(UnknownConnectorError, match=r"installed are: .*Memory.*Stomp") as caught:
        connector_class(mq_type)
    assert repr(mq_type) in str(caught.value)


@pytest.mark.parametrize("offer", ["app.domain.uri:MqUri", "app.domain.uri:MAX_NAME_BYTES"])
def test_what_is_no_connector_is_refused(install: Install, offer: str) -> None:
    install(Odd=offer)
    with pytest.raises(UnknownConnectorError, match="'Odd' is not a subclass of MQConnector"):
        connector_class("Odd")


def test_the_abstract_class_itself_can_be_named(install: Install) -> None:
    install(Abstract="app.connectors.base:MQConnector")
    assert connector_class("Abstract") is MQConnector
