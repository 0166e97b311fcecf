"""Probes. Live: should this process be restarted? Ready: should it get work? They are never the same question."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from app.api.context import Context
from app.api.problems import DEFAULT_RETRY_AFTER

READY = "ready"
_NO_STORE = {"cache-control": "no-store"}
_LATER = {**_NO_STORE, "retry-after": str(DEFAULT_RETRY_AFTER)}


def router(context: Context) -> APIRouter:
    """`/health/live` and `/health/ready`."""
    routes = APIRouter(prefix="/health")

    @routes.get("/live")
    async def live(_request: Request) -> JSONResponse:
        """See `is_live`."""
        return is_live(context)

    @routes.get("/ready")
    async def ready(_request: Request) -> JSONResponse:
        """See `is_ready`."""
        return is_ready(context)

    return routes


def is_live(context: Context) -> JSONResponse:
    """200 while the loop turns; 503 after a failure that only a restart heals. A broker down is none."""
    if context.failure is None:
        return JSONResponse({"status": "live"}, headers=_NO_STORE)
    return JSONResponse({"status": "failed", "detail": context.failure}, 503, _LATER)


def is_ready(context: Context) -> JSONResponse:
    """200 with the state of every link; 503 while draining and until required services have been up."""
    gateway = context.running
    links = {} if gateway is None else gateway.link_states()
    status = _readiness(context)
    body = {"status": status, "services": links}
    return JSONResponse(body, headers=_NO_STORE) if status == READY else JSONResponse(body, 503, _LATER)


def _readiness(context: Context) -> str:
    """One word: ready, draining, failed, or waiting for a required service."""
    gateway = context.running
    if gateway is None or gateway.draining or context.stopping:
        return "draining"
    if context.failure is not None:
        return "failed"
    return READY if gateway.ready() else "waiting"
