"""Settings of who may do what."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from app.config.section import NOT_SUPPORTED, Section, only

#: Bytes of the shared secret, at least and at most.
MIN_SECRET, MAX_SECRET = 16, 4096


def _refuse_later_modes(value: object) -> object:
    if value in ("token", "jwt") or isinstance(value, list):
        raise PydanticCustomError(NOT_SUPPORTED, "not supported in this version, which knows only `none`")
    return value


class AuthSettings(Section):
    """Who may use the gateway."""

    mode: Annotated[Literal["none"], BeforeValidator(_refuse_later_modes)] = "none"
    """`none`: whoever reaches the port may do everything, therefore only on a loopback address or with
    `allow_anonymous`. `token`, `jwt` and lists of them are not supported in this version."""

    allow_anonymous: bool = False
    """True: mode `none` also on an address that other machines can reach."""

    tokens_file: Annotated[Path | None, only(None)] = None
    """File with hashes of API tokens. Not supported in this version."""

    secret_file: Path | None = None
    """File with the secret that all replicas have: 16 to 4096 bytes, such as from `openssl rand -base64 32`; a line end
    at its end is not part of it. It signs leases and what replicas say to each other (see `server.peers`): whoever has
    it is a replica. Read when the process starts."""

    jwt: Annotated[dict[str, Any] | None, only(None, {})] = Field(default=None, repr=False)
    """How JWTs are verified. Not supported in this version."""

    policy: Annotated[list[dict[str, Any]], only([])] = Field(default_factory=list)
    """Rules that allow. Not supported in this version."""

    @cached_property
    def secret(self) -> bytes | None:
        """What `secret_file` holds, None without one."""
        return None if self.secret_file is None else _read_secret(self.secret_file)

    @model_validator(mode="after")
    def _has_a_secret(self) -> Self:
        _ = self.secret
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
