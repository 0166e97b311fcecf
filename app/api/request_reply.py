"""POST …/request: publish, wait for the reply, and give it to the one who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from app.api.context import Context
from app.api.exchange import ClientGone, Exchange
from app.api.publish import Attempt, Publish
from app.api.raw_answer import raw_answer
from app.domain.errors import Outcome
from app.domain.message import Message
from app.domain.uri import MqUri
from app.gateway.gateway import Gateway

T = TypeVar("T")


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
    reply = await _while_there(attempt.exchange, stack.enter_async_context(asking))
    attempt.outcome = Outcome.CONFIRMED
    return reply


async def _while_there(exchange: Exchange, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises ClientGone when the client goes before, whose place is free then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(exchange))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
        del task, gone  # an error holds this frame, and they would hold the error


async def _gone(exchange: Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
