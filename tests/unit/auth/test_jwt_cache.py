"""What is remembered of tokens, and when it is forgotten."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from app.auth.jwks import JwksFile
from app.auth.jwt import JwtVerifier
from app.auth.jwt_cache import VerifiedTokens
from app.auth.jwt_refusal import JwtRefused, Reason
from app.domain.principal import Principal
from tests.unit.auth.jwt_issuer import NOW, Clock, Issuer, claims, document, ed_key, settings_for, verifier

ONE = Issuer("EdDSA", ed_key("one"))
TWO = Issuer("EdDSA", ed_key("two"), kid="k2")


class Gateway:
    """A verifier, its file of keys and its clock."""

    def __init__(self, folder: Path, *keys: dict[str, Any]) -> None:
        self.path = folder / "keys.json"
        self.clock = Clock()
        self.path.write_bytes(document(*keys))
        settings = settings_for(self.path, algorithms=["EdDSA"])
        self.keys = JwksFile(self.path, settings)
        self.verifier = JwtVerifier(settings, self.keys, clock=self.clock)

    def publish(self, *keys: dict[str, Any]) -> bool:
        """Replace the file, as tools do."""
        new = self.path.with_suffix(".new")
        new.write_bytes(document(*keys))
        os.replace(new, self.path)
        return self.keys.reread()


async def test_the_same_token_is_the_same_principal(tmp_path: Path) -> None:
    made = verifier(tmp_path, ONE.jwk(), algorithms=["EdDSA"])
    first, other = ONE.token(), ONE.token(claims(jti="2"))
    assert await made.verify(first) is await made.verify(first)
    assert (await made.verify(other)).credential != (await made.verify(first)).credential


async def test_it_ends_while_it_is_remembered(tmp_path: Path) -> None:
    clock = Clock()
    made = verifier(tmp_path, ONE.jwk(), clock=clock, algorithms=["EdDSA"])
    token = ONE.token(claims(exp=NOW + 10))
    await made.verify(token)
    clock.now += 10
    for _ in range(2):
        with pytest.raises(JwtRefused, match=Reason.EXPIRED):
            await made.verify(token)


async def test_a_key_more_changes_nothing(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, ONE.jwk())
    known = await gateway.verifier.verify(ONE.token())
    assert gateway.publish(ONE.jwk(), TWO.jwk())
    assert await gateway.verifier.verify(ONE.token()) is known
    assert gateway.verifier.holds(known)
    assert gateway.verifier.holds(await gateway.verifier.verify(TWO.token()))


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        ([TWO.jwk()], "unknown_key"),
        ([ONE.jwk(kid="renamed"), TWO.jwk()], "unknown_key"),
        ([Issuer("EdDSA", ed_key("changed")).jwk(), TWO.jwk()], "signature"),
        ([ONE.jwk(use="enc"), TWO.jwk()], "unknown_key"),
    ],
    ids=["withdrawn", "renamed", "changed", "for something else now"],
)
async def test_a_token_goes_with_its_key(tmp_path: Path, left: list[dict[str, Any]], reason: str) -> None:
    gateway = Gateway(tmp_path, ONE.jwk(), TWO.jwk())
    one, two = [await gateway.verifier.verify(issuer.token()) for issuer in (ONE, TWO)]
    assert gateway.publish(*left)
    assert (gateway.verifier.holds(one), gateway.verifier.holds(two)) == (False, True)
    with pytest.raises(JwtRefused, match=reason):
        await gateway.verifier.verify(ONE.token())
    # Who was remembered is recognised anew, so that nothing that was decided with the old keys stays.
    assert await gateway.verifier.verify(TWO.token()) is not two


async def test_others_are_not_vouched_for(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, ONE.jwk())
    known = await gateway.verifier.verify(ONE.token())
    key = known.credential.split(":")[1]
    for credential in ("", "jwt", "jwt:", f"token:{key}", "jwt:k1:0"):
        assert not gateway.verifier.holds(Principal(name="alice", credential=credential))


async def test_refusals_are_not_remembered(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, ONE.jwk())
    with pytest.raises(JwtRefused, match=Reason.UNKNOWN_KEY):
        await gateway.verifier.verify(TWO.token())
    gateway.publish(ONE.jwk(), TWO.jwk())
    assert (await gateway.verifier.verify(TWO.token())).name == "alice"


async def test_a_label_is_given(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "keys", algorithms=["EdDSA"])
    (tmp_path / "keys").write_bytes(document(ONE.jwk()))
    made = JwtVerifier(settings, JwksFile(tmp_path / "keys", settings), clock=Clock(), label=lambda name: f"jwt:{name}")
    assert (await made.verify(ONE.token())).label == "jwt:alice"


def _principals(count: int) -> list[Principal]:
    return [Principal(name=f"p{number}") for number in range(count)]


def test_the_one_not_used_for_longest_goes_first() -> None:
    cache = VerifiedTokens(tokens=2, size=1000)
    a, b, c = _principals(3)
    cache.keep(b"a", a, 10)
    cache.keep(b"b", b, 10)
    assert cache.find(b"a") is a
    cache.keep(b"c", c, 10)
    assert (cache.find(b"a"), cache.find(b"b"), cache.find(b"c")) == (a, None, c)
    assert (len(cache), cache.size) == (2, 20)


def test_bytes_are_bounded_too() -> None:
    cache = VerifiedTokens(tokens=10, size=100)
    for number, principal in enumerate(_principals(5)):
        cache.keep(bytes([number]), principal, 40)
    assert (len(cache), cache.size) == (2, 80)
    cache.keep(bytes([4]), Principal(name="again"), 20)
    assert (len(cache), cache.size) == (2, 60)
    cache.drop(b"nothing")
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)
