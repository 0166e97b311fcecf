"""Keys at a URL: what a publisher may do, and what comes of it."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from app.auth.jwks import open_keys
from app.auth.jwt_refusal import JwtRefused
from app.config.jwt import JwtSettings
from app.domain.errors import KeysUnavailable
from app.telemetry.metrics import Metrics
from tests.brokers.tls import Authority
from tests.unit.auth.jwks_publisher import (
    SOON,
    Answer,
    Fetching,
    fetching,
    flooding,
    hanging,
    never_blocked,
    published,
    publishing,
    response,
    saying,
)
from tests.unit.auth.jwt_issuer import Issuer, document, ed_key

ONE = Issuer("EdDSA", ed_key("one"), kid="one")
TWO = Issuer("EdDSA", ed_key("two"), kid="two")
GOOD = document(ONE.jwk())
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def forged(number: int) -> str:
    """A token with a key that nobody has; all are different."""
    return TWO.token(kid=f"forged-{number}")


async def refused(made: Fetching, token: str) -> str:
    try:
        async with asyncio.timeout(SOON):
            await made.verifier.verify(token)
    except JwtRefused as error:
        return error.reason.value
    except KeysUnavailable:
        return "unavailable"
    return "taken"


async def test_keys_are_fetched_and_used() -> None:
    async with published(publishing(ONE.jwk())) as server, fetching(server.url) as made:
        assert await made.outcome() == "ok"
        assert (await made.verifier.verify(ONE.token())).name == "alice"
        made.clock.now += 7
        assert made.keys.age == 7
    assert len(server.requests) == 1
    head = server.requests[0].lower()
    assert head.startswith("get /keys?token=hush http/1.1\r\n")
    assert f"host: 127.0.0.1:{server.port}\r\n" in head
    assert "cookie" not in head


async def test_the_first_request_waits_for_the_first_keys() -> None:
    async with published(publishing(ONE.jwk())) as server, fetching(server.url) as made:
        await asyncio.sleep(0)  # the fetch begins
        assert await refused(made, ONE.token()) == "taken"


SLOW: dict[str, Answer] = {
    "says nothing": hanging(),
    "stops in the status line": hanging(b"HTTP/1.1 2"),
    "stops in the headers": hanging(b"HTTP/1.1 200 OK\r\ncontent-"),
    "stops in the body": hanging(response(GOOD)[:-5]),
    "stops in a chunk": hanging(CHUNKED + b"ff\r\n{"),
    "says 100 for ever": flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW)
async def test_one_that_never_ends_is_late(answer: Answer) -> None:
    async with published(answer) as server, never_blocked(), fetching(server.url, seconds=0.15, first_rest=9) as made:
        begun = time.monotonic()
        assert await refused(made, ONE.token()) == "unavailable"
        assert await made.outcome() == "late"
        assert time.monotonic() - begun < 3
        async with asyncio.timeout(SOON):
            await server.gone.wait()
        assert len(server.requests) == 1


FLOODS: dict[str, tuple[Answer, set[str]]] = {
    "a body without end": (flooding(response(b"", content_length=""), b"x" * 65536), {"too_large"}),
    "a length without end": (flooding(response(b"", content_length="9" * 15), b"x" * 65536), {"too_large"}),
    "chunks without end": (flooding(CHUNKED, b"2000\r\n" + b"x" * 0x2000 + b"\r\n"), {"too_large"}),
    "chunks of a byte": (flooding(CHUNKED, b"1\r\nx\r\n" * 5000), {"too_large"}),
    "headers without end": (flooding(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 5000), {"failed"}),
    "one header without end": (flooding(b"HTTP/1.1 200 OK\r\na: ", b"b" * 65536), {"failed"}),
    "a status line without end": (flooding(b"HTTP/1.1 200 ", b"K" * 65536), {"failed"}),
}


@pytest.mark.parametrize(("answer", "outcomes"), FLOODS.values(), ids=FLOODS)
async def test_one_that_floods_is_left(answer: Answer, outcomes: set[str]) -> None:
    async with published(answer) as server, never_blocked(), fetching(server.url, first_rest=9) as made:
        assert await made.outcome() in outcomes
        async with asyncio.timeout(SOON):
            await server.gone.wait()
        assert await refused(made, ONE.token()) == "unavailable"


ANSWERS: dict[str, tuple[bytes, str]] = {
    "500": (response(GOOD, "500 Internal Server Error"), "failed"),
    "404": (response(b"", "404 Not Found"), "failed"),
    "203": (response(GOOD, "203 Changed on the Way"), "failed"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "failed"),
    "302": (response(b"", "302 Found", location="/elsewhere"), "failed"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n", "failed"),
    "nothing": (b"", "failed"),
    "half a body": (response(GOOD)[:-5], "failed"),
    "HTML": (response(b"<html>sign in</html>"), "nonsense"),
    "empty": (response(b""), "nonsense"),
    "a key": (response(GOOD[10:-2]), "nonsense"),
    "gzip": (response(gzip.compress(GOOD), content_encoding="gzip"), "nonsense"),
    "no usable key": (response(document(ONE.jwk(use="enc"))), "nonsense"),
    "no key": (response(document()), "nonsense"),
    "too many keys": (response(document(*[ONE.jwk(kid=str(number)) for number in range(65)])), "too_large"),
    "too many pieces": (CHUNKED + b"1\r\n \r\n" * 3000 + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD), "too_large"),
    "too long": (response(GOOD.ljust(300_000)), "too_large"),
}


@pytest.mark.parametrize(("answer", "outcome"), ANSWERS.values(), ids=ANSWERS)
async def test_what_is_no_keys_changes_nothing(answer: bytes, outcome: str, caplog: pytest.LogCaptureFixture) -> None:
    async with published(publishing(ONE.jwk())) as server, fetching(server.url, first_rest=0.01) as made:
        assert await made.outcome() == "ok"
        known = await made.verifier.verify(ONE.token())
        server.answer = saying(answer)
        made.rested()
        assert await refused(made, TWO.token()) == "unknown_key"
        assert await made.outcome() == outcome
        assert await made.verifier.verify(ONE.token()) is known
        assert made.verifier.holds(known)
        assert not any("/elsewhere" in request for request in server.requests)
    assert f"could not be had ({outcome})" in caplog.text
    assert "hush" not in caplog.text


async def test_a_key_that_is_new_is_found_by_the_first_token_with_it() -> None:
    async with published(publishing(ONE.jwk())) as server, fetching(server.url) as made:
        assert await made.outcome() == "ok"
        known = await made.verifier.verify(ONE.token())
        server.answer = publishing(ONE.jwk(), TWO.jwk())
        made.rested()
        found = await asyncio.gather(*(made.verifier.verify(TWO.token()) for _ in range(20)))
        assert len(set(found)) == 1
        assert await made.verifier.verify(ONE.token()) is known
        assert len(server.requests) == 2


async def test_a_key_that_is_withdrawn_is_gone_with_the_next_fetch() -> None:
    async with published(publishing(ONE.jwk(), TWO.jwk())) as server, fetching(server.url, jwks_max_age=1) as made:
        assert await made.outcome() == "ok"
        one, two = await made.verifier.verify(ONE.token()), await made.verifier.verify(TWO.token())
        server.answer = publishing(TWO.jwk())
        await made.ends_with("ok")
        assert (made.verifier.holds(one), made.verifier.holds(two)) == (False, True)
        assert await refused(made, ONE.token()) == "unknown_key"
        assert await refused(made, TWO.token()) == "taken"


async def test_made_up_keys_do_not_flood_the_issuer() -> None:
    async with published(publishing(ONE.jwk())) as server, never_blocked(), fetching(server.url) as made:
        assert await made.outcome() == "ok"
        made.rested()
        for _ in range(2):
            reasons = await asyncio.gather(*(refused(made, forged(number)) for number in range(500)))
            assert set(reasons) == {"unknown_key"}
            assert len(server.requests) == 2
        assert await refused(made, ONE.token()) == "taken"


async def test_made_up_keys_cost_fewer_and_fewer_fetches() -> None:
    at: list[int] = []
    async with (
        published(publishing(ONE.jwk())) as server,
        fetching(server.url, first_rest=1.0, longest_rest=60.0) as made,
    ):
        assert await made.outcome() == "ok"
        for second in range(300):
            made.clock.now = float(second)
            before = len(server.requests)
            assert {await refused(made, forged(second)) for _ in range(3)} == {"unknown_key"}
            at += [second] * (len(server.requests) - before)
    assert at == [1, 2, 4, 8, 16, 32, 64, 124, 184, 244]


async def test_known_keys_wait_for_nothing() -> None:
    async with published(publishing(ONE.jwk())) as server, fetching(server.url) as made:
        assert await made.outcome() == "ok"
        server.answer = hanging()
        made.rested()
        waiting = [asyncio.create_task(refused(made, forged(number))) for number in range(150)]
        await asyncio.sleep(0)  # all of them begin
        assert await refused(made, ONE.token()) == "taken"
        assert await refused(made, ONE.token(b"[]")) == "malformed"
        # A hundred may wait. For the others there is no room, and they know at once.
        done = [task for task in waiting if task.done()]
        assert len(done) == 50
        assert {task.result() for task in done} == {"unknown_key"}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # Who has gone holds no place.
        again = asyncio.create_task(refused(made, forged(150)))
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)


async def test_keys_stay_while_the_issuer_is_away_but_not_for_ever() -> None:
    async with published(publishing(ONE.jwk())) as server, fetching(server.url, jwks_max_age=3600) as made:
        assert await made.outcome() == "ok"
        known = await made.verifier.verify(ONE.token())
        server.answer = saying(response(b"", "503 Away"))
        made.clock.now = 3600
        assert await refused(made, TWO.token()) == "unknown_key"
        assert await made.verifier.verify(ONE.token()) is known
        made.clock.now = 3661
        # Also a token that was verified before, and no stream stays open either.
        assert await refused(made, ONE.token()) == "unavailable"
        assert not made.verifier.holds(known)
        server.answer = publishing(ONE.jwk())
        made.rested()
        assert await refused(made, ONE.token()) == "taken"
        assert made.verifier.holds(known)


async def test_an_issuer_that_is_away_at_first_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with published(saying(response(b"", "503 Away"))) as server, fetching(server.url) as made:
        for _ in range(3):
            assert await made.outcome() == "failed"
        server.answer = publishing(ONE.jwk())
        await made.ends_with("ok")
        assert made.kids() == ["one"]
    told = [record.getMessage() for record in caplog.records if record.name == "mq_gateway.jwks"]
    assert len(told) == 3
    assert "could not be had (failed): status 503" in told[0]
    assert "can be had again" in told[2]


async def test_it_is_fetched_again_unasked() -> None:
    async with published(publishing(ONE.jwk())) as server, fetching(server.url, jwks_refresh=1) as made:
        assert await made.outcome() == "ok"
        before = made.keys.current()
        assert await made.outcome() == "unchanged"
        assert made.keys.current() is before
        assert len(server.requests) == 2


async def test_a_look_up_that_hangs_is_not_repeated() -> None:
    answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    asked = []

    async def look_up(name: str, port: int) -> list[Any]:
        asked.append((name, port))
        return await answer

    async with published(publishing(ONE.jwk())) as server:
        url = f"https://issuer.example:{server.port}/keys"
        async with never_blocked(), fetching(url, look_up=look_up, seconds=0.05) as made:
            assert [await made.outcome() for _ in range(3)] == ["late"] * 3
            assert asked == [("issuer.example", server.port)]
            answer.set_exception(socket.gaierror("no such name"))
            assert await made.outcome() == "failed"


@pytest.mark.parametrize("infos", [[], None], ids=["no address", "no such name"])
async def test_a_name_without_address(infos: list[Any] | None) -> None:
    async def look_up(name: str, port: int) -> list[Any]:
        if infos is None:
            raise socket.gaierror("no such name")
        return infos

    async with fetching("https://issuer.example/keys", look_up=look_up) as made:
        assert await made.outcome() == "failed"


async def test_all_addresses_are_tried() -> None:
    def info(address: str) -> tuple[Any, ...]:
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))

    async def look_up(name: str, port: int) -> list[Any]:
        return [info("127.0.0.9"), info("127.0.0.9"), info("127.0.0.1")]

    async with (
        published(publishing(ONE.jwk())) as server,
        fetching(f"http://localhost:{server.port}/keys", look_up=look_up) as made,
    ):
        assert await made.outcome() == "ok"
    assert f"host: localhost:{server.port}\r\n" in server.requests[0].lower()


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with fetching(f"http://127.0.0.1:{port}/keys") as made:
        assert await made.outcome() == "failed"


async def test_who_waits_is_told_when_it_ends() -> None:
    async with published(hanging()) as server:
        made = Fetching(server.url)
        assert await refused(made, ONE.token()) == "unavailable"  # it does not run
        assert made.keys.age == float("inf")
        task = asyncio.create_task(made.keys.run())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(refused(made, ONE.token()))
        await server.asked.wait()
        task.cancel()
        begun = time.monotonic()
        assert await waiting == "unavailable"
        assert time.monotonic() - begun < 3
        async with asyncio.timeout(SOON):
            await server.gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_defect_ends_no_fetching(caplog: pytest.LogCaptureFixture) -> None:
    numbers = itertools.count()

    async def look_up(name: str, port: int) -> list[Any]:
        if next(numbers) == 0:
            raise ZeroDivisionError
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    async with (
        published(publishing(ONE.jwk())) as server,
        fetching(f"http://localhost:{server.port}/keys", look_up=look_up) as made,
    ):
        assert [await made.outcome(), await made.outcome()] == ["failed", "ok"]
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_left_out_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        published(publishing(ONE.jwk(), TWO.jwk(use="enc"))) as server,
        fetching(server.url, jwks_max_age=1) as made,
    ):
        await made.ends_with("unchanged")
    assert [record.getMessage() for record in caplog.records] == [
        f"http://127.0.0.1:{server.port}/keys: key 2 ('two') is not used: its use is not sig"
    ]


async def test_fetches_and_age_are_metrics() -> None:
    metrics = Metrics()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"mq_gateway_jwks_{name}", labels)

    async with published(publishing(ONE.jwk())) as server:
        settings = JwtSettings(issuer="i", audience=["a"], algorithms=["EdDSA"], jwks_url=server.url)
        keys = open_keys(settings, metrics)
        assert value("age_seconds") == float("inf")
        task = asyncio.create_task(keys.run())  # type: ignore[union-attr]
        await asyncio.sleep(0)
        assert await keys.renewed()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert value("fetches_total", outcome="ok") == 1
    assert 0 <= (value("age_seconds") or 0.0) < SOON


@pytest.mark.parametrize(
    ("name", "outcome"), [("issuer.example", "ok"), ("other.example", "failed")], ids=["its name", "another name"]
)
async def test_the_certificate_must_be_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, outcome: str
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))

    async def look_up(name: str, port: int) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async with (
        published(publishing(ONE.jwk()), authority.server_context("issuer.example")) as server,
        fetching(f"https://{name}:{server.port}/keys", look_up=look_up) as made,
    ):
        assert await made.outcome() == outcome


async def test_an_authority_that_is_not_known(tmp_path: Path) -> None:
    async with (
        published(publishing(ONE.jwk()), Authority(tmp_path).server_context("localhost")) as server,
        fetching(f"https://localhost:{server.port}/keys") as made,
    ):
        assert await made.outcome() == "failed"
    assert server.requests == []
