"""Listening sockets: addresses, ports, options."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from contextlib import closing
from typing import Any
from unittest.mock import Mock

import pytest
import uvloop

from app.http1.sockets import SEND_BUFFER, USER_TIMEOUT, listen, reset, url_of


def _infos(*addresses: tuple[int, tuple[Any, ...]]) -> Any:
    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in addresses]

    return getaddrinfo


def test_accepted_sockets_have_the_options() -> None:
    (listening,) = listen("127.0.0.1", 0)
    with closing(listening):
        listening.listen()
        with socket.create_connection(listening.getsockname()), closing(listening.accept()[0]) as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SEND_BUFFER
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_every_address_of_a_name_gets_the_same_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = _infos((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("127.0.0.2", 0)))
    monkeypatch.setattr(socket, "getaddrinfo", infos)
    first, second = listen("both", 0)
    with closing(first), closing(second):
        assert first.getsockname()[0] == "127.0.0.1"
        assert second.getsockname() == ("127.0.0.2", first.getsockname()[1])


def test_an_address_this_machine_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    infos = _infos((socket.AF_INET, ("192.0.2.1", 0)), (socket.AF_INET, ("127.0.0.1", 0)))
    monkeypatch.setattr(socket, "getaddrinfo", infos)
    (only,) = listen("both", 0)
    with closing(only):
        assert url_of(only) == f"http://127.0.0.1:{only.getsockname()[1]}"


def test_no_address_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _infos((socket.AF_INET, ("192.0.2.1", 0))))
    with pytest.raises(OSError, match="assign") as error:
        listen("192.0.2.1", 0)
    assert error.value.errno == errno.EADDRNOTAVAIL


def test_one_taken_address_is_an_error_and_frees_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken, socket.socket() as probe:
        port = taken.getsockname()[1]
        infos = _infos((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("127.0.0.2", port)))
        monkeypatch.setattr(socket, "getaddrinfo", infos)
        with pytest.raises(OSError, match="in use"):
            listen("both", port)
        probe.bind(("127.0.0.1", port))


def test_without_tcp_user_timeout_the_system_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    (listening,) = listen("127.0.0.1", 0)
    with closing(listening):
        assert listening.getsockopt(socket.IPPROTO_TCP, 18) == 0


@pytest.mark.parametrize(
    ("family", "host", "url"),
    [
        (socket.AF_INET, "127.0.0.1", "http://127.0.0.1:80"),
        (socket.AF_INET, "0.0.0.0", "http://127.0.0.1:80"),
        (socket.AF_INET, "192.0.2.7", "http://192.0.2.7:80"),
        (socket.AF_INET6, "::", "http://[::1]:80"),
        (socket.AF_INET6, "2001:db8::1", "http://[2001:db8::1]:80"),
    ],
)
def test_the_url_leads_to_the_server(family: int, host: str, url: str) -> None:
    class Bound:
        def __init__(self) -> None:
            self.family = family

        def getsockname(self) -> tuple[str, int]:
            return (host, 80)

    bound: Any = Bound()
    assert url_of(bound) == url


def test_an_ipv6_socket_leaves_ipv4_alone() -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    (listening,) = listen("::1", 0)
    with closing(listening):
        assert listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert url_of(listening).startswith("http://[::1]:")


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_reset_throws_away_what_is_unsent_and_copes_with_a_socket_that_is_gone() -> None:
    gone = Mock()
    gone.setsockopt.side_effect = OSError(errno.EBADF, "gone")
    for made in (Mock(), gone, None):
        transport = Mock()
        transport.get_extra_info.return_value = made
        reset(transport)
        assert transport.abort.call_count == 1
        if made is not None:
            made.setsockopt.assert_called_once_with(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_reset_of_what_uvloop_has_closed_already_is_nothing() -> None:
    """uvloop's transport keeps its socket object when the descriptor is gone: two deadlines may end one client."""

    async def twice() -> None:
        gone = asyncio.Event()

        class Client(asyncio.Protocol):
            def connection_lost(self, _exc: Exception | None) -> None:
                gone.set()

        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            transport, _ = await loop.create_connection(Client, *listening.getsockname())
            reset(transport)
            async with asyncio.timeout(5):
                await gone.wait()
            reset(transport)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(twice())
