"""Where log lines go: to standard error, as lines for people or as one JSON object each.

The event loop never waits for whoever reads the log: lines go through a bounded queue to a writer's thread.
When the queue is full the line is dropped and counted, and the count is written when there is room again.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import logging.handlers
import os
import sys
import threading
from collections.abc import Mapping
from queue import Full, Queue
from typing import TextIO

from app.config.settings import Settings
from app.domain.message import rfc3339

#: Lines that may wait for the writer.
QUEUE_LINES = 10_000
#: Seconds to wait at the end for the writer.
STOP_SECONDS = 2.0
#: Set to any value: STOMP frames are logged (headers, never bodies or credentials), as in DIRAC.
DEBUG_STOMP = "DIRAC_DEBUG_STOMP"
#: The loggers of the STOMP layer: ours, and the library's, whose DEBUG lines hold bodies and are never wanted.
STOMP_LOGGERS = {"mq_gateway.stomp": logging.DEBUG, "stomp": logging.INFO}
#: Libraries whose INFO lines tell an operator nothing or repeat a line of ours.
_QUIET = ("uvicorn.access", "httpx", "httpcore", "asyncio")

_FIELDS = "fields"


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    found = getattr(record, _FIELDS, None)
    return found if isinstance(found, dict) else {}


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
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str)


class ConsoleFormatter(logging.Formatter):
    """`time level logger message name=value …`; control characters are escaped, so a line is one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; only a traceback has more than one."""
        parts = [
            rfc3339(record.created),
            f"{record.levelname:<7}",
            record.name,
            _printable(record.getMessage()),
        ]
        parts += [f"{name}={_printable(str(value))}" for name, value in _fields(record).items()]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _printable(text: str) -> str:
    """A name from a request must not be able to forge a line of the log (CWE-117)."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


class BoundedQueueHandler(logging.handlers.QueueHandler):
    """Hands lines to the writer's thread without ever waiting for it; counts what did not fit."""

    queue: Queue[logging.LogRecord | None]

    def __init__(self, lines: Queue[logging.LogRecord | None]) -> None:
        super().__init__(lines)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Resolve the message while its arguments are what they were; formatting is the writer's work."""
        record.msg, record.args = record.getMessage(), None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue the line, preceded by how many were lost before it."""
        try:
            if self.dropped:
                self.queue.put_nowait(self._loss())
                self.dropped = 0
            self.queue.put_nowait(record)
        except Full:
            self.dropped += 1

    def _loss(self) -> logging.LogRecord:
        text = f"{self.dropped} log lines were dropped: they came faster than they could be written"
        return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)


class _Writer:
    """The thread that writes. Ending it never waits long for whoever has stopped reading the log.

    The library's QueueListener waits without limit at its end and fails where the queue is full.
    """

    def __init__(self, lines: Queue[logging.LogRecord | None], output: logging.Handler) -> None:
        self._lines = lines
        self._output = output
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (record := self._lines.get()) is not None:
            self._output.handle(record)

    def stop(self) -> None:
        """Write what waits, for STOP_SECONDS at most; the thread is a daemon and dies with the process."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(Full):
            self._lines.put(None, timeout=STOP_SECONDS)
            thread.join(STOP_SECONDS)


class Logs:
    """The log of this process: `start()` takes over the root logger, `stop()` writes what waits."""

    def __init__(self, *, log_format: str, level: str, debug_stomp: bool, stream: TextIO | None = None) -> None:
        writer = logging.StreamHandler(stream or sys.stderr)
        writer.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
        lines: Queue[logging.LogRecord | None] = Queue(QUEUE_LINES)
        self.handler = BoundedQueueHandler(lines)
        self._writer = _Writer(lines, writer)
        self._level = level.upper()
        self._debug_stomp = debug_stomp

    def start(self) -> None:
        """Begin to write. Replaces handlers of the root logger, so that no line is written twice."""
        root = logging.getLogger()
        root.handlers[:] = [self.handler]
        root.setLevel(self._level)
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        for name, level in STOMP_LOGGERS.items():
            logging.getLogger(name).setLevel(level if self._debug_stomp else logging.WARNING)
        self._writer.start()

    def stop(self) -> None:
        """Write what waits and end the writer's thread. Idempotent."""
        logging.getLogger().removeHandler(self.handler)
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
