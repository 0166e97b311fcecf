"""`mq-gateway token`, as an operator uses it."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.auth.token_file import hash_of, parse_tokens, read_tokens
from app.cli import cli


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["token", *map(str, arguments)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text("services: {demo: {mq_type: Memory}}\nauth: {tokens_file: tokens.json}\n")
    return path


def test_a_token_is_shown_once_and_kept_as_a_hash(config: Path, file: Path) -> None:
    result = run("new", "dash", "--config", config, "--group", "ops", "--group", "ops", "--group", "dev")
    assert result.exit_code == 0
    token = result.stdout.splitlines()[-1]
    assert token.startswith("mqg_")
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (entry,) = read_tokens(file)
    assert (entry.name, entry.principal, entry.hash, entry.groups) == ("dash", "dash", hash_of(token), ("ops", "dev"))
    assert entry.created_at is not None
    assert abs(entry.created_at - time.time()) < 60
    assert entry.expires_at is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("12h", 43_200), ("30d", 2_592_000), ("1w", 604_800)]
)
def test_it_may_end(file: Path, text: str, seconds: int) -> None:
    assert run("new", "dash", "--file", file, "--expires", text).exit_code == 0
    until = read_tokens(file)[0].expires_at
    assert until is not None
    assert abs(until - time.time() - seconds) < 60


def test_it_may_end_at_a_time(file: Path) -> None:
    assert run("new", "dash", "--file", file, "--expires", "2100-01-02T03:04:05Z").exit_code == 0
    assert read_tokens(file)[0].expires_at == 4_102_542_245


@pytest.mark.parametrize("text", ["", "x", "-1d", "1y", "2020-01-01T00:00:00Z", "2100-01-01", "0d", "9999999d"])
def test_an_end_that_is_none(file: Path, text: str) -> None:
    assert run("new", "dash", "--file", file, "--expires", text).exit_code == 2
    assert not file.exists()


@pytest.mark.parametrize("name", ["", "*", "anonymous", "group:x", "a::b", "a/b", "a\nb", "x" * 256, " a"])
def test_names_nobody_can_have(file: Path, name: str) -> None:
    assert run("new", name, "--file", file).exit_code == 2
    assert run("new", "good", "--principal", name, "--file", file).exit_code == 2
    assert not file.exists()


def test_a_name_is_taken_once_and_a_principal_may_have_two(file: Path) -> None:
    assert run("new", "dash", "--file", file).exit_code == 0
    before = file.read_bytes()
    refused = run("new", "dash", "--file", file)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--principal dash" in refused.stderr
    assert file.read_bytes() == before
    assert run("new", "dash-2", "--principal", "dash", "--file", file).exit_code == 0
    assert [entry.principal for entry in read_tokens(file)] == ["dash", "dash"]


def test_for_a_file_that_cannot_be_written(file: Path) -> None:
    result = run("new", "dash", "--print-hash", "--group", "ops")
    entry, token = result.stdout.splitlines()
    (read,) = parse_tokens("it", json.dumps({"tokens": [json.loads(entry)]}).encode())
    assert (read.name, read.hash, read.groups) == ("dash", hash_of(token), ("ops",))
    assert not file.exists()


def test_an_entry_for_another_file_is_not_one_it_has(config: Path, file: Path) -> None:
    assert run("new", "dash", "--print-hash", "--config", config).exit_code == 0
    assert not file.exists()
    run("new", "dash-1", "--principal", "dash", "--file", file)
    before = file.read_bytes()
    refused = run("new", "dash-1", "--print-hash", "--config", config)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "token new OTHER --principal dash\n" in refused.stderr
    assert run("new", "dash-2", "--print-hash", "--file", file).exit_code == 0
    assert file.read_bytes() == before


def test_the_list_has_no_secret(file: Path) -> None:
    run("new", "dash", "--file", file, "--group", "ops")
    run("new", "old", "--principal", "dash", "--file", file)
    text = json.loads(file.read_text())
    text["tokens"][1]["expires_at"] = "2020-01-01T00:00:00Z"
    file.write_text(json.dumps(text))
    shown = run("list", "--file", file)
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[0] == ["NAME", "PRINCIPAL", "GROUPS", "CREATED", "EXPIRES"]
    assert rows[1][:3] == ["dash", "dash", "ops"]
    assert rows[2][-2:] == ["2020-01-01T00:00:00Z", "(expired)"]
    as_json = run("list", "--json", "--file", file)
    listed = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [(each["name"], each["principal"], each["expired"]) for each in listed] == [
        ("dash", "dash", False),
        ("old", "dash", True),
    ]
    for entry in read_tokens(file):
        assert entry.hash[-16:] not in shown.output + as_json.output


def test_revoking(file: Path) -> None:
    run("new", "dash", "--file", file)
    run("new", "other", "--file", file)
    assert run("revoke", "dash", "--file", file).exit_code == 0
    assert [entry.name for entry in read_tokens(file)] == ["other"]
    refused = run("revoke", "othr", "--file", file)
    assert refused.exit_code == 1
    assert "did you mean 'other'?" in refused.stderr


@pytest.mark.parametrize("command", [["list"], ["revoke", "dash"]])
def test_where_there_is_no_file(file: Path, command: list[str]) -> None:
    result = run(*command, "--file", file)
    assert result.exit_code == 1
    assert "no such file; `mq-gateway token new NAME` makes it" in result.stderr
    assert not file.exists()


def test_where_no_file_is_named(tmp_path: Path) -> None:
    assert run("list").exit_code == 2
    assert run("list", "--config", "a.yaml", "--file", "b.json").exit_code == 2
    config = tmp_path / "gateway.yaml"
    config.write_text("services: {demo: {mq_type: Memory}}\n")
    result = run("new", "dash", "--config", config)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "auth.tokens_file is not set" in result.stderr


def test_the_environment_may_name_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQ_GATEWAY_AUTH__TOKENS_FILE", str(file))
    assert run("new", "dash").exit_code == 0
    assert run("revoke", "dash").exit_code == 0
    result = run("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "mq-gateway: there are no tokens\n")


def test_a_file_that_is_broken_stays_as_it_is(file: Path) -> None:
    file.write_text('{"tokens": [{}]}')
    for command in (["new", "dash"], ["list"], ["revoke", "dash"]):
        result = run(*command, "--file", file)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "token 1: its hash" in result.stderr
    assert file.read_text() == '{"tokens": [{}]}'
