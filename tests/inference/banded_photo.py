"""A picture in the bands that photos are restored in, and the camera that it is of."""

from __future__ import annotations

import numpy as np

from zoo.inference.tiling import Band
from zoo.raw.colour import SRGB_TO_XYZ

CAMERA = np.linalg.inv(SRGB_TO_XYZ) * [[0.5], [1.0], [0.7]]  # whose filters are sRGB's with weak red and blue


def bands_of(rgb, rows=70):
    return (Band(y, rgb[:, y : y + rows]) for y in range(0, rgb.shape[1], rows))
