"""`mq-gateway check --as`: what a principal may do, and which rule says so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.auth.policy import Policy, Rule
from app.auth.token_file import TokenFileError, read_tokens
from app.client.arguments import key_value, parser
from app.client.telling import notice
from app.config.settings import ServiceSettings, Settings
from app.domain.principal import ANONYMOUS, ANONYMOUS_NAME, Principal, Verb, check_principal
from app.domain.uri import DestinationType, MqUri


class By(StrEnum):
    """How somebody is recognised."""

    TOKEN = "token"  # noqa: S105 - a word
    JWT = "jwt"
    CERTIFICATE = "certificate"


#: Why everybody may do everything.
OPEN = "since auth.mode is none whoever reaches the port may do everything"

AsPrincipal = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Print what this principal may do; `anonymous` shows no credentials."),
]
AsGroups = Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="With --as: one of its groups.")]
AsClaims = Annotated[
    list[Any] | None,
    typer.Option("--claim", metavar="NAME=VALUE", parser=parser(key_value), help="With --as: one of its claims."),
]
AsBy = Annotated[
    By | None, typer.Option("--by", help="With --as: how it is recognised.  [default: the first of auth.mode]")
]
AsJson = Annotated[bool, typer.Option("--json", help="With --as: one JSON object for each destination.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """The principal on the command line; `way` may be empty."""

    name: str
    groups: Sequence[str]
    claims: Sequence[tuple[str, str]]
    way: str


class Answer:
    """What is said of one destination: a rule for each thing that can be done with it, None where there is none."""

    def __init__(self, settings: Settings, policy: Policy, principal: Principal, uri: MqUri) -> None:
        self.uri = uri
        self._open = settings.auth.is_open
        self._rules: dict[Verb, Rule | None] = {
            verb: policy.rule(principal, verb, uri) for verb in _verbs(uri, settings.services[uri.service])
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"\n{self.uri}"
        for verb, rule in self._rules.items():
            reason = OPEN if self._open else rule
            yield f"  {verb.value:<10}{f'allowed, {reason}' if reason else 'denied: no rule allows it'}"

    def members(self) -> dict[str, Any]:
        """For programs: the numbers of rules, null where nobody is asked for one."""
        if self._open:
            return {"mq_uri": str(self.uri), "allowed": {verb.value: None for verb in self._rules}, "denied": []}
        allowed = {verb.value: rule.number for verb, rule in self._rules.items() if rule is not None}
        denied = [verb.value for verb, rule in self._rules.items() if rule is None]
        return {"mq_uri": str(self.uri), "allowed": allowed, "denied": denied}


def explain(settings: Settings, asked: Asked, *, as_json: bool) -> None:
    """Print every declared destination with what this principal may do there; raises BadParameter."""
    principal = _principal(settings, asked)
    policy = Policy(settings.auth.policy)
    answers = [Answer(settings, policy, principal, uri) for uri in _declared(settings)]
    undeclared = {
        name: [] if settings.auth.is_open else policy.within(principal, name)
        for name, service in settings.services.items()
        if service.allow_undeclared
    }
    if as_json:
        rest = [{"service": name, "undeclared": [each.number for each in rules]} for name, rules in undeclared.items()]
        for members in (*(answer.members() for answer in answers), *rest):
            typer.echo(json.dumps(members, ensure_ascii=False))
        return
    typer.echo(f"{principal.name}{_with(principal)}")
    for line in (line for answer in answers for line in answer.lines()):
        typer.echo(line)
    for name, rules in undeclared.items():
        typer.echo(f"\nundeclared destinations of {name}")
        for reason in ([OPEN] if settings.auth.is_open else rules) or ["denied: no rule allows anything with them"]:
            typer.echo(f"  {reason}")


def _verbs(uri: MqUri, service: ServiceSettings) -> Iterator[Verb]:
    """What can be done with it; to take from a Topic is to take from a durable subscription."""
    yield Verb.PUBLISH
    if uri.is_queue or service.topics[uri.name].subscriptions:
        yield Verb.TAKE
    if not uri.is_queue:
        yield Verb.SUBSCRIBE
    yield from (Verb.LOOK, Verb.ADMIN)


def _with(principal: Principal) -> str:
    words = [principal.way or "no credentials"]
    words += [f"group {group}" for group in sorted(principal.groups)]
    words += [f"claim {name}={value}" for name, value in principal.claims.items()]
    return f" ({', '.join(words)})"


def _principal(settings: Settings, asked: Asked) -> Principal:
    """Whom the words on the command line name; raises BadParameter."""
    name, way, auth = asked.name, asked.way, settings.auth
    if name == ANONYMOUS_NAME:
        if asked.groups or asked.claims or way:
            raise typer.BadParameter(f"whoever is {ANONYMOUS_NAME} shows nothing that could have groups or claims")
        return ANONYMOUS
    prefix, colon, rest = name.partition(":")
    if colon and prefix in set(By):
        way, name = way or prefix, rest
    way = way or (By.TOKEN if auth.is_open else auth.mode[0])
    try:
        check_principal(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not auth.is_open and way not in auth.mode:
        notice(f"nobody is recognised by {way}, as auth.mode is {', '.join(auth.mode)}")
    claims = _as_claims(asked.claims)
    known = _groups_of_tokens(settings, name) if way == By.TOKEN else _groups_of_claims(settings, claims, way)
    return Principal(name=name, way=way, label=name, groups=known | set(asked.groups), claims=claims)


def _as_claims(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A claim given more than once is a list."""
    claims: dict[str, Any] = {}
    for name, value in pairs:
        claims[name] = [*claims[name], value] if name in claims else [value]
    return {name: values[0] if len(values) == 1 else values for name, values in claims.items()}


def _groups_of_claims(settings: Settings, claims: dict[str, Any], way: str) -> frozenset[str]:
    """Those that a JWT with these claims would have."""
    if way != By.JWT or settings.auth.jwt is None:
        return frozenset()
    value = claims.get(settings.auth.jwt.groups_claim, [])
    return frozenset(value if isinstance(value, list) else [value])


def _groups_of_tokens(settings: Settings, name: str) -> frozenset[str]:
    """The groups of all tokens of this principal that are good; says which."""
    if settings.auth.tokens_file is None:
        return frozenset()
    try:
        entries = [entry for entry in read_tokens(settings.auth.tokens_file) if entry.principal == name]
    except TokenFileError:
        return frozenset()  # told as a problem, or as a doubt
    found: set[str] = set()
    for entry in entries:
        if entry.has_expired(time.time()):
            notice(f"token {entry.name} of {name} has expired")
        else:
            notice(f"token {entry.name} of {name}: {', '.join(entry.groups) or 'no groups'}")
            found.update(entry.groups)
    return frozenset(found)


def _declared(settings: Settings) -> Iterator[MqUri]:
    for name, service in settings.services.items():
        yield from (MqUri(name, DestinationType.QUEUES, queue) for queue in service.queues)
        yield from (MqUri(name, DestinationType.TOPICS, topic) for topic in service.topics)
