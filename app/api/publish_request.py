"""What a publish says beside its body: the `Mq-*` headers, what is forwarded, the query."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.api import query
from app.api.request_headers import RequestHeaders, as_text, bad_header
from app.domain.errors import GatewayError
from app.domain.uri import MqUri
from app.wire.headers import check_content_type, check_value

#: What the query of a publish may have.
PARAMETERS = ("confirm", "timeout")
#: And that of a request, which is always confirmed.
REQUEST_PARAMETERS = ("timeout",)
#: Seconds to wait for the broker where the request does not say.
DEFAULT_TIMEOUT = 5.0
#: Milliseconds: what a broker's 32-bit timer can hold, about 49 days.
MAX_MILLISECONDS = (1 << 32) - 1
#: Bytes of a correlation id, type or group: a short string of AMQP 0-9-1.
MAX_TEXT_BYTES = 255
#: What curl sends where nobody said what the body is.
FORM_TYPE = "application/x-www-form-urlencoded"

_HEADER_PREFIX = b"mq-header-"
_IDEMPOTENCY_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
#: Forwarded under their own name; W3C Trace Context and Baggage allow the last two to be given in several lines.
_SINGLE_FORWARDED = frozenset({b"traceparent"})
_LIST_FORWARDED = frozenset({b"tracestate", b"baggage"})
_CLOUD_EVENTS = b"ce-"

_CONFIRM = {"receipt": True, "none": False}
_BOOLEAN = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """A publish without its body. `content_type` None: the destination's default. `timeout` in seconds."""

    content_type: str | None
    headers: Mapping[str, str]
    properties: Mapping[str, Any] = field(default_factory=dict)
    persistent: bool | None = None
    reply_to: MqUri | None = None
    idempotency_key: str | None = None
    confirm: bool = True
    timeout: float = DEFAULT_TIMEOUT


def parse(
    headers: RequestHeaders,
    query_string: bytes,
    *,
    longest_timeout: float,
    known: Iterable[str] = PARAMETERS,
    with_reply: bool = False,
) -> PublishRequest:
    """Read a publish's head; raises InvalidHeader, InvalidParameter.

    `known` are the parameters the query may have; whoever knows more reads those himself. `with_reply`: of a request,
    whose reply comes to us.
    """
    values = query.parse(query_string, known)
    if with_reply and b"mq-reply-to" in headers:
        raise bad_header("Mq-Reply-To", "is not for a request: its reply comes back as the answer")
    if with_reply and b"idempotency-key" in headers:
        raise bad_header("Idempotency-Key", "is not for a request: its reply is not kept")
    properties, own = _message_headers(headers)
    return PublishRequest(
        content_type=_content_type(headers),
        headers=own,
        persistent=properties.pop("persistent", None),
        reply_to=properties.pop("reply_to", None),
        idempotency_key=_idempotency_key(headers),
        properties=properties,
        confirm=query.choice(values, "confirm", _CONFIRM, True),
        timeout=query.seconds(values, "timeout", default=DEFAULT_TIMEOUT, longest=longest_timeout),
    )


def _content_type(headers: RequestHeaders) -> str | None:
    """The Content-Type, None where the client did not choose one."""
    text = headers.text(b"content-type")
    if not text or text.partition(";")[0].strip().lower() == FORM_TYPE:
        return None
    check_content_type(text)
    return text


