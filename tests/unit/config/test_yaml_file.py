"""YAML to a document."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config.errors import ConfigError, Place
from app.config.yaml_file import parse_yaml, read_text


def test_scalars_stay_text_and_null_is_unset() -> None:
    content = "a: 0123\nno: yes\nb: [1.50, true, ~]\nc:\nd: ''\ne: 'null'\nf: null\n"
    assert parse_yaml("x", content).values == {
        "a": "0123",
        "no": "yes",
        "b": ["1.50", "true", None],
        "c": None,
        "d": "",
        "e": "null",
        "f": None,
    }


def test_every_key_knows_its_line() -> None:
    document = parse_yaml("x.yaml", "server:\n  port: 1\nservices: {a: {host: h}}\n")
    assert document.place(("server", "port")) == Place("x.yaml", 2)
    assert document.place(("services", "a", "host", "deeper")) == Place("x.yaml", 3)


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_sets_nothing(content: str) -> None:
    assert parse_yaml("x", content).values == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "x:3: a: given twice, first on line 1"),
        ("a:\n  b: 1\n  b: 2\n", "x:3: a.b: given twice, first on line 2"),
        ("- a\n", "x:1: the top of the file must be a section"),
        ("a\n", "x:1: the top of the file must be a section"),
        ("? [a]\n: 1\n", "x:1: a key must be text"),
        ("a: 1\n---\nb: 2\n", "x:2: not YAML: but found another document"),
        ("a:\n\t- b\n", "x:2: not YAML: found character '\\t' that cannot start any token"),
        ("a: \x01\n", "x: contains a character that YAML does not allow"),
        ("a: 1\nb: *hunter2\n", "x:2: a value that begins with `*` needs quotes"),
        ("a: 1\nb: !hunter2\n", "x:2: b: a value that begins with `!` needs quotes"),
        ("&x a: [*x, &y [*y]]\n", "x:1: too deep or too large"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(content: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml("x", content)
    assert str(caught.value) == problem


def test_aliases_work_but_do_not_explode() -> None:
    assert parse_yaml("x", "a: &x {p: 1}\nb: *x\n").values == {"a": {"p": "1"}, "b": {"p": "1"}}
    doubling = "".join(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(ConfigError, match="too deep or too large"):
        parse_yaml("x", f"k0: &a0 [x]\n{doubling}")


def test_reads_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\n")
    assert read_text(file) == "a: é\n"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read: No such file"):
        read_text(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"a\.yaml: is not UTF-8"):
        read_text(file)
