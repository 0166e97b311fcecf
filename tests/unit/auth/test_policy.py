"""What a rule means: default deny, wildcards, and values that are literals."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth import policy as module
from app.auth.policy import Policy, matches
from app.config.policy import RuleSettings
from app.domain.principal import ANONYMOUS, Principal, Verb
from app.domain.uri import MqUri

CLAIMS: dict[str, Any] = {
    "vo": "lhcb",
    "sites": ["a", "b"],
    "level": 3,
    "admin": True,
    "empty": "",
    "star": "*",
    "half": 1.5,
    "nested": {"deep": {"er": "x"}},
    "a.b": "dotted",
    "wide": "a::Queues",
    "colon": ":",
    "none": None,
    "lists": [["q"]],
}
DASH = Principal(name="dash", way="token", groups=frozenset({"ops"}), claims=CLAIMS)


def uri(text: str) -> MqUri:
    return MqUri.parse(text)


def policy(*principals: str, allow: tuple[str, ...] = ("look",), uris: tuple[str, ...] = ("*",)) -> Policy:
    given_ = {"principals": list(principals), "allow": list(allow), "uris": list(uris)}
    return Policy([RuleSettings.model_validate(given_)])


def allows(made: Policy, principal: Principal = DASH) -> bool:
    return made.rule(principal, Verb.LOOK, uri("svc::Topics::a")) is not None


def test_nothing_is_allowed_without_a_rule() -> None:
    assert not allows(Policy([]))
    assert not allows(policy("dash", allow=("publish", "subscribe", "take", "admin")))
    assert not allows(policy("dash", uris=("svc::Queues::*",)))


@pytest.mark.parametrize(
    ("word", "means"),
    [
        ("dash", True),
        ("Dash", False),
        ("dash2", False),
        ("*", True),
        ("anonymous", False),
        ("token:dash", True),
        ("jwt:dash", False),
        ("certificate:dash", False),
        ("token:*", True),
        ("jwt:*", False),
        ("group:ops", True),
        ("group:op", False),
        ("claim:vo=lhcb", True),
        ("claim:vo=lhc", False),
        ("claim:sites=b", True),
        ("claim:sites=a,b", False),
        ("claim:level=3", True),
        ("claim:level=3.0", False),
        ("claim:admin=true", True),
        ("claim:admin=True", False),
        ("claim:admin=1", False),
        ("claim:half=1.5", False),
        ("claim:none=None", False),
        ("claim:lists=q", False),
        ("claim:nested.deep.er=x", True),
        ("claim:nested.deep=x", False),
        ("claim:a.b=dotted", True),
        ("claim:missing=x", False),
    ],
)
def test_whom_a_word_means(word: str, *, means: bool) -> None:
    assert allows(policy(word)) is means
    assert allows(policy(word), ANONYMOUS) is (word == "anonymous")


@pytest.mark.parametrize(
    ("pattern", "text", "match"),
    [
        ("svc::Topics::{principal}", "svc::Topics::dash", True),
        ("svc::Topics::{principal}", "svc::Topics::eve", False),
        ("svc::Topics::{claims.vo}.*", "svc::Topics::lhcb.x", True),
        ("svc::Topics::{claims.vo}.*", "svc::Topics::atlas.x", False),
        ("svc::Topics::{claims.sites}", "svc::Topics::b", True),
        ("svc::Topics::{claims.sites}{claims.sites}", "svc::Topics::ab", True),
        ("svc::Topics::{claims.level}", "svc::Topics::3", True),
        ("svc::Topics::{claims.missing}*", "svc::Topics::x", False),
        ("svc::Topics::{claims.empty}*", "svc::Topics::x", False),
        ("svc::Topics::{claims.none}*", "svc::Topics::x", False),
        ("svc::Topics::{claims.star}", "svc::Topics::x", False),
        ("svc::{claims.wide}::*", "svc::a::Queues::x", False),
        ("svc:{claims.colon}Topics::*", "svc::Topics::x", False),
        ("*::{principal}", "svc::Topics::dash", True),
    ],
)
def test_what_stands_for_the_caller(pattern: str, text: str, *, match: bool) -> None:
    assert matches(pattern, text, DASH) is match


def test_nobody_has_no_name() -> None:
    assert not matches("svc::Topics::{principal}*", "svc::Topics::anonymous", ANONYMOUS)


@given(st.text("ab*", max_size=12), st.text("ab", max_size=12))
def test_a_star_is_any_characters(pattern: str, text: str) -> None:
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None
    assert matches(pattern, text, DASH) is expected


def test_many_stars_take_no_time() -> None:
    begun = time.perf_counter()
    assert not matches("a*" * 100 + "b", "a" * 500, DASH)
    assert time.perf_counter() - begun < 1


def test_the_first_rule_is_the_reason() -> None:
    rules = [
        {"principals": ["eve"], "allow": ["look"], "uris": ["*"]},
        {"principals": ["dash"], "allow": ["look", "publish"], "uris": ["svc::Topics::a", "x::*"]},
        {"principals": ["*"], "allow": ["look"], "uris": ["*"]},
    ]
    found = Policy([RuleSettings.model_validate(each) for each in rules]).rule(DASH, Verb.LOOK, uri("svc::Topics::a"))
    assert str(found) == "rule 2: dash may look, publish svc::Topics::a, x::*"


@pytest.mark.parametrize(
    ("pattern", "sees"),
    [
        ("*", True),
        ("svc::*", True),
        ("s*::Queues::x", True),
        ("other::*", False),
        ("svc", False),
        ("*c::Topics::a", True),
        ("*a", True),
        ("s*a", True),
        ("s*::a", True),
        ("s*Topics::a", True),
        ("x*a", False),
        ("*x::Topics::a", False),
    ],
)
def test_a_service_is_seen_by_whoever_may_see_some_of_it(pattern: str, *, sees: bool) -> None:
    if "*" in pattern:
        assert policy("dash", uris=(pattern,)).sees_service(DASH, "svc") is sees
    assert not policy("dash", allow=("publish",)).sees_service(DASH, "svc")


@given(st.lists(st.sampled_from(["*", "s", "v", "c", "::", "Topics", "a"]), min_size=1, max_size=9).map("".join))
def test_whoever_may_look_at_something_sees_its_service(pattern: str) -> None:
    try:
        made = policy("dash", uris=(pattern,))
    except ValueError:  # no mqURI can match
        return
    if allows(made):
        assert made.sees_service(DASH, "svc")


def test_what_claims_make_of_a_pattern_is_bounded() -> None:
    many = Principal(name="many", way="jwt", claims={"of": [f"{number:03d}" for number in range(1000)]})
    begun = time.perf_counter()
    assert not matches("svc::Topics::" + "{claims.of}" * 6, "svc::Topics::" + "063" * 5 + "x", many)
    assert time.perf_counter() - begun < 1
    assert matches("svc::Topics::{claims.of}", "svc::Topics::063", many)
    assert not matches("svc::Topics::{claims.of}", "svc::Topics::064", many)


def test_the_rules_that_reach_a_service() -> None:
    rules = [
        {"principals": ["eve"], "allow": ["look"], "uris": ["*"]},
        {"principals": ["dash"], "allow": ["publish"], "uris": ["x::*", "{claims.vo}::*"]},
        {"principals": ["*"], "allow": ["take"], "uris": ["svc::*"]},
    ]
    made = Policy([RuleSettings.model_validate(each) for each in rules])
    assert [rule.number for rule in made.within(DASH, "lhcb")] == [2]
    assert [rule.number for rule in made.within(DASH, "svc")] == [3]
    assert made.within(ANONYMOUS, "svc") == []


def test_anything_anywhere() -> None:
    assert policy("dash").allows_anywhere(DASH, Verb.LOOK)
    assert not policy("dash").allows_anywhere(DASH, Verb.ADMIN)
    assert not policy("eve").allows_anywhere(DASH, Verb.LOOK)


def test_what_was_decided_goes_with_whom_it_was_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens come without end, and names too."""
    made = policy("*")
    for number in range(10):
        passing = Principal(name=f"p{number}", way="jwt")
        assert allows(made, passing)
        assert made.sees_service(passing, "svc")
    del passing
    assert len(made._decided) == 0
    monkeypatch.setattr(module, "DECISIONS", 5)
    for number in range(20):
        assert made.rule(DASH, Verb.LOOK, uri(f"svc::Topics::{number}")) is not None
        assert len(made._decided[DASH]) <= 5
