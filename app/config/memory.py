"""How much memory the machine grants this process (Linux control groups, versions 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: Version 1 has no word for "unlimited"; it reports the largest multiple of a page. Nobody has 1 PiB.
_UNLIMITED = 1 << 50


def container_memory(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The tightest memory limit in bytes on the way up from this process's group; None without one."""
    limits = [limit for path in _limit_files(proc, root) if (limit := _read(path)) is not None]
    return min(limits, default=None)


def _limit_files(proc: Path, root: Path) -> Iterator[Path]:
    """Every file that may hold a limit: `0::/path` is version 2, `N:controllers:/path` version 1
    (cgroups(7))."""
    for line in _text(proc).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        folder = base / group.lstrip("/")
        # A container sees its host's path in /proc but has its own group mounted as the root.
        for place in (folder, *folder.parents):
            if place.is_relative_to(base):
                yield place / name


def _read(path: Path) -> int | None:
    text = _text(path).strip()
    limit = int(text) if text.isdecimal() else _UNLIMITED
    return limit if limit < _UNLIMITED else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
