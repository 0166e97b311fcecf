"""Seals: who does not have the secret can neither ask nor answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wire.peer_seal import GOOD_FOR, SealError, answer_seal, is_answer, opened, seal

KEY = b"k" * 32
NOW = 1_764_295_200.5
BODY = b'{"verb":"ack"}'


def flaw(text: str, *, key: bytes = KEY, now: float = NOW, body: bytes = BODY) -> str:
    with pytest.raises(SealError) as raised:
        opened(key, text, now).check(body)
    return raised.value.flaw


def test_a_question_with_its_seal() -> None:
    text = seal(KEY, BODY, NOW)
    found = opened(KEY, text, NOW)
    found.check(BODY)
    assert found.text == text
    assert seal(KEY, BODY, NOW) != text


def test_another_key_another_body_another_time() -> None:
    text = seal(KEY, BODY, NOW)
    assert flaw(text, key=b"other") == "peer_seal"
    assert flaw(text, body=BODY + b" ") == "peer_body"
    assert flaw(text, now=NOW + GOOD_FOR + 1) == "peer_clock"
    assert flaw(text, now=NOW - GOOD_FOR - 1) == "peer_clock"
    opened(KEY, text, NOW + GOOD_FOR - 1).check(BODY)


@given(at=st.integers(0, 200), other=st.sampled_from("09ABab-_. \n"))
def test_no_character_can_be_changed(at: int, other: str) -> None:
    text = seal(KEY, BODY, NOW)
    at %= len(text)
    changed = text[:at] + other + text[at + 1 :]
    if changed != text:
        assert flaw(changed) == "peer_seal"


@given(st.text(max_size=160))
def test_nonsense_is_no_seal(text: str) -> None:
    assert flaw(text) == "peer_seal"
    assert not is_answer(KEY, seal(KEY, BODY, NOW), b"", text)


def test_an_answer_is_to_one_question_and_of_one_who_has_the_key() -> None:
    one, two = seal(KEY, BODY, NOW), seal(KEY, BODY, NOW)
    answer = answer_seal(KEY, one, b"yes")
    assert is_answer(KEY, one, b"yes", answer)
    assert not is_answer(KEY, two, b"yes", answer)
    assert not is_answer(KEY, one, b"no", answer)
    assert not is_answer(b"other", one, b"yes", answer)


def test_a_seal_of_one_kind_is_none_of_the_other() -> None:
    """What was seen as an answer does not open as a question's signature."""
    text = seal(KEY, BODY, NOW)
    head = text.rpartition(".")[0]
    assert flaw(f"{head}.{answer_seal(KEY, head, b'')}") == "peer_seal"
