"""Lens shading: the gain maps of DNGs, and where a picture's pixels lie in them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_raw_read import bayer_tags, cfa_dng

from zoo.raw import BAYER_PHASES, read_raw
from zoo.raw.shading import Shading, read_shading

SHAPE = (40, 60)
Map = dict[str, Any]


def gain_map(gains: np.ndarray, **changes: Any) -> bytes:
    """One opcode, as the DNG specification has it."""
    gains = np.atleast_3d(np.asarray(gains, np.float32))
    rows, columns, depth = gains.shape
    known: Map = {
        "area": (0, 0, *SHAPE), "planes": (0, 1), "pitch": (1, 1), "origin": (0.0, 0.0), "points": (rows, columns, depth),
        "spacing": (1 / max(rows - 1, 1), 1 / max(columns - 1, 1)),
    } | changes  # fmt: skip
    data = struct.pack(">10I", *known["area"], *known["planes"], *known["pitch"], *known["points"][:2])
    data += struct.pack(">4dI", *known["spacing"], *known["origin"], known["points"][2]) + gains.astype(">f4").tobytes()
    return struct.pack(">4I", 9, 0x01030000, 1, len(data)) + data


def opcodes(*maps: bytes) -> bytes:
    return struct.pack(">I", len(maps)) + b"".join(maps)


def linear(shading: Shading, shape: tuple[int, int]) -> np.ndarray:
    """What the specification says of every pixel, by NumPy's interpolation: (H, W, 3)."""
    rows, columns, _ = shading.gains.shape
    down = shading.origin[0] + shading.spacing[0] * np.arange(rows)
    across = shading.origin[1] + shading.spacing[1] * np.arange(columns)
    y, x = (np.arange(shape[0]) + 0.5) / shape[0], (np.arange(shape[1]) + 0.5) / shape[1]

    def plane(gains: np.ndarray) -> np.ndarray:
        lines = np.array([np.interp(x, across, line) for line in gains])
        return np.array([np.interp(y, down, column) for column in lines.T]).T

    return np.stack([plane(shading.gains[:, :, c]) for c in range(3)], 2)


@pytest.fixture
def shading() -> Shading:
    gains = np.random.default_rng(1).uniform(1, 3, (4, 5, 3)).astype(np.float32)
    return Shading(gains, (-0.1, 0.05), (0.3, 0.25))


def test_gains_are_linear_between_points(shading: Shading) -> None:
    gains = shading.field(SHAPE)
    got = np.moveaxis(gains(0, 40), 0, -1)
    np.testing.assert_allclose(got, linear(shading, SHAPE), rtol=1e-5)
    np.testing.assert_array_equal(gains(7, 9), np.moveaxis(got, -1, 0)[:, 7:9])


@pytest.mark.parametrize(
    ("top", "left", "inner"), [(0, 0, SHAPE), (3, 8, (30, 41)), (-1, 1, (20, 59)), (5, 0, (36, 60))]
)
def test_a_crop_has_the_gains_of_where_it_is(shading: Shading, top: int, left: int, inner: tuple[int, int]) -> None:
    whole = linear(shading, SHAPE)
    got = np.moveaxis(shading.crop(top, left, inner, SHAPE).field(inner)(0, inner[0]), 0, -1)
    rows, columns = np.arange(top, top + inner[0]), np.arange(left, left + inner[1])
    seen = (rows >= 0) & (rows < SHAPE[0])
    np.testing.assert_allclose(got[seen], whole[rows[seen]][:, columns], rtol=1e-5)


