"""POST on a destination: read, check, hand to the gateway, tell exactly what became of the message."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from json.encoder import encode_basestring

from prometheus_client import Counter, Histogram

from app.api import publish_request
from app.api.answer import JSON, NO_STORE, Answer
from app.api.body import check_encoding, read_body
from app.api.context import Context
from app.api.exchange import Exchange
from app.api.publish_request import PublishRequest
from app.api.request_headers import bad_header
from app.auth.caller import Caller
from app.config.settings import LimitSettings
from app.connectors.base import Destination
from app.domain.errors import GatewayError, HeadersTooLarge, Outcome
from app.domain.message import OCTET_STREAM, Publication, Published
from app.domain.principal import Verb
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from app.telemetry.metrics import NO_SERVICE, NO_TYPE
from app.wire.ids import new_message_id


class Publish:
    """The handler. Every request that gets here is counted once, with exactly one outcome."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._children: dict[tuple[str, str, Outcome], tuple[Counter, Histogram]] = {}

    async def __call__(self, exchange: Exchange, uri: MqUri) -> None:
        """Answer a publish; raises GatewayError for the front to render, ClientGone where nobody listens."""
        with self.counted(exchange, uri) as attempt:
            published = await attempt.run(self._context.gateway)
        await exchange.answer(_answer(published))

    @contextmanager
    def counted(self, exchange: Exchange, uri: MqUri) -> Iterator[Attempt]:
        """One publish, counted at the end of the block with what is true then."""
        exchange.publish = True
        attempt = Attempt(exchange, uri)
        try:
            yield attempt
        except GatewayError as error:
            attempt.outcome = error.outcome
            raise
        finally:
            self._count(exchange, attempt)

    def refused(self, exchange: Exchange) -> None:
        """Count a publish that never got here: its path, Host or Origin was refused."""
        if not exchange.access.outcome:
            self._record(exchange, NO_SERVICE, NO_TYPE, Outcome.NOT_SENT)

    def _count(self, exchange: Exchange, attempt: Attempt) -> None:
        self._record(exchange, attempt.service, attempt.uri.type.value, attempt.outcome)

    def _record(self, exchange: Exchange, service: str, kind: str, outcome: Outcome) -> None:
        exchange.access.outcome = outcome.value
        key = (service, kind, outcome)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = self._children_of(service, kind, outcome)
        children[0].inc()
        children[1].observe(time.perf_counter() - exchange.access.started)

    def _children_of(self, service: str, kind: str, outcome: Outcome) -> tuple[Counter, Histogram]:
        """Looked up once for each of the few combinations: a look-up costs more than the counting."""
        metrics = self._context.metrics
        return metrics.publishes.labels(service, kind, outcome.value), metrics.publish_seconds.labels(service, kind)


class Attempt:
    """One publish on its way: `outcome` is what is true if it ends here and now."""

    def __init__(self, exchange: Exchange, uri: MqUri) -> None:
        self.exchange = exchange
        self.uri = uri
        self.service = NO_SERVICE
        self.outcome = Outcome.NOT_SENT

    async def run(self, gateway: Gateway) -> Published:
        """Read and publish."""
        destination, publication, request = await self.read(gateway)
        self.outcome = Outcome.UNKNOWN  # until the gateway says: a cancelled publish may have been sent
        publish: Callable[..., Awaitable[Published]] = gateway.publish
        if request.idempotency_key is not None:
            publish = partial(gateway.once.publish, self.exchange.access.principal)
        published = await publish(destination, publication, timeout=request.timeout, confirm=request.confirm)
        self.outcome = Outcome.CONFIRMED if published.confirmed else Outcome.UNCONFIRMED
        return published

    async def read(
        self, gateway: Gateway, *, with_reply: bool = False
    ) -> tuple[Destination, Publication, PublishRequest]:
        """Resolve before the body is read: a name that does not exist costs nobody any memory."""
        caller = self.exchange.caller
        destination = gateway.resolve(self.uri, caller)
        self.service = self.uri.service
        self.exchange.access.mq_uri = str(destination.uri)
        limits, server = gateway.settings.limits, gateway.settings.server
        check_encoding(self.exchange)
        request = publish_request.parse(
            self.exchange.headers,
            self.exchange.scope["query_string"],
            longest_timeout=limits.publish_timeout_max,
            known=publish_request.REQUEST_PARAMETERS if with_reply else publish_request.PARAMETERS,
            with_reply=with_reply,
        )
        check_size(request.headers, limits)
        check_reply_to(gateway, caller, destination, request)
        caller.check_rate()
        cap = gateway.admission.body_limit(destination)
        hold = partial(gateway.budget.holding, self.service)
        body = await read_body(self.exchange, hold, cap=cap, patience=server.idle_timeout)
        caller.require_still(Verb.PUBLISH, self.uri)
        caller.send(1, len(body))
        publication = _publication(destination, request, body)
        self.exchange.access.message_id = publication.message_id
        return destination, publication, request


def check_size(headers: Mapping[str, str], limits: LimitSettings) -> None:
    """Raises HeadersTooLarge for more or larger message headers than the configuration allows."""
    if len(headers) > limits.max_headers:
        raise HeadersTooLarge(f"{len(headers)} message headers, at most {limits.max_headers} are allowed")
    for name, value in headers.items():
        # A lone surrogate from a JSON escape has no bytes of its own; it is refused where values are checked.
        if len(name) + len(value.encode(errors="surrogatepass")) > limits.header_bytes:
            raise HeadersTooLarge(f"message header {name[:64]!r} has more than {limits.header_bytes} bytes")


def check_reply_to(gateway: Gateway, caller: Caller, destination: Destination, request: PublishRequest) -> None:
    """A reply goes to a declared destination of the same broker on which the caller itself may publish.

    Raises InvalidHeader for anything else.
    """
    reply_to = request.reply_to
    if reply_to is None:
        return
    if reply_to.service != destination.uri.service:
        raise bad_header("Mq-Reply-To", f"a destination of {destination.uri.service!r}, where the message goes")
    if not caller.may(Verb.PUBLISH, reply_to):
        raise bad_header("Mq-Reply-To", "a destination on which you may publish")
    try:
        gateway.resolve(reply_to, caller)
    except GatewayError as error:
        raise bad_header("Mq-Reply-To", str(error)) from None


def _publication(destination: Destination, request: PublishRequest, body: bytes) -> Publication:
    settings = destination.settings
    return Publication(
        body=body,
        message_id=request.idempotency_key or new_message_id(),
        content_type=request.content_type or settings.default_content_type or OCTET_STREAM,
        persistent=settings.persistent if request.persistent is None else request.persistent,
        headers=request.headers,
        reply_to=request.reply_to,
        **request.properties,
    )


def _answer(published: Published) -> Answer:
    """200 means the broker's RECEIPT came, 202 that the frame was handed over."""
    body = b'{"message_id":%b,"mq_uri":%b,"confirmed":%b,"persistent":%b}' % (
        encode_basestring(published.message_id).encode(),
        encode_basestring(str(published.mq_uri)).encode(),
        b"true" if published.confirmed else b"false",
        b"true" if published.persistent else b"false",
    )
    return Answer(status=200 if published.confirmed else 202, content_type=JSON, body=body, headers=(NO_STORE,))
