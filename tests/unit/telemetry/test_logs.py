"""Log lines: their form, and that nobody waits for them."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from app.config.settings import Settings
from app.telemetry import logs
from app.telemetry.logs import ConsoleFormatter, JsonFormatter, Logs, QueueingHandler


def _record(message: str = "hello %s", *args: object, fields: dict[str, Any] | None = None) -> logging.LogRecord:
    record = logging.LogRecord("mq_gateway.test", logging.INFO, __file__, 1, message, args, None)
    record.created = 0.5
    if fields is not None:
        record.fields = fields
    return record


def _failed() -> logging.LogRecord:
    record = _record("failed")
    error = LookupError("why")
    record.exc_info = (LookupError, error, None)
    return record


@pytest.fixture
def restored() -> Iterator[None]:
    """The loggers as they were."""
    names = ("", "uvicorn.access", "uvicorn.error", "httpx", "httpcore", "asyncio", *logs.STOMP_LOGGERS)
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def test_a_line_for_programs() -> None:
    line = JsonFormatter().format(_record("hello %s", "you", fields={"status": 200}))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "info",
        "logger": "mq_gateway.test",
        "message": "hello you",
        "status": 200,
    }


def test_a_line_for_people() -> None:
    line = ConsoleFormatter().format(_record("hello %s", "you", fields={"status": 200, "path": "/mq"}))
    assert line == "1970-01-01T00:00:00.500Z INFO    mq_gateway.test hello you status=200 path=/mq"


def test_a_name_cannot_forge_a_line() -> None:
    record = _record("bad %s", "a\n2026 INFO forged", fields={"path": "x\r\ny"})
    assert "\n" not in ConsoleFormatter().format(record)
    assert "\r" not in ConsoleFormatter().format(record)
    assert "\n" not in JsonFormatter().format(record)


JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("/mq/" + "mqg_" + "a" * 43, "/mq/mqg_***", id="token"),
        pytest.param("/mq/" + "mqg%5F" + "a" * 43, "/mq/mqg%5F***", id="token, encoded"),
        pytest.param(f"/mq/{JWT}/events", "/mq/eyJ***/events", id="JWT"),
        pytest.param(f"/mq/{JWT.replace('.', '%2E')}", "/mq/eyJ***", id="JWT, encoded"),
        pytest.param("/mq/a/Queues/mqg_jobs", "/mq/a/Queues/mqg_jobs", id="a name that only begins so"),
    ],
)
def test_what_could_be_a_credential_is_masked(text: str, shown: str) -> None:
    assert logs.masked(f"x path={text} y") == f"x path={shown} y"


def test_a_traceback_is_kept() -> None:
    assert "LookupError: why" in json.loads(JsonFormatter().format(_failed()))["exception"]
    assert ConsoleFormatter().format(_failed()).endswith("LookupError: why")


def test_what_does_not_fit_is_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUE_LINES", 1)
    lines: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
    handler = QueueingHandler(lines)
    for _ in range(3):
        handler.handle(_record("kept"))
    assert handler.dropped == 2
    assert lines.get().getMessage() == "kept"  # type: ignore[union-attr]
    handler.handle(_record("later"))
    texts = [lines.get().getMessage() for _ in range(2)]  # type: ignore[union-attr]
    assert texts == ["2 log lines were dropped: they came faster than they could be written", "later"]
    assert handler.dropped == 0


def test_arguments_are_read_at_once_and_bad_ones_hurt_nobody() -> None:
    lines: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
    handler = QueueingHandler(lines)
    changing = ["a"]
    handler.handle(_record("%s", changing))
    changing.append("b")
    handler.handle(_record("%d", "no number"))
    assert lines.get().getMessage() == "['a']"  # type: ignore[union-attr]
    assert lines.get().getMessage() == "%d (its arguments do not fit)"  # type: ignore[union-attr]


@pytest.mark.usefixtures("restored")
def test_lines_go_through_the_writer_and_handlers_come_back() -> None:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:]
    made = Logs(log_format="json", level="info", debug_stomp=False, stream=stream)
    made.start()
    logging.getLogger("mq_gateway.test").info("one")
    logging.getLogger("mq_gateway.test").debug("not this")
    logging.getLogger("mq_gateway.test").info("two")
    made.stop()
    made.stop()
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["one", "two"]
    assert logging.getLogger().handlers == before


@pytest.mark.usefixtures("restored")
def test_no_line_is_written_with_a_credential(restored: None) -> None:
    stream = io.StringIO()
    written = Logs(log_format="json", level="info", debug_stomp=False, stream=stream)
    written.start()
    logging.getLogger("any").error("at %s", "mqg_" + "x" * 43)
    written.stop()
    assert json.loads(stream.getvalue())["message"] == "at mqg_***"


def test_lines_are_written_without_waiting_for_the_end() -> None:
    written = threading.Event()

    class Stream(io.StringIO):
        def flush(self) -> None:
            written.set()

    made = Logs(log_format="console", level="info", debug_stomp=False, stream=Stream())
    made.start()
    logging.getLogger("mq_gateway.test").info("one")
    assert written.wait(5)
    made.stop()


@pytest.mark.usefixtures("restored")
def test_a_closed_stream_hurts_nobody() -> None:
    stream = io.StringIO()
    stream.close()
    made = Logs(log_format="console", level="info", debug_stomp=False, stream=stream)
    made.start()
    logging.getLogger("mq_gateway.test").info("one")
    made.stop()
    assert made.handler.dropped == 0


@pytest.mark.usefixtures("restored")
def test_a_reader_that_stops_reading_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "STOP_SECONDS", 0.05)
    never, blocked = threading.Event(), threading.Event()

    class Stuck(io.StringIO):
        def flush(self) -> None:
            blocked.set()
            never.wait(30)

    made = Logs(log_format="console", level="info", debug_stomp=False, stream=Stuck())
    made.start()
    logging.getLogger("mq_gateway.test").info("one")
    assert blocked.wait(5)
    made.stop()
    assert made._writer._thread.is_alive()
    never.set()
    made._writer._thread.join(5)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(
    ("debug", "ours", "theirs"),
    [(False, logging.WARNING, logging.WARNING), (True, logging.DEBUG, logging.INFO)],
)
def test_the_stomp_layer_is_silent_unless_asked(
    monkeypatch: pytest.MonkeyPatch, debug: bool, ours: int, theirs: int
) -> None:
    if debug:
        monkeypatch.setenv("DIRAC_DEBUG_STOMP", "")
    else:
        monkeypatch.delenv("DIRAC_DEBUG_STOMP", raising=False)
    made = logs.configure(Settings())
    try:
        assert logging.getLogger("mq_gateway.stomp.frames").getEffectiveLevel() == ours
        # The library writes bodies at DEBUG: never.
        assert logging.getLogger("stomp.py").getEffectiveLevel() == theirs
    finally:
        made.stop()
