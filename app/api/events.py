"""GET on a destination's events: what the client asks for, caps, and the life of one stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterator
from urllib.parse import quote

from app.api import query
from app.api.accept import check_accepts_events, is_event_source
from app.api.context import Context
from app.api.event_stream import ERROR, HEADERS, EventStream, Patience, spread_retry_ms
from app.api.exchange import Exchange
from app.api.problems import retry_after_seconds
from app.api.query import bad_parameter
from app.api.receive_request import DEFAULT_LEASE, MIN_LEASE
from app.config.settings import Settings
from app.domain.errors import GatewayError, OutcomeUnknown, TooManyStreams, Unavailable
from app.domain.uri import MqUri
from app.gateway.stream import Format, Reader, Slow, StreamLease, StreamRequest
from app.wire import sse

logger = logging.getLogger("mq_gateway.api")

#: Seconds for the broker to take the subscription.
OPEN_SECONDS = 5.0
#: Seconds for giving back what was not delivered.
CLOSE_SECONDS = 10.0
#: Characters of a Last-Event-ID that are looked at; ours are shorter, a longer one is foreign anyhow.
MAX_EVENT_ID = 1024

PARAMETERS = ("format", "slow", "from", "last_event_id", "status", "ack", "lease")
_FORMATS: dict[str, Format] = {"data": "data", "envelope": "envelope", "cloudevents": "cloudevents"}
_SLOW: dict[str, Slow | None] = {"gap": "gap", "latest": "latest", "disconnect": "disconnect"}
_BOOLEAN = {"true": True, "false": False}


_FROM = "is now, earliest, or a time of RFC 3339 such as 2026-01-02T03:04:05Z (with `+` written %2B)"


def parse(exchange: Exchange, uri: MqUri, settings: Settings) -> StreamRequest:
    """Read query and headers; raises InvalidParameter. The header wins: a browser updates it, not the URL."""
    values = query.parse(exchange.scope["query_string"], PARAMETERS)
    header = exchange.headers.first(b"last-event-id")
    position = header.decode(errors="replace") if header else values.get("last_event_id")
    start = values.get("from", "now")
    since = None if start in {"now", "earliest"} else int(query.instant("from", start, _FROM))
    return StreamRequest(
        format=query.choice(values, "format", _FORMATS, "data"),
        last_event_id=position[:MAX_EVENT_ID] if position else None,
        start="earliest" if start == "earliest" else "now",
        since=since,
        slow=query.choice(values, "slow", _SLOW, None),
        status=query.choice(values, "status", _BOOLEAN, False),
        lease=_lease(values, uri, settings),
    )


def _lease(values: dict[str, str], uri: MqUri, settings: Settings) -> StreamLease | None:
    """The terms of `ack=explicit`, None without it."""
    if not query.choice(values, "ack", {"auto": False, "explicit": True}, False):
        if "lease" in values:
            raise bad_parameter("lease", "is for ack=explicit")
        return None
    if not uri.is_queue:
        raise bad_parameter("ack", "explicit is for Queues; a Topic knows no acknowledgement")
    longest = settings.limits.lease_max
    seconds = query.number(values, "lease", default=DEFAULT_LEASE, low=MIN_LEASE, high=longest)
    path = "/".join(quote(part, safe="") for part in (uri.service, uri.type.value, uri.name))
    return StreamLease(f"{settings.server.root_path}/mq/{path}/ack", seconds)


class Events:
    """The handler."""

    def __init__(self, context: Context) -> None:
        self._context = context
        server = context.settings.server
        self._patience = Patience(heartbeat=server.heartbeat, write=server.write_timeout)

    async def __call__(self, exchange: Exchange, uri: MqUri) -> None:
        """Stream; raises GatewayError for the front to render unless the client is an EventSource."""
        try:
            await self._stream(exchange, uri)
        except GatewayError as error:
            self._context.metrics.streams_refused.labels(error.code.value).inc()
            if exchange.answered or not (is_event_source(exchange.headers) and is_temporary(error)):
                raise
            await _unavailable(exchange, error)

    async def _stream(self, exchange: Exchange, uri: MqUri) -> None:
        gateway = self._context.gateway
        destination = gateway.resolve(uri)
        exchange.access.mq_uri = str(uri)
        check_accepts_events(exchange.headers)
        request = parse(exchange, uri, self._context.settings)
        if exchange.method == "HEAD":
            await exchange.start(200, HEADERS)
            await exchange.send(b"", more=False)
            return
        with self._place():
            reader = await gateway.open_stream(destination, request, timeout=OPEN_SECONDS)
            await self._run(exchange, uri, reader)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """One of the process's places; raises TooManyStreams where all are taken."""
        if self._context.streams >= self._context.settings.limits.streams:
            raise TooManyStreams("as many event streams are open as this gateway takes")
        self._context.streams += 1
        try:
            yield
        finally:
            self._context.streams -= 1

    async def _run(self, exchange: Exchange, uri: MqUri, reader: Reader) -> None:
        metrics = self._context.metrics
        labels = (uri.service, uri.type.value)
        delivered = metrics.events_delivered.labels(*labels)
        metrics.streams.labels(*labels).inc()
        reason = ERROR
        try:
            outbox = self._context.gateway.outbox
            reason = await EventStream(exchange, reader, self._patience, outbox, delivered.inc).run()
        finally:
            exchange.access.reason = reason
            metrics.streams.labels(*labels).dec()
            metrics.streams_closed.labels(reason).inc()
            # Also when this task is cancelled: what was not handed over goes back to its queue.
            await asyncio.shield(asyncio.ensure_future(_close(reader)))


async def _close(reader: Reader) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await reader.close()
    except TimeoutError:
        logger.warning("a reader was not closed within %s s", CLOSE_SECONDS)


def is_temporary(error: GatewayError) -> bool:
    """Whether an EventSource should come back: the gateway is full or draining, the broker down or slow.

    Not for what the broker refuses: each try would reach it again, and on RabbitMQ end the shared connection.
    """
    return isinstance(error, Unavailable | OutcomeUnknown)


async def _unavailable(exchange: Exchange, error: GatewayError) -> None:
    """Tell an EventSource to come back: on any status but 200 it would give up for good (WHATWG HTML 9.2)."""
    exchange.access.code = error.code.value
    wait = spread_retry_ms()
    if error.retry_after is not None:
        wait = int(retry_after_seconds(error) * 1000 * random.uniform(1.0, 2.0))
    notice = sse.json_event("unavailable", {"code": error.code.value, "retry_ms": wait})
    await exchange.start(200, HEADERS)
    await exchange.send(sse.retry(wait) + notice, more=False)
