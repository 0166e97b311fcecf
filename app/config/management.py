"""Settings of the port for health and metrics."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from app.config.section import Section


class ManagementSettings(Section):
    """A port of its own for health and metrics, without authentication and in the clear."""

    host: str | None = None
    """Address of that port; 127.0.0.1 where only the port is given."""

    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """TCP port; 0 takes a free one. Not set: there is no such port."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Where to listen; None where nobody wants to."""
        return None if self.port is None else (self.host or "127.0.0.1", self.port)

    @model_validator(mode="after")
    def _a_port(self) -> Self:
        if self.host is not None and self.port is None:
            raise ValueError("host needs a port")
        return self
