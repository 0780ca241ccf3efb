"""``zoo compress``: a raw photo in, a small file out."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.record import peak_rss_mb


def add_parser(subparsers: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compress",
        help=help,
        description="Denoise a raw Bayer photo and write it as an .rzc file, which `zoo decompress` makes a picture of.",
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN", help="raw file")
    add("-o", "--output", required=True, type=Path, metavar="OUT.rzc")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--quality", type=int, metavar="Q", help="0 to 63, continuous over the rates (default: 48)")
    rate.add_argument("--target-bpp", type=float, metavar="B", help="best quality of at most B bits per sensor pixel")
    add("--model", metavar="NAME", help="registered compressor, or an exported encoder (default: bayer-codec-m)")
    add(
        "--denoiser",
        metavar="NAME",
        help="denoise by this model first, or by an exported one: fewer bits from ISO 3200 on",
    )
    add("--no-thumbnail", action="store_true", help="leave the thumbnail out, up to 16 kB")
    add("--threads", type=int, metavar="N", help="CPU threads")
    return parser


def run(args: argparse.Namespace) -> None:
    from zoo.cli.denoise import Bar, reachable

    if args.output.suffix.lower() != ".rzc":
        raise ZooError(f"{args.output}: the file's name ends in .rzc")
    with reachable():
        if not args.output.parent.is_dir():
            raise ZooError(f"{args.output}: there is no folder {args.output.parent}; make it first")
        if not args.input.exists():
            raise ZooError(f"{args.input}: no such file; check the path")

    from zoo.cli.runtimes import ARTEFACTS, open_half, open_runner
    from zoo.codec import write_file
    from zoo.inference.codec import DEFAULT_COMPRESSOR, DEFAULT_QUALITY, open_codec
    from zoo.inference.denoise import denoised_mosaic
    from zoo.models.registry import get_spec
    from zoo.raw import read_raw

    model, encoder = args.model or DEFAULT_COMPRESSOR, None
    if Path(model).suffix in ARTEFACTS:
        model, encoder = open_half(Path(model), "encoder", args.threads)
    codec = open_codec(model, encoder=encoder, threads=args.threads)
    quality = DEFAULT_QUALITY if args.quality is None else args.quality
    if quality not in codec.qualities:
        raise ZooError(f"quality {quality} does not exist; {codec.name} has 0 to {codec.qualities[-1]}")
    denoiser = open_runner(args.denoiser, threads=args.threads) if args.denoiser is not None else None
    start = time.perf_counter()
    raw, denoised = read_raw(args.input), None
    megapixels = raw.mosaic.size / 1e6
    if denoiser:
        name, runner = denoiser
        with Bar(f"{args.input.name}: {name}", megapixels, hidden=args.json) as progress:
            denoised = denoised_mosaic(raw, runner, get_spec(name), progress=progress)
    with Bar(args.input.name, megapixels, hidden=args.json) as progress:
        settings: dict[str, Any] = {"denoised": denoised, "thumbnail": not args.no_thumbnail, "progress": progress}
        if args.target_bpp is None:
            data = codec.compress(raw, quality, **settings)
        else:
            data, quality = codec.compress_to(raw, args.target_bpp, **settings)
        write_file(args.output, data)
    seconds = time.perf_counter() - start
    facts = {
        "input": str(args.input),
        "output": str(args.output),
        "model": codec.name,
        "denoiser": denoiser[0] if denoiser else None,
        "quality": quality,
        "width": raw.mosaic.shape[1],
        "height": raw.mosaic.shape[0],
        "bytes": len(data),
        "bits_per_pixel": round(8 * len(data) / raw.mosaic.size, 5),
        "seconds": round(seconds, 3),
        "peak_rss_mb": peak_rss_mb(),
    }
    if args.json:
        print(json.dumps(facts, indent=1))
        return
    print(
        f"{args.input} -> {args.output}: {megapixels:.1f} MP, quality {quality}, {len(data) / 1000:.1f} kB,"
        f" {facts['bits_per_pixel']:.3f} bits per pixel, {seconds:.1f} s"
    )
