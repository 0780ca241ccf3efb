"""``zoo benchmark``: latency and memory of artefacts on this machine, or on a phone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from zoo.cli import phone, profile
from zoo.cli.runtimes import cache
from zoo.record import write_record


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "benchmark",
        help=help,
        description="Times artefacts, or exports models first. Each is timed in turns with its fp32 twin and with a large "
        "convolution, since only ratios of one run can be trusted. --profile times operator by operator instead.",
    )
    parser.add_argument("artifact", nargs="+", help="artefact of `zoo export`, or a model name with --target")
    parser.add_argument(
        "--target", action="append", help="coreml, executorch, litert or onnx, with a model name; repeatable"
    )
    parser.add_argument("--precision", default="int8", help="with a model name; comma-separated (default: int8)")
    parser.add_argument(
        "--profile", action="store_true", help="time every operator, and name the slowest with its layer"
    )
    parser.add_argument("--tile", type=int, help="with a model name (default: 256, or what the model's halo needs)")
    parser.add_argument("--threads", default="1", help="comma-separated, for example 1,2")
    parser.add_argument("--warmup-runs", type=int, default=5)
    parser.add_argument("--num-runs", type=int, default=30)
    parser.add_argument(
        "--output-dir",
        type=Path,
        help="where a model's artefacts lie (default: artifacts; with --weights artifacts/DIR)",
    )
    parser.add_argument("--record", type=Path, metavar="DIR", help="also write one JSON record each into this folder")
    phone.add_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from export.benchmark import benchmark
    from zoo.errors import ZooError

    try:
        threads = [int(t) for t in args.threads.split(",")]
    except ValueError as error:
        raise ZooError(f"--threads {args.threads} is not a list of numbers such as 1,2") from error
    if args.device:
        phone.run(args, _artifacts(args), threads)
        return
    if args.profile:
        profile.run(args, _artifacts(args), threads)
        return
    console = Console(stderr=True)
    records = []
    for path in _artifacts(args):
        for count in threads:
            with console.status(f"{path.name}, {count} thread(s)"):
                record = benchmark(path, threads=count, warmup_runs=args.warmup_runs, num_runs=args.num_runs)
            if args.record:
                write_record(args.record / f"{path.stem}-t{count}.json", "latency", record)
            records.append(record)
    if args.json:
        print(json.dumps(records))
        return
    table = Table("artefact", "threads", "median ms", "p10-p90", "ms/MP", "x fp32", "of peak", "RSS MB")
    for r in records:
        table.add_row(
            r["artifact"],
            str(r["threads"]),
            f"{r['ms']['median']:.2f}",
            f"{r['ms']['p10']:.2f}-{r['ms']['p90']:.2f}",
            f"{r['ms_per_megapixel']:.1f}",
            f"{r['speedup_over_fp32']:.2f}" if "speedup_over_fp32" in r else "-",
            next((f"{r[k]:.0%}" for k in ("share_of_int8_peak", "share_of_fp32_peak") if k in r), "-"),
            "-" if r["peak_rss_mb"] is None else f"{r['peak_rss_mb']:.0f}",
        )
        for units, own in r.get("compute_units", {}).items():
            spread = f"{own['ms']['median']:.2f}", f"{own['ms']['p10']:.2f}-{own['ms']['p90']:.2f}"
            table.add_row(f"  {units}", "", *spread, f"{own['ms_per_megapixel']:.1f}", "-", "-", "-")
    Console(width=max(120, Console().width)).print(table)


def _artifacts(args: argparse.Namespace) -> Iterator[Path]:
    """The artefacts that are asked for; those of a model are exported unless they are there, made from today's weights."""
    from export import exported
    from zoo.errors import ZooError
    from zoo.models.registry import halves

    for name in args.artifact:
        if Path(name).exists():
            yield Path(name)
            continue
        if not args.target:
            raise ZooError(f"{name}: no such artefact; give a model name with --target to export one")
        for precision in args.precision.split(","):
            for target, half in [(t, h) for t in dict.fromkeys(args.target) for h in halves(name)]:
                options = {"precision": precision, "tile": args.tile, "output_dir": args.output_dir or cache()}
                yield exported(name, target=target, half=half, **options)
