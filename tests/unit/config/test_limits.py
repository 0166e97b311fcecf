"""Settings that bound what clients can make the gateway hold."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.config import limits
from app.config.limits import DEFAULT_MEMORY, LimitSettings


def test_defaults_of_the_contract() -> None:
    bounds = LimitSettings()
    assert (bounds.body_bytes, bounds.max_headers, bounds.header_bytes) == (4_128_768, 64, 8192)
    assert (bounds.in_flight, bounds.streams, bounds.streams_per_principal) == (10_000, 10_000, 20)
    assert (bounds.uris_per_stream, bounds.publish_timeout_max) == (32, 60)
    assert (bounds.idempotency_window, bounds.idempotency_keys) == (600, 100_000)


@pytest.mark.parametrize(("machine", "memory"), [(None, DEFAULT_MEMORY), (1 << 30, 1 << 29)])
def test_memory_is_half_of_what_the_machine_grants(
    monkeypatch: pytest.MonkeyPatch, machine: int | None, memory: int
) -> None:
    monkeypatch.setattr(limits, "container_memory", lambda: machine)
    assert LimitSettings().memory == memory


def test_memory_may_be_set() -> None:
    assert LimitSettings(memory_bytes=1 << 20).memory == 1 << 20


@pytest.mark.parametrize("option", ["messages_per_second", "bytes_per_second"])
def test_a_rate_is_above_zero_or_none(option: str) -> None:
    assert LimitSettings.model_validate({option: None}) == LimitSettings()
    with pytest.raises(ValidationError, match="greater than 0"):
        LimitSettings.model_validate({option: 0})


def test_taking_has_its_limits() -> None:
    assert (LimitSettings().receive_linger, LimitSettings().lease_max) == (2, 900)
    limits = LimitSettings.model_validate({"receive_linger": "0.5", "lease_max": "60"})
    assert (limits.receive_linger, limits.lease_max) == (0.5, 60)


def test_later_options_may_be_spelled_out_with_their_defaults() -> None:
    spelled = {"messages_per_second": None, "bytes_per_second": None}
    assert LimitSettings.model_validate(spelled) == LimitSettings()


@pytest.mark.parametrize(
    "option",
    [
        {"body_bytes": 0},
        {"uris_per_stream": 33},
        {"memory_bytes": 1},
        {"streams": 0},
        {"lease_max": 0.5},
        {"idempotency_window": 0},
        {"idempotency_keys": 0},
    ],
)
def test_senseless_values_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LimitSettings.model_validate(option)
