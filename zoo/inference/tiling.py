"""Exact tiling: where tiles lie, so that their outputs put together equal that of one tile over the whole frame.

An output pixel depends on inputs up to ``halo`` packed pixels away, and on its position modulo the network's total
stride. So tiles start at multiples of the stride, only their core (the tile less a margin >= halo on each side) is
kept, and cores are laid side by side. The first core starts at the frame's corner, so its margin lies outside the
frame; pixels there are mirrored ones, in every tiling the same. No zero that the network pads with reaches a core, and
nothing is blended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.models.registry import ModelSpec

DEFAULT_TILE = 512  # packed side where the runtime leaves the choice: larger wastes less margin but holds more memory


class Band(NamedTuple):
    """Full-width rows of a restored photo.

    Attributes:
        y0: first sensor row.
        rgb: float32 (3, rows, W), white-balanced linear camera RGB, black = 0, white = 1 x gain; not clipped.
    """

    y0: int
    rgb: npt.NDArray[np.float32]


@dataclass(frozen=True)
class TileGrid:
    """Tiles over a packed frame; all lengths in packed pixels.

    Attributes:
        height, width: of the frame.
        tile: side of a tile.
        margin: what a tile has around its core on each side.
    """

    height: int
    width: int
    tile: int
    margin: int

    @property
    def core(self) -> int:
        """Side of what a tile contributes, and the step from tile to tile."""
        return self.tile - 2 * self.margin

    @property
    def rows(self) -> int:
        """Number of tiles from top to bottom."""
        return -(-self.height // self.core)

    @property
    def columns(self) -> int:
        """Number of tiles from left to right."""
        return -(-self.width // self.core)


def plan(spec: ModelSpec, height: int, width: int, tile: int | None = None, fixed: int | None = None) -> TileGrid:
    """Lay tiles over a frame.

    Args:
        spec: of the network.
        height, width: of the frame, packed pixels.
        tile: wished side in packed pixels; None for ``fixed``, else :data:`DEFAULT_TILE` or four margins, whichever is more
            (a quarter of each tile is then kept at least), or less for a small frame.
        fixed: the only side that the runtime takes; None for any.

    Raises:
        ZooError: a tile that is no multiple of the network's stride, leaves no core, or is not the runtime's.
    """
    step = spec.tile_multiple
    margin = spec.margin
    if fixed is not None and tile not in (None, fixed):
        raise ZooError(f"tile {tile} does not fit: this file of {spec.name} was exported for {fixed}; leave --tile out")
    side = fixed or tile
    if side is None:
        side = min(_round_up(max(DEFAULT_TILE, 4 * margin), step), _round_up(max(height, width), step) + 2 * margin)
        side = max(side, 2 * margin + step)
    if side % step or side <= 2 * margin:
        raise ZooError(
            f"tile {side} does not fit {spec.name}: it takes multiples of {step} from {2 * margin + step}"
            f" (packed pixels), e.g. {max(_round_up(DEFAULT_TILE, step), 4 * margin)}"
        )
    return TileGrid(height, width, side, margin)


def mirror(start: int, stop: int, size: int) -> npt.NDArray[np.intp]:
    """Indices start..stop-1 of an axis of ``size`` >= 2, those outside mirrored about the end pixels (reflect-101).

    Applied to *sensor* rows and columns: mirroring about a pixel moves an index by an even number, so every mirrored
    pixel keeps its colour. (On packed planes the same is reflect-101 for the planes of a cell's first row or column,
    and symmetric for those of its second: row -1 is row 1, which lies in the first cell.) Reaches of more than ``size``
    are mirrored again at the other end.
    """
    period = 2 * (size - 1)
    folded = np.arange(start, stop) % period
    return np.where(folded < size, folded, period - folded)


def mirror_xtrans(start: int, stop: int, size: int, phase: int, centre: int) -> npt.NDArray[np.intp]:
    """Indices start..stop-1 of an axis of an X-Trans mosaic, those outside mirrored so that every pixel keeps its colour.

    The pattern is symmetric about every third row and every third column only, so the mirror stands at the outermost of
    these rather than at the border: up to two rows or columns at the border are not repeated.

    Args:
        size: of the axis, at least 6.
        phase: position in the pattern of index 0.
        centre: position in the pattern, modulo 3, that it is symmetric about: 0 along rows, 2 along columns.
    """
    first = (centre - phase) % 3
    last = size - 1 - (phase + size - 1 - centre) % 3
    indices = np.arange(start, stop)
    period = 2 * (last - first)
    folded = (indices - first) % period
    mirrored = first + np.where(folded <= last - first, folded, period - folded)
    return np.where((indices >= 0) & (indices < size), indices, mirrored)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
