"""The end of a run: what must be nothing, what was measured, and the exit code that follows."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.chaos.faults import KINDS
from tests.chaos.plot import svg
from tests.chaos.probes import percentile
from tests.chaos.settings import ChaosSettings
from tests.chaos.soak import Soak
from tests.chaos.vitals import MIB, Vitals, slope

#: Seconds of a gateway's life before its memory is compared.
WARM_UP = 20.0
#: Threads of the resolver's pool may come late and stay.
_LATE_THREADS = 3
_DEFECTS = ("Traceback", "never retrieved", "never awaited", "was destroyed", "code=internal")


class Report:
    """Everything as one dictionary, for the table and the JSON file."""

    def __init__(self, settings: ChaosSettings, soak: Soak) -> None:
        self._settings = settings
        self._soak = soak
        self._cast = soak.cast
        self._last = soak.trace.of(soak.site.generation, min(WARM_UP, settings.seconds / 6))
        self.figures = self._figures()
        self.must_be_zero = self._must_be_zero()
        self.failures = self._failures()

    def publish(self) -> int:
        """Print, write the files that were asked for; the exit code."""
        for title, values in self.figures.items():
            print(f"\n{title}")
            for label, value in values.items():
                print(f"  {label:<44} {value}")
        print("\nmust be 0")
        for label, number in self.must_be_zero.items():
            print(f"  {label:<44} {number}")
        for failure in self.failures:
            print(f"FAILED  {failure}")
        self._write()
        print("chaos: FAILED" if self.failures else "chaos: all held", flush=True)
        return 1 if self.failures else 0

    def _write(self) -> None:
        if self._settings.report is not None:
            whole = {**self.figures, "must be 0": self.must_be_zero, "failures": self.failures}
            self._settings.report.write_text(json.dumps(whole, indent=1) + "\n")
        if self._settings.plot is not None:
            self._settings.plot.write_text(svg(self._soak.trace, self._soak.site.started))

    # The parts.

    def _figures(self) -> dict[str, dict[str, Any]]:
        return {
            "run": {
                "seconds": self._settings.seconds,
                "seed": self._settings.seed,
                "broker": self._settings.broker,
            },
            "faults": {kind: self._soak.scheduler.done[kind] for kind in KINDS},
            "messages": dict(sum((flow.counts() for flow in self._cast.flows), start=Counter[str]())),
            **{f"messages of {flow.destination}": dict(flow.counts()) for flow in self._cast.flows},
            "readers": self._readers(),
            "offenders": self._offenders(),
            "unaffected services": self._unaffected(),
            "gateway": self._gateway(),
        }

    def _readers(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for witness in self._cast.witnesses:
            found[f"{witness.label}: received"] = witness.seen.total()
            found[f"{witness.label}: gaps announced"] = dict(witness.gaps)
        for books in self._cast.books:
            name = books.flow.destination
            found[f"{name}: delivered, again, unmarked"] = (
                f"{books.delivered.total()}, {books.delivered.repeats()}, {books.unmarked}"
            )
            found[f"{name}: left at the end"] = books.left.total()
        found["Queues/torn: confirmed, in torn buffers"] = len(self._cast.torn.lost())
        found["streams ended"] = dict(sum((each.ends for each in self._cast.readers), start=Counter[str]()))
        found["slow reader: streams ended"] = dict(self._cast.slow.ends)
        return found

    def _offenders(self) -> dict[str, Any]:
        return {
            "stalled readers cut off": sum(each.cut for each in self._cast.stallers),
            "longest until cut off, s": round(max(each.slowest for each in self._cast.stallers), 1),
            "answers to the poison client": {str(k): v for k, v in sorted(self._cast.poisoner.answers.items())},
            "answers to publishers": dict(sum((p.codes for p in self._cast.publishers), start=Counter[str]())),
        }

    def _unaffected(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for probe in self._cast.probes:
            p50, p99 = (round(percentile(probe.posts, percent) * 1000, 1) for percent in (50, 99))
            found[f"{probe.service}: POST p50, p99, ms"] = f"{p50}, {p99}"
            found[f"{probe.service}: longest stall, ms"] = round(probe.stall * 1000, 1)
        found["/health/live worst, ms"] = round(self._cast.live.worst * 1000, 1)
        found["/metrics worst, ms"] = round(self._cast.metrics.worst * 1000, 1)
        found["this program's loop was late, ms"] = round(self._cast.lag.worst * 1000, 1)
        return found

    def _gateway(self) -> dict[str, Any]:
        trace, ends = self._soak.trace, self._soak.site.ends
        samples = self._last
        hours = (samples[-1].at - samples[0].at) / 60 if samples else 0
        return {
            "exit codes and drain times, s": [f"{end.code} {end.seconds:.1f}" for end in ends],
            "slowest healing of a link, s": round(self._soak.scheduler.slowest_heal, 1),
            "alone before: RSS, descriptors, threads": _vitals(trace.before),
            "under load, warm: RSS, descriptors, threads": _vitals(samples[0] if samples else None),
            "under load, at the end": _vitals(samples[-1] if samples else None),
            "alone after": _vitals(trace.after),
            "RSS slope, MiB per 10 minutes": f"{slope(samples):.2f} over {hours:.1f} minutes",
            "CPU, share of a core": round((samples[-1].cpu - samples[0].cpu) / (samples[-1].at - samples[0].at), 3)
            if len(samples) > 1
            else 0,
        }

    def _must_be_zero(self) -> dict[str, int]:
        cast = self._cast
        queues = [cast.work, cast.kept]
        return {
            "CONFIRMED BUT LOST (work, kept)": sum(len(books.lost()) for books in queues),
            "GAPS SILENT": sum(each.silent for each in cast.witnesses),
            "duplicated in a Topic's stream": sum(each.duplicated for each in cast.witnesses),
            "reordered in a stream": sum(each.reordered for each in cast.witnesses),
            "doubled in a queue nobody read": cast.kept.left.repeats(),
            "wrong: not_sent or rejected, and delivered": sum(len(flow.wrong) for flow in cast.flows),
            "foreign messages in a queue": sum(books.foreign for books in cast.books),
            "publishes without an answer in time": sum(each.hung for each in cast.publishers),
            "refused otherwise than expected": len(cast.poisoner.unexpected),
            "stalled readers not cut off": sum(each.survived for each in cast.stallers),
            "failed publishes to unaffected services": sum(each.failed for each in cast.probes),
            "gaps of unaffected services": sum(
                number for each in cast.probes for reason, number in each.witness.gaps.items() if reason != "restart"
            ),
            "failed health and metrics": cast.live.failed + cast.metrics.failed,
            "links that did not heal": len(self._soak.scheduler.unhealed),
            "lines of defects in the gateway's log": len(self._defects()),
        }

    def _failures(self) -> list[str]:
        found = [f"{label}: {number}" for label, number in self.must_be_zero.items() if number]
        found += [f"exit code {end.code}" for end in self._soak.site.ends if end.code != 0]
        found += [text for witness in self._cast.witnesses for text in witness.complaints]
        found += [text for flow in self._cast.flows for text in flow.wrong[:20]]
        found += [f"lost: {key}" for books in (self._cast.work, self._cast.kept) for key in books.lost()[:20]]
        found += self._cast.poisoner.unexpected[:20] + self._soak.scheduler.unhealed + self._soak.failures
        found += self._leaks() + self._defects()[:20]
        return found

    def _leaks(self) -> list[str]:
        before, after = self._soak.trace.before, self._soak.trace.after
        if before is None or after is None:
            return ["the gateway was not measured alone"]
        found = []
        if after.descriptors > before.descriptors:
            found.append(f"descriptors: {before.descriptors} before, {after.descriptors} after")
        if after.threads > before.threads + _LATE_THREADS:
            found.append(f"threads: {before.threads} before, {after.threads} after")
        return found

    def _defects(self) -> list[str]:
        return [line for line in self._soak.site.gateway.output.splitlines() if any(map(line.count, _DEFECTS))]


def _vitals(vitals: Vitals | None) -> str:
    if vitals is None:
        return "-"
    return f"{vitals.rss / MIB:.1f} MiB, {vitals.descriptors}, {vitals.threads}"
