"""Where a photo's tiles lie: index arithmetic only.

The latents of a photo form one grid, one position per ``stride`` x ``stride`` sensor pixels, and are divided, without
overlap, into square tiles that are coded by themselves. A decoder network looks ``halo`` positions beyond the pixels it
makes, so it is fed a *window*: a tile and ``halo`` positions around it, out of as many neighbours as that takes. What lies
beyond the grid repeats its edge. All windows of a photo have one size (a phone's runtime takes no other), smaller than a tile's
where a decoder is, and the picture does not depend on which windows it was made of.

Sensor pixels here are those of the *aligned* mosaic, which starts at an R of RGGB and has even sides
(:func:`zoo.raw.alignment`). Boxes are half open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_CORE = 128  # positions; bounds what one tile can allocate
MAX_STRIDE = 256  # sensor pixels


class Box(NamedTuple):
    """Rows y0..y1-1, columns x0..x1-1."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, (0, 0) if it is empty."""
        return (self.y1 - self.y0, self.x1 - self.x0) if self else (0, 0)

    def __bool__(self) -> bool:
        return bool(self.y1 > self.y0 and self.x1 > self.x0)

    def grow(self, margin: int) -> Box:
        """With ``margin`` more on each side."""
        return Box(self.y0 - margin, self.x0 - margin, self.y1 + margin, self.x1 + margin)

    def meet(self, other: Box) -> Box:
        """What both share; empty (false) if nothing."""
        return Box(max(self.y0, other.y0), max(self.x0, other.x0), min(self.y1, other.y1), min(self.x1, other.x1))

    def scale(self, factor: int) -> Box:
        """In units ``factor`` times as fine."""
        return Box(self.y0 * factor, self.x0 * factor, self.y1 * factor, self.x1 * factor)

    def move(self, dy: int, dx: int) -> Box:
        """``dy`` rows down and ``dx`` columns to the right."""
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    @property
    def slices(self) -> tuple[slice, slice]:
        """To index the last two axes of an array: ``array[..., *box.slices]``."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True)
class Tiles:
    """The tiles of a photo, counted row by row from the top left.

    Attributes:
        height, width: of the aligned mosaic, sensor pixels.
        stride: sensor pixels per position, each way.
        core: side of a tile in positions; those at the right and bottom may be smaller.
    """

    height: int
    width: int
    stride: int
    core: int

    @property
    def grid(self) -> Box:
        """All positions; the last row and column may reach beyond the mosaic."""
        return Box(0, 0, -(-self.height // self.stride), -(-self.width // self.stride))

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.grid.y1 // self.core)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.grid.x1 // self.core)

    @property
    def count(self) -> int:
        """Tiles in all."""
        return self.rows * self.columns

    def box(self, tile: int) -> Box:
        """A tile's positions.

        Raises:
            IndexError: no such tile.
        """
        if not 0 <= tile < self.count:
            raise IndexError(f"tile {tile} of {self.count}")
        row, column = divmod(tile, self.columns)
        return Box(0, 0, self.core, self.core).move(row * self.core, column * self.core).meet(self.grid)

    def pixels(self, tile: int) -> Box:
        """A tile's sensor pixels inside the aligned mosaic."""
        return self.box(tile).scale(self.stride).meet(Box(0, 0, self.height, self.width))

    def over(self, box: Box) -> list[int]:
        """The tiles that share a position with ``box`` (positions; may reach beyond the grid), in order."""
        inside = box.meet(self.grid)
        if not inside:
            return []
        rows = range(inside.y0 // self.core, (inside.y1 - 1) // self.core + 1)
        columns = range(inside.x0 // self.core, (inside.x1 - 1) // self.core + 1)
        return [row * self.columns + column for row in rows for column in columns]

    def positions(self, pixels: Box) -> Box:
        """The smallest box of positions that covers ``pixels`` (sensor pixels of the aligned mosaic)."""
        s = self.stride
        return Box(pixels.y0 // s, pixels.x0 // s, -(-pixels.y1 // s), -(-pixels.x1 // s))

    def cells(self, side: int) -> list[Box]:
        """All positions in squares of at most ``side`` each way, row by row; none reaches over the border of two tiles."""

        def cuts(size: int) -> list[tuple[int, int]]:
            starts = [s for tile in range(0, size, self.core) for s in range(tile, min(tile + self.core, size), side)]
            return list(zip(starts, [*starts[1:], size], strict=True))

        return [Box(y0, x0, y1, x1) for y0, y1 in cuts(self.grid.y1) for x0, x1 in cuts(self.grid.x1)]

    @property
    def largest(self) -> int:
        """Side of the largest tile: ``core``, or less where the photo is smaller than that both ways.

        A header of 345 bytes may name tiles of 64 positions for a photo of one.
        """
        return min(self.core, max(self.grid.y1, self.grid.x1))

    def gather(
        self, box: Box, needed: Box, channels: int, read: Callable[[int], npt.NDArray[np.int16]]
    ) -> npt.NDArray[np.int16]:
        """The latents of a box, out of the tiles it lies over.

        Args:
            box: positions.
            needed: the part of it that matters; beyond this and beyond the grid, the edge is repeated.
            channels: C.
            read: from a tile's number to its int16 [C, h, w].

        Returns:
            int16 [C, rows, columns] of the box.

        Raises:
            ValueError: what is needed shares nothing with the grid.
        """
        inside = box.meet(needed).meet(self.grid)
        if not inside:
            raise ValueError(f"{box} lies outside {self.grid}")
        out = np.empty((channels, *inside.shape), np.int16)
        for tile in self.over(inside):
            own = self.box(tile)
            part = own.meet(inside)
            to, source = part.move(-inside.y0, -inside.x0), part.move(-own.y0, -own.x0)
            out[:, *to.slices] = read(tile)[:, *source.slices]
        rows = np.clip(np.arange(box.y0, box.y1), inside.y0, inside.y1 - 1) - inside.y0
        columns = np.clip(np.arange(box.x0, box.x1), inside.x0, inside.x1 - 1) - inside.x0
        return out if inside == box else out[:, rows[:, None], columns]
