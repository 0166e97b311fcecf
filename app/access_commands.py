"""`mq-gateway check --as`: what a principal may do, and which rule says so. And what a policy may not have meant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.auth.jwks import JwksFile, UnusableSet
from app.auth.policy import Policy, Rule, is_meant
from app.auth.token_file import NoTokenFileError, TokenFileError, read_tokens
from app.client.arguments import key_value, parser
from app.config.errors import Problem
from app.config.settings import Settings
from app.domain.principal import ANONYMOUS, ANONYMOUS_NAME, Principal, Verb, check_principal
from app.domain.uri import DestinationType, MqUri


class By(StrEnum):
    """How somebody is recognised."""

    TOKEN = "token"  # noqa: S105 - a word
    JWT = "jwt"
    CERTIFICATE = "certificate"


#: What can be done with a Queue and with a Topic; to take from a Topic is to take from a durable subscription.
VERBS = {
    DestinationType.QUEUES: (Verb.PUBLISH, Verb.TAKE, Verb.LOOK, Verb.ADMIN),
    DestinationType.TOPICS: (Verb.PUBLISH, Verb.SUBSCRIBE, Verb.TAKE, Verb.LOOK, Verb.ADMIN),
}


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


def explain(settings: Settings, asked: Asked, *, as_json: bool) -> None:
    """Print every declared destination with what this principal may do there; raises BadParameter."""
    principal = _principal(settings, asked)
    policy = Policy(settings.auth.policy)
    found = [
        (uri, {verb: policy.rule(principal, verb, uri) for verb in VERBS[uri.type]}) for uri in _declared(settings)
    ]
    if as_json:
        for uri, rules in found:
            typer.echo(json.dumps(_members(uri, rules), ensure_ascii=False))
        return
    typer.echo(f"{principal.name}{_with(principal)}")
    if settings.auth.is_open:
        typer.echo("auth.mode is none: whoever reaches the port may do everything")
    for uri, rules in found:
        typer.echo(f"\n{uri}")
        for verb, rule in rules.items():
            typer.echo(f"  {verb.value:<10}{f'allowed, {rule}' if rule else 'denied: no rule allows it'}")
    _undeclared(settings, policy, principal)


def _undeclared(settings: Settings, policy: Policy, principal: Principal) -> None:
    """The rules that count for names nobody has declared."""
    services = [name for name, service in settings.services.items() if service.allow_undeclared]
    rules = [rule for rule in policy.rules if any(is_meant(word, principal) for word in rule.settings.principals)]
    if services and rules:
        typer.echo(f"\nundeclared destinations of {', '.join(services)}")
        for rule in rules:
            typer.echo(f"  {rule}")


def _members(uri: MqUri, rules: dict[Verb, Rule | None]) -> dict[str, Any]:
    allowed = {verb.value: rule.number for verb, rule in rules.items() if rule is not None}
    return {"mq_uri": str(uri), "allowed": allowed, "denied": [verb.value for verb in rules if rules[verb] is None]}


def _with(principal: Principal) -> str:
    words = [principal.way or "no credentials"]
    words += [f"group {group}" for group in sorted(principal.groups)]
    words += [f"claim {name}={value}" for name, value in principal.claims.items()]
    return f" ({', '.join(words)})"


def _principal(settings: Settings, asked: Asked) -> Principal:
    """Whom the words on the command line name; raises BadParameter."""
    name, way = asked.name, asked.way
    if name == ANONYMOUS_NAME:
        return ANONYMOUS
    prefix, colon, rest = name.partition(":")
    if colon and prefix in settings.auth.mode:
        way, name = prefix, rest
    way = way or settings.auth.mode[0]
    try:
        check_principal(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    known = _groups(settings, name) if way == "token" else frozenset()
    return Principal(name=name, way=way, label=name, groups=known | set(asked.groups), claims=_as_claims(asked.claims))


def _as_claims(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A claim given more than once is a list."""
    claims: dict[str, Any] = {}
    for name, value in pairs:
        claims[name] = [*claims[name], value] if name in claims else [value]
    return {name: values[0] if len(values) == 1 else values for name, values in claims.items()}


def _groups(settings: Settings, name: str) -> frozenset[str]:
    """The groups of all tokens of this principal."""
    if settings.auth.tokens_file is None:
        return frozenset()
    try:
        entries = read_tokens(settings.auth.tokens_file)
    except TokenFileError:
        return frozenset()  # `problems` and `doubts` have told
    return frozenset(group for entry in entries if entry.principal == name for group in entry.groups)


def _declared(settings: Settings) -> Iterator[MqUri]:
    for name, service in settings.services.items():
        yield from (MqUri(name, DestinationType.QUEUES, queue) for queue in service.queues)
        yield from (MqUri(name, DestinationType.TOPICS, topic) for topic in service.topics)


def problems(settings: Settings) -> list[Problem]:
    """What is wrong with the files of tokens and keys, as far as they are used."""
    auth, found = settings.auth, []
    if auth.uses_tokens and auth.tokens_file is not None:
        try:
            read_tokens(auth.tokens_file)
        except NoTokenFileError:
            pass  # nobody gets in, and `doubts` says so
        except TokenFileError as error:
            found.append(Problem(str(error), "auth.tokens_file"))
    if auth.uses_jwt and auth.jwt is not None and auth.jwt.jwks_file is not None:
        try:
            JwksFile(auth.jwt.jwks_file, auth.jwt)
        except UnusableSet as error:
            found.append(Problem(str(error), "auth.jwt.jwks_file"))
    return found


def doubts(settings: Settings) -> Iterator[str]:
    """Sentences about what an operator may not have meant."""
    auth = settings.auth
    if auth.is_open:
        if auth.policy:
            yield "auth.policy: not looked at, since auth.mode is none"
        return
    if not auth.policy:
        yield "auth.policy: without rules nobody may do anything"
    if auth.uses_tokens and auth.tokens_file is not None and not auth.tokens_file.exists():
        yield f"auth.tokens_file: there is no {auth.tokens_file}: nobody has a token; `mq-gateway token new` makes it"
    yield from _strangers(settings)
    if len(auth.mode) > 1:
        yield from _ambiguous(settings)
    if not (settings.server.is_loopback or settings.server.tls.cert_file or settings.server.trusted_proxies):
        yield "server.tls: not set; unless a proxy in front speaks TLS, tokens go over the network in the clear"


def _strangers(settings: Settings) -> Iterator[str]:
    for number, rule in enumerate(settings.auth.policy, 1):
        for pattern in rule.uris:
            service = pattern.split("::")[0]
            if not set("*{") & set(service) and service not in settings.services:
                yield f"auth.policy: rule {number}: {pattern} is of a service that is not configured"


def _ambiguous(settings: Settings) -> Iterator[str]:
    modes = settings.auth.mode
    for number, rule in enumerate(settings.auth.policy, 1):
        for word in rule.principals:
            if word not in ("*", ANONYMOUS_NAME) and ":" not in word:
                ways = " or ".join(f"{way}:{word}" for way in modes)
                yield f"auth.policy: rule {number}: {word} is whoever has that name, in whichever way; or write {ways}"
