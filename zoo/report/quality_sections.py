"""What of the report is about pictures: frontiers, noise levels, what int8 costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.evaluation.leaderboard import CLASSICAL, LEVELS, PEER, Leaderboard, number
from zoo.evaluation.leaderboard import Row as Ranked
from zoo.report.charts import Line, Point, figure, frontier, lines, scatter, standalone
from zoo.report.choose import Shelf, fp32_ms_per_megapixel
from zoo.report.document import Block, Chart, Row, Section, Table, Text, merged
from zoo.report.quality_tables import (
    INT8,
    LABELS,
    float_models,
    leaderboard,
    quantization,
    rate_distortion,
    row_files,
    row_sources,
)
from zoo.report.records import by_machine, of_kind

NOISY_DB = "mean PSNR over the noisy levels, dB"
_COSTS = (("gmac_per_mp", "GMAC per megapixel"), ("ms_per_mp", "ms per megapixel on the host, whole method"))
_DRAWN = (("gmac_per_mp", "GMAC per megapixel"), ("ms_per_mp", "ms per megapixel, one thread of the host"))
_DOTS = "Filled: on the frontier. Hollow: dominated, something else here is at least as good for less."


def frontiers(shelf: Shelf) -> Section:
    """Accuracy against computation and time of ours, peers and classical methods."""
    if shelf.board is None:
        return Section("Quality against cost", [Text("No quality evidence.")])
    about = f"{NOISY_DB[0].upper()}{NOISY_DB[1:]}, on {len(shelf.board.pictures)} pictures. {_DOTS}"
    charts = [_board_chart(shelf, cost, title) for cost, title in _COSTS]
    return Section("Quality against cost", [Text(about), *(c for c in charts if c), _board_table(shelf)])


def _board_table(shelf: Shelf) -> Table:
    """The leaderboard without what training took: that is in the provenance of each file."""
    table = leaderboard(shelf.evidence)
    left = [i for i, name in enumerate(table.head) if name != "training"]
    rows = [replace(row, cells=[row.cells[i] for i in left]) for row in table.rows]
    return replace(table, head=[table.head[i] for i in left], rows=rows)


def _board_chart(shelf: Shelf, cost: str, title: str) -> Chart | None:
    points = board_points(shelf, cost)
    if not points:
        return None
    assert shelf.board is not None
    best = _best(shelf.board, cost)
    rows = [
        Row(
            [p.label, f"{p.x:.4g}", f"{p.y:.2f}", "frontier" if p.label in best else "dominated"],
            files,
            p.label not in best,
        )
        for p, files in points
    ]
    drawn = [p for p, _ in points]
    svg = figure([scatter(drawn, [p for p in _by_x(drawn) if p.label in best], title, "dB")], f"PSNR against {title}")
    return Chart(f"PSNR against {title}", svg, Table(["method", title, "dB", "place"], rows))


def board_points(shelf: Shelf, cost: str) -> list[tuple[Point, list[str]]]:
    """Rows of the leaderboard that were measured on all pictures, with their records."""
    return [] if shelf.board is None else _points(shelf.board, cost, Path(shelf.evidence.name, "quality"))


def drawing(board: Leaderboard | None, folder: Path) -> str:
    """The frontiers against computation and against time, side by side: an SVG file, empty where nothing has a place.

    Args:
        board: what to draw; rows that lack pictures or a noisy level are left out.
        folder: of its evidence, shown when a point is pointed at.
    """
    panels = []
    if board is not None:
        for cost, title in _DRAWN:
            points, best = [p for p, _ in _points(board, cost, folder)], _best(board, cost)
            if points:
                panels.append(scatter(points, [p for p in _by_x(points) if p.label in best], title, NOISY_DB))
    return standalone(figure(panels, "PSNR against computation and time: this zoo, peers, classical methods"))


def _best(board: Leaderboard, cost: str) -> set[str]:
    """Labels of the rows on a frontier."""
    return {label(row) for row in board.frontier(cost)}


def _points(board: Leaderboard, cost: str, folder: Path) -> list[tuple[Point, list[str]]]:
    found = []
    for row in board.rows:
        x, own = getattr(row, cost), board.own(row)
        y = row.noisy_mean("psnr", own)
        if x is None or y is None or own != board.pictures:
            continue
        files = row_files(folder, row)
        name = label(row)
        found.append((Point(x, y, name, kind(row), f"{name}: {y:.2f} dB, {x:.4g} ({', '.join(merged(files))})"), files))
    return found


def kind(row: Ranked) -> str:
    """Colour of a row of the leaderboard."""
    if row.target in (CLASSICAL, PEER):
        return {CLASSICAL: "classical", PEER: "peer"}[row.target]
    return "int8" if row.precision.startswith("int8") else "float"


def label(row: Ranked) -> str:
    """What a row of the leaderboard is called."""
    return LABELS.get(row.label, row.label)


def _by_x(points: Iterable[Point]) -> list[Point]:
    return sorted(points, key=lambda p: (p.x, p.label))


def targets(shelf: Shelf) -> Section:
    """Per target: accuracy against latency of the network, one chart per machine, and against the file's size."""
    blocks: list[Block] = [
        Text(f"Each file's quality is its own record's, or that of the reference it equals. {_DOTS}")
    ]
    names = sorted({r["target"] for r in of_kind(shelf.records, "artifact")})
    for target in names:
        blocks.append(Text(f"**{target}**"))
        for machine, records in by_machine(of_kind(shelf.records, "latency")).items():
            timed = [r for r in records if r["target"] == target and r["threads"] == 1]
            entries: list[tuple[str, str, float, list[str]]] = []
            for r in timed:
                entries.append((r["model"], r["precision"], r["ms_per_megapixel"], [r.source]))
                twin = fp32_ms_per_megapixel(r)
                has_own = any((o["model"], o["precision"]) == (r["model"], "fp32") for o in timed)
                if r["precision"] == "int8" and twin is not None and not has_own:
                    entries.append((r["model"], "fp32", twin, [r.source]))
            title = f"ms per megapixel, one thread, {machine}"
            blocks += _target_chart(shelf, target, "PSNR against latency", title, entries)
        files = [r for r in of_kind(shelf.records, "artifact") if r["target"] == target]
        sizes = [(r["model"], r["precision"], r["size_bytes"] / 1000, [r.source]) for r in files]
        blocks += _target_chart(shelf, target, "PSNR against size", "size of the file, kB", sizes)
    return Section("Frontiers per target", blocks)


