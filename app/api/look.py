"""GET /mq and below: what is connected, to what, and how much went through. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import asdict

from app.api import query
from app.api.answer import json_answer
from app.api.context import Context
from app.api.exchange import Exchange
from app.api.paths import Kind, Route
from app.domain.errors import NotFound, UnknownService
from app.domain.message import rfc3339
from app.domain.uri import MqUri
from app.telemetry.metrics import gateway_version


class Look:
    """The handlers of the three views."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._version = gateway_version()

    def check(self, exchange: Exchange, route: Route) -> None:
        """Whether the caller may look at all services, or at one; raises what a Caller raises."""
        caller = exchange.caller
        if route.kind is Kind.SERVICE:
            if not caller.sees_service(route.service):
                caller.refuse(f"look at {route.service}", UnknownService(f"no service is called {route.service!r}"))
        elif not caller.may_look():
            caller.refuse("look at anything", NotFound("there is nothing at this path"))

    async def services(self, exchange: Exchange, route: Route) -> None:
        """All services, or one; raises UnknownService."""
        _no_parameters(exchange)
        gateway = self._context.gateway
        caller = exchange.caller
        if route.kind is Kind.SERVICE:
            await exchange.answer(json_answer(asdict(gateway.service(route.service, caller))))
            return
        everything = {
            "instance": gateway.instance,
            "version": self._version,
            "started_at": rfc3339(gateway.started_at),
            "draining": gateway.draining,
            "services": [asdict(view) for view in gateway.services(caller)],
        }
        await exchange.answer(json_answer(everything))

    async def destination(self, exchange: Exchange, uri: MqUri) -> None:
        """One destination; raises UnknownService, UnknownDestination."""
        _no_parameters(exchange)
        gateway = self._context.gateway
        exchange.access.mq_uri = str(uri)
        await exchange.answer(json_answer(asdict(gateway.destination_view(gateway.resolve(uri, exchange.caller)))))


def _no_parameters(exchange: Exchange) -> None:
    """Views take none; raises InvalidParameter, as everywhere where a parameter is misplaced."""
    query.parse(exchange.scope["query_string"], ())
