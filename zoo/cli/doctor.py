"""``zoo doctor``: what a target will do to a network, before it is exported."""

from __future__ import annotations

import argparse
import dataclasses
import json


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "doctor",
        help=help,
        description="Walks a network's graph and names each operator that will stay float, split a delegate, change numerics or "
        "fail on a target, with the rewrite that helps. Exit code: 0 clean (notes are no findings), 1 findings, 2 a mistake.",
    )
    parser.add_argument("name", help="model, see `zoo list`, or module:Class of your own (see the model's contract)")
    parser.add_argument("--target", action="append", required=True, help="see `zoo export --help`; repeatable")
    parser.add_argument("--precision", default="int8", help="fp32, fp16 or int8 (default)")
    parser.add_argument("--tile", type=int, help="side of the packed input (default: the model's)")
    return parser


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from export import PRECISIONS, TARGETS
    from export.doctor import examine, patients, verdict
    from zoo.errors import ZooError
    from zoo.models.registry import get_spec, nearest

    for target in args.target:
        if target not in TARGETS:
            raise ZooError(f"unknown target '{target}'{nearest(target, TARGETS)}; choose from {', '.join(TARGETS)}")
    if args.precision not in PRECISIONS:
        raise ZooError(f"unknown precision '{args.precision}'; choose from {', '.join(PRECISIONS)}")
    if args.tile is not None and args.tile < 1:
        raise ZooError(f"--tile is a positive number of packed pixels, not {args.tile}")
    console = Console(stderr=True)
    with console.status(args.name):
        results = [
            (patient, target, examine(patient, target, args.precision))
            for patient in patients(args.name, args.tile)
            for target in dict.fromkeys(args.target)
        ]
    if args.json:
        rows = [
            {
                "model": patient.name,
                "target": target,
                "precision": args.precision,
                "tile": patient.tile,
                "clean": not verdict(findings),
                "ranges_checked": patient.inputs is not None,
                "findings": [dataclasses.asdict(f) for f in findings],
            }
            for patient, target, findings in results
        ]
        print(json.dumps(rows))
    else:
        for patient, target, findings in results:
            _print(patient.name, f"{target} {args.precision}", findings)
            if patient.inputs is None:
                print("  (activations not looked at: no weights ship)")
        if args.precision == "int8" and ":" not in args.name and not get_spec(args.name).int8:
            print("  (a float reference: `zoo export` refuses it in int8)")
    return max(verdict(findings) for _, _, findings in results)


def _print(name: str, where: str, findings: list) -> None:
    from rich.console import Console
    from rich.table import Table

    serious = sum(f.consequence != "note" for f in findings)
    print(f"{name} on {where}: {'clean' if not serious else f'{serious} finding' + 's' * (serious > 1)}")
    if not findings:
        return
    table = Table("", "layer", "operator", "why", "what helps", box=None)
    merged: dict[tuple, list[str]] = {}
    for f in findings:  # the same word on forty layers is said once
        merged.setdefault((f.consequence, f.operator, f.reason, f.rewrite), []).append(f.layer)
    for (consequence, operator, reason, rewrite), layers in merged.items():
        places = list(dict.fromkeys(layers))
        shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        table.add_row(consequence, shown, operator, reason, rewrite)
    Console(width=max(150, Console().width)).print(table)
