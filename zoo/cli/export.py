"""``zoo export``: verified artefacts for phones."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from zoo.cli.runtimes import cache
from zoo.record import write_record


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "export",
        help=help,
        description="Converts a model with its weights, runs the file against its reference on mosaic tiles and "
        "keeps it only if every gate holds.",
    )
    parser.add_argument("name", nargs="?", help="model (default: the flagship)")
    parser.add_argument(
        "--target", action="append", required=True, help="coreml, executorch, litert, onnx or darktable; repeatable"
    )
    parser.add_argument("--precision", default="int8", help="fp32, fp16 or int8 (default)")
    parser.add_argument(
        "--tile",
        type=int,
        help="side of the packed input, half the sensor's (default: 256, or what the model's halo needs)",
    )
    parser.add_argument(
        "--noise", help="with darktable, which cannot tell the noise: clean, iso800, iso3200 (default), iso12800"
    )
    parser.add_argument("--record", type=Path, metavar="DIR", help="also write one JSON record each into this folder")
    parser.add_argument("--output-dir", type=Path, help="default: artifacts; with --weights artifacts/DIR")
    parser.add_argument(
        "--data", type=Path, help="folder with raw/: verify on its mosaics too (default: ../shared/data)"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from export import export
    from zoo.models.registry import DEFAULT_MODEL, halves

    args.output_dir = args.output_dir or cache()
    _check(args)
    console = Console(stderr=True)
    packages = []
    if "darktable" in args.target:
        with console.status(f"{args.name or DEFAULT_MODEL} -> darktable"):
            packages = [_darktable(args, args.name or DEFAULT_MODEL)]
    results = []
    targets = dict.fromkeys(target for target in args.target if target != "darktable")
    wanted = [(target, half) for target in targets for half in halves(args.name or DEFAULT_MODEL)]
    for target, half in wanted:
        with console.status(f"{args.name or DEFAULT_MODEL} {half} -> {target} {args.precision}"):
            results.append(
                export(
                    args.name or DEFAULT_MODEL,
                    target=target,
                    precision=args.precision,
                    tile=args.tile,
                    output_dir=args.output_dir,
                    data=args.data or default_data(),
                    half=half,
                )
            )
    if args.record:
        for result in results:
            write_record(args.record / f"{result.path.stem}.json", "artifact", result.to_json())
    if args.json:
        print(json.dumps(packages + [result.to_json() for result in results]))
        return
    if not results:
        return
    table = Table("artefact", "kB", "worst tile against reference", "int8 convolutions", "outside delegate", box=None)
    for r in results:
        worst, twin = r.parity["worst_psnr_db"], r.parity.get("fp32_compute")
        verdict = f"equal to {r.parity['reference']}" if worst is None else f"{worst:.1f} dB of {r.parity['reference']}"
        if twin:
            verdict += f"; at fp32 {twin['differing']:.2%} differ, by <= {twin['max_steps']} steps"
        outside = ", ".join(r.audit["not_delegated"]) or "nothing"
        table.add_row(
            r.path.name,
            f"{r.size_bytes / 1000:.0f}",
            verdict,
            f"{r.audit['conv_int8']} of {r.audit['conv_total']}",
            outside if r.audit["delegated_share"] is not None else "decided on the device",
        )
    # Wide enough for one line each, also where the output is a file.
    Console(width=max(150, Console().width)).print(table)


def _check(args: argparse.Namespace) -> None:
    """Refuse what would else show after minutes, when the first target is written.

    Raises:
        ZooError: a target, model, precision, tile, folder or option that will not do.
    """
    from export import check_model, target_module
    from export.verify import check_data
    from zoo.errors import ZooError
    from zoo.files import check_folder
    from zoo.models.registry import DEFAULT_MODEL

    others = [target for target in args.target if target != "darktable"]
    for target in others:
        target_module(target)
    if others:
        check_model(args.name or DEFAULT_MODEL, args.precision, args.tile)
    if len(others) == len(args.target) and args.noise is not None:
        raise ZooError("--noise is for --target darktable; the others are told the noise of each photo: leave it out")
    check_data(args.data)
    if args.record:
        check_folder(args.record, "--record")


def _darktable(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """A package for darktable, which is always fp32."""
    from export.darktable import DEFAULT_NOISE, package

    about = package(name, noise=args.noise or DEFAULT_NOISE, tile=args.tile, output_dir=args.output_dir)
    if args.record:
        write_record(args.record / f"{Path(about['path']).stem}-darktable.json", "package", about)
    if not args.json:
        worst = about["parity"]["worst_psnr_db"]
        verdict = "equal to" if worst is None else f"{worst:.1f} dB of"
        print(f"{about['path']}: {about['size_bytes'] / 1000:.0f} kB, {verdict} {about['parity']['reference']}")
    return about


def default_data() -> Path | None:
    """The project's shared data folder, where there is one."""
    folder = Path("../shared/data")
    return folder if (folder / "raw").is_dir() else None
