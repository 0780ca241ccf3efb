"""Losses of the raw networks; all in float32, on white-balanced camera RGB or its mosaic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.synth import RawBatch, mosaic
from zoo.errors import ZooError
from zoo.models.contracts import Contract
from zoo.models.contracts import bayer_vst as bayer
from zoo.raw import vst
from zoo.raw.vst import DISPLAY_OFFSET


def restoration_loss(
    contract: Contract,
    x: Tensor,
    y: Tensor,
    batch: RawBatch,
    *,
    margin: int,
    display_weight: float,
    teacher: Tensor | None = None,
    teacher_weight: float = 0.0,
) -> Tensor:
    """L1 in the VST domain, weighted by what an error costs on a display and by what can be expected at the noise level.

    Raws that are display values (``batch.displayed``) have nothing to develop: their error is L1 in those values.

    Args:
        contract: of the network.
        x: its input ``[N, in_channels, h, w]``.
        y: its output ``[N, out_channels, h, w]``.
        batch: the raws that ``x`` encodes.
        margin: packed pixels left out at each border.
        display_weight: weight of the L1 after development (the camera's colour matrix, a display curve), taken to first order
            around the target: the slope of the curve is then a plain weight map, where the exact form cost 22 ms of a 75 ms
            step on one CPU core. The matrix is worth 0.04 to 0.07 dB of developed PSNR at every noise level
            (docs/training-log.md, "Loss"). A mosaic has no colours to develop: its planes only get the curve.
        teacher: another network's estimate for the same raws, packed RGB or mosaic.
        teacher_weight: weight of the distance to it, beside 1 for the distance to the truth.

    Returns:
        scalar.
    """
    offset = bayer.curve_offset(batch.shot, batch.read)
    inner = (..., slice(margin, x.shape[2] - margin), slice(margin, x.shape[3] - margin))
    estimate = contract.estimate(x, y.float(), batch.shot, batch.read, batch.wb)[inner]
    with torch.no_grad():
        linear = _target(batch, estimate.shape[1])[inner]
        target = vst.forward(linear, offset)
        # Expected L1 error: 0.01 from demosaicing alone plus a quarter of the noise, which is a quarter of the working range
        # to within a factor of 1.3. Without the weight, the noisiest patches take over the gradient: their error is eight
        # times that of clean ones.
        weight = 0.06 / bayer.working_range(batch.shot, batch.read)
    error = estimate - target
    cost = error.abs()
    if display_weight:
        cost = cost + display_weight * _developed(error, linear, offset, batch.matrix).abs()
    if batch.displayed.any():
        direct = (1 + display_weight) * (error / vst.slope(linear, offset)).abs()
        cost = torch.where(batch.displayed[:, None, None, None], direct, cost)
    loss = (cost * weight).mean()
    if teacher is not None and teacher_weight:
        like = as_channels(teacher, estimate.shape[1])[inner]
        loss = loss + teacher_weight * ((estimate - like).abs() * weight).mean()
    return loss


def _developed(error: Tensor, linear: Tensor, offset: Tensor, matrix: Tensor) -> Tensor:
    """What an error in the VST domain is after development, to first order around ``linear``; shapes of ``error``."""
    error = error / vst.slope(linear, offset)
    if error.shape[1] == 4:
        return error * vst.slope(linear, DISPLAY_OFFSET)
    n, _, h, w = error.shape
    with torch.no_grad():
        slope = vst.slope(torch.einsum("nij,njshw->nishw", matrix, linear.view(n, 3, 4, h, w)), DISPLAY_OFFSET)
    return (torch.einsum("nij,njshw->nishw", matrix, error.view(n, 3, 4, h, w)) * slope).view(n, 12, h, w)


def as_channels(estimate: Tensor, channels: int) -> Tensor:
    """A packed RGB estimate as a packed RGGB mosaic, if ``channels`` asks for one.

    Raises:
        ZooError: a mosaic cannot teach colours that were not measured.
    """
    if estimate.shape[1] == channels:
        return estimate
    if channels != 4:
        raise ZooError("the teacher gives a mosaic, the model colours; choose a teacher whose output is RGB")
    # Packed RGB is channel c*4 + 2*dy + dx; an RGGB sensor has measured R at (0, 0), G at (0, 1) and (1, 0), B at (1, 1).
    return estimate[:, [0, 5, 6, 11]]


def display_psnr(contract: Contract, x: Tensor, y: Tensor, batch: RawBatch, *, margin: int) -> Tensor:
    """PSNR per patch in the display curve, or in display values as they are, dB, peak 1; ``[N]``.

    Mosaics are demosaiced linearly for it.
    """
    offset = bayer.curve_offset(batch.shot, batch.read)
    inner = (..., slice(margin, x.shape[2] - margin), slice(margin, x.shape[3] - margin))
    display = torch.full_like(offset, DISPLAY_OFFSET)
    restored = contract.estimate(x, y.float(), batch.shot, batch.read, batch.wb)
    if restored.shape[1] == 4:
        restored = bayer.linear_demosaic(restored)
    linear, truth = vst.inverse(restored[inner], offset), F.pixel_unshuffle(batch.target, 2)[inner]
    shown, target = (
        torch.where(batch.displayed[:, None, None, None], x, vst.forward(x, display)).clamp(0, 1)
        for x in (linear, truth)
    )
    return -10 * torch.log10((shown - target).square().mean((1, 2, 3)).clamp_min(1e-10))


def _target(batch: RawBatch, channels: int) -> Tensor:
    return mosaic(batch.target) if channels == 4 else F.pixel_unshuffle(batch.target, 2)
