"""Tables of what methods score: quality and rate-distortion evidence."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.evaluation import leaderboard as ranking
from zoo.evaluation.leaderboard import (
    CLASSICAL,
    LEVELS,
    PEER,
    NoEvidence,
    Values,
    number,
    read_evidence,
    read_leaderboard,
)
from zoo.evaluation.rate_board import ANCHORS, read_board
from zoo.models.registry import DEFAULT_MODEL, get_spec
from zoo.report.document import Row, Table

Method = tuple[str, str, str]  # name, target, precision

_BM3D = ("bm3d+menon", "classical", "fp64")
_WEAKER = (("nlm+menon", "classical", "fp64"), ("menon", "classical", "fp64"))
LABELS = {
    "bm3d+menon": "BM3D + Menon",
    "nlm+menon": "non-local means + Menon",
    "menon": "Menon 2007",
    "malvar": "Malvar 2004",
}
# How an int8 network came to be, and where it ran: labels of (target, precision).
INT8 = {
    "PTQ, integer reference": ("integer", "int8-ptq"),
    "QAT, integer reference": ("integer", "int8"),
    "QAT, ExecuTorch": ("executorch", "int8"),
    "QAT, LiteRT": ("litert", "int8"),
    "QAT, Core ML (interpreted)": ("coreml", "int8"),
}


def source(evidence: Path, method: Method, level: str, benchmark: str = "bayer") -> str:
    """The file that holds what a method scored at a level, as it is shown."""
    return _file(Path(evidence.name, "quality"), method, level, benchmark)


def row_sources(evidence: Path, row: ranking.Row) -> list[str]:
    """The files that a row of the leaderboard comes from."""
    return row_files(Path(evidence.name, "quality"), row)


def row_files(folder: Path, row: ranking.Row) -> list[str]:
    """The same, where the quality evidence lies in any folder."""
    return [_file(folder, (row.name, row.target, row.precision), level) for level in row.levels]


def _file(folder: Path, method: Method, level: str, benchmark: str = "bayer") -> str:
    return str(folder / f"{benchmark}-{'-'.join(method)}-{level}.json")


def quality(evidence: Path) -> dict[Method, dict[str, Values]]:
    """Method -> noise level -> picture -> values, of the benchmark bayer."""
    found: dict[Method, dict[str, Values]] = {}
    for r in read_evidence(evidence / "quality", "bayer"):
        values = {k: i["values"] for k, i in r["images"].items()}
        found.setdefault((r["name"], r["target"], r["precision"]), {})[r["level"]] = values
    return found


def leaderboard(evidence: Path) -> Table:
    """Every method at every noise level, with what it costs; see :mod:`zoo.evaluation.leaderboard`."""
    try:
        board = read_leaderboard(evidence / "quality")
    except NoEvidence:
        return Table(ranking.Leaderboard([], set(), "", (0, 0)).table()[0], [])
    head, cells = board.table()
    rows = []
    for row, line in zip(board.rows, cells, strict=True):
        label, *fewer = line[0].split(" (")
        bold = f"**{label}**" if label == f"{DEFAULT_MODEL} int8" else LABELS.get(label, label)
        line[0] = " (".join([bold, *fewer])
        rows.append(Row(line, row_sources(evidence, row), quiet=line[-1] == "dominated"))
    return Table(head, rows, board.notes())


def demosaic(evidence: Path) -> Table:
    """Pictures without noise and camera: mean PSNR per set, worst picture, SSIM."""
    found = read_evidence(evidence / "quality", "demosaic")
    most = {s: max(r["sets"].get(s, 0) for r in found) for s in ("kodak", "mcmaster")} if found else {}
    rows = []
    for r in found:
        psnr = {s: [i["values"]["psnr"] for i in r["images"].values() if i["set"] == s] for s in most}
        ssim = [i["values"]["ssim"] for i in r["images"].values() if i["set"] in most]
        cells = [mean(psnr[s], ".2f", most[s]) for s in most]
        worst = number(min((v for p in psnr.values() for v in p), default=None), ".2f")
        cells = [_name(r), *cells, worst, mean(ssim, ".4f", sum(most.values()))]
        rows.append(Row(cells, [_source(evidence, r)]))
    rows.sort(key=_by(2))
    return Table(["mean PSNR, dB", "Kodak", "McMaster", "worst picture", "SSIM"], rows)


def pairs(evidence: Path) -> Table:
    """Real noisy frames: PSNR in the raw's domain, and what is gained on the frame itself."""
    found = read_evidence(evidence / "quality", "pairs")
    most = max((len(r["images"]) for r in found), default=0)
    rows = []
    for r in found:
        values = [i["values"] for i in r["images"].values()]
        psnr, given = [v["psnr"] for v in values], [v["psnr_input"] for v in values]
        gain = f"{statistics.fmean(psnr) - statistics.fmean(given):+.2f}"
        cells = [_name(r), mean(psnr, ".2f", most), gain, mean([v["ssim"] for v in values], ".4f", most)]
        rows.append(Row(cells, [_source(evidence, r)]))
    rows.sort(key=_by(1))
    complete = [r for r in found if len(r["images"]) == most]
    if complete:
        given = [i["values"]["psnr_input"] for i in complete[0]["images"].values()]
        cells = ["the noisy frames themselves", mean(given, ".2f", most), "+0.00", "-"]
        rows.append(Row(cells, [_source(evidence, complete[0])]))
    return Table(["raw PSNR, dB", "mean", "gain", "SSIM"], rows)


