"""What waits for clients: shared, bounded, and the oldest pays."""

from __future__ import annotations

from contextlib import ExitStack

from app.gateway.outbox import Outbox

SHARED = b"x" * 60


class Bench:
    """An outbox of 100 bytes, and who was cut off."""

    def __init__(self) -> None:
        self.grown: list[int] = []
        self.cut: list[str] = []
        self.box = Outbox(100, self.grown.append)
        self.blocks: list[ExitStack] = []

    def hold(self, name: str, data: bytes) -> ExitStack:
        """Hold in a block of its own, which closing the result ends."""
        block = ExitStack()
        block.enter_context(self.box.holding(data, lambda: self.cut.append(name)))
        self.blocks.append(block)
        return block


def test_a_batch_counts_once_however_many_wait_for_it() -> None:
    bench = Bench()
    blocks = [bench.hold(str(number), SHARED) for number in range(1000)]
    assert bench.box.buffered == 60
    for block in blocks[:-1]:
        block.close()
    assert bench.box.buffered == 60
    blocks[-1].close()
    assert bench.box.buffered == 0
    assert bench.grown == [60, -60]
    assert bench.cut == []


def test_equal_bytes_are_not_the_same_bytes() -> None:
    bench = Bench()
    bench.hold("a", bytes(bytearray(b"12345")))
    bench.hold("b", bytes(bytearray(b"12345")))
    assert bench.box.buffered == 10


def test_beyond_the_limit_the_oldest_go_until_it_fits() -> None:
    bench = Bench()
    for name, size in (("a", 40), ("b", 40), ("c", 15), ("d", 70)):
        bench.hold(name, bytes(size))
    assert bench.cut == ["a", "b"]
    assert bench.box.buffered == 85


def test_who_shares_with_a_younger_one_frees_nothing_and_goes_all_the_same() -> None:
    bench = Bench()
    bench.hold("a", SHARED)
    bench.hold("b", SHARED)
    bench.hold("c", bytes(50))
    assert bench.cut == ["a", "b"]
    assert bench.box.buffered == 50


def test_the_latest_stays_whatever_its_size() -> None:
    bench = Bench()
    block = bench.hold("a", bytes(5000))
    assert (bench.cut, bench.box.buffered) == ([], 5000)
    block.close()
    assert bench.box.buffered == 0


def test_who_was_cut_off_gives_back_once() -> None:
    bench = Bench()
    first = bench.hold("a", bytes(90))
    second = bench.hold("b", bytes(90))
    first.close()
    assert bench.box.buffered == 90
    second.close()
    assert bench.box.buffered == 0
    assert sum(bench.grown) == 0
