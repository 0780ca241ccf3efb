"""``zoo benchmark``: latency and memory of artefacts on this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from zoo.cli.export import write_record


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        "benchmark",
        help="time an artefact: ms, ms per megapixel, memory, int8 against fp32",
        description="Times an artefact, or exports a model first. An int8 artefact is timed in turns with its fp32 twin and "
        "with a large convolution, since only ratios of one run can be trusted.",
    )
    parser.add_argument("artifact", help="artefact of `zoo export`, or a model name with --target")
    parser.add_argument("--target", action="append", help="coreml, executorch or litert, with a model name; repeatable")
    parser.add_argument("--precision", default="int8", help="with a model name (default: int8)")
    parser.add_argument("--tile", type=int, help="with a model name (default: 256, or what the model's halo needs)")
    parser.add_argument("--threads", default="1", help="comma-separated, for example 1,2")
    parser.add_argument("--warmup-runs", type=int, default=5)
    parser.add_argument("--num-runs", type=int, default=30)
    parser.add_argument("--output-dir", type=Path, default=Path("artifacts"), help="where a model's artefacts lie")
    parser.add_argument("--record", type=Path, metavar="DIR", help="also write one JSON record each into this folder")
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
    console = Console(stderr=True)
    records = []
    for path in _artifacts(args):
        for count in threads:
            with console.status(f"{path.name}, {count} thread(s)"):
                records.append(benchmark(path, threads=count, warmup_runs=args.warmup_runs, num_runs=args.num_runs))
    if args.record:
        for record in records:
            write_record(args.record / f"{Path(record['artifact']).stem}-t{record['threads']}.json", "latency", record)
    if args.json:
        print(json.dumps(records))
        return
    table = Table("artefact", "threads", "median ms", "p10-p90", "ms/MP", "x fp32", "of int8 peak", "RSS MB")
    for r in records:
        table.add_row(
            r["artifact"],
            str(r["threads"]),
            f"{r['ms']['median']:.2f}",
            f"{r['ms']['p10']:.2f}-{r['ms']['p90']:.2f}",
            f"{r['ms_per_megapixel']:.1f}",
            f"{r['speedup_over_fp32']:.2f}" if "speedup_over_fp32" in r else "-",
            f"{r['share_of_int8_peak']:.0%}" if "share_of_int8_peak" in r else "-",
            "-" if r["peak_rss_mb"] is None else f"{r['peak_rss_mb']:.0f}",
        )
    Console(width=max(120, Console().width)).print(table)


def _artifacts(args: argparse.Namespace) -> list[Path]:
    from export import DEFAULT_TILE, artifact_path, export
    from zoo.errors import ZooError
    from zoo.models.registry import halves

    if Path(args.artifact).exists():
        return [Path(args.artifact)]
    if not args.target:
        raise ZooError(f"{args.artifact}: no such artefact; give a model name with --target to export one")
    tile = DEFAULT_TILE if args.tile is None else args.tile
    paths = []
    for target, half in [(t, h) for t in dict.fromkeys(args.target) for h in halves(args.artifact)]:
        path = artifact_path(args.artifact, target, args.precision, tile, args.output_dir, half)
        if not path.exists():
            options = {"precision": args.precision, "tile": tile, "output_dir": args.output_dir}
            export(args.artifact, target=target, half=half, **options)
        paths.append(path)
    return paths
