"""Probes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from app.api.context import Context
from app.api.routes import health


async def _ask(context: Context, path: str) -> tuple[int, dict[str, Any]]:
    (route,) = [route for route in health.router(context).routes if getattr(route, "path", "") == path]
    endpoint = cast("Callable[..., Awaitable[JSONResponse]]", cast("APIRoute", route).endpoint)
    response = await endpoint(None)
    assert response.headers["cache-control"] == "no-store"
    assert ("retry-after" in response.headers) is (response.status_code == 503)
    return response.status_code, json.loads(bytes(response.body))


async def test_live_until_something_cannot_heal(context: Context) -> None:
    assert await _ask(context, "/health/live") == (200, {"status": "live"})
    context.failure = "the watch ended"
    assert await _ask(context, "/health/live") == (503, {"status": "failed", "detail": "the watch ended"})
    status, body = await _ask(context, "/health/ready")
    assert (status, body["status"]) == (503, "failed")


async def test_ready_with_the_state_of_every_link(context: Context) -> None:
    status, body = await _ask(context, "/health/ready")
    assert (status, body["status"]) == (200, "ready")
    assert body["services"].keys() == {"demo", "other"}


async def test_not_ready_from_the_moment_of_the_signal(context: Context) -> None:
    context.stopping = True
    status, body = await _ask(context, "/health/ready")
    assert (status, body["status"]) == (503, "draining")


async def test_not_ready_while_draining_nor_without_a_gateway(context: Context) -> None:
    await context.gateway.drain()
    assert (await _ask(context, "/health/ready"))[1]["status"] == "draining"
    context.running = None
    assert await _ask(context, "/health/ready") == (503, {"status": "draining", "services": {}})
    assert (await _ask(context, "/health/live"))[0] == 200
