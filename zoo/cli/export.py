"""``zoo export``: verified artefacts for phones."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "export",
        help="write a model for Core ML, ExecuTorch or LiteRT and verify the file",
        description="Converts a model with its shipped weights, runs the file against its reference on mosaic tiles and "
        "keeps it only if every gate holds.",
    )
    parser.add_argument("name", nargs="?", help="model (default: the flagship)")
    parser.add_argument("--target", action="append", required=True, help="coreml, executorch or litert; repeatable")
    parser.add_argument("--precision", default="int8", help="fp32, fp16 or int8 (default)")
    parser.add_argument("--tile", type=int, help="side of the packed input, half the sensor's (default: 256)")
    parser.add_argument("--output-dir", type=Path, default=Path("artifacts"), help="default: artifacts")
    parser.add_argument(
        "--data", type=Path, help="folder with raw/: verify on its mosaics too (default: ../shared/data)"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from export import DEFAULT_TILE, export
    from zoo.models.registry import DEFAULT_MODEL

    console = Console(stderr=True)
    results = []
    for target in dict.fromkeys(args.target):
        with console.status(f"{args.name or DEFAULT_MODEL} -> {target} {args.precision}"):
            results.append(
                export(
                    args.name or DEFAULT_MODEL,
                    target=target,
                    precision=args.precision,
                    tile=DEFAULT_TILE if args.tile is None else args.tile,
                    output_dir=args.output_dir,
                    data=args.data or default_data(),
                )
            )
    if args.json:
        print(json.dumps([result.to_json() for result in results]))
        return
    table = Table("artefact", "kB", "reference", "max abs", "worst dB", "int8 convolutions", "outside delegate")
    for r in results:
        worst = r.parity["worst_psnr_db"]
        delegation = "none" if not r.audit["not_delegated"] else ", ".join(r.audit["not_delegated"])
        table.add_row(
            r.path.name,
            f"{r.size_bytes / 1000:.0f}",
            r.parity["reference"],
            f"{r.parity['max_abs']:.2g}",
            "equal" if worst is None else f"{worst:.1f}",
            f"{r.audit['conv_int8']}/{r.audit['conv_total']}",
            delegation if r.audit["delegated_share"] is not None else "decided on the device",
        )
    Console().print(table)


def default_data() -> Path | None:
    """The project's shared data folder, where there is one."""
    folder = Path("../shared/data")
    return folder if folder.is_dir() else None
