"""The life of the link to an mqService: states as a table, and what a person may know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class LinkState(StrEnum):
    """down: waiting before the next attempt. connecting: an attempt is under way. up: authenticated.

    draining: no new work, what is in flight ends. closed: over for good.
    """

    DOWN = "down"
    CONNECTING = "connecting"
    UP = "up"
    DRAINING = "draining"
    CLOSED = "closed"


#: What may follow what. A link that had been up goes to `connecting` at once, without back-off.
TRANSITIONS: dict[LinkState, frozenset[LinkState]] = {
    LinkState.DOWN: frozenset({LinkState.CONNECTING, LinkState.CLOSED}),
    LinkState.CONNECTING: frozenset({LinkState.UP, LinkState.DOWN, LinkState.CLOSED}),
    LinkState.UP: frozenset({LinkState.CONNECTING, LinkState.DOWN, LinkState.DRAINING, LinkState.CLOSED}),
    LinkState.DRAINING: frozenset({LinkState.CLOSED}),
    LinkState.CLOSED: frozenset(),
}


class LinkFault(StrEnum):
    """Why a link is not up: the closed set of `last_error.code`."""

    DNS = "dns"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS_VERIFY = "tls_verify"
    TLS = "tls"
    AUTH_FAILED = "auth_failed"
    VHOST_DENIED = "vhost_denied"
    VERSION = "version"
    PROTOCOL = "protocol"
    HEARTBEAT = "heartbeat"
    WRITE_TIMEOUT = "write_timeout"
    CLOSED_BY_BROKER = "closed_by_broker"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class LinkError:
    """The last thing that went wrong: code, a sentence without secrets, Unix time in seconds."""

    code: LinkFault
    detail: str
    at: float


class LinkFailed(Exception):
    """A connection attempt or an established connection failed with `fault`; never carries a secret."""

    def __init__(self, fault: LinkFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections of a service are up, of how many it wants."""

    up: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """A snapshot of one link. Times are Unix seconds; `address` is host:port of the present connection.

    `several` counts the connections behind it where there may be more than one.
    """

    state: LinkState
    since: float
    broker: str | None = None
    address: str | None = None
    last_error: LinkError | None = None
    next_attempt_at: float | None = None
    epoch: int = 0
    ever_up: bool = False
    several: Connections | None = None

    @property
    def connections(self) -> Connections:
        """How many are up, of how many."""
        return self.several or Connections(int(self.state is LinkState.UP), 1)


#: Of links that are all needed, the state that speaks for all is the first of these that one of them is in.
_PRECEDENCE = (LinkState.DRAINING, LinkState.DOWN, LinkState.CONNECTING, LinkState.UP, LinkState.CLOSED)
#: Of links of which any will do.
_EITHER = (LinkState.DRAINING, LinkState.UP, LinkState.CONNECTING, LinkState.DOWN, LinkState.CLOSED)


def combined(statuses: Sequence[LinkStatus]) -> LinkStatus:
    """One status for links that are all needed, the first of which speaks for broker and address."""
    if len(statuses) == 1:
        return statuses[0]
    state = _first(_PRECEDENCE, statuses)
    since = max(each.since for each in statuses if each.state is state)
    return replace(_told_together(statuses), state=state, since=since, ever_up=all(each.ever_up for each in statuses))


def either(statuses: Sequence[LinkStatus]) -> LinkStatus:
    """One status for links, at least one, of which any will do."""
    state = _first(_EITHER, statuses)
    since = min(each.since for each in statuses if each.state is state)
    return replace(_told_together(statuses), state=state, since=since, ever_up=any(each.ever_up for each in statuses))


def _first(precedence: Sequence[LinkState], statuses: Sequence[LinkStatus]) -> LinkState:
    return next(state for state in precedence if any(each.state is state for each in statuses))


def _told_together(statuses: Sequence[LinkStatus]) -> LinkStatus:
    """The first one with the latest error, the next attempt and the connections of them all."""
    errors = [each.last_error for each in statuses if each.last_error is not None]
    attempts = [each.next_attempt_at for each in statuses if each.next_attempt_at is not None]
    counts = [each.connections for each in statuses]
    return replace(
        statuses[0],
        last_error=max(errors, key=lambda error: error.at, default=None),
        next_attempt_at=min(attempts, default=None),
        several=Connections(sum(each.up for each in counts), sum(each.of for each in counts)),
    )
