"""The file of tokens: what is in it, and how it is changed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import struct
import threading
from collections.abc import Callable
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
    "an end with a space in it": ([{**GOOD, "expires_at": "2026-01-02 03:04:05Z"}], "RFC 3339"),
    "an end before all time": ([{**GOOD, "expires_at": "0001-01-01T00:00:00+14:00"}], "RFC 3339"),
    "a group with a line end": ([{**GOOD, "groups": ["a\n"]}], "group"),
    "a group that is no text": ([{**GOOD, "groups": ["\ud800"]}], "group"),
    "too many groups": ([{**GOOD, "groups": ["a"] * 65}], "groups"),
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


def test_a_folder_that_cannot_be_synced_takes_nothing_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        really(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    change_tokens(path, lambda _: [entry("a", 1)])
    assert [each.name for each in read_tokens(path)] == ["a"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EBUSY, errno.EACCES])
def test_what_cannot_be_written_says_the_way_out(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(TokenFileError, match=f"{os.strerror(number)}.*--print-hash"):
        change_tokens(path, lambda _: [entry("a", 1)])
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else")
def test_another_owner_stays_the_owner_and_is_so_before_the_rights_are_given(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_tokens(path, lambda _: [entry("a", 1)])
    os.chown(path, 1, 2)
    path.chmod(0o640)
    done: list[str] = []
    for name in ("fchown", "fchmod"):
        monkeypatch.setattr(os, name, _noted(done, getattr(os, name)))
    change_tokens(path, lambda before: [*before, entry("b", 2)])
    now = path.stat()
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (1, 2, 0o640)
    assert done == ["fchmod 384", "fchown 1", "fchmod 416"]


def _noted(done: list[str], call: Callable[..., None]) -> Callable[..., None]:
    def noted(descriptor: int, *arguments: int) -> None:
        done.append(f"{call.__name__} {arguments[0]}")
        call(descriptor, *arguments)

    return noted


#: Version 2; the owner rw, user 12 r, the group nothing, the mask r, others nothing (acl(5)).
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, who)
    for tag, rights, who in (
        (1, 6, 0xFFFFFFFF),
        (2, 4, 12),
        (4, 0, 0xFFFFFFFF),
        (16, 4, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)


def test_an_access_control_list_stays(path: Path) -> None:
    change_tokens(path, lambda _: [entry("a", 1)])
    try:
        os.setxattr(path, "system.posix_acl_access", ACL)
    except OSError:
        pytest.skip("this file system has none")
    change_tokens(path, lambda before: [*before, entry("b", 2)])
    assert os.getxattr(path, "system.posix_acl_access") == ACL


def test_times_are_read_in_either_case_and_written_as_they_were(path: Path) -> None:
    times = {"created_at": "2026-01-02t03:04:05z", "expires_at": "9999-12-31T23:59:59.25Z"}
    path.write_bytes(of({**GOOD, **times}, {"name": "e", "hash": "sha256:" + "1" * 64}))
    change_tokens(path, lambda before: before)
    first, second = json.loads(path.read_text())["tokens"]
    assert (first["created_at"], first["expires_at"]) == ("2026-01-02T03:04:05Z", "9999-12-31T23:59:59.250000Z")
    assert second.keys() == {"name", "hash"}


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
