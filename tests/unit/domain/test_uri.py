"""mqURIs and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidName, InvalidParameter
from app.domain.uri import MAX_NAME_BYTES, DestinationType, MqUri, check_name

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]


@pytest.mark.parametrize(
    "name", ["a", "a/b", "a:b", ":a", "a:", "job.status-1_x", "blåbær", "日本", "a b", "%2F", "a" * 255]
)
def test_names_that_are_only_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("bad", [*",*#>?", "::", "\u2028", "\u2029", *CONTROLS])
def test_what_a_broker_reads_more_into_is_refused_wherever_it_stands(bad: str) -> None:
    for name in (f"{bad}x", f"x{bad}x", f"x{bad}"):
        with pytest.raises(InvalidName) as caught:
            check_name(name)
        assert caught.value.errors[0].where == "name"
        assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("name", ["", "a" * 256, "é" * 128, "日" * 86])
def test_length_counts_bytes_and_not_characters(name: str) -> None:
    with pytest.raises(InvalidName, match=f"1 to {MAX_NAME_BYTES} bytes, this one has {len(name.encode())}"):
        check_name(name)


def test_longest_name_in_several_bytes_per_character() -> None:
    assert check_name("é" * 127 + "a")


def test_a_lone_surrogate_is_no_utf8() -> None:
    with pytest.raises(InvalidName, match="UTF-8"):
        check_name("a\udc80b")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("queue", DestinationType.QUEUES),
        ("Queues", DestinationType.QUEUES),
        ("QUEUES", DestinationType.QUEUES),
        ("topic", DestinationType.TOPICS),
        ("tOpIcS", DestinationType.TOPICS),
    ],
)
def test_types_in_any_case(text: str, kind: DestinationType) -> None:
    assert DestinationType.parse(text) is kind


@pytest.mark.parametrize("text", ["", "queuess", " queue", "Queues/", "exchange"])
def test_other_types_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        DestinationType.parse(text)
    assert caught.value.errors[0].where == "type"


@pytest.mark.parametrize(
    "text",
    ["", "a", "a::Queues", "::Queues::b", "a::::b", "a::Queues::", "a::Queues::b::c", "a::Queues::b::", "a:Queues:b"],
)
def test_what_is_no_mq_uri(text: str) -> None:
    with pytest.raises(InvalidName):
        MqUri.parse(text)


def test_parse_gives_the_canonical_form() -> None:
    uri = MqUri.parse("svc.example::topic::a/b")
    assert (uri.service, uri.type, uri.name) == ("svc.example", DestinationType.TOPICS, "a/b")
    assert str(uri) == "svc.example::Topics::a/b"
    assert not uri.is_queue
    assert MqUri.parse("s::QUEUE::a").is_queue


def test_the_name_in_an_mq_uri_is_checked() -> None:
    with pytest.raises(InvalidName):
        MqUri.parse("s::Queues::a,b")


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except InvalidName:
        return False
    return True


@given(
    st.from_regex(r"[A-Za-z0-9.\-]{1,30}", fullmatch=True),
    st.sampled_from(DestinationType),
    st.text(min_size=1, max_size=40).filter(_is_name),
)
def test_print_and_parse_are_inverse(service: str, kind: DestinationType, name: str) -> None:
    uri = MqUri(service, kind, name)
    assert MqUri.parse(str(uri)) == uri


@given(st.text(max_size=300))
def test_whatever_passes_is_safe(text: str) -> None:
    if _is_name(text):
        assert 0 < len(text.encode()) <= 255
        assert not set(text) & {*",*#>?", *CONTROLS}
        assert "::" not in text
