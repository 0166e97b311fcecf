"""`mq-gateway check`: who may do what, and what a policy may not have meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from tests.unit.auth.jwt_issuer import document

TOKENS = {"tokens": [{"name": "t1", "principal": "dash", "groups": ["ops"], "hash": "sha256:" + "0" * 64}]}
DEMO = {"mq_type": "Memory", "queues": {"jobs": {}}, "topics": {"events": {}}}
RULES = [
    {"principals": ["group:ops"], "allow": ["look"], "uris": ["*"]},
    {"principals": ["*"], "allow": ["publish"], "uris": ["demo::Queues::*"]},
    {"principals": ["claim:vo=lhcb"], "allow": ["subscribe"], "uris": ["demo::Topics::*"]},
    {"principals": ["anonymous"], "allow": ["subscribe"], "uris": ["demo::Topics::events"]},
]


class Site:
    """A configuration in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = folder / "tokens.json"
        self.tokens.write_text(json.dumps(TOKENS))

    def check(self, *arguments: str, server: Any = None, demo: Any = DEMO, **auth: Any) -> Result:
        given = {"mode": "token", "tokens_file": "tokens.json", "policy": RULES, **auth}
        config = self.folder / "gateway.yaml"
        config.write_text(json.dumps({"server": server or {}, "services": {"demo": demo}, "auth": given}))
        return CliRunner().invoke(cli, ["check", "--config", str(config), *arguments])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def allowed(result: Result) -> dict[str, dict[str, int]]:
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {each["mq_uri"]: each["allowed"] for each in found}


@pytest.mark.parametrize(
    ("arguments", "queue", "topic"),
    [
        (["--as", "dash"], {"publish": 2, "look": 1}, {"look": 1}),
        (["--as", "token:dash"], {"publish": 2, "look": 1}, {"look": 1}),
        (["--as", "eve"], {"publish": 2}, {}),
        (["--as", "eve", "--group", "ops"], {"publish": 2, "look": 1}, {"look": 1}),
        (["--as", "eve", "--claim", "vo=lhcb"], {"publish": 2}, {"subscribe": 3}),
        (["--as", "eve", "--claim", "vo=cms", "--claim", "vo=lhcb"], {"publish": 2}, {"subscribe": 3}),
        (["--as", "dash", "--by", "jwt"], {"publish": 2}, {}),
        (["--as", "anonymous"], {}, {"subscribe": 4}),
    ],
    ids=" ".join,
)
def test_what_somebody_may(site: Site, arguments: list[str], queue: object, topic: object) -> None:
    found = allowed(site.check(*arguments, "--json"))
    assert found == {"demo::Queues::jobs": queue, "demo::Topics::events": topic}


def test_for_people(site: Site) -> None:
    result = site.check("--as", "dash", demo={**DEMO, "allow_undeclared": True})
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:3] == ["dash (token, group ops)", "", "demo::Queues::jobs"]
    assert "  publish   allowed, rule 2: * may publish demo::Queues::*" in lines
    assert "  take      denied: no rule allows it" in lines
    assert lines[-3:] == [
        "undeclared destinations of demo",
        "  rule 1: group:ops may look *",
        "  rule 2: * may publish demo::Queues::*",
    ]
    assert site.check("--as", "anonymous").stdout.startswith("anonymous (no credentials)\n")
    assert "whoever reaches the port may do everything" in site.check("--as", "dash", mode="none").stdout


def test_usage(site: Site) -> None:
    assert site.check("--group", "ops").exit_code == 2
    assert site.check("--as", "a::b").exit_code == 2
    assert site.check("--as", "a", "--claim", "vo").exit_code == 2


def warnings(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.removeprefix("mq-gateway: warning: ") for line in result.stderr.splitlines()]


JWT = {"issuer": "i", "audience": "a", "jwks_file": "keys.json", "algorithms": "EdDSA"}


def test_what_may_not_be_meant(site: Site) -> None:
    assert warnings(site.check()) == []
    assert warnings(site.check(mode="none")) == ["auth.policy: not looked at, since auth.mode is none"]
    assert warnings(site.check(policy=[])) == ["auth.policy: without rules nobody may do anything"]
    strange = {"principals": ["*"], "allow": ["look"], "uris": ["dmeo::Topics::*", "de*::Topics::x", "{claims.vo}::*"]}
    assert warnings(site.check(policy=[strange])) == [
        "auth.policy: rule 1: dmeo::Topics::* is of a service that is not configured"
    ]
    anywhere = {"host": "0.0.0.0"}
    assert warnings(site.check(server=anywhere)) == [
        "server.tls: not set; unless a proxy in front speaks TLS, tokens go over the network in the clear"
    ]
    assert warnings(site.check(server={**anywhere, "trusted_proxies": ["10.0.0.1"]})) == []
    site.tokens.unlink()
    (told,) = warnings(site.check())
    assert "nobody has a token; `mq-gateway token new` makes it" in told


def test_names_that_are_known_in_two_ways(site: Site, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(document(_key()))
    rule = {"principals": ["dash", "jwt:eve", "group:x", "*", "anonymous"], "allow": ["look"], "uris": ["*"]}
    assert warnings(site.check(mode=["token", "jwt"], jwt=JWT, policy=[rule])) == [
        "auth.policy: rule 1: dash is whoever has that name, in whichever way; or write token:dash or jwt:dash"
    ]


def _key() -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


def test_broken_files_are_problems(site: Site, tmp_path: Path) -> None:
    site.tokens.write_text("[]")
    result = site.check()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "auth.tokens_file: " in result.stderr
    assert site.check(mode="none").exit_code == 0
    (tmp_path / "keys.json").write_text('{"keys": []}')
    result = site.check(mode="jwt", jwt=JWT)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "auth.jwt.jwks_file: " in result.stderr
