"""Settings of a policy: rules that allow. What is wrong with one is found when it is read, not when it is needed."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from app.config.section import Section, TextList
from app.domain.errors import InvalidParameter
from app.domain.principal import ANONYMOUS_NAME, PREFIXES, Verb, check_principal
from app.domain.uri import SEPARATOR, DestinationType

ANYBODY = "*"
#: A value put into a pattern: `{principal}` or `{claims.NAME}`; `a.b` is the claim of that name, or `b` within `a`.
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_CLAIM = "claims."


class RuleSettings(Section):
    """One rule: these principals may do this with what these patterns match."""

    principals: Annotated[TextList, Field(min_length=1)]
    """Who: a name, `group:NAME`, `claim:NAME=VALUE`, `*` for anybody authenticated, `anonymous` for whoever shows no
    credentials. `token:NAME`, `jwt:NAME` and `certificate:NAME` are names recognised in one way only, and `token:*`
    everybody recognised so."""

    allow: Annotated[list[Verb], Field(min_length=1)]
    """What: any of publish, subscribe (Topics), take (Queues and durable subscriptions), look, admin."""

    uris: Annotated[TextList, Field(min_length=1)]
    """With which: mqURIs in which `*` matches any characters. `{principal}` and `{claims.NAME}` stand for what the
    caller has; a caller without that claim is not matched, and a `*` in it is no wildcard."""

    @field_validator("principals")
    @classmethod
    def _known_words(cls, value: list[str]) -> list[str]:
        for word in value:
            _check_word(word)
        return value

    @field_validator("uris")
    @classmethod
    def _patterns(cls, value: list[str]) -> list[str]:
        return [canonical_pattern(text) for text in value]


def _check_word(word: str) -> None:
    prefix = next((prefix for prefix in PREFIXES if word.startswith(prefix)), "")
    rest = word.removeprefix(prefix)
    if not rest:
        raise ValueError(f"{word!r} names nobody")
    if prefix == "claim:":
        name, equals, wanted = rest.partition("=")
        if not (name and equals and wanted):
            raise ValueError(f"{word!r}: a claim is written claim:NAME=VALUE")
    elif prefix != "group:" and word not in (ANYBODY, ANONYMOUS_NAME) and rest != ANYBODY:
        check_principal(rest)


def canonical_pattern(text: str) -> str:
    """The pattern with its type as mqURIs are printed; raises ValueError where no mqURI can match."""
    for name in PLACEHOLDER.findall(text):
        if name != "principal" and (SEPARATOR in name or name == _CLAIM or not name.startswith(_CLAIM)):
            raise ValueError(f"{text!r}: {{{name}}} is neither {{principal}} nor {{claims.NAME}}")
    if re.search(r"[{}]", PLACEHOLDER.sub("", text)):
        raise ValueError(f"{text!r}: a brace belongs to {{principal}} or {{claims.NAME}}")
    parts = text.split(SEPARATOR)
    if len(parts) > 3 or not all(parts) or (len(parts) < 3 and "*" not in text):
        raise ValueError(f"{text!r} matches no mqURI, which has the form service::Queues|Topics::name")
    if len(parts) == 3 and not re.search(r"[*{]", parts[1]):
        try:
            parts[1] = DestinationType.parse(parts[1]).value
        except InvalidParameter as error:
            raise ValueError(f"{text!r}: {error}") from None
    return SEPARATOR.join(parts)


def claims_in(rules: list[RuleSettings]) -> frozenset[str]:
    """The names of all claims that any of the rules looks at."""
    words = {word.removeprefix("claim:").partition("=")[0] for rule in rules for word in _words(rule, "claim:")}
    places = (name for rule in rules for text in rule.uris for name in PLACEHOLDER.findall(text))
    return frozenset(words | {name.removeprefix(_CLAIM) for name in places if name.startswith(_CLAIM)})


def groups_in(rules: list[RuleSettings]) -> frozenset[str]:
    """The groups that any of the rules names."""
    return frozenset(word.removeprefix("group:") for rule in rules for word in _words(rule, "group:"))


def _words(rule: RuleSettings, prefix: str) -> list[str]:
    return [word for word in rule.principals if word.startswith(prefix)]
