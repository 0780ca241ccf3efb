"""``zoo estimate``: a reasoned range of latencies on phones that were not measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "estimate",
        help=help,
        description="Reasons from published clocks and measurements how long the network of a model takes on a 12 MP photo. "
        "The result is an estimate; `zoo benchmark --device adb` measures.",
    )
    parser.add_argument("name", nargs="?", help="model (default: the flagship)")
    parser.add_argument(
        "--soc", action="append", help="chip, for example snapdragon-8-gen-3; repeatable (default: all)"
    )
    parser.add_argument("--target", action="append", help="cpu or npu; repeatable (default: both)")
    parser.add_argument("--threads", type=int, default=4, help="CPU cores, the fastest ones (default: 4)")
    parser.add_argument(
        "--instructions",
        type=Path,
        metavar="DIR",
        help="folder with counted instructions (default: evidence/instructions where there is one)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from export.estimate import COUNTS, PHOTO_MP, TARGETS, estimate, socs, tables
    from zoo.errors import ZooError
    from zoo.models.registry import DEFAULT_MODEL

    name = args.name or DEFAULT_MODEL
    if args.instructions and not args.instructions.is_dir():
        raise ZooError(f"{args.instructions}: no such folder; `python -m tools.arm.count --record DIR` makes one")
    folder = args.instructions or COUNTS
    wanted = [
        (soc, target) for target in dict.fromkeys(args.target or TARGETS) for soc in args.soc or socs(target) or [""]
    ]
    if args.soc and not args.target:
        wanted = [(soc, target) for soc, target in wanted if soc not in tables()["socs"] or soc in socs(target)]
    found = [estimate(name, soc, target, threads=args.threads, evidence=folder) for soc, target in wanted]
    if args.json:
        print(json.dumps([e.to_json() for e in found]))
        return
    table = Table("chip", "on", f"ESTIMATE, s per {PHOTO_MP:.0f} MP photo", "ms/MP", "from", "confidence", box=None)
    for e in found:
        table.add_row(
            tables()["socs"][e.soc]["title"],
            e.target if e.threads is None else f"{e.target}, {e.threads} core(s)",
            f"{e.low_ms / 1e3:.2f} to {e.high_ms / 1e3:.2f}",
            f"{e.low_ms_per_mp:.1f} to {e.high_ms_per_mp:.1f}",
            e.basis,
            e.confidence,
        )
    console = Console(width=max(140, Console().width))
    console.print(f"{name}: estimates from published numbers, not measurements (`zoo benchmark --device adb` measures)")
    console.print(table)
    for words in dict.fromkeys(w for e in found for w in e.assumptions if len(found) <= 2 or "checked on" in w):
        console.print(f"- {words}")
    if len(found) == 1 and found[0].layers:
        console.print("- slowest layers: " + ", ".join(f"{layer} {share:.0%}" for layer, share in found[0].layers))
