"""The outermost ASGI application: every request passes here first, and every answer has been here.

What is hot (publish, event streams) and everything under /mq is served from here on raw ASGI; pages, health and
metrics go on to FastAPI's router. Whatever happens, the client gets an answer of ours: a problem, never a text
or a traceback.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import paths, settle
from app.api.answer import Answer, Header
from app.api.batch import Batch
from app.api.context import Context
from app.api.events import Events, verb_of
from app.api.exchange import ClientGone, Exchange
from app.api.guard import Guard
from app.api.identification import Identification
from app.api.look import Look
from app.api.paths import METHODS, Kind, Route
from app.api.peer_leases import PeerLeases
from app.api.publish import Publish
from app.api.receive import Receiving
from app.api.request_reply import RequestReply
from app.api.sign_in import Session, Ticket
from app.domain.errors import GatewayError, Internal, InvalidCredentials, MethodNotAllowed, NotFound
from app.domain.principal import Verb
from app.domain.uri import MqUri
from app.telemetry import access
from app.wire import harmless

logger = logging.getLogger("mq_gateway.api")

#: Where the exchange is found in the scope of what FastAPI serves.
EXCHANGE = "mq_gateway.exchange"

_NO_CONTENT = Answer(status=204, content_type=b"text/plain", body=b"", headers=())


#: What each resource of a destination asks for; streams by their type, and POST on a destination is to publish.
VERBS = {
    Kind.DESTINATION: Verb.LOOK,
    Kind.EVENTS: Verb.SUBSCRIBE,
    Kind.BATCH: Verb.PUBLISH,
    Kind.REQUEST: Verb.PUBLISH,
    Kind.RECEIVE: Verb.TAKE,
    Kind.ACK: Verb.TAKE,
    Kind.NACK: Verb.TAKE,
    Kind.RENEW: Verb.TAKE,
}
#: Pages that everybody may see. Of what is configured they tell the names of services and the state of their links.
OPEN_PAGES = frozenset({"/", "/docs", "/openapi.json", "/health/live", "/health/ready"})
#: Files of these pages lie below.
OPEN_FOLDERS = ("/docs/",)


def is_open_page(route: Route) -> bool:
    """Whether nobody is asked who they are for this."""
    return route.kind is Kind.PAGE and (route.path in OPEN_PAGES or route.path.startswith(OPEN_FOLDERS))


def is_sign_out(exchange: Exchange, route: Route) -> bool:
    """Whether somebody, whoever it is, wants to be nobody."""
    return route.kind is Kind.SESSION and exchange.method == "DELETE"


def verb_for(kind: Kind, uri: MqUri, method: str) -> Verb:
    """What has to be allowed; a method that is not for this resource asks for as much as its nearest."""
    if kind is Kind.EVENTS:
        return verb_of(uri)
    return Verb.PUBLISH if kind is Kind.DESTINATION and method not in ("GET", "HEAD") else VERBS[kind]


class Refusal(Response):
    """A problem as FastAPI's error handlers return it: rendered by the exchange, as everywhere."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__()
        self._error = error

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """ASGI, within what the front has begun."""
        exchange: Exchange = scope[EXCHANGE]
        await exchange.refuse(self._error)


