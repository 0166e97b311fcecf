"""mqURI: `service::Queues|Topics::name`, DIRAC's pseudo URI of a destination."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from app.domain.errors import FieldError, InvalidName, InvalidParameter

#: Separates the three parts of an mqURI; therefore no part may contain it.
SEPARATOR = "::"
#: A name is stored in broker headers and logs: 255 bytes is what AMQP 0-9-1 allows a queue name.
MAX_NAME_BYTES = 255

# A comma makes an ActiveMQ composite destination, `*`, `#` and `>` are wildcards, `?` starts ActiveMQ options.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f,*#>?\u2028\u2029]|::")


def subscription_queue(
    topic: str, subscription: str, destination: str | None = None, separator: str = SEPARATOR
) -> str:
    """The queue of a durable subscription: no other name has `::`, so nobody else's is called like it.

    Of a Topic with a `destination` of its own it ends with a digest of that: what is bound to another one is another
    queue, and nothing published to the new one is taken for kept in the old.
    """
    ends = () if destination is None else (blake2b(destination.encode(), digest_size=4).hexdigest(),)
    return separator.join((topic, subscription, *ends))


class DestinationType(StrEnum):
    """Queues: each message to exactly one consumer. Topics: each message to every subscriber."""

    QUEUES = "Queues"
    TOPICS = "Topics"

    @classmethod
    def parse(cls, text: str) -> DestinationType:
        """`queue`, `queues`, `topic`, `topics` in any case; raises InvalidParameter for anything else."""
        found = _TYPES.get(text.lower())
        if found is None:
            raise InvalidParameter(
                f"{text!r} is neither Queues nor Topics", errors=[FieldError("type", "Queues or Topics")]
            )
        return found


_TYPES = {
    "queue": DestinationType.QUEUES,
    "queues": DestinationType.QUEUES,
    "topic": DestinationType.TOPICS,
    "topics": DestinationType.TOPICS,
}


def check_name(name: str) -> str:
    """Return the name if no broker could read more into it than a name; raises InvalidName.

    Rules: 1-255 bytes of UTF-8, no control characters, none of `, * # > ?`, no `::`.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName("the name is not valid UTF-8", errors=[FieldError("name", "valid UTF-8")]) from None
    if not 0 < size <= MAX_NAME_BYTES:
        raise InvalidName(
            f"a name has 1 to {MAX_NAME_BYTES} bytes, this one has {size}", errors=[FieldError("name", "1-255 bytes")]
        )
    bad = _FORBIDDEN.search(name)
    if bad:
        message = f"the name contains {bad.group()!r}, which a broker may take for more than a name"
        raise InvalidName(message, errors=[FieldError("name", f"{bad.group()!r} is not allowed")])
    return name


@dataclass(frozen=True, slots=True)
class MqUri:
    """A destination of an mqService. Compares exactly; prints canonically."""

    service: str
    type: DestinationType
    name: str

    @classmethod
    def parse(cls, text: str) -> MqUri:
        """Parse `service::Queues|Topics::name`; raises InvalidName or InvalidParameter."""
        parts = text.split(SEPARATOR)
        if len(parts) != 3 or not all(parts):
            raise InvalidName(
                f"{text!r} is not an mqURI of the form service::Queues|Topics::name",
                errors=[FieldError("mq_uri", "service::Queues|Topics::name")],
            )
        return cls(parts[0], DestinationType.parse(parts[1]), check_name(parts[2]))

    @property
    def is_queue(self) -> bool:
        return self.type is DestinationType.QUEUES

    def __str__(self) -> str:
        return f"{self.service}{SEPARATOR}{self.type.value}{SEPARATOR}{self.name}"
