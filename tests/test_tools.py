"""What is missing is said once for each package."""

from __future__ import annotations

import pytest

from tests.tools import not_allowed, not_run, summary


def test_a_missing_package_skips_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    reasons = []
    for package in ("rabbitmq-server", "activemq", "rabbitmq-server"):
        with pytest.raises(pytest.skip.Exception) as caught:
            not_run(package)
        reasons.append(f"Skipped: {caught.value.msg}")
    assert summary([*reasons, "Skipped: another reason"]) == [
        "NOT RUN: 1 tests, activemq missing",
        "NOT RUN: 2 tests, rabbitmq-server missing",
    ]


def test_in_ci_it_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="rabbitmq-server is not installed"):
        not_run("rabbitmq-server")


def test_a_right_that_is_missing_is_said_and_no_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.skip.Exception) as caught:
        not_allowed("the right to fly")
    assert summary([f"Skipped: {caught.value.msg}"]) == ["NOT RUN: 1 tests, the right to fly missing"]
