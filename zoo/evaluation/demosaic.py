"""The benchmark ``demosaic``: file values are the light, nothing but the mosaic is missing.

The protocol of the published tables, so that their numbers compare: a picture's file values (sRGB-encoded as they are)
count as linear, no noise, no colour matrix, no white balance, 16 pixels of border cut, PSNR over the three channels
together, mean over pictures. The result is clipped to [0, 1], as every file is. The mosaic starts with green (GRBG), as
DemosaicNet's does: bilinear interpolation then gives 32.30 dB on McMaster, as published beside it (32.29 from RGGB).

Methods are told noise 0 and gains 1. Networks that are trained on camera colours see an unusual camera here.
"""

from __future__ import annotations

import numpy as np
import torch

from zoo.data.pool import read_srgb
from zoo.errors import ZooError
from zoo.evaluation import metrics
from zoo.evaluation.method import Array, Method, Picture, Scores, inner, run

BENCHMARK = "demosaic"
LEVELS = {"clean": (0.0, 0.0)}
METRICS = ("psnr", "ssim", "ms_ssim")
CFA = "GRBG"

_NOTHING = (0.0, 0.0, 0.0)


def score(method: Method, picture: Array) -> Scores:
    """Score a method on a picture.

    Args:
        method: what is measured.
        picture: float32 ``[H, W, 3]`` in [0, 1].

    Returns:
        Scores with the values :data:`METRICS`: ``psnr`` in dB, ``ssim`` and ``ms_ssim`` of the file values.

    Raises:
        ZooError: the picture is too small to be scored, or the method returns another shape or no finite numbers.
    """
    height, width = picture.shape[:2]
    part = (..., *inner(height, width))
    result, seconds = run(method, sample(picture.transpose(2, 0, 1), CFA), (1.0, 1.0, 1.0), _NOTHING, _NOTHING, CFA)
    made = torch.from_numpy(np.ascontiguousarray(result[part])).clamp(0, 1)
    truth = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[part]))
    single, multi = metrics.ssim_and_ms_ssim(made, truth)
    values = {"psnr": metrics.psnr(made, truth), "ssim": single, "ms_ssim": multi}
    return Scores(values, seconds, height * width / 1e6)


def score_picture(method: Method, picture: Picture, level: str) -> Scores:
    """:func:`score` on a file; ``level`` can only be "clean".

    Raises:
        ZooError: the file cannot be read or scored; the line names it.
    """
    srgb = read_srgb(picture.path)
    try:
        return score(method, srgb)
    except ZooError as error:
        raise ZooError(f"{picture.path}: {error}") from error


def sample(rgb: Array, cfa: str) -> Array:
    """What a mosaic of phase ``cfa`` sees of a picture: ``[3, H, W]`` -> ``[H, W]``."""
    mosaic = np.empty(rgb.shape[1:], rgb.dtype)
    for position, colour in enumerate(cfa):
        y, x = divmod(position, 2)
        mosaic[y::2, x::2] = rgb["RGB".index(colour), y::2, x::2]
    return mosaic
