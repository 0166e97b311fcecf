"""The rules of the house: that they see what they should, and that this source obeys them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.house import main, problems

APP = Path(__file__).parents[3] / "app"


def tree(folder: Path, **files: str) -> Path:
    """A package `app` of these files; `__` in a keyword stands for `/`."""
    root = folder / "app"
    for name, text in {"_init_": "", **files}.items():
        path = root / ("__init__.py" if name == "_init_" else f"{name.replace('__', '/')}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_source_obeys() -> None:
    assert problems(APP) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"domain__x": "from app.wire import y", "wire__y": ""}, "imports app.wire.y, which is not on a lower floor"),
        ({"domain__x": "from app.wire.y import f", "wire__y": "def f(): ..."}, "imports app.wire.y"),
        ({"domain__x": "import app.wire.y", "wire__y": ""}, "imports app.wire.y"),
        ({"domain__x": "from ..wire import y", "wire__y": ""}, "imports app.wire.y"),
        ({"config__x": "from app.wire import y", "wire__y": ""}, "imports app.wire.y"),
        ({"cellar__x": ""}, "the package 'cellar' has no floor"),
        ({"wire__x": "from app.wire import y", "wire__y": "from app.wire import x"}, "import circle"),
        ({"wire__x": "def f():\n    import os"}, "import inside the function f"),
        ({"wire__x": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import os"}, "TYPE_CHECKING"),
        ({"wire__x": "import typing\nif typing.TYPE_CHECKING:\n    import os"}, "TYPE_CHECKING"),
        ({"wire__x": "\n" * 301}, "301 lines, more than 300"),
        ({"wire__x": "def f():\n" + "    ...\n" * 40}, "f has 41 lines, more than 40"),
        ({"wire__x": "def f():\n" + "    ...\n" * 8}, "the median function has 9 lines"),
        (
            {"wire__x": "def f(): ...\n" * 8 + ("def g():\n" + "    ...\n" * 25) * 2},
            "90th percentile of functions is 26",
        ),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert [line for line in problems(tree(tmp_path, **files)) if expected in line]


@pytest.mark.parametrize(
    "files",
    [
        {"wire__x": "from app.domain import y", "domain__y": ""},
        {"wire__x": "from app.wire.y import f\nfrom . import y\nimport os", "wire__y": "def f(): ..."},
        {"main": "from app import __init__\nfrom app.api.x import f", "api__x": "f = 1"},
    ],
)
def test_what_is_allowed_is_not_named(tmp_path: Path, files: dict[str, str]) -> None:
    assert problems(tree(tmp_path, **files)) == []


def test_the_report_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tree(tmp_path, domain__x="def f(): ...")) == 0
    assert capsys.readouterr().out == "house: 1 functions, median 1 lines, 90th percentile 1, 0 problems\n"
    assert main(tree(tmp_path, domain__x="from app.wire import y", wire__y="")) == 1
    assert "1 problems" in capsys.readouterr().out
