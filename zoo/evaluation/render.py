"""Tables of the README, from evidence only: ``python -m zoo.evaluation.render [--check]``.

A table stands between ``<!-- table:NAME -->`` and ``<!-- /table -->``; a test fails when what stands there is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from zoo.errors import ZooError

LEVELS = ("clean", "iso800", "iso3200", "iso12800")
SETS = ("kodak", "mcmaster")
EVIDENCE = Path("evidence")
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
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]


def _quality(evidence: Path, method: tuple[str, str, str], level: str) -> dict[str, dict[str, float]] | None:
    """Per picture values of a method at a level, pictures of the two complete sets only."""
    file = evidence / "quality" / ("-".join(("bayer", *method, level)) + ".json")
    if not file.exists():
        return None
    images = json.loads(file.read_text())["images"]
    return {k: v["values"] for k, v in images.items() if v["set"] in SETS}


def quality(evidence: Path) -> str:
    """Mean developed PSNR of every method on Kodak and McMaster; a star where only some pictures were measured."""
    methods = {
        ("utnet-m", "litert", "int8"): "**utnet-m**, int8",
        ("utnet-m", "torch", "fp32"): "utnet-m, float",
        ("utnet-s", "torch", "fp32"): "utnet-s, float",
        ("utnet-n", "torch", "fp32"): "utnet-n, float",
        ("bm3d+menon", "classical", "fp64"): "BM3D + Menon",
        ("nlm+menon", "classical", "fp64"): "non-local means + Menon",
        ("menon", "classical", "fp64"): "Menon 2007",
        ("malvar", "classical", "fp64"): "Malvar 2004",
    }
    rows = []
    for method, label in methods.items():
        cells = []
        for level in LEVELS:
            values = _quality(evidence, method, level)
            if not values:
                cells.append("-")
                continue
            psnr = [v["psnr"] for v in values.values()]
            star = "" if len(psnr) == 42 else f" ({len(psnr)} pictures)"
            cells.append(f"{sum(psnr) / len(psnr):.2f}{star}")
        rows.append([label, *cells])
    return _rows(["mean PSNR, dB", *LEVELS], rows)


def against_bm3d(evidence: Path) -> str:
    """The flagship and the classical methods on the very pictures that BM3D was measured on."""
    rows = []
    for name, method in {
        "utnet-m, int8": ("utnet-m", "litert", "int8"),
        "BM3D + Menon": ("bm3d+menon", "classical", "fp64"),
        "non-local means + Menon": ("nlm+menon", "classical", "fp64"),
        "Menon 2007": ("menon", "classical", "fp64"),
    }.items():
        cells = []
        for level in ("iso3200", "iso12800"):
            shared = _quality(evidence, ("bm3d+menon", "classical", "fp64"), level) or {}
            values = _quality(evidence, method, level) or {}
            psnr = [values[k]["psnr"] for k in shared if k in values]
            cells.append(f"{sum(psnr) / len(psnr):.2f}" if psnr else "-")
        rows.append([name, *cells])
    return _rows(["mean PSNR on the same 12 pictures, dB", "iso3200", "iso12800"], rows)


def quantization(evidence: Path) -> str:
    """What int8 costs against float: mean and worst picture, per level; and the float figure it is taken from."""
    rows = []
    for model in ("utnet-m", "utnet-s", "utnet-n"):
        floats = {level: _quality(evidence, (model, "torch", "fp32"), level) for level in LEVELS}
        kinds = {
            "PTQ, integer reference": (model, "integer", "int8-ptq"),
            "QAT, integer reference": (model, "integer", "int8"),
            "QAT, ExecuTorch": (model, "executorch", "int8"),
            "QAT, LiteRT": (model, "litert", "int8"),
            "QAT, Core ML (interpreted)": (model, "coreml", "int8"),
        }
        for label, method in kinds.items():
            cells = []
            for level in LEVELS:
                values, reference = _quality(evidence, method, level), floats[level]
                if not values or not reference:
                    cells.append("-")
                    continue
                loss = [reference[k]["psnr"] - v["psnr"] for k, v in values.items()]
                note = "" if len(loss) == 42 else f" ({len(loss)} pictures)"
                cells.append(f"{sum(loss) / len(loss):.3f} / {max(loss):.3f}{note}")
            if any(c != "-" for c in cells):
                rows.append([model, label, *cells])
    return _rows(["model", "int8 by", *(f"{level}: mean / worst loss, dB" for level in LEVELS)], rows)


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
    "quality": quality,
    "against_bm3d": against_bm3d,
    "quantization": quantization,
    "latency": latency,
    "artifacts": artifacts,
    "photos": photos,
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
