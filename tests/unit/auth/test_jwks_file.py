"""Keys in a file: read when it is opened and when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.auth.jwks import JwksFile, UnusableSet, open_keys
from app.telemetry.metrics import Metrics
from tests.unit.auth.jwt_issuer import document, ed_key, jwk, settings_for

ONE = jwk(ed_key("one"), "EdDSA", "one")
TWO = jwk(ed_key("two"), "EdDSA", "two")
SECRET = "bm90LXRvLWJlLXRvbGQ"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "keys.json"
    made.write_bytes(document(ONE))
    return made


def opened(path: Path) -> JwksFile:
    found = open_keys(settings_for(path, algorithms=["EdDSA"]), Metrics())
    assert isinstance(found, JwksFile)
    return found


def replace(path: Path, text: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(text)
    os.replace(new, path)


def kids(keys: JwksFile) -> list[str | None]:
    return [key.kid for key in keys.current().keys]


async def test_it_is_read_again(path: Path) -> None:
    keys = opened(path)
    assert not keys.reread()
    replace(path, document(TWO))
    assert not await keys.renewed()
    assert kids(keys) == ["one"]
    assert keys.reread()
    assert kids(keys) == ["two"]


BAD: dict[str, bytes] = {
    "half of it": document(ONE)[:20],
    "no key that can be used": document({"kty": "oct", "k": SECRET}),
    "empty": b"",
    "too many keys": document(*[{**ONE, "kid": str(number)} for number in range(65)]),
    "too long": document(ONE).ljust(300_000),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_one_changes_nothing(path: Path, text: bytes) -> None:
    keys = opened(path)
    replace(path, text)
    with pytest.raises(UnusableSet, match=r"keys\.json: ") as refused:
        keys.reread()
    assert SECRET not in str(refused.value)
    assert kids(keys) == ["one"]
    replace(path, document(ONE, TWO))
    assert keys.reread()


def test_one_that_vanishes_changes_nothing(path: Path) -> None:
    keys = opened(path)
    path.unlink()
    with pytest.raises(UnusableSet, match="No such file"):
        keys.reread()
    assert kids(keys) == ["one"]


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_one_is_not_opened(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    with pytest.raises(UnusableSet, match=r"keys\.json: ") as refused:
        opened(path)
    assert SECRET not in str(refused.value)


def test_one_that_is_not_there_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(UnusableSet, match="No such file"):
        opened(tmp_path / "nothing")


def test_what_is_left_out_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(document(ONE, {**TWO, "use": "enc"}))
    opened(path)
    assert "key 2 ('two') is not used: its use is not sig" in caplog.text
