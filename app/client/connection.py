"""One gateway as seen from outside: its address, the token, and what it says when it refuses."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

import httpx

from app.domain.uri import MqUri

#: Bytes of an answer that are read: ours are smaller, also a report with a thousand failures.
MAX_ANSWER_BYTES = 4 << 20
#: Seconds to reach the gateway.
CONNECT_SECONDS = 10.0

_OUTCOMES = {
    "not_sent": "nothing was sent",
    "rejected": "the broker did not take it",
    "unknown": "it may or may not have been delivered",
}


class ClientError(Exception):
    """The gateway refused or could not be reached; `str()` is one line for a person.

    `retriable`: the same request may work later, after `retry_after` seconds where the gateway said so.
    """

    def __init__(self, text: str, *, retriable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(printable(text))
        self.retriable = retriable
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Target:
    """Which gateway, and the token to show it."""

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        """The address without path, user or password, for messages."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    def resource(self, uri: MqUri, *more: str) -> str:
        """The URL of a destination, every part percent-encoded."""
        parts = (uri.service, uri.type.value, uri.name, *more)
        return "/".join((self.url.rstrip("/"), "mq", *(quote(part, safe="") for part in parts)))

    def status(self, service: str | None) -> str:
        """The URL of what there is to see of all services, or of one."""
        return "/".join((self.url.rstrip("/"), "mq", *([] if service is None else [quote(service, safe="")])))

    @property
    def joint_events(self) -> str:
        """The URL of the stream of several destinations."""
        return f"{self.url.rstrip('/')}/events"

    def headers(self) -> dict[str, str]:
        """What every request says."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def open(self, timeout: float) -> httpx.Client:
        """An HTTP client that waits `timeout` seconds for bytes, and asks no proxy for this very machine."""
        limits = httpx.Timeout(timeout, connect=CONNECT_SECONDS)
        trust_env = not _is_local(self.url)
        return httpx.Client(timeout=limits, headers=self.headers(), trust_env=trust_env, verify=_verify(self.url))


def _verify(url: str) -> ssl.SSLContext | bool:
    """The authorities in SSL_CERT_FILE or SSL_CERT_DIR, else the usual ones; also for this machine.

    Raises ClientError where the file is none. Without TLS nothing is read.
    """
    if not url.startswith("https:"):
        return True
    try:
        return httpx.create_ssl_context(trust_env=True)
    except OSError as error:
        raise ClientError(f"SSL_CERT_FILE cannot be used: {error.strerror or error}") from None


def check_url(url: str) -> str:
    """The URL if a gateway can be at it; raises ValueError with a sentence."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("is not a URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("must begin with http:// or https:// and a host")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("must have no user, query or fragment")
    return url


def check_token(token: str) -> str:
    """The token if it can be sent in a header; raises ValueError with a sentence that does not show it."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("must be visible ASCII characters")
    return token


def _is_local(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def printable(text: str) -> str:
    """One line without control characters: what another machine says must not steer a terminal (CWE-150)."""
    return "".join(char if char.isprintable() else " " for char in text)


def read_answer(response: httpx.Response, most: int | None = None) -> bytes:
    """The body of a streamed answer; raises ClientError where it has more than `most` bytes, of an answer's size."""
    most = MAX_ANSWER_BYTES if most is None else most
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > most:
            raise ClientError(f"{response.status_code}: the answer is too long for a gateway's")
    return bytes(body)


def refusal(response: httpx.Response, body: bytes | None = None) -> ClientError:
    """What a 4xx or 5xx says, from its problem document (RFC 9457) or, from a proxy, its status alone.

    `body`: what was read of it already.
    """
    problem = parse_object(read_answer(response) if body is None else body)
    status = response.status_code
    if "code" not in problem:
        return ClientError(f"{status} {response.reason_phrase}: not an answer of mq-gateway", retriable=status >= 500)
    outcome = _OUTCOMES.get(str(problem.get("outcome")))
    text = f"{status} {problem['code']}: {problem.get('detail') or problem.get('title')}"
    return ClientError(
        f"{text} ({outcome})" if outcome else text,
        retriable=problem.get("retriable") is True,
        retry_after=_seconds(response.headers),
    )


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object, or an empty one for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def unreachable(target: Target, error: httpx.TransportError) -> ClientError:
    """A connection that failed, in words."""
    reason = str(error) or type(error).__name__
    hint = "; is `mq-gateway serve` running there?" if isinstance(error, httpx.ConnectError) else ""
    return ClientError(f"{target.origin} cannot be reached: {reason}{hint}", retriable=True)
