"""Whatever bytes a client sends with a publish: one SEND frame that says what it may say, or a refusal of ours."""

from __future__ import annotations

import json
import re

from hypothesis import assume, given
from hypothesis import strategies as st
from stomp.protocol import Protocol12
from stomp.utils import Frame

from app.api import publish_request
from app.api.problems import answer_for, status_of
from app.api.publish import _publication, check_size
from app.api.request_headers import RequestHeaders
from app.config.settings import LimitSettings, QueueSettings
from app.connectors.base import Destination
from app.connectors.stomp.activemq import ActiveMQ
from app.connectors.stomp.artemis import Artemis
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.frames import encode
from app.connectors.stomp.rabbitmq import RabbitMQ
from app.domain.errors import GatewayError
from app.domain.message import Publication
from app.domain.uri import MqUri
from app.wire.headers import RESERVED_NAMES, RESERVED_PREFIXES, check_publication
from tests import stomp_frames

QUEUE = Destination(MqUri.parse("svc::Queues::jobs"), QueueSettings())
LIMITS = LimitSettings()
PATH = "/queue/jobs"

Pairs = list[tuple[bytes, bytes]]

#: Names a client may want to smuggle in, names that are harmless, and none at all.
_RESERVED = st.sampled_from(
    sorted(RESERVED_NAMES) + [f"{prefix}a" for prefix in RESERVED_PREFIXES] + ["CC", "X-Delay", "JMSType", "Mq-Ttl-Ms"]
)
_OWN = st.sampled_from(["JobID", "jobid", "a.b_c-d", "traceparent", "ce-id", "n" * 128, "n" * 129, ""])
_NAMES = _RESERVED | _OWN | st.text(max_size=6)
_TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "a:b\\c",
        "\n",
        "\r",
        "x\n\nbody\0SEND",
        "\0",
        "\ud800",
        "é" * 128,
        "x" * 9000,
        "true",
        "7",
        "svc::Queues::x",
        "{}",
    ]
)
_VALUES = _TEXTS.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=6)
_OBJECTS = (
    st.dictionaries(_NAMES, _TEXTS, max_size=4) | st.dictionaries(_OWN, st.none() | st.integers() | st.lists(_TEXTS))
).map(lambda value: json.dumps(value).encode())
_NAMED = st.tuples(_NAMES.map(lambda name: b"mq-header-" + name.lower().encode(errors="surrogatepass")), _VALUES)
_KNOWN = st.tuples(
    st.sampled_from(
        [*publish_request.PROPERTIES, b"content-type", b"traceparent", b"tracestate", b"baggage", b"ce-id"]
    ),
    _VALUES,
)
_TYPED = st.sampled_from(
    [(b"mq-priority", b"9"), (b"mq-ttl-ms", b"1000"), (b"mq-type", b"a:\\b"), (b"mq-persistent", b"true")]
)
_OTHER = st.tuples(
    st.sampled_from([b"idempotency-key", b"mq-", b"ce-", b"ce-\xff", b"mq-header-", b"x-other"])
    | st.binary(max_size=9),
    _VALUES,
)
PAIRS = st.lists(_NAMED | _KNOWN | _TYPED | _OTHER | st.tuples(st.just(b"mq-headers"), _OBJECTS | _VALUES), max_size=5)
#: What passes more often than not.
PLAIN = st.lists(
    _TYPED
    | st.tuples(st.just(b"mq-headers"), st.dictionaries(_OWN, _TEXTS, max_size=3).map(lambda o: json.dumps(o).encode()))
    | st.tuples(st.sampled_from([b"mq-header-a", b"ce-id", b"baggage"]), st.text(max_size=9).map(str.encode)),
    max_size=3,
)
QUERIES = st.binary(max_size=12) | st.sampled_from(
    [b"", b"confirm=none", b"timeout=1e999", b"timeout=-1", b"timeout=nan", b"confirm=%", b"timeout=%00", b"&=&"]
)


