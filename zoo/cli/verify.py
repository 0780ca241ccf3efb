"""``zoo verify``: parity of an artefact with its reference, again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "verify",
        help=help,
        description="Runs an artefact of `zoo export` and its reference on mosaic tiles; fails if a gate does not hold.",
    )
    parser.add_argument("artifact", type=Path, nargs="+", help=".pte, .tflite, .mlpackage or .onnx")
    parser.add_argument(
        "--data", type=Path, help="folder with raw/: verify on its mosaics too (default: ../shared/data)"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from export import target_module
    from export.verify import check_data, check_gates, target_of, verify
    from zoo.cli.export import default_data

    check_data(args.data)
    records = {}
    for path in args.artifact:
        parity = verify(path, data=args.data or default_data())
        module = target_module(target_of(path))
        audit = module.audit(path)
        check_gates(path.name, module.read_metadata(path), parity, audit)
        records[path.name] = {"parity": parity, "audit": audit}
        if not args.json:
            worst = parity["worst_psnr_db"]
            print(f"{path.name}: {'equal' if worst is None else f'{worst:.1f} dB'} against {parity['reference']}")
    if args.json:
        print(json.dumps(records))
