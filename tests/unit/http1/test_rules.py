"""Bounds and deadlines that follow from the settings."""

from __future__ import annotations

from unittest.mock import Mock

from app.config.limits import LimitSettings
from app.config.server import ServerSettings
from app.http1.rules import HEAD_BYTES, Flow, Rules


def test_follow_from_the_settings() -> None:
    server = ServerSettings(header_timeout=1, idle_timeout=2, write_timeout=3)
    rules = Rules.of(server, LimitSettings(), connections=7)
    assert rules == Rules(
        head_lines=128,
        head_bytes=HEAD_BYTES + 64 * 8448,
        line_bytes=8448,
        header_timeout=1,
        idle_timeout=2,
        write_timeout=3,
        connections=7,
    )


def test_a_head_holds_all_the_message_headers_a_publish_may_have() -> None:
    limits = LimitSettings(header_bytes=1000, max_headers=10)
    rules = Rules.of(ServerSettings(), limits, connections=1)
    assert (rules.head_bytes, rules.line_bytes, rules.head_lines) == (HEAD_BYTES + 12_560, 1256, 74)


def test_held_reading_is_not_resumed() -> None:
    transport = Mock()
    flow = Flow(transport)
    flow.pause_reading()
    flow.held = True
    flow.resume_reading()
    assert not transport.resume_reading.called
    flow.held = False
    flow.resume_reading()
    assert transport.resume_reading.called
