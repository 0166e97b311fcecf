"""GET /events: several destinations on one stream, and all that is wrong with them in one problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.api import query, stream_query
from app.api.exchange import Exchange
from app.api.query import bad_parameter
from app.config.settings import Settings
from app.connectors.base import Destination
from app.domain.several import Faults
from app.domain.uri import MqUri
from app.gateway.joint_opening import URI, Wanted
from app.gateway.stream import StreamLease

PARAMETERS = (URI, *stream_query.PARAMETERS)


def parse(
    exchange: Exchange, settings: Settings, check: Callable[[MqUri], None], resolve: Callable[[MqUri], Destination]
) -> list[Wanted]:
    """Each destination once, in the order in which they are named; raises InvalidParameter and what `resolve` raises.

    `check` is asked before any is resolved; what it raises is about the whole request.
    """
    values, texts = query.parse_list(exchange.scope["query_string"], stream_query.PARAMETERS, URI)
    _check_number(len(set(texts)), settings.limits.uris_per_stream)
    common = stream_query.request(values, exchange, "envelope")
    faults = Faults(URI)
    numbers: dict[MqUri, int] = {}
    for number, text in enumerate(texts):
        with faults.of(number, text):
            numbers.setdefault(MqUri.parse(text), number)
    for uri in numbers:
        check(uri)
    terms = {uri: _terms(stream_query.lease(values, uri, settings), uri) for uri in numbers}
    wanted = []
    for uri, number in numbers.items():
        with faults.of(number, str(uri)):
            wanted.append(Wanted(resolve(uri), replace(common, lease=terms[uri]), number))
    faults.check()
    return wanted


def _check_number(count: int, most: int) -> None:
    if not count:
        raise bad_parameter(URI, "names a destination, service::Queues|Topics::name, and is given once for each")
    if count > most:
        raise bad_parameter(URI, f"names 1 to {most} destinations, and here {count}")


def _terms(lease: StreamLease | None, uri: MqUri) -> StreamLease | None:
    """A lease that says whose it is."""
    return None if lease is None else replace(lease, mq_uri=str(uri))
