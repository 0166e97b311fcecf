"""The corpus, replayed without a fuzzer; and random bytes of the same kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import cfg, frames

CORPUS = Path(__file__).parent / "corpus"
FRAMES = sorted((CORPUS / "frames").iterdir())
CFG = sorted((CORPUS / "cfg").iterdir())


@pytest.mark.parametrize("seed", FRAMES, ids=lambda path: path.name)
def test_frames(seed: Path) -> None:
    frames.check(seed.read_bytes())


@pytest.mark.parametrize("seed", CFG, ids=lambda path: path.name)
def test_cfg(seed: Path) -> None:
    cfg.check(seed.read_bytes())


def _mixed(seeds: list[Path], words: list[bytes]) -> st.SearchStrategy[bytes]:
    """Parts of seeds and words, one after the other."""
    whole = st.sampled_from([seed.read_bytes()[:200] for seed in seeds])
    part = st.builds(lambda data, at, size: data[at : at + size], whole, st.integers(0, 199), st.integers(1, 30))
    return st.lists(st.sampled_from(words) | part | whole | st.binary(max_size=3), max_size=8).map(b"".join)


@given(_mixed(FRAMES, [b"\0", b"\n", b"\r\n", b"\n\n", b":", b"\\", b"MESSAGE\n", b"\ncontent-length:", b"3", b"\xff"]))
def test_parts_of_frames_in_any_order(data: bytes) -> None:
    frames.check(data)


@given(_mixed(CFG, [b"{", b"}", b"=", b"+=", b"\n", b"\r\n", b"#", b" ", b"a", b"x = secret\n", b"\xc2\x85", b"\xff"]))
def test_parts_of_files_in_any_order(data: bytes) -> None:
    cfg.check(data)
