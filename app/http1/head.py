"""The head of a request as values: what may be in it, and what it means. No I/O, no state."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from app.domain.errors import Code
from app.http1.refusal import Refused, malformed, too_large
from app.http1.rules import TARGET_BYTES, Rules

HeaderList = list[tuple[bytes, bytes]]

# RFC 3986 section 3.2.2 and 3.2.3: what a name, an address and a port are made of. Nothing else, so that no
# two readers of a Host header can differ about where it ends.
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+;=%:\[\]-]*")

# One JSON object may hold all the message headers of a publish.
_MANY_IN_ONE = b"mq-headers"

# Headers whose value decides how the request is read.
_JUDGED = frozenset({b"host", b"transfer-encoding", b"expect"})

_HOP = frozenset({b"upgrade", b"http2-settings"})

_NO_TUNNEL = Refused(
    405,
    Code.METHOD_NOT_ALLOWED,
    "This is no proxy: CONNECT is not supported.",
    headers=((b"allow", b"GET, HEAD, POST, DELETE, OPTIONS"),),
)


class Target(NamedTuple):
    """A request target: `raw_path` as sent, `path` percent-decoded, `query` without the question mark.

    `authority` is the host of an absolute-form target, which overrules the Host header (RFC 9112 section
    3.2.2), else None.
    """

    raw_path: bytes
    path: str
    query: bytes
    authority: bytes | None = None


def read_target(target: bytes) -> Target:
    """Takes origin-form and absolute-form (RFC 9112 section 3.2); raises Refused for anything else."""
    if len(target) > TARGET_BYTES:
        raise malformed(f"The request target is longer than {TARGET_BYTES} bytes.")
    if b"#" in target:
        raise malformed("A request target has no fragment.")
    authority = None
    if target[:1] != b"/":
        authority, target = _without_authority(target)
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    return Target(raw_path, unquote(path) if "%" in path else path, query, authority)


def _without_authority(target: bytes) -> tuple[bytes, bytes]:
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        raise malformed("The request target is neither a path nor an http URL.")
    authority = re.split(rb"[/?]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    if not authority or not _HOST.fullmatch(authority):
        raise malformed("The request target names no host.")
    return authority, path if path[:1] == b"/" else b"/" + path


def examine(version: str, target: Target, headers: HeaderList, rules: Rules) -> bool:
    """Whether the client waits for 100 Continue; raises Refused where the head breaks a rule.

    `version` is what the parser read, `headers` have lower-case names. The parser itself has refused what
    breaks the grammar and two contradicting lengths; here is what it lets through.
    """
    if version not in {"1.0", "1.1"}:
        raise malformed("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
    if len(headers) > rules.head_lines:
        raise too_large(f"More than {rules.head_lines} header lines.")
    total = len(target.raw_path) + len(target.query)
    judged: list[bytes] = []
    for name, value in headers:
        size = len(name) + len(value)
        total += size
        if size > rules.line_bytes and name != _MANY_IN_ONE:
            raise too_large(f"A header line is longer than {rules.line_bytes} bytes.")
        if name in _JUDGED:
            _judge(name, value, version)
            judged.append(name)
    if total > rules.head_bytes:
        raise too_large(f"The head of the request is longer than {rules.head_bytes} bytes.")
    hosts = judged.count(b"host")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise malformed("A request has exactly one Host header.")
    return b"expect" in judged and version == "1.1"


def _judge(name: bytes, value: bytes, version: str) -> None:
    if name == b"host":
        if not _HOST.fullmatch(value):
            raise malformed("The Host header is not a host.")
    elif name == b"transfer-encoding":
        if version == "1.0" or value.lower() != b"chunked":
            raise malformed("The only transfer encoding is chunked, and only in HTTP/1.1.")
    elif value.lower() != b"100-continue":
        raise malformed("The only expectation is 100-continue.")


def without_upgrade(version: str, method: bytes, target: bytes, headers: HeaderList) -> bytes:
    """The same head without its wish for another protocol, as bytes for a fresh parser.

    A server may ignore Upgrade (RFC 9110 section 7.8). The parser cannot: it ends the message at the head
    and takes the body for the new protocol. Raises Refused for CONNECT, which asks for a tunnel.
    """
    if method == b"CONNECT":
        raise _NO_TUNNEL
    lines = [method, b" ", target, b" HTTP/", version.encode(), b"\r\n"]
    for name, value in headers:
        kept = _without_hops(value) if name == b"connection" else value
        if name not in _HOP and (kept or name != b"connection"):
            lines += (name, b": ", kept, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def _without_hops(value: bytes) -> bytes:
    tokens = (token.strip() for token in value.split(b","))
    return b", ".join(token for token in tokens if token and token.lower() not in _HOP)
