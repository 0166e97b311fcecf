"""POST on a receive: messages of a Queue or a durable subscription for workers that speak no STOMP, leased."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from app.api.answer import Answer
from app.api.body import read_body
from app.api.connection import Connection, while_there
from app.api.context import Context
from app.api.exchange import ClientGone, Exchange
from app.api.receive_answer import encode
from app.api.receive_request import ReceiveRequest, parse
from app.auth.caller import Caller
from app.auth.places import Places
from app.domain.errors import InvalidParameter, Overloaded
from app.domain.principal import Verb
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway
from app.gateway.leases import Lease
from app.gateway.outbox import Outbox

#: Bytes of a body, all the same, that are read before it is refused; a larger one is 413.
MAX_BODY = 64 << 10


class Receiving:
    """The handler."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting = 0
        # Nobody takes all places, so that somebody else's worker always finds one.
        most = max(1, context.settings.limits.streams // 2)
        self._of_principals = Places(most, "this principal", "requests", Overloaded)

    async def __call__(self, exchange: Exchange, uri: MqUri) -> None:
        """Answer with messages, or 204; raises GatewayError, and ClientGone where nobody waits any more."""
        gateway = self._context.gateway
        destination = gateway.resolve(uri, exchange.caller)
        exchange.access.mq_uri = str(uri)
        request = parse(exchange, destination, gateway.settings.limits.lease_max)
        await self._refuse_body(exchange, gateway, uri)
        with self._place(), self._place_of(exchange.caller):
            leases = await _take(exchange, gateway, request)
            await self._hand_over(exchange, gateway, leases, request)

    async def _refuse_body(self, exchange: Exchange, gateway: Gateway, uri: MqUri) -> None:
        """What is asked for stands in the query: in a body it would be ignored; raises InvalidParameter."""
        hold = partial(gateway.budget.holding, uri.service)
        patience = self._context.settings.server.idle_timeout
        if await read_body(exchange, hold, cap=MAX_BODY, patience=patience):
            raise InvalidParameter("receive has no body: max, wait, lease and ack stand in the query")

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """As many may wait for messages as for events; raises Overloaded."""
        if self._waiting >= self._context.settings.limits.streams:
            raise Overloaded("as many requests wait for messages as this gateway takes")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _place_of(self, caller: Caller) -> AbstractContextManager[None]:
        """One of the caller's; raises Overloaded. Whoever is not known is everybody."""
        return nullcontext() if caller.principal.is_anonymous else self._of_principals.one(caller.label)

    async def _hand_over(
        self, exchange: Exchange, gateway: Gateway, leases: list[Lease], request: ReceiveRequest
    ) -> None:
        """Answer; what the client did not get goes back at once, what it got is leased or, with `auto`, acked."""
        takings = gateway.takings
        handed_over = False
        try:
            answer = await encode(leases, takings, request)
            takings.encoded(leases)
            patience = self._context.settings.server.write_timeout
            await _Writer(exchange, gateway.outbox, patience).write(answer)
            handed_over = True
        finally:
            if not handed_over:
                takings.leases.give_back(leases)
        takings.delivered(leases)
        if not request.explicit:
            for lease in leases:
                takings.leases.ack(lease.mq_uri, lease.number)
        await exchange.send(b"", more=False)


async def _take(exchange: Exchange, gateway: Gateway, request: ReceiveRequest) -> list[Lease]:
    """Take for as long as the client waits for it."""
    # With `auto` the end of the answer ends the lease; until then it has as long as there is.
    seconds = request.seconds if request.explicit else gateway.settings.limits.lease_max
    taking = gateway.take(request.source, most=request.most, seconds=seconds, wait=request.wait)
    needs = ((Verb.TAKE, request.source.uri),)
    return await while_there(exchange, exchange.caller.while_allowed(needs, taking))


class _Writer:
    """Writes one answer, all but its end, to a client that may leave or take nothing."""

    def __init__(self, exchange: Exchange, outbox: Outbox, patience: float) -> None:
        self._exchange = exchange
        self._outbox = outbox
        self._patience = patience
        self._gone = False
        self._connection = Connection(exchange, self._leave)

    def _leave(self) -> None:
        self._gone = True

    def _cut_off(self) -> None:
        """Too much waits for clients, and this one has not taken its answer for longest."""
        self._gone = True
        self._connection.abort()

    async def write(self, answer: Answer) -> None:
        """Returns when the kernel has it all; raises ClientGone where the client was not there for it."""
        head = answer.headers
        if answer.status != 204:  # which has neither (RFC 9110 sections 8.6 and 15.3.5)
            head += ((b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body)))
        try:
            self._connection.write_through()
            async with asyncio.timeout(self._patience):
                await self._exchange.start(answer.status, head, answer.harmless)
            with self._outbox.holding(answer.body, self._cut_off):
                await self._connection.send(answer.body, patience=self._patience)
                await self._connection.send(b"", patience=self._patience)  # returns when the kernel has taken it all
        except TimeoutError:
            self._connection.abort()
            raise ClientGone from None
        finally:
            self._connection.forget()
        if self._gone or self._connection.is_closing():
            raise ClientGone
