"""``zoo evaluate``: measures the quality of models and classical methods on the test bed, and leaves evidence."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.evaluation.bed import Method
    from zoo.evaluation.records import QualityRecord
    from zoo.inference.runner import TileRunner

CLASSICAL = ("classical", "fp64")  # target and precision of the baselines' evidence
EXPORTED = ("executorch", "litert", "coreml")  # targets that run an artefact, which may be older than the weights


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="measure the quality of models and classical methods",
        description="Makes noisy raws of pictures, develops them with each method and compares. Evidence goes to one "
        "JSON file per method and noise level; a picture that is already in it is not measured again.",
    )
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help="model (`zoo list`), or menon, malvar, nlm+menon, bm3d+menon")
    add("--data", type=Path, required=True, metavar="DIR", help="folder of clean pictures")
    add("--benchmark", default="bayer", metavar="B", help="test bed; there is one: bayer")
    add("--sets", default="all", metavar="S,...", help="kodak, mcmaster, ..., or names of subfolders (default: all)")
    add("--noise", default="clean,iso800,iso3200,iso12800", metavar="L,...", help="noise levels (default: all four)")
    add(
        "--target", metavar="NAME", help="runtime of the models: torch (default), integer, executorch, litert or coreml"
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
    add("--limit", type=int, metavar="N", help="at most N pictures of each set")
    add("--output-dir", type=Path, default=Path("evidence/quality"), metavar="DIR", help="default: evidence/quality")
    add("--fresh", action="store_true", help="measure again what is already there")
    return parser


def run(args: argparse.Namespace) -> None:
    import torch

    from zoo.evaluation import bed
    from zoo.evaluation.run import evaluate, image_key
    from zoo.models.registry import nearest

    levels, sets = _words(args.noise), _words(args.sets)
    for what, given, known in (("benchmark", [args.benchmark], [bed.BENCHMARK]), ("noise level", levels, bed.LEVELS)):
        for word in given:
            if word not in known:
                raise ZooError(f"unknown {what} '{word}'{nearest(word, known)}; choose from {', '.join(known)}")
    for option, value in (("--threads", args.threads), ("--limit", args.limit)):
        if value is not None and value < 1:
            raise ZooError(f"{option} is 1 or more, not {value}")
    torch.set_num_threads(args.threads)
    pictures = bed.find_pictures(args.data, sets, args.limit)
    # All names are looked up before the first, which may take minutes, is measured.
    jobs = [job for name in dict.fromkeys(args.names) for job in _jobs(name, levels, args)]
    results = []
    with _progress(quiet=args.json) as progress:
        for method, record in jobs:
            bar = progress.add_task(f"{record.name} {record.level}", total=len(pictures))
            results.append(
                evaluate(
                    method,
                    record,
                    pictures,
                    args.output_dir,
                    fresh=args.fresh,
                    progress=partial(progress.advance, bar),
                )
            )
    keys = {image_key(p) for p in pictures}
    if args.json:
        print(json.dumps([_plain(record, keys, args.output_dir) for record in results], indent=1))
    else:
        _print_table(results, keys)


def _jobs(name: str, levels: Sequence[str], args: argparse.Namespace) -> Iterator[tuple[Method, QualityRecord]]:
    """The method of a name with an empty record per level.

    Raises:
        ZooError: unknown name, missing library, no weights, or a runtime that cannot run it.
    """
    from zoo.baselines import get_baseline, list_baselines
    from zoo.evaluation import bed, records
    from zoo.models.registry import list_models, nearest

    facts: dict[str, Any] = {}
    method: Method
    if name in list_baselines():
        method = baseline = get_baseline(name)
        (target, precision), libraries = CLASSICAL, baseline.versions()
        facts = {"settings": dict(baseline.settings), "licence": baseline.licence}
    elif name in list_models():
        from zoo import weights
        from zoo.cli.runtimes import open_runner
        from zoo.evaluation.network import network_method
        from zoo.models.registry import get_spec

        spec = get_spec(name)
        if args.quantized is None:
            _, runner = open_runner(name, args.target, args.precision, args.tile, args.threads)
        else:
            runner = _integer_of(name, args.quantized, args.target)
        method = network_method(runner, spec)
        target, precision, libraries = runner.target, runner.precision, _runtime_version(runner.target)
        file = args.quantized or weights.verified(name, quantized=precision == "int8")
        facts = {"weights_sha256": records.sha256(file), "licence": spec.licence}
        if target in EXPORTED:
            _check_artefact(name, runner, facts["weights_sha256"])
    else:
        known = [*list_models(), *list_baselines()]
        raise ZooError(f"unknown method '{name}'{nearest(name, known)}; choose from {', '.join(known)}")
    for level in levels:
        shot, read = bed.LEVELS[level]
        yield (
            method,
            records.QualityRecord(
                name=name,
                target=target,
                precision=precision,
                level=level,
                shot=shot,
                read=read,
                command=shlex.join(["zoo", *sys.argv[1:]]),
                versions=_versions() | libraries,
                machine=records.machine(args.threads),
                **facts,
            ),
        )


def _integer_of(name: str, path: Path, target: str | None) -> TileRunner:
    """The integer network of a file of ``zoo quantize``; its evidence is filed under ``int8-ptq`` or ``int8-qat``.

    Raises:
        ZooError: no such file, of another model, or another target was asked for.
    """
    from quantize import QuantizedModel

    if target not in (None, "integer"):
        raise ZooError(f"--quantized runs as integer reference, not on {target}; leave --target out")
    quantized = QuantizedModel.load(path)
    if quantized.name != name:
        raise ZooError(f"{path}: is of {quantized.name}, not of {name}")
    runner = quantized.integer()
    runner.precision = f"int8-{quantized.recipe}"
    return runner


def _check_artefact(name: str, runner: TileRunner, weights_sha256: str) -> None:
    """Refuse an artefact that was exported before the weights changed: its scores would be filed under the new ones.

    Raises:
        ZooError: it is older.
    """
    import export

    assert runner.tile is not None
    path = export.artifact_path(name, runner.target, runner.precision, runner.tile)
    if export.target_module(runner.target).read_metadata(path).get("weights_sha256") != weights_sha256:
        raise ZooError(f"{path}: was exported from other weights than those that ship; delete it to have it made anew")


def _versions() -> dict[str, str]:
    import numpy
    import torch

    from zoo import __version__

    return {
        "raw-zoo": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
    }


def _runtime_version(target: str) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    package = {"executorch": "executorch", "litert": "litert-torch", "coreml": "coremltools", "integer": "torchao"}.get(
        target
    )
    try:
        return {package: version(package)} if package else {}
    except PackageNotFoundError:  # a runtime may come from another package than the pinned one
        return {}


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _progress(*, quiet: bool) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=quiet)


def _plain(record: QualityRecord, keys: set[str], folder: Path) -> dict[str, Any]:
    """What ``--json`` prints of a record: the summary over the pictures asked for, and where the evidence lies."""
    about = {k: getattr(record, k) for k in ("name", "target", "precision", "level", "weights_sha256")}
    return about | {"evidence": str(record.path(folder)), "summary": record.summary(keys)}


def _print_table(results: Sequence[QualityRecord], keys: set[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="mean (worst picture); shadow bias is the mean of R, G, B in % of the shadows' level")
    for column in ("method", "level", "set", "n", "PSNR dB", "SSIM", "linear PSNR dB", "shadow bias %", "s/picture"):
        table.add_column(column, justify="left" if column in ("method", "level", "set") else "right", no_wrap=True)
    for record in results:
        for name, group in record.summary(keys).items():
            mean, worst = group["mean"], group["worst"]
            times = [i.seconds for k, i in record.images.items() if k in keys and name in (i.set, "overall")]
            runtime = "" if record.target == CLASSICAL[0] else f" {record.target} {record.precision}"
            table.add_row(
                record.name + runtime,
                record.level,
                name,
                str(group["images"]),
                f"{mean['psnr']:.2f} ({worst['psnr']['value']:.2f})",
                f"{mean['ssim']:.4f} ({worst['ssim']['value']:.4f})",
                f"{mean['psnr_linear']:.2f} ({worst['psnr_linear']['value']:.2f})",
                " ".join(f"{100 * mean[f'shadow_bias_{c}']:+.1f}" for c in "rgb"),
                f"{sum(times) / len(times):.2f}",
            )
    # Wide enough for its columns where the output is a pipe, which has no width of its own.
    Console(width=None if sys.stdout.isatty() else 140).print(table)
