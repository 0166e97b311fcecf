"""Open descriptors: as many as the system allows, and some of them not for clients."""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger("mq_gateway.server")

#: Descriptors (count) that are not for clients: brokers, files, the loop itself.
RESERVED_DESCRIPTORS = 256
#: More descriptors than this are not asked for, where the hard limit is as good as infinite.
_MOST_DESCRIPTORS = 1 << 20


def connections_for(streams: int) -> int:
    """How many connections (count) the descriptors allow; warns where that is less than `streams`."""
    soft = raise_descriptor_limit()
    if soft < streams + RESERVED_DESCRIPTORS:
        logger.warning(
            "limits.streams is %d, but the descriptor limit of %d leaves %d for connections: "
            "raise it (ulimit -n, LimitNOFILE) to %d",
            streams,
            soft,
            max(soft - RESERVED_DESCRIPTORS, 1),
            streams + RESERVED_DESCRIPTORS,
        )
    return max(soft - RESERVED_DESCRIPTORS, 1)


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open descriptors to the hard one; returns the soft limit (count)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