_OTHER_SETS = {"urban": "Urban", "cid": "CID22"}


def other_sets(evidence: Path) -> Table:
    """Mean PSNR by level on the sets beside the leaderboard's, of methods that were measured on all of their pictures."""
    found = quality(evidence)

    def values(method: Method, name: str, level: str) -> list[float]:
        return [v["psnr"] for k, v in found[method].get(level, {}).items() if k.startswith(f"{name}/")]

    counts = {
        name: max((len(values(m, name, level)) for m in found for level in found[m]), default=0) for name in _OTHER_SETS
    }
    rows = []
    for method in found:
        scores = {name: [values(method, name, level) for level in LEVELS] for name in counts}
        if all(len(v) == counts[name] > 0 for name, levels in scores.items() for v in levels):
            cells = [" / ".join(mean(v, ".2f") for v in levels) for levels in scores.values()]
            plain = method[0].removeprefix("peer-")
            label = LABELS.get(plain, plain) if method[1] in (CLASSICAL, PEER) else f"{plain} {method[2]}"
            rows.append(Row([label, *cells], [source(evidence, method, level) for level in LEVELS]))
    rows.sort(key=lambda row: -float(row.cells[1].split(" / ")[2]))
    titles = [f"{title} ({counts[name]}): {', '.join(LEVELS)}" for name, title in _OTHER_SETS.items()]
    return Table(["mean PSNR, dB", *titles], rows)


def against_bm3d(evidence: Path) -> Table:
    """The flagship and the classical methods on the very pictures that BM3D was measured on."""
    found = quality(evidence)
    shared = found.get(_BM3D, {})
    count = max((len(values) for values in shared.values()), default=0)
    rows = []
    for method in ((DEFAULT_MODEL, "litert", "int8"), _BM3D, *_WEAKER):
        cells, sources = [], []
        for level in ("iso3200", "iso12800"):
            values = found.get(method, {}).get(level, {})
            cells.append(mean([values[k]["psnr"] for k in shared.get(level, {}) if k in values], ".2f"))
            sources += [source(evidence, method, level)] if values else []
        rows.append(Row([LABELS.get(method[0], f"{method[0]} {method[2]}"), *cells], sources))
    return Table([f"mean PSNR on the same {count} pictures, dB", "iso3200", "iso12800"], rows)


