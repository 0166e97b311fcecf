"""The file of tokens: what is in it, and how it is changed."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from app.auth.token_change import change_tokens
from app.auth.token_file import (
    MAX_BYTES,
    NoTokenFileError,
    TokenEntry,
    TokenFileError,
    new_token,
    parse_tokens,
    read_tokens,
)

HASH = "sha256:" + "0" * 64
SECRET_LOOKING = "hunter2hunter2"


def entry(name: str, number: int = 0) -> TokenEntry:
    return TokenEntry(name=name, principal=name, hash=f"sha256:{number:064x}")


def of(*tokens: object) -> bytes:
    return json.dumps({"tokens": tokens}).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def test_tokens_are_long_and_never_the_same() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert {len(token) for token in made} == {len("mqg_") + 43}


def test_what_stands_in_a_file() -> None:
    full = {
        "name": "d",
        "principal": "dash",
        "hash": HASH,
        "groups": ["a", "b"],
        "created_at": "2026-01-02T03:04:05Z",
        "expires_at": "2026-01-02T04:04:05.5+01:00",
    }
    (read,) = parse_tokens("it", of(full))
    assert read == TokenEntry(
        name="d", principal="dash", hash=HASH, groups=("a", "b"), created_at=1767323045, expires_at=1767323045.5
    )
    assert read.has_expired(1767323045.5)
    assert not read.has_expired(1767323045)
    (plain,) = parse_tokens("it", of({"name": "d", "hash": HASH}))
    assert (plain.principal, plain.groups, plain.expires_at) == ("d", (), None)
    assert not plain.has_expired(1e12)


GOOD = {"name": "d", "hash": HASH}
BAD: dict[str, tuple[Any, str]] = {
    "no object": ([5], "is not an object"),
    "no name": ([{"hash": HASH}], "name"),
    "a number for a name": ([{**GOOD, "name": 5}], "name"),
    "no hash": ([{"name": "d"}], "hash"),
    "the token itself": ([{**GOOD, "hash": SECRET_LOOKING}], "its hash is not"),
    "a short hash": ([{**GOOD, "hash": "sha256:00"}], "its hash is not"),
    "a hash in capitals": ([{**GOOD, "hash": HASH.upper()}], "its hash is not"),
    "an unknown member": ([{**GOOD, SECRET_LOOKING: 1}], "members other than"),
    "groups are text": ([{**GOOD, "groups": "a"}], "groups"),
    "a group is a number": ([{**GOOD, "groups": [1]}], "group"),
    "a group is empty": ([{**GOOD, "groups": [""]}], "group"),
    "an end without a zone": ([{**GOOD, "expires_at": "2026-01-02T03:04:05"}], "RFC 3339"),
    "an end that is a date": ([{**GOOD, "expires_at": "2026-01-02"}], "RFC 3339"),
    "an end that is a number": ([{**GOOD, "expires_at": 5}], "RFC 3339"),
    "two of a name": ([GOOD, {**GOOD, "hash": "sha256:" + "1" * 64}], "the same name"),
    "two of a hash": ([GOOD, {**GOOD, "name": "e"}], "the same hash"),
    "nobody's name": ([{**GOOD, "name": "*"}], "a principal"),
    "anonymous": ([{**GOOD, "principal": "anonymous"}], "anonymous"),
    "a group's name": ([{**GOOD, "principal": "group:a"}], "does not begin with"),
    "a way's name": ([{**GOOD, "name": "jwt:a"}], "does not begin with"),
}


@pytest.mark.parametrize(("tokens", "reason"), BAD.values(), ids=BAD)
def test_what_is_refused(tokens: list[object], reason: str) -> None:
    with pytest.raises(TokenFileError, match=reason) as refused:
        parse_tokens("it", of(*tokens))
    assert SECRET_LOOKING not in str(refused.value)


@pytest.mark.parametrize("data", [b"{", b"[]", b"5", b'{"tokens": {}}', b'{"tokens": [' + b"[" * 100_000, b"\xff"])
def test_what_is_no_file_of_tokens(data: bytes) -> None:
    with pytest.raises(TokenFileError):
        parse_tokens("it", data)


def test_a_file_that_is_no_file(tmp_path: Path, path: Path) -> None:
    with pytest.raises(NoTokenFileError, match="token new"):
        read_tokens(path)
    with pytest.raises(TokenFileError):
        read_tokens(tmp_path)
    os.mkfifo(path)
    with pytest.raises(TokenFileError, match="not a regular file"):
        read_tokens(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(TokenFileError, match="larger than"):
        read_tokens(path)


def test_a_change_keeps_what_is_there(path: Path) -> None:
    change_tokens(path, lambda before: [*before, entry("a", 1)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    change_tokens(path, lambda before: [*before, entry("b", 2)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in read_tokens(path)] == ["a", "b"]
    assert os.listdir(path.parent) == [path.name]


def test_a_change_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_tokens(path, lambda _: [entry("a", 1)])
    before = path.read_bytes()
    with pytest.raises(TokenFileError, match="the same name"):
        change_tokens(path, lambda there: [*there, entry("a", 2)])

    def broken(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(TokenFileError, match="No space left"):
        change_tokens(path, lambda there: [*there, entry("b", 2)])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_link_stays_one(tmp_path: Path, path: Path) -> None:
    real = tmp_path / "real.json"
    path.symlink_to(real)
    change_tokens(path, lambda _: [entry("a")])
    assert path.is_symlink()
    assert [each.name for each in read_tokens(real)] == ["a"]
    round_ = tmp_path / "round"
    round_.symlink_to(round_)
    with pytest.raises(TokenFileError):
        change_tokens(round_, lambda _: [])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match="there is no folder"):
        change_tokens(tmp_path / "no" / "tokens.json", lambda _: [])


def test_writers_wait_for_each_other(path: Path) -> None:
    def add(number: int) -> None:
        change_tokens(path, lambda before: [*before, entry(f"n{number}", number)])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.name for each in read_tokens(path)} == {f"n{number}" for number in range(8)}


def test_no_writer_waits_for_ever(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(TokenFileError, match="holds the lock"):
            change_tokens(path, lambda _: [], lock_seconds=0.05)
    finally:
        os.close(folder)
    assert not path.exists()
