"""Scores of a picture against its reference: plain functions on ``[C, H, W]`` tensors, no state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_PSNR = 100.0  # dB; what a perfect picture scores, so that means and JSON stay finite
_SSIM_SIDE = 11
_SSIM_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_SSIM_ROWS = 32  # rows at a time; in float64 a 768x512 picture takes 16 ms that way, 43 ms all at once (cache)
# Exponents of the five scales, finest first (Wang, Simoncelli & Bovik 2003, section 3.2).
_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SMALLEST = _SSIM_SIDE * 2 ** (len(_MS_SSIM_WEIGHTS) - 1)  # 176 pixels: one window at the coarsest scale
_LUMA = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709, of encoded RGB
_BLOCK = 16
# Blocks between these ranks of detail count as textured: below lie flat ones, whose detail is the source's own noise
# and coding, above contours, which any method keeps and which would drown the rest.
_TEXTURED = (0.4, 0.9)
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
    values = [_similarity(x, y)[0] for x, y in zip(picture.double(), reference.double(), strict=True)]
    return sum(values) / len(values)


def ssim_and_ms_ssim(picture: Tensor, reference: Tensor) -> tuple[float, float]:
    """:func:`ssim`, and multi-scale structural similarity (Wang, Simoncelli & Bovik, Asilomar 2003), in one pass.

    Five scales, each the means of 2x2 pixels of the one before; contrast and structure of each, luminance of the
    coarsest, multiplied with the published exponents per channel, then averaged. A scale whose contrast term is
    negative counts as 0, since a negative number has no such power.

    Args:
        picture: float ``[C, H, W]`` in [0, 1], at least :data:`MS_SSIM_SMALLEST` pixels each way.
        reference: the same shape.

    Returns:
        SSIM, -1 to 1, and MS-SSIM, 0 to 1.
    """
    single, multi = 0.0, 0.0
    for x, y in zip(picture.double(), reference.double(), strict=True):
        product = 1.0
        for scale, weight in enumerate(_MS_SSIM_WEIGHTS):
            if scale:
                x, y = F.avg_pool2d(torch.stack([x, y])[None], 2)[0]
            similarity, contrast = _similarity(x, y)
            if scale == 0:
                single += similarity
            last = scale == len(_MS_SSIM_WEIGHTS) - 1
            product *= max(similarity if last else contrast, 0.0) ** weight
        multi += product
    return single / picture.shape[0], multi / picture.shape[0]


def _similarity(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Means of SSIM and of its contrast and structure term over the windows of one channel, float64 ``[H, W]``.

    In float64, since the variances are differences of nearly equal numbers (7e-5 off in float32).
    """
    similarity, contrast = 0.0, 0.0
    rows, width = x.shape[0] - _SSIM_SIDE + 1, x.shape[1] - _SSIM_SIDE + 1
    for top in range(0, rows, _SSIM_ROWS):
        part = slice(top, min(top + _SSIM_ROWS, rows) + _SSIM_SIDE - 1)
        a, b = x[part], y[part]
        mx, my, xx, yy, xy = window_means(torch.stack([a, b, a * a, b * b, a * b]))
        structure = (2 * (xy - mx * my) + _C2) / (xx - mx * mx + yy - my * my + _C2)
        contrast += float(structure.sum())
        similarity += float((structure * (2 * mx * my + _C1) / (mx * mx + my * my + _C1)).sum())
    return similarity / (rows * width), contrast / (rows * width)


def window_means(maps: Tensor) -> Tensor:
    """Gaussian means (11x11, sigma 1.5) of ``[N, H, W]`` over the windows that lie inside, ``[N, H - 10, W - 10]``."""
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


def texture_kept(picture: Tensor, reference: Tensor) -> float:
    """How much of the reference's texture a picture shows: 1 all of it, 0 none, above 1 sharpened.

    Texture is what the luma holds above the scale of a Gaussian of sigma 1.5 (more than about 0.1 cycles per pixel),
    in the blocks of 16x16 that rank between :data:`_TEXTURED` in it. The figure is the slope of the regression of the
    picture's detail on the reference's, ``sum(p * r) / sum(r * r)`` over those blocks: noise, being no echo of the
    reference, adds nothing to it on average, and smoothing lowers it by the share of the amplitude that it takes.

    Args:
        picture: encoded RGB, float ``[3, H, W]`` in [0, 1], at least 26 pixels each way.
        reference: the same shape.

    Returns:
        the slope; 1 where the reference has no detail at all.
    """
    luma = torch.einsum("c,nchw->nhw", torch.tensor(_LUMA), torch.stack([picture.float(), reference.float()]))
    reach = _SSIM_SIDE // 2
    detail = luma[:, reach:-reach, reach:-reach] - window_means(luma)
    p, r = detail.double()
    shared, own = (F.avg_pool2d((r * other)[None, None], _BLOCK).flatten() for other in (p, r))
    rank = own.argsort().argsort().double() / own.numel()
    textured = (rank >= _TEXTURED[0]) & (rank < _TEXTURED[1]) if own.numel() > 1 else rank >= 0
    energy = float(own[textured].sum())
    return float(shared[textured].sum()) / energy if energy > 0 else 1.0


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
