"""Which broker this is, by the `server` header of CONNECTED."""

from __future__ import annotations

from app.connectors.stomp.activemq import ActiveMQ
from app.connectors.stomp.artemis import Artemis
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.rabbitmq import RabbitMQ, version

#: rabbitmq.com/docs/stomp: `stomp.max_frame_size`, 4 MiB since 3.12.2; above it the socket is closed without ERROR.
_RABBITMQ_MAX_FRAME = 4 * 1024 * 1024
_ACTIVEMQ_MAX_FRAME = 100 * 1024 * 1024


def recognise(server: str, max_frame: int | None = None) -> Dialect:
    """The dialect for a `server` header such as `RabbitMQ/3.10.8`; `max_frame` overrides what is known of it."""
    product = server.lower()
    if product.startswith("rabbitmq"):
        known = _RABBITMQ_MAX_FRAME if (version(server) or (0, 0, 0)) >= (3, 12, 2) else None
        return RabbitMQ(server, max_frame or known)
    if "artemis" in product:
        return Artemis(server, max_frame)
    if "activemq" in product:
        return ActiveMQ(server, max_frame or _ACTIVEMQ_MAX_FRAME)
    return Dialect(server, max_frame)
