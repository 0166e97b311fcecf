"""What is checked of a publication before it may go near the wire."""

from __future__ import annotations

from app.config.destination import DestinationSettings
from app.config.limits import LimitSettings
from app.connectors.base import Destination
from app.domain.errors import BodyTooLarge, FieldError, InvalidHeader, SchemaViolation
from app.domain.message import Publication
from app.domain.uri import MqUri
from app.gateway.registry import Registry
from app.wire.headers import check_publication
from app.wire.payload import check_json, is_json, parse_json


class Admission:
    """Everything that could make a broker close the shared connection is refused here."""

    def __init__(self, registry: Registry, limits: LimitSettings) -> None:
        self._registry = registry
        self._cap = limits.body_bytes

    def body_limit(self, destination: Destination) -> int:
        """Bytes a body may have: the configured cap, or what the broker takes if that is less."""
        broker = self._registry.connector(destination.uri.service).max_frame
        return self._cap if broker is None else min(self._cap, broker)

    def check(self, destination: Destination, publication: Publication) -> None:
        """What can be said whatever the broker is; raises BadRequest and its kin."""
        check_publication(publication)
        limit = self.body_limit(destination)
        if len(publication.body) > limit:
            raise BodyTooLarge(f"the body has {len(publication.body)} bytes, this destination takes {limit}")
        self._check_reply_to(destination, publication.reply_to)
        _check_body(destination.settings, publication)

    def check_wholly(self, destination: Destination, publication: Publication) -> None:
        """As `check`, and what the broker's connector would refuse; for what must be known before anything is sent."""
        self.check(destination, publication)
        self._registry.connector(destination.uri.service).check(destination, publication)

    def _check_reply_to(self, destination: Destination, reply_to: MqUri | None) -> None:
        if reply_to is None:
            return
        if reply_to.service != destination.uri.service:
            raise InvalidHeader(
                f"a reply can only go to a destination of {destination.uri.service}",
                errors=[FieldError("Mq-Reply-To", f"a destination of {destination.uri.service}")],
            )
        self._registry.resolve(reply_to)


def _check_body(settings: DestinationSettings, publication: Publication) -> None:
    schema = settings.schema_of_bodies
    if not is_json(publication.content_type):
        if schema is not None:
            raise SchemaViolation("the body must be JSON, and its Content-Type say so, to fit a JSON Schema")
    elif schema is not None:
        schema.check(parse_json(publication.body))
    elif settings.check_json:
        check_json(publication.body)
