"""Seals: how replicas that share a secret know each other's words. Pure: key, bytes and time in, text or a verdict out.

A question's seal is `<Unix milliseconds>.<nonce>.<SHA-256 of the body>.<signature of these>`, so that a question
without a good one is refused before its body is read. An answer's is a signature over the question's seal and the
answer's body: nobody else can answer, and no answer fits another question. The parts are base64url without padding
(RFC 4648 section 5).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal

#: The header of both, in lower case.
HEADER = "mq-peer"
#: Seconds that a question is good for, and by which two replicas' clocks may differ.
GOOD_FOR = 60.0
_NONCE_BYTES = 12
_SEAL = re.compile(r"([0-9]{1,15})\.([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})", re.ASCII)
# Another version that says things otherwise signs otherwise.
_QUESTION, _ANSWER = b"question 1\n", b"answer 1\n"

#: Why a seal is refused: the closed set of `mq_gateway_auth_failures_total{reason}` for peers.
#: `peer_seal`: none, or not signed with our key; `peer_clock`: signed, and too old or from the future;
#: `peer_body`: the body is another one.
Flaw = Literal["peer_seal", "peer_clock", "peer_body"]


class SealError(Exception):
    """The seal is not good for this; `flaw` says why."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw)
        self.flaw = flaw


@dataclass(frozen=True, slots=True)
class Seal:
    """The seal of a question that is in time and signed with our key."""

    text: str
    digest: str

    def check(self, body: bytes) -> None:
        """Raises SealError unless it is the seal of this body."""
        if not hmac.compare_digest(_digest(body), self.digest):
            raise SealError("peer_body")


def seal(key: bytes, body: bytes, now: float) -> str:
    """The seal of a question asked at `now` (Unix time)."""
    signed = f"{int(now * 1000)}.{_encode(secrets.token_bytes(_NONCE_BYTES))}.{_digest(body)}"
    return f"{signed}.{_sign(key, _QUESTION + signed.encode())}"


def opened(key: bytes, text: str, now: float) -> Seal:
    """The seal behind a header's text; raises SealError."""
    found = _SEAL.fullmatch(text)
    if found is None:
        raise SealError("peer_seal")
    at, _nonce, digest, signature = found.groups()
    signed = text.rpartition(".")[0]
    if not hmac.compare_digest(_sign(key, _QUESTION + signed.encode()), signature):
        raise SealError("peer_seal")
    if abs(now - int(at) / 1000) > GOOD_FOR:
        raise SealError("peer_clock")
    return Seal(text, digest)


def answer_seal(key: bytes, question: str, body: bytes) -> str:
    """The seal of the answer to the question with that seal."""
    return _sign(key, _ANSWER + question.encode() + b"\n" + body)


def is_answer(key: bytes, question: str, body: bytes, text: str) -> bool:
    """Whether `text` is the seal of this answer to that question."""
    return text.isascii() and hmac.compare_digest(answer_seal(key, question, body), text)


def _digest(body: bytes) -> str:
    return _encode(hashlib.sha256(body).digest())


def _sign(key: bytes, data: bytes) -> str:
    return _encode(hmac.digest(key, data, hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
