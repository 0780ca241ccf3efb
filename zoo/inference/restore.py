"""A raw photo through the network: white-balanced linear RGB in bands from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from zoo.errors import ZooError
from zoo.inference.runner import TileRunner
from zoo.inference.tiling import Band, TileGrid, mirror, plan
from zoo.models import contract
from zoo.models.registry import ModelSpec
from zoo.raw import XTRANS, RawImage, alignment, pack, vst
from zoo.raw.image import Quad, normalise

Progress = Callable[[int, int], None]  # tiles done, tiles in all


def restore(
    raw: RawImage,
    runner: TileRunner,
    spec: ModelSpec,
    *,
    tile: int | None = None,
    noise_scale: float = 1.0,
    progress: Progress | None = None,
) -> Iterator[Band]:
    """Denoise and demosaic a photo.

    Only one row of tiles exists in float at a time: memory does not grow with the photo's height.

    Args:
        raw: Bayer, any phase, any size from 2x2.
        runner: runs the network.
        spec: of the network that the runner runs.
        tile: packed side of the tiles, see :func:`zoo.inference.tiling.plan`.
        noise_scale: > 0; the network is told that the noise is this many times stronger (standard deviation) than the
            photo's profile says: above 1 smooths more, below 1 keeps more.
        progress: called after every tile.

    Returns:
        Bands from top to bottom that together have exactly the mosaic's height and width.

    Raises:
        ZooError: no Bayer mosaic, too small, a tile that does not fit; while iterating: values that are not finite.
    """
    if raw.cfa == XTRANS:
        raise ZooError(f"{raw.path}: X-Trans, which {spec.name} cannot take; use the raw of a Bayer camera")
    height, width = raw.mosaic.shape
    if min(height, width) < 2:
        raise ZooError(f"{raw.path}: {height}x{width} pixels are no Bayer picture; at least 2x2 are needed")
    if not 0 < noise_scale < float("inf"):
        raise ZooError(f"the noise scale is a number above 0, not {noise_scale:g}")
    border = alignment((height, width), raw.cfa)
    aligned_height, aligned_width = height + border.top + border.bottom, width + border.left + border.right
    grid = plan(spec, aligned_height // 2, aligned_width // 2, tile, runner.tile)
    return _bands(raw, runner, grid, border.top, border.left, noise_scale, progress)


def _bands(
    raw: RawImage,
    runner: TileRunner,
    grid: TileGrid,
    top: int,
    left: int,
    noise_scale: float,
    progress: Progress | None,
) -> Iterator[Band]:
    """Rows of tiles; ``top`` and ``left`` are the rows and columns by which the first R lies before the mosaic."""
    height, width = raw.mosaic.shape
    step = 2 * grid.core  # sensor pixels from here on
    noise = raw.noise.balanced(raw.wb)
    shot = torch.tensor([noise.shot]) * noise_scale**2
    read = torch.tensor([noise.read]) * noise_scale**2
    gains = np.array([raw.wb[0], raw.wb[1], raw.wb[1], raw.wb[2]], np.float32)[:, None, None]
    black, white = _shifted(raw.black, top, left), _shifted(raw.white, top, left)

    def indices(number: int, offset: int, size: int) -> npt.NDArray[np.intp]:
        start = number * step - 2 * grid.margin - offset
        return mirror(start, start + 2 * grid.tile, size)

    for row in range(grid.rows):
        # Where the cores of this row of tiles lie in the mosaic: the alignment's border falls off here.
        y0, y1 = max(row * step - top, 0), min((row + 1) * step - top, height)
        band = np.empty((3, y1 - y0, width), np.float32)
        for column in range(grid.columns):
            x0, x1 = max(column * step - left, 0), min((column + 1) * step - left, width)
            part = raw.mosaic[np.ix_(indices(row, top, height), indices(column, left, width))]
            core = _run(pack(normalise(part, black, white)) * gains, shot, read, runner, grid.margin)
            dy, dx = y0 + top - row * step, x0 + left - column * step
            band[:, :, x0:x1] = core[:, dy : dy + y1 - y0, dx : dx + x1 - x0]
            if progress is not None:
                progress(row * grid.columns + column + 1, grid.rows * grid.columns)
        yield Band(y0, band)


@torch.inference_mode()
def _run(
    planes: npt.NDArray[np.float32], shot: torch.Tensor, read: torch.Tensor, runner: TileRunner, margin: int
) -> npt.NDArray[np.float32]:
    """One balanced tile, (4, t, t), to the RGB of its core, (3, 2 * core, 2 * core)."""
    x = contract.encode(torch.from_numpy(planes)[None], shot, read)
    correction = runner(x.numpy())
    if not np.isfinite(correction).all():
        raise ZooError(f"the {runner.precision} network gave values that are not finite ({runner.target}); use fp32")
    # This is contract.decode for the core alone, with the linear demosaic's sums in float64: they are exact there, so
    # they do not depend on the order of summation, which convolutions in float32 choose by the size of the tile.
    # Without it tilings differ in the last bit; it costs 0.01 s/MP.
    reach = contract.BASELINE_HALO
    around = slice(margin - reach, x.shape[-1] - margin + reach)
    linear = contract.linear_demosaic(x[:, :4, around, around].double()).float()[..., reach:-reach, reach:-reach]
    core = slice(margin, x.shape[-1] - margin)
    stabilised = linear + contract.expand(torch.from_numpy(correction[..., core, core]), shot, read)
    return F.pixel_shuffle(vst.inverse(stabilised, contract.curve_offset(shot, read)), 2)[0].numpy()


def _shifted(levels: Quad, top: int, left: int) -> Quad:
    """Levels by position at the mosaic's corner -> by position in a block that starts ``top``, ``left`` before it."""
    a, b, c, d = (levels[(y + top) % 2 * 2 + (x + left) % 2] for y in range(2) for x in range(2))
    return a, b, c, d
