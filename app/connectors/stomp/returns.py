"""Giving unacked messages back to RabbitMQ after their subscription ended.

UNSUBSCRIBE leaves them locked to the connection, and RabbitMQ's STOMP plugin then refuses NACK for the ended
subscription. But an ack id is `T_<subscription>@@<session>@<n>` with n counted over the whole connection, and the
plugin looks only at whether the subscription exists: NACK under the id of a living one puts the message back.
A message that was under way when UNSUBSCRIBE took effect comes as an ERROR without its number; numbers are
consecutive, so it is the one after the last seen. Observed on RabbitMQ 3.10.8 and held by an integration test.

What a stream delivered goes back with ACK: it stays in the stream, and RabbitMQ ends the connection over a NACK.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Iterable

from stomp.utils import Frame

from app.connectors.stomp.route import Route
from app.connectors.stomp.session import Session
from app.domain.errors import GatewayError
from app.domain.link import LinkFailed, LinkFault

logger = logging.getLogger("mq_gateway.stomp")

#: A message under way arrives right after its subscription ended, so only the latest ones matter.
_MAX_ENDED = 1000
#: Seconds for giving back; well below what a subscription has for its end.
_DEADLINE = 10.0


class Returns:
    """The returning of one connection. Kept by the session's owner, fed by the session's callbacks."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._prefix = ""
        self._last = 0
        self._ended: deque[str] = deque(maxlen=_MAX_ENDED)
        self._ended_streams: deque[str] = deque(maxlen=_MAX_ENDED)
        self._janitor: asyncio.Task[str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        session.on_tag = self._seen
        session.on_orphan = self._orphan

    def _seen(self, message_id: str) -> None:
        _, _, rest = message_id.partition("@@")
        self._prefix, _, number = rest.rpartition("@@")
        self._last = int(number) if number.isascii() and number.isdigit() else self._last

    def ended(self, subscription: str, *, stream: bool = False) -> None:
        """A subscription with acknowledgement was ended; remember it for messages still under way."""
        (self._ended_streams if stream else self._ended).append(subscription)

    def _orphan(self, subscription: str) -> None:
        self._last += 1
        stream = subscription in self._ended_streams
        if stream or subscription in self._ended:
            token = f"T_{subscription}@@{self._prefix}@@{self._last}"
            task = asyncio.get_running_loop().create_task(self.give_back([token], stream=stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def give_back(self, tokens: Iterable[str], *, stream: bool = False) -> None:
        """Put these messages back on their queue; ends the connection where nothing else would free them."""
        try:
            async with asyncio.timeout(_DEADLINE):
                await self._answer_all(list(tokens), stream=stream)
        except (GatewayError, TimeoutError) as error:
            logger.warning("%s: messages cannot be given back: %s", self._session.address, error)
            self._session.abort(LinkFailed(LinkFault.INTERNAL, "reconnecting to give messages back to their queue"))

    async def _answer_all(self, tokens: list[str], *, stream: bool) -> None:
        borrowed = await self._living_subscription()
        *others, last = (f"T_{borrowed}@@{token.partition('@@')[2]}" for token in tokens)
        session = self._session
        for token in others:
            session.ack(token) if stream else session.nack(token)
        await (session.confirmed_ack(last) if stream else session.confirmed_nack(last)).future

    async def _living_subscription(self) -> str:
        if self._janitor is None:
            self._janitor = asyncio.get_running_loop().create_task(self._subscribe_janitor())
            self._janitor.add_done_callback(_retrieve)
        return await asyncio.shield(self._janitor)

    async def _subscribe_janitor(self) -> str:
        """A subscription that never gets a message, on a topic of its own."""
        path = f"/topic/mq-gateway.returns.{secrets.token_hex(8)}"
        route = Route(path, False, _ignore_message, self._lost_janitor)
        subscription, pending = self._session.subscribe(route, {})
        await pending.future
        return subscription

    def _lost_janitor(self, _detail: str) -> None:
        """The broker ended it; the next give-back makes another."""
        self._janitor = None


def _ignore_message(_frame: Frame) -> None:
    """Nobody publishes there."""


def _retrieve(task: asyncio.Task[str]) -> None:
    if not task.cancelled():
        task.exception()  # whoever gives back has it too; nobody may be waiting any more
