"""A running gateway with a broker in memory, for handlers that need one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.api.context import Context
from app.config.settings import Settings
from app.gateway.gateway import Gateway
from app.telemetry.metrics import Metrics

SERVICES: dict[str, Any] = {
    "demo": {
        "mq_type": "Memory",
        "queues": {"jobs": {}, "text": {"default_content_type": "text/plain"}, "lax": {"check_json": False}},
        "topics": {"events": {}, "alerts": {"subscriptions": ["archiver", "mailer"]}},
    },
    "other": {"mq_type": "Memory", "queues": {"replies": {}}},
}


@pytest.fixture
async def context() -> AsyncIterator[Context]:
    settings = Settings.model_validate(
        {
            "server": {"allowed_origins": ["https://dash.example"]},
            "services": SERVICES,
            "limits": {"body_bytes": 1000, "publish_timeout_max": 2, "streams": 2},
        }
    )
    made = Context(settings, Metrics())
    async with Gateway(settings, made.metrics) as gateway:
        made.running = gateway
        yield made
