"""POST of many messages at once: read one after the other, published side by side, told in one report."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from functools import partial

from prometheus_client import Counter

from app.api import publish_request, query
from app.api.answer import json_answer
from app.api.batch_entries import Entries, Room
from app.api.batch_message import Messages
from app.api.body import check_encoding
from app.api.context import Context
from app.api.exchange import Exchange
from app.api.problems import status_of
from app.api.publish import check_reply_to, check_size
from app.api.publish_request import PublishRequest
from app.api.report import Name, Report
from app.api.request_headers import bad_header
from app.connectors.base import Destination
from app.domain.errors import Draining, GatewayError, InvalidParameter, MalformedRequest, Outcome
from app.domain.message import Publication, Published
from app.domain.principal import Verb
from app.domain.uri import MqUri
from app.gateway.budget import Held
from app.gateway.gateway import Gateway
from app.gateway.window import Window
from app.telemetry.metrics import Metrics

#: Messages (count) of one transaction. RabbitMQ takes 1024 frames in one.
MAX_ATOMIC = 1000
#: Seconds for which the rest is read when the gateway goes down: whoever is longer still gets his report.
FAREWELL_SECONDS = 2.0
#: After so many messages (count) everybody else on the loop has a turn.
_TURN = 64

PARAMETERS = (*publish_request.PARAMETERS, "atomic")
_BOOLEAN = {"true": True, "false": False}


class Batch:
    """The handler. Every message that is read is counted once, with exactly one outcome."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, exchange: Exchange, uri: MqUri) -> None:
        """Answer a batch; raises GatewayError where no message was read, ClientGone where nobody listens."""
        gateway = self._context.gateway
        destination = gateway.resolve(uri, exchange.caller)
        exchange.access.mq_uri = str(destination.uri)
        check_encoding(exchange)
        with gateway.budget.holding(uri.service) as held:
            await _serve(_Job(gateway, self._context.metrics, exchange, destination, Report(held)))


async def _serve(job: _Job) -> None:
    refusal: GatewayError | None = None
    try:
        await job.run()
    except GatewayError as error:
        if not job.report.messages:
            raise
        refusal = error
    finally:
        job.note()
    await job.answer(refusal)


