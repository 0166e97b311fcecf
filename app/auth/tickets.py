"""Tickets: what lets an EventSource on another origin open one stream, since it can send no header.

A ticket stands in a URL, which proxies and browsers write down. Therefore it is good for 30 seconds, for one stream,
of what it names. The browser comes back to the same URL by itself when its connection is lost: with a Last-Event-ID
that is taken once more, soon after the end of that stream, and never while it is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.auth.sealed import Seal, Sealed, SealError
from app.domain.errors import TooManyStreams

#: Seconds in which the stream has to be opened, and to come back after its end.
OPEN_SECONDS = 30.0
RETURN_SECONDS = 60.0
#: Tickets (count) in use or ended a moment ago.
MAX_IN_USE = 100_000

URIS = "uris"


@dataclass(slots=True)
class _Use:
    ended: float | None = None


class Tickets:
    """Of one process: another replica knows the signature, and not whether a ticket was used here."""

    def __init__(self, seal: Seal, clock: Callable[[], float] = time.time) -> None:
        self._seal = seal
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self._swept = 0.0

    def check(self, text: str, uris: Sequence[str], *, returning: bool) -> Sealed:
        """The ticket, if it may open this stream now; raises SealError. Nothing is used up yet."""
        ticket = self._seal.open(text, at=0.0)
        granted = ticket.more.get(URIS)
        if not isinstance(granted, list) or not uris or set(uris) != set(granted):
            raise SealError("ticket")
        use, now = self._uses.get(ticket.id), self._clock()
        if use is None:
            if ticket.until <= now:
                raise SealError("expired")
        elif use.ended is None or not returning or use.ended + RETURN_SECONDS <= now:
            raise SealError("ticket")
        return ticket

    def use(self, ticket: Sealed) -> Callable[[bool], None]:
        """Its stream opens; what is returned is to be called at the end. Raises SealError, TooManyStreams.

        It is told whether there was a stream: where the broker was down there was none, and the ticket is as before.
        """
        self._forget_old()
        use = self._uses.get(ticket.id)
        if use is not None and use.ended is None:
            raise SealError("ticket")  # another one was quicker
        if use is None and len(self._uses) >= MAX_IN_USE:
            raise TooManyStreams("as many tickets are in use as this gateway remembers")
        # Anew: the order is that of the last use.
        before = self._uses.pop(ticket.id, None)
        use = self._uses[ticket.id] = _Use()

        def end(streamed: bool) -> None:
            if streamed:
                use.ended = self._clock()
            elif before is not None:
                use.ended = before.ended
            else:
                del self._uses[ticket.id]

        return end

    def _forget_old(self) -> None:
        """A ticket is forgotten when neither it nor its return is good any more: later than it expires by itself."""
        now = self._clock()
        if len(self._uses) < MAX_IN_USE // 2 or now < self._swept + OPEN_SECONDS:
            return
        self._swept = now
        over = [key for key, use in self._uses.items() if use.ended is not None and use.ended + RETURN_SECONDS <= now]
        for key in over:
            del self._uses[key]
