"""Acks on any replica, over real sockets; and what a stranger at a peer's address, or at our door, can do: nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.connectors.stomp.addresses import Address
from app.domain.lease import Settled, Settlement
from app.domain.uri import MqUri
from app.gateway import peer_channel, peer_names, peers
from app.gateway.peer_channel import MAX_ANSWER, PATH, Peer
from app.gateway.peers import Peers
from app.wire import peer, peer_seal
from app.wire.keys import derived
from app.wire.lease import LeaseName
from app.wire.peer import Answer, Question, answer_body, question_body
from app.wire.peer_seal import HEADER, answer_seal, seal
from tests.e2e.http_gateway import Served, serving, until
from tests.e2e.replicas import JOBS, SECRET, Visit, http, replicas, results, say, secret_file, stranger, take, tell

URI = MqUri.parse("demo::Queues::jobs")
KEY = derived(SECRET, "peers")
#: Small enough to be read.
BOMB = gzip.compress(b"0" * (16 << 20))
#: The lease of a replica that is nowhere, as it would have signed it.
GHOST = LeaseName("ghost-1-aa", URI, 1).signed(derived(SECRET, "leases"))


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Sequence[Served]]:
    async with replicas(tmp_path) as made:
        yield made


def asked(replica: Served, outcome: str) -> float:
    return replica.metric("mq_gateway_peer_requests_total", outcome=outcome)


def forwarded(replica: Served, verb: str, result: str) -> float:
    return replica.metric("mq_gateway_forwarded_leases_total", verb=verb, result=result)


def nobody_was_asked(replica: Served) -> bool:
    return [sample for metric in replica.gateway.metrics.peer_requests.collect() for sample in metric.samples] == []


def peers_of(replica: Served) -> Peers:
    found = replica.gateway.answers._peers
    assert found is not None
    return found


def believe(replica: Served, instance: str, port: int) -> None:
    """As if that instance had been found there."""
    one = Peer(Address("there", "127.0.0.1", port), instance)
    peers_of(replica)._directory._peers["127.0.0.1", port] = one


# Workers.


async def test_what_is_said_at_one_is_done_at_the_other(pair: Sequence[Served]) -> None:
    here, there = pair
    one, two, three = await take(there, 3, lease=30)
    renewed = await say(here, "renew", one, lease=60)
    assert (renewed.status_code, results(renewed)) == (200, ["done"])
    assert renewed.json()["results"][0]["lease_expires_at"] > "2"
    assert there.gateway.takings.leases.find(URI, 1).seconds == 60  # type: ignore[union-attr]
    assert results(await say(here, "ack", one, one)) == ["done", "done"]
    assert results(await say(here, "nack", two, delay=0)) == ["done"]
    assert results(await say(here, "nack", three, requeue=False)) == ["done"]
    assert results(await say(here, "renew", three)) == ["expired"]
    again = await there.client.post(f"{JOBS}/receive?wait=5&max=5")
    assert [message["body"] for message in again.json()["messages"]] == ["1"]
    assert there.metric("mq_gateway_leases_ended_total", service="demo", reason="acked") == 1
    assert (forwarded(here, "ack", "done"), forwarded(here, "renew", "expired")) == (2, 1)
    assert here.gateway.budget.reserved == 0


async def test_results_come_in_the_order_asked_whoever_owns_what(tmp_path: Path) -> None:
    async with replicas(tmp_path, 3) as (one, two, three):
        owned = [await take(each, 3) for each in (one, two, three)]
        mixed = [lease for leases in zip(*owned, strict=True) for lease in leases]
        forged = owned[1][0][:-1] + ("A" if owned[1][0][-1] != "A" else "B")
        assert results(await say(two, "ack", owned[0][0])) == ["done"]
        assert results(await say(three, "nack", owned[0][1], delay=30)) == ["done"]
        order = [*mixed, forged, "nonsense", GHOST]
        response = await say(two, "ack", *order)
        assert response.status_code == 207
        assert [each["lease"] for each in response.json()["results"]] == order
        done = ["done"] * 3 + ["expired"] + ["done"] * 5
        assert results(response) == [*done, "unknown", "unknown", "elsewhere"]


async def test_a_thousand_at_once_and_one_in_the_query(pair: Sequence[Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_channel, "ASK_SECONDS", 30.0)  # a busy machine is no measure
    monkeypatch.setattr(peer_channel, "_TIMEOUT", httpx.Timeout(30.0).as_dict())
    monkeypatch.setattr(peers, "FORWARD_SECONDS", 30.0)
    here, there = pair
    (single,) = await take(there)
    response = await here.client.post(f"{JOBS}/ack", params={"lease": single})
    assert (response.status_code, results(response)) == (200, ["done"])
    leases = await take(there, 1000)
    response = await say(here, "ack", *leases)
    assert (response.status_code, Counter(results(response))) == (200, {"done": 1000})
    assert asked(here, "answered") == 2 + 2  # two addresses were looked at, and the owner was asked twice


async def test_events_of_a_stream_are_answered_at_any_replica(pair: Sequence[Served]) -> None:
    here, there = pair
    await there.client.post(JOBS, content=b"work")
    async with there.stream(f"{JOBS}/events?ack=explicit") as events:
        assert (await events.message()).event == "lease"
        lease = (await events.message()).id or ""
        assert results(await say(here, "ack", lease)) == ["done"]


async def test_a_lease_is_for_its_destination_on_every_replica(pair: Sequence[Served]) -> None:
    here, there = pair
    (lease,) = await take(there)
    assert results(await say(here, "ack", lease, path="/mq/demo/Queues/lax")) == ["unknown"]
    assert results(await say(here, "ack", lease)) == ["done"]


async def test_one_process_alone_has_leases_that_no_other_knows(pair: Sequence[Served]) -> None:
    async with serving() as alone:
        (lease,) = await take(alone)
        assert results(await say(pair[0], "ack", lease)) == ["unknown"]
        assert results(await say(alone, "ack", GHOST)) == ["unknown"]
        assert (await alone.client.post(PATH)).status_code == 404


async def test_while_it_drains_a_replica_is_still_told(pair: Sequence[Served]) -> None:
    here, there = pair
    one, two = await take(there, 2)
    await there.gateway.drain()
    await here.gateway.drain()
    assert results(await say(here, "ack", one)) == ["done"]
    assert results(await say(there, "ack", two)) == ["done"]


# Who is not there.


async def test_an_owner_that_is_gone_disturbs_nobody(pair: Sequence[Served]) -> None:
    here, there = pair
    (mine,), (theirs,) = await take(here), await take(there)
    response = await say(here, "ack", GHOST, mine, theirs, GHOST)
    assert (response.status_code, results(response)) == (207, ["elsewhere", "done", "done", "elsewhere"])
    assert forwarded(here, "ack", "elsewhere") == 2


async def test_a_replica_that_was_replaced_is_found_under_its_new_name(tmp_path: Path) -> None:
    secret = secret_file(tmp_path)
    async with serving(auth={"secret_file": secret}) as here:
        async with serving(auth={"secret_file": secret}) as there:
            await tell(here, secret, f"127.0.0.1:{there.port}")
            old, older = await take(there, 2)
            assert results(await say(here, "ack", old)) == ["done"]
            port, instance = there.port, there.gateway.instance
        assert results(await say(here, "ack", older)) == ["elsewhere"]
        async with serving(auth={"secret_file": secret}) as there:
            await tell(here, secret, f"127.0.0.1:{there.port}")
            # The name of the old one is still believed to be there, as where a container comes back under its address.
            believe(here, instance, there.port)
            assert results(await say(here, "ack", older)) == ["elsewhere"]
            assert asked(here, "moved") == 1
            (new,) = await take(there)
            assert results(await say(here, "ack", new)) == ["done"]
            assert there.port != port or instance != there.gateway.instance


async def test_peers_are_taken_over_by_a_reload_and_a_secret_is_not(tmp_path: Path) -> None:
    secret = secret_file(tmp_path)
    async with replicas(tmp_path) as (here, there), serving() as alone:
        one, two = await take(there, 2)
        await tell(here, secret)
        assert here.gateway.settings.server.peers == []
        assert results(await say(here, "ack", one)) == ["elsewhere"]
        await tell(here, secret, f"127.0.0.1:{there.port}")
        assert results(await say(here, "ack", one)) == ["done"]
        await tell(alone, secret, f"127.0.0.1:{there.port}")
        assert alone.gateway.settings.server.peers == []
        assert results(await say(alone, "ack", two)) == ["unknown"]


async def test_without_room_nothing_is_done(pair: Sequence[Served], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair
    (mine,), (theirs,) = await take(here), await take(there)
    monkeypatch.setattr(here.gateway.budget, "_limit", 10)
    response = await here.client.post(f"{JOBS}/ack", params={"lease": theirs})
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert results(await here.client.post(f"{JOBS}/ack", params={"lease": mine})) == ["done"]
    monkeypatch.undo()
    assert results(await say(here, "ack", theirs)) == ["done"]


async def test_a_name_that_is_not_answered_holds_up_nobody(
    pair: Sequence[Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair

    async def hangs(_name: str, _port: int) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(peer_names, "lookup", hangs)
    await tell(here, secret_file(tmp_path), "hangs.example:1", f"127.0.0.1:{there.port}")
    (mine,), (theirs,) = await take(here), await take(there)
    began = time.monotonic()
    assert results(await say(here, "ack", theirs, mine)) == ["done", "done"]
    assert time.monotonic() - began < 1.5


# Strangers where a peer should be.


def sealed(visit: Visit, body: bytes) -> bytes:
    """What somebody who has the secret answers."""
    question = next(line for line in visit.head.decode().splitlines() if line.lower().startswith(HEADER))
    return http("200 OK", body, f"Mq-Peer: {answer_seal(KEY, question.partition(': ')[2], body)}")


def done(visit: Visit) -> bytes:
    """The answer that would be right, were it sealed."""
    return answer_body(Answer("ghost-1-aa", [Settled("done")] if b"verb" in visit.body else None))


async def stalls(visit: Visit) -> None:
    await visit.reader.read()


async def drips(visit: Visit) -> None:
    await visit.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        await visit.answer(b"x")
        await asyncio.sleep(0.05)


async def without_a_seal(visit: Visit) -> None:
    await visit.answer(http("200 OK", done(visit)))


async def with_its_own_seal(visit: Visit) -> None:
    body = done(visit)
    await visit.answer(http("200 OK", body, f"Mq-Peer: {answer_seal(b'k' * 32, 'x', body)}"))


async def the_seal_comes_back(visit: Visit) -> None:
    lines = visit.head.decode().splitlines()
    await visit.answer(http("200 OK", done(visit), next(line for line in lines if line.lower().startswith(HEADER))))


async def huge(visit: Visit) -> None:
    await visit.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    while True:
        await visit.answer(b"x" * 65536)


async def huge_in_chunks(visit: Visit) -> None:
    await visit.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await visit.answer(b"10000\r\n" + b"x" * 65536 + b"\r\n")


async def endless_headers(visit: Visit) -> None:
    await visit.answer(b"HTTP/1.1 200 OK\r\n")
    while True:
        await visit.answer(b"X-More: " + b"x" * 1000 + b"\r\n")


async def endless_beginnings(visit: Visit) -> None:
    while True:
        await visit.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000)
        await asyncio.sleep(0.01)  # it shares the loop with those it attacks


async def a_bomb(visit: Visit) -> None:
    await visit.answer(http("200 OK", BOMB, "Content-Encoding: gzip"))


async def another_program(visit: Visit) -> None:
    await visit.answer(b"SSH-2.0-OpenSSH_9.2p1\r\n")


async def says_no(visit: Visit) -> None:
    await visit.answer(http("403 Forbidden", b"{}", "Set-Cookie: a=b"))


async def hangs_up(_visit: Visit) -> None:
    pass


@pytest.mark.parametrize(
    ("handle", "outcome"),
    [
        (stalls, "late"),
        (drips, "late"),
        (without_a_seal, "nonsense"),
        (with_its_own_seal, "nonsense"),
        (the_seal_comes_back, "nonsense"),
        (huge, "nonsense"),
        (huge_in_chunks, "nonsense"),
        (endless_headers, "unreachable"),
        (endless_beginnings, "late"),
        (a_bomb, "nonsense"),
        (another_program, "unreachable"),
        (says_no, "refused"),
        (hangs_up, "unreachable"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_stranger_is_believed_nothing_and_disturbs_nobody(
    tmp_path: Path, handle: Any, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_channel, "ASK_SECONDS", 2.0)
    monkeypatch.setattr(peer_channel, "WHO_SECONDS", 2.0)
    async with replicas(tmp_path) as (here, there), stranger(handle) as bad:
        await tell(here, secret_file(tmp_path), f"127.0.0.1:{bad.port}", f"127.0.0.1:{there.port}")
        believe(here, "ghost-1-aa", bad.port)
        (mine,), (theirs,) = await take(here), await take(there)
        response = await say(here, "ack", mine, GHOST, theirs)
        assert results(response) == ["done", "elsewhere", "done"]
        assert asked(here, outcome) >= 1
        assert asked(here, "answered") >= 2
        assert {visit.head.split(b" ")[1] for visit in bad.visits} == {PATH.encode()}
        assert not any(b"cookie" in visit.head.lower() for visit in bad.visits)
        # What is read of it is bounded, and its connections are really closed.
        await until(lambda: bad.connections == 0)
        assert here.gateway.budget.reserved == 0


async def test_no_redirect_is_followed_and_no_proxy_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stranger(stalls) as lair:

        async def redirects(visit: Visit) -> None:
            await visit.answer(http("307 Temporary Redirect", b"", f"Location: http://127.0.0.1:{lair.port}/"))

        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{lair.port}")
        async with stranger(redirects) as bad, replicas(tmp_path) as (here, there):
            believe(here, "ghost-1-aa", bad.port)
            (lease,) = await take(there)
            assert results(await say(here, "ack", GHOST, lease)) == ["elsewhere", "done"]
            assert asked(here, "nonsense") >= 1
            assert lair.visits == []


LIES: list[Any] = [
    {"instance": "ghost-1-aa"},
    {"instance": "ghost-1-aa", "results": []},
    {"instance": "ghost-1-aa", "results": [["done", None]] * 2},
    {"instance": "ghost-1-aa", "results": [["elsewhere", None]]},
    {"instance": "ghost-1-aa", "results": [["done", 1e300]]},
    {"instance": "somebody else", "results": [["done", None]]},
    {"instance": "x" * 100_000, "results": [["done", None]]},
    [],
    "done",
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: json.dumps(lie)[:50])
async def test_a_replica_that_lies_costs_its_own_leases(pair: Sequence[Served], lie: Any) -> None:
    async def lies(visit: Visit) -> None:
        await visit.answer(sealed(visit, json.dumps(lie).encode()))

    here, there = pair
    async with stranger(lies) as bad:
        believe(here, "ghost-1-aa", bad.port)
        (mine,), (theirs,) = await take(here), await take(there)
        assert results(await say(here, "ack", theirs, GHOST, mine)) == ["done", "elsewhere", "done"]


async def test_a_peer_that_stalls_has_few_requests_and_takes_no_place_of_others(
    pair: Sequence[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_channel, "ASK_SECONDS", 1.0)
    here, there = pair
    async with stranger(stalls) as bad:
        believe(here, "ghost-1-aa", bad.port)
        waiting = [asyncio.ensure_future(say(here, "ack", GHOST)) for _ in range(60)]
        await until(lambda: bad.connections == peer_channel.MAX_AT_ONCE)
        leases = await take(there, 20)
        began = time.monotonic()
        for lease in leases:
            assert results(await say(here, "ack", lease)) == ["done"]
        # One after the other behind the sixty they would take more than seven seconds.
        assert time.monotonic() - began < 5.0
        assert bad.connections <= peer_channel.MAX_AT_ONCE + 1
        assert [results(await each) for each in waiting] == [["elsewhere"]] * 60
        await until(lambda: bad.connections == 0)
        assert here.gateway.budget.reserved == 0


async def test_an_owner_with_more_to_answer_than_it_can_is_asked_again_all_the_same(
    pair: Sequence[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def takes_its_time(visit: Visit) -> None:
        await asyncio.sleep(0.2)
        await visit.answer(sealed(visit, done(visit)))

    monkeypatch.setattr(peer_channel, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(peer_channel, "WHO_SECONDS", 2.0)
    monkeypatch.setattr(peer_channel, "MAX_AT_ONCE", 1)
    here, _ = pair
    async with stranger(takes_its_time) as owner:
        believe(here, "ghost-1-aa", owner.port)
        said = await asyncio.gather(*(say(here, "ack", GHOST) for _ in range(4)))
        # The second has its turn late, and is not cut off for that; the others never have one.
        assert sorted(results(response) for response in said) == [["done"]] * 2 + [["elsewhere"]] * 2
        assert asked(here, "busy") == 2
        assert results(await say(here, "ack", GHOST)) == ["done"]
        assert all(b"verb" in visit.body for visit in owner.visits), "it was not forgotten, and not looked for"


async def test_an_owner_that_hangs_up_is_asked_once_more_and_no_third_time(
    pair: Sequence[Served], tmp_path: Path
) -> None:
    async def only_who(visit: Visit) -> None:
        if b"verb" not in visit.body:
            await visit.answer(sealed(visit, done(visit)))

    here, there = pair
    async with stranger(only_who) as bad:
        await tell(here, secret_file(tmp_path), f"127.0.0.1:{bad.port}", f"127.0.0.1:{there.port}")
        (theirs,) = await take(there)
        assert results(await say(here, "ack", theirs, GHOST)) == ["done", "elsewhere"]
        assert len([visit for visit in bad.visits if b"verb" in visit.body]) == 2


async def test_everything_together_has_an_end(pair: Sequence[Served], monkeypatch: pytest.MonkeyPatch) -> None:
    here, _there = pair
    monkeypatch.setattr(peers, "FORWARD_SECONDS", 0.1)
    async with stranger(stalls) as bad:
        believe(here, "ghost-1-aa", bad.port)
        assert results(await say(here, "ack", GHOST)) == ["elsewhere"]
        await until(lambda: bad.connections == 0)


async def test_an_address_that_takes_no_connection_in_time_is_late(
    pair: Sequence[Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _there = pair
    monkeypatch.setattr(peer_channel, "_TIMEOUT", {"connect": 0.05, "read": 0.05, "write": 0.05, "pool": 0.05})
    async with stranger(stalls) as bad:
        believe(here, "ghost-1-aa", bad.port)
        assert results(await say(here, "ack", GHOST)) == ["elsewhere"]
        assert asked(here, "late") == 1


async def test_what_a_worker_said_before_it_left_is_still_told(pair: Sequence[Served]) -> None:
    here, there = pair
    (lease,) = await take(there)
    _reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(f"POST {JOBS}/ack?lease={lease} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode())
    writer.close()
    await until(lambda: there.gateway.takings.leases.of(URI) == 0)
    assert there.metric("mq_gateway_leases_ended_total", service="demo", reason="acked") == 1


# Strangers at our door.


async def knock(replica: Served, body: bytes, text: str | None, method: str = "POST", **headers: str) -> Any:
    return await replica.client.request(
        method, PATH, content=body, headers={**({} if text is None else {HEADER: text}), **headers}
    )


async def test_who_has_no_seal_is_refused_before_the_body_is_read(pair: Sequence[Served]) -> None:
    here, _there = pair
    (lease,) = await take(here)
    body = question_body(
        Question(to=here.gateway.instance, settlement=Settlement(verb="ack", mq_uri=URI), leases=[lease])
    )
    now = time.time()
    refused = {
        "none": await knock(here, body, None),
        "nonsense": await knock(here, body, "x" * 5000),
        "another secret": await knock(here, body, seal(b"k" * 32, body, now)),
        "another body": await knock(here, body, seal(KEY, body + b" ", now)),
        "the key of leases": await knock(here, body, seal(derived(SECRET, "leases"), body, now)),
        "old": await knock(here, body, seal(KEY, body, now - peer_seal.GOOD_FOR - 5)),
        "from the future": await knock(here, body, seal(KEY, body, now + peer_seal.GOOD_FOR + 5)),
        "a page": await knock(here, body, None, origin="http://evil.example", host="evil.example"),
        "a preflight": await knock(here, b"", None, "OPTIONS", origin="http://evil.example"),
        "a look": await knock(here, b"", None, "GET"),
    }
    assert {name: (each.status_code, each.json()["code"]) for name, each in refused.items()} == dict.fromkeys(
        refused, (403, "forbidden")
    )
    assert here.metric("mq_gateway_auth_failures_total", reason="peer_seal") == 7
    assert here.metric("mq_gateway_auth_failures_total", reason="peer_clock") == 2
    assert here.metric("mq_gateway_auth_failures_total", reason="peer_body") == 1
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
    assert (await here.raw(head.encode())).startswith(b"HTTP/1.1 403 ")
    assert here.gateway.takings.leases.of(URI) == 1
    assert results(await say(here, "ack", lease)) == ["done"]


async def test_what_is_sealed_is_still_read_with_care(pair: Sequence[Served]) -> None:
    here, _there = pair
    now = time.time()
    for body, status in ((b"{", 400), (b"[]", 400), (b'{"to":"x"}', 400), (b"x" * 5_000_000, 413)):
        assert (await knock(here, body, seal(KEY, body, now))).status_code == status
    assert (await knock(here, b"", seal(KEY, b"", now), "GET")).status_code == 405
    body = question_body(Question())
    assert (await knock(here, body, seal(KEY, body, now), **{"content-encoding": "gzip"})).status_code == 415
    text = seal(KEY, body, now)
    answer = await knock(here, body, text)
    assert answer.json() == {"instance": here.gateway.instance}
    assert peer_seal.is_answer(KEY, text, answer.content, answer.headers[HEADER])


async def test_nothing_is_forwarded_twice(tmp_path: Path) -> None:
    """A question about a third one's lease is not asked on, and one for somebody else is answered with who is here."""
    async with replicas(tmp_path, 2) as (here, third):
        (lease,) = await take(third)
        (mine,) = await take(here)
        for to, said in ((here.gateway.instance, [["unknown", None], ["done", None]]), (third.gateway.instance, None)):
            settlement = Settlement(verb="ack", mq_uri=URI)
            body = question_body(Question(to=to, settlement=settlement, leases=[lease, mine]))
            answer = (await knock(here, body, seal(KEY, body, time.time()))).json()
            assert answer == {"instance": here.gateway.instance} | ({} if said is None else {"results": said})
        assert nobody_was_asked(here)
        assert third.gateway.takings.leases.of(URI) == 1


