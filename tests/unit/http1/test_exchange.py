"""One request and its response: framing, failures, ASGI's rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.serving import PATIENCE, Response, Seen, Served, TinyApp, serving

HOST = b"Host: 127.0.0.1\r\n"
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}


class Odd(TinyApp):
    """Answers in ways that frameworks do not."""

    async def on_events(self, seen: Seen, receive: Any, send: Any) -> None:
        """Plays the events the test has left in `script`."""
        for event in self.script:
            await send(event)

    script: tuple[dict[str, Any], ...] = ()


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with serving(Odd()) as served:
        yield served


def _play(served: Served, *events: dict[str, Any], method: bytes = b"GET") -> Response:
    assert isinstance(served.app, Odd)
    served.app.script = events
    with served.connect() as client:
        client.send(method + b" /events HTTP/1.1\r\n" + HOST + b"\r\n")
        status, headers = client.head()
        if method == b"HEAD" or status in {204, 304}:
            return Response(status, headers, b"")
        return Response(status, headers, client.rest())


def _start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _body(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection(shared: Served) -> None:
    with shared.connect() as client:
        client.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        status, headers = client.head()
        assert (status, headers["connection"]) == (200, "close")
        assert not {"transfer-encoding", "content-length"} & set(headers)
        assert client.file.read(6) == b"onetwo"
        shared.release()
        assert client.rest() == b"three"
    shared.loop.call_soon_threadsafe(shared.app.release.clear)


def test_http_1_0_gets_a_length_where_there_is_one(shared: Served) -> None:
    with shared.connect() as client:
        client.send(b"POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
        response = client.response()
        assert (response.body, response.headers["connection"]) == (b"abc", "close")
        assert client.rest() == b""


def test_http_1_0_sees_a_broken_stream_as_broken(shared: Served) -> None:
    with shared.connect() as client:
        client.send(b"GET /crash-late HTTP/1.0\r\n\r\n")
        assert client.head()[0] == 200
        assert client.file.read(4) == b"half"
        with pytest.raises(ConnectionResetError):
            client.sock.recv(1)


def test_a_broken_stream_has_no_last_chunk(shared: Served) -> None:
    with shared.connect() as client:
        client.send(b"GET /crash-late HTTP/1.1\r\n" + HOST + b"\r\n")
        assert client.head()[0] == 200
        assert client.rest() == b"4\r\nhalf\r\n"


@pytest.mark.parametrize("path", [b"/crash", b"/silent"])
def test_a_failure_of_the_application_is_a_problem_without_details(shared: Served, path: bytes) -> None:
    with shared.connect() as client:
        client.send(b"GET " + path + b"?ticket=secret HTTP/1.1\r\n" + HOST + b"X-Request-Id: r-1\r\n\r\n")
        response = client.response()
        assert response.status == 500
        assert (response.problem["code"], response.problem["request_id"]) == ("internal", "r-1")
        assert b"LookupError" not in response.body
        assert b"secret" not in response.body
        assert client.rest() == b""


def test_every_answer_has_a_date_and_our_name(shared: Served) -> None:
    headers = shared.ask(b"GET /echo HTTP/1.1\r\n" + HOST + b"\r\n").headers
    assert headers["server"] == "mq-gateway"
    assert headers["date"].endswith(" GMT")


def test_the_server_frames_not_the_application(shared: Served) -> None:
    response = _play(
        shared,
        _start((b"transfer-encoding", b"gzip"), (b"Connection", b"Close")),
        _body(b"abc", more=True),
        _body(more=True),
        _body(b"d"),
    )
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.headers["connection"] == "close"
    assert response.body == b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_some_answers_have_no_body(shared: Served, method: bytes, status: int) -> None:
    assert isinstance(shared.app, Odd)
    shared.app.script = (_start(status=status), _body(b"not to be seen"))
    with shared.connect() as client:
        for _ in range(2):
            client.send(method + b" /events HTTP/1.1\r\n" + HOST + b"\r\n")
            found, headers = client.head()
            assert found == status
            assert "transfer-encoding" not in headers


@pytest.mark.parametrize("body", [b"b", b"bcd"])
def test_a_body_of_another_length_than_announced_ends_the_connection(shared: Served, body: bytes) -> None:
    head = _start((b"content-length", b"3"), (b"connection", b"close"))
    response = _play(shared, head, _body(b"a", more=True), _body(body))
    assert response.status == 200
    assert len(response.body) < 3


@pytest.mark.parametrize("body", [b"ab", b"abcd"])
def test_a_head_of_which_nothing_was_said_yet_is_replaced(shared: Served, body: bytes) -> None:
    response = _play(shared, _start((b"content-length", b"3"), (b"connection", b"close")), _body(body))
    assert (response.status, response.problem["code"]) == (500, "internal")


def test_a_head_and_the_first_of_its_body_are_one_segment(shared: Served) -> None:
    """Ten times: two calls of the kernel would be seen apart in some of them."""
    assert isinstance(shared.app, Odd)
    shared.app.script = (_start(), _body(b"first", more=True), _body(b"rest"))
    with shared.connect() as client:
        for _ in range(10):
            client.send(b"GET /events HTTP/1.1\r\n" + HOST + b"\r\n")
            received = client.sock.recv(65536)
            assert b"5\r\nfirst\r\n" in received
            while not received.endswith(b"0\r\n\r\n"):
                received += client.sock.recv(65536)


@pytest.mark.parametrize(
    "events",
    [
        (_body(b"too early"),),
        (_start((b"bad name", b"x")),),
        (_start((b"x", b"bad\r\nvalue: 1")),),
        (_start((b"content-length", b"many")),),
    ],
)
def test_an_answer_that_cannot_begin_is_a_500(shared: Served, events: tuple[dict[str, Any], ...]) -> None:
    response = _play(shared, *events)
    assert response.status == 500


def test_nothing_can_follow_a_whole_answer(shared: Served) -> None:
    response = _play(shared, _start((b"connection", b"close")), _body(b"abc"), _body(b"more"))
    assert response.body == b"3\r\nabc\r\n0\r\n\r\n"


def test_100_continue_comes_when_the_application_reads(shared: Served) -> None:
    with shared.connect() as client:
        client.send(b"POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n" + HOST + b"\r\n")
        assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert client.file.readline() == b"\r\n"
        client.send(b"abc")
        response = client.response()
        assert response.body == b"abc"
        assert "connection" not in response.headers


def test_an_answer_instead_of_100_continue_ends_the_connection(shared: Served) -> None:
    with shared.connect() as client:
        client.send(b"POST /early HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n" + HOST + b"\r\n")
        response = client.response()
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert client.rest() == b""


def test_a_cancelled_request_ends_its_connection(shared: Served) -> None:
    before = len(shared.app.seen)
    with shared.connect() as client:
        client.send(b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n")
        seen = shared.arrived(before)
        assert client.head()[0] == 200

        def cancel() -> None:
            for task in shared.server.server_state.tasks:
                task.cancel()

        shared.loop.call_soon_threadsafe(cancel)
        assert b"0\r\n\r\n" not in client.rest()
        assert seen.done.wait(PATIENCE)
