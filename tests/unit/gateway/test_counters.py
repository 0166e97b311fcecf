"""What is counted of each destination, and for how many."""

from __future__ import annotations

import pytest

from app.config.settings import ServiceSettings
from app.domain.uri import MqUri
from app.gateway import counters
from app.gateway.counters import Counters, declared
from app.gateway.stream import Counts

SERVICE = ServiceSettings.model_validate(
    {"mq_type": "Memory", "allow_undeclared": True, "queues": {"jobs": {}, "work": {}}, "topics": {"status": {}}}
)
JOBS = MqUri.parse("svc::Queues::jobs")


def _counters() -> Counters:
    return Counters({"svc": SERVICE, "other": ServiceSettings.model_validate({"mq_type": "Memory"})})


def _uri(name: str) -> MqUri:
    return MqUri.parse(f"svc::Topics::{name}")


def test_what_is_declared_queues_first() -> None:
    assert [str(uri) for uri in declared("svc", SERVICE)] == [
        "svc::Queues::jobs",
        "svc::Queues::work",
        "svc::Topics::status",
    ]


@pytest.mark.parametrize("uri", [JOBS, _uri("new")])
def test_counts_are_kept(uri: MqUri) -> None:
    kept = _counters()
    assert kept.of(uri) == Counts()
    kept.used(uri).published += 1
    kept.used(uri).published += 1
    assert kept.of(uri) == Counts(published=2)


def test_looking_leaves_no_name_behind() -> None:
    kept = _counters()
    kept.of(_uri("new")).published += 1
    assert kept.of(_uri("new")) == Counts()
    assert kept.undeclared("svc") == ([], 0)


def test_the_last_used_are_listed_first_and_the_declared_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "MAX_LISTED", 2)
    kept = _counters()
    for uri in (_uri("a"), _uri("b"), JOBS, _uri("c"), _uri("a")):
        kept.used(uri)
    assert kept.undeclared("svc") == ([_uri("a"), _uri("c")], 1)
    assert kept.undeclared("other") == ([], 0)


def test_beyond_the_bound_the_one_used_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "MAX_UNDECLARED", 2)
    kept = _counters()
    for uri in (JOBS, _uri("a"), _uri("b"), _uri("a"), _uri("c")):
        kept.used(uri).published += 1
    assert [kept.of(uri).published for uri in (JOBS, _uri("a"), _uri("b"), _uri("c"))] == [1, 2, 0, 1]
    assert kept.undeclared("svc") == ([_uri("c"), _uri("a")], 0)
