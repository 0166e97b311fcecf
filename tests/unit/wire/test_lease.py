"""The signed names of leases."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.uri import MqUri
from app.wire.lease import MAX_CHARACTERS, LeaseName, peek, verify

KEY = b"k" * 32
NAME = LeaseName("host-1-abc", MqUri.parse("svc::Queues::jobs"), 7)


def test_a_token_names_replica_destination_and_delivery() -> None:
    token = NAME.signed(KEY)
    assert verify(token, KEY) == NAME
    assert peek(token) == NAME
    assert verify(token, b"other") is None


def test_it_fits_a_header_a_query_and_an_event_id() -> None:
    longest = LeaseName("h" * 64, MqUri.parse("s::Queues::" + "\U0001f511" * 63), 1 << 62)
    token = longest.signed(KEY)
    assert verify(token, KEY) == longest
    assert len(token) <= MAX_CHARACTERS
    assert token.replace("-", "").replace("_", "").replace(".", "").isalnum()


@given(at=st.integers(0, 10_000), other=st.sampled_from("ABab01-_.="))
def test_no_character_can_be_changed(at: int, other: str) -> None:
    """Also where base64 spells the same bytes in another way."""
    token = NAME.signed(KEY)
    at %= len(token)
    changed = token[:at] + other + token[at + 1 :]
    assert (verify(changed, KEY) is None) == (changed != token)


@given(st.text(max_size=80))
def test_nonsense_is_no_lease(text: str) -> None:
    assert verify(text, KEY) is None


@pytest.mark.parametrize(
    "payload",
    [[], [1, 2], ["i", "no uri", 1], ["i", "svc::Queues::jobs", "x"], {"a": 1, "b": 2, "c": 3}, None, 5, "abc"],
    ids=repr,
)
def test_a_payload_that_says_nothing(payload: object) -> None:
    token = base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=") + ".x"
    assert peek(token) is None


def test_what_is_too_long_is_not_looked_at() -> None:
    assert peek(NAME.signed(KEY) + "x" * MAX_CHARACTERS) is None


def test_a_lease_of_a_subscription_names_it() -> None:
    topic = MqUri.parse("svc::Topics::alerts")
    name = LeaseName("here", topic, 7, "archiver")
    assert verify(name.signed(KEY), KEY) == name
    assert verify(LeaseName("here", topic, 7).signed(KEY), KEY) != name


@pytest.mark.parametrize("parts", [["here", "s::Queues::q"], ["here", "s::Queues::q", 1, "a", "b"]])
def test_a_name_has_its_parts(parts: list[object]) -> None:
    assert peek(base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()) is None
