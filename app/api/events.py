"""GET on the events of one destination or several: caps, and the life of one stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from app.api import several, stream_query
from app.api.accept import check_accepts_events, is_event_source
from app.api.context import Context
from app.api.event_stream import ERROR, HEADERS, EventStream, Patience, spread_retry_ms
from app.api.exchange import Exchange
from app.api.problems import retry_after_seconds
from app.auth.addresses import network_of
from app.connectors.base import Destination
from app.domain.errors import GatewayError, OutcomeUnknown, TooManyStreams, Unavailable
from app.domain.principal import Verb
from app.domain.uri import MqUri
from app.gateway.joint_opening import open_joint
from app.gateway.stream import Batch, Reader
from app.wire import sse

logger = logging.getLogger("mq_gateway.api")

#: Seconds for the broker to take the subscription.
OPEN_SECONDS = 5.0
#: Seconds for giving back what was not delivered.
CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream that is in order, and can be opened."""

    uris: tuple[MqUri, ...]
    open: Callable[[], Awaitable[Reader]]


class Events:
    """The handler."""

    def __init__(self, context: Context) -> None:
        self._context = context
        server = context.settings.server
        self._patience = Patience(heartbeat=server.heartbeat, write=server.write_timeout)

    async def __call__(self, exchange: Exchange, uri: MqUri) -> None:
        """Stream; raises GatewayError for the front to render unless the client is an EventSource."""
        await self._answer(exchange, partial(self._one, exchange, uri))

    async def several(self, exchange: Exchange, check: Callable[[MqUri], None]) -> None:
        """As `__call__`, the destinations the query names; what `check` raises is about the whole request."""
        await self._answer(exchange, partial(self._several, exchange, check))

    async def _answer(self, exchange: Exchange, ask: Callable[[], Stream]) -> None:
        try:
            await self._stream(exchange, ask())
        except GatewayError as error:
            self._context.metrics.streams_refused.labels(error.code.value).inc()
            if exchange.answered or not (is_event_source(exchange.headers) and is_temporary(error)):
                raise
            await _unavailable(exchange, error)

    def _one(self, exchange: Exchange, uri: MqUri) -> Stream:
        gateway = self._context.gateway
        destination = gateway.resolve(uri, exchange.caller)
        exchange.access.mq_uri = str(uri)
        check_accepts_events(exchange.headers)
        request = stream_query.parse(exchange, uri, self._context.settings)
        return Stream((uri,), partial(gateway.open_stream, destination, request, timeout=OPEN_SECONDS))

    def _several(self, exchange: Exchange, check: Callable[[MqUri], None]) -> Stream:
        gateway = self._context.gateway
        caller = exchange.caller

        def resolve(uri: MqUri) -> Destination:
            caller.require(verb_of(uri), uri)
            return gateway.resolve(uri, caller)

        wanted = several.parse(exchange, self._context.settings, check, resolve)
        uris = tuple(each.uri for each in wanted)
        exchange.access.mq_uri = ", ".join(map(str, uris))
        check_accepts_events(exchange.headers)
        return Stream(uris, partial(open_joint, gateway.open_stream, wanted, timeout=OPEN_SECONDS))

    async def _stream(self, exchange: Exchange, stream: Stream) -> None:
        if exchange.method == "HEAD":
            await exchange.start(200, HEADERS)
            await exchange.send(b"", more=False)
            return
        with self._place(exchange), self._ticket(exchange) as begun:
            reader = await stream.open()
            begun()
            await self._run(exchange, stream.uris, reader)

    @contextlib.contextmanager
    def _ticket(self, exchange: Exchange) -> Iterator[Callable[[], None]]:
        """Use the ticket that opens this stream; raises InvalidCredentials where it was used meanwhile.

        It is used up where what is yielded was called: there is a stream.
        """
        begun: list[bool] = []
        if exchange.ticket is None:
            yield partial(begun.append, True)
            return
        end = self._context.authority.use(exchange.ticket)
        try:
            yield partial(begun.append, True)
        finally:
            end(bool(begun))

    @contextlib.contextmanager
    def _place(self, exchange: Exchange) -> Iterator[None]:
        """A place of the process, of the caller and of its address; raises TooManyStreams where all are taken."""
        context, caller = self._context, exchange.caller
        with contextlib.ExitStack() as places:
            places.enter_context(self._place_of_all())
            places.enter_context(context.streams_of_addresses.one(network_of(exchange.address)))
            if not caller.principal.is_anonymous:
                places.enter_context(context.streams_of_principals.one(caller.label))
            yield

    @contextlib.contextmanager
    def _place_of_all(self) -> Iterator[None]:
        if self._context.streams >= self._context.settings.limits.streams:
            raise TooManyStreams("as many event streams are open as this gateway takes")
        self._context.streams += 1
        try:
            yield
        finally:
            self._context.streams -= 1

    async def _run(self, exchange: Exchange, uris: Sequence[MqUri], reader: Reader) -> None:
        metrics = self._context.metrics
        # Each open stream once for each label it has.
        gauges = [metrics.streams.labels(*labels) for labels in {(uri.service, uri.type.value) for uri in uris}]
        for gauge in gauges:
            gauge.inc()
        reason = ERROR
        try:
            outbox = self._context.gateway.outbox
            stream = EventStream(exchange, reader, self._patience, outbox, self._counting(uris))
            forget = exchange.caller.lasting([(verb_of(uri), uri) for uri in uris], stream.end)
            try:
                reason = await stream.run()
            finally:
                forget()
        finally:
            exchange.access.reason = reason
            for gauge in gauges:
                gauge.dec()
            metrics.streams_closed.labels(reason).inc()
            # Also when this task is cancelled: what was not handed over goes back to its queue.
            await asyncio.shield(asyncio.ensure_future(_close(reader)))

    def _counting(self, uris: Sequence[MqUri]) -> Callable[[Batch], None]:
        """Counts what was sent, of each destination its own."""
        counters = [self._context.metrics.events_delivered.labels(uri.service, uri.type.value) for uri in uris]

        def count(batch: Batch) -> None:
            for number, events in batch.shares or ((0, batch.events),):
                counters[number].inc(events)

        return count


def verb_of(uri: MqUri) -> Verb:
    """What reading a stream is: of a Queue it takes messages away."""
    return Verb.TAKE if uri.is_queue else Verb.SUBSCRIBE


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
