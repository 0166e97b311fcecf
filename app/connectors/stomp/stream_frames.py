"""What is said to RabbitMQ about the stream behind a Topic. Observed on 3.10.8; that nothing comes, on 4.0.5 too.

A SUBSCRIBE to a Topic with `x-queue-name` binds a queue of that name, and nothing else over STOMP does. But RabbitMQ
takes that queue for one that serves this subscription only: where the SUBSCRIBE fails, **it deletes the stream**. And
it fails when a first message overtakes the answer inside RabbitMQ. So such a SUBSCRIBE asks for an offset that never
comes, another one before it tells whether the stream can be read at all, and readers name the queue itself.
"""

from __future__ import annotations

from app.config.settings import TopicSettings
from app.connectors.base import Destination
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.stream_cursor import MAX_OFFSET, OFFSET_HEADER, StreamCursor


def stream_name(destination: Destination) -> str:
    """What the stream behind a Topic is called."""
    settings = destination.settings
    named = settings.stream if isinstance(settings, TopicSettings) else None
    return named or f"{destination.uri.name}-stream"


def declaring_path(dialect: Dialect, destination: Destination) -> str:
    """The STOMP destination under which a stream is made where there is none."""
    return "/queue/" + dialect.quote(stream_name(destination))


def reading_path(dialect: Dialect, destination: Destination) -> str:
    """The STOMP destination of a stream that is there."""
    return "/amq/queue/" + dialect.quote(stream_name(destination))


def declaring_headers(destination: Destination) -> dict[str, str]:
    """Of a SUBSCRIBE that makes the stream, and delivers nothing."""
    headers = {
        "x-queue-type": "stream",
        "durable": "true",
        "auto-delete": "false",
        "prefetch-count": "1",
        OFFSET_HEADER: f"offset={MAX_OFFSET}",
    }
    settings = destination.settings
    if isinstance(settings, TopicSettings) and settings.stream_max_age is not None:
        headers["x-max-age"] = settings.stream_max_age
    return headers


def reading_headers(cursor: StreamCursor, prefetch: int) -> dict[str, str]:
    """Of a SUBSCRIBE that reads. Credit is not optional: without it RabbitMQ ends the connection."""
    return {"prefetch-count": str(prefetch), OFFSET_HEADER: cursor.ask()}
