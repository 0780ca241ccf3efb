from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.codec.tiles import Box, Tiles

LAYOUTS = st.builds(
    lambda height, width, stride, core: Tiles(2 * height, 2 * width, 2 * stride, core),
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(1, 7),
)  # fmt: skip


@given(LAYOUTS)
def test_tiles_cover_every_position_and_pixel_once(tiles: Tiles) -> None:
    positions = np.zeros(tiles.grid.shape, int)
    pixels = np.zeros((tiles.height, tiles.width), int)
    for tile in range(tiles.count):
        positions[tiles.box(tile).slices] += 1
        pixels[tiles.pixels(tile).slices] += 1
    assert (positions == 1).all()
    assert (pixels == 1).all()
    assert tiles.grid.y1 * tiles.stride >= tiles.height > (tiles.grid.y1 - 1) * tiles.stride


@given(LAYOUTS, st.integers(-9, 70), st.integers(-9, 70), st.integers(0, 30), st.integers(0, 30))
def test_over_names_exactly_the_tiles_that_share_a_position(tiles: Tiles, y: int, x: int, h: int, w: int) -> None:
    box = Box(y, x, y + h, x + w)
    assert tiles.over(box) == [tile for tile in range(tiles.count) if tiles.box(tile).meet(box)]


@settings(deadline=None)
@given(LAYOUTS, st.integers(0, 5), st.data())
def test_windows_repeat_the_edge(tiles: Tiles, halo: int, data: st.DataObject) -> None:
    whole = np.arange(2 * tiles.grid.y1 * tiles.grid.x1).reshape(2, *tiles.grid.shape).astype(np.int16)
    side = data.draw(st.integers(1, tiles.largest))
    pad = side + halo
    padded = np.pad(whole, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    cell = data.draw(st.sampled_from(tiles.cells(side)))
    window = Box(cell.y0, cell.x0, cell.y0 + side, cell.x0 + side).grow(halo)
    got = tiles.gather(window, window, 2, lambda t: whole[:, *tiles.box(t).slices])
    np.testing.assert_array_equal(got, padded[:, *window.move(pad, pad).slices])
    part = Box(window.y0 + halo, window.x0 + halo, window.y0 + halo + 1, window.x1)
    got = tiles.gather(window, part, 2, lambda t: whole[:, *tiles.box(t).slices])
    np.testing.assert_array_equal(got[:, halo, halo:], padded[:, *part.move(pad, pad).slices][:, 0])


@given(LAYOUTS, st.integers(1, 40))
def test_cells_divide_the_tiles_row_by_row(tiles: Tiles, side: int) -> None:
    cells = tiles.cells(side)
    counted = np.zeros(tiles.grid.shape, int)
    for cell in cells:
        counted[cell.slices] += 1
        assert max(cell.shape) <= side
        assert len(tiles.over(cell)) == 1
    assert (counted == 1).all()
    assert cells == sorted(cells, key=lambda c: (c.y0, c.x0))
    if side >= tiles.largest:
        assert len(cells) == tiles.count


def test_the_largest_tile_is_no_larger_than_the_photo() -> None:
    assert Tiles(2, 2, 16, 64).largest == 1
    assert Tiles(100, 2000, 16, 64).largest == 64


def test_boxes_of_numpy_integers_are_boxes() -> None:
    assert bool(Box(*np.array([0, 0, 2, 3]))) is True


def test_positions_cover_pixels_tightly() -> None:
    tiles = Tiles(100, 100, 8, 4)
    assert tiles.positions(Box(8, 7, 16, 17)) == Box(1, 0, 2, 3)


def test_what_does_not_exist() -> None:
    tiles = Tiles(64, 32, 8, 4)
    assert (tiles.rows, tiles.columns, tiles.count) == (2, 1, 2)
    for wrong in (-1, 2):
        with pytest.raises(IndexError):
            tiles.box(wrong)
    with pytest.raises(ValueError, match="outside"):
        tiles.gather(Box(7, 0, 9, 1), Box(8, 0, 9, 1), 1, lambda t: np.zeros((1, 4, 4), np.int16))
    assert not Box(0, 0, 4, 4).meet(Box(4, 0, 5, 4))
    assert Box(2, 2, 1, 5).shape == (0, 0)
