"""Message ids are UUIDs of version 7."""

from __future__ import annotations

import time
from uuid import RFC_4122, UUID

import pytest

from app.wire import ids


def _at(monkeypatch: pytest.MonkeyPatch, milliseconds: int) -> str:
    monkeypatch.setattr("time.time_ns", lambda: milliseconds * 1_000_000 + 999_999)
    return ids.new_message_id()


def test_version_variant_and_time_are_where_rfc_9562_wants_them() -> None:
    before = time.time_ns() // 1_000_000
    uuid = UUID(ids.new_message_id())
    after = time.time_ns() // 1_000_000
    assert (uuid.version, uuid.variant) == (7, RFC_4122)
    assert before <= uuid.int >> 80 <= after


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [0, 1, 255, 256, 0x0FFFFFFFFFFF, 0x100000000000, 0xFFFFFFFFFFFF]
    made = [_at(monkeypatch, moment) for moment in moments]
    assert made == sorted(made)
    assert [UUID(text).int >> 80 for text in made] == moments


@pytest.mark.parametrize("bits", [0, (1 << 74) - 1])
def test_no_random_bit_reaches_version_or_variant(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr("secrets.randbits", lambda _count: bits)
    uuid = UUID(ids.new_message_id())
    assert (uuid.version, uuid.variant) == (7, RFC_4122)
    random_part = uuid.int & ~(0xF << 76 | 0x3 << 62) & ((1 << 80) - 1)
    assert random_part.bit_count() == (74 if bits else 0)


def test_ids_of_one_millisecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({_at(monkeypatch, 1) for _ in range(1000)}) == 1000
