"""Opening a stream of several destinations: all of them, or none and why."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from app.config.settings import TopicSettings
from app.connectors.base import Destination
from app.domain.errors import BrokerRejected, BrokerUnavailable, GatewayError, OutcomeUnknown
from app.domain.several import Faults
from app.domain.uri import MqUri
from app.gateway.joint import JointReader, Member
from app.gateway.stream import Format, Reader, StreamRequest
from app.wire.vector import positions

#: The parameter that names a destination, once for each.
URI = "uri"
#: Seconds for Queues where the Topics needed almost all of the time.
MIN_TIMEOUT = 0.1


class Open(Protocol):
    """Gateway.open_stream."""

    async def __call__(self, destination: Destination, request: StreamRequest, *, timeout: float) -> Reader:
        """A reader of one destination."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One of the destinations, what is asked for of it, and which of the client's it is, from 0 on."""

    destination: Destination
    request: StreamRequest
    number: int

    @property
    def uri(self) -> MqUri:
        return self.destination.uri


async def open_joint(open_stream: Open, wanted: Sequence[Wanted], *, timeout: float) -> JointReader:
    """A reader of all these destinations, once the brokers took all subscriptions, within `timeout` seconds.

    `last_event_id` of a request is that of the whole stream. Raises what `open_stream` raises, for all that failed.
    """
    form: Format = wanted[0].request.format
    wanted = _once_told(_resumed(wanted))
    opened: dict[MqUri, Reader] = {}
    deadline = asyncio.get_running_loop().time() + timeout
    try:
        # Queues last: a Topic that is refused must not cost them messages that come back marked redelivered.
        for is_queue in (False, True):
            await _open_all(open_stream, [each for each in wanted if each.uri.is_queue is is_queue], opened, deadline)
        members = [Member(each.uri, opened[each.uri], each.request.last_event_id or "") for each in wanted]
        return JointReader(members, form)
    except BaseException:
        # Also when this task is cancelled.
        await asyncio.shield(asyncio.gather(*(reader.close() for reader in opened.values())))
        raise


def _resumed(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Each with its own position of the client's id; a Queue has none."""
    last_event_id = wanted[0].request.last_event_id
    topics = [each.uri for each in wanted if not each.uri.is_queue]
    found = dict(zip(topics, positions(last_event_id, topics), strict=True)) if last_event_id else {}
    # Empty: begins as one that comes without an id.
    return [replace(each, request=replace(each.request, last_event_id=found.get(each.uri) or None)) for each in wanted]


def _once_told(wanted: Sequence[Wanted]) -> list[Wanted]:
    """The link of each service is told of by one reader."""
    first = {each.uri.service: each for each in reversed(wanted)}
    return [
        replace(each, request=replace(each.request, status=each.request.status and first[each.uri.service] is each))
        for each in wanted
    ]


async def _open_all(open_stream: Open, wanted: Sequence[Wanted], opened: dict[MqUri, Reader], deadline: float) -> None:
    """Services at the same time, the destinations of one in order: where the broker refuses one and ends the connection
    of all for it, it is known which one it was, and the others are not asked after it.

    Streams are all read at once, over a connection of their own: it takes a second to know that one is empty.
    """
    faults = Faults(URI)

    async def open_in_order(group: Sequence[Wanted]) -> None:
        for each in group:
            timeout = max(MIN_TIMEOUT, deadline - asyncio.get_running_loop().time())
            try:
                opened[each.uri] = await open_stream(each.destination, each.request, timeout=timeout)
            except GatewayError as error:
                faults.add(each.number, str(each.uri), error)
                if isinstance(error, BrokerRejected | BrokerUnavailable | OutcomeUnknown):
                    return

    results = await asyncio.gather(*map(open_in_order, _groups(wanted)), return_exceptions=True)
    for result in results:
        if result is not None:
            raise result
    faults.check()


def _groups(wanted: Sequence[Wanted]) -> list[list[Wanted]]:
    groups: dict[str, list[Wanted]] = {}
    for each in wanted:
        settings = each.destination.settings
        is_stream = isinstance(settings, TopicSettings) and settings.is_stream
        groups.setdefault(str(each.uri) if is_stream else each.uri.service, []).append(each)
    return list(groups.values())
