"""What handlers share."""

from __future__ import annotations

import pytest

from app.api.context import Context
from app.config.settings import Settings
from app.domain.errors import Draining
from app.telemetry.metrics import Metrics


def test_without_a_running_gateway_there_is_no_work() -> None:
    with pytest.raises(Draining, match="not running"):
        Context(Settings(), Metrics()).gateway  # noqa: B018 - the property raises


async def test_the_gateway_is_the_running_one(context: Context) -> None:
    assert context.gateway is context.running
