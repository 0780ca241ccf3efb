"""``zoo list``: the models and what they cost."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from zoo import weights
from zoo.errors import ZooError
from zoo.models.registry import get_spec, halves, list_models, nearest


def add_parser(subparsers: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "list", help=help, description="List the models: size, cost, precisions of the weights."
    )
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="shell pattern, e.g. 'utnet-*'")
    return parser


def run(args: argparse.Namespace) -> None:
    names = list_models(args.pattern)
    if not names:
        hint = nearest(args.pattern, list_models())
        raise ZooError(f"no model matches '{args.pattern}'{hint}; `zoo list` prints all")
    rows = [_row(name) for name in names]
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("name", no_wrap=True, overflow="ignore")
    for title in ("task", "contract", "params", "GMAC/MP", "halo", "weights", "validation dB"):
        table.add_column(title, justify="left" if title in ("task", "contract", "weights") else "right")
    for row in rows:
        psnr = "-" if row["psnr_db"] is None else f"{row['psnr_db']:.2f}"
        cost = f"{row['params']:,}", f"{row['gmac_per_mp']:.2f}", str(row["halo"])
        table.add_row(row["name"], row["task"], row["contract"], *cost, ", ".join(row["weights"]) or "-", psnr)
    Console(width=max(120, Console().width)).print(table)  # one line each, also where the output is a file


def _row(name: str) -> dict[str, Any]:
    card = weights.card(name) or {}
    spec = get_spec(name)
    # The mean over the noise levels of the validation during training; `zoo evaluate` measures properly. Networks that only
    # demosaic are validated without noise: their mean is of something else.
    measured = {} if spec.task == "demosaic" else card.get("training", {}).get("validation_psnr_db", {})
    levels = list(measured.values())
    kinds = {"fp32": [weights.path(name)], "int8": [weights.path(name, quantized=True, half=h) for h in halves(name)]}
    return dataclasses.asdict(spec) | {
        "weights": [kind for kind, files in kinds.items() if all(weights.listed(f, card) for f in files)],
        "psnr_db": sum(levels) / len(levels) if levels else None,
    }