def quantization(evidence: Path) -> Table:
    """What int8 costs against float: mean and worst picture, per level, on the pictures that the two share."""
    found = quality(evidence)
    networks = [levels for (_, target, _), levels in found.items() if target not in (CLASSICAL, PEER)]
    most = max((sum(map(_ranked, values)) for levels in networks for values in levels.values()), default=0)
    rows = []
    for model in float_models(found):
        floats = found[model, "torch", "fp32"]
        for label, (target, precision) in INT8.items():
            levels = found.get((model, target, precision), {})
            cells = []
            for level in LEVELS:
                values, reference = levels.get(level, {}), floats.get(level, {})
                loss = [reference[k]["psnr"] - v["psnr"] for k, v in values.items() if k in reference and _ranked(k)]
                fewer = "" if len(loss) == most else f" ({len(loss)} pictures)"
                cells.append(f"{sum(loss) / len(loss):.3f} / {max(loss):.3f}{fewer}" if loss else "-")
            if any(c != "-" for c in cells):
                methods = ((model, target, precision), (model, "torch", "fp32"))
                files = [source(evidence, m, level) for m in methods for level in found[m]]
                rows.append(Row([model, label, *cells], files))
    return Table(["model", "int8 by", *(f"{level}: mean / worst loss, dB" for level in LEVELS)], rows)


def rate_distortion(evidence: Path, only: str = "") -> Table:
    """Codecs against the two anchors, on curves of means; see :mod:`zoo.evaluation.rate_board`. ``only``: one of ours."""
    board = read_board(evidence / "rate-distortion")
    if only:
        board = replace(board, found={n: r for n, r in board.found.items() if n.split()[0] == only or n in ANCHORS})
    rows = []
    for name in board.names:
        cells = []
        for level in LEVELS:
            found = [board.against(name, anchor, level) for anchor in ANCHORS]
            texts = ["-" if f is None else f.text() for f in found]
            cells.append("-" if set(texts) == {"-"} else " / ".join(texts).replace("*", "\\*"))
        rows.append(Row([name, *cells], [f"{evidence.name}/rate-distortion"]))
    head = [f"BD-rate against {ANCHORS[0]} / {ANCHORS[1]}", *LEVELS]
    return Table(head, rows, board.notes() if rows else ())


def _ranked(key: str) -> bool:
    """Whether a picture, ``set/name``, is of the leaderboard's sets."""
    return key.split("/")[0] not in _OTHER_SETS


def float_models(found: Iterable[Method]) -> list[str]:
    """Models that were measured in float, by computation, largest first; those no longer registered last."""

    def by_cost(model: str) -> tuple[float, str]:
        try:
            return -get_spec(model).gmac_per_mp, model
        except ZooError:
            return 0.0, model

    return sorted({name for name, target, _ in found if target == "torch"}, key=by_cost)


def mean(values: Sequence[float], form: str, most: int | None = None) -> str:
    """The mean as text, with the number of pictures where it is fewer than ``most``."""
    fewer = "" if most is None or len(values) == most else f" ({len(values)} pictures)"
    return f"{statistics.fmean(values):{form}}{fewer}" if values else "-"


def _source(evidence: Path, r: dict[str, Any]) -> str:
    return source(evidence, (r["name"], r["target"], r["precision"]), r["level"], r["benchmark"])


def _name(record: dict[str, Any]) -> str:
    """What a row of a record is called."""
    name = record["name"].removeprefix("peer-") if record["target"] == PEER else record["name"]
    networks = record["target"] not in ("classical", PEER)
    return f"{name} {record['target']} {record['precision']}" if networks else LABELS.get(name, name)


def _by(column: int) -> Callable[[Row], tuple[float, str]]:
    """Sorts rows by the number that a column begins with, largest first, "-" last."""
    return lambda row: (-float(row.cells[column].split()[0]) if row.cells[column] != "-" else 0.0, row.cells[0])
