"""One connector for each service."""

from __future__ import annotations

import asyncio
import difflib
from typing import Any

import pytest
from prometheus_client import generate_latest

from app.config.settings import ServiceSettings, Settings
from app.connectors.base import ConnectorContext, MQConnector
from app.domain.errors import InvalidName, UnknownDestination, UnknownService
from app.domain.link import LinkState
from app.domain.uri import MqUri
from app.gateway import registry as module
from app.gateway.registry import Registry
from app.telemetry.metrics import Metrics
from tests.unit.gateway.fakes import FakeConnector

SERVICES: dict[str, Any] = {
    "mardirac": {"mq_type": "Fake", "queues": {"jobs": {}, "TestQueue": {}}, "topics": {"status": {}}},
    "other": {"mq_type": "Fake", "allow_undeclared": True, "required": True},
}


class Pliant(FakeConnector):
    """Goes on with other settings."""

    def reconfigure(self, settings: ServiceSettings) -> bool:
        self.settings = settings
        return True


class Broken(FakeConnector):
    """Takes no settings at all."""

    def __init__(self, service: str, settings: ServiceSettings, context: ConnectorContext) -> None:
        raise ValueError(f"{service}: options")


def services(**each: dict[str, Any]) -> dict[str, ServiceSettings]:
    return {name: ServiceSettings.model_validate(one) for name, one in each.items()}


