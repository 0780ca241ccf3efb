"""Charts: what is dominated, where labels go, and that the same numbers give the same drawing."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET

from zoo.report import charts
from zoo.report.charts import HEIGHT, WIDTH, Line, Point, figure, frontier, lines, scatter, standalone


def points(*places: tuple[float, float]) -> list[Point]:
    return [Point(x, y, f"p{i}", "int8") for i, (x, y) in enumerate(places)]


def test_frontier_keeps_what_nothing_beats_and_equals() -> None:
    drawn = points((1, 20), (2, 25), (3, 24), (2, 25), (4, 30), (5, 30))
    assert [p.label for p in frontier(drawn)] == ["p0", "p1", "p3", "p4"]


def test_dominated_points_are_hollow() -> None:
    drawn = points((1, 20), (2, 25), (3, 24))
    svg = ET.fromstring(figure([scatter(drawn, frontier(drawn), "ms", "dB")], "x"))
    fills = {
        g.find("{*}title").text: g.find("{*}circle").get("fill") for g in svg.iter() if g.find("{*}circle") is not None
    }  # type: ignore[union-attr]
    assert fills == {"p0": "var(--int8)", "p1": "var(--int8)", "p2": "var(--paper)"}


def test_higher_is_up_and_dearer_is_right() -> None:
    drawn = points((1, 20), (100, 30))
    circles = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', scatter(drawn, drawn, "ms", "dB"))
    (x0, y0), (x1, y1) = ((float(x), float(y)) for x, y in circles)
    assert x0 < x1 and y0 > y1


def test_labels_keep_apart_and_inside() -> None:
    rng = random.Random(3)
    spots = [(rng.uniform(80, WIDTH - 30), rng.uniform(40, HEIGHT - 60), f"method {i}") for i in range(12)]
    boxes = charts._labels(spots, [])
    area = boxes[0].w * boxes[0].h
    shared = [a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert max(shared) < 0.1 * area
    assert all(b.x >= 0 and b.x + b.w <= WIDTH + 1 and b.y >= 0 and b.y + b.h <= HEIGHT for b in boxes)


def test_one_point_and_equal_points_can_be_drawn() -> None:
    for drawn in (points((5, 20)), points((5, 20), (5, 20))):
        ET.fromstring(figure([scatter(drawn, frontier(drawn), "ms", "dB")], "x"))


def test_lines_leave_gaps_and_keep_their_labels_apart() -> None:
    series = [Line(f"l{i}", [30.0, None if i == 0 else 25.0, 20.0 + i / 100], "peer", dashed=i == 1) for i in range(5)]
    drawn = lines(series, ["a", "b", "c"], "dB")
    assert len(re.findall("<polyline", drawn)) == 5 and len(re.findall("stroke-dasharray", drawn)) == 1
    places = sorted(float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)"[^>]*>l\d<', drawn))
    assert len(places) == 5 and min(b - a for a, b in zip(places, places[1:], strict=False)) >= 12


def test_names_are_escaped() -> None:
    svg = figure([scatter([Point(1, 2, "<a & b>", "int8", '"n" <i>')], [], "x <", "y")], 'l "<')
    ET.fromstring(svg)
    assert "&lt;a &amp; b&gt;" in svg


def test_a_file_of_its_own_brings_both_schemes_and_repeats_to_the_byte() -> None:
    drawn = points((1, 20), (2, 25), (3, 24))
    first, second = (standalone(figure([scatter(drawn, frontier(drawn), "ms", "dB")], "x")) for _ in range(2))
    assert first == second and ET.fromstring(first).tag.endswith("svg")
    used = set(re.findall(r"var\(--(\w+)\)", first))
    assert used <= set(charts.PALETTE["light"]) == set(charts.PALETTE["dark"])
    assert "prefers-color-scheme:dark" in first
