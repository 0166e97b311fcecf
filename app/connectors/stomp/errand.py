"""A connection for one errand: what the broker ends for its sake is nobody else's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from app.connectors.stomp.opening import open_session
from app.connectors.stomp.session import Session
from app.domain.errors import BrokerUnavailable, GatewayError
from app.domain.link import LinkFailed, LinkFault


@contextlib.asynccontextmanager
async def errand(session: Session) -> AsyncIterator[Session]:
    """Another connection to the same broker, for the length of the block; the caller sets the deadline.

    What it was given and has not acknowledged goes back with its end. Raises BrokerUnavailable.
    """
    if session.settings is None or not session.is_open:
        raise BrokerUnavailable("the link is not connected", retry_after=1)
    try:
        other = await open_session(session.settings, session.address, 0, _ignore)
    except LinkFailed as fault:
        raise BrokerUnavailable(f"no connection for what is to be declared: {fault}", retry_after=1) from None
    try:
        yield other
        if other.is_open:
            with contextlib.suppress(GatewayError):
                await other.disconnect()
    finally:
        other.abort(LinkFailed(LinkFault.CLOSED_BY_BROKER, "the errand is done"))


def _ignore(_event: str) -> None:
    """An errand is told by its outcome."""
