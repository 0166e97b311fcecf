"""What a path means, whatever somebody writes into it."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.api.paths import METHODS, Kind, Route, decode, is_publish, parse, raw_path, without_root
from app.domain.errors import Code, GatewayError, InvalidName
from app.domain.uri import DestinationType, MqUri, check_name


def _uri(name: str, kind: DestinationType = DestinationType.QUEUES) -> MqUri:
    return MqUri("demo", kind, name)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/mq", Route(Kind.SERVICES)),
        ("/mq/mardirac3.in2p3.fr", Route(Kind.SERVICE, service="mardirac3.in2p3.fr")),
        ("/mq/..", Route(Kind.SERVICE, service="..")),
        ("/mq/demo/Queues/jobs", Route(Kind.DESTINATION, uri=_uri("jobs"))),
        ("/mq/demo/qUeUe/jobs", Route(Kind.DESTINATION, uri=_uri("jobs"))),
        ("/mq/demo/topic/t", Route(Kind.DESTINATION, uri=_uri("t", DestinationType.TOPICS))),
        ("/mq/demo/Queues/jobs/events", Route(Kind.EVENTS, uri=_uri("jobs"))),
        ("/events", Route(Kind.JOINT_EVENTS)),
        ("/events/", Route(Kind.PAGE, path="/events/")),
        ("/%65vents", Route(Kind.PAGE, path="/events")),
        ("/mq/demo/Queues/jobs/receive", Route(Kind.RECEIVE, uri=_uri("jobs"))),
        ("/mq/demo/Queues/jobs/ack", Route(Kind.ACK, uri=_uri("jobs"))),
        ("/mq/demo/Queues/jobs/nack", Route(Kind.NACK, uri=_uri("jobs"))),
        ("/mq/demo/Queues/jobs/renew", Route(Kind.RENEW, uri=_uri("jobs"))),
        ("/mq/demo/Queues/ack", Route(Kind.DESTINATION, uri=_uri("ack"))),
        ("/mq/demo/Queues/jobs/batch", Route(Kind.BATCH, uri=_uri("jobs"))),
        ("/mq/demo/Queues/batch", Route(Kind.DESTINATION, uri=_uri("batch"))),
        ("/mq/demo/Queues/jobs/request", Route(Kind.REQUEST, uri=_uri("jobs"))),
        ("/mq/demo/Queues/events", Route(Kind.DESTINATION, uri=_uri("events"))),
        # A slash of the name, in either case of its escape; it never moves a boundary.
        ("/mq/demo/Queues/a%2Fb", Route(Kind.DESTINATION, uri=_uri("a/b"))),
        ("/mq/demo/Queues/a%2fevents", Route(Kind.DESTINATION, uri=_uri("a/events"))),
        ("/mq/demo/Queues/%2e%2e", Route(Kind.DESTINATION, uri=_uri(".."))),
        ("/mq/demo/Queues/..%2F..%2Fadmin", Route(Kind.DESTINATION, uri=_uri("../../admin"))),
        # Decoded once: what is left is text.
        ("/mq/demo/Queues/a%252Fb", Route(Kind.DESTINATION, uri=_uri("a%2Fb"))),
        ("/mq/demo/Queues/a;v=1", Route(Kind.DESTINATION, uri=_uri("a;v=1"))),
        ("/mq/demo/Queues/a+b", Route(Kind.DESTINATION, uri=_uri("a+b"))),
        ("/mq/demo/Queues/%C3%A9t%C3%A9", Route(Kind.DESTINATION, uri=_uri("été"))),
        ("/", Route(Kind.PAGE, path="/")),
        ("/health/live", Route(Kind.PAGE, path="/health/live")),
        ("/health/%6Cive", Route(Kind.PAGE, path="/health/live")),
        ("/health/", Route(Kind.PAGE, path="/health/")),
        ("/%6Dq/demo", Route(Kind.PAGE, path="/mq/demo")),
        ("/MQ", Route(Kind.PAGE, path="/MQ")),
    ],
)
def test_a_path_is_one_resource(path: str, route: Route) -> None:
    assert parse(path) == route


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", Code.NOT_FOUND),
        ("*", Code.NOT_FOUND),
        ("mq", Code.NOT_FOUND),
        ("/mq/", Code.NOT_FOUND),
        ("/mq//Queues/jobs", Code.NOT_FOUND),
        ("/mq/demo/Queues", Code.NOT_FOUND),
        ("/mq/demo/Queues/", Code.INVALID_NAME),
        ("/mq/demo/Queues//events", Code.INVALID_NAME),
        ("/mq/demo//jobs", Code.NOT_FOUND),
        ("/mq/demo/Queues/jobs/", Code.NOT_FOUND),
        ("/mq/demo/Queues/a/b", Code.NOT_FOUND),
        ("/mq/demo/Queues/jobs/batch/more", Code.NOT_FOUND),
        ("/mq/demo/Queues/jobs/events/more", Code.NOT_FOUND),
        ("/health%2Flive", Code.NOT_FOUND),
        ("/health/%zz", Code.NOT_FOUND),
        ("/mq/demo/Exchanges/jobs", Code.INVALID_PARAMETER),
        ("/mq/demo/Queues/a%00b", Code.INVALID_NAME),
        ("/mq/demo/Queues/a%0Ab", Code.INVALID_NAME),
        ("/mq/demo/Queues/a%7Fb", Code.INVALID_NAME),
        ("/mq/demo/Queues/a%2Cb", Code.INVALID_NAME),
        ("/mq/demo/Queues/a*", Code.INVALID_NAME),
        ("/mq/demo/Queues/a%23", Code.INVALID_NAME),
        ("/mq/demo/Queues/a%3E", Code.INVALID_NAME),
        ("/mq/demo/Queues/a%3Fb", Code.INVALID_NAME),
        ("/mq/demo/Queues/a::b", Code.INVALID_NAME),
        ("/mq/demo/Queues/a%3a%3Ab", Code.INVALID_NAME),
        ("/mq/demo/Queues/%", Code.INVALID_NAME),
        ("/mq/demo/Queues/%4", Code.INVALID_NAME),
        ("/mq/demo/Queues/%4g", Code.INVALID_NAME),
        ("/mq/demo/Queues/%ff", Code.INVALID_NAME),
        ("/mq/demo/Queues/%C3", Code.INVALID_NAME),
        ("/mq/demo/Queues/%ED%A0%80", Code.INVALID_NAME),
        ("/mq/demo/Queues/%C0%AF", Code.INVALID_NAME),
        ("/mq/demo/Queues/\xe9", Code.INVALID_NAME),
        ("/mq/%ff/Queues/jobs", Code.INVALID_NAME),
        ("/mq/demo/%ff/jobs", Code.INVALID_NAME),
        ("/mq/demo/Queues/" + "x" * 256, Code.INVALID_NAME),
        # The name is looked at before the service: 400, not 404.
        ("/mq/nowhere/Queues/a*b", Code.INVALID_NAME),
    ],
)
def test_what_is_refused(path: str, code: Code) -> None:
    with pytest.raises(GatewayError) as caught:
        parse(path)
    assert caught.value.code is code


def _try(path: str) -> Route | Code:
    try:
        return parse(path)
    except GatewayError as error:
        return error.code


@given(st.text(max_size=40))
def test_any_name_survives_its_encoding_or_is_refused(name: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in name.encode(errors="surrogatepass"))
    result = _try(f"/mq/demo/Queues/{encoded}")
    assert result in (Route(Kind.DESTINATION, uri=_uri(name)), Code.INVALID_NAME, Code.NOT_FOUND)


@given(st.text(alphabet="%/.mq2fF;\x00eé", max_size=30))
def test_whatever_the_path_it_is_a_route_or_an_error_of_ours(path: str) -> None:
    result = _try("/" + path)
    assert isinstance(result, Route) or result in {Code.INVALID_NAME, Code.NOT_FOUND, Code.INVALID_PARAMETER}


def _decoded_once(part: str) -> bytes:
    return re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found.group(1), 16)]), part.encode("latin-1"), flags=re.DOTALL
    )


@given(st.text(st.sampled_from("%%%0123456789aAbBcCfF\xc3\xa9\xffx/"), max_size=20))
@example("%2525")
@example("%25%32%46")
def test_a_part_is_decoded_exactly_once(part: str) -> None:
    try:
        text = decode(part)
    except InvalidName:
        broken = re.search("%(?![0-9A-Fa-f]{2})", part)
        assert broken or _decoded_once(part).decode(errors="replace").count("\ufffd")
    else:
        assert text.encode() == _decoded_once(part)


_PASSING = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=",*#>?\u2028\u2029"), min_size=1)
_NAMES = (_PASSING | st.sampled_from(["a/b", "%2F", "%", "a%zz", "..", "/", "é", "a b", "events"])).filter(
    lambda name: len(name.encode()) <= 255 and "::" not in name
)


@given(
    st.from_regex(r"[A-Za-z0-9.\-]{1,20}", fullmatch=True),
    st.sampled_from(DestinationType),
    _NAMES,
    st.sampled_from(["", "/events"]),
    st.sampled_from(["", "/-._~", "!$&'()+;=:@[]"]),
)
def test_the_canonical_path_leads_back(service: str, kind: DestinationType, name: str, end: str, safe: str) -> None:
    path = f"/mq/{service}/{kind.value}/{quote(name, safe=safe.replace('/', ''))}{end}"
    route = parse(path)
    assert route.kind is (Kind.EVENTS if end else Kind.DESTINATION)
    assert route.uri == MqUri(service, kind, name)
    # So does one whose every byte is escaped, in either case of the digits.
    escaped = "".join(f"%{byte:02x}" for byte in name.encode())
    assert parse(f"/mq/{service}/{kind.value}/{escaped}{end}") == route


@given(st.text(st.sampled_from("%0123456789abCDEF,*#>?:\n\x7f\x85éñ/"), max_size=24), st.sampled_from(["", "/events"]))
def test_no_forbidden_character_gets_through(name: str, end: str) -> None:
    route = _try(f"/mq/demo/Queues/{name}{end}")
    if isinstance(route, Route) and route.uri is not None:
        assert check_name(route.uri.name) == route.uri.name
        assert MqUri.parse(str(route.uri)) == route.uri


def test_decoding_names_the_fault() -> None:
    with pytest.raises(InvalidName, match="%25"):
        decode("50%")
    with pytest.raises(InvalidName, match="UTF-8"):
        decode("%ff")


@pytest.mark.parametrize(
    ("path", "root", "left"),
    [
        ("/mq/a", "", "/mq/a"),
        ("/gw/mq/a", "/gw", "/mq/a"),
        ("/mq/a", "/gw", "/mq/a"),
        ("/gw", "/gw", "/"),
        ("/gw/", "/gw", "/"),
        ("/gwen/mq", "/gw", "/gwen/mq"),
        ("/gw/else", "/gw", "/gw/else"),
        ("/mq/mq/a", "/mq", "/mq/a"),
        ("/mq/a/Queues/b", "/mq", "/mq/a/Queues/b"),
        ("/a/b/health/live", "/a/b", "/health/live"),
    ],
)
def test_the_proxys_prefix_may_be_there_or_not(path: str, root: str, left: str) -> None:
    assert without_root(path, root) == left


def test_the_raw_path_is_as_sent_and_made_where_the_server_does_not_tell() -> None:
    assert raw_path({"path": "/a b", "raw_path": b"/a%20b"}) == "/a%20b"
    assert raw_path({"path": "/a b"}) == "/a%20b"


def test_every_resource_of_ours_says_its_methods() -> None:
    assert set(METHODS) == set(Kind) - {Kind.PAGE}


@pytest.mark.parametrize(
    ("path", "publishes"),
    [
        ("/mq/demo/Queues/jobs", True),
        ("/mq/demo/Queues/ack", True),
        ("/mq/demo/Queues/jobs/batch", True),
        ("/mq/demo/Queues/jobs/receive", False),
        ("/mq/demo/Queues/a%00/ack", False),
        ("/mq/demo", True),
        ("/mq", False),
        ("/health/live", False),
    ],
)
def test_what_is_counted_as_a_publish(path: str, publishes: bool) -> None:
    assert is_publish(path) is publishes
