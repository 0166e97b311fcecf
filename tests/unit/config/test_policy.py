"""Rules that allow: what is wrong with one is found when it is read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.config.policy import RuleSettings, canonical_pattern, claims_in, groups_in

GOOD = {"principals": ["dash"], "allow": ["look"], "uris": ["svc::Topics::*"]}


def rule(**change: object) -> RuleSettings:
    return RuleSettings.model_validate({**GOOD, **change})


@pytest.mark.parametrize(
    ("pattern", "canonical"),
    [
        ("svc::topic::a", "svc::Topics::a"),
        ("svc::QUEUE::a", "svc::Queues::a"),
        ("*::queues::a", "*::Queues::a"),
        ("svc::*::a", "svc::*::a"),
        ("svc::Topic*::a", "svc::Topic*::a"),
        ("*", "*"),
        ("svc::*", "svc::*"),
        ("svc*", "svc*"),
        ("*::Queues::{principal}.*", "*::Queues::{principal}.*"),
        ("{claims.site}::Topics::{claims.a.b}", "{claims.site}::Topics::{claims.a.b}"),
    ],
)
def test_patterns(pattern: str, canonical: str) -> None:
    assert canonical_pattern(pattern) == canonical
    assert rule(uris=[pattern]).uris == [canonical]


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "svc", "svc::Topics", "a::Topics::b::c", "::Topics::a", "svc::Topics::", "svc::Tpics::a", "*::"),
        *("{principal", "principal}::*", "{}::*", "{claims.}::*", "{claims}::*", "{sub}::*", "{{principal}}::*"),
    ],
)
def test_patterns_that_match_nothing(pattern: str) -> None:
    with pytest.raises(ValidationError):
        rule(uris=[pattern])


@pytest.mark.parametrize(
    "word",
    ["dash", "*", "anonymous", "group:a b", "claim:vo=lhcb", "claim:a.b=x=y", "token:x", "jwt:*", "certificate:CN=x"],
)
def test_who(word: str) -> None:
    assert rule(principals=[word]).principals == [word]


@pytest.mark.parametrize(
    "word",
    [
        *("group:", "claim:vo", "claim:=x", "claim:vo=", "token:", "token:group:x", "jwt:anonymous"),
        *("a*", "a/b", "a::b", "a\nb", "token:a*", " x ", "certificate:a/b"),
    ],
)
def test_words_that_mean_nobody(word: str) -> None:
    with pytest.raises(ValidationError):
        RuleSettings.model_validate({**GOOD, "principals": [word]})


@pytest.mark.parametrize(
    "change", [{"principals": []}, {"allow": []}, {"uris": []}, {"allow": ["read"]}, {"alow": ["look"]}]
)
def test_a_rule_is_whole(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        rule(**change)


def test_lists_may_be_text() -> None:
    made = rule(principals="a, group:b", uris="svc::Topics::a, svc::Topics::b")
    assert (made.principals, len(made.uris)) == (["a", "group:b"], 2)


def test_what_rules_look_at() -> None:
    rules = [
        rule(principals=["claim:vo=x", "group:ops", "group:dev", "claim:a.b=1"]),
        rule(uris=["*::Topics::{principal}.{claims.site}"]),
    ]
    assert claims_in(rules) == {"vo", "a.b", "site"}
    assert groups_in(rules) == {"ops", "dev"}
