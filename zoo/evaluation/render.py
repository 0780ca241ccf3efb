"""Tables of the README, from evidence only: ``python -m zoo.evaluation.render [--check]``.

A table stands between ``<!-- table:NAME -->`` and ``<!-- /table -->``; a test fails when what stands there is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.evaluation.leaderboard import LEVELS, PEER, Leaderboard, NoEvidence, Values, read_evidence, read_leaderboard
from zoo.evaluation.rate_board import ANCHORS, read_board
from zoo.models.registry import DEFAULT_MODEL, get_spec

EVIDENCE = Path("evidence")
Method = tuple[str, str, str]  # name, target, precision

_BM3D = ("bm3d+menon", "classical", "fp64")
_WEAKER = (("nlm+menon", "classical", "fp64"), ("menon", "classical", "fp64"))
_LABELS = {
    "bm3d+menon": "BM3D + Menon",
    "nlm+menon": "non-local means + Menon",
    "menon": "Menon 2007",
    "malvar": "Malvar 2004",
}
_SECTION = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def render(text: str, evidence: Path = EVIDENCE) -> str:
    """``text`` with every marked table made anew.

    Raises:
        ZooError: a marker names a table that does not exist.
    """

    def table(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ZooError(f"README: no table '{match[2]}'; there are {', '.join(TABLES)}")
        return match[1] + TABLES[match[2]](evidence) + "\n" + match[3]

    return _SECTION.sub(table, text)


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; without any row, one of "-" that says so."""
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(rows) or [["-"] * len(head)])]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]


def _quality(evidence: Path) -> dict[Method, dict[str, Values]]:
    """Method -> noise level -> picture -> values, of the benchmark bayer."""
    found: dict[Method, dict[str, Values]] = {}
    for r in read_evidence(evidence / "quality", "bayer"):
        values = {k: i["values"] for k, i in r["images"].items()}
        found.setdefault((r["name"], r["target"], r["precision"]), {})[r["level"]] = values
    return found


def leaderboard(evidence: Path) -> str:
    """Every method at every noise level, with what it costs; see :mod:`zoo.evaluation.leaderboard`."""
    try:
        board = read_leaderboard(evidence / "quality")
    except NoEvidence:
        return _rows(Leaderboard([], set(), "", (0, 0)).table()[0], [])
    head, rows = board.table()
    for row in rows:
        label, *fewer = row[0].split(" (")
        row[0] = " (".join([f"**{label}**" if label == f"{DEFAULT_MODEL} int8" else _LABELS.get(label, label), *fewer])
    return _rows(head, rows) + "\n\n" + "  \n".join(note.replace("*", "\\*") for note in board.notes())


def demosaic(evidence: Path) -> str:
    """Pictures without noise and camera: mean PSNR per set, worst picture, SSIM."""
    found = read_evidence(evidence / "quality", "demosaic")
    most = {s: max(r["sets"].get(s, 0) for r in found) for s in ("kodak", "mcmaster")} if found else {}
    rows = []
    for r in found:
        psnr = {s: [i["values"]["psnr"] for i in r["images"].values() if i["set"] == s] for s in most}
        ssim = [i["values"]["ssim"] for i in r["images"].values() if i["set"] in most]
        cells = [_mean(psnr[s], ".2f", most[s]) for s in most]
        rows.append([_name(r), *cells, _number(min((v for p in psnr.values() for v in p), default=None), ".2f")])
        rows[-1].append(_mean(ssim, ".4f", sum(most.values())))
    rows.sort(key=_by(2))
    return _rows(["mean PSNR, dB", "Kodak", "McMaster", "worst picture", "SSIM"], rows)


