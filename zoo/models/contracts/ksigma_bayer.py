"""What goes into PMRID and what comes out: the contract ``ksigma_bayer_v1``.

The k-Sigma transform (Wang et al., "Practical Deep Raw Image Denoising on Mobile Devices", ECCV 2020) makes the variance of
signal-dependent noise equal to the transformed mean at every ISO, so that one network serves all. In terms of the noise model
``var = S*x + O`` of an un-balanced mosaic x, black = 0, white = 1, and with an anchor (S_a, O_a), the noise for which the network
sees the picture as it is:

* in: float32 ``[N, 4, h, w]``, planes R, G1, G2, B: ``256 * S_a * (x/S + O/S**2 - O_a/S_a**2)``, x before white balance.
* out: float32 ``[N, 4, h, w]``: the same planes without noise, in the same units. Undone, balanced and demosaiced (Menon 2007,
  extra ``baselines``) they are white-balanced linear camera RGB.

The anchor is ISO 1600 of the authors' calibration of the OPPO Reno 10x (k = 0.95924 + 0.00869 DN, sigma**2 = 2.97945 DN**2 at a
range of 959 DN), 256 their network's input scale: with their weights the network gives their results.

Where this differs from the original:

* S and O are data of each photo (green's, for all planes), not of one sensor's calibration by ISO.
* S has a floor, as the transform divides by it: 7.16e-5, that sensor's at ISO 100, which bounds the input at 3,600 (white;
  fp16 holds 65,504); and sqrt(O)/10, so that the transform's shift of pure read noise stays below 26. A photo with less noise is
  treated as one with that much.
* Nothing is clipped; the original cuts its input to 0..1 before the transform.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from zoo.models.contracts import Contract
from zoo.models.contracts.bayer_vst import curve_offset
from zoo.raw import vst
from zoo.raw.cfa import unpack

SCALE = 256.0
_RANGE = 959.0  # DN between black and white of the authors' sensor
_ANCHOR_ISO, _FLOOR_ISO = 1600, 100
MAX_RATIO = 100.0  # of O / S**2; that sensor has 3.2 at ISO 1600 and 40 at ISO 100


def _calibrated(iso: float) -> tuple[float, float]:
    """S and O of the authors' sensor, in units of white."""
    k = 0.0005995267 * iso + 0.00868861
    variance = 7.11772e-7 * iso**2 + 6.514934e-4 * iso + 0.11492713
    return k / _RANGE, variance / _RANGE**2


ANCHOR_SHOT, ANCHOR_READ = _calibrated(_ANCHOR_ISO)
MIN_SHOT = _calibrated(_FLOOR_ISO)[0]


def forward(x: Tensor, shot: Tensor, read: Tensor) -> Tensor:
    """k-Sigma transform of un-balanced values; ``shot`` and ``read`` broadcast, see :func:`parameters`."""
    return ANCHOR_SHOT * (x / shot + _shift(shot, read)) * SCALE


def inverse(y: Tensor, shot: Tensor, read: Tensor) -> Tensor:
    """Exact inverse of :func:`forward`."""
    return (y / (ANCHOR_SHOT * SCALE) - _shift(shot, read)) * shot


def parameters(shot: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """S (with its floors) and O of green, which no gain touches, each ``[N, 1, 1, 1]``."""
    green, floor = shot[:, 1], read[:, 1]
    green = torch.maximum(green.clamp_min(MIN_SHOT), (floor / MAX_RATIO).sqrt())
    return green.view(-1, 1, 1, 1), floor.view(-1, 1, 1, 1)


def _shift(shot: Tensor, read: Tensor) -> Tensor:
    return read / shot.square() - ANCHOR_READ / ANCHOR_SHOT**2


class KSigmaBayer(Contract):
    """The contract; see the module."""

    name = "ksigma_bayer_v1"
    in_channels = out_channels = 4
    halo = 6  # Menon's demosaicing reads 8 to 9 sensor pixels: changing one of 300 mosaics reached 8
    words: ClassVar[Mapping[str, str]] = {
        "input": "float32 NCHW; planes R, G1, G2, B of the RGGB mosaic, x = (raw-black)/(white-black) before white balance, not "
        "clipped, then 256*a*(x/S + O/S^2 - b/a^2)",
        "noise": "variance of x is S*x+O of green; S at least 7.158e-5 and sqrt(O)/10",
        "anchor": f"a = {ANCHOR_SHOT:.6e}, b = {ANCHOR_READ:.6e}",
        "output": "float32 NCHW; the same 4 planes denoised, in the input's units; inverse of the input's formula, then white "
        "balance (green = 1), then any Bayer demosaicing (reference: Menon 2007); absolute scale, not clipped",
    }

    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = "RGGB") -> Tensor:
        return forward(planes / _gains(wb), *parameters(shot, read))

    def estimate(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return vst.forward(self._balanced(y, shot, read, wb), curve_offset(shot, read))

    def decode(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        from zoo.baselines.demosaic import menon

        mosaics = (unpack(planes) for planes in self._balanced(y, shot, read, wb).numpy())
        return torch.from_numpy(np.stack([menon(np.ascontiguousarray(m)) for m in mosaics]))

    @staticmethod
    def _balanced(y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return inverse(y, *parameters(shot, read)) * _gains(wb)


def _gains(wb: Tensor) -> Tensor:
    return wb[:, [0, 1, 1, 2], None, None]


CONTRACT = KSigmaBayer()
