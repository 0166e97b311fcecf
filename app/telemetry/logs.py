"""Where log lines go: to standard error, as lines for people or as one JSON object each.

The event loop never waits for whoever reads the log: lines go through a bounded queue to a writer's thread, which
gathers them for a moment and writes them at once. When the queue is full the line is dropped and counted, and the
count is written when there is room again.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import TextIO

from app.config.settings import Settings
from app.domain.message import rfc3339

#: Lines that may wait for the writer.
QUEUE_LINES = 10_000
#: Seconds the writer gathers lines before it writes: one wake-up and one write for many lines.
GATHER_SECONDS = 0.05
#: Seconds to wait at the end for the writer.
STOP_SECONDS = 2.0
#: Set to any value: STOMP frames are logged (headers, never bodies or credentials), as in DIRAC.
DEBUG_STOMP = "DIRAC_DEBUG_STOMP"
#: The loggers of the STOMP layer: ours, and the library's, whose DEBUG lines hold bodies and are never wanted.
STOMP_LOGGERS = {"mq_gateway.stomp": logging.DEBUG, "stomp": logging.INFO}
#: Libraries whose INFO lines tell an operator nothing or repeat a line of ours.
_QUIET = ("uvicorn.access", "uvicorn.error", "httpx", "httpcore", "asyncio")

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    """What is known beside the message: `extra={"fields": {...}}`, or the record of a request."""
    found = getattr(record, "fields", None)
    return found if isinstance(found, dict) else {}


# What is written like a credential of ours (`app.auth.token_file`, JWTs, sessions, tickets). A client may put one where
# it does not belong, such as in a path or an id; whoever reads the log is not to be that client.
_CREDENTIAL = re.compile(r"(mqg(?:_|%5[Ff])|eyJ)(?:[A-Za-z0-9_.-]|%2[Ee]|%5[Ff]){20,}")


def masked(line: str) -> str:
    """The line with stars for what could be a credential."""
    if "mqg" in line or "eyJ" in line:
        return _CREDENTIAL.sub(r"\1***", line)
    return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339), `level`, `logger`, `message`, then the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; JSON escapes whatever could end it early."""
        line: dict[str, object] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(_fields(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _to_json(line)


class ConsoleFormatter(logging.Formatter):
    """`time level logger message name=value …`; control characters are escaped, so a line is one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; only a traceback has more than one."""
        parts = [rfc3339(record.created), f"{record.levelname:<7}", record.name, _printable(record.getMessage())]
        parts += [f"{name}={_printable(str(value))}" for name, value in _fields(record).items()]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _printable(text: str) -> str:
    """A name from a request must not be able to forge a line of the log (CWE-117)."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


class QueueingHandler(logging.Handler):
    """Hands lines to the writer without ever waiting for it; counts what did not fit."""

    def __init__(self, lines: SimpleQueue[logging.LogRecord | None]) -> None:
        super().__init__()
        self._lines = lines
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line, preceded by how many were lost before it. Formatting is the writer's work."""
        if self._lines.qsize() >= QUEUE_LINES:
            self.dropped += 1
            return
        if self.dropped:
            lost, self.dropped = self.dropped, 0
            self._lines.put(_loss(lost))
        self._lines.put(_resolved(record))


def _resolved(record: logging.LogRecord) -> logging.LogRecord:
    """The record with its message made now: its arguments may change until it is written."""
    if record.args:
        try:
            record.msg, record.args = record.getMessage(), None
        except (TypeError, ValueError, KeyError):
            record.msg, record.args = f"{record.msg} (its arguments do not fit)", None
    return record


def _loss(lines: int) -> logging.LogRecord:
    text = f"{lines} log lines were dropped: they came faster than they could be written"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)


class _Writer:
    """The thread that writes. Ending it never waits long for whoever has stopped reading the log."""

    def __init__(
        self, lines: SimpleQueue[logging.LogRecord | None], formatter: logging.Formatter, stream: TextIO
    ) -> None:
        self._lines = lines
        self._formatter = formatter
        self._stream = stream
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while (record := self._lines.get()) is not None:
            self._stopping.wait(GATHER_SECONDS)
            records = [record]
            ended = self._gather(records)
            self._write(records)
            if ended:
                return

    def _gather(self, records: list[logging.LogRecord]) -> bool:
        """Add what waits; whether the end was among it."""
        try:
            while (record := self._lines.get_nowait()) is not None:
                records.append(record)
        except Empty:
            return False
        return True

    def _write(self, records: list[logging.LogRecord]) -> None:
        try:
            self._stream.write("".join(f"{masked(self._formatter.format(record))}\n" for record in records))
            self._stream.flush()
        except (OSError, ValueError):
            return  # nobody can be told that nobody reads

    def stop(self) -> None:
        """Write what waits, for STOP_SECONDS at most; the thread is a daemon and dies with the process."""
        self._stopping.set()
        self._lines.put(None)
        self._thread.join(STOP_SECONDS)


class Logs:
    """The log of this process: `start()` takes over the root logger, `stop()` writes what waits. Once each."""

    def __init__(self, *, log_format: str, level: str, debug_stomp: bool, stream: TextIO | None = None) -> None:
        lines: SimpleQueue[logging.LogRecord | None] = SimpleQueue()
        self.handler = QueueingHandler(lines)
        formatter = JsonFormatter() if log_format == "json" else ConsoleFormatter()
        self._writer = _Writer(lines, formatter, stream or sys.stderr)
        self._level = level.upper()
        self._debug_stomp = debug_stomp
        self._before: list[logging.Handler] = []

    def start(self) -> None:
        """Begin to write. Replaces the handlers of the root logger, so that no line is written twice."""
        root = logging.getLogger()
        self._before = root.handlers[:]
        root.handlers[:] = [self.handler]
        root.setLevel(self._level)
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        for name, level in STOMP_LOGGERS.items():
            logging.getLogger(name).setLevel(level if self._debug_stomp else logging.WARNING)
        self._writer.start()

    def stop(self) -> None:
        """Write what waits, end the writer's thread, put back the handlers that were there before."""
        root = logging.getLogger()
        if self.handler in root.handlers:
            root.handlers[:] = self._before
            self._writer.stop()


def configure(settings: Settings) -> Logs:
    """Set up logging for this process as `server.log_format` and `server.log_level` say; stops at exit."""
    logs = Logs(
        log_format=settings.server.log_format,
        level=settings.server.log_level,
        debug_stomp=DEBUG_STOMP in os.environ,
    )
    logs.start()
    atexit.register(logs.stop)
    return logs
