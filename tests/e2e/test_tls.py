"""HTTPS of the gateway's own: handshakes, certificates that are renewed, and what else is not as without it.

What holds for connections with and without TLS is in tests/unit/http1/test_connection.py.
"""

from __future__ import annotations

import _ssl
import asyncio
import contextlib
import ctypes
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from app.http1 import tls as layer
from tests.brokers.tls import Authority, Certificate
from tests.e2e.live_gateway import MEMORY, ROOT, running, write_config
from tests.e2e.replicas import replicas, results, say, take
from tests.e2e.serving import PATIENCE, Client, Seen, Served, TinyApp, serving

GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def hasty(authority: Authority) -> Iterator[Served]:
    with serving(authority=authority, header_timeout=0.3, tls={"hsts_seconds": 600}) as served:
        yield served


def _refused(served: Served, reason: str) -> float:
    registry = served.server._metrics.registry
    return registry.get_sample_value("mq_gateway_refused_connections_total", {"reason": reason}) or 0.0


def _context(authority: Authority, *, highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = authority.client_context()
    context.maximum_version = highest
    return context


def _until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class TestHandshakes:
    def test_only_http_1_1_is_spoken_and_the_application_knows_it_is_https(self, hasty: Served) -> None:
        before = len(hasty.app.seen)
        assert hasty.tls is not None
        hasty.tls.set_alpn_protocols(["h2", "http/1.1"])
        with hasty.connect() as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            assert (client.sock.version(), client.sock.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
            client.send(GET % b"/")
            response = client.response()
        assert (response.status, response.headers["strict-transport-security"]) == (200, "max-age=600")
        scope = hasty.arrived(before).scope
        assert (scope["scheme"], scope["client"][0]) == ("https", "127.0.0.1")
        assert scope["extensions"]["mq_gateway"]["peer"] == "127.0.0.1"

    def test_a_lower_version_than_the_lowest_is_refused(self, authority: Authority) -> None:
        with serving(authority=authority, tls={"min_version": "1.3"}) as served:
            served.tls = _context(authority, highest=ssl.TLSVersion.TLSv1_2)
            with pytest.raises(ssl.SSLError, match=r"(?i)version"):
                served.connect()
            _until(lambda: _refused(served, "handshake") == 1)

    @pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
    def test_who_does_not_finish_is_gone_in_time(self, hasty: Served, said: bytes) -> None:
        before = _refused(hasty, "handshake")
        begun = time.monotonic()
        with hasty.tcp() as sock, contextlib.suppress(ConnectionResetError):
            sock.sendall(said)
            assert sock.recv(1) == b""
        assert 0.2 <= time.monotonic() - begun < 1.5
        assert _refused(hasty, "handshake") == before + 1
        assert not hasty.server.server_state.handshakes

    def test_the_clock_of_a_handshake_is_not_turned_back_by_a_byte_of_it(self, hasty: Served) -> None:
        begun = time.monotonic()
        with hasty.tcp() as sock, contextlib.suppress(OSError):
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500:
                sock.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - begun < 1.5

    def test_plain_http_is_told_so(self, hasty: Served) -> None:
        with Client(hasty.tcp()) as client:
            client.send(GET % b"/")
            response = client.response()
            assert (response.status, response.problem["code"]) == (400, "malformed_request")
            assert "https" in response.problem["detail"]
            assert client.rest() == b""

    def test_noise_gets_an_alert_and_the_end(self, hasty: Served) -> None:
        with Client(hasty.tcp()) as client:
            client.send(b"\x16\x03\x01\x00\x05noise")
            assert client.rest()[:1] in {b"", b"\x15"}

    def test_who_comes_and_goes_is_no_handshake(self, hasty: Served) -> None:
        before = _refused(hasty, "handshake")
        hasty.tcp().close()
        with hasty.connect() as client:
            client.send(GET % b"/")
            assert client.response().status == 200
        _until(lambda: not hasty.server.server_state.handshakes)
        assert _refused(hasty, "handshake") == before

    def test_the_oldest_gives_way(self, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layer, "HANDSHAKES", 3)
        with serving(authority=authority) as served:
            silent = [served.tcp() for _ in range(3)]
            _until(lambda: len(served.server.server_state.handshakes) == 3)
            with served.connect() as client:
                client.send(GET % b"/")
                assert client.response().status == 200
            with pytest.raises(ConnectionResetError):
                silent[0].recv(1)
            assert _refused(served, "full") == 1
            assert len(served.server.server_state.handshakes) == 2
            for sock in silent:
                sock.close()


class Writes(TinyApp):
    """Writes through, and notes what the kernel did not have when each send after the first returned."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent: list[int] = []

    async def on_through(self, _seen: Seen, _receive: Any, send: Any) -> None:
        extension = _seen.scope["extensions"]["mq_gateway"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        extension["write_through"]()
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
            # The next send waits for this one; an empty one is nothing but that.
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            self.unsent.append(extension["write_buffer_size"]())
        await send({"type": "http.response.body", "body": b""})


def test_write_through_returns_when_the_kernel_has_all(authority: Authority) -> None:
    app = Writes()
    with serving(app, authority=authority) as served, served.connect(receive_buffer=4096) as client:
        client.send(GET % b"/through")
        assert client.head()[0] == 200
        size = 0
        while piece := client.chunk():
            size += len(piece)
    assert (size, set(app.unsent), len(app.unsent)) == (1_000_000, {0}, 20)


def test_what_a_stalled_reader_does_not_take_is_not_encrypted(authority: Authority) -> None:
    """So that one message for many readers stays one object."""
    with serving(authority=authority, write_timeout=60) as served, served.connect(receive_buffer=4096) as client:
        client.send(GET % b"/big")
        served.arrived().done.wait(PATIENCE)
        (one,) = served.server.server_state.connections
        transport: Any = one.transport
        _until(lambda: transport.get_write_buffer_size() > 7 << 20)
        below: Any = transport._tcp
        assert below.get_write_buffer_size() < 256 << 10


def test_an_answer_reaches_who_sends_all_before_reading(authority: Authority) -> None:
    with serving(authority=authority) as served, served.connect() as client:
        size = 8 << 20
        client.send(b"POST /early HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        client.send(b"x" * size)
        assert client.response().status == 413
        assert client.rest() == b""


def test_a_record_that_was_tampered_with_ends_the_connection(authority: Authority) -> None:
    with serving(authority=authority) as served, served.connect() as client:
        client.send(GET % b"/")
        assert client.response().status == 200
        os.write(client.sock.fileno(), b"\x17\x03\x03\x00\x20" + b"z" * 32)
        with pytest.raises(ssl.SSLError, match="alert bad record"):
            client.rest()
        served.emptied()


class TestRenewal:
    def test_a_good_pair_is_taken_over_and_a_bad_one_is_not(
        self, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "mq_gateway.tls")
        first, second = authority.server("localhost"), authority.server("localhost", "second.example")
        files = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
        _copy(first, files)
        with serving(authority=authority, tls=_settings(files)) as served, served.connect() as kept:
            assert _names(served) == {"localhost"}
            shutil.copy(second.cert_file, files.cert_file)
            _until(lambda: caplog.messages)
            assert "server.tls.key_file: is not the key of the certificate" in caplog.messages[0]
            assert "PRIVATE" not in caplog.text
            assert _names(served) == {"localhost"}
            begun = time.monotonic()
            shutil.copy(second.key_file, files.key_file)
            _until(lambda: len(_names(served)) == 2)
            assert time.monotonic() - begun < 2
            assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
            ends = second.load()[0].not_valid_after_utc.timestamp()
            assert served.server._metrics.registry.get_sample_value("mq_gateway_certificate_expiry_seconds") == ends
            kept.send(GET % b"/")
            assert kept.response().status == 200
            files.cert_file.unlink()
            _until(lambda: len(caplog.records) == 3)
            assert len(_names(served)) == 2

    def test_a_link_that_is_turned_over_is_a_change(self, authority: Authority, tmp_path: Path) -> None:
        """As Kubernetes renews a mounted secret."""
        for name, issued in (("a", authority.server("localhost")), ("b", authority.server("localhost", "b.example"))):
            (tmp_path / name).mkdir()
            _copy(issued, Certificate(tmp_path / name / "cert.pem", tmp_path / name / "key.pem"))
        link = tmp_path / "now"
        link.symlink_to("a")
        with serving(authority=authority, tls=_settings(Certificate(link / "cert.pem", link / "key.pem"))) as served:
            assert _names(served) == {"localhost"}
            (tmp_path / "next").symlink_to("b")
            (tmp_path / "next").replace(link)
            _until(lambda: len(_names(served)) == 2)


def _copy(issued: Certificate, files: Certificate) -> None:
    shutil.copy(issued.cert_file, files.cert_file)
    shutil.copy(issued.key_file, files.key_file)


def _settings(files: Certificate) -> dict[str, Path]:
    return {"cert_file": files.cert_file, "key_file": files.key_file}


def _names(served: Served) -> set[str]:
    with served.connect() as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        found = client.sock.getpeercert() or {}
        return {str(value) for _, value in found["subjectAltName"]}  # type: ignore[str-unpack]


async def test_replicas_that_speak_https_ask_each_other(authority: Authority, tmp_path: Path) -> None:
    async with replicas(tmp_path, authority=authority) as (here, there):
        (lease,) = await take(there)
        assert results(await say(here, "ack", lease)) == ["done"]


async def _command(*words: str, **environment: str) -> tuple[int, str, str]:
    env = {"PATH": os.environ["PATH"], **environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", *words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_process_with_its_commands_and_its_end(authority: Authority, tmp_path: Path) -> None:
    """The commands trust what SSL_CERT_FILE says, and nobody else; a stream over TLS ends in the drain."""
    issued = authority.server()
    tls = {"cert_file": str(issued.cert_file), "key_file": str(issued.key_file)}
    config = write_config(tmp_path, {"mem": MEMORY}, server={"tls": tls, "drain_seconds": 5})
    async with running(config) as gateway:
        words = ("publish", "mem::Queues::jobs", "hello", "--url", f"https://127.0.0.1:{gateway.port}")
        assert (await _command(*words, SSL_CERT_FILE=str(authority.ca_file)))[0] == 0
        code, _, err = await _command(*words)
        assert (code, "certificate" in err.lower(), err.count("\n")) == (1, True, 1)
        code, _, err = await _command(*words, SSL_CERT_FILE=str(tmp_path / "none.pem"))
        assert (code, "SSL_CERT_FILE" in err, err.count("\n")) == (1, True, 1)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", gateway.port, ssl=authority.client_context(), server_hostname="localhost"
        )
        writer.write(GET % b"/mq/mem/Topics/news/events")
        await reader.readuntil(b"welcome")
        gateway.signal(signal.SIGTERM)
        assert (await asyncio.wait_for(reader.read(), PATIENCE)).endswith(b"0\r\n\r\n")
        writer.close()
        assert await gateway.ended(PATIENCE) == 0


@pytest.mark.parametrize(
    ("spoil", "option", "reason"),
    [
        (lambda files, other: shutil.copy(other.key_file, files.key_file), "key_file", "is not the key"),
        (lambda files, _: files.cert_file.write_text("nothing"), "cert_file", "holds no PEM certificate"),
        (lambda files, _: files.key_file.write_text("nothing"), "key_file", "holds no PEM key"),
        (lambda files, _: _encrypt(files), "key_file", "pass phrase"),
        (lambda files, _: files.key_file.unlink(), "key_file", "is not a readable file"),
    ],
)
async def test_files_that_cannot_be_used_are_one_line(
    authority: Authority, tmp_path: Path, spoil: Callable[[Certificate, Certificate], object], option: str, reason: str
) -> None:
    files = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    _copy(authority.server(), files)
    spoil(files, authority.server("other.example"))
    tls = {name: str(path) for name, path in _settings(files).items()}
    config = str(write_config(tmp_path, {"mem": MEMORY}, server={"tls": tls}))
    for words in (("check", "--config", config), ("serve", "--config", config, "--port", "0")):
        code, out, err = await _command(*words)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert f"server.tls.{option}" in err
        assert reason in err


def _encrypt(files: Certificate) -> None:
    _, key = files.load()
    locked = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    files.key_file.write_bytes(pem)


def test_nothing_of_a_client_without_tls_is_left(hasty: Served) -> None:
    for _ in range(20):
        with hasty.tcp() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    _until(lambda: not hasty.server.server_state.handshakes)
    hasty.emptied()


class KeyUpdates:
    """A client of OpenSSL itself: Python's module has no word for a KeyUpdate (RFC 8446 section 4.6.3)."""

    def __init__(self, port: int) -> None:
        self._lib = library = ctypes.CDLL(_ssl.__file__)
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new", "BIO_new", "BIO_s_mem"):
            getattr(library, name).restype = ctypes.c_void_p
        self._ssl = ctypes.c_void_p(library.SSL_new(ctypes.c_void_p(self._context())))
        self._in, self._out = (ctypes.c_void_p(library.BIO_new(ctypes.c_void_p(library.BIO_s_mem()))) for _ in "io")
        library.SSL_set_bio(self._ssl, self._in, self._out)
        library.SSL_set_connect_state(self._ssl)
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        while library.SSL_do_handshake(self._ssl) != 1:
            self.sock.sendall(self._said())
            came = self.sock.recv(65536)
            library.BIO_write(self._in, came, len(came))
        self.sock.sendall(self._said())

    def _context(self) -> int:
        method = ctypes.c_void_p(self._lib.TLS_client_method())
        return int(self._lib.SSL_CTX_new(method))

    def _said(self) -> bytes:
        buffer = ctypes.create_string_buffer(16384)
        size = self._lib.BIO_read(self._out, buffer, len(buffer))
        return buffer.raw[: max(size, 0)]

    def updates(self, number: int) -> bytes:
        """So many of them, to which nothing is to be answered."""
        made = []
        for _ in range(number):
            assert self._lib.SSL_key_update(self._ssl, 0) == 1
            self._lib.SSL_do_handshake(self._ssl)
            made.append(self._said())
        return b"".join(made)


def test_a_client_that_changes_keys_and_says_nothing_is_cut_off(authority: Authority) -> None:
    """Each is as dear as a request. A few are nobody's business."""
    with serving(authority=authority, header_timeout=60, idle_timeout=60) as served:
        client = KeyUpdates(served.port)
        client.sock.sendall(client.updates(100))
        assert served.ask(GET % b"/echo").status == 200
        with contextlib.suppress(ConnectionError):
            client.sock.sendall(client.updates(20_000))
            while client.sock.recv(65536):
                pass
        served.emptied()
        client.sock.close()
