"""What a client asks for of an event stream: query and headers to a StreamRequest."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from app.api import query
from app.api.exchange import Exchange
from app.api.query import bad_parameter
from app.api.receive_request import DEFAULT_LEASE, MIN_LEASE
from app.config.settings import Settings
from app.domain.uri import MqUri
from app.gateway.stream import Format, Slow, StreamLease, StreamRequest

#: Characters of a Last-Event-ID that are looked at; ours are shorter, a longer one is foreign anyhow.
MAX_EVENT_ID = 1024

PARAMETERS = ("format", "slow", "from", "last_event_id", "status", "ack", "lease", "ticket")
_FORMATS: dict[str, Format] = {"data": "data", "envelope": "envelope", "cloudevents": "cloudevents"}
_SLOW: dict[str, Slow | None] = {"gap": "gap", "latest": "latest", "disconnect": "disconnect"}
_BOOLEAN = {"true": True, "false": False}
_FROM = "is now, earliest, or a time of RFC 3339 such as 2026-01-02T03:04:05Z (with `+` written %2B)"


def parse(exchange: Exchange, uri: MqUri, settings: Settings) -> StreamRequest:
    """Of one destination; raises InvalidParameter."""
    values = query.parse(exchange.scope["query_string"], PARAMETERS)
    return request(values, exchange, "data", lease(values, uri, settings))


def request(
    values: Mapping[str, str], exchange: Exchange, default: Format, terms: StreamLease | None = None
) -> StreamRequest:
    """From parameters by name; raises InvalidParameter. The header wins: a browser updates it, not the URL."""
    header = exchange.headers.first(b"last-event-id")
    position = header.decode(errors="replace") if header else values.get("last_event_id")
    start = values.get("from", "now")
    since = None if start in {"now", "earliest"} else int(query.instant("from", start, _FROM))
    return StreamRequest(
        format=query.choice(values, "format", _FORMATS, default),
        last_event_id=position[:MAX_EVENT_ID] if position else None,
        start="earliest" if start == "earliest" else "now",
        since=since,
        slow=query.choice(values, "slow", _SLOW, None),
        status=query.choice(values, "status", _BOOLEAN, False),
        lease=terms,
    )


def lease(values: Mapping[str, str], uri: MqUri, settings: Settings) -> StreamLease | None:
    """The terms of `ack=explicit`, None without it; raises InvalidParameter."""
    if not query.choice(values, "ack", {"auto": False, "explicit": True}, False):
        if "lease" in values:
            raise bad_parameter("lease", "is for ack=explicit")
        return None
    if not uri.is_queue:
        raise bad_parameter("ack", "explicit is for Queues; a Topic knows no acknowledgement")
    longest = settings.limits.lease_max
    seconds = query.number(values, "lease", default=DEFAULT_LEASE, low=MIN_LEASE, high=longest)
    path = "/".join(quote(part, safe="") for part in (uri.service, uri.type.value, uri.name))
    return StreamLease(f"{settings.server.root_path}/mq/{path}/ack", seconds)
