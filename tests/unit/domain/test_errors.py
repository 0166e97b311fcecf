"""The error tree: codes, outcomes and whether a retry helps, as the HTTP contract lists them."""

from __future__ import annotations

import pytest

from app.domain import errors
from app.domain.errors import BadRequest, Code, FieldError, GatewayError, Outcome, OutcomeUnknown, Unavailable


def _tree(root: type[GatewayError]) -> list[type[GatewayError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


def test_every_code_of_the_contract_has_exactly_one_class_of_its_own() -> None:
    own = [kind.code for kind in _tree(GatewayError) if not kind.__subclasses__()]
    assert sorted(own) == sorted(Code)


@pytest.mark.parametrize("kind", _tree(BadRequest))
def test_a_bad_request_was_not_sent_and_fails_again(kind: type[GatewayError]) -> None:
    assert (kind.outcome, kind.retriable) == (Outcome.NOT_SENT, False)


@pytest.mark.parametrize("kind", _tree(Unavailable))
def test_unavailable_was_not_sent_and_may_be_tried_again(kind: type[GatewayError]) -> None:
    assert (kind.outcome, kind.retriable) == (Outcome.NOT_SENT, True)


@pytest.mark.parametrize("kind", _tree(OutcomeUnknown))
def test_without_a_receipt_nothing_is_known(kind: type[GatewayError]) -> None:
    assert (kind.outcome, kind.retriable) == (Outcome.UNKNOWN, True)


def test_a_refusal_is_a_refusal() -> None:
    assert (errors.BrokerRejected.outcome, errors.BrokerRejected.retriable) == (Outcome.REJECTED, False)
    assert (errors.Internal.outcome, errors.Internal.retriable) == (Outcome.UNKNOWN, False)


def test_an_error_carries_what_a_person_and_a_program_need() -> None:
    error = errors.MethodNotAllowed("why", errors=[FieldError("x", "y")], retry_after=2.5, allow="GET, HEAD")
    assert str(error) == "why"
    assert error.errors == (FieldError("x", "y"),)
    assert (error.retry_after, error.allow) == (2.5, "GET, HEAD")


def test_an_error_without_more_says_no_more() -> None:
    error = errors.NotFound("why")
    assert (error.errors, error.retry_after, error.allow) == ((), None, "")