@pytest.mark.parametrize("cfa", BAYER_PHASES)
def test_maps_of_four_positions_go_to_their_colours(cfa: str) -> None:
    values = {"R": [3.0], "G": [1.0, 2.0], "B": [4.0]}
    maps = [
        gain_map(np.full((3, 4), values[c].pop(0)), area=(i // 2, i % 2, *SHAPE), pitch=(2, 2))
        for i, c in enumerate(cfa)
    ]
    shading, odd = read_shading(opcodes(*maps), b"", cfa, SHAPE)
    assert shading is not None and not odd
    np.testing.assert_allclose(shading.gains, np.broadcast_to([3, 1.5, 4], (3, 4, 3)))


def test_all_maps_count(shading: Shading) -> None:
    """One for all of the mosaic, one for its even rows, and of the picture's planes one with a plane each and one for two."""
    grid = {"origin": shading.origin, "spacing": shading.spacing}
    on_mosaic = opcodes(
        gain_map(np.full((1, 1), 2.0), spacing=(0, 0)),
        struct.pack(">4I", 3, 0, 0, 8) + bytes(8),  # another opcode
        gain_map(np.full((1, 1), 1.5), pitch=(2, 1)),
    )
    on_picture = opcodes(
        gain_map(shading.gains, planes=(0, 3), **grid), gain_map(np.full((1, 1), 3.0), planes=(1, 2)),
    )  # fmt: skip
    got, odd = read_shading(on_mosaic, on_picture, "RGGB", SHAPE)
    assert got is not None and not odd
    assert (got.origin, got.spacing) == (shading.origin, shading.spacing)
    np.testing.assert_allclose(got.gains, shading.gains * [3.0, 2.5 * 3, 2 * 3], rtol=1e-6)


def test_a_coarse_map_is_refined_where_another_is_finer(shading: Shading) -> None:
    ramp = np.array([[1.0], [2.0]])
    grid = {"origin": shading.origin, "spacing": shading.spacing}
    on_picture = opcodes(gain_map(shading.gains, planes=(0, 3), **grid))
    got, _ = read_shading(opcodes(gain_map(ramp, spacing=(0.9, 1), origin=(-0.1, 0))), on_picture, "RGGB", SHAPE)
    assert got is not None and got.gains.shape == (4, 5, 3)
    down = np.array([0, 0.3, 0.6, 0.9]) / 0.9
    np.testing.assert_allclose(got.gains, shading.gains * (1 + down)[:, None, None], rtol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"area": (0, 0, 20, 60)}, {"area": (4, 0, *SHAPE)}, {"pitch": (3, 1)}, {"pitch": (0, 2)}, {"planes": (1, 1)},
        {"origin": (np.nan, 0)}, {"spacing": (np.inf, 1)}, {"spacing": (-0.5, 1)}, {"spacing": (0.5, 0)}, {"points": (3, 5, 1)},
        {"origin": (0, 1e300)}, {"spacing": (1, 1e-9)}, {"points": (0, 5, 1)}, {"points": (1 << 31, 1 << 31, 1 << 31)},
    ],
)  # fmt: skip
def test_other_maps_are_told_of(changes: Map) -> None:
    assert read_shading(opcodes(gain_map(np.ones((3, 4)), **changes)), b"", "RGGB", SHAPE) == (None, True)


@pytest.mark.parametrize("gain", [0.0, -1.0, 65.0, 0.01, np.nan, np.inf])
def test_gains_that_are_none_are_told_of(gain: float) -> None:
    good, bad = gain_map(np.full((2, 2), 2.0)), gain_map(np.full((2, 2), gain))
    assert read_shading(opcodes(bad), b"", "RGGB", SHAPE) == (None, True)
    assert read_shading(opcodes(good, bad), b"", "RGGB", SHAPE) == (
        None,
        True,
    )  # three colours of four would tint corners
    shading, odd = read_shading(opcodes(bad), opcodes(gain_map(np.full((2, 2), 2.0), planes=(0, 3))), "RGGB", SHAPE)
    assert odd and shading is not None and (shading.gains == 2).all()  # the other list is whole


def test_an_x_trans_mosaic_has_maps_of_its_picture_alone() -> None:
    maps = opcodes(gain_map(np.full((2, 2), 2.0)))
    assert read_shading(maps, b"", "XTRANS", SHAPE) == (None, True)
    shading, odd = read_shading(b"", maps, "XTRANS", SHAPE)
    assert shading is not None and not odd
    np.testing.assert_array_equal(shading.gains[0, 0], [2, 1, 1])


