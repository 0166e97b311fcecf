"""What a line or an element of a batch says: the message it is, or why it is none."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from app.api.publish import check_size
from app.api.publish_request import PublishRequest, object_of_strings
from app.config.settings import LimitSettings
from app.connectors.base import Destination
from app.domain.errors import GatewayError, MalformedRequest
from app.domain.message import OCTET_STREAM, Publication
from app.wire.ids import new_message_id
from app.wire.json_array import Element, Member
from app.wire.payload import check_json, is_json

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
#: Characters of an `id`.
MAX_ID = 255

#: The members of an element beside its body and `headers`: what they are, in Python and for people.
MEMBERS: Mapping[str, tuple[type, str]] = {
    "content_type": (str, "a text"),
    "persistent": (bool, "true or false"),
    "ttl_ms": (int, "a whole number"),
    "priority": (int, "a whole number"),
    "correlation_id": (str, "a text"),
    "delay_ms": (int, "a whole number"),
    "id": (str, f"a text of 1 to {MAX_ID} characters"),
}
BODIES = ("body", "body_text", "body_base64")


class Messages:
    """Makes publications; what the request's own headers say holds for each that does not say otherwise."""

    def __init__(self, destination: Destination, request: PublishRequest, limits: LimitSettings) -> None:
        self._destination = destination
        self._request = request
        self._limits = limits
        settings = destination.settings
        self._persistent = settings.persistent if request.persistent is None else request.persistent

    def of_line(self, line: bytes) -> Publication:
        """A line is the body as it stands; raises InvalidJson where nothing later on would."""
        settings = self._destination.settings
        content_type = settings.default_content_type or JSON
        if settings.check_json and not is_json(content_type):
            check_json(line)
        return self._publication(line, content_type)

    def of_element(self, element: Element) -> Publication:
        """An object of the array; raises BadRequest."""
        if isinstance(element, GatewayError):
            raise element
        given = {name: _checked(name, member) for name, member in element.items() if name in MEMBERS}
        given = {name: value for name, value in given.items() if value is not None}
        given.pop("id", None)
        _refuse_unknown(element)
        body, content_type = self._body(element)
        headers = self._headers(element)
        return self._publication(body, given.pop("content_type", content_type), headers, given)

    def _body(self, element: Mapping[str, Member]) -> tuple[bytes, str]:
        """The body, and the content type of one that names none."""
        names = [name for name in BODIES if name in element]
        if len(names) != 1:
            raise MalformedRequest(f"a message has exactly one of {', '.join(BODIES)}")
        (name,) = names
        member = element[name]
        if name == "body":
            return member.text.encode(), JSON
        if not isinstance(member.value, str):
            raise _wrong(name, "a text")
        default = self._destination.settings.default_content_type
        if name == "body_text":
            return _utf_8(member.value), default or TEXT
        return _decoded(member.value), default or OCTET_STREAM

    def _headers(self, element: Mapping[str, Member]) -> Mapping[str, str]:
        """The message's own headers, in whatever case before those of the request."""
        member = element.get("headers")
        if member is None or member.value is None:
            return self._request.headers
        own = object_of_strings("headers", member.text)
        names = {name.lower() for name in own}
        headers = {name: value for name, value in self._request.headers.items() if name.lower() not in names} | own
        check_size(headers, self._limits)
        return headers

    def _publication(
        self,
        body: bytes,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> Publication:
        fields: dict[str, Any] = {"persistent": self._persistent, **self._request.properties, **(given or {})}
        return Publication(
            body=body,
            message_id=new_message_id(),
            content_type=content_type,
            headers=self._request.headers if headers is None else headers,
            reply_to=self._request.reply_to,
            **fields,
        )


def id_of(element: Element) -> str | None:
    """What the caller calls an element, where that can be told."""
    member = None if isinstance(element, GatewayError) else element.get("id")
    return member.value if member is not None and _is_id(member.value) else None


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def _wrong(name: str, rule: str) -> MalformedRequest:
    return MalformedRequest(f"member {name!r}: {rule}")


def _checked(name: str, member: Member) -> Any:  # noqa: ANN401 - whatever the member is
    """The value, None where it is null; raises MalformedRequest. How large it may be is checked with all the rest."""
    kind, rule = MEMBERS[name]
    # Not isinstance: true is an int.
    if member.value is not None and (type(member.value) is not kind or (name == "id" and not _is_id(member.value))):
        raise _wrong(name, rule)
    return member.value


def _refuse_unknown(element: Mapping[str, Member]) -> None:
    known = (*BODIES, "headers", *MEMBERS)
    for name in element:
        if name not in known:
            raise MalformedRequest(f"member {name[:64]!r} is not known; known are {', '.join(known)}")


def _utf_8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _wrong("body_text", "no lone surrogates, which UTF-8 has no bytes for") from None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise _wrong("body_base64", "base64 (RFC 4648 section 4)") from None
