"""Why a JWT is not taken."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """What is wrong with a token: a closed set, fit for a label."""

    TOO_LONG = "too_long"
    #: No compact JWS of a JSON object (RFC 7515 section 7.1), or one with extensions that are not known here.
    MALFORMED = "malformed"
    #: `typ` says that it is another kind of JWT (RFC 8725 section 3.11), such as a logout token.
    KIND = "kind"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    #: A claim is missing, of a wrong type, or names nobody a policy could speak of.
    CLAIMS = "claims"


class JwtRefused(Exception):
    """The token is not taken."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason
