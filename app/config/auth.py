"""Settings of who may do what."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.config.jwt import JwtSettings
from app.config.policy import RuleSettings
from app.config.section import PositiveSeconds, Section
from app.domain.principal import check_principal

#: Bytes of the shared secret, at least and at most.
MIN_SECRET, MAX_SECRET = 16, 4096

NONE: Literal["none"] = "none"
Way = Literal["none", "token", "jwt", "certificate"]
# Headers that say something else, or that clients may send for other reasons.
_NO_IDENTITY = frozenset(
    {"host", "authorization", "cookie", "content-type", "content-length", "x-request-id", "forwarded"}
)


def _listed(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value


class CertificateSettings(Section):
    """Client certificates that a proxy of `server.trusted_proxies` has verified, and tells of in headers."""

    header: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9-]+$")] = "X-SSL-Client-S-DN"
    """Header with the subject; what anybody but a trusted proxy sends in it is ignored."""

    verify_header: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9-]+$")] | None = "X-SSL-Client-Verify"
    """Header that says `SUCCESS` where the certificate was verified; null where the proxy sends the subject of none
    other."""

    names: dict[str, str] = Field(default_factory=dict)
    """Subject to principal, as a grid-mapfile has it; see `unlisted` for others."""

    unlisted: bool = False
    """True: a subject that is not in `names` is itself the principal, where it can be one."""

    @field_validator("header", "verify_header")
    @classmethod
    def _own(cls, value: str | None) -> str | None:
        if value is not None and value.lower() in _NO_IDENTITY:
            raise ValueError(f"{value} says something else")
        return value

    @field_validator("names")
    @classmethod
    def _principals(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            check_principal(name)
        return value


class AuthSettings(Section):
    """Who may use the gateway."""

    mode: Annotated[tuple[Way, ...], Field(min_length=1), BeforeValidator(_listed)] = (NONE,)
    """How callers are recognised: `token` (API tokens), `jwt`, `certificate` (told by a trusted proxy), or a list of
    them. `none`: whoever reaches the port may do everything, therefore only on a loopback address or with
    `allow_anonymous`."""

    allow_anonymous: bool = False
    """True: mode `none` also on an address that other machines can reach."""

    tokens_file: Path | None = None
    """File with hashes of API tokens, written by `mq-gateway token`; it may be read-only. Read again when it
    changes."""

    secret_file: Path | None = None
    """File with the secret that all replicas have: 16 to 4096 bytes, such as from `openssl rand -base64 32`; a line end
    at its end is not part of it. It signs leases, sessions, tickets and what replicas say to each other (see
    `server.peers`): whoever has it is a replica. Without it they are good in one process only. Read when the process
    starts."""

    jwt: JwtSettings | None = None
    """How JWTs are verified."""

    certificate: CertificateSettings = Field(default_factory=CertificateSettings)
    """How a trusted proxy tells of client certificates."""

    session_seconds: PositiveSeconds = 43_200.0
    """Longest session of a browser in seconds; it ends no later than the token it was opened with."""

    policy: list[RuleSettings] = Field(default_factory=list)
    """Rules that allow; what none of them allows is denied. Read again when the file changes it is in."""

    hide_forbidden: bool = False
    """True: what a caller may not use is answered as if it did not exist, 404 instead of 403."""

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self.mode == (NONE,)

    @property
    def uses_tokens(self) -> bool:
        return "token" in self.mode

    @property
    def uses_jwt(self) -> bool:
        return "jwt" in self.mode

    @cached_property
    def secret(self) -> bytes | None:
        """What `secret_file` holds, None without one."""
        return None if self.secret_file is None else _read_secret(self.secret_file)

    @field_validator("mode")
    @classmethod
    def _none_or_some(cls, value: tuple[Way, ...]) -> tuple[Way, ...]:
        if len(set(value)) != len(value) or (NONE in value and len(value) > 1):
            raise ValueError("`none`, or each of token, jwt and certificate once")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _ = self.secret
        if "token" in self.mode and self.tokens_file is None:
            raise PydanticCustomError("auth", "mode token needs auth.tokens_file, made with `mq-gateway token new`")
        if "jwt" in self.mode and self.jwt is None:
            raise PydanticCustomError("auth", "mode jwt needs auth.jwt: issuer, audience and keys")
        return self


def _read_secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_SECRET + 3).removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        if MIN_SECRET <= len(secret) <= MAX_SECRET:
            return secret
        reason = f"a secret has {MIN_SECRET} to {MAX_SECRET} bytes"
    raise PydanticCustomError("secret", "secret_file: {path}: {reason}", {"path": str(path), "reason": reason})
