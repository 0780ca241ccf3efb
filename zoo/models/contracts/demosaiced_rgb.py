"""What goes into the 9-5-5 CNN and what comes out: the contract ``demosaiced_rgb_v1``.

A network that cleans up after a demosaicer (github.com/kunzmi/NNDemosaicAndDenoise, 2018). Linear, no curve, blind to noise.

* in: float32 ``[N, 12, h, w]``, packed RGB (channel ``c*4 + 2*dy + dx``): the white-balanced mosaic demosaiced along edges,
  highlights repaired, white balance taken off again, minus 0.5.
* out: float32 ``[N, 12, h, w]``, RGB in the same units: plus 0.5, times white balance it is linear camera RGB.

Demosaicing: green is the mean of a horizontal and a vertical candidate, each weighted by the gradient and curvature along the
*other* direction; red and blue are green plus the mean colour difference of the nearest 2 or 4 samples. Highlights: where red or
blue lies above 1 and green at 0.999 or more, the sensor's green is clipped and becomes the mean of red and blue.

Where this differs from the original:

* Scale is absolute and nothing is clipped, below black neither; the original clips to 0..1 before the network.
* One network for all noise levels instead of one for each of seven ISOs.
* The border is mirrored instead of lost (2 px to the demosaicer, 8 px to valid convolutions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.contracts import Contract
from zoo.models.contracts.bayer_vst import curve_offset
from zoo.raw import vst

_OFFSET = 0.5
_CLIPPED = 0.999
_RING = 4  # sensor pixels of mirrored border; the demosaicer reads 3, and an even ring keeps the phase


def edge_aware_demosaic(planes: Tensor) -> Tensor:
    """Demosaic along edges; see the module. Element-wise sums in a fixed order, so results do not depend on the tile.

    Args:
        planes: float ``[N, 4, h, w]``, balanced, R, G1, G2, B; h and w at least 3.

    Returns:
        float ``[N, 3, 2h, 2w]``; measured samples pass through, to rounding. The border is mirrored.
    """
    mosaic = F.pad(F.pixel_shuffle(planes, 2), (_RING,) * 4, mode="reflect")[:, 0]
    rows = torch.arange(mosaic.shape[-2], device=planes.device)[:, None] % 2
    columns = torch.arange(mosaic.shape[-1], device=planes.device)[None, :] % 2
    along_x, across_x = _candidate(mosaic, -1)
    along_y, across_y = _candidate(mosaic, -2)
    weight = across_y / (across_x + across_y + 1e-9)
    green = torch.where(rows == columns, weight * along_x + (1 - weight) * along_y, mosaic)
    difference = mosaic - green
    red = green + _spread(difference * ((rows == 0) & (columns == 0)))
    blue = green + _spread(difference * ((rows == 1) & (columns == 1)))
    return torch.stack([red, green, blue], 1)[..., _RING:-_RING, _RING:-_RING]


def _candidate(mosaic: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Green along one axis at red and blue, and how much the picture changes along it."""
    far = [mosaic.roll(shift, axis) for shift in (2, -2)]
    near = [mosaic.roll(shift, axis) for shift in (1, -1)]
    curvature = 2 * mosaic - far[0] - far[1]
    change = (near[1] - near[0]).abs() / 2 + curvature.abs() / 4
    return (4 * (near[0] + near[1]) + curvature) / 8, change


def _spread(difference: Tensor) -> Tensor:
    """Means over the nearest samples of a quarter grid, zero elsewhere: 1 at a sample, of 2 beside it, of 4 between four."""
    for axis in (-1, -2):
        difference = difference + (difference.roll(1, axis) + difference.roll(-1, axis)) / 2
    return difference


def repair_highlights(rgb: Tensor) -> Tensor:
    """Green where the sensor clipped it: the mean of red and blue. Balanced RGB ``[N, 3, H, W]`` in and out."""
    red, green, blue = rgb.unbind(1)
    clipped = ((red > 1) | (blue > 1)) & (green >= _CLIPPED)
    return torch.stack([red, torch.where(clipped, (red + blue) / 2, green), blue], 1)


class DemosaicedRgb(Contract):
    """The contract; see the module."""

    name = "demosaiced_rgb_v1"
    in_channels = out_channels = 12
    halo = 2
    words: ClassVar[Mapping[str, str]] = {
        "input": "float32 NCHW, 12 planes (colour*4 + 2*dy + dx, 2x space-to-depth) of RGB: the RGGB mosaic, "
        "(raw-black)/(white-black) x white balance (green = 1), not clipped, demosaiced along edges; green where it is >= 0.999 "
        "and red or blue > 1 := (red+blue)/2; then / white balance, then - 0.5",
        "demosaic": "green at red and blue p: weighted mean of (-p[-2]+4g[-1]+2p+4g[+1]-p[+2])/8 along x and along y, weights "
        "the other axis' |g[+1]-g[-1]|/2 + |2p-p[-2]-p[+2]|/4; red and blue: green + mean difference of the nearest 2 or 4",
        "output": "float32 NCHW, 12 planes y in the input's units: (y+0.5) x white balance, then 2x depth-to-space; "
        "white-balanced linear camera RGB, absolute scale, not clipped",
    }

    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = "RGGB") -> Tensor:
        rgb = repair_highlights(edge_aware_demosaic(planes)) / wb[:, :, None, None]
        return F.pixel_unshuffle(rgb - _OFFSET, 2)

    def estimate(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return vst.forward(self._balanced(y, wb), curve_offset(shot, read))

    def decode(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return F.pixel_shuffle(self._balanced(y, wb), 2)

    @staticmethod
    def _balanced(y: Tensor, wb: Tensor) -> Tensor:
        return (y + _OFFSET) * wb.repeat_interleave(4, 1)[:, :, None, None]


CONTRACT = DemosaicedRgb()
