"""From `mq_type` to the MQConnector class, through the entry-point group `mq_gateway.connectors`."""

from __future__ import annotations

from importlib.metadata import entry_points

from app.connectors.base import MQConnector

GROUP = "mq_gateway.connectors"


class UnknownConnectorError(Exception):
    """No installed package offers this `mq_type`, or what it offers is no MQConnector."""


def known_types() -> list[str]:
    """The names that `mq_type` may have."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def connector_class(mq_type: str) -> type[MQConnector]:
    """The class behind an `mq_type`; raises UnknownConnectorError, whose text names the known ones."""
    for point in entry_points(group=GROUP):
        if point.name == mq_type:
            return _checked(mq_type, point.load())
    known = ", ".join(known_types())
    raise UnknownConnectorError(f"mq_type {mq_type!r} is not known; installed are: {known}")


def _checked(mq_type: str, loaded: object) -> type[MQConnector]:
    if isinstance(loaded, type) and issubclass(loaded, MQConnector):
        return loaded
    raise UnknownConnectorError(f"the entry point {mq_type!r} is not a subclass of MQConnector")
