"""Losses of the raw networks; all in float32, on white-balanced camera RGB."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.synth import RawBatch
from zoo.models import contract
from zoo.raw import vst

# Offset of the curve that stands for a display: between sRGB's slope at black (12.9) and what noisy shadows can bear.
DISPLAY_OFFSET = 1 / 128


def restoration_loss(x: Tensor, correction: Tensor, batch: RawBatch, *, margin: int, display_weight: float) -> Tensor:
    """L1 in the VST domain, weighted by what an error costs on a display and by what can be expected at the noise level.

    Args:
        x: network input ``[N, 12, h, w]``.
        correction: network output ``[N, 12, h, w]``.
        batch: the raws that ``x`` encodes.
        margin: packed pixels left out at each border.
        display_weight: weight of the L1 in a display curve, taken to first order around the target (the slope of the curve
            is then a plain weight map: the exact form cost 22 ms of a 75 ms step on one CPU core).

    Returns:
        scalar.
    """
    offset = contract.curve_offset(batch.shot, batch.read)
    inner = (..., slice(margin, x.shape[2] - margin), slice(margin, x.shape[3] - margin))
    with torch.no_grad():
        baseline = contract.linear_demosaic(x[:, :4])[inner]
        linear = F.pixel_unshuffle(batch.target, 2)[inner]
        target = vst.forward(linear, offset) - baseline
        # Expected L1 error: 0.01 from demosaicing alone plus a quarter of the noise, which is a quarter of the working range
        # to within a factor of 1.3. Without the weight, the noisiest patches take over the gradient: their error is eight
        # times that of clean ones.
        weight = 0.06 / contract.working_range(batch.shot, batch.read)
        if display_weight:
            weight = weight * (1 + display_weight * vst.slope(linear, DISPLAY_OFFSET) / vst.slope(linear, offset))
    predicted = contract.expand(correction.float()[inner], batch.shot, batch.read)
    return ((predicted - target).abs() * weight).mean()


def display_psnr(x: Tensor, correction: Tensor, batch: RawBatch, *, margin: int) -> Tensor:
    """PSNR per patch in the display curve, dB, peak 1; ``[N]``."""
    offset = contract.curve_offset(batch.shot, batch.read)
    inner = (..., slice(margin, x.shape[2] - margin), slice(margin, x.shape[3] - margin))
    display = torch.full_like(offset, DISPLAY_OFFSET)
    restored = contract.linear_demosaic(x[:, :4]) + contract.expand(correction.float(), batch.shot, batch.read)
    linear = vst.inverse(restored[inner], offset)
    shown = vst.forward(linear, display).clamp(0, 1)
    target = vst.forward(F.pixel_unshuffle(batch.target, 2)[inner], display).clamp(0, 1)
    return -10 * torch.log10((shown - target).square().mean((1, 2, 3)).clamp_min(1e-10))
