"""``zoo compress``: a raw photo in, a small file out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.record import peak_rss_mb

if TYPE_CHECKING:
    from zoo.cli.photos import Facts, Place
    from zoo.inference.codec import Codec
    from zoo.inference.runner import TileRunner


def add_parser(subparsers: Any, help: str) -> argparse.ArgumentParser:
    from zoo.cli.photos import add_arguments
    from zoo.raw import RAW_SUFFIXES

    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compress",
        help=help,
        description="Denoise raw Bayer photos and write them as .rzc files, which `zoo decompress` makes pictures of. With "
        "several inputs, or a folder of raws, OUT is a folder; photos whose files lie there already are left out, so that "
        "an interrupted run goes on where it ended.",
        epilog=f"Of a folder are read: {' '.join(RAW_SUFFIXES)}. A single file may have any name.",
    )
    add_arguments(parser, "IN", "raw files or folders of them", "file (.rzc), or a folder; NAME/ is always one")
    add = parser.add_argument
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--quality", type=int, metavar="Q", help="0 to 63, continuous over the rates (default: 48)")
    rate.add_argument("--target-bpp", type=float, metavar="B", help="best quality of at most B bits per sensor pixel")
    add("--model", metavar="NAME", help="registered compressor, or an exported encoder (default: bayer-codec-m)")
    add(
        "--denoiser",
        metavar="NAME",
        help="denoise by this model first, or by an exported one: fewer bits from ISO 3200 on",
    )
    add(
        "--no-thumbnail",
        action="store_true",
        help="leave out the thumbnail of up to 16 kB, and lens, place, artist, lens shading and BaselineExposure with it",
    )
    add("--threads", type=int, metavar="N", help="CPU threads")
    return parser


def run(args: argparse.Namespace) -> None:
    from zoo.cli.photos import gather, work_through
    from zoo.raw import RAW_SUFFIXES

    photos = gather(args, RAW_SUFFIXES, "raw files", (".rzc",))
    if photos.target is not None and photos.target.suffix.lower() != ".rzc":
        raise ZooError(f"{photos.target}: the file's name ends in .rzc")
    jobs = photos.jobs(".rzc")

    from zoo.cli.runtimes import ARTEFACTS, open_half, open_runner
    from zoo.inference.codec import DEFAULT_COMPRESSOR, DEFAULT_QUALITY, open_codec
    from zoo.models.registry import check_removes_noise

    if args.target_bpp is not None and not 0 < args.target_bpp < float("inf"):
        raise ZooError(f"a target is a number of bits per pixel above 0, not {args.target_bpp:g}")
    model, encoder = args.model or DEFAULT_COMPRESSOR, None
    if Path(model).suffix in ARTEFACTS:
        model, encoder = open_half(Path(model), "encoder", args.threads)
    codec = open_codec(model, encoder=encoder, threads=args.threads)
    quality = DEFAULT_QUALITY if args.quality is None else args.quality
    if quality not in codec.qualities:
        raise ZooError(f"quality {quality} does not exist; {codec.name} has 0 to {codec.qualities[-1]}")
    denoiser = open_runner(args.denoiser, threads=args.threads) if args.denoiser is not None else None
    if denoiser:
        check_removes_noise(denoiser[0])
    about = {"model": codec.name, "denoiser": denoiser[0] if denoiser else None}
    work_through(
        jobs,
        args,
        lambda source, target, place: _one(source, target, codec, quality, denoiser, args, place),
        _tell,
        resume=photos.several,
        about=about if photos.several else None,
    )


def _one(
    file: Path,
    target: Path,
    codec: Codec,
    quality: int,
    denoiser: tuple[str, TileRunner] | None,
    args: argparse.Namespace,
    place: Place,
) -> Facts:
    """Compress one photo; returns what the summary tells of it."""
    from zoo.cli.photos import Bar, make_folder, note_shading
    from zoo.codec import write_file
    from zoo.inference.denoise import denoised_mosaic
    from zoo.models.registry import get_spec
    from zoo.raw import read_raw

    start = time.perf_counter()
    raw, denoised = read_raw(file), None
    note_shading(raw, place, kept=not args.no_thumbnail)
    megapixels = raw.mosaic.size / 1e6
    if denoiser:
        name, runner = denoiser
        with Bar(f"{file.name}: {name}", megapixels, place, hidden=args.json) as progress:
            denoised = denoised_mosaic(raw, runner, get_spec(name), progress=progress)
    with Bar(file.name, megapixels, place, hidden=args.json) as progress:
        settings: dict[str, Any] = {"denoised": denoised, "thumbnail": not args.no_thumbnail, "progress": progress}
        if args.target_bpp is None:
            data = codec.compress(raw, quality, **settings)
        else:
            data, quality = codec.compress_to(raw, args.target_bpp, **settings)
        make_folder(target.parent)
        write_file(target, data)
    return {
        "input": str(file),
        "output": str(target),
        "model": codec.name,
        "denoiser": denoiser[0] if denoiser else None,
        "quality": quality,
        "width": raw.mosaic.shape[1],
        "height": raw.mosaic.shape[0],
        "bytes": len(data),
        "bits_per_pixel": round(8 * len(data) / raw.mosaic.size, 5),
        "seconds": round(time.perf_counter() - start, 3),
        "peak_rss_mb": peak_rss_mb(),
    }


def _tell(facts: Facts) -> str:
    return (
        f"{facts['input']} -> {facts['output']}: {facts['width'] * facts['height'] / 1e6:.1f} MP, quality"
        f" {facts['quality']}, {facts['bytes'] / 1000:.1f} kB, {facts['bits_per_pixel']:.3f} bits per pixel,"
        f" {facts['seconds']:.1f} s"
    )
