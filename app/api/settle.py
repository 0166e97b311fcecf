"""POST on ack, nack and renew of a Queue or a durable subscription: what workers say of the leases they hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from app.api import query
from app.api.answer import json_answer
from app.api.body import check_encoding, read_body
from app.api.context import Context
from app.api.exchange import Exchange
from app.api.query import bad_parameter
from app.api.receive_request import MIN_LEASE, source
from app.config.settings import LimitSettings
from app.connectors.base import Destination
from app.domain.errors import FieldError, InvalidParameter
from app.domain.lease import Settled, Settlement
from app.domain.message import rfc3339
from app.domain.principal import Verb
from app.domain.uri import MqUri
from app.wire.lease import MAX_CHARACTERS
from app.wire.payload import parse_json

#: Leases (count) in one request.
MAX_LEASES = 1000
#: Bytes of a request's body: as many of the longest leases as it may have.
MAX_BODY = MAX_LEASES * MAX_CHARACTERS + 4096
#: Seconds before a message goes back where the request does not say: one that always fails must not spin.
DEFAULT_DELAY = 1.0

#: The members of a body, or what stands for them in a query.
Values = Mapping[str, Any]


class Settle(ABC):
    """A handler: reads the leases, has the same said of each, wherever it is, and answers in their order."""

    #: What a body may have beside `leases`.
    members: ClassVar[tuple[str, ...]] = ()

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, exchange: Exchange, uri: MqUri) -> None:
        """200 where everything is done, else 207; raises GatewayError, and then nothing was done."""
        gateway = self._context.gateway
        destination = gateway.resolve(uri, exchange.caller)
        exchange.access.mq_uri = str(uri)
        values = query.parse(exchange.scope["query_string"], ("lease", "subscription"))
        destination = source(destination, values)
        asked = await self._asked(exchange, uri, values.get("lease"))
        exchange.caller.require_still(Verb.TAKE, uri)  # the body may have taken its time
        settlement = self._settlement(destination, asked, gateway.settings.limits)
        said = await gateway.answers.say(settlement, asked["leases"], exchange.access.request_id)
        results = [_result(lease, settled) for lease, settled in zip(asked["leases"], said, strict=True)]
        status = 200 if all(result["result"] == "done" for result in results) else 207
        await exchange.answer(json_answer({"results": results}, status))

    async def _asked(self, exchange: Exchange, uri: MqUri, lease: str | None) -> Values:
        gateway, patience = self._context.gateway, self._context.settings.server.idle_timeout
        check_encoding(exchange)
        hold = partial(gateway.budget.holding, uri.service)
        body = await read_body(exchange, hold, cap=MAX_BODY, patience=patience)
        if lease is None:
            return _checked(parse_json(body), self.members)
        if body:
            raise bad_parameter("lease", "stands for a body; give one of them")
        return {"leases": [lease]}

    @abstractmethod
    def _settlement(self, of: Destination, asked: Values, limits: LimitSettings) -> Settlement:
        """What is to be said of every lease, which `of` grants; raises InvalidParameter."""


class Ack(Settle):
    """The work is done."""

    def _settlement(self, of: Destination, asked: Values, limits: LimitSettings) -> Settlement:
        return Settlement(verb="ack", mq_uri=of.uri, subscription=of.subscription)


class Nack(Settle):
    """Not done: back to the queue after a delay, or refused for good."""

    members = ("requeue", "delay")

    def _settlement(self, of: Destination, asked: Values, limits: LimitSettings) -> Settlement:
        requeue = asked.get("requeue", True)
        if not isinstance(requeue, bool):
            raise _bad_member("requeue", "true or false")
        delay = _seconds(asked, "delay", low=0, high=limits.lease_max)
        delay = min(DEFAULT_DELAY, limits.lease_max) if delay is None else delay
        return Settlement(verb="nack", mq_uri=of.uri, subscription=of.subscription, requeue=requeue, delay=delay)


class Renew(Settle):
    """More time: from now on `lease` seconds, or as many as it had."""

    members = ("lease",)

    def _settlement(self, of: Destination, asked: Values, limits: LimitSettings) -> Settlement:
        seconds = _seconds(asked, "lease", low=MIN_LEASE, high=limits.lease_max)
        return Settlement(verb="renew", mq_uri=of.uri, subscription=of.subscription, seconds=seconds)


def _result(lease: str, settled: Settled) -> dict[str, str]:
    until = {} if settled.expires_at is None else {"lease_expires_at": rfc3339(settled.expires_at)}
    return {"lease": lease, "result": settled.result, **until}


def _bad_member(name: str, rule: str) -> InvalidParameter:
    return InvalidParameter(f"member {name[:64]!r}: {rule}", errors=[FieldError(name[:64], rule)])


def _checked(value: Any, members: tuple[str, ...]) -> Values:  # noqa: ANN401 - what a client sent
    """A body; what is misspelt is refused, not ignored."""
    if not isinstance(value, dict):
        raise InvalidParameter('the body is a JSON object such as {"leases": ["…"]}')
    for name in value:
        if name not in ("leases", *members):
            raise _bad_member(name, f"is not known here; known are {', '.join(('leases', *members))}")
    leases = value.get("leases")
    if not isinstance(leases, list) or not 1 <= len(leases) <= MAX_LEASES:
        raise _bad_member("leases", f"an array of 1 to {MAX_LEASES} leases")
    if not all(isinstance(lease, str) and len(lease) <= MAX_CHARACTERS for lease in leases):
        raise _bad_member("leases", f"each lease is a text of at most {MAX_CHARACTERS} characters")
    return value


def _seconds(values: Values, name: str, *, low: float, high: float) -> float | None:
    """A number of seconds from `low` to `high`, None where it is not given."""
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _bad_member(name, f"a number of seconds from {low:g} to {high:g}")
    return float(value)
