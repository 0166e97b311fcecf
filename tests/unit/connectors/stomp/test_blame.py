"""Which request an ERROR is about."""

from __future__ import annotations

import pytest

from app.connectors.stomp import blame
from app.connectors.stomp.blame import Blame
from app.connectors.stomp.confirms import Confirms
from app.connectors.stomp.rabbitmq import RabbitMQ

UNQUOTE = RabbitMQ().unquote
REFUSED = "access_refused: access to queue 'a/b' in vhost '/' refused for user 'guest'"


@pytest.fixture
async def confirms() -> Confirms:
    return Confirms()


async def test_a_receipt_names_its_request(confirms: Confirms) -> None:
    pending = confirms.expect("/queue/x")
    confirms.expect("/queue/y")
    assert Blame(confirms).culprit(pending.receipt, "no", UNQUOTE) is pending


async def test_the_only_request_to_what_is_quoted(confirms: Confirms) -> None:
    pending = confirms.expect("/queue/a%2Fb")
    confirms.expect("/queue/other")
    known = Blame(confirms)
    assert known.culprit("", REFUSED, UNQUOTE) is pending
    assert known.suspects() == {"/queue/a%2Fb"}


@pytest.mark.parametrize(
    "text",
    [
        "AMQ229032: User: guest does not have permission='CONSUME' on address jobs",
        "AMQ229213: User: guest does not have permission='CREATE_DURABLE_QUEUE' for queue jobs on address jobs",
        "AMQ339001: Destination does not exist: jobs",
        "AMQ339001: Destination does not exist: /queue/jobs",
    ],
)
async def test_the_only_request_to_the_address_that_artemis_names(confirms: Confirms, text: str) -> None:
    pending = confirms.expect("/queue/jobs")
    confirms.expect("/queue/other")
    assert Blame(confirms).culprit("", text, UNQUOTE) is pending
    confirms.expect("/topic/jobs" if "/queue/" not in text else "/queue/jobs")
    assert Blame(confirms).culprit("", text, UNQUOTE) is None


@pytest.mark.parametrize("path", ["/queue/guest", "/queue/vhost", "/topic/refused"])
async def test_users_and_vhosts_are_no_destinations(confirms: Confirms, path: str) -> None:
    confirms.expect(path)
    assert Blame(confirms).culprit("", REFUSED, UNQUOTE) is None


async def test_what_has_no_name_is_not_meant_by_none(confirms: Confirms) -> None:
    confirms.expect("/queue/a", "")
    assert Blame(confirms).culprit("", "no exchange '' in vhost '/'", UNQUOTE) is None


async def test_two_that_fit_are_none(confirms: Confirms) -> None:
    confirms.expect("/queue/a%2Fb")
    confirms.expect("/queue/a%2Fb")
    assert Blame(confirms).culprit("", REFUSED, UNQUOTE) is None


async def test_one_that_nobody_waits_for_may_be_it_as_well(confirms: Confirms) -> None:
    confirms.expect("/queue/a%2Fb")
    known = Blame(confirms)
    known.loosen("/queue/a%2Fb")
    known.loosen("")
    assert known.culprit("", REFUSED, UNQUOTE) is None


async def test_what_is_loose_is_bounded(confirms: Confirms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blame, "_MAX_LOOSE", 1)
    pending = confirms.expect("/queue/a%2Fb")
    known = Blame(confirms)
    known.loosen("/queue/a%2Fb")
    known.loosen("/queue/other")
    assert known.culprit("", REFUSED, UNQUOTE) is pending


async def test_a_lone_request_is_remembered(confirms: Confirms) -> None:
    known = Blame(confirms)
    known.unexplained("first")
    told = [(known.lone, known.last_error, known.unattributed)]
    confirms.expect("/queue/a")
    known.unexplained("second")
    told.append((known.lone, known.last_error, known.unattributed))
    assert told == [(None, "first", 1), ("/queue/a", "second", 2)]
    confirms.expect("/queue/b")
    known.unexplained("third")
    assert known.lone is None
    assert known.suspects() == {"/queue/a", "/queue/b"}


async def test_names_are_forgotten_as_soon_as_they_explain_no_end(
    confirms: Confirms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blame, "_NAMED_FOR", 0.0)
    known = Blame(confirms)
    for number in range(50):
        assert known.culprit(confirms.expect(f"/queue/{number}").receipt, "not authorized", UNQUOTE) is not None
    assert len(known._named) <= 1