def _target_chart(
    shelf: Shelf, target: str, title: str, x_title: str, entries: Iterable[tuple[str, str, float, list[str]]]
) -> list[Block]:
    """One chart of files of one target: model, precision, cost and records of each; none without a point."""
    drawn: list[tuple[Point, str, list[str]]] = []
    for model, precision, cost, files in entries:
        score = shelf.score(model, target, precision, shelf.artifact(model, target, precision))
        if score is None or score.noisy is None:
            # The fp32 twin of a timing run is a file that was not kept: its quality is the float network's.
            score = shelf.score(model, "torch", "fp32") if precision == "fp32" else None
        if score is None or score.noisy is None:
            continue
        label = f"{model} {precision}"
        sources = [*files, *score.sources]
        note = f"{label}: {score.noisy:.2f} dB ({score.basis}), {cost:.4g} {x_title} ({', '.join(merged(sources))})"
        colour = "int8" if precision.startswith("int8") else "float"
        drawn.append((Point(cost, score.noisy, label, colour, note), score.basis, sources))
    if not drawn:
        return []
    best = frontier([p for p, _, _ in drawn])
    rows = [
        Row(
            [p.label, f"{p.x:.4g}", f"{p.y:.2f}", basis, "frontier" if p in best else "dominated"], files, p not in best
        )
        for p, basis, files in sorted(drawn, key=lambda d: (d[0].x, d[0].label))
    ]
    svg = figure([scatter([p for p, _, _ in drawn], best, x_title, "dB")], f"{target}: {title}")
    return [Chart(title, svg, Table(["file", x_title, "dB", "quality", "place"], rows))]


