"""Charts as SVG text: scatter plots with frontiers, and lines over a few levels. No library, no script, no font of its own.

Colours are CSS variables, so that one drawing does for light and dark; :func:`standalone` adds their values for a file.
The same numbers give the same bytes, so a test can hold a drawing against its evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape

WIDTH, HEIGHT = 440, 320  # units of one panel: on a phone 390 pixels wide a unit is 0.8 pixels, so 13 units can be read
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 22, 44
_FONT, _LETTER = 12, 6.9  # units: size of labels, and the width that a letter takes at most on average
_RADIUS = 4.5
# Okabe and Ito's colours, which people tell apart whatever colours they see; lighter ones on dark ground.
PALETTE = {
    "light": {"ink": "#1c1c1a", "soft": "#6b6b66", "grid": "#e4e3de", "paper": "#ffffff"}
    | {"int8": "#c2410c", "float": "#0b62a4", "peer": "#7a4ea3", "classical": "#5f5f5a"},
    "dark": {"ink": "#ecebe6", "soft": "#a3a29c", "grid": "#35352f", "paper": "#161614"}
    | {"int8": "#ff9a5c", "float": "#6fb7f0", "peer": "#c4a0e8", "classical": "#b0afa8"},
}


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot.

    Attributes:
        x, y: place; ``x`` is positive, as its axis is logarithmic.
        label: beside it.
        kind: colour, a name of :data:`PALETTE`.
        note: shown when pointed at: numbers and where they come from.
    """

    x: float
    y: float
    label: str
    kind: str
    note: str = ""


@dataclass(frozen=True)
class Line:
    """Values over the levels of a line chart; None where one is missing."""

    label: str
    values: Sequence[float | None]
    kind: str
    note: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle in units of the drawing."""

    x: float
    y: float
    w: float
    h: float

    def overlap(self, other: Box) -> float:
        """The area that the two share."""
        w = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        h = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        return max(w, 0.0) * max(h, 0.0)


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats: none is as high and as far left, and better in one of the two; by x."""

    def beaten(p: Point) -> bool:
        return any(q.y >= p.y and q.x <= p.x and (q.y > p.y or q.x < p.x) for q in points)

    return sorted((p for p in points if not beaten(p)), key=lambda p: (p.x, p.label))


def scatter(points: Sequence[Point], best: Sequence[Point], x_title: str, y_title: str) -> str:
    """Points on a logarithmic x axis, the frontier as a line, what it dominates hollow.

    Args:
        points: at least one.
        best: those on the frontier.
        x_title, y_title: of the axes.

    Returns:
        ``<g>`` of :data:`WIDTH` x :data:`HEIGHT` units; :func:`figure` makes it an ``<svg>``.
    """
    x_low, x_high = _log_range([p.x for p in points])
    ticks, y_low, y_high = _linear_range([p.y for p in points])

    def place(p: Point) -> tuple[float, float]:
        across = (math.log10(p.x) - x_low) / (x_high - x_low)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), _down(p.y, y_low, y_high)

    parts = _axes(y_title, x_title, ticks, y_low, y_high)
    for value in _log_ticks(x_low, x_high):
        x = _LEFT + (math.log10(value) - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)
        parts += [_rule(x, _TOP, x, HEIGHT - _BOTTOM), _text(x, HEIGHT - _BOTTOM + 16, f"{value:g}", "soft", "middle")]
    if len(best) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, best))
        parts.append(f'<polyline points="{path}" fill="none" stroke="var(--soft)" stroke-width="1.2"/>')
    for p, box in zip(points, _labels([(*place(p), p.label) for p in points], [place(p) for p in best]), strict=True):
        x, y = place(p)
        colour, inside = f"var(--{p.kind})", f"var(--{p.kind if p in best else 'paper'})"
        dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="{inside}" stroke="{colour}" stroke-width="1.6"/>'
        if _apart(box, x, y) > 18:  # a label that had to go further away is tied to its point
            edge = min((box.x, box.x + box.w), key=lambda e: abs(e - x))
            dot = _rule(x, y, edge, box.y + box.h / 2, "soft", 0.7) + dot
        parts.append(
            f"<g><title>{escape(p.note or p.label)}</title>{dot}{_text(box.x, box.y + _FONT - 2, p.label, p.kind)}</g>"
        )
    return f"<g>{''.join(parts)}</g>"


