"""Several errors as one."""

from __future__ import annotations

import pytest

from app.domain.errors import (
    BrokerRejected,
    BrokerUnavailable,
    ConfirmTimeout,
    Draining,
    FieldError,
    Forbidden,
    GatewayError,
    InvalidName,
    UnknownDestination,
    UnknownService,
)
from app.domain.several import Faults


def _raised(*errors: GatewayError) -> GatewayError:
    faults = Faults("uri")
    for number, error in enumerate(errors):
        with faults.of(number, f"svc::Topics::{number}"):
            raise error
    with pytest.raises(GatewayError) as caught:
        faults.check()
    return caught.value


def test_without_faults_nothing_happens() -> None:
    faults = Faults("uri")
    with faults.of(0, "x"):
        pass
    faults.check()


def test_one_is_told_with_its_place() -> None:
    found = _raised(UnknownDestination("it is not declared"))
    assert isinstance(found, UnknownDestination)
    assert str(found) == "svc::Topics::0: it is not declared"
    assert found.errors == (FieldError("uri[0]", "svc::Topics::0: it is not declared"),)
    assert found.retry_after is None


def test_a_sentence_that_names_it_already_does_not_do_so_twice() -> None:
    assert str(_raised(UnknownDestination("svc::Topics::0 is not declared"))) == "svc::Topics::0 is not declared"


def test_all_are_told() -> None:
    found = _raised(UnknownDestination("a"), InvalidName("b"), UnknownService("c"))
    assert isinstance(found, InvalidName)
    assert [field.where for field in found.errors] == ["uri[0]", "uri[1]", "uri[2]"]
    assert [field.message for field in found.errors] == [f"svc::Topics::{n}: {text}" for n, text in enumerate("abc")]
    assert str(found) == "3 destinations cannot be had; one of them: svc::Topics::1: b"


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((UnknownService("x"), Forbidden("x")), Forbidden),
        ((BrokerUnavailable("x"), UnknownDestination("x")), UnknownDestination),
        ((BrokerUnavailable("x"), BrokerRejected("x")), BrokerRejected),
        ((ConfirmTimeout("x"), BrokerUnavailable("y")), ConfirmTimeout),
    ],
)
def test_what_the_caller_has_to_change_decides(errors: tuple[GatewayError, ...], kind: type[GatewayError]) -> None:
    assert type(_raised(*errors)) is kind


def test_the_longest_wait_is_told() -> None:
    assert _raised(BrokerUnavailable("x", retry_after=1), BrokerUnavailable("y", retry_after=7)).retry_after == 7


def test_what_passes_and_is_the_same_for_all_is_told_once() -> None:
    found = _raised(Draining("shutting down", retry_after=1), Draining("shutting down", retry_after=1))
    assert (str(found), found.errors, found.retry_after) == ("shutting down", (), 1)
    assert len(_raised(UnknownService("no x"), UnknownService("no x")).errors) == 2


def test_a_defect_is_not_gathered() -> None:
    with pytest.raises(ZeroDivisionError), Faults("uri").of(0, "x"):
        raise ZeroDivisionError
