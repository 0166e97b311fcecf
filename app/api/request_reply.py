"""POST …/request: publish, wait for the reply, and give it to the one who asked."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.api.connection import while_there
from app.api.context import Context
from app.api.exchange import Exchange
from app.api.publish import Attempt, Publish
from app.api.raw_answer import raw_answer
from app.domain.errors import Outcome
from app.domain.message import Message
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway


class RequestReply:
    """The handler. What is asked is counted as a publish."""

    def __init__(self, context: Context, publish: Publish) -> None:
        self._context = context
        self._publish = publish

    async def __call__(self, exchange: Exchange, uri: MqUri) -> None:
        """Answer with the reply; raises GatewayError for the front to render, ClientGone where nobody listens."""
        async with AsyncExitStack() as stack:  # the reply counts until the client has it
            with self._publish.counted(exchange, uri) as attempt:
                reply = await _ask(attempt, self._context.gateway, stack)
            await exchange.answer(raw_answer(reply))


async def _ask(attempt: Attempt, gateway: Gateway, stack: AsyncExitStack) -> Message:
    destination, publication, request = await attempt.read(gateway, with_reply=True)
    asking = gateway.request(destination, publication, timeout=request.timeout)
    attempt.outcome = Outcome.UNKNOWN
    reply = await while_there(attempt.exchange, stack.enter_async_context(asking))
    attempt.outcome = Outcome.CONFIRMED
    return reply