def pairs(evidence: Path) -> str:
    """Real noisy frames: PSNR in the raw's domain, and what is gained on the frame itself."""
    found = read_evidence(evidence / "quality", "pairs")
    most = max((len(r["images"]) for r in found), default=0)
    rows = []
    for r in found:
        values = [i["values"] for i in r["images"].values()]
        psnr, given = [v["psnr"] for v in values], [v["psnr_input"] for v in values]
        gain = statistics.fmean(psnr) - statistics.fmean(given)
        rows.append(
            [_name(r), _mean(psnr, ".2f", most), f"{gain:+.2f}", _mean([v["ssim"] for v in values], ".4f", most)]
        )
    rows.sort(key=_by(1))
    complete = [r for r in found if len(r["images"]) == most]
    if complete:
        given = [i["values"]["psnr_input"] for i in complete[0]["images"].values()]
        rows.append(["the noisy frames themselves", _mean(given, ".2f", most), "+0.00", "-"])
    return _rows(["raw PSNR, dB", "mean", "gain", "SSIM"], rows)


def against_bm3d(evidence: Path) -> str:
    """The flagship and the classical methods on the very pictures that BM3D was measured on."""
    found = _quality(evidence)
    shared = found.get(_BM3D, {})
    count = max((len(values) for values in shared.values()), default=0)
    rows = []
    for method in ((DEFAULT_MODEL, "litert", "int8"), _BM3D, *_WEAKER):
        cells = []
        for level in ("iso3200", "iso12800"):
            values = found.get(method, {}).get(level, {})
            cells.append(_mean([values[k]["psnr"] for k in shared.get(level, {}) if k in values], ".2f"))
        label = _LABELS.get(method[0], f"{method[0]} {method[2]}")
        rows.append([label, *cells])
    return _rows([f"mean PSNR on the same {count} pictures, dB", "iso3200", "iso12800"], rows)


def quantization(evidence: Path) -> str:
    """What int8 costs against float: mean and worst picture, per level, on the pictures that the two share."""
    found = _quality(evidence)
    most = max((len(values) for levels in found.values() for values in levels.values()), default=0)
    kinds = {
        "PTQ, integer reference": ("integer", "int8-ptq"),
        "QAT, integer reference": ("integer", "int8"),
        "QAT, ExecuTorch": ("executorch", "int8"),
        "QAT, LiteRT": ("litert", "int8"),
        "QAT, Core ML (interpreted)": ("coreml", "int8"),
    }
    rows = []
    for model in sorted({name for name, target, _ in found if target == "torch"}, key=_by_cost):
        floats = found[model, "torch", "fp32"]
        for label, (target, precision) in kinds.items():
            levels = found.get((model, target, precision), {})
            cells = []
            for level in LEVELS:
                values, reference = levels.get(level, {}), floats.get(level, {})
                loss = [reference[k]["psnr"] - v["psnr"] for k, v in values.items() if k in reference]
                fewer = "" if len(loss) == most else f" ({len(loss)} pictures)"
                cells.append(f"{sum(loss) / len(loss):.3f} / {max(loss):.3f}{fewer}" if loss else "-")
            if any(c != "-" for c in cells):
                rows.append([model, label, *cells])
    return _rows(["model", "int8 by", *(f"{level}: mean / worst loss, dB" for level in LEVELS)], rows)


def rate_distortion(evidence: Path) -> str:
    """Codecs against the two anchors, on curves of means; see :mod:`zoo.evaluation.rate_board`."""
    board = read_board(evidence / "rate-distortion")
    rows = []
    for name in board.names:
        cells = []
        for level in LEVELS:
            found = [board.against(name, anchor, level) for anchor in ANCHORS]
            texts = ["-" if f is None else f.text() for f in found]
            cells.append("-" if set(texts) == {"-"} else " / ".join(texts).replace("*", "\\*"))
        rows.append([name, *cells])
    table = _rows([f"BD-rate against {ANCHORS[0]} / {ANCHORS[1]}", *LEVELS], rows)
    return table + ("\n\n" + "  \n".join(n.replace("*", "\\*") for n in board.notes()) if rows else "")


def _name(record: dict[str, Any]) -> str:
    """What a row of a record is called."""
    name = record["name"].removeprefix("peer-") if record["target"] == PEER else record["name"]
    networks = record["target"] not in ("classical", PEER)
    return f"{name} {record['target']} {record['precision']}" if networks else _LABELS.get(name, name)


