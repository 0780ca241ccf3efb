"""``zoo evaluate --benchmark rate-distortion``: codecs of pictures and of raws, in real bytes."""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo import weights
from zoo.cli.evaluate import RATES_PLOT, levels_of, print_rich, progress_bars, sets_of
from zoo.cli.methods import Opened, open_method, package_versions, runtime_version
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.evaluation.rate_board import RateBoard
    from zoo.evaluation.rate_distortion import Codec, Source
    from zoo.evaluation.rate_records import RateRecord

EVIDENCE = Path("evidence/rate-distortion")
PEERS = "peers"  # all picture codecs that can run here, behind both developers, and lossless JPEG of the mosaic
DEVELOPERS = ("menon", "utnet-m")
LOSSLESS = "raw-ljpeg"
CODEC = "codec"  # target of the evidence of picture codecs


class Named(NamedTuple):
    """A codec ready to run, with what its evidence says of it."""

    codec: Codec
    name: str
    target: str
    precision: str
    facts: dict[str, Any]


def measure(args: argparse.Namespace) -> None:
    """Measure codecs, then the table and, with ``--plot``, the plot of them and the anchors.

    Raises:
        ZooError: see :func:`zoo.evaluation.rate_distortion.evaluate`; unknown names; options that mean nothing here.
    """
    import torch

    from zoo.evaluation import bed
    from zoo.evaluation.evidence import keep_others
    from zoo.evaluation.rate_board import ANCHORS, label, read_board
    from zoo.evaluation.rate_distortion import Measured, evaluate

    if args.quantized is not None:
        raise ZooError("rate-distortion runs shipped weights; leave --quantized out")
    folder, levels = args.output_dir or EVIDENCE, levels_of("rate-distortion", bed.LEVELS, args.noise)
    _check_plot(args.plot)
    torch.set_num_threads(args.threads)
    pictures = bed.find_pictures(args.data, sets_of(args.sets), args.limit)
    codecs = _open(args.names, target=args.target, precision=args.precision, tile=args.tile, threads=args.threads)
    if weights.label() and not args.fresh:
        for codec, level in itertools.product(codecs, levels):
            keep_others(_record(codec, level, args.threads), folder)
    begun = time.process_time()
    with progress_bars(quiet=args.json) as progress:
        for level in levels:
            bar = progress.add_task(level, total=len(pictures))
            measured = [Measured(c.codec, _record(c, level, args.threads)) for c in codecs]
            evaluate(measured, pictures, folder, fresh=args.fresh, progress=partial(progress.advance, bar))
    seconds = (time.process_time() - begun) / (len(pictures) * len(levels))
    shown = {label(c.name, c.target, c.precision) for c in codecs} | set(ANCHORS)
    # What a quantised one is compared with: the float model, and of a runtime the integer reference.
    shown |= {c.name for c in codecs} | {label(c.name, "integer", "int8") for c in codecs if c.precision == "int8"}
    board = read_board(folder)
    board = replace(board, found={name: found for name, found in board.found.items() if name in shown})
    _show(board, args.plot, args.json)
    if not args.json:
        print(
            f"evidence: {folder}; {seconds:.1f} s of CPU time per picture and level, of those that were not there yet"
        )


def rank(args: argparse.Namespace) -> None:
    """Table and plot of all evidence that there is.

    Raises:
        ZooError: there is none.
    """
    from zoo.evaluation.rate_board import read_board

    folder, path = args.output_dir or EVIDENCE, args.plot or RATES_PLOT
    _check_plot(path)
    board = read_board(folder)
    if not board.found:
        raise ZooError(f"{folder}: holds no evidence of rate-distortion; `zoo evaluate --benchmark` makes it")
    _show(board, path, args.json)


def _check_plot(path: Path | None) -> None:
    """Before minutes of measuring, not after."""
    from zoo.evaluation.rate_plot import check_suffix

    if path is not None:
        check_suffix(path)


def _show(board: RateBoard, plot: Path | None, as_json: bool) -> None:
    from zoo.evaluation.rate_plot import plot_rates

    if plot is not None:
        plot_rates(board, plot)
    if as_json:
        print(json.dumps({"rows": board.to_json(), "plot": None if plot is None else str(plot)}, indent=1))
        return
    _print_table(board)
    for note in board.notes() + ([] if plot is None else [f"plot: {plot}"]):
        print(note)


def _open(
    names: Sequence[str], *, target: str | None, precision: str | None, tile: int | None, threads: int
) -> list[Named]:
    """The codecs of the names, all looked up before the first is measured; developers are shared.

    Args:
        names: as typed.
        target, precision, tile, threads: of the networks, see :func:`zoo.cli.runtimes.open_runner`.
    """
    sources: dict[str, tuple[Opened, Source]] = {}
    names = [n for name in names for n in (_peers() if name == PEERS else [name])]
    one = partial(_open_one, sources=sources, target=target, precision=precision, tile=tile, threads=threads)
    return [one(name) for name in dict.fromkeys(names)]


def _peers() -> list[str]:
    """What can run here; says on one line what cannot."""
    from zoo.baselines.codecs import get_codec, list_codecs

    problems = [problem for name in list_codecs() if (problem := get_codec(name).problem())]
    problems.append("GoPro VC-5 has no encoder to be had as a package")
    print(f"not measured: {'; '.join(problems)}", file=sys.stderr)
    usable = [name for name in list_codecs() if not get_codec(name).problem()]
    return [LOSSLESS, *(f"{name}+{developer}" for developer in DEVELOPERS for name in usable)]


