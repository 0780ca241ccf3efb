"""``zoo evaluate``: measures the quality of models and classical methods, leaves evidence, and ranks what there is."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import weights
from zoo.cli.methods import CLASSICAL, Opened, open_method
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.evaluation.benchmarks import Benchmark
    from zoo.evaluation.leaderboard import Leaderboard
    from zoo.evaluation.records import QualityRecord

EVIDENCE = Path("evidence/quality")
SHEETS = Path("evidence/blind")
RATES_PLOT = Path("docs/rate-distortion.png")  # of the leaderboard of codecs
BLIND = "blind"  # makes a sheet to look at instead of numbers
RANKED = "bayer"  # has a leaderboard of methods
RATES = "rate-distortion"  # of codecs, in :mod:`zoo.cli.rates`


def add_parser(subparsers: argparse._SubParsersAction, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help=help,
        description="Runs each method on a benchmark. bayer: noisy raws made of pictures. demosaic: the same pictures "
        "without noise and camera. pairs: real noisy frames against the mean of many. Evidence goes to one JSON file "
        "per method and noise level; a picture that is already in it is not measured again. blind: a sheet of crops of "
        "real raws, to look at. rate-distortion: the scenes of bayer as bytes; its NAMEs are compressors, "
        "CODEC+DEVELOPER (jpegxl+menon), raw-ljpeg, or peers for all that can run. --leaderboard: all evidence of bayer, "
        "or of rate-distortion, in one table; --plot draws it.",
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="model (`zoo list`), or a classical method: menon, nlm+menon, ...")
    add("--data", type=Path, metavar="DIR", help="folder of clean pictures; of pairs or raws for pairs and blind")
    add("--benchmark", default=RANKED, metavar="B", help="bayer (default), demosaic, pairs, blind, rate-distortion")
    add("--sets", default="all", metavar="S,...", help="kodak, mcmaster, ..., or names of subfolders (default: all)")
    add("--noise", metavar="L,...", help="noise levels of bayer: clean, iso800, iso3200, iso12800 (default: all four)")
    add(
        "--target",
        metavar="NAME",
        help="runtime of the models: torch (default), integer, executorch, litert, onnx or coreml",
    )
    add("--precision", metavar="P", help="fp32, fp16 or int8; default: what the runtime is best at")
    add("--tile", type=int, metavar="N", help="packed side of the tiles, where the runtime takes one")
    add(
        "--quantized",
        type=Path,
        metavar="FILE",
        help="with --target integer: a file of `zoo quantize`, not the shipped one",
    )
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add("--limit", type=int, metavar="N", help="at most N pictures of each set; with blind, N crops")
    add("--output-dir", type=Path, metavar="DIR", help=f"default: {EVIDENCE}; of the blind sheet {SHEETS}")
    add("--fresh", action="store_true", help="measure again what is already there")
    add("--leaderboard", action="store_true", help="measure nothing: rank what --output-dir holds evidence of")
    drawn = (
        f"with --leaderboard: SVG of the frontiers; of {RATES}: PNG or SVG (default with --leaderboard: {RATES_PLOT})"
    )
    add("--plot", type=Path, metavar="FILE", help=drawn)
    return parser


def run(args: argparse.Namespace) -> None:
    if args.leaderboard:
        if args.names:
            raise ZooError(f"--leaderboard ranks all that there is evidence of; leave {' '.join(args.names)} out")
        if args.benchmark == RATES:
            importlib.import_module("zoo.cli.rates").rank(args)
        elif args.benchmark == RANKED:
            _rank(args)
        else:
            raise ZooError(f"'{args.benchmark}' has no leaderboard; give --benchmark {RANKED} (default) or {RATES}")
        return
    if not args.names:
        raise ZooError("nothing to measure; give NAMEs of models or classical methods, or --leaderboard")
    if weights.label() and args.output_dir is None:
        raise ZooError(f"{EVIDENCE} is of the weights that ship; give evidence of --weights an --output-dir of its own")
    if args.data is None:
        raise ZooError("no pictures to measure on; give their folder with --data DIR")
    if args.plot is not None and args.benchmark != RATES:
        raise ZooError("--plot draws the leaderboard; add --leaderboard, or leave --plot out")
    for option, value in (("--threads", args.threads), ("--limit", args.limit)):
        if value is not None and value < 1:
            raise ZooError(f"{option} is 1 or more, not {value}")
    if args.benchmark == BLIND:
        _look(args)
    elif args.benchmark == RATES:
        importlib.import_module("zoo.cli.rates").measure(args)
    else:
        _measure(args)


def _measure(args: argparse.Namespace) -> None:
    """The benchmarks that give numbers."""
    import torch

    from zoo.evaluation.evidence import keep_others
    from zoo.evaluation.run import evaluate, image_key

    folder, benchmark = args.output_dir or EVIDENCE, _benchmark(args.benchmark)
    levels = levels_of(benchmark.name, benchmark.levels, args.noise)
    torch.set_num_threads(args.threads)
    pictures = benchmark.find(args.data, sets_of(args.sets), args.limit)
    # All names are looked up before the first, which may take minutes, is measured.
    methods = _open(args)
    results = []
    if weights.label() and not args.fresh:
        for opened, level in itertools.product(methods, levels):
            keep_others(_record(opened, benchmark, level, args.threads), folder)
    with progress_bars(quiet=args.json) as progress:
        for opened in methods:
            for level in levels:
                record = _record(opened, benchmark, level, args.threads)
                bar = progress.add_task(f"{record.name} {level}", total=len(pictures))
                tick = partial(progress.advance, bar)
                results.append(evaluate(opened.method, record, pictures, folder, fresh=args.fresh, progress=tick))
    keys = {image_key(p) for p in pictures}
    if args.json:
        print(json.dumps([_plain(record, keys, folder) for record in results], indent=1))
    else:
        _print_table(results, keys)


def _open(args: argparse.Namespace) -> list[Opened]:
    """The methods of the names, each once."""
    opened = partial(
        open_method,
        target=args.target,
        precision=args.precision,
        tile=args.tile,
        threads=args.threads,
        quantized=args.quantized,
    )
    return [opened(name) for name in dict.fromkeys(args.names)]


def _look(args: argparse.Namespace) -> None:
    """The sheet of real raws."""
    import torch

    from zoo.evaluation.blind import find_crops, write_sheet

    if args.noise is not None:
        raise ZooError("the noise of real raws is their own; leave --noise out")
    torch.set_num_threads(args.threads)
    crops = find_crops(args.data, args.limit)
    methods = {m.label: m.method for m in _open(args)}
    path = (args.output_dir or SHEETS) / "blind.png"
    with progress_bars(quiet=args.json) as progress:
        bar = progress.add_task("blind", total=len(crops) * len(methods))
        side = write_sheet(path, crops, methods, partial(progress.advance, bar))
    if args.json:
        rows = [{"file": str(c.path), "centre": c.centre} for c in crops]
        print(json.dumps({"sheet": str(path), "side": side, "rows": rows, "columns": list(methods)}, indent=1))
    else:
        print(f"{path}: {len(crops)} crops of {side}x{side} pixels, {', '.join(methods)}")


def _rank(args: argparse.Namespace) -> None:
    """The leaderboard, and its drawing where it is asked for."""
    from zoo.evaluation.leaderboard import read_leaderboard

    folder, plot = args.output_dir or EVIDENCE, args.plot
    if plot is not None and plot.suffix.lower() != ".svg":
        raise ZooError(f"{plot}: the leaderboard is drawn as SVG; choose a name that ends in .svg")
    board = read_leaderboard(folder, stones=True)
    if plot is not None:
        _draw(board, folder, plot)
    if args.json:
        print(json.dumps(board.to_json() | {"plot": None if plot is None else str(plot)}, indent=1))
        return
    head, rows = board.table()
    print_rich("", head, rows, left=1)
    for note in board.notes() + ([] if plot is None else [f"plot: {plot}"]):
        print(note)


def _draw(board: Leaderboard, folder: Path, path: Path) -> None:
    """The README's drawing, of any evidence; the file's folder is made."""
    from zoo.evaluation.leaderboard import NOISY
    from zoo.files import replacing
    from zoo.report.quality_sections import drawing

    if all(board.verdict(row) == "-" for row in board.rows):
        raise ZooError(f"{folder}: nothing to draw, as no method was measured at {', '.join(NOISY)}; leave --plot out")
    with replacing(path, "choose another --plot", parents=True) as temporary:
        temporary.write_text(drawing(board, folder))


def _benchmark(name: str) -> Benchmark:
    from zoo.evaluation.benchmarks import BENCHMARKS, get_benchmark
    from zoo.models.registry import nearest

    if name not in BENCHMARKS:
        known = [*BENCHMARKS, BLIND, RATES]
        raise ZooError(f"unknown benchmark '{name}'{nearest(name, known)}; choose from {', '.join(known)}")
    return get_benchmark(name)


def levels_of(benchmark: str, levels: Iterable[str], words: str | None) -> list[str]:
    """The noise levels that were asked for, all of the benchmark's if none.

    Raises:
        ZooError: one that it has not.
    """
    from zoo.models.registry import nearest

    known, asked = list(levels), split_words(words or "")
    for word in asked:
        if word not in known:
            hint = nearest(word, known)
            raise ZooError(f"{benchmark} has no noise level '{word}'{hint}; choose from {', '.join(known)}")
    return asked or known


def _record(opened: Opened, benchmark: Benchmark, level: str, threads: int) -> QualityRecord:
    """An empty record of a method at a level."""
    from zoo.evaluation import records

    shot, read = benchmark.levels[level]
    return records.QualityRecord(
        name=opened.name,
        target=opened.target,
        precision=opened.precision,
        level=level,
        shot=shot,
        read=read,
        benchmark=benchmark.name,
        command=shlex.join(["zoo", *sys.argv[1:]]),
        machine=records.machine(threads),
        **opened.facts,
    )


def sets_of(words: str) -> list[str]:
    """The sets of pictures that were asked for.

    Raises:
        ZooError: none is named.
    """
    asked = split_words(words)
    if not asked:
        raise ZooError(f"--sets names no set in '{words}'; give one, as in --sets kodak, or leave --sets out for all")
    return asked


def split_words(text: str) -> list[str]:
    """The parts of ``a,b,c``, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def progress_bars(*, quiet: bool) -> Any:
    """A context whose ``add_task`` and ``advance`` draw on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=quiet)


def _plain(record: QualityRecord, keys: set[str], folder: Path) -> dict[str, Any]:
    """What ``--json`` prints of a record: the summary over the pictures asked for, and where the evidence lies."""
    about = {k: getattr(record, k) for k in ("benchmark", "name", "target", "precision", "level", "weights_sha256")}
    cost = {**record.cost, "ms_per_mp": record.ms_per_mp(keys)}
    return about | {
        "evidence": str(record.path(folder)),
        "cost": cost,
        "edge": record.edge,
        "summary": record.summary(keys),
    }


# Title and format of the metrics that the table shows; the shadow biases share a column.
_COLUMNS = {
    "psnr": ("PSNR dB", ".2f"),
    "psnr_input": ("noisy dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "ms_ssim": ("MS-SSIM", ".4f"),
    "texture": ("texture", ".3f"),
    "psnr_linear": ("linear dB", ".2f"),
    "ssim_linear": ("linear SSIM", ".4f"),
}


def _print_table(results: Sequence[QualityRecord], keys: set[str]) -> None:
    from zoo.evaluation.benchmarks import get_benchmark
    from zoo.evaluation.leaderboard import number

    metrics = get_benchmark(results[0].benchmark).metrics
    shown = {m: _COLUMNS[m] for m in _COLUMNS if m in metrics}
    biased = "shadow_bias_r" in metrics
    title = "mean (worst picture)" + ("; shadow bias: mean of R, G, B in % of the shadows' level" if biased else "")
    head = ["method", "level", "set", "n", *(title for title, _ in shown.values())]
    rows = []
    for record in results:
        runtime = "" if record.target == CLASSICAL[0] else f" {record.target} {record.precision}"
        for name, group in record.summary(keys).items():
            mean, worst = group["mean"], group["worst"]
            own = {k for k, i in record.images.items() if k in keys and name in (i.set, "overall")}
            cells = [f"{mean[m]:{f}} ({worst[m]['value']:{f}})" for m, (_, f) in shown.items()]
            if biased:
                cells.append(" ".join(f"{100 * mean[f'shadow_bias_{c}']:+.1f}" for c in "rgb"))
                cells.append(number(record.edge.get("mtf50") if name == "overall" else None, ".3f"))
            cells += [number(record.cost.get("params"), ",.0f"), number(record.cost.get("gmac_per_mp"), ".2f")]
            cells.append(number(record.ms_per_mp(own), ".0f"))
            rows.append([record.name + runtime, record.level, name, str(group["images"]), *cells])
    head += (["shadow bias %", "MTF50"] if biased else []) + ["params", "GMAC/MP", "ms/MP"]
    print_rich(title, head, rows, left=3)


def print_rich(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    """A table whose first ``left`` columns are text."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None)
    for index, column in enumerate(head):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # Wide enough for all columns, whatever the terminal's width: a line that wraps is read, a cut one is not.
    Console(width=250).print(table)
