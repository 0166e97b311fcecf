"""The application: FastAPI's routes, our front before them, the gateway's life around them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.context import Context
from app.api.front import Front, Refusal
from app.api.management import Management
from app.api.routes import docs, health, metrics
from app.auth.watch import watching
from app.config.settings import Settings
from app.connectors.stomp.resolver import getaddrinfo
from app.domain.errors import GatewayError, Internal, MethodNotAllowed, NotFound
from app.gateway.gateway import Gateway
from app.gateway.reload import Load, Reloader
from app.telemetry.loop_lag import LoopLag
from app.telemetry.metrics import Metrics, gateway_version

logger = logging.getLogger("mq_gateway.app")


class GatewayApp(FastAPI):
    """FastAPI behind our front: what is hot never meets its router, middleware or error pages."""

    def __init__(self, context: Context) -> None:
        # The description of the API and its pages are ours (app.api.routes.docs), FastAPI's are off.
        super().__init__(
            title="mq-gateway",
            version=gateway_version(),
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            lifespan=_lifespan,
        )
        self.state.context = context

    def build_middleware_stack(self) -> ASGIApp:
        """The stack of FastAPI behind the front; called once, before the first request."""
        return Front(super().build_middleware_stack(), self.state.context)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. FastAPI's own would ask the environment at every request whether it should send telemetry."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def create_app(settings: Settings, load: Load | None = None, files: Sequence[Path] = ()) -> FastAPI:
    """The application for one configuration. It does no I/O before its lifespan starts.

    `app.state.gateway` is the Gateway while the lifespan runs; `await app.state.gateway_drain()` begins the end:
    not ready, no new work, every stream ends by itself. `await app.state.gateway_reload()` reads the configuration
    anew with `load`; without one there is nothing to read. When one of `files` changes, the policy is read from there.
    `app.state.management` is the application of the management port.
    """
    context = Context(settings, Metrics())
    app = GatewayApp(context)
    app.state.load = load
    app.state.files = tuple(files)
    app.state.management = Management(context)
    for routes in (health.router(context), metrics.router(context), docs.router(context)):
        app.include_router(routes)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(Exception, _refuse)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: Context = app.state.context
    async with (
        watching(context.authority, context.metrics, app.state.files, app.state.load, getaddrinfo),
        Gateway(context.settings, context.metrics) as gateway,
        _loop_lag(context),
    ):
        context.running = app.state.gateway = gateway
        app.state.gateway_drain = functools.partial(_drain, context, gateway)
        load: Load | None = app.state.load
        app.state.gateway_reload = None if load is None else Reloader(load, gateway, context.authority)
        try:
            yield
        finally:
            context.running = None


async def _drain(context: Context, gateway: Gateway) -> None:
    """Not ready at once; no new work after `server.drain_delay`, when load balancers have noticed."""
    context.stopping = True
    await asyncio.sleep(context.settings.server.drain_delay)
    await gateway.drain()


@contextlib.asynccontextmanager
async def _loop_lag(context: Context) -> AsyncIterator[None]:
    """Watch the loop; the watch ending by itself is a defect, and the process says so to its probe."""
    task = asyncio.create_task(LoopLag(context.metrics.loop_lag_seconds).run(), name="loop-lag")

    def failed(done: asyncio.Task[None]) -> None:
        if not done.cancelled():
            context.failure = "the watch over the event loop ended"
            logger.error("the watch over the event loop ended", exc_info=done.exception())

    task.add_done_callback(failed)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _refuse(_request: Request, error: Exception) -> Response:
    """What Starlette's router or a defect says, in our words."""
    return Refusal(_translated(error))


def _translated(error: Exception) -> GatewayError:
    if not isinstance(error, HTTPException):
        return Internal("the gateway failed; its log says why under the request id")
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "GET")
        methods = ", ".join(dict.fromkeys([*allow.split(", "), "HEAD"]))
        return MethodNotAllowed("this resource is only for reading", allow=methods)
    return NotFound("there is nothing at this path")
