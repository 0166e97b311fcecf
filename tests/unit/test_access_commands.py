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
        self.tokens.chmod(0o600)

    def check(self, *arguments: str, server: Any = None, demo: Any = DEMO, **auth: Any) -> Result:
        given = {"mode": "token", "tokens_file": "tokens.json", "policy": RULES, **auth}
        config = self.folder / "gateway.yaml"
        config.write_text(json.dumps({"server": server or {}, "services": {"demo": demo}, "auth": given}))
        return CliRunner().invoke(cli, ["check", "--config", str(config), *arguments])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def allowed(result: Result) -> dict[str, dict[str, int]]:
    return {each["mq_uri"]: each["allowed"] for each in objects(result)}


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


def test_where_nobody_is_asked_every_answer_says_so(site: Site) -> None:
    demo = {**DEMO, "topics": {"events": {"subscriptions": ["a"]}}, "allow_undeclared": True}
    found = objects(site.check("--as", "dash", "--json", mode="none", demo=demo))
    queue = {"publish": None, "take": None, "look": None, "admin": None}
    assert found == [
        {"mq_uri": "demo::Queues::jobs", "allowed": queue, "denied": []},
        {"mq_uri": "demo::Topics::events", "allowed": {**queue, "subscribe": None}, "denied": []},
        {"service": "demo", "undeclared": []},
    ]
    shown = site.check("--as", "dash", mode="none", demo=demo)
    assert shown.stdout.count("since auth.mode is none whoever reaches the port may do everything") == 10
    assert "denied" not in shown.stdout


def test_only_a_durable_subscription_is_taken_from(site: Site) -> None:
    durable = {**DEMO, "topics": {"events": {}, "kept": {"subscriptions": ["archiver"]}}}
    found = {each["mq_uri"]: each["denied"] for each in objects(site.check("--as", "eve", "--json", demo=durable))}
    assert found["demo::Topics::events"] == ["publish", "subscribe", "look", "admin"]
    assert found["demo::Topics::kept"] == ["publish", "take", "subscribe", "look", "admin"]


def test_only_rules_that_reach_a_service_are_told_of_what_is_undeclared(site: Site) -> None:
    rules = [
        {"principals": ["*"], "allow": ["publish"], "uris": ["other::*"]},
        {"principals": ["*"], "allow": ["publish"], "uris": ["other::*", "d*s"]},
        {"principals": ["eve"], "allow": ["publish"], "uris": ["*"]},
    ]
    open_to_more = {**DEMO, "allow_undeclared": True}
    told = objects(site.check("--as", "dash", "--json", demo=open_to_more, policy=rules))[-1]
    assert told == {"service": "demo", "undeclared": [2]}
    shown = site.check("--as", "dash", demo=open_to_more, policy=rules[:1]).stdout
    assert shown.endswith("\nundeclared destinations of demo\n  denied: no rule allows anything with them\n")


def test_groups_come_from_good_tokens_and_are_told(site: Site) -> None:
    zero = "sha256:" + "0" * 63
    more = [
        {
            "name": "t2",
            "principal": "dash",
            "groups": ["gone"],
            "hash": zero + "2",
            "expires_at": "2020-01-01T00:00:00Z",
        },
        {"name": "dash", "hash": zero + "3"},
        {"name": "eve", "groups": ["hers"], "hash": zero + "4"},
    ]
    site.tokens.write_text(json.dumps({"tokens": [*TOKENS["tokens"], *more]}))
    result = site.check("--as", "dash")
    assert result.stdout.startswith("dash (token, group ops)\n")
    assert result.stderr.splitlines() == [
        "mq-gateway: token t1 of dash: ops",
        "mq-gateway: token t2 of dash has expired",
        "mq-gateway: token dash of dash: no groups",
    ]


def test_groups_of_a_jwt_are_one_of_its_claims(site: Site, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(document(_key()))
    jwt = {**JWT, "groups_claim": "roles"}
    found = allowed(site.check("--as", "eve", "--claim", "roles=ops", "--json", mode="jwt", jwt=jwt))
    assert found["demo::Topics::events"] == {"look": 1}
    result = site.check("--as", "token:dash", "--json", mode="jwt", jwt=jwt)
    assert "nobody is recognised by token, as auth.mode is jwt" in result.stderr


def test_usage(site: Site) -> None:
    assert site.check("--as", "dash", "--connect").exit_code == 2
    assert site.check("--as", "anonymous", "--group", "ops").exit_code == 2
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
    for mode, what in ((0o644, "can read"), (0o666, "can write"), (0o602, "can write")):
        site.tokens.chmod(mode)
        (told,) = warnings(site.check())
        assert f"everybody on this machine {what}" in told
    site.tokens.chmod(0o640)
    assert warnings(site.check()) == []
    assert warnings(site.check(mode="certificate")) == [
        "server.trusted_proxies: empty, so that nobody is known by a certificate: no proxy's word counts"
    ]
    secret = site.folder / "secret"
    secret.write_bytes(b"x" * 32)
    secret.chmod(0o644)
    (told,) = warnings(site.check(secret_file="secret"))
    assert told.startswith("auth.secret_file: everybody on this machine can read or write ")
    secret.chmod(0o600)
    assert warnings(site.check(secret_file="secret")) == []
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
