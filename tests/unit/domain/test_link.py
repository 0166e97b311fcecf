"""The table of states, and what is known of a link."""

from __future__ import annotations

import pytest

from app.domain.link import (
    TRANSITIONS,
    Connections,
    LinkError,
    LinkFailed,
    LinkFault,
    LinkState,
    LinkStatus,
    combined,
    either,
)


def _reachable(start: LinkState) -> set[LinkState]:
    found = {start}
    while True:
        more = found.union(*(TRANSITIONS[state] for state in found))
        if more == found:
            return found
        found = more


def test_every_state_has_a_row_and_none_leads_to_itself() -> None:
    assert set(TRANSITIONS) == set(LinkState)
    assert all(state not in following for state, following in TRANSITIONS.items())


def test_closed_is_the_end_and_can_be_reached_from_everywhere() -> None:
    assert not TRANSITIONS[LinkState.CLOSED]
    assert all(LinkState.CLOSED in _reachable(state) for state in LinkState)


def test_up_comes_only_from_connecting() -> None:
    assert [state for state, following in TRANSITIONS.items() if LinkState.UP in following] == [LinkState.CONNECTING]


def test_a_drained_link_never_works_again() -> None:
    assert _reachable(LinkState.DRAINING) == {LinkState.DRAINING, LinkState.CLOSED}


def test_a_failure_has_a_code_and_a_sentence() -> None:
    failure = LinkFailed(LinkFault.TLS_VERIFY, "the certificate is for another name")
    assert failure.fault == "tls_verify"
    assert str(failure) == "the certificate is for another name"


def test_a_new_status_claims_nothing() -> None:
    status = LinkStatus(state=LinkState.CONNECTING, since=1.0)
    assert (status.broker, status.address, status.last_error, status.next_attempt_at) == (None, None, None, None)
    assert (status.epoch, status.ever_up) == (0, False)


def test_one_link_speaks_for_itself() -> None:
    status = LinkStatus(state=LinkState.UP, since=1.0)
    assert combined([status]) is status


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (LinkState.UP, LinkState.UP, LinkState.UP),
        (LinkState.UP, LinkState.CONNECTING, LinkState.CONNECTING),
        (LinkState.DOWN, LinkState.CONNECTING, LinkState.DOWN),
        (LinkState.UP, LinkState.DRAINING, LinkState.DRAINING),
        (LinkState.CLOSED, LinkState.CLOSED, LinkState.CLOSED),
    ],
)
def test_of_two_links_the_worse_one_speaks(one: LinkState, other: LinkState, both: LinkState) -> None:
    pair = [LinkStatus(state=one, since=1.0), LinkStatus(state=other, since=2.0)]
    assert combined(pair).state is both
    assert combined(pair[::-1]).state is both


def test_of_two_links_the_latest_error_and_the_next_attempt_are_told() -> None:
    early, late = (LinkError(LinkFault.REFUSED, text, at) for text, at in (("a", 1.0), ("b", 2.0)))
    one = LinkStatus(state=LinkState.DOWN, since=3.0, last_error=late, next_attempt_at=9.0, ever_up=True)
    other = LinkStatus(state=LinkState.DOWN, since=4.0, last_error=early, next_attempt_at=8.0)
    both = combined([one, other])
    assert both.connections == Connections(0, 2)
    assert (both.since, both.last_error, both.next_attempt_at, both.ever_up) == (4.0, late, 8.0, False)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (LinkState.UP, LinkState.DOWN, LinkState.UP),
        (LinkState.DOWN, LinkState.CONNECTING, LinkState.CONNECTING),
        (LinkState.UP, LinkState.DRAINING, LinkState.DRAINING),
        (LinkState.CLOSED, LinkState.CLOSED, LinkState.CLOSED),
    ],
)
def test_of_links_of_which_any_will_do_the_better_one_speaks(one: LinkState, other: LinkState, both: LinkState) -> None:
    pair = [LinkStatus(state=one, since=1.0), LinkStatus(state=other, since=2.0, ever_up=True)]
    assert either(pair).state is both
    assert either(pair[::-1]).state is both
    assert either(pair).ever_up


def test_connections_are_counted_over_all_of_them() -> None:
    up, down = (LinkStatus(state=state, since=1.0) for state in (LinkState.UP, LinkState.DOWN))
    assert (up.connections, down.connections) == (Connections(1, 1), Connections(0, 1))
    brokers = either([up, down, up])
    assert brokers.connections == Connections(2, 3)
    assert combined([up, brokers]).connections == Connections(3, 4)
