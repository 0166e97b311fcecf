"""Open descriptors: what is asked for, what is left for clients, what is said."""

from __future__ import annotations

import resource

import pytest

from app.http1.descriptors import connections_for, raise_descriptor_limit


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((100, 400), 400),
        ((400, 400), 400),
        ((100, resource.RLIM_INFINITY), 1 << 20),
        ((100, 1 << 30), 1 << 20),
        ((1 << 29, 1 << 30), 1 << 29),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 1 << 20),
    ],
)
def test_the_soft_limit_is_raised_never_lowered(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert raise_descriptor_limit() == after
    assert asked == ([(after, before[1])] if before[0] == 100 else [])


@pytest.mark.parametrize(("soft", "connections", "warns"), [(1000, 744, False), (999, 743, True), (10, 1, True)])
def test_descriptors_bound_the_connections(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, soft: int, connections: int, warns: bool
) -> None:
    monkeypatch.setattr("app.http1.descriptors.raise_descriptor_limit", lambda: soft)
    assert connections_for(744) == connections
    assert ("limits.streams is 744" in caplog.text) is warns
