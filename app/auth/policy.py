"""The policy: which rule allows whom what. Default deny; the first rule that matches is named as the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from app.config.policy import ANYBODY, PLACEHOLDER, RuleSettings
from app.domain.principal import ANONYMOUS_NAME, Principal, Verb
from app.domain.uri import SEPARATOR, MqUri

#: Decisions (count) that are remembered.
DECISIONS = 65_536
#: Values (count) of one claim that are tried; a token is bounded, what a pattern makes of it is to be too.
MAX_VALUES = 64
#: Texts (count) that one pattern becomes with them: each claim in it multiplies. What lies beyond is not matched.
MAX_FILLED = 1024
#: Characters that a value may not bring into a pattern: it would reach beyond its part of the mqURI.
_FOREIGN = re.compile(r"[\x00-\x1f\x7f-\x9f*]|::|^:|:$")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and its number in the configuration, from 1 on."""

    number: int
    settings: RuleSettings

    def __str__(self) -> str:
        rule = self.settings
        allow = ", ".join(rule.allow)
        return f"rule {self.number}: {', '.join(rule.principals)} may {allow} {', '.join(rule.uris)}"

    def means(self, principal: Principal) -> bool:
        """Whether the principal is one of those it allows something."""
        return any(is_meant(word, principal) for word in self.settings.principals)

    def reaches(self, service: str, principal: Principal) -> bool:
        """Whether one of its patterns could match something of the service."""
        return any(
            matches(part, service, principal) for pattern in self.settings.uris for part in service_parts(pattern)
        )


class Policy:
    """Decides for one list of rules. A decision is remembered for a principal's object, which never changes."""

    def __init__(self, rules: Sequence[RuleSettings]) -> None:
        self.rules = [Rule(number, each) for number, each in enumerate(rules, 1)]
        #: Whether any rule is about those who show no credentials.
        self.means_anonymous = any(ANONYMOUS_NAME in rule.principals for rule in rules)
        self.rule = lru_cache(DECISIONS)(self._rule)
        self.sees_service = lru_cache(DECISIONS)(self._sees_service)

    def _rule(self, principal: Principal, verb: Verb, uri: MqUri) -> Rule | None:
        """The first rule that allows it, None where none does."""
        text = str(uri)
        for rule in self._of(principal, verb):
            if any(matches(pattern, text, principal) for pattern in rule.settings.uris):
                return rule
        return None

    def _sees_service(self, principal: Principal, service: str) -> bool:
        """Whether some destination of the service could be one that the principal may look at."""
        return any(rule.reaches(service, principal) for rule in self._of(principal, Verb.LOOK))

    def within(self, principal: Principal, service: str) -> list[Rule]:
        """The rules that allow the principal something with what the service may have."""
        return [rule for rule in self.rules if rule.means(principal) and rule.reaches(service, principal)]

    def allows_anywhere(self, principal: Principal, verb: Verb) -> bool:
        """Whether there is any rule that allows it to do this with something."""
        return any(True for _ in self._of(principal, verb))

    def _of(self, principal: Principal, verb: Verb) -> Iterator[Rule]:
        for rule in self.rules:
            if verb in rule.settings.allow and rule.means(principal):
                yield rule


def is_meant(word: str, principal: Principal) -> bool:
    """Whether a word of a rule's principals means this one."""
    if principal.is_anonymous:
        return word == ANONYMOUS_NAME
    if word in (ANYBODY, principal.name, f"{principal.way}:{principal.name}", f"{principal.way}:{ANYBODY}"):
        return True
    kind, _, rest = word.partition(":")
    if kind == "group":
        return rest in principal.groups
    if kind != "claim":
        return False
    name, _, wanted = rest.partition("=")
    return wanted in _texts(claim(principal, name))


def service_parts(pattern: str) -> list[str]:
    """What the pattern asks of a service's name. In one of less than three parts any `*` may reach beyond it."""
    first, *rest = pattern.split(SEPARATOR)
    if len(rest) == 2:
        return [first]
    ends = [place + 1 for place, char in enumerate(first) if char == "*"]
    return [*(first[:end] for end in ends), *([first] if rest else [])]


def matches(pattern: str, text: str, principal: Principal) -> bool:
    """Whether the pattern, with what the principal has in its places, matches all of the text."""
    return any(_matches(one, text) for one in islice(_filled(pattern, principal), MAX_FILLED))


def _filled(pattern: str, principal: Principal) -> Iterator[list[str]]:
    """The pattern as literal pieces with a wildcard between each two; once for each combination of values."""
    found = PLACEHOLDER.search(pattern)
    if found is None:
        yield pattern.split("*")
        return
    before = pattern[: found.start()].split("*")
    for value in _values(principal, found[1]):
        for after in _filled(pattern[found.end() :], principal):
            yield [*before[:-1], before[-1] + value + after[0], *after[1:]]


def _values(principal: Principal, name: str) -> list[str]:
    """What may stand for `{name}`: nothing where it is not known, or could reach into another part of an mqURI."""
    if name == "principal":
        known = [] if principal.is_anonymous else [principal.name]
    else:
        known = _texts(claim(principal, name.removeprefix("claims.")))
    return [value for value in known if value and not _FOREIGN.search(value)][:MAX_VALUES]


def _matches(pieces: list[str], text: str) -> bool:
    """Whether the pieces stand in the text in this order, the first at its beginning and the last at its end.

    Greedy from the left, which for `*` alone finds a match where there is one, in linear time: a regular expression
    with many of them could take for ever.
    """
    first, *rest = pieces
    if not rest:
        return text == first
    *middle, last = rest
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def claim(principal: Principal, name: str) -> Any:  # noqa: ANN401 - a claim is any JSON value
    """The claim of this name, or with dots the one within others; None where there is none."""
    if name in principal.claims:
        return principal.claims[name]
    value: Any = principal.claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(value: object) -> list[str]:
    """A claim as texts: one, a number or a truth value as JSON has it, or each of a list."""
    if isinstance(value, list):
        return [text for item in value if not isinstance(item, list) for text in _texts(item)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [str(value)] if isinstance(value, str | int) else []
