"""Settings of the gateway's own HTTPS."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from app.config.section import ReadableFile, Section


class ServerTlsSettings(Section):
    """TLS of the gateway itself: set both files, and its address speaks HTTPS and nothing else."""

    cert_file: ReadableFile | None = None
    """PEM file with the certificate and, after it, those between it and the authority's. Read anew by itself when it
    changes."""

    key_file: ReadableFile | None = None
    """PEM file with its key, which must have no pass phrase. Read anew by itself when it changes."""

    min_version: Literal["1.2", "1.3"] = "1.2"
    """The lowest version of TLS that is spoken."""

    hsts_seconds: Annotated[int, Field(ge=0, le=63_072_000)] = 0
    """Seconds for which browsers shall use this name with HTTPS only (Strict-Transport-Security); 0 does not say so."""

    @property
    def is_on(self) -> bool:
        """Whether the gateway speaks HTTPS."""
        return self.cert_file is not None

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if (self.cert_file is None) is not (self.key_file is None):
            raise ValueError("cert_file and key_file need each other")
        if self.hsts_seconds and not self.is_on:
            raise ValueError("hsts_seconds is for HTTPS, which needs cert_file and key_file")
        return self