def _idempotency_key(headers: RequestHeaders) -> str | None:
    key = headers.get(b"idempotency-key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise bad_header("Idempotency-Key", "1 to 255 visible ASCII characters")
    return key.decode()


def _message_headers(headers: RequestHeaders) -> tuple[dict[str, Any], dict[str, str]]:
    """The typed properties, and the message's own headers."""
    properties: dict[str, Any] = {}
    own: dict[str, str] = {}
    for name, value in headers.pairs:
        if name.startswith(b"mq-"):
            _take_mq(headers, name, value, properties, own)
        elif name in _LIST_FORWARDED:
            _join(own, name, value)
        elif name in _SINGLE_FORWARDED or name.startswith(_CLOUD_EVENTS):
            _add(own, name.decode("latin-1"), headers.text(name) or "")
    if "headers" in properties:
        _merge(own, properties.pop("headers"))
    return properties, own


def _take_mq(
    headers: RequestHeaders, name: bytes, value: bytes, properties: dict[str, Any], own: dict[str, str]
) -> None:
    if name.startswith(_HEADER_PREFIX):
        headers.get(name)  # refuses a repeated one
        _add(own, name[len(_HEADER_PREFIX) :].decode("latin-1"), as_text(name, value))
        return
    known = PROPERTIES.get(name)
    if known is None:
        raise _unknown(name)
    key, label, parser = known
    properties[key] = parser(label, headers.text(name) or "")


def _add(own: dict[str, str], name: str, value: str) -> None:
    """One message header; a second way to the same name is refused, not silently preferred."""
    if name in own:
        raise bad_header(name, "is given more than once")
    own[name] = value


def _join(own: dict[str, str], name: bytes, value: bytes) -> None:
    """Several lines of a list header are one list (RFC 9110 section 5.3)."""
    key = name.decode()
    text = as_text(name, value)
    own[key] = f"{own[key]},{text}" if key in own else text


def _merge(own: dict[str, str], given: Mapping[str, str]) -> None:
    """Add what Mq-Headers holds; a name is given once, in whatever case, in whichever way."""
    seen = {name.lower() for name in own}
    for name, value in given.items():
        if name.lower() in seen:
            raise bad_header("Mq-Headers", f"{name[:128]!r} is given more than once")
        seen.add(name.lower())
        own[name] = value


def _unknown(name: bytes) -> GatewayError:
    text = name[:128].decode("latin-1")
    known = [label for _, label, _ in PROPERTIES.values()] + ["Mq-Header-<name>"]
    near = difflib.get_close_matches(text, [label.lower() for label in known], n=1, cutoff=0.0)
    label = next((label for label in known if label.lower() in near), known[0])
    return bad_header(text, f"is not a header of this API; the nearest is {label}")


def _boolean(label: str, text: str) -> bool:
    if text.lower() not in _BOOLEAN:
        raise bad_header(label, "true or false")
    return _BOOLEAN[text.lower()]


def _number(low: int, high: int) -> Callable[[str, str], int]:
    def parser(label: str, text: str) -> int:
        # Digits only and no more than the largest has: int() would take "1_0" and huge numbers.
        if not (text.isascii() and text.isdigit()) or len(text) > 10 or not low <= int(text) <= high:
            raise bad_header(label, f"a whole number from {low} to {high}")
        return int(text)

    return parser


def _text(label: str, text: str) -> str:
    if not 0 < len(text.encode()) <= MAX_TEXT_BYTES:
        raise bad_header(label, f"1 to {MAX_TEXT_BYTES} bytes")
    check_value(label, text)
    return text


def _mq_uri(label: str, text: str) -> MqUri:
    try:
        return MqUri.parse(text)
    except GatewayError as error:
        raise bad_header(label, str(error)) from None


def object_of_strings(label: str, text: str) -> dict[str, str]:
    """A JSON object whose members are strings, none of them twice: json alone would keep the last of two."""
    try:
        value = json.loads(text, object_pairs_hook=_pairs)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, _Members) or not all(isinstance(item, str) for _, item in value.pairs):
        raise bad_header(label, 'a JSON object of strings, such as {"JobID":"1"}')
    members: dict[str, str] = {}
    _merge(members, dict(value.pairs))
    if len(members) != len(value.pairs):
        raise bad_header(label, "a name is given more than once")
    return members


@dataclass(frozen=True, slots=True)
class _Members:
    pairs: list[tuple[str, Any]]


def _pairs(pairs: list[tuple[str, Any]]) -> _Members:
    return _Members(pairs)


_MILLISECONDS = _number(1, MAX_MILLISECONDS)

#: Header in lower case: the property of a Publication it sets, its name for people, its parser.
PROPERTIES: Mapping[bytes, tuple[str, str, Callable[[str, str], Any]]] = {
    b"mq-persistent": ("persistent", "Mq-Persistent", _boolean),
    b"mq-ttl-ms": ("ttl_ms", "Mq-Ttl-Ms", _MILLISECONDS),
    b"mq-delay-ms": ("delay_ms", "Mq-Delay-Ms", _MILLISECONDS),
    b"mq-priority": ("priority", "Mq-Priority", _number(0, 9)),
    b"mq-correlation-id": ("correlation_id", "Mq-Correlation-Id", _text),
    b"mq-type": ("type", "Mq-Type", _text),
    b"mq-group": ("group", "Mq-Group", _text),
    b"mq-reply-to": ("reply_to", "Mq-Reply-To", _mq_uri),
    b"mq-headers": ("headers", "Mq-Headers", object_of_strings),
}
