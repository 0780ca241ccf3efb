"""Variance-stabilising transform (VST): linear sensor values <-> the curve in which the networks work.

A square root with an offset, after the generalised Anscombe transform (Starck, Murtagh & Bijaoui 1998, "Image Processing
and Data Analysis", eq. 2.3.4; Makitalo & Foi 2013). For noise of variance ``S*x + O`` the generalised Anscombe transform is
``2/S * sqrt(S*x + 3/8*S**2 + O)``, which is ``sqrt(x + c)`` up to scale, with ``c = 3/8*S + O/S``. Two changes:

* It is normalised to map 0 -> 0 and 1 -> 1, so that one int8 scale fits a base-ISO and an ISO-12,800 photo (the classical
  form spans 447 noise units at S = 2e-5 and 14 at S = 2e-2). How strong the noise is, the network is told instead.
* Below zero it goes on as its own tangent, so that negative pixels (noise around black) stay invertible: clipping at
  black tints shadows.

All functions take and return torch tensors; ``offset`` broadcasts against the picture.
"""

from __future__ import annotations

import torch

# Bounds of the curve's offset. 1/512 gives a slope of 11.2 at black, close to sRGB's 12.92, for pictures without noise;
# 1.0 is practically a straight line, the right curve for noise that does not depend on the signal.
MIN_OFFSET = 1 / 512
MAX_OFFSET = 1.0
# Offset of the curve that stands for a display: between sRGB's slope at black (12.9) and what noisy shadows can bear.
DISPLAY_OFFSET = 1 / 128


def curve_offset(shot: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """Offset ``c`` of the curve for noise of variance ``shot * x + read``.

    Args:
        shot: signal-dependent noise S per image, any shape, >= 0, in units of the white level.
        read: signal-independent variance O, same shape, >= 0.

    Returns:
        c, same shape, in [``MIN_OFFSET``, ``MAX_OFFSET``].
    """
    return (0.375 * shot + read / shot.clamp_min(1e-9)).clamp(MIN_OFFSET, MAX_OFFSET)


def forward(x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Linear -> stabilised. ``(sqrt(x+c) - sqrt(c)) / (sqrt(1+c) - sqrt(c))`` for x >= 0, its tangent at 0 below."""
    root = offset.sqrt()
    # x / (sqrt(x+c) + sqrt(c)) is the same as sqrt(x+c) - sqrt(c) without its cancellation, and with max(x, 0) under the
    # root it turns into the tangent for negative x by itself.
    return x / ((x.clamp_min(0) + offset).sqrt() + root) / _span(offset)


def inverse(y: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Stabilised -> linear; exact inverse of :func:`forward` for every real y."""
    y = y * _span(offset)
    return y * (y.clamp_min(0) + 2 * offset.sqrt())


def slope(x: torch.Tensor, offset: torch.Tensor | float) -> torch.Tensor:
    """Derivative of :func:`forward` at linear level ``x``."""
    offset = torch.as_tensor(offset, dtype=x.dtype, device=x.device)
    return 0.5 / ((x.clamp_min(0) + offset).sqrt() * _span(offset))


def noise_std(x: float, shot: torch.Tensor, read: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the noise after :func:`forward`, to first order, at linear signal level ``x`` >= 0."""
    return (shot * x + read).sqrt() * slope(torch.full_like(offset, x), offset)


def _span(offset: torch.Tensor) -> torch.Tensor:
    return (1 + offset).sqrt() - offset.sqrt()