@pytest.mark.parametrize("kept", [3, 4, 30, 400, 700])
def test_a_list_that_is_cut_off_counts_for_nothing(kept: int) -> None:
    maps = [gain_map(np.full((5, 5), 2.0), area=(i // 2, i % 2, *SHAPE), pitch=(2, 2)) for i in range(4)]
    assert len(opcodes(*maps)) > 700
    assert read_shading(opcodes(*maps)[:kept], b"", "RGGB", SHAPE) == (None, True)
    assert read_shading(opcodes(*maps) + b"more", b"", "RGGB", SHAPE)[1] is False


@pytest.mark.parametrize("count", [17, 20_000])
def test_more_maps_than_any_camera_writes_count_for_nothing(count: int) -> None:
    assert read_shading(opcodes(*[gain_map(np.ones((1, 1)))] * count), b"", "RGGB", SHAPE) == (None, True)


@pytest.mark.parametrize("gain", [9.0, 1 / 9])
def test_gains_are_none_where_all_together_are(gain: float) -> None:
    maps = opcodes(*[gain_map(np.full((2, 2), gain))] * 2)
    assert read_shading(maps, b"", "RGGB", SHAPE) == (None, True)


def test_a_clipped_highlight_stays_white_where_a_gain_is_below_1() -> None:
    on_picture = opcodes(gain_map(np.array([[[0.9, 1.2, 1.8], [2.0, 1.0, 3.0]]]), planes=(0, 3)))
    shading, _ = read_shading(b"", on_picture, "RGGB", SHAPE)
    assert shading is not None
    np.testing.assert_allclose(shading.gains, [[[1.0, 1.2 / 0.9, 2.0], [2.0, 1.0, 3.0]]], rtol=1e-6)


def test_maps_of_unlike_grids_are_all_kept() -> None:
    down = gain_map(np.linspace(1, 3, 11)[:, None])
    across = gain_map(np.linspace(1, 2, 201)[None], origin=(0, -0.5), spacing=(1, 0.01))
    shading, odd = read_shading(opcodes(down, across), b"", "RGGB", SHAPE)
    assert shading is not None and not odd
    got = shading.field(SHAPE)(0, 40)[1]
    y, x = (np.arange(40) + 0.5) / 40, (np.arange(60) + 0.5) / 60
    np.testing.assert_allclose(got, (1 + 2 * y[:, None]) * (1 + (x + 0.5) / 2), rtol=2e-3)


@pytest.mark.parametrize("most", [(24, 24), (3, 4), (1, 2)])
def test_what_is_packed_is_read_again(shading: Shading, most: tuple[int, int]) -> None:
    content = shading.pack(SHAPE, most)
    got, odd = read_shading(b"", content, "RGGB", SHAPE)
    assert got is not None and not odd
    assert got.gains.shape == (min(4, most[0]), min(5, most[1]), 3)
    if most == (24, 24):
        np.testing.assert_array_equal(got.gains, shading.gains)
        assert (got.origin, got.spacing) == (shading.origin, shading.spacing)
    else:  # its ends stay where they are
        np.testing.assert_allclose(got.gains[0, -1], shading.gains[0, -1], rtol=1e-6)


@pytest.mark.parametrize("cfa", BAYER_PHASES)
@pytest.mark.parametrize("area", [(0, 0, 64, 80), (3, 5, 61, 73), (2, 4, 60, 70)])
@pytest.mark.parametrize("crop", [None, (5, 3, 51, 41), (4, 6, 50, 40)])
def test_a_dngs_maps_lie_where_its_pixels_do(
    tmp_path: Path, cfa: str, area: tuple[int, int, int, int], crop: tuple[int, int, int, int] | None
) -> None:
    """A mosaic darkened as its maps say comes out even in every colour, whatever LibRaw and the crop leave of it."""
    top, left, bottom, right = area
    shape = bottom - top, right - left
    rng = np.random.default_rng(0)
    mosaic, maps = np.zeros((64, 80), np.uint16), []
    for at, colour in enumerate(cfa):
        y, x = divmod(at, 2)
        gains = rng.uniform(1, 2, (4, 5)) if colour != "G" else np.linspace(1, 2, 20).reshape(4, 5)
        maps.append(gain_map(gains, area=(y, x, *shape), pitch=(2, 2), origin=(0.02, -0.05), spacing=(0.3, 0.27)))
        one, _ = read_shading(opcodes(gain_map(gains, area=(0, 0, *shape), origin=(0.02, -0.05), spacing=(0.3, 0.27))),
                              b"", "RGGB", shape)  # fmt: skip
        assert one is not None
        light = {"R": 20000, "G": 40000, "B": 30000}[colour]
        mosaic[top + y : bottom : 2, left + x : right : 2] = light / linear(one, shape)[y::2, x::2, 0]
    content = opcodes(*maps)
    tags = [*bayer_tags(cfa), (50829, 4, 4, area, True), (51009, 7, len(content), content, True)]
    if crop:
        tags += [(50719, 4, 2, crop[:2], True), (50720, 4, 2, crop[2:], True)]
    raw = read_raw(cfa_dng(tmp_path / "a.dng", mosaic, tags))
    assert raw.shading is not None and "gain_map" not in raw.metadata
    height, width = raw.mosaic.shape
    gains = raw.shading.field((height, width))(0, height)
    for at, colour in enumerate(raw.cfa):
        y, x = divmod(at, 2)
        even = raw.mosaic[y::2, x::2] * gains["RGB".index(colour), y::2, x::2]
        np.testing.assert_allclose(even, {"R": 20000, "G": 40000, "B": 30000}[colour], rtol=2e-4)


@pytest.mark.parametrize("area", [(0, 0, 0, 0), (0, 0, 0, 80), (0, 0, 64, 0), (0, 0, 64)])
def test_an_active_area_that_is_none_is_not_taken(tmp_path: Path, area: tuple[int, ...]) -> None:
    content = opcodes(gain_map(np.full((2, 2), 2.0), area=(0, 0, 64, 80)))
    tags = [*bayer_tags(), (50829, 4, len(area), area, True), (51009, 7, len(content), content, True)]
    raw = read_raw(cfa_dng(tmp_path / "a.dng", np.full((64, 80), 1000, np.uint16), tags))
    assert raw.shading is not None and (raw.shading.gains == 2).all()
    assert raw.metadata["model"] == "Test"  # other tags are read all the same
