"""/metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from fastapi import Response
from fastapi.routing import APIRoute

from app.api.context import Context
from app.api.routes import metrics


async def test_metrics_are_text_for_prometheus(context: Context) -> None:
    (route,) = metrics.router(context).routes
    endpoint = cast("Callable[[], Awaitable[Response]]", cast("APIRoute", route).endpoint)
    response = await endpoint()
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"mq_gateway_build_info{" in bytes(response.body)