def _open_one(
    name: str,
    *,
    sources: dict[str, tuple[Opened, Source]],
    target: str | None,
    precision: str | None,
    tile: int | None,
    threads: int,
) -> Named:
    from zoo.baselines.codecs import get_codec, list_codecs
    from zoo.evaluation.rate_distortion import DevelopedPicture, LosslessRaw, Source

    first, plus, developer = name.partition("+")
    if plus and not developer:
        raise ZooError(f"'{name}' names nothing before the codec; say what, as in {first}+{DEVELOPERS[-1]}")
    if name == LOSSLESS:
        settings = {"codec": {"format": "lossless JPEG, 2 components, predictor 1", "scale": "bits per sample"}}
        versions = package_versions() | get_codec("jpeg").versions()
        facts = {"settings": settings, "versions": versions}
        return Named(LosslessRaw(), name, CODEC, "lossless", facts)
    if first not in list_codecs():
        return _open_compressor(first, developer, target=target, precision=precision, tile=tile, threads=threads)
    for option, given in (("target", target), ("precision", precision), ("tile", tile)):
        if given is not None:
            raise ZooError(f"{name} knows no runtimes, only compressors of `zoo list` do; leave --{option} out")
    if not developer:
        raise ZooError(f"'{name}' takes a picture; say what develops the raw before it, as in {name}+{DEVELOPERS[0]}")
    codec = get_codec(first)
    versions = codec.versions()  # says what is missing
    if developer not in sources:
        opened = open_method(developer, threads=threads)
        sources[developer] = opened, Source(opened.method)
    opened, source = sources[developer]
    about = {k: opened.facts.get(k) for k in ("weights_sha256", "settings")}
    before = {"name": opened.name, "target": opened.target, "precision": opened.precision, **about}
    facts = {
        **opened.facts,
        "settings": {"codec": dict(codec.settings), "source": before},
        "versions": opened.facts["versions"] | versions,
    }
    return Named(DevelopedPicture(codec, source), name, CODEC, "uint8", facts)


def _open_compressor(
    name: str, denoiser: str, *, target: str | None, precision: str | None, tile: int | None, threads: int
) -> Named:
    """One of our own compressors, with both halves, and what denoises before them, in the runtime that was asked for."""
    from zoo.baselines.codecs import list_codecs
    from zoo.cli.runtimes import open_runner
    from zoo.evaluation import records
    from zoo.evaluation.rate_distortion import RawCompressor
    from zoo.inference.codec import open_codec
    from zoo.inference.denoise import denoised_mosaic
    from zoo.models.registry import HALVES, check_compressor, get_spec, list_models

    asked = f"{name}+{denoiser}" if denoiser else name
    if name not in list_models():
        pictures = f"{', '.join(list_codecs())}, each +DEVELOPER"
        known = f"{pictures}, {LOSSLESS}, {PEERS} and compressors of `zoo list`, alone or +DENOISER"
        raise ZooError(f"unknown codec '{asked}'; there are {known}")
    check_compressor(name)
    given = target, precision, tile, threads
    runners = {half: open_runner(name, *given, half=half)[1] for half in HALVES}
    before, denoise = {}, None
    if denoiser:
        _, runner = open_runner(denoiser, *given)
        denoise = partial(denoised_mosaic, runner=runner, spec=get_spec(denoiser))
        file = weights.verified(denoiser, quantized=runner.precision == "int8")
        about = {"target": runner.target, "precision": runner.precision, "weights_sha256": records.sha256(file)}
        before = {"source": {"name": denoiser, **about}}
    compressor = open_codec(name, encoder=runners["encoder"], decoder=runners["decoder"])
    target, precision = runners["encoder"].target, runners["encoder"].precision
    halves = [weights.verified(name, quantized=precision == "int8", half=half) for half in HALVES]
    facts = {
        "settings": {
            "codec": {} if target == "torch" else {"halves_sha256": [records.sha256(file) for file in halves]},
            **before,
        },
        "weights_sha256": compressor.weights_sha256,
        "versions": package_versions() | runtime_version(target),
    }
    return Named(RawCompressor(compressor, denoise), asked, target, precision, facts)


def _record(codec: Named, level: str, threads: int) -> RateRecord:
    """An empty record of a codec at a level."""
    from zoo.evaluation import bed, records
    from zoo.evaluation.rate_records import RateRecord

    shot, read = bed.LEVELS[level]
    settings = {**codec.facts["settings"], "qualities": list(codec.codec.qualities)}
    return RateRecord(
        name=codec.name,
        target=codec.target,
        precision=codec.precision,
        level=level,
        shot=shot,
        read=read,
        command=shlex.join(["zoo", *sys.argv[1:]]),
        machine=records.machine(threads),
        **{**codec.facts, "settings": settings},
    )


def _print_table(board: RateBoard) -> None:
    from zoo.evaluation.rate_board import ANCHORS

    rows: list[list[str]] = []
    for name in board.names:
        for level in board.levels(name):
            keys = board.pictures(name, level)
            mean = board.mean(name, level, keys)
            row = [name, level, str(len(keys)), f"{min(mean['bpp']):.2f}-{max(mean['bpp']):.2f}"]
            row += [f"{max(mean['psnr']):.2f}", f"{max(mean['ms_ssim']):.4f}"]
            for anchor in ANCHORS:
                found = board.against(name, anchor, level)
                row += ["-", "-"] if found is None else [found.text(), found.picture_text()]
            rows.append([*row, *(_cell(board.seconds_per_mp(name, level, c)) for c in ("encode", "decode"))])
    head = ["codec", "level", "n", "bpp", "best dB", "best MS-SSIM"]
    for anchor in ANCHORS:
        head += [f"against {anchor}", "per picture"]
    print_rich("", [*head, "encode ms/MP", "decode ms/MP"], rows, left=2)


def _cell(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"
