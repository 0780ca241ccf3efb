"""From balanced camera RGB to a picture: matrix, transfer curve, orientation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Linear sRGB to XYZ with white D65 (IEC 61966-2-1:1999, table 1 and its inverse).
SRGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
D65 = SRGB_TO_XYZ.sum(axis=1)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def camera_to_srgb_matrix(
    xyz_to_cam: npt.NDArray[np.floating[Any]] | None, wb: Sequence[float]
) -> npt.NDArray[np.float32]:
    """The (3, 3) matrix from white-balanced linear camera RGB to linear sRGB; each row sums to 1, so white stays white.

    Follows the DNG specification ("Mapping camera color space to CIE XYZ space", no forward matrix): the neutral 1/wb
    gives the scene's white, Bradford adaptation takes it to D65. For the gains of D65 itself this is exactly dcraw's
    matrix, and dcraw's is used where the gains point to no plausible white, e.g. grey-world gains of a red wall.

    Args:
        xyz_to_cam: DNG ColorMatrix-style matrix (XYZ, D65 -> unbalanced camera RGB), or None: the identity is returned.
        wb: gains R, G, B that the camera RGB was multiplied by.
    """
    if xyz_to_cam is None:
        return np.eye(3, dtype=np.float32)
    matrix = np.asarray(xyz_to_cam, np.float64)
    cam_to_xyz = np.linalg.inv(matrix)
    neutral = 1 / np.asarray(wb, np.float64)
    white = cam_to_xyz @ neutral
    cone_ratio = (_BRADFORD @ D65) / (_BRADFORD @ (white / white[1]))
    # Light sources from a blue sky (20,000 K: 1.1, 0.9, 0.7) over tungsten (0.8, 1.2, 3.2) to sunrise (0.7, 1.3, 6).
    if (cone_ratio < (0.6, 0.7, 0.4)).any() or (cone_ratio > (1.4, 1.5, 8)).any():
        neutral, cone_ratio = matrix @ D65, np.ones(3)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(cone_ratio) @ _BRADFORD
    result = np.linalg.inv(SRGB_TO_XYZ) @ adaptation @ cam_to_xyz @ np.diag(neutral)
    return np.asarray(result / result.sum(axis=1, keepdims=True), np.float32)


def srgb_encode(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Linear light to sRGB values (IEC 61966-2-1). Not clipped: negatives follow the linear part, above 1 the power."""
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def srgb_decode(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """sRGB values to linear light, the inverse of :func:`srgb_encode`."""
    return np.where(x <= 0.04045, x / 12.92, ((np.maximum(x, 0.04045) + 0.055) / 1.055) ** 2.4)


def apply_orientation(image: npt.NDArray[Any], exif: int) -> npt.NDArray[Any]:
    """Turn a stored (H, W, ...) image the way it is to be seen (EXIF Orientation, tag 274, 1..8).

    Raises:
        ValueError: ``exif`` is not 1..8.
    """
    if exif not in range(1, 9):
        raise ValueError(f"EXIF orientation is 1..8, not {exif}")
    if exif >= 5:
        image = image.swapaxes(0, 1)
    if exif in (3, 4, 7, 8):
        image = image[::-1]
    if exif in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image
