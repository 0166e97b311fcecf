"""The how-tos of tokens and policy: their commands run as printed, one after the other, and print what they show."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.auth.token_file import parse_tokens
from app.cli import cli

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"(?:export \w+=\$\()?mq-gateway (.*?)\)?")


def blocks(name: str) -> list[tuple[str, str]]:
    return _BLOCK.findall((HOW_TO / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "number"), [("api-tokens.md", 8), ("policy.md", 5)])
def test_its_commands_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    monkeypatch.chdir(tmp_path)
    ran, shown = 0, ""
    for kind, text in blocks(name):
        if kind == "yaml":
            Path("gateway.yaml").write_text(text, encoding="utf-8")
        elif kind == "text":
            assert shown == text
        for line in text.splitlines() if kind == "sh" else ():
            command = _COMMAND.fullmatch(line)
            assert command, line
            result = CliRunner().invoke(cli, shlex.split(command[1], comments=True))
            assert result.exit_code == 0, f"{line}: {result.output}"
            assert "warning" not in result.stderr, line
            ran, shown = ran + 1, result.stdout
    assert ran == number


def test_the_file_it_shows_is_one() -> None:
    (text,) = (text for kind, text in blocks("api-tokens.md") if kind == "json")
    (entry,) = parse_tokens("it", text.replace("sha256:…", "sha256:" + "0" * 64).encode())
    assert entry.name == "submitter"
    assert json.loads(text).keys() == {"tokens"}
