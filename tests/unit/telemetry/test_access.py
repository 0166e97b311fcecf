"""The line of a request."""

from __future__ import annotations

import logging
import time

import pytest

from app.telemetry import access
from app.telemetry.access import LOGGER, MAX_PATH, Access


def _access(status: int = 200, path: str = "/mq") -> Access:
    return Access(request_id="r-1", method="GET", path=path, started=time.perf_counter(), status=status)


def test_only_what_is_known_is_named() -> None:
    record = _access()
    record.mq_uri = "a::Queues::b"
    assert record.fields(0.0012345) == {
        "method": "GET",
        "path": "/mq",
        "status": 200,
        "ms": 1.234,
        "request_id": "r-1",
        "principal": "anonymous",
        "mq_uri": "a::Queues::b",
    }


def test_a_long_path_is_cut() -> None:
    assert _access(path="/" * 5000).fields(0)["path"] == "/" * MAX_PATH


@pytest.mark.parametrize(
    ("status", "level"),
    [(200, logging.INFO), (404, logging.INFO), (0, logging.INFO), (500, logging.WARNING), (503, logging.WARNING)],
)
def test_our_own_failures_are_warnings(caplog: pytest.LogCaptureFixture, status: int, level: int) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        access.log(_access(status))
    (record,) = caplog.records
    assert record.levelno == level
    assert record.__dict__["fields"]["status"] == status


def test_nothing_is_made_for_a_level_that_is_off(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, LOGGER.name):
        access.log(_access())
    assert not caplog.records


@pytest.mark.parametrize(
    ("path", "status", "level"),
    [
        ("/health/live", 200, logging.DEBUG),
        ("/health/ready", 503, logging.WARNING),
        ("/metrics", 200, logging.DEBUG),
        ("/healthy", 404, logging.INFO),
    ],
)
def test_probes_that_are_content_are_not_worth_a_line(
    caplog: pytest.LogCaptureFixture, path: str, status: int, level: int
) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        access.log(_access(status, path))
    assert [record.levelno for record in caplog.records] == [level]
