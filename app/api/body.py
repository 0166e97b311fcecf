"""Reading a request's body under a cap, piece by piece, with a deadline for every piece."""

from __future__ import annotations

import asyncio

from app.api.exchange import ClientGone, Exchange
from app.domain.errors import BodyTooLarge, MalformedRequest, UnsupportedEncoding


def check_encoding(exchange: Exchange) -> None:
    """Bodies are taken byte for byte: raises UnsupportedEncoding for anything but `identity`."""
    encoding = exchange.headers.text(b"content-encoding")
    if encoding is not None and encoding.lower() not in ("", "identity"):
        raise UnsupportedEncoding(
            f"Content-Encoding {encoding[:64]!r}: send the body as the message is to be, without an encoding"
        )


def _too_large(cap: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than the {cap} bytes this destination takes")


async def read_body(exchange: Exchange, *, cap: int, patience: float) -> bytes:
    """The whole body, at most `cap` bytes.

    A Content-Length above the cap is refused before anything is read, also before a `100 Continue`; a chunked
    body as soon as it crosses the cap. Raises BodyTooLarge, MalformedRequest when no byte came for `patience`
    seconds, and ClientGone when the client left: a part of a body is never published.
    """
    length = exchange.headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length) > cap:
        raise _too_large(cap)
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        piece, more = await _next_piece(exchange, patience)
        size += len(piece)
        if size > cap:
            raise _too_large(cap)
        pieces.append(piece)
    exchange.body_read = True
    if length is not None and length.isdigit() and int(length) != size:
        raise ClientGone  # the server's framing already sees to this; the rule is too important for one guard
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _next_piece(exchange: Exchange, patience: float) -> tuple[bytes, bool]:
    try:
        async with asyncio.timeout(patience):
            message = await exchange.receive()
    except TimeoutError:
        raise MalformedRequest(f"no byte of the body came for {patience:g} seconds") from None
    if message["type"] != "http.request":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)
