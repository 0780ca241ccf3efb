"""A raw photo through the network: white-balanced linear RGB in bands from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from zoo.errors import ZooError
from zoo.inference.runner import TileRunner, torch_beside
from zoo.inference.tiling import Band, TileGrid, mirror, mirror_xtrans, plan
from zoo.models.contracts import Contract, get_contract
from zoo.models.contracts.cfa_masks import RGGB, colours
from zoo.models.registry import ModelSpec
from zoo.raw import XTRANS, RawImage, alignment, pack
from zoo.raw.image import Quad, normalise

MOST_TILE = 4096  # packed side that may be asked for: a small network holds some 2 GB for each of its layers then
Progress = Callable[[int, int], None]  # tiles done, tiles in all
XTRANS_PHASE = "xtrans_phase"  # of a RawImage's metadata: 6 * row + column in the pattern of the mosaic's first pixel


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
        raw: Bayer, any phase, any size from 2x2. X-Trans from 6x6 if the network's contract takes it and the photo's metadata
            hold :data:`XTRANS_PHASE`.
        runner: runs the network.
        spec: of the network that the runner runs.
        tile: packed side of the tiles, see :func:`zoo.inference.tiling.plan`; :data:`MOST_TILE` at most.
        noise_scale: > 0; the network is told that the noise is this many times stronger (standard deviation) than the
            photo's profile says: above 1 smooths more, below 1 keeps more.
        progress: called after every tile.

    Returns:
        Bands from top to bottom that together have exactly the mosaic's height and width.

    Raises:
        ZooError: a mosaic that the network does not take, too small, a tile that does not fit; while iterating: values that
            are not finite.
    """
    if not 0 < noise_scale < float("inf"):
        raise ZooError(f"the noise scale is a number above 0, not {noise_scale:g}")
    check_tile(tile)
    frame = _frame_of(raw, spec)
    grid = plan(spec, -(-frame.height // 2), -(-frame.width // 2), tile, runner.tile)
    return _bands(raw, runner, spec, grid, frame, noise_scale, progress)


def check_tile(tile: int | None) -> None:
    """Refuse a tile that no memory holds; whether it fits the network is for :func:`zoo.inference.tiling.plan`.

    Raises:
        ZooError: above :data:`MOST_TILE`.
    """
    if tile is not None and tile > MOST_TILE:
        raise ZooError(f"tile {tile} is too large: {MOST_TILE} packed pixels or less, e.g. 512")


@dataclass(frozen=True)
class _Frame:
    """The mosaic as the network sees it: from the first pixel of its pattern on, with even sides.

    Attributes:
        top, left: rows and columns by which it starts before the mosaic.
        height, width: in sensor pixels.
        cfa: ``"RGGB"`` or ``"XTRANS"``.
    """

    top: int
    left: int
    height: int
    width: int
    cfa: str

    def indices(self, start: int, stop: int, size: int, *, row: bool) -> npt.NDArray[np.intp]:
        """Rows (else columns) of the mosaic that the frame's start..stop-1 hold."""
        offset = self.top if row else self.left
        if self.cfa == XTRANS:
            return mirror_xtrans(start - offset, stop - offset, size, offset, 0 if row else 2)
        return mirror(start - offset, stop - offset, size)


def _frame_of(raw: RawImage, spec: ModelSpec) -> _Frame:
    height, width = raw.mosaic.shape
    least, kind = (6, "X-Trans") if raw.cfa == XTRANS else (2, "Bayer")
    if min(height, width) < least:
        raise ZooError(
            f"{raw.path}: {height}x{width} pixels are no {kind} picture; at least {least}x{least} are needed"
        )
    if raw.cfa == XTRANS:
        if get_contract(spec.contract).cfa != "any":
            raise ZooError(
                f"{raw.path}: X-Trans, which {spec.name} cannot take (contract {spec.contract}); "
                "use the raw of a Bayer camera"
            )
        phase = raw.metadata.get(XTRANS_PHASE)
        if not isinstance(phase, int) or not 0 <= phase < 36:
            raise ZooError(f"{raw.path}: X-Trans, and its reader does not say at which phase; use a Bayer raw")
        top, left = divmod(phase, 6)
        return _Frame(top, left, top + height, left + width, XTRANS)
    border = alignment((height, width), raw.cfa)
    return _Frame(
        border.top, border.left, height + border.top + border.bottom, width + border.left + border.right, RGGB
    )


def _bands(
    raw: RawImage,
    runner: TileRunner,
    spec: ModelSpec,
    grid: TileGrid,
    frame: _Frame,
    noise_scale: float,
    progress: Progress | None,
) -> Iterator[Band]:
    height, width = raw.mosaic.shape
    step = 2 * grid.core  # sensor pixels from here on
    noise = raw.noise.balanced(raw.wb)
    told = (
        torch.tensor([noise.shot]) * noise_scale**2,
        torch.tensor([noise.read]) * noise_scale**2,
        torch.tensor([raw.wb]),
    )
    gains = packed_gains(raw.wb, 2 * grid.tile, frame.cfa)
    black, white = (_shifted(levels, frame.top, frame.left) for levels in (raw.black, raw.white))
    contract = get_contract(spec.contract)

    def indices(number: int, size: int, *, row: bool) -> npt.NDArray[np.intp]:
        start = number * step - 2 * grid.margin
        return frame.indices(start, start + 2 * grid.tile, size, row=row)

    with torch_beside(runner):
        for row in range(grid.rows):
            # Where the cores of this row of tiles lie in the mosaic: the alignment's border falls off here.
            y0, y1 = max(row * step - frame.top, 0), min((row + 1) * step - frame.top, height)
            band = np.empty((3, y1 - y0, width), np.float32)
            for column in range(grid.columns):
                x0, x1 = max(column * step - frame.left, 0), min((column + 1) * step - frame.left, width)
                part = raw.mosaic[np.ix_(indices(row, height, row=True), indices(column, width, row=False))]
                planes = pack(normalise(part, black, white)) * gains
                core = run_tile(contract, planes, *told, runner, spec, grid.margin, frame.cfa)
                dy, dx = y0 + frame.top - row * step, x0 + frame.left - column * step
                band[:, :, x0:x1] = core[:, dy : dy + y1 - y0, dx : dx + x1 - x0]
                if progress is not None:
                    progress(row * grid.columns + column + 1, grid.rows * grid.columns)
            yield Band(y0, band)


def bayer_tile(raw: RawImage, y0: int, x0: int, side: int) -> npt.NDArray[np.float32]:
    """Balanced planes of a tile of a Bayer mosaic, float32 (4, side, side), mirrored beyond the mosaic's border.

    Args:
        raw: Bayer, any phase, at least 2x2.
        y0, x0: of the tile in the aligned frame (:func:`zoo.raw.alignment`), packed pixels; may be negative.
        side: packed pixels.
    """
    height, width = raw.mosaic.shape
    border = alignment((height, width), raw.cfa)
    rows = mirror(2 * y0 - border.top, 2 * (y0 + side) - border.top, height)
    columns = mirror(2 * x0 - border.left, 2 * (x0 + side) - border.left, width)
    black, white = (_shifted(levels, border.top, border.left) for levels in (raw.black, raw.white))
    return pack(normalise(raw.mosaic[np.ix_(rows, columns)], black, white)) * packed_gains(raw.wb, 2 * side, RGGB)


@torch.inference_mode()
def run_tile(
    contract: Contract,
    planes: npt.NDArray[np.float32],
    shot: torch.Tensor,
    read: torch.Tensor,
    wb: torch.Tensor,
    runner: TileRunner,
    spec: ModelSpec,
    margin: int,
    cfa: str = RGGB,
) -> npt.NDArray[np.float32]:
    """One balanced tile, (4, h, w), to the RGB of its core, (3, 2 * (h - 2 * margin), 2 * (w - 2 * margin)).

    Args:
        contract: of the network.
        planes: packed mosaic, margin included.
        shot, read, wb: balanced noise and gains, ``[1, 3]``, see :class:`zoo.models.contracts.Contract`. A network whose task is
            demosaicing alone is told that there is no noise, as in its training.
        runner: runs the network.
        spec: of the network.
        margin: packed pixels around the core, at least the halo of the specification.
        cfa: of the planes.

    Raises:
        ZooError: values that are not finite.
    """
    if spec.task == "demosaic":
        shot, read = torch.zeros_like(shot), torch.zeros_like(read)
    x = contract.encode(torch.from_numpy(planes)[None], shot, read, wb, cfa)
    y = runner(x.numpy())
    if not np.isfinite(y).all():
        raise ZooError(f"{spec.name} gave values that are not finite ({runner.target} {runner.precision}); use fp32")
    # Decoding looks at most the contract's halo around the core; the rest of the margin has served the network.
    reach = contract.halo
    rows, columns = (slice(margin - reach, side - margin + reach) for side in x.shape[2:])
    rgb = contract.decode(x[..., rows, columns], torch.from_numpy(y[..., rows, columns]), shot, read, wb)[0].numpy()
    return rgb[:, 2 * reach : rgb.shape[1] - 2 * reach, 2 * reach : rgb.shape[2] - 2 * reach]


def packed_gains(wb: tuple[float, float, float], side: int, cfa: str) -> npt.NDArray[np.float32]:
    """White balance of every sample of a packed tile of ``side`` sensor pixels, (4, 1, 1) for RGGB, else (4, h, w)."""
    if cfa == XTRANS:
        return pack(np.array(wb, np.float32)[colours(side, side, cfa).numpy()])
    return np.array([wb[0], wb[1], wb[1], wb[2]], np.float32)[:, None, None]


def _shifted(levels: Quad, top: int, left: int) -> Quad:
    """Levels by position at the mosaic's corner -> by position in a block that starts ``top``, ``left`` before it."""
    a, b, c, d = (levels[(y + top) % 2 * 2 + (x + left) % 2] for y in range(2) for x in range(2))
    return a, b, c, d
