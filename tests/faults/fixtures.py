"""The fixture of the scripted peer, as a pytest plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.peer import ScriptedPeer


@pytest.fixture
async def scripted_peer() -> AsyncIterator[ScriptedPeer]:
    """A peer that behaves until the test tells it otherwise, without TLS."""
    async with ScriptedPeer.listen() as peer:
        yield peer
