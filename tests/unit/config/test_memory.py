"""The memory limit of the process's control group."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config.memory import container_memory


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "1000\n"}, 1000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "700\n", "memory.max": "900\n"}, 700),
        ("0::/host/path\n", {"memory.max": "500\n"}, 500),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {}, None),
        ("4:cpu:/x\n3:memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "300\n"}, 300),
        ("3:cpu,memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "300\n"}, None),
        ("", {"memory.max": "1000"}, None),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, groups: str, files: dict[str, str], limit: int | None) -> None:
    root = tmp_path / "cgroup"
    for name, text in files.items():
        _write(root / name, text)
    _write(tmp_path / "self", groups)
    assert container_memory(tmp_path / "self", root) == limit


def test_a_machine_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert container_memory(tmp_path / "none", tmp_path) is None
