"""Settings of who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from app.config.section import NOT_SUPPORTED, Section, only


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

    secret_file: Annotated[Path | None, only(None)] = None
    """File with the key that signs sessions and tickets. Not supported in this version."""

    jwt: Annotated[dict[str, Any] | None, only(None, {})] = Field(default=None, repr=False)
    """How JWTs are verified. Not supported in this version."""

    policy: Annotated[list[dict[str, Any]], only([])] = Field(default_factory=list)
    """Rules that allow. Not supported in this version."""