def noise_levels(shelf: Shelf) -> Section:
    """PSNR at each noise level: what ships, the peers, and the best classical method."""
    title = "Noise levels"
    if shelf.board is None:
        return Section(title, [Text("No quality evidence.")])
    classical = [r for r in shelf.board.rows if r.target == CLASSICAL and shelf.board.own(r) == shelf.board.pictures]
    shown = [r for r in shelf.board.rows if r.target == PEER or (r.precision == "int8" and r.name in shelf.models)]
    shown += [r for r in classical if r.noisy_mean("psnr", shelf.board.pictures) is not None][:1]
    series, rows = [], []
    for row in shown:
        values = [row.mean("psnr", level, shelf.board.own(row)) for level in LEVELS]
        files = row_sources(shelf.evidence, row)
        name = label(row)
        text = ", ".join(f"{level} {number(v, '.2f')} dB" for level, v in zip(LEVELS, values, strict=True))
        note = f"{name}: {text} ({', '.join(merged(files))})"
        series.append(Line(name, values, kind(row), note, dashed=row.target in (PEER, CLASSICAL)))
        rows.append(Row([name, *(number(v, ".2f") for v in values)], files))
    svg = figure([lines(series, LEVELS, "PSNR, dB")], "PSNR at each noise level")
    return Section(
        title, [Chart("PSNR at each noise level", svg, Table(["method", *LEVELS], rows)), *_gains(shelf, shown)]
    )


def compressed(shelf: Shelf) -> Section | None:
    """Compressors and picture codecs."""
    table = rate_distortion(shelf.evidence)
    return Section("Compressed photos", [Text(_COMPRESSED), table]) if table.rows else None


_COMPRESSED = (
    "What a noisy raw becomes in how many bytes: picture codecs behind two developers, and compressors that take the raw itself. "
    "Scenes and noise are those of the bed."
)


def _gains(shelf: Shelf, shown: list[Ranked]) -> list[Block]:
    """The same against the default model, where differences of tenths can be seen."""
    from zoo.models.registry import DEFAULT_MODEL

    own = next((r for r in shown if r.name == DEFAULT_MODEL), None)
    if own is None or shelf.board is None:
        return []
    series, rows = [], []
    for row in shown:
        shared = shelf.board.own(row) & shelf.board.own(own)
        pairs = [(row.mean("psnr", level, shared), own.mean("psnr", level, shared)) for level in LEVELS]
        values = [None if a is None or b is None else a - b for a, b in pairs]
        files = [*row_sources(shelf.evidence, row), *row_sources(shelf.evidence, own)]
        name = label(row)
        note = f"{name}: " + ", ".join(
            f"{level} {number(v, '+.2f')} dB" for level, v in zip(LEVELS, values, strict=True)
        )
        series.append(Line(name, values, kind(row), note, dashed=row.target in (PEER, CLASSICAL)))
        rows.append(Row([name, *(number(v, "+.2f") for v in values)], files))
    title = f"The same, against {own.label}"
    svg = figure([lines(series, LEVELS, "difference in PSNR, dB")], title)
    return [Chart(title, svg, Table(["method", *LEVELS], rows))]


def int8_cost(shelf: Shelf) -> Section:
    """Float, PTQ and QAT of each model: PSNR per level, then the loss per picture."""
    found: dict[Any, Any] = shelf.quality
    rows = []
    for model in float_models(found):
        for label, (target, precision) in {"float": ("torch", "fp32"), **INT8}.items():
            score = shelf.score(model, target, precision)
            if score is None or score.basis != "measured":
                continue
            cells = [number(score.psnr.get(level), ".2f") for level in LEVELS]
            rows.append(Row([model, label, *cells, number(score.noisy, ".2f")], score.sources))
    absolute = Table(["PSNR, dB", "precision", *LEVELS, "noisy mean"], rows)
    text = "One quantised checkpoint serves all targets. Files that equal the integer reference bit for bit have its numbers."
    return Section("Float, PTQ, QAT", [Text(text), absolute, quantization(shelf.evidence)])
