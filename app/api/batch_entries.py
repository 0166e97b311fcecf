"""The messages of a batch as they come in: lines of any number, or the elements of an array under the cap."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial

from app.api.batch_message import Messages, id_of
from app.api.body import body_pieces, read_body
from app.api.exchange import Exchange
from app.api.report import Name
from app.api.request_headers import bad_header
from app.connectors.base import Destination
from app.domain.errors import BodyTooLarge, GatewayError, Overloaded
from app.domain.message import Publication
from app.gateway.budget import Held
from app.gateway.gateway import Gateway
from app.wire.json_array import elements
from app.wire.ndjson import Lines

LINES = "application/x-ndjson"
ARRAY = "application/json"

#: A message of the batch, or why it is none.
Entry = tuple[Name, Publication | GatewayError]
#: Waits until there may be memory again; False where nothing is known that would free any.
Room = Callable[[], Awaitable[bool]]


class Entries:
    """Reads one request's body; `room` is asked where there is no memory for a line that has begun."""

    def __init__(
        self, gateway: Gateway, exchange: Exchange, destination: Destination, messages: Messages, room: Room
    ) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._messages = messages
        self._room = room
        self._service = destination.uri.service
        self._cap = gateway.admission.body_limit(destination)
        self._patience = gateway.settings.server.idle_timeout
        self._read = {LINES: self._lines, ARRAY: self._elements}[media_type(exchange)]
        self._index = -1

    def read(self) -> AsyncGenerator[Entry]:
        """The messages in their order; close it. Raises ClientGone, MalformedRequest and what reading a body does."""
        return self._read()

    def _name(self, id_: str | None = None) -> Name:
        self._index += 1
        return Name(self._index, id_)

    # One JSON message each line.

    async def _lines(self) -> AsyncGenerator[Entry]:
        lines = Lines(self._cap)
        with self._gateway.budget.holding(self._service) as held:
            async with aclosing(body_pieces(self._exchange, patience=self._patience)) as pieces:
                async for piece in pieces:
                    for entry in self._from_lines(lines.feed(piece), held):
                        yield entry
                    refusal = await self._hold(held, lines)
                    if refusal is not None:
                        yield self._name(), refusal
            for entry in self._from_lines(lines.end(), held):
                yield entry

    def _from_lines(self, lines: Iterable[bytes | None], held: Held) -> Iterable[Entry]:
        for line in lines:
            held.release()  # whoever publishes the line holds it himself
            yield self._name(), self._of_line(line)

    def _of_line(self, line: bytes | None) -> Publication | GatewayError:
        if line is None:
            return BodyTooLarge(f"the line has more than the {self._cap} bytes this destination takes")
        try:
            return self._messages.of_line(line)
        except GatewayError as error:
            return error

    async def _hold(self, held: Held, lines: Lines) -> Overloaded | None:
        """Memory for the line that has begun; where there is none, its end is not waited for."""
        while True:
            try:
                held.grow(max(0, lines.pending - held.size))
            except Overloaded as error:
                if not await self._room():
                    lines.skip()
                    held.release()
                    return error
            else:
                return None

    # An array of objects.

    async def _elements(self) -> AsyncGenerator[Entry]:
        budget = self._gateway.budget
        body = await read_body(
            self._exchange, partial(budget.holding, self._service), cap=self._cap, patience=self._patience
        )
        # As it came, and as text.
        with budget.reserve(self._service, 2 * len(body)):
            for element in elements(body):
                name = self._name(id_of(element))
                try:
                    yield name, self._messages.of_element(element)
                except GatewayError as error:
                    yield name, error


def media_type(exchange: Exchange) -> str:
    """LINES or ARRAY; raises InvalidHeader for any other Content-Type."""
    text = exchange.headers.text(b"content-type") or ""
    found = text.partition(";")[0].strip().lower()
    if found not in (LINES, ARRAY):
        raise bad_header("Content-Type", f"{LINES} with a JSON message each line, or {ARRAY} with an array of objects")
    return found