async def test_a_replica_grants_no_more_than_it_would_itself(tmp_path: Path) -> None:
    async with replicas(tmp_path, 1, lease_max=100) as (here,):
        leases = await take(here, 2)
        for verb, lease in zip(("renew", "nack"), leases, strict=True):
            settlement = Settlement(verb=verb, mq_uri=URI, delay=5000.0, seconds=5000.0)  # type: ignore[arg-type]
            body = question_body(Question(to=here.gateway.instance, settlement=settlement, leases=[lease]))
            answer = (await knock(here, body, seal(KEY, body, time.time()))).json()
            assert answer["results"][0][0] == "done"
        assert all(lease.expires_at < time.time() + 101 for lease in here.gateway.takings.leases._live.values())


async def test_a_forged_lease_is_asked_of_nobody(pair: Sequence[Served]) -> None:
    here, there = pair
    forged = [LeaseName(there.gateway.instance, URI, number).signed(b"k" * 32) for number in range(500)] + [
        LeaseName("ghost", URI, 1).signed(KEY),
        GHOST.partition(".")[0],
        GHOST + "=",
        "." * 4096,
    ]
    assert results(await say(here, "ack", *forged)) == ["unknown"] * len(forged)
    assert nobody_was_asked(here)


def test_a_bomb_is_within_the_bound() -> None:
    assert len(BOMB) < MAX_ANSWER


def test_an_answer_has_room_for_the_longest() -> None:
    longest = answer_body(Answer("x" * peer.MAX_INSTANCE, [Settled("expired", 1764295200.1234567)] * 1000))
    assert len(longest) < MAX_ANSWER / 2
