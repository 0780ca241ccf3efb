"""What goes into the X-Trans U-Net and what comes out: the contract ``cfa_masks_v1``, for Bayer and X-Trans.

The network is told at every pixel which colour was measured there (after github.com/naorunaoru/x-veon), so one set of weights
can serve any pattern that it was trained on.

* in: float32 ``[N, 16, h, w]``, a 2x space-to-depth of four planes at sensor resolution (channel ``p*4 + 2*dy + dx``): the
  white-balanced mosaic in the VST domain, then the masks of R, G and B, 1 where that colour was measured, else 0.
* out: float32 ``[N, 12, h, w]``: what is added, in the VST domain, to the measured value in all three colours. Channel
  ``c*4 + 2*dy + dx`` is colour c, so that a 2x depth-to-space gives RGB at sensor resolution.

X-Trans starts at the first pixel of :data:`XTRANS_PATTERN`, Bayer at R; the pattern repeats every 6 sensor pixels, so tiles start
at multiples of three packed pixels (and of the network's stride).

Where this differs from the original's fourth version, the one with 31,038,339 parameters:

* Residual over the measured value, as its authors did later: at the measured colour the network only has to denoise.
* Values in the VST domain and balanced before the network (the authors came to the latter as well), so that noise and neutral
  edges look alike at all exposures.
* Their targets were noise-free mosaics cut from pictures downscaled four times; ours have noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.contracts import Contract
from zoo.models.contracts.bayer_vst import curve_offset
from zoo.raw import vst
from zoo.raw.cfa import XTRANS

RGGB = "RGGB"
# R = 0, G = 1, B = 2; symmetric about rows 0 and 3 and columns 2 and 5, which mirroring at a border relies on.
XTRANS_PATTERN = (
    (0, 2, 1, 2, 0, 1),
    (1, 1, 0, 1, 1, 2),
    (1, 1, 2, 1, 1, 0),
    (2, 0, 1, 0, 2, 1),
    (1, 1, 2, 1, 1, 0),
    (1, 1, 0, 1, 1, 2),
)
_PATTERNS = {RGGB: ((0, 1), (1, 2)), XTRANS: XTRANS_PATTERN}


def colours(height: int, width: int, cfa: str) -> Tensor:
    """Colour of every sensor pixel, int64 ``[height, width]``, R = 0, G = 1, B = 2.

    Raises:
        ZooError: neither RGGB nor XTRANS.
    """
    if cfa not in _PATTERNS:
        raise ZooError(f"unknown colour filter array '{cfa}'; the networks take {' and '.join(_PATTERNS)}")
    pattern = torch.tensor(_PATTERNS[cfa])
    side = len(pattern)
    return pattern.repeat(-(-height // side), -(-width // side))[:height, :width]


def masks(height: int, width: int, cfa: str) -> Tensor:
    """One-hot colours at sensor resolution, float32 ``[1, 3, height, width]``."""
    return F.one_hot(colours(height, width, cfa), 3).permute(2, 0, 1)[None].float()


class CfaMasks(Contract):
    """The contract; see the module."""

    name = "cfa_masks_v1"
    in_channels, out_channels, halo = 16, 12, 0
    cfa, period = "any", 3
    words: ClassVar[Mapping[str, str]] = {
        "input": "float32 NCHW, 16 planes (p*4 + 2*dy + dx, 2x space-to-depth) of p = 0: the mosaic, (raw-black)/(white-black) x "
        "white balance (green = 1), not clipped, then VST; p = 1, 2, 3: 1 where R, G, B was measured, else 0",
        "cfa": "RGGB, or X-Trans from the first pixel of "
        + "/".join("".join("RGB"[c] for c in r) for r in XTRANS_PATTERN),
        "vst": "x/(sqrt(max(x,0)+c)+sqrt(c))/(sqrt(1+c)-sqrt(c)); c = clamp(3/8*S + O/S, 1/512, 1) of green; noise variance "
        "S*x+O after white balance",
        "output": "float32 NCHW, 12 planes (colour*4 + 2*dy + dx) that are added to planes 0-3 of the same 2*dy + dx; then "
        "inverse VST, then 2x depth-to-space; white-balanced linear camera RGB, absolute scale, not clipped",
    }

    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = RGGB) -> Tensor:
        n, _, h, w = planes.shape
        stabilised = vst.forward(planes, curve_offset(shot, read))
        told = F.pixel_unshuffle(masks(2 * h, 2 * w, cfa), 2).to(planes)
        return torch.cat([stabilised, told.expand(n, -1, -1, -1)], 1)

    def estimate(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return x[:, :4].repeat(1, 3, 1, 1) + y

    def decode(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        linear = vst.inverse(self.estimate(x, y, shot, read, wb), curve_offset(shot, read))
        return F.pixel_shuffle(linear, 2)


CONTRACT = CfaMasks()
