"""The pauses between attempts."""

from __future__ import annotations

import pytest

from app.config.settings import ReconnectSettings
from app.connectors.stomp.backoff import REFUSALS, REFUSED_MAX, REFUSED_WAIT, SHORT_LIFE, Backoff


def _backoff(**settings: float) -> Backoff:
    return Backoff(ReconnectSettings.model_validate({"jitter": 0, **settings}))


def test_the_pause_grows_by_dirac_s_formula_up_to_the_longest() -> None:
    backoff = _backoff(initial=1, increase=0.5, max=15)
    waits = [backoff.after_failure() for _ in range(10)]
    assert waits == pytest.approx([min(15, 1.5**n) for n in range(10)])


def test_a_first_pause_above_the_longest_is_cut() -> None:
    assert _backoff(initial=60, max=5).after_failure() == 5


@pytest.mark.parametrize("increase", [0.5, 1.5, 100])
def test_years_of_failing_are_no_reason_to_stop(increase: float) -> None:
    backoff = _backoff(initial=1, increase=increase, max=15)
    assert {backoff.after_failure() for _ in range(5000)} >= {15}
    assert backoff.after_failure() == 15


def test_a_life_starts_the_pauses_anew_and_reconnects_at_once() -> None:
    backoff = _backoff()
    for _ in range(5):
        backoff.after_failure()
    assert backoff.after_life(SHORT_LIFE) == 0
    assert backoff.after_failure() == 1


def test_short_lives_in_a_row_slow_down_and_the_first_costs_nothing() -> None:
    backoff = _backoff(max=15)
    waits = [backoff.after_life(0.1) for _ in range(40)]
    assert waits[0] == 0
    assert 0 < waits[1] < 1
    assert waits == sorted(waits)
    assert waits[-1] == 1  # one client's bad frames must not make everybody wait
    assert backoff.after_life(SHORT_LIFE) == 0
    assert backoff.after_life(0.1) == 0


def test_jitter_adds_up_to_its_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = _backoff(initial=10, increase=0, jitter=0.2)
    for share, wait in ((0.0, 10), (0.5, 11), (1.0, 12)):
        monkeypatch.setattr("random.random", lambda share=share: share)
        assert backoff.after_failure() == pytest.approx(wait)


def test_refused_logins_are_repeated_ever_more_slowly_until_a_login_succeeds() -> None:
    backoff = _backoff(initial=1, increase=0, max=1)
    assert [backoff.after_refusal() for _ in range(REFUSALS)] == [1] * REFUSALS  # a broker that still starts
    waits = [backoff.after_refusal() for _ in range(50)]
    assert waits[:3] == [REFUSED_WAIT, 2 * REFUSED_WAIT, 4 * REFUSED_WAIT]
    assert waits[-1] == REFUSED_MAX
    backoff.after_life(SHORT_LIFE)
    assert backoff.after_refusal() == 1


def test_refused_logins_never_wait_less_than_other_failures() -> None:
    backoff = _backoff(initial=120, increase=0, max=120)
    assert {backoff.after_refusal() for _ in range(REFUSALS + 1)} == {120}