def lines(series: Sequence[Line], levels: Sequence[str], y_title: str) -> str:
    """Values over named levels, which stand at equal distances; labels at the right end of each line.

    Returns:
        ``<g>`` as of :func:`scatter`.
    """
    ticks, y_low, y_high = _linear_range([v for s in series for v in s.values if v is not None])
    room = max((len(s.label) for s in series), default=0) * _LETTER + 12
    step = (WIDTH - _LEFT - room - 16) / max(1, len(levels) - 1)
    xs = [_LEFT + 16 + i * step for i in range(len(levels))]
    parts = _axes(y_title, "", ticks, y_low, y_high)
    parts += [_text(x, HEIGHT - _BOTTOM + 16, level, "soft", "middle") for x, level in zip(xs, levels, strict=True)]
    ends = []
    for s in series:
        spots = [(x, _down(v, y_low, y_high), v) for x, v in zip(xs, s.values, strict=True) if v is not None]
        if not spots:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in spots)
        dash = ' stroke-dasharray="5 4"' if s.dashed else ""
        drawn = f'<polyline points="{path}" fill="none" stroke="var(--{s.kind})" stroke-width="1.8"{dash}/>'
        drawn += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--{s.kind})"/>' for x, y, _ in spots)
        parts.append(f"<g><title>{escape(s.note or s.label)}</title>{drawn}</g>")
        ends.append((spots[-1][1], spots[-1][0], s))
    below = 0.0
    lowest = HEIGHT - _BOTTOM - (_FONT + 2) * len(ends) + _FONT  # so that the labels after it still have room
    for i, (y, x, s) in enumerate(sorted(ends, key=lambda e: e[0])):
        below = max(min(y + 4, lowest + i * (_FONT + 2)), below + _FONT + 2)
        parts.append(_text(max(x, xs[-1]) + 8, below, s.label, s.kind))
        if x < xs[-1] or abs(below - 4 - y) > 5:
            parts.append(_rule(x + 3, y, max(x, xs[-1]) + 7, below - 4, s.kind, 0.7))
    return f"<g>{''.join(parts)}</g>"


def figure(panels: Sequence[str], label: str) -> str:
    """An ``<svg>`` of panels side by side that grows and shrinks with its place."""
    wide = WIDTH * len(panels)
    inner = "".join(f'<g transform="translate({i * WIDTH} 0)">{panel}</g>' for i, panel in enumerate(panels))
    return (
        f'<svg viewBox="0 0 {wide} {HEIGHT}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" font-size="{_FONT}">{inner}</svg>'
    )


def standalone(svg: str) -> str:
    """The drawing as a file of its own, which follows the reader's colour scheme."""
    light, dark = (";".join(f"--{k}:{v}" for k, v in PALETTE[s].items()) for s in ("light", "dark"))
    style = f"<style>svg{{{light};background:var(--paper)}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, _, rest = svg.partition(">")
    return f"{head}>{style}{rest}\n"


def _axes(y_title: str, x_title: str, ticks: Sequence[float], low: float, high: float) -> list[str]:
    parts = []
    for value in ticks:
        y = _down(value, low, high)
        parts += [_rule(_LEFT, y, WIDTH - _RIGHT, y), _text(_LEFT - 6, y + 4, f"{value:g}", "soft", "end")]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(_text(_LEFT, _TOP - 8, y_title, "soft"))
    return parts + ([_text(middle, HEIGHT - 8, x_title, "soft", "middle")] if x_title else [])


