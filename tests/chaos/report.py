"""The end of a run as a dictionary of figures, for the table and for the JSON file."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.chaos.faults import KINDS
from tests.chaos.ledger import Flow, QueueBooks
from tests.chaos.probes import Probe, percentile
from tests.chaos.settings import ChaosSettings
from tests.chaos.soak import Soak
from tests.chaos.verdict import complaints, must_be_zero
from tests.chaos.vitals import MIB, Vitals, slope
from tests.chaos.witness import Witness

#: Seconds of a gateway's life before its memory is compared.
WARM_UP = 20.0
_OUTCOMES = ("sent", "confirmed", "rejected", "unknown", "not_sent")


def figures(settings: ChaosSettings, soak: Soak) -> dict[str, Any]:
    """Times in seconds where the name does not say `ms`."""
    cast = soak.cast
    queues = {id(books.flow): books for books in cast.books}
    return {
        "run": {"seconds": settings.seconds, "broker": settings.broker, "seed": settings.seed},
        "faults": {kind: soak.scheduler.done[kind] for kind in KINDS},
        "faults without time": dict(soak.scheduler.skipped),
        "messages": [_messages(flow, queues.get(id(flow))) for flow in cast.flows],
        "queues": [_queue(books) for books in cast.books],
        "topic readers": [_reader(witness) for witness in cast.witnesses],
        "clients": _clients(soak),
        "unaffected services": [_unaffected(probe) for probe in cast.probes],
        "watched": {
            "/health/live worst ms": _ms(cast.live.worst),
            "/metrics worst ms": _ms(cast.metrics.worst),
            "this program's own loop late ms": _ms(cast.lag.worst),
        },
        "gateway": _gateway(settings, soak),
        "must be 0": must_be_zero(soak),
        "complaints": list(complaints(soak)),
    }


def _messages(flow: Flow, books: QueueBooks | None) -> dict[str, Any]:
    counts = flow.counts()
    row: dict[str, Any] = {"destination": flow.destination, **{name: counts[name] for name in _OUTCOMES}}
    return row if books is None else {**row, "lost": len(books.lost())}


def _queue(books: QueueBooks) -> dict[str, Any]:
    return {
        "queue": books.flow.destination,
        "delivered": books.delivered.total(),
        "delivered again": books.delivered.repeats(),
        "of it unmarked": books.unmarked,
        "left": books.left.total(),
        "confirmed, neither": len(books.lost()),
    }


def _reader(witness: Witness) -> dict[str, Any]:
    return {
        "reader": witness.label,
        "received": witness.seen.total(),
        "duplicated": witness.duplicated,
        "reordered": witness.reordered,
        "gaps silent": witness.silent,
        "gaps announced": dict(witness.gaps),
    }


def _clients(soak: Soak) -> dict[str, Any]:
    cast = soak.cast
    return {
        "answers to publishers": _sum(each.codes for each in cast.publishers),
        "answers to the poison client": {str(status): n for status, n in sorted(cast.poisoner.answers.items())},
        "ends of streams": _sum(each.ends for each in (*cast.followers, cast.slow, *cast.workers, cast.tearer)),
        "stalled readers cut off": sum(each.cut for each in cast.stallers),
        "longest until one was cut off": round(max(each.slowest for each in cast.stallers), 1),
    }


def _sum(counters: Any) -> dict[str, int]:
    return dict(sum(counters, start=Counter[str]()))


def _unaffected(probe: Probe) -> dict[str, Any]:
    return {
        "service": probe.service,
        "publishes": len(probe.posts),
        "p50 ms": _ms(percentile(probe.posts, 50)),
        "p99 ms": _ms(percentile(probe.posts, 99)),
        "longest stall ms": _ms(probe.stall),
    }


def _gateway(settings: ChaosSettings, soak: Soak) -> dict[str, Any]:
    trace = soak.trace
    last = trace.of(soak.site.generation, min(WARM_UP, settings.seconds / 6))
    spans = last[-1].at - last[0].at if last else 0.0
    return {
        "restarts": len(soak.site.ends) - 1,
        "exit codes": [end.code for end in soak.site.ends],
        "drain times": [round(end.seconds, 1) for end in soak.site.ends],
        "slowest healing of a link": round(soak.scheduler.slowest_heal, 1),
        "alone before": _vitals(trace.before),
        "loaded, warm": _vitals(last[0] if last else None),
        "loaded, at the end": _vitals(last[-1] if last else None),
        "alone after": _vitals(trace.after),
        "RSS slope, MiB per 10 minutes": round(slope(last), 2),
        "measured over": round(spans),
        "share of a core": round((last[-1].cpu - last[0].cpu) / spans, 3) if spans else 0.0,
    }


def _vitals(vitals: Vitals | None) -> dict[str, float]:
    if vitals is None:
        return {}
    return {"rss MiB": round(vitals.rss / MIB, 1), "descriptors": vitals.descriptors, "threads": vitals.threads}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
