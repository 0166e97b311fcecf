"""Shared fixtures: brokers, a scripted STOMP peer, the gateway as a process."""

from __future__ import annotations

import hypothesis

pytest_plugins = ("tests.brokers.fixtures", "tests.faults.fixtures")

# No deadline: a shared core is no measure of speed. No database: a run leaves nothing behind.
hypothesis.settings.register_profile("gateway", deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("gateway")
