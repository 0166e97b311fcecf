"""`/session` and `/ticket`: what browsers need, which can neither keep a token safely nor send a header with it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

from app.api import query
from app.api.answer import Answer, json_answer
from app.api.body import check_encoding, read_body
from app.api.context import Context
from app.api.events import verb_of
from app.api.exchange import Exchange
from app.api.identification import TICKET, session_cookie
from app.api.query import bad_parameter
from app.auth.authority import Authority
from app.auth.sealed import SealError, TooLarge
from app.auth.sessions import COOKIE
from app.auth.tickets import OPEN_SECONDS, URIS
from app.domain.errors import HeadersTooLarge, HttpsRequired, InvalidParameter, NotFound
from app.domain.message import rfc3339
from app.domain.principal import ANONYMOUS, Principal
from app.domain.uri import MqUri
from app.gateway.joint_opening import URI
from app.wire.ip import plain_address
from app.wire.payload import parse_json

#: Bytes of a body: as many mqURIs as a stream may have.
MAX_BODY = 64 << 10
_HOLDER = "/session"
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Strict"


class Session:
    """The handler of `/session`."""

    def __init__(self, context: Context, authority: Authority) -> None:
        self._context = context
        self._authority = authority

    async def __call__(self, exchange: Exchange) -> None:
        """GET tells who is signed in, POST opens a session for whoever shows a token, DELETE ends it."""
        query.parse(exchange.scope["query_string"], ())
        if exchange.method in ("GET", "HEAD"):
            exchange.caller.require_known()
            await exchange.answer(json_answer(self._told(exchange.caller.principal)))
        elif exchange.method == "DELETE":
            await self._end(exchange)
        else:
            await self._begin(exchange)

    def _told(self, principal: Principal) -> dict[str, Any]:
        until = principal.until
        return {
            "principal": principal.label,
            "groups": sorted(principal.groups),
            "expires_at": None if until is None else rfc3339(until),
        }

    async def _begin(self, exchange: Exchange) -> None:
        _refuse_open(self._authority)
        principal = exchange.caller.principal
        exchange.caller.require_known()
        if principal.session:
            raise InvalidParameter("a session is opened with a token: Authorization: Bearer")
        check_sealable(exchange)
        await _read(self._context, exchange)
        until = time.time() + self._authority.settings.session_seconds
        try:
            text = self._authority.seal("session", principal, until)
        except TooLarge:
            raise HeadersTooLarge("the groups and claims of this token do not fit into a cookie") from None
        session = self._authority.sessions.open(text)
        left = max(0, int((session.until or until) - time.time()))
        cookie = f"{COOKIE}={text}; Max-Age={left}; {_ATTRIBUTES}"
        answer = json_answer(self._told(session))
        await exchange.answer(replace(answer, headers=(*answer.headers, (b"set-cookie", cookie.encode()))))

    async def _end(self, exchange: Exchange) -> None:
        """The session that the cookie names, whoever asks and whether or not it holds: whoever asks is signed out."""
        sessions, text = self._authority.sessions, session_cookie(exchange.headers)
        with contextlib.suppress(SealError):
            ended = ANONYMOUS if text is None else sessions.open(text)
            if sessions.end(ended):
                self._authority.lasting.review(ended.session)
        cookie = f"{COOKIE}=; Max-Age=0; {_ATTRIBUTES}"
        gone = Answer(status=204, content_type=b"text/plain", body=b"", headers=((b"set-cookie", cookie.encode()),))
        await exchange.answer(gone)


class Ticket:
    """The handler of `/ticket`."""

    def __init__(self, context: Context, authority: Authority) -> None:
        self._context = context
        self._authority = authority

    async def __call__(self, exchange: Exchange) -> None:
        """A ticket for one stream of these destinations, all of which the caller may read.

        Raises Unauthenticated, Forbidden, InvalidParameter, HttpsRequired and what resolving raises.
        """
        _refuse_open(self._authority)
        caller = exchange.caller
        caller.require_known()
        check_sealable(exchange)
        uris = self._uris(exchange, await _read(self._context, exchange))
        for uri in uris:
            caller.require(verb_of(uri), uri)
            self._context.gateway.resolve(uri, caller)
        until = time.time() + OPEN_SECONDS
        try:
            text = self._authority.seal(TICKET, caller.principal, until, **{URIS: [str(uri) for uri in uris]})
        except TooLarge:
            raise InvalidParameter("so many destinations do not fit into a ticket") from None
        await exchange.answer(json_answer({"ticket": text, "expires_at": rfc3339(until), URIS: [*map(str, uris)]}))

    def _uris(self, exchange: Exchange, body: bytes) -> list[MqUri]:
        """Of the query, `uri` once for each, or of a body `{"uris": [...]}`."""
        _, texts = query.parse_list(exchange.scope["query_string"], (), URI)
        if body:
            asked = parse_json(body)
            listed = asked.get(URIS) if isinstance(asked, dict) and asked.keys() == {URIS} else None
            if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
                raise InvalidParameter('a body is {"uris": ["service::Topics::name", ...]}')
            texts += listed
        most = self._context.settings.limits.uris_per_stream
        asked_for = dict.fromkeys(texts)
        if not 1 <= len(asked_for) <= most:
            raise bad_parameter(URI, f"names 1 to {most} destinations, and here {len(asked_for)}")
        return list(dict.fromkeys(MqUri.parse(text) for text in asked_for))


def check_sealable(exchange: Exchange) -> None:
    """Raises HttpsRequired where what is sealed would go over a network in the clear."""
    address = plain_address(exchange.address)
    if not (exchange.is_https or (address is not None and address.is_loopback)):
        raise HttpsRequired("sessions and tickets are for https, or for a client on this very machine")


def _refuse_open(authority: Authority) -> None:
    if authority.is_open:
        raise NotFound("nobody has to sign in here: auth.mode is none")


async def _read(context: Context, exchange: Exchange) -> bytes:
    check_encoding(exchange)
    gateway, patience = context.gateway, context.settings.server.idle_timeout
    return await read_body(exchange, lambda: gateway.budget.holding(_HOLDER), cap=MAX_BODY, patience=patience)
