"""Keys for one purpose each."""

from __future__ import annotations

from app.wire.keys import derived


def test_a_purpose_has_its_own_key_and_replicas_have_the_same() -> None:
    assert derived(b"secret", "leases") == derived(b"secret", "leases")
    assert len({derived(b"secret", "leases"), derived(b"secret", "peers"), derived(b"other", "leases")}) == 3
    assert len(derived(b"secret", "leases")) == 32


def test_without_a_secret_nobody_else_has_the_key() -> None:
    assert derived(None, "leases") != derived(None, "leases")
    assert len(derived(None, "leases")) == 32