class Bench:
    """A registry of connectors that do as they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "connector_class", self._class)
        self.states: list[tuple[str, LinkState]] = []
        self.metrics = Metrics()
        settings = Settings.model_validate({"services": SERVICES})
        self.registry = Registry(settings, self.metrics, lambda name, state: self.states.append((name, state)))

    def _class(self, mq_type: str) -> type[MQConnector]:
        known: dict[str, type[MQConnector]] = {"Fake": FakeConnector, "Pliant": Pliant, "Broken": Broken}
        return known[mq_type]

    def connector(self, name: str) -> FakeConnector:
        found = self.registry.connector(name)
        assert isinstance(found, FakeConnector)
        return found

    def sample(self, line: str) -> str | None:
        """The value of a metric."""
        for row in generate_latest(self.metrics.registry).decode().splitlines():
            if row.startswith(f"mq_gateway_{line} "):
                return row.rpartition(" ")[2]
        return None


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_exactly_one_connector_for_each_service(bench: Bench) -> None:
    assert [name for name, _connector in bench.registry] == ["mardirac", "other"]
    assert bench.registry.connector("mardirac") is bench.registry.connector("mardirac")
    assert bench.connector("mardirac").service == "mardirac"
    assert bench.connector("mardirac").context.in_flight == 10_000


@pytest.mark.parametrize(
    ("uri", "error", "text"),
    [
        ("mardirak::Queues::jobs", UnknownService, "no service is called 'mardirak'; did you mean 'mardirac'?"),
        ("Mardirac::Queues::jobs", UnknownService, "no service is called 'Mardirac'; did you mean 'mardirac'?"),
        ("zzz::Queues::jobs", UnknownService, "no service is called 'zzz'"),
        (
            "mardirac::Queues::job",
            UnknownDestination,
            "mardirac::Queues::job is not declared; did you mean 'jobs'?",
        ),
        (
            "mardirac::Queues::testqueue",
            UnknownDestination,
            "mardirac::Queues::testqueue is not declared; did you mean 'TestQueue'?",
        ),
        ("mardirac::Queues::status", UnknownDestination, "mardirac::Queues::status is not declared"),
        (
            "mardirac::Topics::statuss",
            UnknownDestination,
            "mardirac::Topics::statuss is not declared; did you mean 'status'?",
        ),
    ],
)
async def test_what_is_not_there_names_what_may_be_meant(
    bench: Bench, uri: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        bench.registry.resolve(MqUri.parse(uri))
    assert str(caught.value) == text


async def test_among_thousands_only_the_likely_ones_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"site.{number}.status" for number in range(3000)]
    monkeypatch.setitem(SERVICES, "large", {"mq_type": "Fake", "topics": {name: {} for name in names}})
    compared: list[int] = []
    closest = difflib.get_close_matches

    def counting(word: str, possibilities: list[str], n: int) -> list[str]:
        compared.append(len(possibilities))
        found: list[str] = closest(word, possibilities, n=n)
        return found

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    with pytest.raises(UnknownDestination, match=r"did you mean 'site\.2718\.status'"):
        Bench(monkeypatch).registry.resolve(MqUri.parse("large::Topics::site.2718.statsu"))
    assert compared == [module.LIKELY]


def test_a_declared_destination_comes_with_its_settings(bench: Bench) -> None:
    uri = MqUri.parse("mardirac::topic::status")
    destination = bench.registry.resolve(uri)
    assert destination.uri == uri
    assert destination.settings is bench.connector("mardirac").settings.topics["status"]


async def test_undeclared_ones_exist_where_the_service_says_so(bench: Bench) -> None:
    assert bench.registry.resolve(MqUri.parse("other::Queues::any")).settings.persistent


async def test_a_name_is_checked_before_anything_is_looked_up(bench: Bench) -> None:
    queues = MqUri.parse("zzz::Queues::a").type
    with pytest.raises(InvalidName):
        bench.registry.resolve(MqUri("zzz", queues, "a,b"))


async def test_the_broker_has_its_own_rule_for_names(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: MqUri) -> None:
        raise InvalidName(f"not {uri.name}")

    monkeypatch.setattr(bench.connector("mardirac"), "check_name", refuse)
    with pytest.raises(InvalidName, match="not none"):
        bench.registry.resolve(MqUri.parse("mardirac::Queues::none"))


async def test_states_are_counted_and_passed_on(bench: Bench) -> None:
    up, reconnects = 'link_up{service="other"}', 'reconnects_total{service="other"}'
    assert (bench.sample(up), bench.sample(reconnects)) == ("0.0", "0.0")
    connector = bench.connector("other")
    await bench.registry.start()
    assert (bench.sample(up), bench.sample(reconnects)) == ("1.0", "0.0")
    wanted, present = 'connections{service="other"}', 'connections_up{service="other"}'
    assert (bench.sample(wanted), bench.sample(present)) == ("1.0", "1.0")
    connector.enter(LinkState.CONNECTING)
    assert bench.sample(up) == "0.0"
    assert (bench.sample(wanted), bench.sample(present)) == ("1.0", "0.0")
    connector.enter(LinkState.UP)
    assert (bench.sample(up), bench.sample(reconnects)) == ("1.0", "1.0")
    assert [state for name, state in bench.states if name == "other"] == [
        LinkState.UP,
        LinkState.CONNECTING,
        LinkState.UP,
    ]


async def test_what_a_connector_sees_is_counted(bench: Bench) -> None:
    connector = bench.connector("other")
    connector.context.on_event("late_receipt")
    assert bench.sample('connector_events_total{event="late_receipt",service="other"}') == "1.0"
    connector.published += [None, None]  # type: ignore[list-item]
    assert bench.sample('in_flight{service="other"}') == "2.0"


async def test_required_services_that_were_never_up(bench: Bench) -> None:
    assert bench.registry.never_up() == ["other"]
    await bench.registry.start()
    assert bench.registry.never_up() == []


async def test_all_links_are_closed_together_and_one_that_fails_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = asyncio.Event()

    async def broken(timeout: float) -> None:
        waiting.set()
        raise OSError("no route")

    async def slow(timeout: float) -> None:
        assert timeout == 3
        await waiting.wait()  # never set if the links were closed one after the other

    bench.connector("mardirac").close = slow  # type: ignore[method-assign]
    bench.connector("other").close = broken  # type: ignore[method-assign]
    await bench.registry.close(3)
    assert "closing links failed: no route" in caplog.text


async def test_other_services_from_now_on(bench: Bench) -> None:
    await bench.registry.start()
    same, old = bench.connector("other"), bench.connector("mardirac")
    change = await bench.registry.reload(
        services(other=SERVICES["other"], mardirac={"mq_type": "Fake", "queues": {"new": {}}}, more={"mq_type": "Fake"})
    )
    assert (change.added, change.changed, change.removed, change.unchanged) == (["more"], ["mardirac"], [], ["other"])
    assert change.outdated == [old]
    assert bench.connector("other") is same
    assert bench.connector("mardirac") is not old
    assert "new" in bench.connector("mardirac").settings.queues
    assert bench.sample('link_up{service="more"}') == "1.0"
    # The old one may end as late as it likes: it speaks for nobody.
    told = len(bench.states)
    await old.close(1)
    assert len(bench.states) == told
    assert bench.sample('link_up{service="mardirac"}') == "1.0"
    assert bench.sample('reconnects_total{service="mardirac"}') == "0.0"


async def test_a_removed_service_is_unknown(bench: Bench) -> None:
    await bench.registry.start()
    gone = bench.connector("mardirac")
    change = await bench.registry.reload(services(other=SERVICES["other"]))
    assert (change.removed, change.outdated, gone.closed) == (["mardirac"], [gone], 0)
    with pytest.raises(UnknownService):
        bench.registry.connector("mardirac")


async def test_a_connector_that_can_goes_on(bench: Bench) -> None:
    await bench.registry.reload(services(one={"mq_type": "Pliant"}))
    pliant = bench.connector("one")
    change = await bench.registry.reload(services(one={"mq_type": "Pliant", "required": True}))
    assert (change.changed, change.outdated) == (["one"], [])
    assert bench.connector("one") is pliant
    assert pliant.settings.required


async def test_a_connector_that_cannot_be_made_changes_nothing(bench: Bench) -> None:
    before = dict(bench.registry)
    with pytest.raises(ValueError, match="options"):
        await bench.registry.reload(services(new={"mq_type": "Fake"}, bad={"mq_type": "Broken"}))
    assert dict(bench.registry) == before
