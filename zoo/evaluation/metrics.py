"""Scores of a picture against its reference: plain functions on ``[C, H, W]`` tensors, no state."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_PSNR = 100.0  # dB; what a perfect picture scores, so that means and JSON stay finite
_SSIM_SIDE = 11
_SSIM_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_DARKEST = 0.1
# Shadow bias is told relative to the shadows' level, but never to less than 0.1 % of white: a picture with true black
# would report the rounding of its zero.
_LOWEST_LEVEL = 1e-3


def psnr(picture: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio for a peak of 1, over all channels together.

    Args:
        picture: float ``[C, H, W]``.
        reference: the same shape.

    Returns:
        dB, at most :data:`MAX_PSNR`.
    """
    error = (picture.double() - reference.double()).square().mean()
    return min(MAX_PSNR, float(-10 * torch.log10(error.clamp_min(10 ** (-MAX_PSNR / 10)))))


def ssim(picture: Tensor, reference: Tensor) -> float:
    """Structural similarity (Wang et al., IEEE TIP 2004), mean over pixels, then channels.

    As published: Gaussian window 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance, and only windows
    that lie inside the picture. The same as scikit-image's with ``gaussian_weights=True, use_sample_covariance=False``.

    Args:
        picture: float ``[C, H, W]`` in [0, 1], at least 11 pixels each way.
        reference: the same shape.

    Returns:
        -1 to 1.
    """
    total = 0.0
    # Channel by channel in float64: the variances are differences of nearly equal numbers (7e-5 off in float32).
    for x, y in zip(picture.double(), reference.double(), strict=True):
        mx, my, xx, yy, xy = _window_means(torch.stack([x, y, x * x, y * y, x * y]))
        structure = (2 * (xy - mx * my) + _C2) / (xx - mx * mx + yy - my * my + _C2)
        total += float((structure * (2 * mx * my + _C1) / (mx * mx + my * my + _C1)).mean())
    return total / picture.shape[0]


def _window_means(maps: Tensor) -> Tensor:
    """Gaussian means of ``[N, H, W]`` over the windows that lie inside, ``[N, H - 10, W - 10]``."""
    steps = torch.arange(_SSIM_SIDE, dtype=torch.float64) - _SSIM_SIDE // 2
    window = torch.exp(-steps.square() / (2 * _SSIM_SIGMA**2))
    weights = (window / window.sum()).tolist()
    # Sums of shifted maps: conv2d with one channel takes fifteen times as long (1.5 s for 768x512).
    for axis in (1, 2):
        length = maps.shape[axis] - _SSIM_SIDE + 1
        result = maps.narrow(axis, 0, length) * weights[0]
        for start, weight in enumerate(weights[1:], 1):
            result.add_(maps.narrow(axis, start, length), alpha=weight)
        maps = result
    return maps


def shadow_bias(picture: Tensor, reference: Tensor, luminance: Tensor) -> tuple[float, ...]:
    """Mean signed error in the darkest tenth of a picture, per channel, relative to how bright that tenth is.

    What clipping at black, a wrong black level or a biased inverse transform do to a picture: they tint its shadows,
    which neither PSNR nor SSIM see. Read the differences between channels as tint: what the channels share is mostly
    smoothing, which brings light from the neighbours into the darkest pixels (non-local means, ISO 3200: +70 to +135 %
    on McMaster, whose darkest tenth lies at 0.4 % of white, but 0.03 % of white on flat patches).

    Args:
        picture: linear float ``[C, H, W]``.
        reference: the same shape and units.
        luminance: ``[H, W]``, of the reference; its darkest tenth is looked at.

    Returns:
        one number per channel; 0.01 means one percent too bright.
    """
    count = max(1, int(luminance.numel() * _DARKEST))
    darkest = luminance.flatten().double().topk(count, largest=False)
    level = max(float(darkest.values.mean()), _LOWEST_LEVEL)
    error = (picture.double() - reference.double()).flatten(1)[:, darkest.indices]
    return tuple((error.mean(1) / level).tolist())
