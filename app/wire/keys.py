"""Keys for one purpose each, from the secret that replicas share: what signs one thing is no use for another."""

from __future__ import annotations

import hashlib
import hmac
import secrets


def derived(secret: bytes | None, purpose: str) -> bytes:
    """The key of 32 bytes for a purpose; where nothing is shared, one that only this process has."""
    if secret is None:
        return secrets.token_bytes(32)
    return hmac.digest(secret, f"mq-gateway {purpose}".encode(), hashlib.sha256)
