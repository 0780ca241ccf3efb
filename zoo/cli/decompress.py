"""``zoo decompress``: the picture of an .rzc file, or of a part of it."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.record import peak_rss_mb

if TYPE_CHECKING:
    from zoo.codec import Box
    from zoo.codec.container import Stream
    from zoo.inference.runner import TileRunner

_MARK = [[[0.5]], [[0.0]], [[0.5]]]  # magenta, in linear light


def add_parser(subparsers: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "decompress",
        help=help,
        description="Make a picture of an .rzc file: TIFF, PNG, JPEG or linear DNG, developed as by `zoo denoise`.",
    )
    add = parser.add_argument
    add("input", type=Path, metavar="IN.rzc")
    add("-o", "--output", required=True, type=Path, metavar="OUT", help="picture (.tiff .png .jpeg .dng)")
    add("--rect", metavar="Y,X,H,W", help="only this part, in pixels of the picture before it is turned")
    add("--salvage", action="store_true", help="decode what is left of a damaged file; lost tiles become magenta")
    add("--linear", action="store_true", help="16-bit TIFF in linear light instead of developed")
    add("--exposure", type=float, default=0.0, metavar="EV", help="brighten a developed picture by EV")
    add("--decoder", type=Path, metavar="FILE", help="exported decoder (default: the file's model in PyTorch)")
    add("--threads", type=int, metavar="N", help="CPU threads")
    return parser


def run(args: argparse.Namespace) -> None:
    from zoo.cli.denoise import Bar, reachable
    from zoo.codec import Box, parse
    from zoo.inference.output import check_options, format_of, save

    check_options(format_of(args.output), args.linear, args.exposure)
    with reachable():
        if not args.output.parent.is_dir():
            raise ZooError(f"{args.output}: there is no folder {args.output.parent}; make it first")
    rect = None if args.rect is None else parse_rect(args.rect)
    stream = parse(args.input, salvage=args.salvage)

    from zoo.inference.codec import open_stream_codec, raw_of

    decoder = None if args.decoder is None else open_decoder(args.decoder, stream.header.model, args.threads)
    codec = open_stream_codec(stream, decoder=decoder, threads=args.threads)
    start = time.perf_counter()
    shape = rect.shape if rect else (stream.header.height, stream.header.width)
    megapixels, lost = shape[0] * shape[1] / 1e6, 0
    with Bar(args.input.name, megapixels, hidden=args.json) as progress:
        masked = codec.bands(stream, rect=rect, salvage=args.salvage, progress=progress)

        def bands() -> Iterator[Any]:
            nonlocal lost
            for band, whole in masked:
                lost += int((~whole).sum())
                for box in lost_tiles(stream, rect):
                    band.rgb[:, *box.move(-band.y0, 0).meet(Box(0, 0, *whole.shape)).slices] = _MARK
                yield band

        save(
            args.output,
            bands(),
            raw_of(stream.header, args.input, shape),
            linear=args.linear,
            exposure=args.exposure,
        )
    seconds, damaged = time.perf_counter() - start, lost_tiles(stream, rect)
    facts = {
        "input": str(args.input),
        "output": str(args.output),
        "model": codec.name,
        "quality": stream.header.quality,
        "width": shape[1],
        "height": shape[0],
        "damaged_share": round(lost / (shape[0] * shape[1]), 6),
        # Y, X, H, W, as --rect has them.
        "damaged_tiles": [[box.y0, box.x0, *box.shape] for box in damaged],
        "seconds": round(seconds, 3),
        "peak_rss_mb": peak_rss_mb(),
    }
    if args.json:
        print(json.dumps(facts, indent=1))
        return
    damage = ""
    if lost:
        count = f"{len(damaged)} lost tile{'s' if len(damaged) != 1 else ''} (magenta)"
        damage = f", {facts['damaged_share']:.1%} of the pixels are damaged by {count}"
    print(f"{args.input} -> {args.output}: {megapixels:.1f} MP, {seconds:.1f} s{damage}")


def lost_tiles(stream: Stream, rect: Box | None) -> list[Box]:
    """Where a picture, or a part of it, has lost its tiles, as far as it was decoded: pixels of what is."""
    from zoo.codec import Box
    from zoo.raw import alignment

    header = stream.header
    area = rect or Box(0, 0, header.height, header.width)
    border = alignment((header.height, header.width), header.cfa)
    origin = -border.top - area.y0, -border.left - area.x0
    boxes = [stream.tiles.pixels(tile).move(*origin) for tile in sorted(stream.lost)]
    return [seen for box in boxes if (seen := box.meet(Box(0, 0, *area.shape)))]


def open_decoder(path: Path, model: str, threads: int | None) -> TileRunner:
    """The decoder of an artefact, if it is of the file's model.

    Raises:
        ZooError: it is not, see also :func:`zoo.cli.runtimes.open_half`.
    """
    from zoo.cli.runtimes import open_half

    name, runner = open_half(path, "decoder", threads)
    if name != model:
        raise ZooError(f"{path}: is of {name}, but the file was made with the model '{model}'; leave --decoder out")
    return runner


def parse_rect(text: str) -> Box:
    """``Y,X,H,W`` -> box.

    Raises:
        ZooError: anything else.
    """
    from zoo.codec import Box

    if not re.fullmatch(r"\d+,\d+,\d+,\d+", text):
        raise ZooError(f"--rect {text}: a part is Y,X,H,W: top, left, height and width in pixels, e.g. 0,0,512,512")
    y, x, height, width = (int(part) for part in text.split(","))
    return Box(y, x, y + height, x + width)