def _mean(values: Sequence[float], form: str, most: int | None = None) -> str:
    """The mean as text, with the number of pictures where it is fewer than ``most``."""
    fewer = "" if most is None or len(values) == most else f" ({len(values)} pictures)"
    return f"{statistics.fmean(values):{form}}{fewer}" if values else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _by(column: int) -> Callable[[list[str]], tuple[float, str]]:
    """Sorts rows by the number that a column begins with, largest first, "-" last."""
    return lambda row: (-float(row[column].split()[0]) if row[column] != "-" else 0.0, row[0])


def _by_cost(model: str) -> tuple[float, str]:
    """Sorts models by their computation, largest first; one that is no longer registered comes last."""
    try:
        return -get_spec(model).gmac_per_mp, model
    except ZooError:
        return 0.0, model


def latency(evidence: Path) -> str:
    """Host latency of the int8 artefacts, with ratios taken in one run."""
    rows = []
    for r in sorted(_records(evidence / "latency"), key=lambda r: (r["threads"], r["model"], r["target"])):
        if r["precision"] != "int8":
            continue
        row = [
            r["model"],
            r["target"],
            str(r["threads"]),
            f"{r['ms']['median']:.2f} ({r['ms']['p10']:.2f}-{r['ms']['p90']:.2f})",
            f"{r['ms_per_megapixel']:.1f}",
            f"{r['speedup_over_fp32']:.2f}x",
            f"{r['share_of_int8_peak']:.0%}",
            f"{r['peak_rss_mb']:.0f}",
        ]
        rows.append(row)
    head = [
        "model",
        "runtime",
        "threads",
        "ms per tile: median (p10-p90)",
        "ms/MP",
        "int8 over fp32",
        "of int8 peak",
        "RSS, MB",
    ]
    return _rows(head, rows)


def artifacts(evidence: Path) -> str:
    """Sizes and parity of every recorded artefact."""
    rows = []
    for r in _records(evidence / "artifacts"):
        parity, audit = r["parity"], r["audit"]
        worst, twin = parity["worst_psnr_db"], parity.get("fp32_compute")
        verdict = (
            f"equal to the {parity['reference']} reference"
            if worst is None
            else f"{worst:.1f} dB of {parity['reference']}"
        )
        if twin:
            verdict += (
                f"; computed in fp32, {twin['differing']:.3%} of outputs differ, by at most {twin['max_steps']} steps"
            )
        share = audit["delegated_share"]
        rows.append(
            [
                f"`{r['path']}`",
                f"{r['size_bytes'] / 1000:.0f}",
                verdict,
                f"{audit['conv_int8']} of {audit['conv_total']}" if r["precision"] == "int8" else "-",
                "on the device" if share is None else f"{share:.0%}",
            ]
        )
    return _rows(["artefact", "kB", "worst tile", "int8 convolutions", "delegated nodes"], rows)


def photos(evidence: Path) -> str:
    """Whole photos: time and memory against size."""
    rows = [
        [
            f"{r['megapixels']:.1f}",
            r["runtime"],
            f"{r['seconds']:.1f}",
            f"{r['seconds_per_mp']:.2f}",
            f"{r['peak_rss_mb']:.0f}",
        ]
        for r in sorted(_records(evidence / "photos"), key=lambda r: (r["runtime"], r["megapixels"]))
    ]
    return _rows(["MP", "runtime", "seconds", "s/MP", "peak RSS, MB"], rows)


TABLES: dict[str, Callable[[Path], str]] = {
    "leaderboard": leaderboard,
    "demosaic": demosaic,
    "pairs": pairs,
    "against_bm3d": against_bm3d,
    "quantization": quantization,
    "latency": latency,
    "artifacts": artifacts,
    "photos": photos,
    "rate_distortion": rate_distortion,
}


def main() -> int:
    """Bring README.md up to date, or with ``--check`` say whether it is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    readme = Path("README.md")
    before = readme.read_text()
    after = render(before)
    if check:
        return int(before != after)
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
