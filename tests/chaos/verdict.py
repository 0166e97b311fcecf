"""What must be nothing at the end of a run, and what is wrong where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.chaos.cast import Cast
from tests.chaos.faults import ENDS_THE_LINK
from tests.chaos.site import Site
from tests.chaos.soak import Soak

#: Threads of the resolver's pool may come late, and stay.
_LATE_THREADS = 3
_DEFECTS = ("Traceback", "never retrieved", "never awaited", "was destroyed", "code=internal")
#: Lines for each kind of complaint.
_SHOWN = 20


def must_be_zero(soak: Soak) -> dict[str, int]:
    """Every count that is a broken promise."""
    return {
        **_of_messages(soak.cast),
        **_of_clients(soak.cast),
        "lost links that a reader was not told of": _untold(soak),
        "links that did not heal": len(soak.scheduler.unhealed),
        "exit codes of the gateway that are not 0": sum(end.code != 0 for end in soak.site.ends),
        "descriptors more than before": _more_descriptors(soak),
        "threads more than before": _more_threads(soak),
        "defects in the gateway's log": len(defects(soak.site)),
        "ends that were not as they should be": len(soak.failures),
    }


def _of_messages(cast: Cast) -> dict[str, int]:
    return {
        "CONFIRMED BUT LOST": sum(len(books.lost()) for books in (cast.work, cast.kept)),
        "GAPS SILENT": sum(each.silent for each in cast.witnesses),
        "duplicated in a stream": sum(each.duplicated for each in cast.witnesses),
        "doubled in a queue nobody reads": cast.kept.left.repeats(),
        "reordered in a stream": sum(each.reordered for each in cast.witnesses),
        "wrong: not_sent or rejected, and delivered": sum(len(flow.wrong) for flow in cast.flows),
        "foreign: published by nobody": sum(each.foreign for each in cast.witnesses)
        + sum(each.foreign for each in cast.books),
    }


def _of_clients(cast: Cast) -> dict[str, int]:
    return {
        "publishes without an answer in time": sum(each.hung for each in cast.all_publishers),
        "refused otherwise than expected": len(cast.poisoner.unexpected),
        "stalled readers not cut off": sum(each.survived for each in cast.stallers),
        "publishes to unaffected services that failed": sum(each.failed for each in cast.probes),
        "gaps of unaffected services": sum(
            number for each in cast.probes for reason, number in each.witness.gaps.items() if reason != "restart"
        ),
        "/health/live and /metrics failed": cast.live.failed + cast.metrics.failed,
    }


def _untold(soak: Soak) -> int:
    ends = sum(soak.scheduler.done[kind] for kind in ENDS_THE_LINK)
    return sum(max(0, ends - reader.witness.gaps["link_lost"]) for reader in soak.cast.readers)


def _more_descriptors(soak: Soak) -> int:
    before, after = soak.trace.before, soak.trace.after
    return max(0, after.descriptors - before.descriptors) if before and after else 0


def _more_threads(soak: Soak) -> int:
    before, after = soak.trace.before, soak.trace.after
    return max(0, after.threads - before.threads - _LATE_THREADS) if before and after else 0


def complaints(soak: Soak) -> Iterator[str]:
    """What is known of the counts above, as lines."""
    cast = soak.cast
    for witness in cast.witnesses:
        yield from witness.complaints[:_SHOWN]
    for flow in cast.flows:
        yield from flow.wrong[:_SHOWN]
    for books in (cast.work, cast.kept):
        yield from (f"{books.flow.destination} {key} was confirmed and is lost" for key in books.lost()[:_SHOWN])
    yield from cast.poisoner.unexpected[:_SHOWN]
    yield from (f"not healed: {text}" for text in soak.scheduler.unhealed)
    yield from soak.failures
    yield from defects(soak.site)[:_SHOWN]


def defects(site: Site) -> list[str]:
    """Lines of the gateway's log that none of its own doing should have."""
    log: Path = site.gateway.log
    with log.open(errors="replace") as lines:
        return [line.rstrip() for line in lines if any(map(line.count, _DEFECTS))]
