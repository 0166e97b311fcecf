"""Tokens in memory: whose one is, and what stays the same when the file changes."""

from __future__ import annotations

from pathlib import Path

from app.auth.token_file import TokenEntry, hash_of
from app.auth.tokens import Tokens

TOKEN = "mqg_" + "x" * 43


def entry(token: str = TOKEN, name: str = "dash", **more: object) -> TokenEntry:
    return TokenEntry(**{"name": name, "principal": name, "hash": hash_of(token), **more})  # type: ignore[arg-type]


def tokens(*entries: TokenEntry, label: str = "{}") -> Tokens:
    made = Tokens(Path("tokens.json"), label)
    made.adopt(list(entries))
    return made


def test_whose_a_token_is() -> None:
    made = tokens(entry(groups=("ops",), expires_at=5.0), entry("mqg_other", "other"), label="token:{}")
    found = made.find(TOKEN)
    assert found is not None
    assert (found.name, found.way, found.label, found.until) == ("dash", "token", "token:dash", 5.0)
    assert found.groups == {"ops"}
    assert made.current(found.credential) is found
    assert TOKEN not in repr(found)
    assert len(made) == 2


def test_what_is_nearly_a_token() -> None:
    made = tokens(entry())
    wrong = [TOKEN[:-1], TOKEN + "x", TOKEN.upper(), f" {TOKEN}", "", hash_of(TOKEN), hash_of(TOKEN)[7:], "\ud800"]
    assert [made.find(each) for each in wrong] == [None] * len(wrong)


def test_what_stays_as_it_was_is_the_same_principal() -> None:
    made = tokens(entry())
    before = made.find(TOKEN)
    made.adopt([entry("mqg_other", "other"), entry()])
    assert made.find(TOKEN) is before
    made.adopt([entry(groups=("ops",))])
    assert made.find(TOKEN) is not before
    assert before is not None
    assert made.current(before.credential) is made.find(TOKEN), "the same credential, with other groups"


def test_another_token_of_the_same_name_is_another_credential() -> None:
    made = tokens(entry())
    before = made.find(TOKEN)
    made.adopt([entry("mqg_other")])
    assert made.find(TOKEN) is None
    assert before is not None
    assert made.current(before.credential) is None
