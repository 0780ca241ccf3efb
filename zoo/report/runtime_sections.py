"""What of the report is about running: time on this host and on phones, operators, instructions, sensitivity."""

from __future__ import annotations

from dataclasses import replace

from zoo.report.choose import Shelf
from zoo.report.document import Block, Row, Section, Table, Text
from zoo.report.records import Record, by_machine, of_kind
from zoo.report.tables import latency, photos

_DEAREST = _SLOWEST = 5
_CLASSES = 4
_PRECISIONS = ("int8", "fp16", "fp32")
_RESULTS = {"whole": "whole", "float": "**float**", "splits": "**splits**", "fails": "**fails**"}


def times(shelf: Shelf) -> Section:
    """Latency of the networks and of whole photos, a table per machine; phones where there are records."""
    text = "Ratios are taken within one run: the machine is shared. Megapixels are sensor pixels of a whole tile, halo included."
    blocks: list[Block] = [Text(text), *latency(shelf.evidence, _PRECISIONS)]
    blocks += [replace(t, title=f"Whole photos, {t.title}") for t in photos(shelf.evidence) if t.rows]
    for phone, records in by_machine(of_kind(shelf.records, "phone")).items():
        head = [
            "file",
            "threads",
            "mode",
            "ms per tile: median (p10-p90)",
            "ms/MP",
            "load ms",
            "slower when hot",
            "output",
        ]
        rows = [Row(_phone(r), [r.source]) for r in sorted(records, key=lambda r: (r.get("mode", ""), r.source))]
        doubts = dict.fromkeys(d for r in records for d in r.get("doubts", []))
        blocks.append(Table(head, rows, [f"mind: {d}" for d in doubts], title=phone))
    return Section("Time", blocks)


def _phone(r: Record) -> list[str]:
    ms, slower = r.get("ms", {}), r.get("sustained", {}).get("throttling_ratio")
    output = r.get("output", {})
    return [
        f"`{r.get('artifact', '-')}`",
        str(r.get("threads", "-")),
        r.get("mode", "-"),
        f"{ms['median']:.2f} ({ms['p10']:.2f}-{ms['p90']:.2f})" if ms else "-",
        f"{r['ms_per_megapixel']:.1f}" if "ms_per_megapixel" in r.body else "-",
        f"{r['load_ms']:.1f}" if "load_ms" in r.body else "-",
        "-" if slower is None else f"{slower:.2f}x",
        "-" if not output else "equal" if output.get("equal") else "differs",
    ]


def profiles(shelf: Shelf) -> Section | None:
    """The slowest operators of each file, per machine; None without records."""
    found = of_kind(shelf.records, "profile")
    if not found:
        return None
    text = "The runtimes' own profilers. Shares are of the shortest times over the runs, which other processes touch least."
    blocks: list[Block] = [Text(text)]
    for machine, records in by_machine(found).items():
        rows = []
        for r in sorted(records, key=lambda r: (r["threads"], r["target"], r["artifact"])):
            for o in sorted(r["operators"], key=lambda o: -o["share"])[:_SLOWEST]:
                speed = f"{o['gmac_per_second']:.0f}" if "gmac_per_second" in o else "-"
                cells = [
                    f"`{r['artifact']}`",
                    str(r["threads"]),
                    f"{o['operator']}",
                    f"`{o['layer']}`" if o["layer"] else "-",
                ]
                rows.append(Row([*cells, f"{o['us']['min']:.0f}", f"{o['share']:.0%}", speed], [r.source]))
        head = ["file", "threads", "operator", "layer", "shortest, us", "share", "GMAC/s"]
        blocks.append(Table(head, rows, title=f"The {_SLOWEST} slowest operators of each file, {machine}"))
    return Section("Time per operator", blocks)


def instructions(shelf: Shelf) -> Section | None:
    """Instructions per megapixel of each file, a table per emulated CPU; None without records."""
    found = of_kind(shelf.records, "instructions")
    if not found:
        return None
    text = (
        "Counted in an emulator, and repeatable to the instruction: what a CPU has to execute, not how long it takes. Useful: "
        "multiply-accumulates of dense convolutions over those that the executed dot products could hold."
    )
    blocks: list[Block] = [Text(text)]
    for machine, records in by_machine(found).items():
        rows = []
        for r in sorted(records, key=lambda r: (r["target"], r["millions_per_megapixel"]["total"])):
            counts, useful = r["millions_per_megapixel"], r.get("useful_dot_share")
            most = sorted(((n, name) for name, n in counts.items() if name != "total"), reverse=True)[:_CLASSES]
            cells = [f"`{r['artifact']}`", f"{counts['total']:.0f}", "-" if useful is None else f"{useful:.0%}"]
            rows.append(Row([*cells, ", ".join(f"{name} {n:.0f}" for n, name in most)], [r.source]))
        head = ["file", "millions per megapixel", "useful", f"{_CLASSES} largest classes"]
        blocks.append(Table(head, rows, title=machine))
    return Section("Instructions on ARM", blocks)


def sensitivity(shelf: Shelf) -> Section | None:
    """What quantising single layers and activations costs, the dearest of each model; None without records."""
    found = of_kind(shelf.records, "sensitivity")
    if not found:
        return None
    text = (
        "One layer or activation left in float, the rest in int8: the gain at the network's output is what it costs. "
        f"The {_DEAREST} dearest; own: SNR of the tensor itself; alone: SNR at the output when only it is in int8."
    )
    blocks: list[Block] = [Text(text)]
    for r in found:
        costs = sorted(r.get("costs", []), key=lambda c: -c["cost_db"])[:_DEAREST]
        rows = [
            Row([f"`{c['name']}`", c["kind"], *(f"{c[k]:.2f}" for k in ("cost_db", "own_db", "alone_db"))], [r.source])
            for c in costs
        ]
        name = " ".join(filter(None, [r["model"], r.get("half"), r.get("recipe"), f"on {r.get('inputs')}"]))
        title = f"{name}: {r['total_db']:.1f} dB SNR with everything in int8"
        blocks.append(Table(["tensor", "kind", "costs, dB", "own, dB", "alone, dB"], rows, title=title))
    return Section("Sensitivity to int8", blocks)


def operators(shelf: Shelf) -> Section | None:
    """The micro-operator matrix: a row per operator, a column per target and precision; None without records."""
    found = sorted(
        of_kind(shelf.records, "operators"), key=lambda r: (r["precision"] != "int8", r["target"], r["precision"])
    )
    if not found:
        return None
    names = dict.fromkeys(name for r in found for name in r["cells"])
    rows = [Row([name, *(_cell(r["cells"].get(name)) for r in found)], [r.source for r in found]) for name in names]
    text = (
        "One operator between two convolutions, through the same export. **whole**: all in that type and one delegate; "
        "**float**: it stays float between int8; **splits**: it cuts the delegate; **fails**: no file that runs. "
        "Numbers: SNR against float, dB."
    )
    return Section(
        "Operators", [Text(text), Table(["operator", *(f"{r['target']} {r['precision']}" for r in found)], rows)]
    )


def _cell(cell: dict | None) -> str:
    if cell is None:
        return "-"
    snr = cell.get("snr_float_db")
    return _RESULTS.get(cell["result"], cell["result"]) + (f" {snr:.0f}" if snr is not None else "")
