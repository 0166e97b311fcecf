"""RabbitMQ's STOMP plugin. Facts: rabbitmq.com/docs/stomp and observed on 3.10.8."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from app.connectors.base import Destination
from app.connectors.stomp.dialect import Dialect, Headers, ReplyQueues, bad_name
from app.domain.errors import FieldError, InvalidHeader, NotSupportedByBroker
from app.domain.message import Publication
from app.domain.uri import MqUri, subscription_queue

#: Bytes of a property in AMQP 0-9-1 (section 4.2.5.3, "short string").
_SHORT_STRING = 255

_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def version(server: str) -> tuple[int, int, int] | None:
    """Of a `server` header such as `RabbitMQ/3.10.8`; None where it names none."""
    found = _VERSION.search(server)
    if found is None:
        return None
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


class RabbitMQ(Dialect):
    """Its NACK puts back, its queues are declared by those who use them, and a slash begins another kind of name."""

    name = "RabbitMQ"
    max_header_line = 100 * 1024
    nack_requeues = True
    keeps_unacked = True
    reads_apart = True
    declares_once = True  # observed: a SEND to a queue deleted meanwhile gets a RECEIPT, and is lost
    reply_queues = ReplyQueues.IMPLIED
    consumer_timeout = 1800.0  # rabbitmq.com/docs/consumers, since 3.8.17
    #: Headers of SEND that travel as short strings: a longer one cannot be delivered over AMQP 0-9-1.
    properties: ClassVar[frozenset[str]] = frozenset(
        {"amqp-message-id", "app-id", "correlation-id", "reply-to", "type"}
    )

    @property
    def has_streams(self) -> bool:
        known = version(self.server)
        return known is None or known >= (3, 9, 0)

    def check_name(self, uri: MqUri) -> None:
        # %2F is how a slash travels; a literal one would become a slash, that is another queue.
        if "%2f" in uri.name.lower():
            raise bad_name("a literal %2F, which RabbitMQ takes for a slash")

    def path(self, destination: Destination) -> str:
        settings, uri = destination.settings, destination.uri
        if settings.destination is not None or not uri.is_queue:
            return Dialect.path(self, destination)
        if not settings.declare:
            return "/amq/queue/" + self.quote(uri.name)
        if uri.name.startswith("amq."):  # observed: access_refused, and the connection is closed
            raise bad_name("the prefix amq., which RabbitMQ keeps for itself")
        return Dialect.path(self, destination)

    def quote(self, name: str) -> str:
        return name.replace("/", "%2F")

    def unquote(self, name: str) -> str:
        return name.replace("%2F", "/")

    def check_subscription(self, destination: Destination, client_id: str | None) -> None:
        if not self.path(destination).startswith(("/topic/", "/exchange/")):
            raise NotSupportedByBroker(f"{destination.uri} has `subscriptions`, and is no topic at the broker")

    def source(self, destination: Destination) -> str:
        # Not /queue/, which makes a queue that is not there, without its binding. And not the Topic: see keeping.py.
        if destination.subscription is None:
            return self.path(destination)
        uri, settings = destination.uri, destination.settings
        return "/amq/queue/" + self.quote(subscription_queue(uri.name, destination.subscription, settings.destination))

    def ttl(self, milliseconds: int) -> Headers:
        return {"expiration": str(milliseconds)}

    def subscribe_headers(self, destination: Destination, prefetch: int | None) -> Headers:
        if destination.subscription is not None:  # its queue has its arguments from the one who made it
            return {} if prefetch is None else {self.prefetch_header: str(prefetch)}
        headers = Dialect.subscribe_headers(self, destination, prefetch)
        if not destination.uri.is_queue and destination.settings.destination is None:
            # The queue behind a Topic's subscription goes with the connection; RabbitMQ 4 deprecates transient
            # queues that are not exclusive.
            headers |= {"exclusive": "true", "auto-delete": "true", "durable": "false"}
        return headers

    def send_headers(self, publication: Publication, reply_to: str | None = None) -> Headers:
        headers = Dialect.send_headers(self, publication, reply_to)
        headers["amqp-message-id"] = publication.message_id
        return headers

    def check_frame(self, path: str, headers: Mapping[str, str], publication: Publication) -> None:
        for name in self.properties & headers.keys():
            if len(headers[name].encode()) > _SHORT_STRING:
                raise InvalidHeader(
                    f"header {name!r} becomes an AMQP property, which has at most {_SHORT_STRING} bytes",
                    errors=[FieldError(name, f"at most {_SHORT_STRING} bytes")],
                )
        Dialect.check_frame(self, path, headers, publication)

    def message_id(self, headers: Mapping[str, str]) -> str:
        return headers.get("mq-message-id") or headers.get("amqp-message-id") or headers.get("message-id", "")
