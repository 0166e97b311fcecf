"""TOML to a document."""

from __future__ import annotations

import pytest

from app.config.errors import ConfigError, Place
from app.config.toml_file import parse_toml

_SAMPLE = """
top = 1
[server]
port = 9000          # a comment
ratio = 1.50
[services."a.b"] # another
host = "h"
tls.verify = true
queues = {jobs = {prefetch = 3}}
[services.c.queues.q]
since = 2026-01-02
text = '''
host = "not a key"
'''
= nonsense inside is refused by the parser
"""


def test_scalars_become_text() -> None:
    document = parse_toml("x", _SAMPLE.rsplit("=", 1)[0])
    assert document.values == {
        "top": "1",
        "server": {"port": "9000", "ratio": "1.50"},
        "services": {
            "a.b": {"host": "h", "tls": {"verify": "true"}, "queues": {"jobs": {"prefetch": "3"}}},
            "c": {"queues": {"q": {"since": "2026-01-02", "text": 'host = "not a key"\n'}}},
        },
    }


def test_keys_know_their_lines() -> None:
    document = parse_toml("x", _SAMPLE.rsplit("=", 1)[0])
    assert document.place(("top",)) == Place("x", 2)
    assert document.place(("server", "port")) == Place("x", 4)
    assert document.place(("services", "a.b")) == Place("x", 6)
    assert document.place(("services", "a.b", "tls", "verify")) == Place("x", 8)
    assert document.place(("services", "a.b", "queues", "jobs", "prefetch")) == Place("x", 9)
    assert document.place(("elsewhere",)) == Place("x")


def test_a_line_that_only_looks_like_a_key_does_no_harm() -> None:
    document = parse_toml("x", "a = '''\n. = 1\n[b\n'''\n")
    assert document.values == {"a": ". = 1\n[b\n"}


def test_what_is_wrong_is_told_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_toml("x", _SAMPLE)
    assert str(caught.value).startswith("x:15: not TOML: ")
    with pytest.raises(ConfigError, match=r"^x:?[0-9]*: not TOML: "):
        parse_toml("x", "a = ")