class _Job:
    """One batch on its way."""

    def __init__(
        self, gateway: Gateway, metrics: Metrics, exchange: Exchange, destination: Destination, report: Report
    ) -> None:
        self.report = report
        self._gateway = gateway
        self._metrics = metrics
        self._exchange = exchange
        self._destination = destination
        self._counters: dict[Outcome, Counter] = {}
        self._needs = ((Verb.PUBLISH, destination.uri),)
        #: Why it is not allowed any more.
        self._lapsed: GatewayError | None = None
        self._request, self._atomic = _parse(gateway, exchange)
        check_reply_to(gateway, exchange.caller, self._destination, self._request)
        self._messages = Messages(self._destination, self._request, gateway.settings.limits)

    async def run(self) -> None:
        """Everything, from the first byte of the body to the end of the last message."""
        await (self._together() if self._atomic else self._side_by_side())

    def _entries(self, room: Room) -> Entries:
        return Entries(self._gateway, self._exchange, self._destination, self._messages, room)

    # Each message for itself.

    async def _side_by_side(self) -> None:
        async with Window(self._publish, self._settle, timeout=self._request.timeout) as window:
            with contextlib.suppress(TimeoutError), contextlib.ExitStack() as stack:
                async with asyncio.timeout(None) as end:
                    stack.callback(self._exchange.caller.lasting(self._needs, partial(self._lapse, window, end)))
                    await self._read(window, end)
        if self._lapsed is not None:
            raise self._lapsed

    async def _read(self, window: Window[Name], end: asyncio.Timeout) -> None:
        async def room() -> bool:
            idle = window.is_idle
            await window.one_ended()
            return not idle

        async with aclosing(self._entries(room).read()) as entries:
            async for name, message in entries:
                if isinstance(message, GatewayError):
                    self._settle(name, message)
                else:
                    await self._put(window, name, message)
                await _turn(name)
                if isinstance(window.stopped, Draining) and end.when() is None:
                    end.reschedule(asyncio.get_running_loop().time() + FAREWELL_SECONDS)

    async def _put(self, window: Window[Name], name: Name, message: Publication) -> None:
        """Publish it in its turn; one whose turn does not come any more was not sent."""
        try:
            await self._exchange.caller.send_paced(len(message.body))
        except asyncio.CancelledError:
            if window.stopped is not None:
                self._settle(name, window.stopped)
            raise
        await window.put(name, message)

    def _lapse(self, window: Window[Name], end: asyncio.Timeout, reason: str) -> None:
        """It is not allowed any more: nothing more is read or sent, and what was sent is told."""
        window.stopped = self._lapsed = self._exchange.caller.lapsed(reason)
        if not end.expired():
            end.reschedule(asyncio.get_running_loop().time())

    async def _publish(self, publication: Publication) -> Published:
        return await self._gateway.publish(
            self._destination, publication, timeout=self._request.timeout, confirm=self._request.confirm
        )

    def _settle(self, name: Name, result: Published | GatewayError, seconds: float | None = None) -> None:
        if isinstance(result, GatewayError):
            self.report.failed(name, result)
            self._count(result.outcome, seconds)
        else:
            self._ended(Outcome.CONFIRMED if result.confirmed else Outcome.UNCONFIRMED, seconds)

    def _ended(self, outcome: Outcome, seconds: float | None = None) -> None:
        self.report.ended(outcome)
        self._count(outcome, seconds)

    def _count(self, outcome: Outcome, seconds: float | None) -> None:
        uri = self._destination.uri
        counter = self._counters.get(outcome)
        if counter is None:
            labels = (uri.service, uri.type.value, outcome.value)
            counter = self._counters[outcome] = self._metrics.publishes.labels(*labels)
        counter.inc()
        if seconds is not None:
            self._metrics.publish_seconds.labels(uri.service, uri.type.value).observe(seconds)

    # All of them or none.

    async def _together(self) -> None:
        caller = self._exchange.caller
        caller.check_rate()
        with self._gateway.budget.holding(self._destination.uri.service) as held:
            good, refused = await caller.while_allowed(self._needs, self._gather(held))
        if refused:
            self._refuse_all(refused, len(good))
        elif good:
            await self._transact(good)

    async def _gather(self, held: Held) -> tuple[list[tuple[Name, Publication]], list[tuple[Name, GatewayError]]]:
        """All messages, and those that cannot be sent."""
        refused: list[tuple[Name, GatewayError]] = []
        good: list[tuple[Name, Publication]] = []
        async with aclosing(self._entries(_no_room).read()) as entries:
            async for name, message in entries:
                _check_number(name)
                try:
                    good.append((name, self._checked(message, held)))
                except GatewayError as error:
                    if error.retriable:
                        raise  # no memory: that is nothing the message is to blame for
                    refused.append((name, error))
                await _turn(name)
        return good, refused

    def _checked(self, message: Publication | GatewayError, held: Held) -> Publication:
        """A message that can be sent, held; raises what is wrong with it."""
        if isinstance(message, GatewayError):
            raise message
        self._gateway.admission.check_wholly(self._destination, message)
        held.grow(len(message.body))
        return message

    def _refuse_all(self, refused: list[tuple[Name, GatewayError]], good: int) -> None:
        """Nothing is sent; raises the 400, which names the first that is refused."""
        for name, error in refused:
            self._settle(name, error)
        for _ in range(good):
            self._ended(Outcome.NOT_SENT)
        name, error = refused[0]
        if status_of(error) == 400:
            raise error
        raise MalformedRequest(f"nothing was sent: message {name.index}: {error}")

    async def _transact(self, messages: list[tuple[Name, Publication]]) -> None:
        request, caller = self._request, self._exchange.caller
        caller.send(len(messages), sum(len(publication.body) for _, publication in messages))
        began = asyncio.get_running_loop().time()
        failure: GatewayError | None = None
        try:
            await self._gateway.publish_together(
                self._destination,
                [publication for _, publication in messages],
                timeout=request.timeout,
                confirm=request.confirm,
            )
        except GatewayError as error:
            failure = error
        seconds = asyncio.get_running_loop().time() - began
        for name, _ in messages:
            if failure is not None:
                self._settle(name, failure, seconds)
            else:
                self._ended(Outcome.CONFIRMED if request.confirm else Outcome.UNCONFIRMED, seconds)

    # What is told of it.

    def note(self) -> None:
        """What is known so far, for the log line and for the outcome of a problem."""
        if self.report.messages:
            self._exchange.access.messages = self.report.messages
            self._exchange.access.outcome = self.report.worst.value

    async def answer(self, refusal: GatewayError | None) -> None:
        """The report: with a problem where no message was taken, or the batch ended before its end (`refusal`)."""
        report = self.report
        if refusal is None and report.first is not None and not report.taken:
            refusal = report.first[1]
        if refusal is None:
            await self._exchange.answer(json_answer(report.members(), report.status))
        else:
            await self._exchange.refuse(refusal, report.members())


def _parse(gateway: Gateway, exchange: Exchange) -> tuple[PublishRequest, bool]:
    """What holds for every message, and whether all or none are to be published."""
    limits, query_string = gateway.settings.limits, exchange.scope["query_string"]
    if b"idempotency-key" in exchange.headers:
        raise bad_header("Idempotency-Key", "is not for a batch: its messages have no key each")
    request = publish_request.parse(
        exchange.headers, query_string, longest_timeout=limits.publish_timeout_max, known=PARAMETERS
    )
    check_size(request.headers, limits)
    return request, query.choice(query.parse(query_string, PARAMETERS), "atomic", _BOOLEAN, False)


def _check_number(name: Name) -> None:
    if name.index >= MAX_ATOMIC:
        raise InvalidParameter(f"more than {MAX_ATOMIC} messages, the most that `atomic=true` takes")


async def _no_room() -> bool:
    """Of what must be there as a whole, nothing ends before all of it has come."""
    return False


async def _turn(name: Name) -> None:
    if name.index % _TURN == 0:
        await asyncio.sleep(0)
