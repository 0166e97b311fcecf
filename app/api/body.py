"""Reading a request's body under a cap, piece by piece, with a deadline for every piece."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import Message

from app.api.exchange import ClientGone, Exchange
from app.domain.errors import BodyTooLarge, MalformedRequest, UnsupportedEncoding
from app.gateway.budget import Budget


def check_encoding(exchange: Exchange) -> None:
    """Bodies are taken byte for byte: raises UnsupportedEncoding for anything but `identity`."""
    encoding = exchange.headers.text(b"content-encoding")
    if encoding is not None and encoding.lower() not in ("", "identity"):
        raise UnsupportedEncoding(
            f"Content-Encoding {encoding[:64]!r}: send the body as the message is to be, without an encoding"
        )


def _too_large(cap: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than the {cap} bytes this destination takes")


async def read_body(exchange: Exchange, budget: Budget, *, cap: int, patience: float) -> bytes:
    """The whole body, at most `cap` bytes; what has arrived of it is held in `budget` until it is whole.

    A Content-Length above the cap is refused before anything is read, also before a `100 Continue`; a chunked
    body as soon as it crosses the cap. Raises BodyTooLarge, Overloaded, MalformedRequest when no byte came for
    `patience` seconds, and ClientGone when the client left: a part of a body is never published.
    """
    length = _content_length(exchange)
    if length is not None and length > cap:
        raise _too_large(cap)
    body, more = await _next_piece(exchange, patience)
    if more:
        body = await _gather(exchange, budget, body, cap=cap, patience=patience)
    if len(body) > cap:
        raise _too_large(cap)
    if length is not None and length != len(body):
        raise ClientGone  # the server's framing sees to this already; the rule is worth a second guard
    exchange.body_read = True
    return body


def _content_length(exchange: Exchange) -> int | None:
    value = exchange.headers.get(b"content-length")
    return int(value) if value is not None and value.isdigit() else None


async def _gather(exchange: Exchange, budget: Budget, first: bytes, *, cap: int, patience: float) -> bytes:
    """The rest of a body that comes in pieces. Reserved as it arrives: what was only announced costs nobody."""
    pieces, size, more = [first], len(first), True
    with contextlib.ExitStack() as held:
        held.enter_context(budget.reserve(size))
        while more:
            piece, more = await _next_piece(exchange, patience)
            held.enter_context(budget.reserve(len(piece)))
            pieces.append(piece)
            size += len(piece)
            if size > cap:
                raise _too_large(cap)
        return b"".join(pieces)


async def _next_piece(exchange: Exchange, patience: float) -> tuple[bytes, bool]:
    message = await (exchange.receive() if exchange.is_watched else _receive_in_time(exchange, patience))
    if message["type"] != "http.request":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def _receive_in_time(exchange: Exchange, patience: float) -> Message:
    """For servers that have no deadline of their own for a body that does not come."""
    try:
        async with asyncio.timeout(patience):
            return await exchange.receive()
    except TimeoutError:
        raise MalformedRequest(f"no byte of the body came for {patience:g} seconds") from None
