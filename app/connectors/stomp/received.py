"""A MESSAGE frame as the message it carries."""

from __future__ import annotations

import time

from stomp import constants as stomp
from stomp.utils import Frame

from app.connectors.stomp.frames import body_of
from app.connectors.stomp.session import Session
from app.domain.message import Message
from app.domain.uri import MqUri
from app.wire.headers import visible


def message_of(frame: Frame, session: Session, uri: MqUri) -> Message:
    """What a consumer of `uri` sees: the producer's headers, a known reply-to as mqURI."""
    headers = visible(frame.headers)
    if "reply-to" in headers:
        known = session.known_uri(uri.service, headers["reply-to"])
        headers["reply-to"] = str(known) if known is not None else headers["reply-to"]
    return Message(
        mq_uri=uri,
        message_id=session.dialect.message_id(frame.headers),
        body=body_of(frame),
        content_type=frame.headers.get(stomp.HDR_CONTENT_TYPE),
        headers=headers,
        redelivered=frame.headers.get("redelivered") == "true",
        received_at=time.time(),
    )
