"""One attempt to open a session at one address, and the words for why it failed."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable

from app.config.settings import ServiceSettings
from app.connectors.stomp.addresses import Address
from app.connectors.stomp.login import has_backslash
from app.connectors.stomp.session import Session
from app.connectors.stomp.tls import client_context
from app.domain.link import LinkFailed, LinkFault


async def open_first(
    settings: ServiceSettings, addresses: Iterable[Address], epoch: int, on_event: Callable[[str], None]
) -> Session:
    """The first address that answers; raises the last address's LinkFailed when none does."""
    failure = LinkFailed(LinkFault.DNS, "no address")
    for address in addresses:
        try:
            return await open_session(settings, address, epoch, on_event)
        except LinkFailed as fault:
            failure = fault
    raise failure


async def open_session(
    settings: ServiceSettings, address: Address, epoch: int, on_event: Callable[[str], None]
) -> Session:
    """One attempt at one address within `connect_timeout`; raises LinkFailed with the reason."""
    context = _tls_context(settings, address)
    if not has_backslash(settings):
        return await _open(settings, address, epoch, on_event, context)
    # STOMP 1.2 wants CONNECT without escapes, and ActiveMQ reads it so; RabbitMQ reads escapes there too, and
    # who it is is only known afterwards.
    try:
        return await _open(settings, address, epoch, on_event, context, escaped=True)
    except LinkFailed as fault:
        if fault.fault not in {LinkFault.AUTH_FAILED, LinkFault.VHOST_DENIED, LinkFault.CLOSED_BY_BROKER}:
            raise
        first = fault
    try:
        return await _open(settings, address, epoch, on_event, context)
    except LinkFailed as fault:
        # RabbitMQ closes without a word on the second form: what it said to the first is the reason.
        raise (first if fault.fault is LinkFault.CLOSED_BY_BROKER else fault) from None


def _tls_context(settings: ServiceSettings, address: Address) -> ssl.SSLContext | None:
    try:
        return client_context(settings.tls) if settings.tls is not None else None
    except OSError as error:
        raise LinkFailed(LinkFault.TLS, f"{address.name}: our certificate files: {error}") from None


async def _open(
    settings: ServiceSettings,
    address: Address,
    epoch: int,
    on_event: Callable[[str], None],
    context: ssl.SSLContext | None,
    *,
    escaped: bool = False,
) -> Session:
    session = Session(epoch, address, on_event)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            await session.connect(settings, context, escaped=escaped)
    except BaseException as error:
        session.abort(LinkFailed(LinkFault.INTERNAL, "the attempt was given up"))
        if isinstance(error, OSError | LinkFailed):
            raise fault_of(error, address) from None
        raise
    return session


#: The one mapping from what a connect raises to a LinkFault; the first that fits.
_FAULTS: tuple[tuple[type[Exception], LinkFault], ...] = (
    (TimeoutError, LinkFault.TIMEOUT),
    (ConnectionRefusedError, LinkFault.REFUSED),
    (ssl.SSLCertVerificationError, LinkFault.TLS_VERIFY),
    (ssl.SSLError, LinkFault.TLS),
    (ConnectionError, LinkFault.CLOSED_BY_BROKER),
    (OSError, LinkFault.UNREACHABLE),
)


def fault_of(error: OSError | LinkFailed, address: Address) -> LinkFailed:
    """What a connect raised, as LinkFailed with the address in its text."""
    if isinstance(error, LinkFailed):
        fault = error.fault
    else:
        fault = next(fault for kind, fault in _FAULTS if isinstance(error, kind))
    return LinkFailed(fault, f"{address.name} ({address}): {_words(error)}")


def _words(error: OSError | LinkFailed) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or "the connection was closed before it was made"
