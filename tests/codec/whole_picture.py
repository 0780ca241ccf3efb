"""Decoding in one piece, for tests: the product takes a picture in bands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zoo.codec import Box, EntropyTables, Stream, pieces
from zoo.codec.stream import Progress, Synthesise


def decompress(
    stream: Stream,
    tables: EntropyTables,
    synthesise: Synthesise,
    *,
    halo: int,
    rect: Box | None = None,
    salvage: bool = False,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A photo, or a rectangle of it, in one piece: 12 bytes of float a pixel. Arguments as of :func:`pieces`.

    Returns:
        rgb: float32 (3, H, W) of the mosaic's size or the rectangle's.
        whole: bool (H, W).

    Raises:
        ZooError: see :func:`pieces`.
    """
    parts = pieces(stream, tables, synthesise, halo=halo, rect=rect, salvage=salvage, progress=progress)
    area = rect or Box(0, 0, stream.header.height, stream.header.width)
    rgb, whole = np.empty((3, *area.shape), np.float32), np.empty(area.shape, bool)
    for part in parts:
        to = part.box.move(-area.y0, -area.x0).slices
        rgb[:, *to], whole[to] = part.rgb, part.whole
    return rgb, whole
