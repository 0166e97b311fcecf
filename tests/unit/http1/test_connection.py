"""The life of one connection: deadlines, bounds, refusals, ends."""

from __future__ import annotations

import contextlib
import select
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.http1 import protocol
from app.http1.connection import Connection
from tests.brokers.tls import Authority
from tests.e2e.serving import PATIENCE, Served, serving

HOST = b"Host: 127.0.0.1\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
CHUNKED = b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def _get(path: bytes, *headers: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"".join(each + b"\r\n" for each in headers) + b"\r\n"


def _post(path: bytes, length: int, body: bytes = b"", *headers: bytes) -> bytes:
    lines = b"".join(each + b"\r\n" for each in headers)
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n%s" % (path, length, lines, body)


@pytest.fixture(scope="module", params=["http", "https"])
def authority(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Authority | None:
    """Everything here holds over TLS as well."""
    return Authority(tmp_path_factory.mktemp("tls")) if request.param == "https" else None


@contextlib.contextmanager
def _serving(authority: Authority | None, **settings: Any) -> Iterator[Served]:
    with serving(authority=authority, **settings) as served:
        if served.tls is not None:
            # With 1.3 a server says something after the handshake: a client that looks for an answer would see it.
            served.tls.maximum_version = ssl.TLSVersion.TLSv1_2
        yield served


@pytest.fixture(scope="module")
def shared(authority: Authority | None) -> Iterator[Served]:
    """For tests in which no deadline passes."""
    with _serving(authority) as served:
        yield served


@pytest.fixture(scope="module")
def hasty(authority: Authority | None) -> Iterator[Served]:
    """Deadlines short enough to wait for."""
    with _serving(authority, header_timeout=0.3, idle_timeout=0.4, write_timeout=0.3) as served:
        yield served


class TestDeadlines:
    def test_a_head_that_drips_is_refused_on_time(self, hasty: Served) -> None:
        begun = time.monotonic()
        with hasty.connect() as client:
            for byte in b"GET /slow HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow-1\r\nX-Endless: aaaaaaaaaaaaaaaaaa":
                client.send(bytes([byte]))
                if select.select([client.sock], [], [], 0.02)[0]:
                    break
            response = client.response()
            assert 0.25 <= time.monotonic() - begun < 1.5
            assert response.status == 400
            assert response.problem["code"] == "malformed_request"
            assert response.problem["retriable"] is True
            assert client.rest() == b""

    @pytest.mark.parametrize("raw", [b"", b"\r\n"])
    def test_a_connection_without_a_request_is_closed_without_a_word(self, hasty: Served, raw: bytes) -> None:
        with hasty.connect() as client:
            client.send(raw)
            assert client.rest() == b""

    def test_an_idle_connection_is_closed_without_a_word(self, hasty: Served) -> None:
        with hasty.connect() as client:
            client.send(NEXT)
            assert client.response().status == 200
            begun = time.monotonic()
            assert client.rest() == b""
            assert 0.3 <= time.monotonic() - begun < 1.5

    def test_a_body_that_stops_coming_is_given_up(self, hasty: Served) -> None:
        before = len(hasty.app.seen)
        with hasty.connect() as client:
            client.send(_post(b"/echo", 10, b"half"))
            response = client.response()
            assert (response.status, response.problem["instance"]) == (400, "/echo")
        seen = hasty.arrived(before)
        assert seen.done.wait(PATIENCE)
        assert (seen.complete, seen.gone) == (False, True)

    def test_a_slow_body_is_a_body(self, hasty: Served) -> None:
        with hasty.connect() as client:
            client.send(_post(b"/echo", 6 * 400))
            for _ in range(6):
                assert not select.select([client.sock], [], [], 0.15)[0]
                client.send(b"x" * 400)
            assert client.response().body == b"x" * 2400

    @pytest.mark.parametrize("first", [0, 50_000])
    @pytest.mark.parametrize("framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
    def test_a_body_that_drips_is_refused_on_time(self, hasty: Served, first: int, framing: bytes) -> None:
        chunked = b"chunked" in framing
        with hasty.connect() as client:
            client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
            if first:
                client.send(b"%x\r\n%b\r\n" % (first, b"x" * first) if chunked else b"x" * first)
            begun = time.monotonic()
            while not select.select([client.sock], [], [], 0.02)[0]:
                assert time.monotonic() - begun < PATIENCE
                client.send(b"1\r\nx\r\n" if chunked else b"x")
            response = client.response()
            assert 0.3 <= time.monotonic() - begun < 1.5
            assert (response.status, response.problem["code"]) == (400, "malformed_request")
            assert client.rest() == b""

    def test_a_body_that_had_to_wait_its_turn_has_all_its_time(self, hasty: Served) -> None:
        before = len(hasty.app.seen)
        with hasty.connect() as client:
            client.send(_post(b"/held", 1, b"1") + _post(b"/echo", 3, b"a"))
            hasty.arrived(before)
            assert not select.select([client.sock], [], [], 0.7)[0]
            hasty.release()
            assert client.response().body == b"1"
            assert not select.select([client.sock], [], [], 0.25)[0]
            client.send(b"bc")
            assert client.response().body == b"abc"
        hasty.loop.call_soon_threadsafe(hasty.app.release.clear)

    def test_a_body_the_application_does_not_read_is_not_the_clients_fault(self, hasty: Served) -> None:
        body = b"x" * 200_000
        with hasty.connect() as client:
            client.send(_post(b"/unread", len(body) * 10, body))
            assert not select.select([client.sock], [], [], 1.0)[0]
            hasty.release()
            assert client.response().body == b"done"
        hasty.loop.call_soon_threadsafe(hasty.app.release.clear)

    def test_a_body_nobody_wants_has_a_deadline_of_its_own(self, hasty: Served) -> None:
        with hasty.connect() as client:
            client.send(_post(b"/early", 1_000_000))
            assert client.response().status == 413
            begun = time.monotonic()
            assert client.rest() == b""
            assert 0.2 <= time.monotonic() - begun < 1.5

    @pytest.mark.parametrize("path", [b"/flood", b"/big"])
    def test_a_reader_that_takes_nothing_is_cut_off(self, hasty: Served, path: bytes) -> None:
        before = len(hasty.app.seen)
        with hasty.connect(receive_buffer=4096) as client:
            client.send(_get(path, b"Connection: close"))
            hasty.arrived(before)
            hasty.emptied()
            assert len(client.rest()) < 8 << 20

    @pytest.mark.parametrize("connection", [b"keep-alive", b"close"])
    def test_a_reader_that_takes_little_is_not(self, hasty: Served, connection: bytes) -> None:
        with hasty.connect(receive_buffer=4096) as client:
            client.send(_get(b"/big", b"Connection: " + connection))
            size = 0
            begun = time.monotonic()
            while piece := client.sock.recv(16384):
                size += len(piece)
                if time.monotonic() - begun < 1:
                    time.sleep(0.01)  # this is the reader's pace
            assert size > 8 << 20


class TestBounds:
    def test_a_connection_beyond_the_descriptors_is_told_so(self, authority: Authority | None) -> None:
        with _serving(authority, connections=1) as served, served.connect() as first:
            first.send(NEXT)
            assert first.response().status == 200
            with served.connect() as second:
                response = second.response()
                assert (response.status, response.problem["code"]) == (503, "overloaded")
                assert response.headers["retry-after"] == "5"
                assert second.rest() == b""
            first.send(NEXT)
            assert first.response().status == 200

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (_get(b"/", *(b"X-%d: a" % n for n in range(127))), 200),
            (_get(b"/", *(b"X-%d: a" % n for n in range(128))), 431),
            (_get(b"/", b"X-Large: " + b"a" * 8441), 200),
            (_get(b"/", b"X-Large: " + b"a" * 8442), 431),
            (_get(b"/", b"Mq-Headers: " + b"a" * 20_000), 200),
            (_get(b"/", *(b"Mq-Header-%d: " % n + b"a" * 8191 for n in range(64))), 200),
            (_get(b"/", *(b"X-%d: " % n + b"a" * 8000 for n in range(76))), 431),
            (b"GET / HTTP/1.1\r\nX-Endless: " + b"a" * 700_000, 431),
            (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x" * 700_000, 431),
            (b"\r\n" * 40_000, 431),
        ],
    )
    def test_a_head_has_bounds(self, shared: Served, raw: bytes, status: int) -> None:
        response = shared.ask(raw)
        assert response.status == status
        if status == 431:
            assert response.problem["code"] == "headers_too_large"

    @pytest.mark.parametrize(
        "tail",
        [b"0\r\nTrailer: " + b"a" * 80_000, b"1;" + b"e" * 80_000, b"0" * 80_000],
        ids=["trailer", "extension", "zeros"],
    )
    def test_what_is_neither_head_nor_body_has_bounds(self, shared: Served, tail: bytes) -> None:
        before = len(shared.app.seen)
        response = shared.ask(CHUNKED % b"/echo" + b"4\r\nbody\r\n" + tail)
        assert response.status == 431
        assert shared.arrived(before).done.wait(PATIENCE)
        assert not shared.arrived(before).complete

    def test_only_a_few_heads_may_be_large_at_the_same_time(
        self, authority: Authority | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protocol, "LARGE_HEADS", 1)
        large = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: " % n + b"a" * 8000 + b"\r\n" for n in range(20))
        with _serving(authority) as served, served.connect() as first:
            first.send(large)
            with served.connect() as small:  # answered after the large head was read
                small.send(NEXT)
                assert small.response().status == 200
            assert served.ask(large).status == 431
            first.send(b"\r\n")
            assert first.response().status == 200
            assert served.ask(large + b"\r\n").status == 200

    def test_a_large_body_in_many_small_chunks_is_not_bounded_here(self, shared: Served) -> None:
        response = shared.ask(CHUNKED % b"/echo" + b"1;a=b\r\nx\r\n" * 30_000 + b"0\r\n\r\n")
        assert response.body == b"x" * 30_000

    def test_any_number_of_requests_may_come_ahead_and_few_of_them_wait_parsed(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect() as client:
            client.send(_post(b"/held", 1, b"1"))
            shared.arrived(before)
            client.send(NEXT * 3_000)
            with shared.connect() as probe:  # some of it has been read when this is answered
                probe.send(NEXT)
                assert probe.response().status == 200
            connections = shared.server.server_state.connections
            queued = [len(each.pipeline) for each in connections if isinstance(each, Connection)]
            assert 100 <= max(queued) <= 300
            shared.release()
            assert client.response().body == b"1"
            assert [client.response().status for _ in range(3_000)] == [200] * 3_000
        shared.loop.call_soon_threadsafe(shared.app.release.clear)

    def test_a_body_nobody_wants_is_read_only_so_far(self, shared: Served) -> None:
        with shared.connect() as client:
            client.send(_post(b"/early", 1 << 40))
            assert client.response().status == 413
            with pytest.raises(OSError, match=r"reset|Broken pipe|EOF occurred"):
                client.send(*[b"x" * (1 << 20)] * 64)


class TestRefusals:
    def test_come_after_the_answers_that_are_due(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect() as client:
            client.send(_post(b"/held", 1, b"1") + _post(b"/held", 1, b"2") + b"NONSENSE\r\n\r\n")
            shared.arrived(before)
            client.send(b"more nonsense")
            shared.release()
            answers = [client.response() for _ in range(3)]
            assert [(answer.status, answer.body) for answer in answers[:2]] == [(200, b"1"), (200, b"2")]
            assert answers[2].status == 400
            assert client.rest() == b""
        shared.loop.call_soon_threadsafe(shared.app.release.clear)

    def test_of_a_request_behind_another_do_not_reach_the_application(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect() as client:
            client.send(_post(b"/held", 1, b"1") + CHUNKED % b"/echo" + b"ZZ\r\n")
            shared.arrived(before)
            shared.release()
            assert client.response().body == b"1"
            assert client.response().status == 400
        shared.loop.call_soon_threadsafe(shared.app.release.clear)
        assert [seen.path for seen in shared.app.seen[before:]] == ["/held"]

    def test_of_a_body_end_the_request_that_waits_for_it(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect() as client:
            client.send(CHUNKED % b"/echo?ticket=secret" + b"4\r\nhalf\r\n")
            seen = shared.arrived(before)
            client.send(b"ZZ\r\n")
            response = client.response()
            assert response.status == 400
            assert response.problem["instance"] == "/echo"
            assert seen.done.wait(PATIENCE)
            assert (seen.complete, seen.gone) == (False, True)

    def test_of_a_body_after_its_answer_has_begun_only_end_the_connection(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect() as client:
            client.send(CHUNKED % b"/stream")
            seen = shared.arrived(before)
            assert client.head()[0] == 200
            client.send(b"ZZ\r\n")
            assert client.rest() == b"3\r\none\r\n3\r\ntwo\r\n"
            assert seen.done.wait(PATIENCE)
            assert seen.gone

    def test_of_a_body_after_its_answer_only_end_the_connection(self, shared: Served) -> None:
        with shared.connect() as client:
            client.send(CHUNKED % b"/early")
            assert client.response().status == 413
            client.send(b"ZZ\r\n")
            assert client.rest() == b""

    def test_reach_a_client_that_is_still_sending(self, shared: Served) -> None:
        with shared.connect() as client:
            client.send(b"NONSENSE\r\n\r\n", *[b"x" * 65536] * 30)
            assert client.response().status == 400
            assert client.rest() == b""

    def test_carry_the_request_id_and_the_path_without_the_query(self, shared: Served) -> None:
        problem = shared.ask(
            b"GET /mq/a?ticket=secret HTTP/1.1\r\nX-Request-Id: mine-1\r\nHost: a\r\nHost: b\r\n\r\n"
        ).problem
        assert (problem["request_id"], problem["instance"]) == ("mine-1", "/mq/a")

    @pytest.mark.parametrize(
        ("target", "path"),
        [(b"http://user:secret@a/mq/b?c://d/e", "/mq/b"), (b"user:secret@a", ""), (b"/mq/http://a?/b", "/mq/http://a")],
    )
    def test_carry_the_path_without_user_information(self, shared: Served, target: bytes, path: str) -> None:
        problem = shared.ask(b"GET %b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" % target).problem
        assert problem["instance"] == path

    def test_a_tunnel_is_refused(self, shared: Served) -> None:
        response = shared.ask(b"CONNECT broker:61613 HTTP/1.1\r\nHost: broker\r\n\r\nCONNECT\n\n\0")
        assert (response.status, response.problem["code"]) == (405, "method_not_allowed")
        assert "POST" in response.headers["allow"]


class TestEnds:
    def test_a_stream_learns_that_its_client_is_gone(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect() as client:
            client.send(_get(b"/stream"))
            assert client.head()[0] == 200
        seen = shared.arrived(before)
        assert seen.done.wait(PATIENCE)
        assert seen.gone

    def test_requests_behind_a_stream_end_with_it(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect() as client:
            client.send(_get(b"/flood") + NEXT)
            assert client.head()[0] == 200
        seen = shared.arrived(before)
        assert seen.done.wait(PATIENCE)
        assert seen.gone
        assert len(shared.app.seen) == before + 1

    def test_a_client_that_is_gone_already_is_announced_at_once(self, shared: Served) -> None:
        with shared.connect() as client:
            client.send(_get(b"/late"))
            assert client.response().body == b"called"

    def test_an_abort_frees_the_socket_of_a_stalled_reader(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect(receive_buffer=4096) as client:
            client.send(_get(b"/aborts"))
            assert shared.arrived(before).done.wait(PATIENCE)
            shared.emptied()
            assert int(shared.arrived(before).body) > 1 << 20

    def test_nothing_after_close_is_read(self, shared: Served) -> None:
        before = len(shared.app.seen)
        with shared.connect() as client:
            client.send(_post(b"/echo", 3, b"abc", b"Connection: close") + NEXT)
            assert client.response().body == b"abc"
            assert client.rest() == b""
        assert len(shared.app.seen) == before + 1

    def test_shutdown_takes_the_request_that_has_begun_to_come(self, authority: Authority | None) -> None:
        with (
            _serving(authority) as served,
            served.connect() as half,
            served.connect() as early,
            served.connect() as fresh,
        ):
            half.send(b"GET /half HTTP/1.1\r\n")
            early.send(_post(b"/early", 10, b"x"))
            assert early.response().status == 413
            with served.connect() as probe:  # all of it has been read when this is answered
                probe.send(NEXT)
                assert probe.response().status == 200
            served.server.handle_exit(15, None)
            assert fresh.rest() == b""
            assert early.rest() == b""
            half.send(HOST + b"\r\n")
            response = half.response()
            assert (response.status, response.headers["connection"]) == (200, "close")
            assert half.rest() == b""

    def test_shutdown_still_answers_what_a_busy_connection_sends(self, authority: Authority | None) -> None:
        with _serving(authority) as served, served.connect() as busy, served.connect() as idle:
            for client in (busy, idle):
                client.send(_get(b"/before"))
                assert client.response().status == 200
            served.server.handle_exit(15, None)
            while any(each.is_serving() for each in served.server.servers):
                time.sleep(0.001)  # in the thread of the server
            busy.send(_get(b"/after"))
            response = busy.response()
            assert (response.status, response.headers["connection"]) == (200, "close")
            assert busy.rest() == b""
            assert idle.rest() == b""
