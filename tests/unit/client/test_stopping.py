"""Ending on Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal

import pytest

from app.client.stopping import Stop, Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_under_way_is_finished_and_a_wait_is_not_begun(number: signal.Signals) -> None:
    with Stop() as stop:
        signal.raise_signal(number)
        assert stop.asked
        with pytest.raises(Stopped), stop.idle():
            pytest.fail("it waits")


def test_a_wait_ends() -> None:
    with Stop() as stop, pytest.raises(Stopped), stop.idle():
        signal.raise_signal(signal.SIGTERM)


def test_a_second_signal_ends_everything() -> None:
    with Stop():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_the_signals_are_lent() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGINT, before)