def _labels(spots: Sequence[tuple[float, float, str]], corners: Sequence[tuple[float, float]]) -> list[Box]:
    """Where labels go: each beside its point, off the points, the line and the other labels, as far as there is room.

    Each label in turn takes the place that costs least while the others stay where they are, until none moves; the best
    of several beginnings counts, as the outcome depends on who chooses first.
    """
    dots = [Box(x - _RADIUS - 1, y - _RADIUS - 1, 2 * _RADIUS + 2, 2 * _RADIUS + 2) for x, y, _ in spots]
    choices = [_choices(x, y, label, dots + _along(corners)) for x, y, label in spots]
    every = range(len(spots))
    beginnings = (list(every), list(reversed(every)), sorted(every, key=lambda i: spots[i][0]))
    return min((_settled(choices, order) for order in beginnings), key=lambda found: found[0])[1]


def _settled(choices: Sequence[Sequence[tuple[Box, float]]], order: Sequence[int]) -> tuple[float, list[Box]]:
    """What a place for each label costs in all, and the places."""
    placed: dict[int, tuple[Box, float]] = {}

    def crowded(i: int, choice: tuple[Box, float]) -> float:
        return choice[1] + 4 * sum(choice[0].overlap(other) for j, (other, _) in placed.items() if j != i)

    for _ in range(6):
        before = dict(placed)
        for i in order:
            placed[i] = min(choices[i], key=partial(crowded, i))
        if placed == before:
            break
    return sum(crowded(i, choice) for i, choice in placed.items()), [placed[i][0] for i in range(len(choices))]


def _choices(x: float, y: float, label: str, taken: Sequence[Box]) -> list[tuple[Box, float]]:
    """Places for a label around its point, and what each costs by itself."""
    w, h = len(label) * _LETTER, _FONT + 1
    straight = ((8, -h / 2), (-8 - w, -h / 2))  # these read best
    around = [*straight, (8, -h - 1), (8, 1), (-8 - w, -h - 1), (-8 - w, 1), (-w / 2, -h - 6), (-w / 2, 6)]
    found = []
    for far in (0, 12, 24, 36):
        for dx, dy in around:
            box = Box(x + dx, y + dy + math.copysign(far, dy + h / 2), w, h)
            beyond = max(0, _LEFT - box.x) + max(0, box.x + w - WIDTH)
            beyond += max(0, _TOP - box.y) + max(0, box.y + h - HEIGHT + _BOTTOM)
            covered = sum(box.overlap(other) for other in taken)
            found.append((box, 4 * covered + 200 * beyond + 2 * far + 3 * ((dx, dy) not in straight)))
    return found


def _apart(box: Box, x: float, y: float) -> float:
    """How far a point is from a rectangle."""
    return math.hypot(max(box.x - x, 0, x - box.x - box.w), max(box.y - y, 0, y - box.y - box.h))


def _along(corners: Sequence[tuple[float, float]]) -> list[Box]:
    """Small rectangles along a line, for labels to keep off."""
    boxes = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
        steps = max(1, round(math.hypot(x1 - x0, y1 - y0) / 4))
        boxes += [Box(x0 + (x1 - x0) * i / steps - 1, y0 + (y1 - y0) * i / steps - 1, 3, 3) for i in range(steps)]
    return boxes


def _linear_range(values: Sequence[float]) -> tuple[list[float], float, float]:
    """Round ticks around values, and the axis from the first to the last."""
    low, high = min(values), max(values)
    span = max(high - low, 0.5)
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if span / s <= 6 or s == 100)
    first, last = math.floor((low - 0.04 * span) / step), math.ceil((high + 0.04 * span) / step)
    return [round(i * step, 6) for i in range(first, last + 1)], first * step, last * step


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = max(0.08 * (high - low), 0.12)
    return low - margin, high + margin


def _log_ticks(low: float, high: float) -> list[float]:
    steps = (1, 2, 5) if high - low < 2.2 else (1, 3) if high - low < 3.2 else (1,)
    every = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in steps]
    return [v for v in every if low <= math.log10(v) <= high]


def _down(value: float, low: float, high: float) -> float:
    return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _BOTTOM - _TOP)


def _rule(x0: float, y0: float, x1: float, y1: float, kind: str = "grid", width: float = 1) -> str:
    ends = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
    return f'<line {ends} stroke="var(--{kind})" stroke-width="{width:g}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="var(--{kind})" text-anchor="{anchor}">{escape(text)}</text>'
