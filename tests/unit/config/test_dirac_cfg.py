"""DIRAC's CFG syntax."""

from __future__ import annotations

import diraccfg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.dirac_cfg import CfgSection, parse_cfg
from app.config.errors import ConfigError
from tests.fuzz import cfg


def _plain(section: CfgSection) -> dict[str, object]:
    options: dict[str, object] = {name: option.value for name, option in section.options.items()}
    return options | {name: _plain(inner) for name, inner in section.sections.items()}


@pytest.mark.parametrize(
    "content",
    [
        "a {\n x = 1\n}\n",
        "a\n{\n x = 1\n x = 2\n}\n",
        "a\n{\n x = 1\n x += 2\n}",
        "x=1\nx +=2\n",
        "a {}\n",
        "a { }",
        "a\n{\nb {\n}\n}",
        "x = a=b",
        "x =",
        "x = {a}",
        "x = }",
        "x = 1 # c",
        "# x = 1\ny = 2",
        "  # indented\ny = 2",
        "a { # c\nx=1\n}",
        "a b\n{\nx=1\n}",
        "a\n\n#c\n{\nx=1\n}",
        "x = a,b,\ny=2",
        'x = "q"',
        "x = 1\r\ny = 2\r\n",
        "x == 1",
        "x = a\x0bb\x0cc\x1cd\x85e\u2028f",
        "",
    ],
)
def test_reads_as_diracs_own_parser_does(content: str) -> None:
    assert _plain(parse_cfg("x", content)) == diraccfg.CFG().loadFromBuffer(content).getAsDict("/")


_names = st.text("abcXYZ019.-_", min_size=1, max_size=6)
_values = st.text("abc 0#{}=,+/'\"é", max_size=12).map(str.strip)
_trees = st.recursive(
    st.dictionaries(_names, _values, max_size=3), lambda inner: st.dictionaries(_names, inner | _values, max_size=3)
)


def _written(tree: dict[str, object], indent: str = "") -> str:
    lines = []
    for name, value in tree.items():
        body = f"\n{indent}{{\n{_written(value, indent + '  ')}{indent}}}" if isinstance(value, dict) else f" = {value}"
        lines.append(f"{indent}{name}{body}\n")
    return "".join(lines)


@given(_trees)
def test_any_tree_comes_back_as_written_and_as_diracs_own_parser_reads_it(tree: dict[str, object]) -> None:
    content = _written(tree)
    read = _plain(parse_cfg("x", content))
    assert read == tree
    assert read == diraccfg.CFG().loadFromBuffer(content).getAsDict("/")


@given(st.text("ab{}=#+ \n", max_size=40))
def test_any_text_is_read_or_refused_with_a_line(content: str) -> None:
    try:
        parse_cfg("x", content)
    except ConfigError as error:
        place = error.problems[0].place
        assert place is not None
        assert place.line is not None
        assert 1 <= place.line <= content.count("\n") + 1


#: Lines that mean the same to DIRAC's own parser, and ways to write them.
_SHARED = st.lists(
    st.sampled_from(
        [
            *("a", "b", "{", "}", "a {", "b {", "a{}", "b { }", "# x = {", "  #", ""),
            *("x = 1", "x=2 # c", "y = {a} = }", "y ==", "x = a+=b", '  z  =  "q, r"  ', "é = ü"),
        ]
    ),
    max_size=14,
)


@given(_SHARED, st.sampled_from(["\n", "\r\n", "\n\n", "  \n\t"]))
def test_what_both_read_they_read_alike(lines: list[str], end: str) -> None:
    # It compares with DIRAC's parser where both accept the file.
    cfg.check(end.join(lines).encode())


_SECRET = "hunter2-" + "x" * 8
_ANY_LINE = st.sampled_from(
    [
        *(f"Password{operator}{_SECRET}{end}" for operator in (" = ", " += ", "=", " ") for end in ("", " # c", "#")),
        *(f"= {_SECRET}", f"# {_SECRET}", _SECRET, "a", "a { }", "a {", "{", "}", "b", "x = 1", "}}", "{{", ""),
    ]
)


def _told(content: str) -> str:
    """All that anybody is told of a file: what is wrong with it, or its representation."""
    try:
        return repr(parse_cfg("x", content))
    except ConfigError as error:
        return f"{error} {error.problems}"


@given(st.lists(_ANY_LINE, max_size=10))
def test_no_value_and_no_stray_text_is_ever_told(lines: list[str]) -> None:
    assert _SECRET not in _told("\n".join(lines))


@given(st.text(max_size=60))
def test_no_text_at_all_breaks_it(content: str) -> None:
    cfg.read(content)


def test_is_kinder_than_diracs_own_parser_where_the_meaning_is_clear() -> None:
    assert _plain(parse_cfg("x", "x += 1\na { b { } }\nc\n{\n} # closed\n")) == {"x": "1", "a": {"b": {}}, "c": {}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a\n{\nx = 1\n", "x:1: the section is never closed"),
        ("a\n{\n}\n}", "x:4: `}` closes nothing"),
        ("{\n}", "x:1: `{` without a section name before it"),
        ("a{}\nb{}\na{}\n", "x:3: section a appears twice, first on line 1"),
        ("= 1", "x:1: an option without a name"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(content: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cfg("x", content)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "content", ["a\n{\nPassword hunter2\n}", "Password hunter2\nx = 1", "hunter2\nb\n{\n}", "hunter2"]
)
def test_a_stray_line_is_told_by_number_only(content: str) -> None:
    with pytest.raises(ConfigError, match=r"^x:\d: neither `option = value` nor a section") as caught:
        parse_cfg("x", content)
    assert "hunter2" not in str(caught.value)


def test_finds_sections_and_places() -> None:
    cfg = parse_cfg("x", "Resources\n{\n  MQServices\n  {\n    Port = 1\n  }\n}\n")
    found = cfg.find("/Resources/MQServices")
    assert found is not None
    assert (found.place.line, found.options["Port"].place.line) == (3, 5)
    assert cfg.find("Resources/Nothing/Deeper") is None


def test_merging_takes_the_later_options_and_both_ones_sections() -> None:
    first = parse_cfg("a", "s\n{\n x = 1\n y = 1\n t { }\n}\n")
    first.merge(parse_cfg("b", "s\n{\n y = 2\n u { }\n}\nv { }\n"))
    assert _plain(first) == {"s": {"x": "1", "y": "2", "t": {}, "u": {}}, "v": {}}


def test_values_are_not_in_the_representation() -> None:
    assert "hunter2" not in repr(parse_cfg("x", "Password = hunter2"))
