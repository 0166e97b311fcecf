"""What may be wrong with who may do what, beyond what a setting alone can tell."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

from app.auth.jwks import JwksFile, UnusableSet
from app.auth.token_file import NoTokenFileError, TokenFileError, read_tokens
from app.config.auth import AuthSettings
from app.config.errors import Problem
from app.config.jwt import SYMMETRIC
from app.config.settings import Settings
from app.domain.principal import ANONYMOUS_NAME
from app.domain.uri import SEPARATOR


def problems(auth: AuthSettings) -> list[Problem]:
    """What is wrong with the files of tokens and keys, as far as they are used."""
    found = []
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
    yield from _secrets(settings)
    if not auth.policy:
        yield "auth.policy: without rules nobody may do anything"
    if auth.uses_tokens and auth.tokens_file is not None:
        yield from _tokens_file(auth.tokens_file)
    if "certificate" in auth.mode and not settings.server.trusted_proxies:
        yield "server.trusted_proxies: empty, so that nobody is known by a certificate: no proxy's word counts"
    yield from _strangers(settings)
    if len(auth.mode) > 1:
        yield from _ambiguous(settings)
    if not (settings.server.is_loopback or settings.server.tls.cert_file or settings.server.trusted_proxies):
        yield "server.tls: not set; unless a proxy in front speaks TLS, tokens go over the network in the clear"


def _tokens_file(path: Path) -> Iterator[str]:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        yield f"auth.tokens_file: there is no {path}: nobody has a token; `mq-gateway token new` makes it"
        return
    except OSError:
        return  # a problem, told where it is read
    if mode & stat.S_IWOTH:
        yield f"auth.tokens_file: everybody on this machine can write {path}, and make themselves a token; chmod o-w"
    elif mode & stat.S_IROTH:
        yield f"auth.tokens_file: everybody on this machine can read {path}; chmod o-r"


def _secrets(settings: Settings) -> Iterator[str]:
    """Files by which anybody could be anybody."""
    auth = settings.auth
    symmetric = auth.jwt is not None and bool(set(auth.jwt.algorithms) & SYMMETRIC)
    files = (("auth.secret_file", auth.secret_file), ("auth.jwt.jwks_file", auth.jwt.jwks_file if auth.jwt else None))
    for option, path in files:
        with contextlib.suppress(OSError):
            mode = 0 if path is None else path.stat().st_mode
            if mode & stat.S_IWOTH or (mode & stat.S_IROTH and (option == "auth.secret_file" or symmetric)):
                yield f"{option}: everybody on this machine can read or write {path}, and be anybody; chmod o-rw"


def _strangers(settings: Settings) -> Iterator[str]:
    for number, rule in enumerate(settings.auth.policy, 1):
        for pattern in rule.uris:
            service = pattern.split(SEPARATOR)[0]
            if not set("*{") & set(service) and service not in settings.services:
                yield f"auth.policy: rule {number}: {pattern} is of a service that is not configured"


def _ambiguous(settings: Settings) -> Iterator[str]:
    modes = settings.auth.mode
    for number, rule in enumerate(settings.auth.policy, 1):
        for word in rule.principals:
            if word not in ("*", ANONYMOUS_NAME) and ":" not in word:
                ways = " or ".join(f"{way}:{word}" for way in modes)
                yield f"auth.policy: rule {number}: {word} is whoever has that name, in whichever way; or write {ways}"
