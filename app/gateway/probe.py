"""`mq-gateway check --connect`: connect as the gateway would, and say at each step what is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.config.settings import STOMP, ServiceSettings
from app.connectors.base import ConnectorContext, Destination
from app.connectors.catalog import connector_class
from app.connectors.stomp.addresses import Address, resolve
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.opening import open_session
from app.domain.errors import NotSupportedByBroker
from app.domain.link import LinkFailed, LinkFault, LinkState
from app.domain.uri import DestinationType, MqUri


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for a person: whether it is good news, and a sentence without secrets."""

    good: bool
    text: str


async def probe(service: str, settings: ServiceSettings) -> AsyncIterator[Finding]:
    """Findings of one service, each address of its broker on its own; bounded by `connect_timeout` each."""
    if settings.mq_type == STOMP:
        async for finding in _probe_stomp(service, settings):
            yield finding
    else:
        yield await _probe_other(service, settings)


async def _probe_stomp(service: str, settings: ServiceSettings) -> AsyncIterator[Finding]:
    try:
        addresses = await resolve(settings.addresses(), settings.connect_timeout)
    except LinkFailed as error:
        yield Finding(False, f"names: {error}")
        return
    yield Finding(True, f"addresses: {', '.join(map(str, addresses))}")
    for address in addresses:
        yield await _probe_address(service, settings, address)


async def _probe_address(service: str, settings: ServiceSettings, address: Address) -> Finding:
    try:
        session = await open_session(settings, address, 0, _ignore)
    except LinkFailed as fault:
        return Finding(False, f"{fault} ({fault.fault})")
    encryption = session.transport.encryption
    broker = session.dialect.server or "unnamed broker"
    lacks = _lacks(service, settings, session.dialect)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            await session.disconnect()
    except TimeoutError:
        session.abort(LinkFailed(LinkFault.TIMEOUT, "no answer to DISCONNECT"))
    if lacks is not None:
        return Finding(False, f"{address}: {broker} {lacks}")
    login = settings.user or "the certificate" if settings.tls is not None else settings.user or "nobody"
    return Finding(True, f"{address}: {encryption}, {broker}, logged in as {login}, vhost {settings.vhost}")


def _lacks(service: str, settings: ServiceSettings, dialect: Dialect) -> str | None:
    """What the configuration wants and this broker cannot do; None where there is nothing."""
    for name, topic in settings.topics.items():
        if topic.is_stream and not dialect.has_streams:
            return f"has no streams, which `replay: stream` of {name} needs"
        for subscription in topic.subscriptions:
            wanted = Destination(MqUri(service, DestinationType.TOPICS, name), topic, subscription)
            try:
                dialect.check_subscription(wanted, settings.client_id)
            except NotSupportedByBroker as error:
                return f"cannot do what is configured: {error}"
    return None


async def _probe_other(service: str, settings: ServiceSettings) -> Finding:
    up = asyncio.Event()

    def on_state(_previous: LinkState, state: LinkState) -> None:
        if state is LinkState.UP:
            up.set()

    context = ConnectorContext(in_flight=1, on_state=on_state, on_event=_ignore)
    connector = connector_class(settings.mq_type)(service, settings, context)
    await connector.start()
    try:
        async with asyncio.timeout(settings.connect_timeout):
            await up.wait()
        return Finding(True, f"{settings.mq_type}: up, {connector.status.broker or 'unnamed broker'}")
    except TimeoutError:
        error = connector.status.last_error
        return Finding(False, f"{settings.mq_type}: not up: {error.detail if error else 'no answer in time'}")
    finally:
        await connector.close(settings.connect_timeout)


def _ignore(_event: str) -> None:
    """A probe counts nothing."""
