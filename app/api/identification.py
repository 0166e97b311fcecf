"""Whose request this is: the one place where credentials are read from a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.api import query, stream_query
from app.api.exchange import Exchange
from app.api.paths import Kind, Route
from app.api.request_headers import RequestHeaders
from app.auth.authority import Authority, Shown
from app.auth.sessions import COOKIE
from app.config.auth import AuthSettings
from app.domain.principal import Principal
from app.domain.uri import MqUri
from app.gateway.joint_opening import URI

#: The parameter of an event stream's URL that holds a ticket.
TICKET = "ticket"

_STREAMS = (Kind.EVENTS, Kind.JOINT_EVENTS)


class Identification:
    """Sets the caller of an exchange. The order: Authorization, ticket, cookie, certificate; the first that is there
    decides, also where it does not hold."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._subject = _subject_reader(authority.settings)

    async def __call__(self, exchange: Exchange, route: Route | None) -> None:
        """Raises InvalidCredentials, KeysUnavailable; InvalidParameter for a query that hides a ticket."""
        authority = self._authority
        if authority.is_open:
            self._set(exchange, await authority.identify(Shown()))
            return
        header = exchange.headers.get(b"authorization")
        text = None if header is not None else _ticket(exchange, route)
        if text is not None and route is not None:
            returning = bool(exchange.headers.first(b"last-event-id"))
            exchange.ticket = authority.ticket(text, _uris(exchange, route), returning=returning)
            principal = exchange.ticket.principal
        else:
            principal = await authority.identify(self._shown(exchange, header))
        self._set(exchange, principal)

    def _set(self, exchange: Exchange, principal: Principal) -> None:
        exchange.caller = self._authority.caller(principal, exchange.address)
        exchange.access.principal = exchange.caller.label

    def _shown(self, exchange: Exchange, authorization: bytes | None) -> Shown:
        if authorization is not None:
            return _bearer(authorization)
        return Shown(session=session_cookie(exchange.headers), subject=self._subject(exchange))


def _bearer(authorization: bytes) -> Shown:
    """RFC 6750 section 2.1, the scheme in any case (RFC 9110 section 11.1). The token is looked at elsewhere."""
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        return Shown(other=True)
    return Shown(bearer=token.strip(b" ").decode("latin-1"))


def _ticket(exchange: Exchange, route: Route | None) -> str | None:
    """The ticket of an event stream's URL; a URL of anything else has none."""
    if route is None or route.kind not in _STREAMS or TICKET.encode() not in exchange.scope["query_string"]:
        return None
    values, _ = query.parse_list(exchange.scope["query_string"], stream_query.PARAMETERS, URI)
    return values.get(TICKET)


def _uris(exchange: Exchange, route: Route) -> Sequence[str]:
    """The destinations of the stream, as mqURIs are printed; raises InvalidName, InvalidParameter."""
    if route.uri is not None:
        return [str(route.uri)]
    _, texts = query.parse_list(exchange.scope["query_string"], stream_query.PARAMETERS, URI)
    return [str(MqUri.parse(text)) for text in texts]


def session_cookie(headers: RequestHeaders) -> str | None:
    """The session's cookie (RFC 6265 section 5.4); of several of that name none is taken."""
    if b"cookie" not in headers:
        return None
    pairs = [pair.strip() for name, value in headers.pairs if name == b"cookie" for pair in value.split(b";")]
    found = [value for name, _, value in (pair.partition(b"=") for pair in pairs) if name == COOKIE.encode()]
    # Two can only come from somebody who plants one: no browser keeps two `__Host-` cookies of one name.
    return found[0].decode("latin-1") if len(found) == 1 else None


def _subject_reader(settings: AuthSettings) -> Callable[[Exchange], str | None]:
    """Reads the subject of a client certificate, of what a trusted proxy says."""
    if "certificate" not in settings.mode:
        return lambda _exchange: None
    certificate = settings.certificate
    header = certificate.header.lower().encode()
    verify = certificate.verify_header.lower().encode() if certificate.verify_header else None

    def read(exchange: Exchange) -> str | None:
        if not exchange.seam.get("proxy"):
            return None
        if verify is not None and exchange.headers.get(verify) != b"SUCCESS":
            return None
        return exchange.headers.text(header) or None

    return read
