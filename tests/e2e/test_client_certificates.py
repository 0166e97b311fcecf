"""Client certificates that a proxy has verified: its word counts, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.e2e.http_gateway import serving

AUTH: dict[str, Any] = {
    "mode": "certificate",
    "certificate": {"names": {"CN=worker,O=site": "worker"}},
    "policy": [{"principals": ["certificate:worker"], "allow": ["look"], "uris": ["*"]}],
}
SUBJECT = ("X-SSL-Client-S-DN", "CN=worker,O=site")
VERIFIED = ("X-SSL-Client-Verify", "SUCCESS")

CASES: dict[str, tuple[Sequence[tuple[str, str]], int]] = {
    "verified": ((SUBJECT, VERIFIED), 200),
    "verified, names in another case": (((SUBJECT[0].lower(), SUBJECT[1]), VERIFIED), 200),
    "not said to be verified": ((SUBJECT,), 401),
    "said not to be": ((SUBJECT, (VERIFIED[0], "FAILED:expired")), 401),
    "said not to be, after what a client sent": ((SUBJECT, VERIFIED, (VERIFIED[0], "NONE")), 400),
    "no subject": ((VERIFIED,), 401),
    "an empty subject": (((SUBJECT[0], ""), VERIFIED), 401),
    "a stranger": (((SUBJECT[0], "CN=other,O=site"), VERIFIED), 401),
    "two subjects": ((SUBJECT, (SUBJECT[0], "CN=other,O=site"), VERIFIED), 400),
    "the subject in another spelling": (((SUBJECT[0], "cn=worker,o=site"), VERIFIED), 401),
    "credentials that do not hold beside it": ((SUBJECT, VERIFIED, ("Authorization", "Bearer x")), 401),
}


@pytest.mark.parametrize(("headers", "status"), CASES.values(), ids=CASES)
async def test_a_trusted_proxy_tells_whose_it_is(headers: Sequence[tuple[str, str]], status: int) -> None:
    async with serving(auth=AUTH, trusted_proxies=["127.0.0.1"]) as served:
        answer = await served.client.get("/mq", headers=list(headers))
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("proxies", [[], ["127.0.0.2"]], ids=["nobody", "another"])
async def test_from_anybody_else_it_says_nothing(proxies: list[str]) -> None:
    async with serving(auth=AUTH, trusted_proxies=proxies) as served:
        beside = [("X-Forwarded-For", "127.0.0.2"), ("Forwarded", "for=127.0.0.2")]
        answer = await served.client.get("/mq", headers=[SUBJECT, VERIFIED, *beside])
        assert answer.status_code == 401
        assert served.metric("mq_gateway_auth_failures_total", reason="missing") == 1
