"""Sharpness of a method: where its response to a slanted edge falls to one half (MTF50), after ISO 12233.

One synthetic picture per noise level: a neutral edge 5 degrees off the vertical between 10 % and 40 % of white (the 4:1
contrast of ISO 12233:2017), blurred by a Gaussian of 0.5 pixels as a good lens would, through the same camera, noise
and method as the photographs of the bed. The reference's own MTF50 is 0.375 cycles per pixel.

Unlike the standard, which finds the edge in the picture, the place of the edge is known here, and used: rows full of
noise (sigma up to a quarter of the step) would be aligned a third of a pixel off, which blurs what is to be measured.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from zoo.evaluation import bed
from zoo.evaluation.method import BORDER, Array, Method, run

NAME = "slanted-edge"  # seeds the noise, as a picture's name does
SIZE = (1024, 192)  # the noise that is left in MTF50 falls with the root of the rows
SLANT = math.tan(math.radians(5))  # columns per row
DARK, BRIGHT = 0.1, 0.4  # linear sRGB
BLUR = 0.5  # pixels; MTF = exp(-2 (pi f BLUR)^2) is one half at f = sqrt(ln 2 / 2) / (pi BLUR) = 0.375

_REACH = 10  # pixels on each side of the edge that are looked at: the tail of a blur of sigma 3
_FLAT = 6  # pixels on each side that the window leaves as they are
_FINE = 4  # bins per pixel
_STEP = 0.005  # cycles per pixel between the frequencies that are looked at


def scene() -> Array:
    """The picture of the edge, sRGB-encoded float32 ``[H, W, 3]``."""
    from zoo.raw.colour import srgb_encode

    profile = 0.5 + 0.5 * erf(_distance(*SIZE) / (BLUR * math.sqrt(2)))
    grey = srgb_encode(DARK + (BRIGHT - DARK) * profile)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.float32)


def measure(method: Method, level: str) -> dict[str, float]:
    """MTF50 of a method at a noise level of the bed.

    Returns:
        ``mtf50`` in cycles per pixel, of linear luminance.

    Raises:
        ZooError: the method returns another shape or values that are not finite.
    """
    made = bed.make_scene(scene(), NAME, level)
    result, _ = run(method, made.mosaic, bed.WB_GAINS, made.shot, made.read)
    return {"mtf50": round(mtf50(np.einsum("c,chw->hw", bed.LUMINANCE, result)), 4)}


def mtf50(picture: npt.NDArray[np.floating]) -> float:
    """Where the modulation transfer of the edge in a picture of :func:`scene` falls to one half.

    The edge's profile in bins of a quarter pixel, its difference, a window and the Fourier transform's magnitude, as in
    ISO 12233; divided by what bins and differences of that width do to it. The window is flat in the middle (Tukey's),
    since the standard's Hamming window narrows soft edges: by 2 % for a blur of sigma 1, by 14 % for one of 2.5.

    Args:
        picture: linear, ``[H, W]`` of any size; the edge goes through the middle as in :func:`scene`.

    Returns:
        cycles per pixel, at most 1.
    """
    distance = _distance(*picture.shape)[BORDER:-BORDER, BORDER:-BORDER]
    bins = np.floor((distance + _REACH) * _FINE).astype(int)
    usable = (bins >= 0) & (bins < 2 * _REACH * _FINE)
    total, count = (
        np.bincount(bins[usable], weights, 2 * _REACH * _FINE)
        for weights in (picture[BORDER:-BORDER, BORDER:-BORDER][usable], None)
    )
    spread = np.diff(total / count)
    position = (np.arange(spread.size) - (spread.size - 1) / 2) / _FINE  # pixels
    beyond = np.clip((np.abs(position) - _FLAT) / (_REACH - _FLAT), 0, 1)
    spread = spread * (0.5 + 0.5 * np.cos(np.pi * beyond))
    frequency = np.arange(0, 1 + _STEP / 2, _STEP)
    response = np.abs(np.exp(-2j * np.pi * frequency[:, None] * position) @ spread)
    response /= np.sinc(frequency / _FINE) ** 2
    response /= response[0]
    below = np.flatnonzero(response < 0.5)
    if below.size == 0:
        return 1.0
    after = int(below[0])  # never 0, where the response is 1
    share = (response[after - 1] - 0.5) / (response[after - 1] - response[after])
    return float(frequency[after - 1] + share * _STEP)


def _distance(height: int, width: int) -> npt.NDArray[np.float64]:
    """Distance of every pixel's centre from the edge, pixels, positive on the bright side."""
    y, x = np.mgrid[0:height, 0:width]
    slanted = (x - (width - 1) / 2) - SLANT * (y - (height - 1) / 2)
    return np.asarray(slanted * math.cos(math.atan(SLANT)))
