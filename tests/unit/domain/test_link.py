"""The table of states, and what is known of a link."""

from __future__ import annotations

from app.domain.link import TRANSITIONS, LinkFailed, LinkFault, LinkState, LinkStatus


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
