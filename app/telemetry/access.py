"""One line a request: who asked for what, what became of it, and the ids to find it elsewhere."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

LOGGER = logging.getLogger("mq_gateway.access")

#: Characters of a path that are logged; the rest tells nobody anything.
MAX_PATH = 512


@dataclass(slots=True, kw_only=True)
class Access:
    """What is known of a request; filled while it is served.

    `path` is the path as sent, percent-encoded, without the query, which may carry credentials; `started`
    is `time.perf_counter()`; `status` is 0 where nothing was answered because the client had gone.
    """

    request_id: str
    method: str
    path: str
    started: float
    status: int = 0
    code: str = ""
    mq_uri: str = ""
    message_id: str = ""
    outcome: str = ""
    reason: str = ""
    principal: str = "anonymous"
    #: Of a batch.
    messages: int = 0

    def fields(self, seconds: float) -> dict[str, str | int | float]:
        """Name and value of everything known, in the order in which a person reads it."""
        known: dict[str, str | int | float] = {
            "method": self.method,
            "path": self.path[:MAX_PATH],
            "status": self.status,
            "ms": round(seconds * 1000, 3),
            "request_id": self.request_id,
        }
        for name in ("principal", "mq_uri", "message_id", "messages", "outcome", "code", "reason"):
            value = getattr(self, name)
            if value:
                known[name] = value
        return known


#: Asked for every few seconds by probes and scrapers.
PROBES = ("/health/", "/metrics")


def _usual_level(path: str) -> int:
    return logging.DEBUG if path.startswith(PROBES) else logging.INFO


def log(access: Access) -> None:
    """Write the line, at WARNING for a failure of ours, at DEBUG for probes and at INFO for everything else.

    The record is made by hand: `Logger.info` walks the stack for the caller's line, which costs more than all
    the rest of the line and always finds this one.
    """
    level = logging.WARNING if access.status >= 500 else _usual_level(access.path)
    if not LOGGER.isEnabledFor(level):
        return
    record = logging.LogRecord(LOGGER.name, level, __file__, 0, "request", None, None)
    record.fields = access.fields(time.perf_counter() - access.started)
    LOGGER.handle(record)
