"""``zoo denoise``: raw photos in, pictures out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.record import peak_rss_mb

if TYPE_CHECKING:
    from zoo.cli.photos import Facts, Place
    from zoo.inference.runner import TileRunner
    from zoo.models.registry import ModelSpec


def add_parser(subparsers: Any, help: str) -> argparse.ArgumentParser:
    from zoo.cli.photos import add_arguments
    from zoo.raw import RAW_SUFFIXES

    parser: argparse.ArgumentParser = subparsers.add_parser(
        "denoise",
        help=help,
        description="Denoise and demosaic raw photos. With several inputs, or a folder of raws, OUT is a folder; photos "
        "whose pictures lie there already are left out, so that an interrupted run goes on where it ended.",
        epilog=f"Of a folder are read: {' '.join(RAW_SUFFIXES)}. A single file may have any name.",
    )
    add_arguments(
        parser,
        "IN",
        "raw files or folders of them",
        "picture (.tiff .png .jpeg .dng), or a folder; NAME/ is always one",
    )
    add = parser.add_argument
    add("--model", metavar="NAME", help="registered model, or an exported .pte, .tflite or .onnx (default: utnet-m)")
    add("--runtime", metavar="NAME", help="torch (default), integer, executorch, litert or onnx")
    add("--precision", metavar="P", help="fp32, fp16 or int8; default: what the runtime is best at")
    add("--format", metavar="F", help="tiff, png, jpeg or dng; default: by OUT's suffix, tiff in a folder")
    add("--linear", action="store_true", help="16-bit TIFF in linear light instead of developed")
    add("--exposure", type=float, default=0.0, metavar="EV", help="brighten a developed picture by EV")
    add("--noise-scale", type=float, default=1.0, metavar="X", help="above 1 smooths more, below 1 keeps more")
    add("--tile", type=int, metavar="N", help="packed side of the tiles; changes memory and speed, not the picture")
    add("--threads", type=int, metavar="N", help="CPU threads")
    return parser


def run(args: argparse.Namespace) -> None:
    from zoo.cli.photos import gather, work_through
    from zoo.inference.output import SUFFIXES, check_options, format_of
    from zoo.raw import RAW_SUFFIXES

    photos = gather(args, RAW_SUFFIXES, "raw files", SUFFIXES)
    format = format_of(photos.target or Path(f"x.{args.format or 'tiff'}"), args.format)
    jobs = photos.jobs(f".{args.format or format}")
    check_options(format, args.linear, args.exposure)

    from zoo.cli.runtimes import open_runner
    from zoo.inference.restore import check_tile
    from zoo.inference.tiling import plan
    from zoo.models.registry import DEFAULT_MODEL, get_spec

    check_tile(args.tile)
    if not 0 < args.noise_scale < float("inf"):
        raise ZooError(f"the noise scale is a number above 0, not {args.noise_scale:g}")
    model, runner = open_runner(args.model or DEFAULT_MODEL, args.runtime, args.precision, args.tile, args.threads)
    spec = get_spec(model)
    plan(spec, 1, 1, args.tile, runner.tile)  # a tile that does not fit fits no photo
    work_through(
        jobs,
        args,
        lambda source, target, place: _one(source, target, format, runner, spec, args, place),
        _tell,
        resume=photos.several,
        about={"model": model, "runtime": runner.target, "precision": runner.precision},
    )


def _one(
    file: Path,
    target: Path,
    format: str,
    runner: TileRunner,
    spec: ModelSpec,
    args: argparse.Namespace,
    place: Place,
) -> Facts:
    """Denoise one photo; returns what the summary tells of it."""
    from zoo.cli.photos import Bar, make_folder, note_shading
    from zoo.inference.output import save
    from zoo.inference.restore import restore
    from zoo.raw import read_raw

    start = time.perf_counter()
    raw = read_raw(file)
    note_shading(raw, place)
    megapixels = raw.mosaic.size / 1e6
    with Bar(file.name, megapixels, place, hidden=args.json) as progress:
        bands = restore(raw, runner, spec, tile=args.tile, noise_scale=args.noise_scale, progress=progress)
        make_folder(target.parent)
        save(target, bands, raw, format=format, linear=args.linear, exposure=args.exposure)
    seconds = time.perf_counter() - start
    return {
        "input": str(file),
        "output": str(target),
        "width": raw.mosaic.shape[1],
        "height": raw.mosaic.shape[0],
        "iso": raw.iso,
        "noise": {"shot": raw.noise.shot, "read": raw.noise.read, "source": raw.noise.source},
        "white_balance": raw.metadata.get("wb_source"),
        "seconds": round(seconds, 3),
        "seconds_per_mp": round(seconds / megapixels, 4),
        "peak_rss_mb": peak_rss_mb(),
    }


def _tell(facts: Facts) -> str:
    return (
        f"{facts['input']} -> {facts['output']}: {facts['width'] * facts['height'] / 1e6:.1f} MP,"
        f" {facts['seconds']:.1f} s ({facts['seconds_per_mp']:.2f} s/MP), peak memory {facts['peak_rss_mb']:.0f} MB"
    )
