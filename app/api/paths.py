"""What a request's path means. The one place where a path is split and percent-decoded.

The raw path is split on `/` before anything is decoded, so `%2F` inside a name stays part of the name and
cannot move a boundary; every part is decoded exactly once, so `%252F` is the text `%2F` (RFC 3986, 2.4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from app.domain.errors import FieldError, InvalidName, NotFound
from app.domain.uri import DestinationType, MqUri, check_name

_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

#: First parts of our paths: tells a path that still has the proxy's prefix from one that has not.
TOP_LEVEL = frozenset(
    {"", "mq", "events", "session", "ticket", "health", "metrics", "openapi.json", "asyncapi.json", "docs", "peer"}
)


class Kind(Enum):
    """The resources of the API."""

    SERVICES = auto()
    SERVICE = auto()
    DESTINATION = auto()
    EVENTS = auto()
    JOINT_EVENTS = auto()
    RECEIVE = auto()
    ACK = auto()
    NACK = auto()
    RENEW = auto()
    BATCH = auto()
    REQUEST = auto()
    SESSION = auto()
    TICKET = auto()
    PAGE = auto()


#: The methods of each resource but pages, as `Allow` names them.
METHODS: Mapping[Kind, tuple[str, ...]] = {
    Kind.SERVICES: ("GET", "HEAD"),
    Kind.SERVICE: ("GET", "HEAD"),
    Kind.DESTINATION: ("GET", "HEAD", "POST"),
    Kind.EVENTS: ("GET", "HEAD"),
    Kind.JOINT_EVENTS: ("GET", "HEAD"),
    Kind.RECEIVE: ("POST",),
    Kind.ACK: ("POST",),
    Kind.NACK: ("POST",),
    Kind.RENEW: ("POST",),
    Kind.BATCH: ("POST",),
    Kind.REQUEST: ("POST",),
    Kind.SESSION: ("GET", "HEAD", "POST", "DELETE"),
    Kind.TICKET: ("POST",),
}

#: What lies below a destination.
_BELOW: Mapping[str, Kind] = {
    "events": Kind.EVENTS,
    "batch": Kind.BATCH,
    "request": Kind.REQUEST,
    "receive": Kind.RECEIVE,
    "ack": Kind.ACK,
    "nack": Kind.NACK,
    "renew": Kind.RENEW,
}
#: Of these, what no message is published with.
_TAKING = frozenset({"receive", "ack", "nack", "renew"})


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed path: `service` is set for SERVICE, `uri` for DESTINATION and what is below it, `path` for PAGE."""

    kind: Kind
    service: str = ""
    uri: MqUri | None = None
    path: str = ""


def raw_path(scope: Mapping[str, Any]) -> str:
    """The path as the client sent it, still encoded; where the server does not tell, encoded again."""
    raw = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"])
    return str(raw, "latin-1")  # one character a byte; what is not ASCII fails when its part is decoded


def without_root(path: str, root: str) -> str:
    """The path without the prefix a reverse proxy publishes us under, whether or not the proxy took it off.

    Taken off only where one of our own paths follows, so that `/mq/x` stays itself behind a prefix `/mq`.
    """
    if not root or not (path == root or path.startswith(root + "/")):
        return path
    rest = path[len(root) :] or "/"
    return rest if rest[1:].partition("/")[0] in TOP_LEVEL else path


def is_publish(path: str) -> bool:
    """Whether a POST there publishes, or would if there were something: what it is counted as when it is refused."""
    parts = path.split("/")
    return parts[:2] == ["", "mq"] and len(parts) > 2 and not (len(parts) == 6 and parts[5] in _TAKING)


def parse(path: str) -> Route:
    """The resource at an encoded path; raises NotFound, InvalidName, InvalidParameter (unknown type)."""
    if not path.startswith("/"):
        raise NotFound("there is nothing at this path")
    parts = path[1:].split("/")
    if parts[0] == "mq":
        return _under_mq(parts)
    if parts == ["events"]:
        return Route(Kind.JOINT_EVENTS)
    if parts == ["session"]:
        return Route(Kind.SESSION)
    if parts == ["ticket"]:
        return Route(Kind.TICKET)
    return Route(Kind.PAGE, path=_page(parts))


def _under_mq(parts: list[str]) -> Route:
    # An empty name is a name of no bytes, which no destination has; any other empty part is no path of ours.
    if not all(parts[:3] + parts[4:]):
        raise NotFound("no part of a path under /mq is empty; a slash at the end makes an empty one")
    match parts:
        case [_]:
            return Route(Kind.SERVICES)
        case [_, service]:
            return Route(Kind.SERVICE, service=decode(service))
        case [_, service, kind, name]:
            return Route(Kind.DESTINATION, uri=_uri(service, kind, name))
        case [_, service, kind, name, below] if below in _BELOW:
            return Route(_BELOW[below], uri=_uri(service, kind, name))
        case _:
            raise NotFound("destinations are /mq/{service}/{type}/{name}; a slash inside a name is written %2F")


def _uri(service: str, kind: str, name: str) -> MqUri:
    return MqUri(decode(service), DestinationType.parse(decode(kind)), check_name(decode(name)))


def decode(part: str) -> str:
    """One part of a path, decoded once; raises InvalidName for a broken escape or what is not UTF-8."""
    if part.isascii() and "%" not in part:
        return part
    if _BROKEN_PERCENT.search(part):
        raise _bad_part("a `%` is followed by two hexadecimal digits; itself it is written %25")
    try:
        return unquote_to_bytes(part.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise _bad_part("valid UTF-8 after decoding") from None


def _bad_part(rule: str) -> InvalidName:
    return InvalidName(f"the path cannot be decoded: {rule}", errors=[FieldError("path", rule)])


def _page(parts: list[str]) -> str:
    """The decoded path of a page. A decoded slash would let two spellings of a path reach one page."""
    try:
        decoded = [decode(part) for part in parts]
    except InvalidName:
        raise NotFound("there is nothing at this path") from None
    if any("/" in part for part in decoded):
        raise NotFound("there is nothing at this path")
    return "/" + "/".join(decoded)
