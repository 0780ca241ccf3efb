"""What is measured, on what, and what comes out of it: the words that the benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.evaluation.metrics import MS_SSIM_SMALLEST
from zoo.raw.cfa import alignment

Array = npt.NDArray[np.float32]
Triple = tuple[float, float, float]

# Pixels left out on each side: what a method makes of the missing neighbours there is not what is measured.
BORDER = 16
SMALLEST = 2 * BORDER + MS_SSIM_SMALLEST  # pixels each way that a picture needs to be scored


class Method(Protocol):
    """What is measured: raw in, linear picture out."""

    def __call__(self, mosaic: Array, wb: Sequence[float], shot: Sequence[float], read: Sequence[float]) -> Array:
        """RGGB float32 ``[H, W]`` in raw units, gains, S and O of R, G, B -> balanced float32 ``[3, H, W]``."""


@dataclass(frozen=True)
class Picture:
    """One thing to score a method on: a file, or a frame of one.

    Attributes:
        path: the file.
        set: benchmark set that it belongs to.
        frame: which frame of a file that holds several; None for a file that is one picture.
    """

    path: Path
    set: str
    frame: int | None = None

    @property
    def name(self) -> str:
        """The file's without suffix, with the frame: what noise is seeded by and evidence is filed under."""
        return self.path.stem if self.frame is None else f"{self.path.stem}-{self.frame}"


@dataclass(frozen=True)
class Scores:
    """What one method scored on one picture.

    Attributes:
        values: one number per metric of the benchmark, see :data:`zoo.evaluation.benchmarks.BENCHMARKS`.
        seconds: CPU time of the process, all its threads: what else a machine does does not count.
        megapixels: of the mosaic, in 1e6 sensor pixels.
    """

    values: dict[str, float]
    seconds: float
    megapixels: float


def run(
    method: Method,
    mosaic: Array,
    wb: Sequence[float],
    shot: Sequence[float],
    read: Sequence[float],
    cfa: str = "RGGB",
) -> tuple[Array, float]:
    """Run a method on a mosaic of any Bayer phase.

    Another phase than RGGB gets a mirrored row or column before the first R, which is cut off the result again.

    Args:
        mosaic: float32 ``[H, W]``, black = 0, white = 1.
        wb: gains R, G, B.
        shot, read: S and O of R, G, B in ``var = S*x + O``, units of ``mosaic``.
        cfa: the mosaic's phase.

    Returns:
        What the method made, float32 ``[3, H, W]``, and the seconds that it took.

    Raises:
        ZooError: the method returns another shape or values that are not finite.
    """
    border = alignment((mosaic.shape[0], mosaic.shape[1]), cfa)
    # RGGB goes in as it is, odd sides included: methods take them, and an added row would be work for nothing.
    padded = mosaic if cfa == "RGGB" else np.ascontiguousarray(border.pad(mosaic))
    begun = time.process_time()
    result = method(padded, wb, shot, read)
    seconds = time.process_time() - begun
    height, width = padded.shape
    if result.shape != (3, height, width) or not np.isfinite(result).all():
        raise ZooError(f"the method returned {list(result.shape)} or non-finite values for a raw of {height}x{width}")
    return (result if cfa == "RGGB" else border.crop(result)), seconds


def inner(height: int, width: int) -> tuple[slice, slice]:
    """The part that is scored: all but :data:`BORDER` pixels on each side.

    Raises:
        ZooError: the picture is too small to be scored.
    """
    if min(height, width) < SMALLEST:
        raise ZooError(f"a picture of {width}x{height} is too small to be scored; it needs {SMALLEST} pixels each way")
    return slice(BORDER, height - BORDER), slice(BORDER, width - BORDER)
