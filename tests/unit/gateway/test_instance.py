"""The name of a process."""

from __future__ import annotations

import os

from app.gateway.instance import new_instance


def test_no_two_are_the_same_and_the_process_is_named() -> None:
    one, two = new_instance(), new_instance()
    assert one != two
    assert one.split("-")[-2] == str(os.getpid())
