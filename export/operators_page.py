"""``docs/operators.md`` from the records of :mod:`export.operators`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.operator_nets import OPERATORS

Records = Mapping[tuple[str, str], dict[str, Any]]

_INTRODUCTION = """# Operators

What the operators of image restoration become on each target, measured by exporting each one with a convolution in front and one
behind through the code of `zoo export`. Made by `python -m export.operators --record evidence/operators`; do not edit.

How to read a cell:

* `int8`, `fp16`: all of it computes in that type, in one delegate (Core ML: which unit runs it, the device decides).
* `float: X`: int8 was asked for, and X computes in float between a dequantise and a quantise.
* `splits: X`: X stays outside the delegate, or casts around it do, and cuts it; the runtime's own, slower kernels run those.
* `fails`: no file, or one that its runtime refuses; the reasons stand below the table.
* The number is the SNR against the float network in dB (the mean per channel taken out of the signal). In brackets that
  against the reference: `=` equal in every output, else dB. The reference is the integer network, or the PT2E graph for operators
  that the integer network does not know (marked `*`).

`zoo doctor NAME --target T` looks for the bad ones in a network and names the rewrite.
"""


def render(records: Records) -> str:
    """The page, Markdown.

    Args:
        records: by (target, precision), from :func:`export.operators.read_records`.
    """
    parts = [_INTRODUCTION]
    for precision in dict.fromkeys(p for _, p in sorted(records, reverse=True)):
        chosen = {t: r for (t, p), r in sorted(records.items()) if p == precision}
        parts.append(f"## {precision}\n\n{_table(chosen, precision)}\n\n{_notes(chosen)}")
    parts.append(f"## How it was made\n\n{_about(records)}\n")
    return "\n".join(parts)


def _table(records: dict[str, dict[str, Any]], precision: str) -> str:
    lines = [["operator", *records], ["---"] * (len(records) + 1)]
    for name, operator in OPERATORS.items():
        cells = [_cell(r["cells"].get(name), precision) for r in records.values()]
        lines.append([operator.title, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(cell: dict[str, Any] | None, precision: str) -> str:
    if cell is None:
        return "-"
    if cell["result"] == "fails":
        return "**fails**"
    outside = [op for op in cell["not_delegated"] if "->" not in op]
    inside = [op for op in cell["float_ops"] if precision not in op]
    words = {
        "whole": precision,
        "float": f"**float**: {_names(inside)}",
        "splits": f"**splits**: {_names(outside or inside)}",
    }
    text = words[cell["result"]]
    if not cell["ran"]:
        return f"{text}; not run"
    text += f"; {_decibels(cell['snr_float_db'])}"
    if "reference" in cell:
        star = "" if cell["reference"] == "integer" else "*"
        text += f" ({_decibels(cell['snr_reference_db'])}{star})"
    return text


def _names(operators: list[str]) -> str:
    """``aten::mean.dim_out:fp32`` -> ``mean.dim_out``; each once."""
    return ", ".join(dict.fromkeys(op.rsplit(":", 1)[0].removeprefix("aten::") for op in operators))


def _decibels(value: float | None) -> str:
    return "=" if value is None else f"{value:.1f}"


def _notes(records: dict[str, dict[str, Any]]) -> str:
    lines = []
    for target, record in records.items():
        for name, cell in record["cells"].items():
            if cell["failure"]:
                lines.append(f"* {target}, {OPERATORS[name].title}: `{cell['failure'].replace('`', '')}`")
    return "\n".join(lines) + ("\n" if lines else "")


def _about(records: Records) -> str:
    lines = ["| target | precision | versions | CPU seconds | machine | date |", "| --- " * 6 + "|"]
    for (target, precision), record in sorted(records.items()):
        packages = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
        row = [
            target,
            precision,
            packages,
            f"{record['cpu_seconds']:.0f}",
            record["machine"]["cpu"],
            record["date"][:10],
        ]
        lines.append("| " + " | ".join(row) + " |")
    total = sum(r["cpu_seconds"] for r in records.values())
    return "\n".join(lines) + f"\n\n{total / 60:.1f} minutes of one core in all."
