"""Reading a request's body under a cap, however small its pieces are, and no slower than a pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager

from app.api.exchange import ClientGone, Exchange
from app.domain.errors import BodyTooLarge, MalformedRequest, UnsupportedEncoding
from app.domain.pace import BODY_RATE, time_left
from app.gateway.budget import Held
from app.http1.deadline import Deadline

#: Memory that grows with the body, and is given back at the end of the block.
Hold = Callable[[], AbstractContextManager[Held]]


def check_encoding(exchange: Exchange) -> None:
    """Bodies are taken byte for byte: raises UnsupportedEncoding for any Content-Encoding."""
    encoding = exchange.headers.text(b"content-encoding")
    if encoding is not None:
        raise UnsupportedEncoding(
            f"Content-Encoding {encoding[:64]!r}: send the body as the message is to be, without an encoding"
        )


def _too_large(cap: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than the {cap} bytes this destination takes")


async def read_body(exchange: Exchange, hold: Hold, *, cap: int, patience: float) -> bytes:
    """The whole body, at most `cap` bytes; what has arrived of it is held with `hold` until it is whole.

    A Content-Length above the cap is refused before anything is read, also before a `100 Continue`; a chunked
    body as soon as it crosses the cap. Raises BodyTooLarge, Overloaded, MalformedRequest when it comes slower
    than `app.domain.pace` allows (`patience` in seconds), and ClientGone when the client left: a part of a body
    is never published.
    """
    length = _content_length(exchange)
    if length is not None and length > cap:
        raise _too_large(cap)
    body = await (_read(exchange, hold, cap) if exchange.is_watched else _in_time(exchange, hold, cap, patience))
    if length is not None and length != len(body):
        raise ClientGone  # the server's framing sees to this already; the rule is worth a second guard
    exchange.body_read = True
    return body


def _content_length(exchange: Exchange) -> int | None:
    value = exchange.headers.get(b"content-length")
    return int(value) if value is not None and value.isdigit() else None


async def _in_time(exchange: Exchange, hold: Hold, cap: int, patience: float) -> bytes:
    """For servers that have no deadline of their own for a body that does not come."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as end:
            deadline = Deadline(loop, lambda: end.reschedule(loop.time()))
            deadline.start(patience)
            try:
                return await _read(
                    exchange, hold, cap, lambda size: deadline.start(time_left(deadline.left(), size, patience))
                )
            finally:
                deadline.release()
    except TimeoutError:
        raise _too_slow(patience) from None


def _too_slow(patience: float) -> MalformedRequest:
    return MalformedRequest(
        f"the body came too slowly: it has {patience:g} seconds, and one more for every {BODY_RATE} bytes"
    )


async def body_pieces(exchange: Exchange, *, patience: float) -> AsyncGenerator[bytes]:
    """The body as it comes, of any length; the client's time runs only while it is waited for.

    Raises as `read_body`, but knows no cap: what is gathered of it is the caller's to bound.
    """
    loop = asyncio.get_running_loop()
    length, came, left, more = _content_length(exchange), 0, patience, True
    while more:
        began = loop.time()
        try:
            async with asyncio.timeout(None if exchange.is_watched else left):
                piece, more = await _next_piece(exchange)
        except TimeoutError:
            raise _too_slow(patience) from None
        came += len(piece)
        left = time_left(left - (loop.time() - began), len(piece), patience)
        yield piece
    if length is not None and length != came:
        raise ClientGone
    exchange.body_read = True


def _nothing(_size: int) -> None:
    """Where the server sees to the pace."""


async def _read(exchange: Exchange, hold: Hold, cap: int, came: Callable[[int], None] = _nothing) -> bytes:
    """The whole body; `came` is told the bytes of each piece that is not the last one."""
    body, more = await _next_piece(exchange)
    if len(body) > cap:
        raise _too_large(cap)
    return await _gather(exchange, hold, cap, body, came) if more else body


async def _gather(exchange: Exchange, hold: Hold, cap: int, piece: bytes, came: Callable[[int], None]) -> bytes:
    """A body that comes in pieces, in one buffer: a piece of one byte costs one byte.

    Reserved as it arrives: what was only announced costs nobody.
    """
    body, more = bytearray(), True
    with hold() as held:
        while True:
            if len(body) + len(piece) > cap:
                raise _too_large(cap)
            held.grow(len(piece))
            body += piece
            if not more:
                return bytes(body)
            came(len(piece))
            piece, more = await _next_piece(exchange)


async def _next_piece(exchange: Exchange) -> tuple[bytes, bool]:
    message = await exchange.receive()
    if message["type"] != "http.request":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)
