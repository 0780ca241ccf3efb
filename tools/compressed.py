"""Noisy raws at equal bytes, for the README: ``python tools/compressed.py [--data ../shared/data/eval_rgb]``.

A crop each of what two pictures become in the same number of bytes: JPEG XL of a simple development, JPEG XL of the flagship's
picture, the Bayer codec's file; beside them the development that has not been compressed, and the clean picture. Scenes and
scores are those of ``zoo evaluate --benchmark rate-distortion``. Writes ``docs/compressed.webp`` and a record of what it shows.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from zoo.errors import ZooError, one_line
from zoo.record import write_record

RECORD = Path("evidence/compressed/compressed.json")
PICTURE = Path("docs/compressed.webp")
CODEC, PEER, DEVELOPERS = "bayer-codec-m", "jpegxl", ("menon", "utnet-m")
SIDE, SCALE = 144, 2  # pixels of a crop, and how much larger it is shown
_QUALITY = 88  # of the WebP: 300 kB or so, below what compression itself leaves to be seen
_TEXT = 34  # pixels of caption
_HALVINGS = 12  # of the peer's quality scale, which is 18 wide


@dataclass(frozen=True)
class Shown:
    """A scene: picture of the evaluation sets, noise level, our quality, the crop's upper left corner (y, x)."""

    picture: str
    level: str
    quality: int
    corner: tuple[int, int]


SHOWN = (
    Shown("kodak_23", "iso3200", 28, (60, 170)),
    Shown("kodak_08", "iso3200", 36, (250, 330)),
    Shown("kodak_19", "iso12800", 28, (330, 250)),
)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/eval_rgb"), help="folder of evaluation pictures"
    )
    args = parser.parse_args()
    with one_line():
        rows, record = make(args.data)
    sheet(rows).save(PICTURE, "WEBP", quality=_QUALITY, method=6)
    digest = hashlib.sha256(PICTURE.read_bytes()).hexdigest()
    write_record(RECORD, "compressed", {"picture": PICTURE.name, "picture_sha256": digest, **record})
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB; {RECORD}")


Cell = tuple[str, npt.NDArray[np.uint8]]


def make(data: Path) -> tuple[list[list[Cell]], dict[str, Any]]:
    """Rows of captioned crops ``[SIDE, SIDE, 3]``, and what they are.

    Raises:
        ZooError: pictures, weights or libraries are missing.
    """
    import torch

    from zoo.baselines.codecs import get_codec
    from zoo.cli.methods import open_method, package_versions
    from zoo.data.pool import read_srgb
    from zoo.evaluation import bed, metrics
    from zoo.evaluation.method import inner
    from zoo.evaluation.rate_distortion import DevelopedPicture, RawCompressor, Source
    from zoo.inference.codec import open_codec

    sources = {name: Source(open_method(name, threads=1).method) for name in DEVELOPERS}
    compressor = open_codec(CODEC)
    ours, peer = RawCompressor(compressor), get_codec(PEER)
    known = {path.stem: path for path in data.glob("*.*")} if data.is_dir() else {}
    rows, scenes = [], []
    for shown in SHOWN:
        if shown.picture not in known:
            raise ZooError(f"{data}: holds no {shown.picture}; give the folder of evaluation pictures with --data")
        clean = read_srgb(known[shown.picture])
        scene = bed.make_scene(clean, shown.picture, shown.level)
        shape, truth = clean.shape[:2], clean.transpose(2, 0, 1)
        part = (..., *inner(*shape))
        data_ours = ours.encode(ours.prepare(scene)[0], shown.quality)
        pictures = [(CODEC, data_ours, ours.decode(data_ours, shape))]
        for name in DEVELOPERS:
            codec = DevelopedPicture(peer, sources[name])
            prepared = codec.prepare(scene)[0]
            coded = _within(codec, prepared, len(data_ours))
            pictures.append((f"{PEER}+{name}", coded, codec.decode(coded, shape)))
        noisy = sources["menon"].develop(scene)[0].transpose(2, 0, 1).astype(np.float32) / 255
        cells: list[Cell] = [(f"{shown.picture}, {shown.level}: menon", _crop(noisy, shown))]
        entries = []
        for name, coded, decoded in (*pictures[1:], pictures[0]):
            assert decoded is not None
            psnr = metrics.psnr(torch.from_numpy(decoded[part]), torch.from_numpy(truth[part]))
            cells.append((f"{name}: {len(coded) / 1000:.1f} kB, {psnr:.2f} dB", _crop(decoded, shown)))
            entries.append({"codec": name, "bytes": len(coded), "psnr": round(psnr, 3)})
        cells.append(("clean", _crop(truth, shown)))
        rows.append(cells)
        bpp = 8 * len(data_ours) / (shape[0] * shape[1])
        scenes.append(
            {"picture": shown.picture, "level": shown.level, "quality": shown.quality, "bpp": bpp, "codecs": entries}
        )
    return rows, {"weights_sha256": compressor.weights_sha256, "versions": package_versions(), "scenes": scenes}


def _within(codec: Any, prepared: Any, size: int) -> bytes:
    """The peer's best file of at most ``size`` bytes, by bisection over its scale; its smallest where none is so small."""
    low, high = codec.qualities[0], codec.qualities[-1]
    best = codec.encode(prepared, low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        coded = codec.encode(prepared, middle)
        if len(coded) <= size:
            low, best = middle, coded
        else:
            high = middle
    return best


def _crop(picture: npt.NDArray[np.float32], shown: Shown) -> npt.NDArray[np.uint8]:
    y, x = shown.corner
    part = picture[:, y : y + SIDE, x : x + SIDE].transpose(1, 2, 0)
    return np.rint(part.clip(0, 1) * 255).astype(np.uint8)


def sheet(rows: list[list[Cell]]) -> Image.Image:
    """Crops in rows, each twice as large and with its caption below."""
    side = SIDE * SCALE
    picture = Image.new("RGB", (side * max(map(len, rows)), (side + _TEXT) * len(rows)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for row, cells in enumerate(rows):
        for column, (caption, crop) in enumerate(cells):
            at = column * side, row * (side + _TEXT)
            picture.paste(Image.fromarray(crop).resize((side, side), Image.Resampling.NEAREST), at)
            draw.text((at[0] + 6, at[1] + side + 6), caption, fill="black", font=font)
    return picture


if __name__ == "__main__":
    main()
