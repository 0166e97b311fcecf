"""A message as the answer itself: its body byte for byte, everything else in header fields."""

from __future__ import annotations

from app.api.answer import NO_STORE, Answer, Header
from app.domain.message import Message
from app.wire import raw
from app.wire.harmless import OF_MESSAGES


def raw_answer(message: Message, *more: Header) -> Answer:
    """200 with the message, and `more` said about it."""
    headers = (*more, *raw.fields(message), NO_STORE)
    return Answer(
        status=200,
        content_type=raw.content_type(message),
        body=message.body,
        headers=headers,
        harmless=OF_MESSAGES,
    )
