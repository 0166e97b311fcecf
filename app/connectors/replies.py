"""Requests that wait for a reply, told apart by the correlation id each of them went out with."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from app.domain.errors import GatewayError, Overloaded
from app.domain.message import Message, Publication
from app.domain.uri import MqUri

#: The caller's own correlation id travels in this header: two callers may use the same one.
OWN_ID = "mq-correlation-id"
#: Bytes of an id; whoever cannot guess it cannot answer in place of the responder.
_ID_BYTES = 16


@dataclass(slots=True, eq=False)
class Awaited:
    """A request to `uri` whose reply has not come. `owner` is the queue it will come over, once there is one."""

    uri: MqUri
    correlation_id: str = field(default_factory=lambda: secrets.token_urlsafe(_ID_BYTES))
    owner: object = None
    reply: asyncio.Future[Message] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def asked(self, publication: Publication) -> Publication:
        """The publication as it goes out."""
        headers = dict(publication.headers)
        if publication.correlation_id is not None:
            headers[OWN_ID] = publication.correlation_id
        return replace(publication, correlation_id=self.correlation_id, headers=headers)


class Replies:
    """Of one service: at most `window` requests wait. A reply nobody waits for is dropped and counted."""

    def __init__(self, service: str, window: int, on_event: Callable[[str], None]) -> None:
        self._service = service
        self._window = window
        self._on_event = on_event
        self._waiting: dict[str, Awaited] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @contextlib.contextmanager
    def expect(self, uri: MqUri) -> Iterator[Awaited]:
        """Wait within the block; raises Overloaded. What comes after it is late."""
        if len(self._waiting) >= self._window:
            raise Overloaded(f"{len(self._waiting)} requests to {self._service} wait for a reply", retry_after=1)
        awaited = Awaited(uri)
        self._waiting[awaited.correlation_id] = awaited
        try:
            yield awaited
        finally:
            self._waiting.pop(awaited.correlation_id, None)
            # Who waits for both has let go of neither until then; and it may have ended before anybody waited for it.
            if not awaited.reply.cancel() and not awaited.reply.cancelled():
                awaited.reply.exception()

    def take(self, correlation_id: str) -> Awaited | None:
        """Whose reply this is; None, and counted, where nobody waits for it (any more)."""
        awaited = self._waiting.pop(correlation_id, None)
        if awaited is None or awaited.reply.done():
            self._on_event("late_reply")
            return None
        return awaited

    def fail(self, owner: object, error: Callable[[], GatewayError]) -> None:
        """No reply comes over this queue any more."""
        for awaited in list(self._waiting.values()):
            if awaited.owner is owner and not awaited.reply.done():
                awaited.reply.set_exception(error())


async def in_time(reply: asyncio.Future[Message], left: float) -> Message | None:
    """The reply, or None where it has not come after `left` seconds; raises what it ended with.

    Not `asyncio.timeout`: what that raises knows the timeout, which knows the task, which knows what was raised; so the
    frames between them, and with them the body of the request, would wait for the collector of cycles.
    """
    try:
        await asyncio.wait([reply], timeout=left)
        return reply.result() if reply.done() else None
    finally:
        del reply  # an error would hold this frame, and the frame the error
