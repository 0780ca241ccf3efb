"""Which part of the sensor a photo is, and that its pixels keep their colours and blacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_raw_cfa import bayer
from test_raw_read import bayer_tags, cfa_dng

from zoo.raw import BAYER_PHASES, read_raw
from zoo.raw.sensor import crop_of, shifted


@pytest.mark.parametrize("cfa", BAYER_PHASES)
@pytest.mark.parametrize("area", [(2, 4, 60, 70), (3, 4, 59, 71), (4, 5, 60, 70), (1, 3, 59, 72)])
def test_active_area_keeps_colours_and_blacks_apart(tmp_path: Path, cfa: str, area: tuple[int, int, int, int]) -> None:
    """LibRaw moves odd margins to even ones; whatever it cuts, each pixel must keep its colour and black level."""
    top, left, bottom, right = area
    mosaic = np.zeros((64, 80), np.uint16)
    mosaic[top:bottom, left:right] = bayer(
        bottom - top, right - left, cfa
    )  # DNG: the pattern starts at the active area
    blacks = tuple({"R": 100, "G": 200, "B": 300}[c] for c in cfa)
    tags = [*bayer_tags(cfa), (50713, 3, 2, (2, 2), True), (50714, 4, 4, blacks, True), (50829, 4, 4, area, True)]
    raw = read_raw(cfa_dng(tmp_path / "a.dng", mosaic, tags))
    assert raw.mosaic.min() >= 1000  # nothing of the masked border
    assert raw.mosaic.shape[0] >= bottom - top - 1
    assert raw.mosaic.shape[1] >= right - left - 1
    assert raw.black == tuple({"R": 100, "G": 200, "B": 300}[c] for c in raw.cfa)
    planes, _ = raw.packed()
    assert planes[0].max() * (raw.white[0] - 100) + 100 < 2000
    assert planes[3].min() * (raw.white[0] - 300) + 300 >= 3000


@pytest.mark.parametrize("cfa", BAYER_PHASES)
@pytest.mark.parametrize("area", [(2, 4, 60, 70), (3, 5, 61, 73), (0, 0, 64, 80)])
@pytest.mark.parametrize("crop", [(4, 6, 50, 40), (5, 3, 51, 41), (0, 0, 58, 48)])
def test_the_default_crop_keeps_colours_and_blacks_apart(
    tmp_path: Path, cfa: str, area: tuple[int, int, int, int], crop: tuple[int, int, int, int]
) -> None:
    """LibRaw moves odd origins to even ones here too."""
    top, left, bottom, right = area
    mosaic = np.zeros((64, 80), np.uint16)
    mosaic[top:bottom, left:right] = bayer(bottom - top, right - left, cfa)
    y, x = top + crop[1], left + crop[0]
    mosaic[:y], mosaic[y + crop[3] :], mosaic[:, :x], mosaic[:, x + crop[2] :] = 0, 0, 0, 0
    blacks = tuple({"R": 100, "G": 200, "B": 300}[c] for c in cfa)
    tags = [*bayer_tags(cfa), (50713, 3, 2, (2, 2), True), (50714, 4, 4, blacks, True), (50829, 4, 4, area, True),
            (50719, 4, 2, crop[:2], True), (50720, 4, 2, crop[2:], True)]  # fmt: skip
    raw = read_raw(cfa_dng(tmp_path / "a.dng", mosaic, tags))
    assert raw.mosaic.min() >= 1000  # nothing beyond the crop
    assert raw.mosaic.shape[0] in (crop[3], crop[3] - 1)
    assert raw.mosaic.shape[1] in (crop[2], crop[2] - 1)
    assert raw.black == tuple({"R": 100, "G": 200, "B": 300}[c] for c in raw.cfa)
    planes, _ = raw.packed()
    assert planes[0].max() * (raw.white[0] - 100) + 100 < 2000
    assert planes[3].min() * (raw.white[0] - 300) + 300 >= 3000


@pytest.mark.parametrize(
    ("crop", "shape"),
    [
        ((0, 0, 0, 0), (60, 70)),
        ((8, 6, 30, 24), (60, 70)),  # a zoom
        ((4, 1, 60, 50), (60, 70)),  # starts above the visible area
        ((8, 6, 64, 62), (60, 70)),  # ends beyond it
        ((5, 3, 60, 50), (50, 60)),
        ((4, 2, 70, 60), (60, 70)),
    ],
)
def test_crops_that_make_no_sense_are_not_taken(crop: tuple[int, int, int, int], shape: tuple[int, int]) -> None:
    names = ("crop_left_margin", "crop_top_margin", "crop_width", "crop_height")
    sizes = SimpleNamespace(height=60, width=70, top_margin=2, left_margin=4, **dict(zip(names, crop, strict=True)))
    top, left, bottom, right = crop_of(sizes)
    assert (bottom - top, right - left) == shape


@pytest.mark.parametrize(
    ("top", "left", "cfa", "black"),
    [
        (0, 2, "RGGB", (1, 2, 3, 4)),
        (1, 0, "GBRG", (3, 4, 1, 2)),
        (4, 1, "GRBG", (2, 1, 4, 3)),
        (3, 5, "BGGR", (4, 3, 2, 1)),
    ],
)
def test_what_an_odd_crop_starts_with(top: int, left: int, cfa: str, black: tuple[float, ...]) -> None:
    assert shifted("RGGB", (1, 2, 3, 4), top, left) == (cfa, black)