class Front:
    """Guards, dispatches, answers errors, writes the log line."""

    def __init__(self, pages: ASGIApp, context: Context) -> None:
        self._pages = pages
        self._context = context
        self._guard = Guard(context.settings)
        self._root = context.settings.server.root_path
        self._publish = Publish(context)
        self._events = Events(context)
        self._look = Look(context)
        self._peer_leases = PeerLeases(context)
        self._handlers: dict[Kind, Callable[[Exchange, MqUri], Awaitable[None]]] = {
            Kind.DESTINATION: self._look.destination,
            Kind.EVENTS: self._events,
            Kind.BATCH: Batch(context),
            Kind.REQUEST: RequestReply(context, self._publish),
            Kind.RECEIVE: Receiving(context),
            Kind.ACK: settle.Ack(context),
            Kind.NACK: settle.Nack(context),
            Kind.RENEW: settle.Renew(context),
        }
        self._identify = Identification(context.authority)
        self._session = Session(context, context.authority)
        self._new_ticket = Ticket(context, context.authority)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Lifespan goes on to FastAPI; there are no WebSockets here."""
        if scope["type"] == "lifespan":
            await self._pages(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(Exchange(scope, receive, send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, exchange: Exchange) -> None:
        try:
            await self._serve(exchange)
        except GatewayError as error:
            if exchange.publish:
                self._publish.refused(exchange)
            await exchange.refuse(error)
        except ClientGone:
            exchange.access.reason = "client"
        except Exception:
            # The client learns the id under which the traceback is found here.
            logger.exception("request %s failed", exchange.request_id.decode())
            if exchange.answered and not exchange.complete:
                raise  # half an answer: only the server can still end it
            await exchange.refuse(Internal("the gateway failed; its log says why under the request id"))
        finally:
            access.log(exchange.access)

    async def _serve(self, exchange: Exchange) -> None:
        """Host and origin before anything else: a page from elsewhere learns nothing, not even which paths are.

        What replicas say to each other is under a seal, which says more than both.
        """
        path = paths.without_root(exchange.access.path, self._root)
        if self._peer_leases.serves(path):
            await self._peer_leases(exchange)
            return
        exchange.publish = exchange.method == "POST" and paths.is_publish(path)
        exchange.cors = self._guard.cors(exchange.headers)
        server = exchange.scope.get("server")
        self._guard.check_host(exchange.headers, server[0] if server else None)
        if exchange.method == "OPTIONS" and await self._preflight(exchange):
            return
        self._guard.check_method(exchange.headers, exchange.method)
        await self._dispatch(exchange, await self._route(exchange, path))

    async def _route(self, exchange: Exchange, path: str) -> Route:
        """What the path means, and who asks; on the short list of open pages nobody is asked that.

        Whoever is unknown learns of nothing else whether it is there, not even what a name may be.
        """
        try:
            route = paths.parse(path)
        except GatewayError:
            await self._identify(exchange, None)
            exchange.caller.require_known()
            raise
        if is_sign_out(exchange, route):
            # Also with a cookie that does not hold any more: else it could not be got rid of.
            with contextlib.suppress(InvalidCredentials):
                await self._identify(exchange, route)
        elif not is_open_page(route):
            await self._identify(exchange, route)
            exchange.caller.require_meant()
        return route

    async def _preflight(self, exchange: Exchange) -> bool:
        extra = self._guard.preflight(exchange.headers)
        if extra is None:
            return False
        # One Vary, the longer one.
        exchange.cors = tuple(header for header in exchange.cors if header[0] != b"vary") + extra
        await exchange.answer(_NO_CONTENT)
        return True

    async def _dispatch(self, exchange: Exchange, route: Route) -> None:
        if route.kind is Kind.PAGE:
            self._check_page(exchange, route)
            await self._page(exchange, route.path)
            return
        if route.uri is not None:
            self._check_destination(exchange, route.kind, route.uri)
        elif route.kind in (Kind.SERVICES, Kind.SERVICE):
            self._look.check(exchange, route)
        methods = METHODS[route.kind]
        if exchange.method not in methods:
            raise MethodNotAllowed(f"{exchange.method} is not for this resource", allow=", ".join(methods))
        if route.kind is Kind.SESSION:
            await self._session(exchange)
        elif route.kind is Kind.TICKET:
            await self._new_ticket(exchange)
        elif route.kind is Kind.JOINT_EVENTS:
            await self._events.several(exchange, partial(self._check_stream, exchange))
        elif route.uri is None:
            await self._look.services(exchange, route)
        else:
            await self._destination(exchange, route.kind, route.uri)

    def _check_destination(self, exchange: Exchange, kind: Kind, uri: MqUri) -> None:
        """Before anything else is looked at, also the method: whoever may nothing learns nothing."""
        if kind is Kind.EVENTS:
            self._check_stream(exchange, uri)
        exchange.caller.require(verb_for(kind, uri, exchange.method), uri)

    async def _destination(self, exchange: Exchange, kind: Kind, uri: MqUri) -> None:
        is_publish = kind is Kind.DESTINATION and exchange.method == "POST"
        await (self._publish if is_publish else self._handlers[kind])(exchange, uri)

    def _check_page(self, exchange: Exchange, route: Route) -> None:
        """Metrics are of all services, so they are for those who see all. Of any other page nobody has said who may
        see it, so that where callers are asked who they are it is for none."""
        caller = exchange.caller
        if is_open_page(route):
            return
        services = (
            self._context.settings.services if self._context.running is None else self._context.gateway.link_states()
        )
        if route.path == "/metrics" and not (caller.may_look() and all(map(caller.sees_service, services))):
            caller.refuse("look at metrics of all services", NotFound("there is nothing at this path"))
        if route.path != "/metrics":
            caller.require_known()
            if not self._context.authority.is_open:
                raise NotFound("there is nothing at this path")

    def _check_stream(self, exchange: Exchange, uri: MqUri) -> None:
        if uri.is_queue:
            self._guard.check_queue_stream(exchange.headers)

    async def _page(self, exchange: Exchange, path: str) -> None:
        """FastAPI's router, by the one spelling of the path; HEAD is a GET whose body nobody sees."""
        scope = dict(exchange.scope)
        scope.update(path=path, raw_path=path.encode(), root_path="")
        scope["method"] = "GET" if exchange.method == "HEAD" else exchange.method
        scope[EXCHANGE] = exchange

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[Header] = list(message.get("headers", ()))
                is_page = any(name == b"content-security-policy" for name, _ in headers)
                await exchange.start(message["status"], headers, harmless.OF_PAGES if is_page else harmless.OF_DATA)
            else:
                await exchange.send(message.get("body", b""), more=message.get("more_body", False))

        await self._pages(scope, exchange.receive, send)
