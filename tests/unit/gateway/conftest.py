"""A gateway in memory, and one whose connectors do as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.gateway import registry
from app.gateway.gateway import Gateway
from tests.unit.gateway.facade import settings_of
from tests.unit.gateway.fakes import FakeConnector


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(settings_of()) as gateway:
        yield gateway


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connectors that do as they are told."""
    monkeypatch.setattr(registry, "connector_class", lambda _mq_type: FakeConnector)
