"""Who is behind a proxy, and who only says so."""

from __future__ import annotations

import pytest

from app.http1.forwarded import MAX_ENTRIES, Proxies, Seen, read_address

PROXY = "10.0.0.1"
TRUSTED = Proxies.of(["10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120"])


def _look(*headers: tuple[str, str], peer: str = PROXY) -> Seen:
    return TRUSTED.look_through(peer, [(name.encode(), value.encode("latin-1")) for name, value in headers])


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("2001:db8::7", True),
        ("192.0.2.9", True),
        ("::ffff:192.0.2.9", True),
        ("192.0.3.9", False),
        ("11.0.0.1", False),
        ("2001:db9::7", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("testclient", False),
    ],
)
def test_whose_word_counts(peer: str, *, trusted: bool) -> None:
    assert TRUSTED.trusts(peer) is trusted
    assert not Proxies().trusts(peer)


def test_a_link_local_proxy_is_one_on_any_interface() -> None:
    assert Proxies.of(["fe80::1"]).trusts("fe80::1%eth0")


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7 ", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2a00::1]:4711", "2a00::1"),
        ("[2a00::1]", "2a00::1"),
        ("2a00::1", "2a00::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        # What a client writes stands left of what the proxy saw.
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),
        ("1.2.3.4, 203.0.113.7, 10.0.0.2, 2001:db8::2", "203.0.113.7"),
        ('", 203.0.113.7', "203.0.113.7"),
        # All are trusted: the farthest of them asked by itself.
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # Junk ends the walk.
        ("1.2.3.4, unknown, 10.0.0.2", "10.0.0.2"),
        ("1.2.3.4,, 10.0.0.2", "10.0.0.2"),
        ("1.2.3.4, 10.0.0.2,", PROXY),
        ("garbage", PROXY),
        ("fe80::1%25<b>", PROXY),
        ("[2a00::1", PROXY),
        ("[2a00::1]x", PROXY),
        ("203.0.113.7:port", PROXY),
        ("203.0.113.7:\u00b2", PROXY),
        ("x" * 100, PROXY),
        ("", PROXY),
    ],
)
def test_the_client_of_x_forwarded_for(value: str, client: str) -> None:
    assert _look(("x-forwarded-for", value)) == Seen(client, None)


def test_several_lines_are_one_list() -> None:
    lines = [("x-forwarded-for", "1.2.3.4"), ("x-other", "y"), ("x-forwarded-for", "203.0.113.7, 10.0.0.2")]
    assert _look(*lines).address == "203.0.113.7"
    assert _look(*lines[:2], ("x-forwarded-for", "10.0.0.2")).address == "1.2.3.4"


def test_a_chain_is_followed_only_so_far() -> None:
    trusted = ", ".join(f"10.0.1.{number}" for number in range(MAX_ENTRIES, 0, -1))
    assert _look(("x-forwarded-for", f"203.0.113.7, {trusted}")).address == f"10.0.1.{MAX_ENTRIES}"
    assert _look(("x-forwarded-for", f"203.0.113.7, {trusted.partition(', ')[2]}")).address == "203.0.113.7"


def test_an_endless_list_is_cut_between_two_entries() -> None:
    assert _look(("x-forwarded-for", "1" * 9000 + "1.2.3.4, 10.0.0.2")).address == "10.0.0.2"
    assert _look(("x-forwarded-for", "1" * 9000)).address == PROXY


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("https", "https"), ("HTTP", "http"), ("http, https", "https"), ("https,", None), ("wss", None), ("", None)],
)
def test_the_scheme(value: str, scheme: str | None) -> None:
    assert _look(("x-forwarded-proto", value)) == Seen(PROXY, scheme)


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("for=203.0.113.7;proto=https", Seen("203.0.113.7", "https")),
        ('For="[2a00::1]:4711" ; Proto=HTTP; by=10.0.0.1', Seen("2a00::1", "http")),
        ("for=1.2.3.4, for=203.0.113.7;proto=https", Seen("203.0.113.7", "https")),
        ("for=203.0.113.7;proto=http, for=10.0.0.2;proto=https", Seen("203.0.113.7", "https")),
        ("for=1.2.3.4, for=_hidden, for=10.0.0.2", Seen("10.0.0.2", None)),
        ("for=unknown;proto=https", Seen(PROXY, "https")),
        # An open quote of the client's swallows nothing of what the proxy adds.
        ('for="1.2.3.4, for=203.0.113.7', Seen("203.0.113.7", None)),
        ('for="1.2.3.4, for="[2a00::1]:1";proto=https', Seen("2a00::1", "https")),
        ('host="a,b";for=203.0.113.7', Seen("203.0.113.7", None)),
        ("", Seen(PROXY, None)),
        (";;=,", Seen(PROXY, None)),
    ],
)
def test_forwarded(value: str, seen: Seen) -> None:
    assert _look(("forwarded", value)) == seen


def test_x_forwarded_for_outweighs_forwarded() -> None:
    both = ("forwarded", "for=1.2.3.4;proto=https"), ("x-forwarded-for", "203.0.113.7")
    assert _look(*both) == Seen("203.0.113.7", None)


def test_the_scheme_of_x_forwarded_proto_outweighs_that_of_forwarded() -> None:
    assert _look(("forwarded", "for=1.2.3.4;proto=https"), ("x-forwarded-proto", "http")) == Seen("1.2.3.4", "http")


@pytest.mark.parametrize("text", ["1.2.3.4:", "[::1]:"])
def test_an_empty_port_is_none(text: str) -> None:
    assert read_address(text) is not None
