"""Settings that bound what clients can make the gateway hold."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

from pydantic import Field

from app.config.memory import container_memory
from app.config.section import PositiveSeconds, Section, Size

#: Where the machine sets no limit: 512 MiB.
DEFAULT_MEMORY = 512 << 20

Rate = Annotated[float, Field(gt=0, le=1e12)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class LimitSettings(Section):
    """Bounds per process."""

    body_bytes: Size = 4_128_768
    """Largest message body in bytes; what the broker takes in one frame bounds it too."""

    max_headers: Annotated[int, Field(ge=1, le=64)] = 64
    """Message headers (count) a publish may carry."""

    header_bytes: Annotated[int, Field(ge=64, le=8192)] = 8192
    """Largest header in bytes, name and value."""

    in_flight: Count = 10_000
    """Publishes (count) per service that wait for the broker at the same time."""

    memory_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 50)] | None = None
    """Bytes for in-flight bodies and rings together; unset: half of the cgroup's memory limit, or 512
    MiB without one."""

    streams: Count = 10_000
    """Open event streams (count)."""

    streams_per_principal: Count = 20
    """Open event streams (count) of one authenticated caller; not counted with `auth.mode: none`."""

    uris_per_stream: Annotated[int, Field(ge=1, le=32)] = 32
    """Destinations (count) on one event stream."""

    streams_per_address: Count | None = None
    """Open event streams (count) of one client address, whoever is there; behind a proxy see
    `server.trusted_proxies`."""

    messages_per_second: Rate | None = None
    """Messages a second that one caller may publish, and at once as many as in one second. More is 429 with
    `Retry-After`; a batch is slowed to it. Who shows no credentials is counted by address."""

    bytes_per_second: Rate | None = None
    """Bytes of bodies a second that one caller may publish, likewise. A larger body is taken, and then it waits."""

    publish_timeout_max: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Longest `timeout=` of a publish in seconds; more is capped to this."""

    receive_linger: PositiveSeconds = 2.0
    """Seconds a message waits here for a taker before it goes back to its queue; a worker that comes
    again within them finds the next message here."""

    lease_max: Annotated[PositiveSeconds, Field(ge=1)] = 900.0
    """Longest lease in seconds, and longest delay of a message that is given back; on RabbitMQ no lease
    outlasts four fifths of the broker's `consumer_timeout`."""

    idempotency_window: PositiveSeconds = 600.0
    """Seconds an Idempotency-Key is remembered, from its answer on."""

    idempotency_keys: Count = 100_000
    """Idempotency-Keys (count) that are remembered; the oldest answers are forgotten first. Fewer where they would
    take more than an eighth of `memory_bytes`, at 400 bytes each."""

    @cached_property
    def memory(self) -> int:
        """`memory_bytes`, or what stands for it when unset, in bytes."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        limit = container_memory()
        return DEFAULT_MEMORY if limit is None else limit // 2
