"""RSS over time as an SVG, drawn by hand: one line for each process of the gateway."""

from __future__ import annotations

from itertools import groupby

from tests.chaos.soak import Trace
from tests.chaos.vitals import MIB

_WIDTH, _HEIGHT, _MARGIN = 900, 360, 50


def svg(trace: Trace, started: float) -> str:
    """The drawing; times in seconds since `started`."""
    points = [
        (sample.at - started, sample.rss / MIB, generation)
        for sample, generation in zip(trace.samples, trace.generations, strict=True)
    ]
    longest = max((at for at, _, _ in points), default=1.0)
    most = max((rss for _, rss, _ in points), default=1.0) * 1.1
    lines = []
    for _, group in groupby(points, key=lambda point: point[2]):
        path = " ".join(f"{_x(at, longest):.1f},{_y(rss, most):.1f}" for at, rss, _ in group)
        lines.append(f'<polyline points="{path}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>')
    return "\n".join([_frame(longest, most), *lines, "</svg>", ""])


def _x(at: float, longest: float) -> float:
    return _MARGIN + at / longest * (_WIDTH - 2 * _MARGIN)


def _y(rss: float, most: float) -> float:
    return _HEIGHT - _MARGIN - rss / most * (_HEIGHT - 2 * _MARGIN)


def _frame(longest: float, most: float) -> str:
    left, bottom = _MARGIN, _HEIGHT - _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<path d="M{left} {_MARGIN}V{bottom}H{_WIDTH - _MARGIN}" fill="none" stroke="black"/>',
        f'<text x="{left}" y="{_MARGIN - 12}">RSS of the gateway in MiB; a new line is a new process</text>',
        f'<text x="{_WIDTH - _MARGIN}" y="{bottom + 32}" text-anchor="end">seconds</text>',
    ]
    for part in range(5):
        rss, at = most * part / 4, longest * part / 4
        parts.append(f'<text x="{left - 6}" y="{_y(rss, most):.1f}" text-anchor="end">{rss:.0f}</text>')
        parts.append(f'<text x="{_x(at, longest):.1f}" y="{bottom + 16}" text-anchor="middle">{at:.0f}</text>')
    return "\n".join(parts)
