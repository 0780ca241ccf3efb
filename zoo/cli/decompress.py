"""``zoo decompress``: the picture of an .rzc file, or of a part of it."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.record import peak_rss_mb

if TYPE_CHECKING:
    from zoo.cli.photos import Facts, Place
    from zoo.codec import Box
    from zoo.codec.container import Stream
    from zoo.inference.codec import Codec

_MARK = [[[0.5]], [[0.0]], [[0.5]]]  # magenta, in linear light


def add_parser(subparsers: Any, help: str) -> argparse.ArgumentParser:
    from zoo.cli.photos import add_arguments

    parser: argparse.ArgumentParser = subparsers.add_parser(
        "decompress",
        help=help,
        description="Make pictures of .rzc files: TIFF, PNG, JPEG or linear DNG, developed as by `zoo denoise`. With several "
        "inputs, or a folder of them, OUT is a folder; files whose pictures lie there already are left out, so that an "
        "interrupted run goes on where it ended.",
        epilog="Of a folder are read: .rzc. A single file may have any name.",
    )
    add_arguments(
        parser,
        "IN.rzc",
        ".rzc files or folders of them",
        "picture (.tiff .png .jpeg .dng), or a folder; NAME/ is always one",
    )
    add = parser.add_argument
    add("--format", metavar="F", help="tiff, png, jpeg or dng; default: by OUT's suffix, tiff in a folder")
    add("--rect", metavar="Y,X,H,W", help="only this part, in pixels of the picture before it is turned; of one file")
    add("--salvage", action="store_true", help="decode what is left of a damaged file; lost tiles become magenta")
    add("--linear", action="store_true", help="16-bit TIFF in linear light instead of developed")
    add("--exposure", type=float, default=0.0, metavar="EV", help="brighten a developed picture by EV")
    add("--decoder", type=Path, metavar="FILE", help="exported decoder (default: the file's model in PyTorch)")
    add("--threads", type=int, metavar="N", help="CPU threads")
    return parser


def run(args: argparse.Namespace) -> None:
    from zoo.cli.photos import gather, work_through
    from zoo.inference.output import SUFFIXES, check_options, format_of

    photos = gather(args, (".rzc",), ".rzc files", SUFFIXES)
    format = format_of(photos.target or Path(f"x.{args.format or 'tiff'}"), args.format)
    jobs = photos.jobs(f".{args.format or format}")
    check_options(format, args.linear, args.exposure)
    rect = None if args.rect is None else parse_rect(args.rect)
    if rect and photos.several:
        raise ZooError(f"--rect {args.rect}: is a part of one picture; give one file, or leave --rect out")
    codec_of = _opener(args.decoder, args.threads)
    work_through(
        jobs,
        args,
        lambda source, target, place: _one(source, target, format, rect, codec_of, args, place),
        _tell,
        resume=photos.several,
        about={} if photos.several else None,
    )


def _opener(decoder: Path | None, threads: int | None) -> Callable[[Stream], Codec]:
    """A function that opens the compressor of a file, each of them once.

    Raises:
        ZooError: see :func:`zoo.cli.runtimes.open_half`; the function's: the file is of another model than the decoder, see also
            :func:`zoo.inference.codec.open_stream_codec`.
    """
    from zoo.cli.runtimes import open_half
    from zoo.inference.codec import open_stream_codec

    of, runner = (None, None) if decoder is None else open_half(decoder, "decoder", threads)
    codecs: dict[str, Codec] = {}

    def codec_of(stream: Stream) -> Codec:
        header = stream.header
        if of not in (None, header.model):
            raise ZooError(
                f"{decoder}: is of {of}, but {stream.name} was made with the model '{header.model}'; leave --decoder out"
            )
        codec = codecs.get(header.model)
        if codec is None:
            return codecs.setdefault(header.model, open_stream_codec(stream, decoder=runner, threads=threads))
        header.check_model(codec.name, bytes.fromhex(codec.weights_sha256), codec.tables, stream.name)
        return codec

    return codec_of


def _one(
    file: Path,
    target: Path,
    format: str,
    rect: Box | None,
    codec_of: Callable[[Stream], Codec],
    args: argparse.Namespace,
    place: Place,
) -> Facts:
    """Decompress one file; returns what the summary tells of it."""
    from zoo.cli.photos import Bar, make_folder, note_shading
    from zoo.codec import Box, parse
    from zoo.inference.codec import raw_of
    from zoo.inference.output import save

    stream = parse(file, salvage=args.salvage)
    codec = codec_of(stream)
    start = time.perf_counter()
    shape = rect.shape if rect else (stream.header.height, stream.header.width)
    megapixels, lost = shape[0] * shape[1] / 1e6, 0
    with Bar(file.name, megapixels, place, hidden=args.json) as progress:
        masked = codec.bands(stream, rect=rect, salvage=args.salvage, progress=progress)

        def bands() -> Iterator[Any]:
            nonlocal lost
            for band, whole in masked:
                lost += int((~whole).sum())
                for box in lost_tiles(stream, rect):
                    band.rgb[:, *box.move(-band.y0, 0).meet(Box(0, 0, *whole.shape)).slices] = _MARK
                yield band

        make_folder(target.parent)
        raw = raw_of(stream, rect)
        note_shading(raw, place)
        note_thumbnail(stream)
        save(target, bands(), raw, format=format, linear=args.linear, exposure=args.exposure)
    return {
        "input": str(file),
        "output": str(target),
        "model": codec.name,
        "quality": stream.header.quality,
        "width": shape[1],
        "height": shape[0],
        "damaged_share": round(lost / (shape[0] * shape[1]), 6),
        # Y, X, H, W, as --rect has them.
        "damaged_tiles": [[box.y0, box.x0, *box.shape] for box in lost_tiles(stream, rect)],
        "seconds": round(time.perf_counter() - start, 3),
        "peak_rss_mb": peak_rss_mb(),
    }


def note_thumbnail(stream: Stream) -> None:
    """Say on stderr that a thumbnail is damaged, in which more than a small picture may have been."""
    try:
        stream.thumbnail()
    except ZooError:
        print(
            f"note: {stream.name}: its thumbnail is damaged; lens, place, lens shading and BaselineExposure are lost with it, if"
            " they were there",
            file=sys.stderr,
        )


def _tell(facts: Facts) -> str:
    damage = ""
    if facts["damaged_share"] or facts["damaged_tiles"]:
        tiles = len(facts["damaged_tiles"])
        count = f"{tiles} lost tile{'s' if tiles != 1 else ''} (magenta)"
        damage = f", {facts['damaged_share']:.1%} of the pixels are damaged by {count}"
    megapixels = facts["width"] * facts["height"] / 1e6
    return f"{facts['input']} -> {facts['output']}: {megapixels:.1f} MP, {facts['seconds']:.1f} s{damage}"


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
