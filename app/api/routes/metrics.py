"""`/metrics` for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api.context import Context
from app.telemetry.metrics import CONTENT_TYPE


def router(context: Context) -> APIRouter:
    """`/metrics`."""
    routes = APIRouter()

    @routes.get("/metrics")
    async def metrics() -> Response:
        """See `exposition`."""
        return exposition(context)

    return routes


def exposition(context: Context) -> Response:
    """All metrics in the text exposition format 0.0.4."""
    headers = {"cache-control": "no-store", "content-type": CONTENT_TYPE}
    return Response(context.metrics.render(), headers=headers)
