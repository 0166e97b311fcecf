"""Authority: who somebody is, whether that still holds, and what they may. One for the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from app.auth.caller import Caller
from app.auth.certificates import Certificates
from app.auth.jwks import KeySource
from app.auth.jwt import JwtVerifier
from app.auth.jwt_refusal import JwtRefused
from app.auth.lasting import Lasting, Needs
from app.auth.policy import Policy, claim
from app.auth.rates import Rates
from app.auth.sealed import Seal, Sealed, SealError
from app.auth.sessions import Sessions
from app.auth.tickets import Tickets
from app.auth.tokens import Tokens
from app.config.policy import RuleSettings, claims_in, groups_in
from app.config.settings import Settings
from app.domain.errors import InvalidCredentials
from app.domain.principal import ANONYMOUS, Principal
from app.telemetry.metrics import Metrics
from app.wire.keys import derived

#: What is said of credentials that do not hold: never which part of them was nearly right.
_SENTENCES = {
    "scheme": "Authorization is `Bearer` and a token",
    "expired": "the credentials have expired",
    "revoked": "the credentials have been revoked",
    "ticket": "this ticket is for something else, was used, or is being used",
}
_SENTENCE = "the credentials are not valid here"
#: Principals (count) of sessions whose token has lost a group since.
_NARROWED = 4096


# Not frozen: that would cost every request as much as its look-up.
@dataclass(slots=True, kw_only=True)
class Shown:
    """The credentials of one request, each None where there are none; `other` is an Authorization of another scheme."""

    bearer: str | None = None
    session: str | None = None
    subject: str | None = None
    other: bool = False


class Authority:
    """`label` tells equal names apart where there is more than one way to be recognised."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = auth = settings.auth
        limits = settings.limits
        #: Nobody is asked who they are, and everybody may do everything.
        self.is_open = auth.is_open
        #: What somebody may not use is told as if it were not there.
        self.hides = auth.hide_forbidden
        self._failures = metrics.auth_failures
        several = len(auth.mode) > 1
        self.tokens = (
            Tokens(auth.tokens_file, _label("token", several)) if auth.tokens_file and auth.uses_tokens else None
        )
        self.jwt: JwtVerifier | None = None
        self._jwt_label = _label("jwt", several)
        certificates = Certificates(auth.certificate, _label("certificate", several))
        self._certificates = certificates if "certificate" in auth.mode else None
        self._seals = {name: Seal(derived(auth.secret, name), name) for name in ("session", "ticket")}
        self.sessions = Sessions(self._seals["session"])
        self.tickets = Tickets(self._seals["ticket"])
        self.lasting = Lasting(self._objection, self._until)
        self.rates = Rates(limits.messages_per_second, limits.bytes_per_second)
        self.rules: list[RuleSettings] = []
        self.policy = Policy([])
        self.adopt(auth.policy)

    def use_keys(self, keys: KeySource) -> None:
        """JWTs are verified with these; until then nobody is known by one."""
        if self.settings.jwt is not None:
            self.jwt = JwtVerifier(self.settings.jwt, keys, label=self._jwt_label.format)

    def adopt(self, rules: list[RuleSettings]) -> None:
        """This policy from now on; what it does not allow any more ends."""
        self.rules = rules
        self.policy = Policy(rules)
        self.lasting.review()

    # Who somebody is.

    async def identify(self, shown: Shown) -> Principal:
        """The principal; ANONYMOUS without credentials. Raises InvalidCredentials, KeysUnavailable."""
        if self.is_open:
            return ANONYMOUS
        token = shown.bearer
        principal = None if token is None or self.tokens is None else self.tokens.find(token)
        if principal is None:
            try:
                principal = await self._identified(shown)
            except (SealError, JwtRefused) as error:
                raise self.refusal(error.reason) from None
        self.check(principal)
        return principal

    async def _identified(self, shown: Shown) -> Principal:
        """By anything but a token of ours."""
        if shown.other:
            raise self.refusal("scheme")
        if shown.bearer is not None:
            if self.jwt is None or Tokens.is_one(shown.bearer):
                raise self.refusal("unknown")
            return await self.jwt.verify(shown.bearer)
        if shown.session is not None:
            return self._as_now(self.sessions.open(shown.session))
        if shown.subject is not None and self._certificates is not None:
            found = self._certificates.find(shown.subject)
            if found is None:
                raise self.refusal("unknown")
            return found
        return ANONYMOUS

    def denied(self, reason: str) -> None:
        """Count a request that was refused for who it came from."""
        self._failures.labels(reason).inc()

    def refusal(self, reason: str) -> InvalidCredentials:
        """Counts it; the error to raise."""
        self.denied(reason)
        return InvalidCredentials(_SENTENCES.get(reason, _SENTENCE), reason=reason)

    def check(self, principal: Principal) -> None:
        """Raises InvalidCredentials where what recognised it does not hold any more."""
        reason = self._lapse(principal)
        if reason is not None:
            raise self.refusal(reason)

    def _lapse(self, principal: Principal) -> str | None:
        """Why it does not hold any more; first what most requests are, for which that is quick."""
        tokens = self.tokens
        if principal.until is None and tokens is not None and tokens.current(principal.credential) is principal:
            return None
        until = self._until(principal)
        if until is not None and until <= time.time():
            return "expired"
        if principal.session and self.sessions.has_ended(principal):
            return "revoked"
        return None if self._is_current(principal) else "revoked"

    def _is_current(self, principal: Principal) -> bool:
        """Whether it would be recognised again, and as the same."""
        match principal.way:
            case "token":
                current = None if self.tokens is None else self.tokens.current(principal.credential)
                return current is not None and current.name == principal.name
            case "jwt":
                return self.jwt is not None and self.jwt.holds(principal)
            case "certificate":
                return self._certificates is not None and self._certificates.has(principal)
        return True

    def _until(self, principal: Principal) -> float | None:
        """When its credential ends; the file of tokens may say another time now than when it was recognised."""
        if principal.way != "token" or self.tokens is None:
            return principal.until
        current = self.tokens.current(principal.credential)
        ends = [one.until for one in (principal, current) if one is not None and one.until is not None]
        return min(ends, default=None)

    def _objection(self, principal: Principal, needs: Needs) -> str | None:
        """Why something that lasts may not go on."""
        if self.is_open:
            return None
        lapse = self._lapse(principal)
        if lapse is not None:
            return lapse
        caller = self.caller(self._as_now(principal), "")
        return None if all(caller.may(verb, uri) for verb, uri in needs) else "forbidden"

    def caller(self, principal: Principal, address: str) -> Caller:
        """The principal at an address."""
        return Caller(self, principal, address)

    def _as_now(self, principal: Principal) -> Principal:
        """With the groups that the file gives it now: they may be others than when it was recognised, or sealed."""
        current = self.tokens and self.tokens.current(principal.credential)
        if not current:
            return principal
        if not principal.session:
            return current
        return principal if principal.groups <= current.groups else _narrowed(principal, current.groups)

    # What is made for browsers.

    def seal(self, purpose: str, principal: Principal, until: float, **more: Any) -> str:  # noqa: ANN401 - JSON
        """A session or a ticket for this principal, at most as long as its credential; raises TooLarge."""
        end = until if principal.until is None else min(until, principal.until)
        return self._seals[purpose].make(
            principal,
            until=end,
            groups=principal.groups & groups_in(self.rules),
            claims=self._claims(principal),
            session=principal.session,  # what a session lets somebody open ends with it
            **more,
        )

    def _claims(self, principal: Principal) -> Mapping[str, Any]:
        """Those the policy looks at, by the name it has for them."""
        found = {name: claim(principal, name) for name in claims_in(self.rules)}
        return {name: value for name, value in found.items() if value is not None}

    def ticket(self, text: str, uris: Sequence[str], *, returning: bool) -> Sealed:
        """The ticket for this stream; raises InvalidCredentials."""
        try:
            ticket = self.tickets.check(text, uris, returning=returning)
        except SealError as error:
            raise self.refusal(error.reason) from None
        self.check(ticket.principal)
        return replace(ticket, principal=self._as_now(ticket.principal))

    def use(self, ticket: Sealed) -> Callable[[bool], None]:
        """Its stream opens; what is returned is for its end, as of Tickets. Raises as they do, InvalidCredentials."""
        try:
            return self.tickets.use(ticket)
        except SealError as error:
            raise self.refusal(error.reason) from None


@lru_cache(_NARROWED)
def _narrowed(principal: Principal, groups: frozenset[str]) -> Principal:
    """With no other groups than these; one value each time, by which decisions are remembered."""
    return replace(principal, groups=principal.groups & groups)


def _label(way: str, several: bool) -> str:
    return f"{way}:{{}}" if several else "{}"
