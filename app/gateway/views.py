"""What `GET /mq` shows: plain values, named as in the HTTP contract (section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from app.connectors.base import Destination, MQConnector
from app.domain.link import Connections, LinkError
from app.domain.message import rfc3339
from app.gateway.stream import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationView:
    """One destination. Counters run since the start of this process."""

    mq_uri: str
    readers: int
    leases: int
    published: int
    delivered: int
    gaps: int
    quarantined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkErrorView:
    """The last thing that went wrong on a link; `code` is from a closed set."""

    code: str
    detail: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceView:
    """One mqService. Times are RFC 3339 UTC; `broker` and `address` are null until it was connected.

    `connections` says how many are up, of how many.
    """

    service: str
    mq_type: str
    link: str
    connections: Connections
    since: str
    broker: str | None
    address: str | None
    last_error: LinkErrorView | None
    next_attempt_at: str | None
    destinations: list[DestinationView]
    #: Undeclared ones in use that are not listed.
    destinations_omitted: int


def destination_view(
    destination: Destination, readers: int, counts: Counts, *, leases: int = 0, quarantined: bool = False
) -> DestinationView:
    """The view of one destination."""
    return DestinationView(
        mq_uri=str(destination.uri),
        readers=readers,
        leases=leases,
        published=counts.published,
        delivered=counts.delivered,
        gaps=counts.gaps,
        quarantined=quarantined,
    )


def service_view(connector: MQConnector, destinations: list[DestinationView], omitted: int = 0) -> ServiceView:
    """The view of one service."""
    status = connector.status
    return ServiceView(
        service=connector.service,
        mq_type=connector.settings.mq_type,
        link=status.state.value,
        connections=status.connections,
        since=rfc3339(status.since),
        broker=status.broker,
        address=status.address,
        last_error=_error_view(status.last_error),
        next_attempt_at=None if status.next_attempt_at is None else rfc3339(status.next_attempt_at),
        destinations=destinations,
        destinations_omitted=omitted,
    )


def _error_view(error: LinkError | None) -> LinkErrorView | None:
    return None if error is None else LinkErrorView(code=error.code, detail=error.detail, at=rfc3339(error.at))
