"""The benchmark ``blind``: crops of real raws, developed by each method, side by side on one sheet.

There is no truth to measure against: the sheet is to be looked at. What a raw says of itself (phase, levels, gains,
noise, matrix) is taken as :func:`zoo.raw.read_raw` reads it, the same for all methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.evaluation.method import Array, Method, run
from zoo.inference.output import develop
from zoo.raw import RAW_SUFFIXES, XTRANS, RawImage, read_raw

Picture = npt.NDArray[np.uint8]  # [h, w, 3], sRGB

# What is hard about a raw that we know, and where in it: (y, x) of the crop's centre, in sensor pixels.
KNOWN = {
    "gopr0024_crop": (230, 560),  # mural: saturated stripes and dots at the scale of the pixel grid
    "canon_d30": (969, 1028),  # tinsel: aliasing
    "aisp_x90": (150, 390),  # lantern at night: saturated lights beside black
    "n900_bayer_small": (100, 153),  # fur and grass of an early phone
    "phone_a71_iso500_fabric": (420, 400),  # fabric at ISO 500, with a noise tag that is wrong
    "seestar_m94_burst": (290, 290),  # stars: points that look like noise
    "infisp_black_12bit": (256, 256),  # dark frame with hot pixels: nothing to see
}
SIDES = (224, 192, 160, 128, 112, 96, 80, 64, 48)  # pixels; the largest that keeps the sheet small is taken
LARGEST = 1_000_000  # bytes of the sheet: it is to be kept in a repository

_CONTEXT = 48  # pixels around a crop that a method sees too; its work at their edges stays out of sight
_BRIGHT, _PERCENTILE, _MOST_GAIN = 0.5, 99.0, 4.0  # a crop's bright parts are shown so light, by at most so many EV
_GAP, _LINE = 4, 16  # pixels between crops, and of a line of text


@dataclass(frozen=True)
class Crop:
    """Where to look: a raw and the centre (y, x) of the crop in sensor pixels; None for the middle."""

    path: Path
    centre: tuple[int, int] | None = None


def find_crops(folder: Path, limit: int | None = None) -> list[Crop]:
    """The known hard crops whose files lie below a folder, in the order of :data:`KNOWN`; else every raw's middle.

    Args:
        folder: where to look, subfolders included.
        limit: at most so many.

    Raises:
        ZooError: no such folder, or no raw in it.
    """
    if not folder.is_dir():
        raise ZooError(f"{folder}: no such folder; point --data at a folder of raws")
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in RAW_SUFFIXES]
    known = [Crop(p, centre) for name, centre in KNOWN.items() for p in files if p.stem == name]
    # An npz may hold anything (noise tables, weights); with a name that is not known it has to look like a raw.
    crops = known or [Crop(p) for p in files if p.suffix.lower() != ".npz" or _is_raw(p)]
    if not crops:
        raise ZooError(f"{folder}: holds no raw ({', '.join(RAW_SUFFIXES)})")
    return crops[:limit]


def write_sheet(
    path: Path, crops: list[Crop], methods: Mapping[str, Method], tick: Callable[[], object] | None = None
) -> int:
    """Develop each crop with each method and write one PNG: a row per crop, a column per method, labelled.

    The exposure of a row is set by the raw, not by what a method makes of it.

    Args:
        path: the PNG; its folder is made.
        crops: at least one.
        methods: by label, at least one.
        tick: called after each picture.

    Returns:
        The side of the crops in pixels, one of :data:`SIDES`: the largest with which the sheet keeps under
        :data:`LARGEST` bytes.

    Raises:
        ZooError: a raw that cannot be read or is no Bayer mosaic, a method that fails on it, too many crops for a small
            sheet, or a file that cannot be written.
    """
    # All of them before the first is worked on, which may take minutes.
    raws = [read_bayer(crop.path) for crop in crops]
    rows: list[tuple[str, list[Picture]]] = []
    for raw, crop in zip(raws, crops, strict=True):
        pictures = []
        for method in methods.values():
            pictures.append(develop_crop(method, raw, crop))
            if tick is not None:
                tick()
        rows.append((title(raw), pictures))
    for side in SIDES:
        sheet = _sheet([(name, [_middle(p, side) for p in pictures]) for name, pictures in rows], list(methods))
        if len(sheet) <= LARGEST:
            break
    else:
        raise ZooError(f"{len(crops)} crops of {len(methods)} methods do not fit {LARGEST / 1e6:g} MB; use --limit")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sheet)
    except OSError as error:
        raise ZooError(f"{path}: cannot be written ({error.strerror}); choose another --output-dir") from error
    return side


def develop_crop(method: Method, raw: RawImage, crop: Crop, side: int = SIDES[0]) -> Picture:
    """A crop of ``side`` pixels, uint8 ``[h, w, 3]`` sRGB, exposed by what the raw shows there; smaller where the raw is.

    Raises:
        ZooError: the method fails on it.
    """
    height, width = raw.mosaic.shape
    y, x = crop.centre or (height // 2, width // 2)
    tops = [_window(c, size, side) for c, size in ((y, height), (x, width))]
    (y0, y1), (x0, x1) = tops
    # The context begins at an even pixel, so that it has the phase of the whole.
    cy, cx = (max(0, start - _CONTEXT) for start in (y0, x0))
    seen = raw.normalised()[cy : y1 + _CONTEXT, cx : x1 + _CONTEXT]
    try:
        result, _ = run(method, seen, raw.wb, raw.noise.shot, raw.noise.read, raw.cfa)
    except ZooError as error:
        raise ZooError(f"{raw.path}: {error}") from error
    shown = result[:, y0 - cy : y1 - cy, x0 - cx : x1 - cx]
    picture = develop(np.ascontiguousarray(shown), raw, linear=False, exposure=_exposure(seen))
    return (255 * picture + 0.5).astype(np.uint8)


def _exposure(mosaic: Array) -> float:
    """EV that bring the bright parts of a mosaic to :data:`_BRIGHT` of white; never below 0, lights may clip."""
    bright = float(np.percentile(mosaic, _PERCENTILE))
    return min(max(math.log2(_BRIGHT / max(bright, 1e-6)), 0.0), _MOST_GAIN)


def _window(centre: int, size: int, side: int) -> tuple[int, int]:
    """From where to where a crop goes along a side: inside, beginning at an even pixel."""
    side = min(side, size // 2 * 2)
    start = min(max(centre - side // 2, 0), size - side) // 2 * 2
    return start, start + side


def _middle(picture: Picture, side: int) -> Picture:
    height, width = picture.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return picture[top : top + side, left : left + side]


def _sheet(rows: list[tuple[str, list[Picture]]], labels: list[str]) -> bytes:
    """PNG of the rows under their titles, the columns under their labels."""
    from PIL import Image, ImageDraw

    width = max(p.shape[1] for _, pictures in rows for p in pictures)
    heights = [max(p.shape[0] for p in pictures) for _, pictures in rows]
    size = (len(labels) * (width + _GAP), _LINE + sum(_LINE + h + _GAP for h in heights))
    sheet = Image.new("RGB", size, (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(labels):
        draw.text((column * (width + _GAP) + 2, 2), _fit(draw, label, width), fill=(255, 255, 255))
    y = _LINE
    for (title, pictures), height in zip(rows, heights, strict=True):
        draw.text((2, y + 2), _fit(draw, title, size[0]), fill=(190, 190, 190))
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (column * (width + _GAP), y + _LINE))
        y += _LINE + height + _GAP
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _fit(draw: object, text: str, width: int) -> str:
    """The text, cut where it is wider than its place."""
    while text and draw.textlength(text) > width - 4:  # type: ignore[attr-defined]
        text = text[:-1]
    return text


def read_bayer(path: Path) -> RawImage:
    """A raw that Bayer methods can take.

    Raises:
        ZooError: it cannot be read, or is X-Trans.
    """
    raw = read_raw(path)
    if raw.cfa == XTRANS:
        raise ZooError(f"{path}: X-Trans, which Bayer methods cannot take; take it out of the folder")
    return raw


def title(raw: RawImage) -> str:
    """File, ISO and noise of a raw, in one line."""
    iso = "ISO unknown" if raw.iso is None else f"ISO {raw.iso:g}"
    return f"{Path(raw.path).name}, {iso}, noise {raw.noise.source}: S {raw.noise.shot[1]:.1e}"


def _is_raw(path: Path) -> bool:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return {"mosaic.npy", "meta.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
