"""Stands for the verifier."""

from __future__ import annotations

from app.config.jwt import JwtSettings
from app.domain.principal import Principal
from app.telemetry.metrics import Metrics


class JwtRefused(Exception):
    reason = ""


class JwtVerifier:
    def __init__(self, settings: JwtSettings | None, metrics: Metrics, label: str) -> None:
        pass

    async def verify(self, token: str) -> Principal:
        raise JwtRefused

    def holds(self, principal: Principal) -> bool:
        return False
