"""What became of the messages of a batch, in numbers and in a bounded list."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.api import report as report_module
from app.api.report import FAILURE_BYTES, Name, Report
from app.domain.errors import BrokerRejected, ConnectionLost, GatewayError, InvalidJson, Outcome, Overloaded
from app.gateway.budget import Held


def _report(limit: int = 1 << 20) -> Report:
    left = limit

    def take(size: int) -> None:
        nonlocal left
        if size > left:
            raise Overloaded("full")
        left -= size

    return Report(Held(take, lambda _size: None))


@pytest.mark.parametrize(
    ("ended", "failed", "status", "worst"),
    [
        ([], [], 200, Outcome.CONFIRMED),
        ([Outcome.CONFIRMED] * 2, [], 200, Outcome.CONFIRMED),
        ([Outcome.UNCONFIRMED], [], 202, Outcome.UNCONFIRMED),
        ([Outcome.CONFIRMED], [InvalidJson], 207, Outcome.NOT_SENT),
        ([Outcome.CONFIRMED], [BrokerRejected, InvalidJson], 207, Outcome.REJECTED),
        ([], [ConnectionLost, BrokerRejected], 207, Outcome.UNKNOWN),
    ],
)
def test_the_status_and_the_worst(
    ended: list[Outcome], failed: list[Callable[[str], GatewayError]], status: int, worst: Outcome
) -> None:
    report = _report()
    for outcome in ended:
        report.ended(outcome)
    for number, error in enumerate(failed):
        report.failed(Name(number), error("why"))
    assert (report.status, report.worst, report.messages) == (status, worst, len(ended) + len(failed))


def test_failures_are_told_in_the_order_of_the_messages() -> None:
    report = _report()
    for index in (5, 2, 9):
        report.failed(Name(index, f"m{index}"), InvalidJson("x" * 1000))
    members = report.members()
    assert [failure["id"] for failure in members["failures"]] == ["m2", "m5", "m9"]
    assert {len(failure["detail"]) for failure in members["failures"]} == {report_module.MAX_DETAIL}
    assert report.first is not None
    assert report.first[0].index == 2


@pytest.mark.parametrize(("limit", "told"), [(1 << 20, 4), (2 * FAILURE_BYTES, 3), (0, 1)])
def test_no_more_are_told_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch, limit: int, told: int) -> None:
    monkeypatch.setattr(report_module, "MAX_FAILURES", 4)
    report = _report(limit)
    for index in range(6):
        report.failed(Name(index), InvalidJson("why"))
    members = report.members()
    assert (len(members["failures"]), members["failures_omitted"], members["messages"]) == (told, 6 - told, 6)
