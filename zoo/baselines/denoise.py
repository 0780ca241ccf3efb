"""Classical denoisers of a Bayer mosaic: each packed plane by itself, where its noise is white with sigma 1.

The transform is the generalised Anscombe transform for ``var = S*x + O``; its inverse is the closed-form approximation
of the exact unbiased one (Makitalo & Foi, "Optimal inversion of the generalized Anscombe transformation for
Poisson-Gaussian noise", IEEE TIP 2013), which it meets within 0.03 S at ISO 800, 3200 and 12,800 of the bed, black to white.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from zoo.errors import ZooError
from zoo.raw.cfa import alignment, pack, unpack

Array = npt.NDArray[np.float32]
Planes = npt.NDArray[np.float64]

TRANSFORM = "generalised Anscombe, closed-form unbiased inverse (Makitalo & Foi 2013)"
BM3D_INSTALL = "'raw-zoo[bm3d]'  (Tampere University; its licence allows non-commercial use only)"

_PLANE_COLOURS = [0, 1, 1, 2]  # R, G1, G2, B
# The inverse's powers of 1/D run away towards D = 0. 2*sqrt(3/8) is the transform of zero counts without read noise,
# and a denoised value with read noise (D > 5 at ISO 3200 and black) does not come near it.
_LOWEST = 2 * np.sqrt(3 / 8)


@dataclass(frozen=True)
class NlmSettings:
    """Parameters of non-local means on a packed plane with noise of sigma 1.

    Attributes:
        h: decay of the weights, in sigmas.
        patch: side of the compared patches, packed pixels, odd.
        search: side of the window that is searched, packed pixels, odd.
    """

    h: float
    patch: int
    search: int


# Best mean PSNR (developed sRGB, with Menon) on three training pictures (cid, condat, wp) at ISO 3200 / 12,800: 24.62 /
# 21.42 dB. The neighbours: h 0.8 24.49 / 21.25, h 1.2 24.64 / 21.40 (0.3 dB lower in linear light); with h 1: patch 5
# 24.24 / 21.28, search 21 24.60 / 21.39; with h 0.9: search 11 24.50 / 21.25, search 21 24.57 / 21.36.
NLM = NlmSettings(h=1.0, patch=3, search=15)


def anscombe(x: Planes, shot: Planes, read: Planes) -> Planes:
    """Generalised Anscombe transform: noise ``var = shot*x + read`` becomes white with sigma 1.

    Args:
        x: raw units, black = 0, white = 1; negative values allowed.
        shot: S > 0, broadcasts against ``x``.
        read: O >= 0, likewise.
    """
    return 2 * np.sqrt(np.maximum(x / shot + 0.375 + read / shot**2, 0))


def inverse_anscombe(d: Planes, shot: Planes, read: Planes) -> Planes:
    """Closed-form unbiased inverse of :func:`anscombe` for denoised values ``d``.

    Not clipped at black, unlike the paper's: a denoised shadow is as often below its true value as above it.
    """
    d = np.maximum(d, _LOWEST)
    root = np.sqrt(1.5)
    counts = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3) - 1 / 8 - read / shot**2
    return counts * shot


def nlm_mosaic(mosaic: Array, shot: Sequence[float], read: Sequence[float]) -> Array:
    """Non-local means on the four packed planes of an RGGB mosaic, see :func:`non_local_means` and :data:`NLM`.

    Args:
        mosaic: float32 ``[H, W]``, raw units, RGGB, any size >= 2.
        shot: S of R, G, B, > 0.
        read: O of R, G, B.

    Returns:
        float32 ``[H, W]``, raw units.
    """
    return _in_stabilised_planes(mosaic, shot, read, lambda planes: non_local_means(planes, NLM))


def bm3d_mosaic(mosaic: Array, shot: Sequence[float], read: Sequence[float]) -> Array:
    """BM3D (Dabov et al., IEEE TIP 2007; library ``bm3d``) on the four packed planes; arguments as :func:`nlm_mosaic`.

    The library is not a dependency: its licence allows non-commercial use only. It takes 4 s for a plane of 384x256.

    Raises:
        ZooError: the library is not installed.
    """
    try:
        import bm3d
    except ImportError as error:
        raise ZooError(f"BM3D is not installed: pip install {BM3D_INSTALL}") from error
    return _in_stabilised_planes(
        mosaic, shot, read, lambda planes: np.stack([bm3d.bm3d(plane, sigma_psd=1.0) for plane in planes])
    )


def non_local_means(planes: Planes, settings: NlmSettings) -> Planes:
    """Non-local means (Buades, Coll & Morel, CVPR 2005), with the noise-corrected weights of their IPOL article (2011).

    ``w = exp(-max(d2 - 2, 0) / h^2)`` with d2 the mean squared difference of two patches, whose expectation is 2 where
    they differ by noise only. The centre gets the largest of the other weights.

    All pixels and planes at once, one pass per offset; ``w`` is the same both ways, so half of the offsets do.

    Args:
        planes: ``[N, h, w]``, noise of sigma 1; each plane by itself.
        settings: parameters.

    Returns:
        ``[N, h, w]``.
    """
    reach, half = settings.search // 2, settings.patch // 2
    border = reach + half
    padded = np.pad(planes, ((0, 0), (border, border), (border, border)), mode="reflect")
    z = torch.from_numpy(np.ascontiguousarray(padded, np.float32))
    height, width = z.shape[1:]
    core = z[:, half : height - half, half : width - half]  # positions whose patch is complete
    weighted, total, largest = torch.zeros_like(core), torch.zeros_like(core), torch.zeros_like(core)
    for dy in range(reach + 1):
        for dx in range(-reach if dy else 1, reach + 1):
            # The same rectangle twice: `here` and what lies (dy, dx) from it.
            here = (..., slice(0, -dy or None), slice(max(0, -dx), -max(0, dx) or None))
            there = (..., slice(dy, None), slice(max(0, dx), -max(0, -dx) or None))
            distance = F.avg_pool2d((z[here] - z[there]).square_(), settings.patch, 1)
            weight = distance.sub_(2).clamp_min_(0).mul_(-1 / settings.h**2).exp_()
            for target, source in ((here, there), (there, here)):
                weighted[target].addcmul_(weight, core[source])
                total[target] += weight
                torch.maximum(largest[target], weight, out=largest[target])
    largest.clamp_min_(1e-6)  # a pixel like no other is kept
    result = (weighted + largest * core) / (total + largest)
    return result[:, reach : reach + planes.shape[1], reach : reach + planes.shape[2]].numpy().astype(np.float64)


def _in_stabilised_planes(
    mosaic: Array, shot: Sequence[float], read: Sequence[float], denoise: Callable[[Planes], Planes]
) -> Array:
    """Mosaic -> packed planes -> Anscombe -> ``denoise`` -> back; odd sizes are mirrored to even ones and cropped."""
    border = alignment((mosaic.shape[0], mosaic.shape[1]), "RGGB")
    planes = pack(border.pad(mosaic)).astype(np.float64)
    s, o = (np.asarray(v, np.float64)[_PLANE_COLOURS, None, None] for v in (shot, read))
    cleaned = inverse_anscombe(denoise(anscombe(planes, s, o)), s, o)
    return np.ascontiguousarray(border.crop(unpack(cleaned)), np.float32)
