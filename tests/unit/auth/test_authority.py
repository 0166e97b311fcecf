"""Who somebody is, and whether that still holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.auth.authority import Authority, Shown
from app.config.settings import Settings
from app.domain.errors import Forbidden, InvalidCredentials, Unauthenticated, UnknownDestination
from app.domain.principal import ANONYMOUS, Principal, Verb
from app.domain.uri import MqUri
from app.telemetry.metrics import Metrics
from tests.e2e.callers import POLICY, Callers

NEWS = MqUri.parse("demo::Topics::events")
READERS = [{"principals": ["group:readers", "claim:vo=x"], "allow": ["subscribe"], "uris": ["demo::*"]}]


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    return Callers(tmp_path)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def _authority(metrics: Metrics, callers: Callers, **auth: Any) -> Authority:
    authority = Authority(Settings.model_validate({"auth": callers.auth(**auth)}), metrics)
    _read(authority)
    return authority


def _read(authority: Authority) -> None:
    assert authority.tokens is not None
    authority.tokens.adopt(authority.tokens.read())
    authority.lasting.review()


async def _refusal(authority: Authority, shown: Shown) -> str:
    with pytest.raises(InvalidCredentials) as refused:
        await authority.identify(shown)
    return refused.value.reason


def _counted(metrics: Metrics) -> Iterator[tuple[str, float]]:
    for family in metrics.auth_failures.collect():
        for sample in family.samples:
            if sample.name.endswith("_total") and sample.value:
                yield sample.labels["reason"], sample.value


async def test_where_nobody_is_asked_everybody_is_nobody() -> None:
    authority = Authority(Settings(), Metrics())
    assert await authority.identify(Shown(bearer="x", other=True)) is ANONYMOUS
    assert authority.caller(ANONYMOUS, "").may(Verb.ADMIN, NEWS)


async def test_the_ways_to_be_known(metrics: Metrics, callers: Callers) -> None:
    token = callers.add("alice")
    authority = _authority(metrics, callers)
    assert (await authority.identify(Shown(bearer=token))).name == "alice"
    assert await authority.identify(Shown()) is ANONYMOUS
    assert await _refusal(authority, Shown(bearer=token + "x")) == "unknown"
    assert await _refusal(authority, Shown(bearer="e30.e30.e30")) == "unknown"
    assert await _refusal(authority, Shown(other=True)) == "scheme"
    assert await _refusal(authority, Shown(session="x")) == "malformed"
    assert await authority.identify(Shown(subject="CN=x")) is ANONYMOUS, "certificates are not asked for"
    assert dict(_counted(metrics)) == {"unknown": 2, "scheme": 1, "malformed": 1}


async def test_two_ways_tell_equal_names_apart(metrics: Metrics, callers: Callers) -> None:
    certificate = {"names": {"CN=alice": "alice"}}
    token = callers.add("alice")
    authority = _authority(metrics, callers, mode=["token", "certificate"], certificate=certificate)
    one, two = [await authority.identify(shown) for shown in (Shown(bearer=token), Shown(subject="CN=alice"))]
    assert (one.label, two.label, one.name, two.name) == ("token:alice", "certificate:alice", "alice", "alice")
    assert await _refusal(authority, Shown(subject="CN=mallory")) == "unknown"


async def test_a_session_is_no_more_than_its_certificate(metrics: Metrics, callers: Callers, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    both = {"mode": ["token", "certificate"], "secret_file": str(secret)}
    before = _authority(metrics, callers, **both, certificate={"names": {"CN=alice": "alice"}})
    cookie = before.seal("session", await before.identify(Shown(subject="CN=alice")), time.time() + 100)
    for restarted, holds in (
        ({**both, "certificate": {"names": {"CN=alice": "alice"}}}, True),
        ({**both, "certificate": {"unlisted": True}}, True),
        ({**both, "certificate": {"names": {"CN=bob": "bob"}}}, False),
        ({**both, "mode": ["token"]}, False),
    ):
        after = _authority(Metrics(), callers, **restarted)
        if holds:
            assert (await after.identify(Shown(session=cookie))).name == "alice"
        else:
            assert await _refusal(after, Shown(session=cookie)) == "revoked"


async def _session(authority: Authority, token: str) -> str:
    return authority.seal("session", await authority.identify(Shown(bearer=token)), time.time() + 100)


async def test_what_ends_a_session(metrics: Metrics, callers: Callers) -> None:
    token = callers.add("alice")
    authority = _authority(metrics, callers)
    cookie = await _session(authority, token)
    shown = Shown(session=cookie)
    principal = await authority.identify(shown)
    callers.change("alice", expires_at=time.time() - 1)
    _read(authority)
    assert await _refusal(authority, shown) == "expired"
    callers.change("alice", expires_at=None)
    _read(authority)
    assert (await authority.identify(shown)).name == "alice"
    callers.change("alice", principal="bob")
    _read(authority)
    assert await _refusal(authority, shown) == "revoked"
    callers.change("alice", principal="alice")
    _read(authority)
    authority.sessions.end(principal)
    assert await _refusal(authority, shown) == "revoked"
    assert (await authority.identify(Shown(session=await _session(authority, token)))).name == "alice"


async def test_groups_are_those_of_the_file(metrics: Metrics, callers: Callers) -> None:
    token = callers.add("dave", "readers", "others")
    authority = _authority(metrics, callers, policy=READERS)
    shown = (Shown(session=await _session(authority, token)), Shown(bearer=token))
    session = await authority.identify(shown[0])
    assert session.groups == {"readers"}, "of what the policy does not name nothing is told"
    assert authority.caller(session, "").may(Verb.SUBSCRIBE, NEWS)
    callers.change("dave", groups=("others",))
    _read(authority)
    for each in shown:
        principal = await authority.identify(each)
        assert not authority.caller(principal, "").may(Verb.SUBSCRIBE, NEWS)
        assert principal is await authority.identify(each), "one value, by which is remembered"
    callers.change("dave", groups=("readers", "more"))
    _read(authority)
    for each in shown:
        assert authority.caller(await authority.identify(each), "").may(Verb.SUBSCRIBE, NEWS)


async def test_a_session_tells_the_claims_that_the_policy_looks_at(metrics: Metrics, callers: Callers) -> None:
    authority = _authority(metrics, callers, policy=READERS)
    principal = Principal(name="j", way="", claims={"vo": "x", "email": "secret"})
    cookie = authority.seal("session", principal, time.time() + 100)
    assert authority.sessions.open(cookie).claims == {"vo": "x"}


async def test_a_ticket_is_its_sessions(metrics: Metrics, callers: Callers) -> None:
    token = callers.add("alice")
    authority = _authority(metrics, callers)
    session = await authority.identify(Shown(session=await _session(authority, token)))
    text = authority.seal("ticket", session, time.time() + 30, uris=[str(NEWS)])
    ticket = authority.ticket(text, [str(NEWS)], returning=False)
    authority.use(ticket)
    with pytest.raises(InvalidCredentials):
        authority.use(ticket)
    with pytest.raises(InvalidCredentials):
        authority.ticket(text, [str(NEWS)], returning=True)
    authority.sessions.end(session)
    other = authority.seal("ticket", session, time.time() + 30, uris=[str(NEWS)])
    with pytest.raises(InvalidCredentials, match="revoked"):
        authority.ticket(other, [str(NEWS)], returning=False)


async def test_what_lasts_ends_with_the_credential_and_with_the_rule(metrics: Metrics, callers: Callers) -> None:
    authority = _authority(metrics, callers)
    ends: list[str] = []
    for name in ("alice", "carol"):
        token = callers.add(name)
        _read(authority)
        caller = authority.caller(await authority.identify(Shown(bearer=token)), "")
        caller.lasting(((Verb.SUBSCRIBE, NEWS),), ends.append)
    _read(authority)
    assert ends == []
    callers.revoke("alice")
    _read(authority)
    assert ends == ["revoked"]
    authority.adopt(authority.settings.policy[1:])
    assert ends == ["revoked", "forbidden"]


async def test_why_somebody_may_not(metrics: Metrics, callers: Callers) -> None:
    token = callers.add("bob")
    authority = _authority(metrics, callers)
    caller = authority.caller(await authority.identify(Shown(bearer=token)), "")
    with pytest.raises(Forbidden, match="bob may not subscribe demo::Topics::events"):
        caller.require(Verb.SUBSCRIBE, NEWS)
    with pytest.raises(Unauthenticated):
        authority.caller(ANONYMOUS, "").require(Verb.SUBSCRIBE, NEWS)
    hiding = _authority(metrics, callers, hide_forbidden=True, policy=POLICY)
    with pytest.raises(UnknownDestination):
        hiding.caller(await hiding.identify(Shown(bearer=token)), "").require(Verb.SUBSCRIBE, NEWS)
    assert dict(_counted(metrics)) == {"forbidden": 2, "missing": 1}
