"""Tables of what was exported and timed, and the list of all tables that files may hold between markers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from zoo.evaluation.leaderboard import number
from zoo.report import quality_tables
from zoo.report.document import Row, Table
from zoo.report.markdown import table as as_markdown
from zoo.report.records import Record, by_machine, of_kind, read_records


def latency(evidence: Path, precisions: tuple[str, ...] = ("int8",)) -> list[Table]:
    """Host latency of the artefacts, with ratios taken in one run; one table per machine."""
    records = [r for r in of_kind(read_records(evidence), "latency") if r["precision"] in precisions]
    head = ["model", "runtime", "threads", "ms per tile: median (p10-p90)", "ms/MP"]
    head += ["int8 over fp32", "of int8 peak", "RSS, MB"]
    order = lambda r: (r["threads"], r["model"], r.get("half", ""), r["target"], precisions.index(r["precision"]))  # noqa: E731
    return _per_machine(records, head, lambda r: _latency_row(r, len(precisions) > 1), order)


def _latency_row(r: Record, tell_precision: bool) -> list[str]:
    name = " ".join(filter(None, [r["model"], r.get("half"), r["precision"] if tell_precision else None]))
    return [
        name,
        r["target"],
        str(r["threads"]),
        f"{r['ms']['median']:.2f} ({r['ms']['p10']:.2f}-{r['ms']['p90']:.2f})",
        f"{r['ms_per_megapixel']:.1f}",
        f"{r['speedup_over_fp32']:.2f}x" if r.get("speedup_over_fp32") else "-",
        f"{r['share_of_int8_peak']:.0%}" if r.get("share_of_int8_peak") else "-",
        number(r.get("peak_rss_mb"), ".0f"),
    ]


def artifacts(evidence: Path) -> list[Table]:
    """Sizes and parity of every recorded artefact."""
    rows = []
    for r in of_kind(read_records(evidence), "artifact"):
        audit = r["audit"]
        share = audit["delegated_share"]
        cells = [
            f"`{r['path']}`",
            f"{r['size_bytes'] / 1000:.0f}",
            parity(r),
            f"{audit['conv_int8']} of {audit['conv_total']}" if r["precision"] == "int8" else "-",
            "on the device" if share is None else f"{share:.0%}",
        ]
        rows.append(Row(cells, [r.source]))
    return [Table(["artefact", "kB", "worst tile", "int8 convolutions", "delegated nodes"], rows)]


def parity(r: Record) -> str:
    """How close an artefact is to its reference on its worst tile, in words."""
    about = r["parity"]
    worst, twin = about["worst_psnr_db"], about.get("fp32_compute")
    verdict = (
        f"equal to the {about['reference']} reference" if worst is None else f"{worst:.1f} dB of {about['reference']}"
    )
    if not twin:
        return verdict
    return (
        f"{verdict}; computed in fp32, {twin['differing']:.3%} of outputs differ, by at most {twin['max_steps']} steps"
    )


def photos(evidence: Path, commands: bool = True) -> list[Table]:
    """Whole photos: time and memory against size; one table per machine, with what made it unless ``commands`` is off."""

    def cells(r: Record) -> list[str]:
        numbers = (f"{r['seconds']:.1f}", f"{r['seconds_per_mp']:.2f}", f"{r['peak_rss_mb']:.0f}")
        return [f"{r['megapixels']:.1f}", r["runtime"], str(r["threads"]), *numbers]

    records = of_kind(read_records(evidence), "photo")
    head = ["MP", "runtime", "threads", "seconds", "s/MP", "peak RSS, MB"]
    made = _per_machine(records, head, cells, lambda r: (r["runtime"], r["threads"], r["megapixels"]))
    if not commands:
        return made
    used = {t.title: dict.fromkeys(r["command"] for r in records if r.machine == t.title) for t in made}
    return [replace(t, notes=[f"command: `{c}`" for c in used[t.title]]) for t in made]


def _per_machine(
    records: Sequence[Record],
    head: Sequence[str],
    cells: Callable[[Record], list[str]],
    order: Callable[[Record], tuple],
) -> list[Table]:
    """One table per machine, with its name above."""
    groups = by_machine(records)
    return [
        Table(head, [Row(cells(r), [r.source]) for r in sorted(found, key=order)], title=name)
        for name, found in groups.items()
    ] or [Table(head, [])]


def _choose(evidence: Path) -> Table:
    from zoo.report.choose import choose

    return choose(evidence)


TABLES: dict[str, Callable[[Path], Table | list[Table]]] = {
    "choose": _choose,
    "leaderboard": quality_tables.leaderboard,
    "demosaic": quality_tables.demosaic,
    "pairs": quality_tables.pairs,
    "other_sets": quality_tables.other_sets,
    "against_bm3d": quality_tables.against_bm3d,
    "quantization": quality_tables.quantization,
    "rate_distortion": quality_tables.rate_distortion,
    "latency": latency,
    "artifacts": artifacts,
    "photos": partial(photos, commands=False),
}


def render(name: str, evidence: Path) -> str:
    """A table as Markdown.

    Raises:
        KeyError: no such table; its argument lists those that there are.
        ZooError: evidence that cannot be read.
    """
    if name not in TABLES:
        raise KeyError(f"there are {', '.join(TABLES)}")
    made = TABLES[name](evidence)
    if isinstance(made, list):  # the machine is named where there are several; else the text around the table names it
        return "\n\n".join(as_markdown(t if len(made) > 1 else replace(t, title="")) for t in made)
    return as_markdown(made)
