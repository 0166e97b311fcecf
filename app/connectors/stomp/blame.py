"""Which request an ERROR is about, and who may have ended the connection.

ActiveMQ names the receipt, Artemis too, but for a SUBSCRIBE, where it says the address. RabbitMQ names nothing, but
quotes the queue, exchange or key; so a request is only blamed when it is the one request in flight that fits, and none
whose answer nobody waits for fits too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable

from app.connectors.stomp.confirms import Confirms, Pending

#: What RabbitMQ quotes behind these words is a destination; behind others it is a vhost or a user.
_QUOTED = re.compile(r"\b(?:queue|exchange|topic|key|binding) '([^']*)'")
#: What Artemis says of an address, which has the prefix where its acceptor knows none.
_ADDRESS = re.compile(r"\bAMQ[0-9]+: .*?(?:on address|does not exist:) (\S+)")
#: Destinations (count) remembered for frames whose answer nobody waits for; the oldest are forgotten first.
_MAX_LOOSE = 1000
#: Seconds between an ERROR that names somebody and the end that it explains.
_NAMED_FOR = 1.0


class Blame:
    """Of one connection."""

    def __init__(self, confirms: Confirms) -> None:
        self._confirms = confirms
        #: The latest ERROR that could not be tied to a request; explains a close that follows.
        self.last_error: str | None = None
        self.unattributed = 0
        #: Destination of the only request in flight when the latest such ERROR came.
        self.lone: str | None = None
        self._loose: dict[str, None] = {}
        self._named: dict[str, float] = {}

    def loosen(self, path: str) -> None:
        """A frame to this destination is out whose answer nobody waits for (any more)."""
        if path:
            self._loose[path] = None
            while len(self._loose) > _MAX_LOOSE:
                del self._loose[next(iter(self._loose))]

    def culprit(self, receipt: str, text: str, unquote: Callable[[str], str]) -> Pending | None:
        """The one request that this ERROR is about, or None where that is not certain."""
        named = self._confirms.with_id(receipt)
        if named is None:
            quoted = {*_QUOTED.findall(text), *_ADDRESS.findall(text)} - {
                ""
            }  # a frame without a destination is not the one meant
            fits = [each for each in self._confirms if quoted & {*_parts(each.path, unquote), each.queue}]
            loose = any(quoted & _parts(path, unquote) for path in self._loose)
            named = fits[0] if len(fits) == 1 and not loose else None
        if named is not None:
            self._named = {**self._named_lately(), named.path: asyncio.get_running_loop().time()}
        return named

    def _named_lately(self) -> dict[str, float]:
        since = asyncio.get_running_loop().time() - _NAMED_FOR
        return {path: at for path, at in self._named.items() if at >= since}

    def unexplained(self, text: str) -> None:
        """An ERROR that fits no request, or several."""
        self.last_error = text
        self.unattributed += 1
        paths = [pending.path for pending in self._confirms]
        self.lone = paths[0] if len(paths) == 1 else None

    def suspects(self) -> Iterable[str]:
        """Whom to suspect when the broker closes now: who was named just before, else everybody in flight."""
        named = {path for path in self._named_lately() if path}
        return named or {pending.path for pending in self._confirms if pending.path}


def _parts(path: str, unquote: Callable[[str], str]) -> set[str]:
    """The names in a STOMP destination, `/queue/NAME` or `/exchange/NAME/KEY`, and itself."""
    return {path, *(unquote(part) for part in path.split("/")[2:])}
