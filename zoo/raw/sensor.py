"""Where LibRaw sees the picture on the sensor, through which filters, and between which levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import ZooError
from zoo.raw.cfa import BAYER_PHASES, XTRANS
from zoo.raw.image import Quad
from zoo.raw.shading import Shading, read_shading
from zoo.raw.tags import DngTags


def cfa_of(path: Path, raw: Any) -> str:
    """The phase at the top left of the visible area.

    Raises:
        ZooError: not a mosaic of red, green and blue.
    """
    names = raw.color_desc.decode("ascii", "replace")
    try:
        pattern = raw.raw_pattern
    except NotImplementedError as error:  # rawpy's, of filters that are laid out in no way it knows
        raise ZooError(
            f"{path}: its filters ({names}, laid out oddly) are not a Bayer mosaic; give an RGB Bayer raw"
        ) from error
    if pattern is None or raw.raw_image_visible.ndim != 2:
        raise ZooError(f"{path}: holds full-colour pixels, not a mosaic; give the camera's own raw")
    if pattern.shape == (6, 6):
        return XTRANS
    cfa = "".join(names[i] if i < len(names) else "?" for i in _corner_colours(raw))
    if raw.num_colors != 3 or cfa not in BAYER_PHASES:
        raise ZooError(f"{path}: its filters ({names}: {cfa}) are not a Bayer mosaic; give an RGB Bayer raw")
    return cfa


def crop_of(sizes: Any) -> tuple[int, int, int, int]:
    """Top, left, bottom and right, in the visible area, of the picture that the camera or the DNG means to be seen.

    Around it lie pixels for demosaicing only: often darker, or of no use. A crop of less than half a side is no border but
    a digital zoom, or damage, and one that reaches beyond the visible area is damage: then all that is visible is taken.
    """
    visible = 0, 0, int(sizes.height), int(sizes.width)
    height, width = int(getattr(sizes, "crop_height", 0)), int(getattr(sizes, "crop_width", 0))
    if 2 * height < visible[2] or 2 * width < visible[3]:  # also of 0, which is unknown
        return visible
    top, left = int(sizes.crop_top_margin) - sizes.top_margin, int(sizes.crop_left_margin) - sizes.left_margin
    if top < 0 or left < 0 or top + height > visible[2] or left + width > visible[3]:
        return visible
    return top, left, top + height, left + width


def shifted(cfa: str, levels: Quad, top: int, left: int) -> tuple[str, Quad]:
    """Filters and levels by position, of a mosaic from row ``top`` and column ``left`` on."""
    order = [(y + top) % 2 * 2 + (x + left) % 2 for y in (0, 1) for x in (0, 1)]
    return cfa if cfa == XTRANS else "".join(cfa[i] for i in order), quad([levels[i] for i in order])


def _corner_colours(raw: Any) -> list[int]:
    """Of the first 2x2 visible pixels. rawpy's ``raw_colors_visible`` says the same, but builds it for the whole photo."""
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    rows, columns = raw.raw_pattern.shape
    return [int(raw.raw_pattern[(top + y) % rows, (left + x) % columns]) for y in (0, 1) for x in (0, 1)]


def levels_of(raw: Any, cfa: str, dng: DngTags) -> tuple[Quad, Quad]:
    """Black and white by 2x2 position."""
    by_colour = [float(b) for b in raw.black_level_per_channel]
    if cfa == XTRANS:
        black = [sum(by_colour[:3]) / 3] * 4
    elif dng.black is not None:
        # LibRaw 0.22 rounds DNG blacks to whole DN and, where it moves an odd margin to an even one, leaves the
        # pattern of blacks behind.
        shift = (dng.origin[0] - raw.sizes.top_margin, dng.origin[1] - raw.sizes.left_margin)
        black = np.roll(dng.black, shift, axis=(0, 1)).ravel().tolist()
    else:
        black = [by_colour[i] for i in _corner_colours(raw)]
    white = float(raw.white_level)
    # Canon and others note where each channel saturates, a little below the format's maximum; elsewhere the field is
    # absent, zero or of another scale.
    per_channel = [float(v) for v in raw.camera_white_level_per_channel or () if white / 2 < v <= white]
    return quad(black), quad([min(per_channel, default=white)] * 4)


def shading_of(dng: DngTags, cfa: str, place: tuple[int, int], shape: tuple[int, int]) -> tuple[Shading | None, bool]:
    """Gains against a DNG's lens shading, and whether it has some that are none of them (:func:`zoo.raw.shading.read_shading`).

    Args:
        dng: its tags.
        cfa: at the mosaic's first pixel.
        place: row and column of that in the active area.
        shape: height and width of the mosaic.
    """
    first, _ = shifted(cfa, (0.0, 0.0, 0.0, 0.0), -place[0], -place[1])
    shading, odd = read_shading(*dng.opcodes, first, dng.area)
    return None if shading is None else shading.crop(*place, shape, dng.area), odd


def quad(values: Sequence[float]) -> Quad:
    """Levels by 2x2 position."""
    a, b, c, d = values
    return a, b, c, d
