"""Colour filter arrays: Bayer phases, packing a mosaic into planes and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BAYER_PHASES = ("RGGB", "GRBG", "GBRG", "BGGR")
XTRANS = "XTRANS"


@dataclass(frozen=True)
class Alignment:
    """How many rows and columns were added so that a mosaic starts at an R of RGGB and has even sides.

    The border is mirrored about its edge pixel (reflect-101), which keeps every added pixel in its own colour. Cropping
    to the first R would do the same without invented pixels but loses a row or column of the photo, so that input and
    output differ in size; a mirrored pixel is only ever seen by the network's halo and cropped away again.

    Attributes:
        top, left, bottom, right: 0 or 1 added rows or columns.
    """

    top: int
    left: int
    bottom: int
    right: int

    def pad(self, mosaic: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Add the border to a (H, W) mosaic; the mosaic itself where there is none to add."""
        if not (self.top or self.left or self.bottom or self.right):
            return mosaic
        return np.pad(mosaic, ((self.top, self.bottom), (self.left, self.right)), mode="reflect")

    def crop(self, image: Any) -> Any:
        """Take the border off an array or tensor whose last two axes are height and width, e.g. (3, H, W)."""
        height, width = image.shape[-2:]
        return image[..., self.top : height - self.bottom, self.left : width - self.right]


def alignment(shape: tuple[int, int], cfa: str) -> Alignment:
    """The border that a mosaic of ``shape`` (H, W) and phase ``cfa`` needs.

    Raises:
        ValueError: the mosaic is thinner than 2 pixels, or ``cfa`` is not a Bayer phase.
    """
    if min(shape) < 2 or cfa not in BAYER_PHASES:
        raise ValueError(f"needs at least 2x2 pixels in one of {', '.join(BAYER_PHASES)}, not {shape}, {cfa}")
    top, left = divmod(cfa.index("R"), 2)
    return Alignment(top, left, (shape[0] + top) % 2, (shape[1] + left) % 2)


def pack(mosaic: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(2h, 2w) mosaic -> (4, h, w) planes by position; R, G1, G2, B when its phase is RGGB."""
    return np.stack([mosaic[0::2, 0::2], mosaic[0::2, 1::2], mosaic[1::2, 0::2], mosaic[1::2, 1::2]])


def unpack(planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(4, h, w) planes -> (2h, 2w) mosaic, the inverse of :func:`pack`."""
    (mosaic,) = depth_to_space(planes)
    return np.asarray(mosaic)


def depth_to_space(planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(c * 4, h, w) -> (c, 2h, 2w), channel order ``c * 4 + dy * 2 + dx`` as in ``torch.pixel_shuffle``."""
    channels, h, w = planes.shape
    split = planes.reshape(channels // 4, 2, 2, h, w).transpose(0, 3, 1, 4, 2)
    return split.reshape(channels // 4, 2 * h, 2 * w)