def _publication_of(pairs: Pairs, query: bytes, body: bytes) -> Publication | GatewayError:
    """What the way of a publish makes of its head and body, up to the connector."""
    try:
        request = publish_request.parse(RequestHeaders(pairs), query, longest_timeout=60)
        assert 0 < request.timeout <= 60
        check_size(request.headers, LIMITS)
        publication = _publication(QUEUE, request, body)
        check_publication(publication)
    except GatewayError as error:
        return error
    return publication


def _check_refusal(error: GatewayError) -> None:
    """The client's fault, and an answer that can be written and read whatever is quoted in it."""
    assert 400 <= status_of(error) < 500
    answer = answer_for(error, instance="/mq/svc/Queues/jobs", request_id="r", outcome="not_sent")
    problem = json.loads(answer.body)
    assert problem["code"] == error.code.value
    assert all(entry["message"] for entry in problem.get("errors", []))


class _Wire:
    """Where stomp.py's protocol writes to."""

    def __init__(self) -> None:
        self.data = b""

    def set_listener(self, name: str, listener: object) -> None: ...

    def transmit(self, frame: Frame) -> None:
        self.data += encode(frame)


def _sent(publication: Publication, headers: dict[str, str]) -> stomp_frames.Frame:
    """The frame a broker reads; more than one, or bytes left over, would be an injection."""
    wire = _Wire()
    protocol = Protocol12(wire, heartbeats=(0, 0))
    protocol.send(PATH, publication.body, publication.content_type, {**headers, "receipt": "r1"})
    reader = stomp_frames.FrameReader()
    (frame,) = reader.feed(wire.data)
    assert (reader.pending, reader.beats) == (b"", 0)
    return frame


def _check_frames(publication: Publication) -> None:
    for dialect in (Dialect(), RabbitMQ(), ActiveMQ(), Artemis()):
        headers = dialect.send_headers(publication)
        try:
            dialect.check_frame(PATH, headers, publication)
        except GatewayError as error:
            _check_refusal(error)
            continue
        frame = _sent(publication, dict(headers))
        expected = {**headers, "destination": PATH, "content-type": publication.content_type, "receipt": "r1"}
        if publication.body:
            expected["content-length"] = str(len(publication.body))
        assert (frame.command, dict(frame.headers), frame.body) == ("SEND", expected, publication.body)


@given(PAIRS | PLAIN, QUERIES, st.binary(max_size=9) | st.sampled_from([b"\0", b"\0\n\nSEND\n\n\0"]))
def test_it_is_one_frame_or_a_refusal(pairs: Pairs, query: bytes, body: bytes) -> None:
    result = _publication_of(pairs, query, body)
    if isinstance(result, GatewayError):
        _check_refusal(result)
        return
    try:
        _check_frames(result)
    except GatewayError as error:  # delay and group are not everybody's
        _check_refusal(error)


@given(PLAIN, st.binary(max_size=9))
def test_what_is_allowed_arrives_and_nothing_else(pairs: Pairs, body: bytes) -> None:
    result = _publication_of(pairs, b"", body)
    assume(isinstance(result, Publication))
    assert isinstance(result, Publication)
    _check_frames(result)
    asked = {name.removeprefix(b"mq-header-").decode() for name, _ in pairs}
    for name, value in pairs:
        if name == b"mq-headers":
            asked |= json.loads(value).keys()
    assert result.headers.keys() <= asked
    for own in result.headers:
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", own)
        assert own.lower() not in RESERVED_NAMES
        assert not own.lower().startswith(RESERVED_PREFIXES)


@given(_RESERVED, st.sampled_from([str.lower, str.upper, str.title, str]), st.booleans())
def test_nothing_reserved_passes_in_any_spelling(name: str, spell: type[str], as_object: bool) -> None:
    spelled = str(spell(name))
    pair = (b"mq-headers", json.dumps({spelled: "1"}).encode()) if as_object else (
        b"mq-header-" + name.lower().encode(), b"1"
    )  # fmt: skip
    result = _publication_of([pair], b"", b"")
    assert isinstance(result, GatewayError)
    assert "reserved" in str(result)
