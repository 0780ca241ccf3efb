"""What goes into the networks and what comes out: the contract ``bayer_vst_v1``.

The network itself is convolutions only and fits every int8 delegate. What stands around it is a few point functions and one
fixed 3x3 filter, which an app does in one pass over the picture:

* in: float32 ``[N, 12, h, w]``: four packed planes R, G1, G2, B (RGGB, half resolution each way) of the white-balanced
  mosaic in the VST domain; the same four as detail: minus their 3x3 means, over four times the working range, clamped; four
  constant planes that tell the noise: ``2*sqrt(sigma)`` for R, G, B and the root of the curve's offset. All of them lie in
  about [-1.5, 1.5], so that one int8 scale serves.
* out: float32 ``[N, 12, h, w]``: a correction in units of the working range, to be added in the VST domain to the linear
  demosaic of the same planes; channel ``c*4 + 2*dy + dx`` is colour c of sub-pixel (dy, dx), so that a 2x depth-to-space
  gives RGB at sensor resolution.

The working range grows with the noise: ``0.03 + sigma``. Without it, one int8 scale had to hold corrections with a standard
deviation of 0.011 (no noise) and of 0.122 (ISO 12,800), and quantisation cost 1.0 dB on pictures without noise: 0.36 dB at the
input, 0.4 to 0.5 dB at each tensor of packed resolution, nothing below. The detail planes carry what the first of these lost.
(Companding detail and correction would spend the steps better still, but trained 0.3 dB worse each after 2,000 steps.)

White balance comes first because neutral edges are then equal in all planes, which is what demosaicing lives on; noise
parameters are balanced with it. Scale is absolute and nothing is clipped: zero in with a zero correction is zero out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.contracts import Contract
from zoo.raw import vst

IN_CHANNELS = 12
OUT_CHANNELS = 12
BASELINE_HALO = 1  # packed pixels that the linear demosaic reads beyond its own

# The signal level at which the noise planes state sigma: middle grey.
_REFERENCE_LEVEL = 0.18
MIN_RANGE = 0.03  # working range without noise; 99.9 % of corrections then lie within three of it
_DETAIL_SCALE, _DETAIL_LIMIT = 4.0, 1.5


def encode(planes: Tensor, shot: Tensor, read: Tensor) -> Tensor:
    """Network input for a white-balanced packed mosaic.

    Args:
        planes: float ``[N, 4, h, w]``, linear, black = 0, white = 1 (x gain), order R, G1, G2, B, not clipped.
        shot: float ``[N, 3]``, S per colour R, G, B of ``var = S*x + O`` in the same balanced units, >= 0.
        read: float ``[N, 3]``, O per colour, >= 0.

    Returns:
        float ``[N, 12, h, w]``.
    """
    stabilised = vst.forward(planes, curve_offset(shot, read))
    return torch.cat([stabilised, *noise_relative(stabilised, shot, read)], 1)


def noise_relative(stabilised: Tensor, shot: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`encode` puts beside the mosaic in the VST domain, ``[N, 4, h, w]``: its detail; planes that tell the noise."""
    detail = (stabilised - _mean3x3(stabilised)) / (_DETAIL_SCALE * working_range(shot, read))
    # Six working ranges: edges beyond that show in the planes themselves, and would cost all others their int8 steps.
    detail = detail.clamp(-_DETAIL_LIMIT, _DETAIL_LIMIT)
    # The root spreads ISO 50 (sigma 0.002) to ISO 50,000 (0.3) over an int8 range: 16 steps at the bottom instead of one.
    condition = torch.cat([2 * _sigma(shot, read).sqrt(), curve_offset(shot, read).view(-1, 1).sqrt()], 1)
    return detail, condition[:, :, None, None].expand(-1, -1, *stabilised.shape[2:])


def _mean3x3(planes: Tensor) -> Tensor:
    """Means of 3x3 pixels, edges replicated. As sums of shifted planes: torch's pooling takes fourteen times as long on a CPU."""
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def decode(x: Tensor, correction: Tensor, shot: Tensor, read: Tensor) -> Tensor:
    """Linear RGB from the network's input and output.

    Args:
        x: float ``[N, 12, h, w]`` from :func:`encode`.
        correction: float ``[N, 12, h, w]``, the network's output for ``x``.
        shot: float ``[N, 3]`` as given to :func:`encode`.
        read: float ``[N, 3]`` as given to :func:`encode`.

    Returns:
        float ``[N, 3, 2h, 2w]``, white-balanced linear camera RGB, not clipped.
    """
    stabilised = linear_demosaic(x[:, :4]) + expand(correction, shot, read)
    return F.pixel_shuffle(vst.inverse(stabilised, curve_offset(shot, read)), 2)


def expand(correction: Tensor, shot: Tensor, read: Tensor) -> Tensor:
    """The network's output as a correction in the VST domain."""
    return correction * working_range(shot, read)


def working_range(shot: Tensor, read: Tensor) -> Tensor:
    """The unit of the network's output and of its detail planes, in the VST domain: ``[N, 1, 1, 1]``."""
    return (MIN_RANGE + _sigma(shot, read)[:, 1]).view(-1, 1, 1, 1)


def _sigma(shot: Tensor, read: Tensor) -> Tensor:
    """Standard deviation of the noise in the VST domain at middle grey, ``[N, 3]``."""
    offset = curve_offset(shot, read).view(-1, 1).expand_as(shot)
    return vst.noise_std(_REFERENCE_LEVEL, shot, read, offset)


def curve_offset(shot: Tensor, read: Tensor) -> Tensor:
    """Offset of the VST curve, ``[N, 1, 1, 1]``: the green channel's, for all planes, so that grey stays grey."""
    return vst.curve_offset(shot[:, 1], read[:, 1]).view(-1, 1, 1, 1)


def linear_demosaic(planes: Tensor) -> Tensor:
    """Gradient-corrected linear interpolation (Malvar, He & Cutler, ICASSP 2004) as one 3x3 convolution on packed planes.

    Args:
        planes: float ``[N, 4, h, w]``, R, G1, G2, B.

    Returns:
        float ``[N, 12, h, w]``; measured samples pass through unchanged. Edges are replicated.
    """
    weight = malvar_weight().to(planes)
    return F.conv2d(F.pad(planes, (1, 1, 1, 1), mode="replicate"), weight)


def _summed_demosaic(planes: Tensor) -> Tensor:
    """:func:`linear_demosaic` by sums of shifted planes.

    A convolution in float32 adds in an order that depends on the size of the tile, so that tilings differed in the last bit; in
    float64 it takes 6 ms for a tile of 256 on one core, these sums 1.5.
    """
    h, w = planes.shape[2:]
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")

    def at(plane: int, dy: int, dx: int) -> Tensor:
        return padded[:, plane, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    r, g1, g2, b = (planes[:, plane] for plane in range(4))
    beside = [at(plane, 0, -1) + at(plane, 0, 1) for plane in range(4)]
    above = [at(plane, -1, 0) + at(plane, 1, 0) for plane in range(4)]

    def green(centre: Tensor, plane: int, near: Tensor) -> Tensor:
        return centre * 0.5 + near * 0.25 - (beside[plane] + above[plane]) * 0.125

    def along(centre: Tensor, near: Tensor, diagonal: Tensor, line: Tensor, other: Tensor) -> Tensor:
        return centre * 0.625 + near * 0.5 - (diagonal + line) * 0.125 + other * 0.0625

    def across(centre: Tensor, plane: int, diagonal: Tensor) -> Tensor:
        return centre * 0.75 + diagonal * 0.25 - (beside[plane] + above[plane]) * 0.1875

    around1 = (g2 + at(2, 0, 1)) + (at(2, -1, 0) + at(2, -1, 1))  # the other greens at the corners of a green
    around2 = (g1 + at(1, 0, -1)) + (at(1, 1, 0) + at(1, 1, -1))
    reds = [
        r,
        along(g1, r + at(0, 0, 1), around1, beside[1], above[1]),
        along(g2, r + at(0, 1, 0), around2, above[2], beside[2]),
        across(b, 3, (r + at(0, 0, 1)) + (at(0, 1, 0) + at(0, 1, 1))),
    ]
    greens = [
        green(r, 0, (g1 + at(1, 0, -1)) + (g2 + at(2, -1, 0))), g1, g2,
        green(b, 3, (g2 + at(2, 0, 1)) + (g1 + at(1, 1, 0))),
    ]  # fmt: skip
    blues = [
        across(r, 0, (b + at(3, 0, -1)) + (at(3, -1, 0) + at(3, -1, -1))),
        along(g1, b + at(3, -1, 0), around1, above[1], beside[1]),
        along(g2, b + at(3, 0, -1), around2, beside[2], above[2]),
        b,
    ]
    return torch.stack([*reds, *greens, *blues], 1)


@cache
def malvar_weight() -> Tensor:
    """The 5x5 filters of Malvar et al. (fig. 2), rearranged for packed planes: ``[12, 4, 3, 3]``."""
    with torch.device(
        "cpu"
    ):  # cached: it must not take on the device that its first caller happens to build a model on
        return _build_malvar_weight()


def _build_malvar_weight() -> Tensor:
    identity = torch.zeros(5, 5)
    identity[2, 2] = 8
    green = torch.tensor([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]])
    along = torch.tensor(
        [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
    )
    across = torch.tensor(
        [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
    )
    # Filter per output colour and sub-pixel: (0,0) is R, (0,1) G with R beside it, (1,0) G with R above it, (1,1) B.
    filters = [
        [identity, along, along.T, across],
        [green, identity, identity, green],
        [across, along.T, along, identity],
    ]
    weight = torch.zeros(12, 4, 3, 3)
    for colour in range(3):
        for sub in range(4):
            for ky in range(5):
                for kx in range(5):
                    y, x = sub // 2 + ky - 2, sub % 2 + kx - 2  # sensor position relative to the 2x2 cell
                    plane = (y % 2) * 2 + x % 2
                    weight[colour * 4 + sub, plane, y // 2 + 1, x // 2 + 1] += filters[colour][sub][ky, kx] / 8
    return weight


class BayerVst(Contract):
    """The functions above as the contract that training, inference and export ask for."""

    name = "bayer_vst_v1"
    in_channels, out_channels, halo = IN_CHANNELS, OUT_CHANNELS, BASELINE_HALO
    # Agreed, not searched: a search by mean squares had utnet-l's end at 1.34, which cut off the 2 % of detail that are the
    # strongest edges, and that was half of what its input cost, 0.08 of 0.16 dB without noise, 0.035 of 0.066 at ISO 800.
    int8_range = (-_DETAIL_LIMIT, _DETAIL_LIMIT)
    words: ClassVar[Mapping[str, str]] = {
        "input": "float32 NCHW; planes 0-3: R, G1, G2, B of the RGGB mosaic, (raw-black)/(white-black) x white balance "
        "(green = 1), not clipped, then VST; 4-7: the same minus their 3x3 means, over 4*range, clamped to +-1.5; 8-10: "
        "2*sqrt(sigma) of R, G, B; 11: sqrt(c)",
        "vst": "x/(sqrt(max(x,0)+c)+sqrt(c))/(sqrt(1+c)-sqrt(c)); c = clamp(3/8*S + O/S, 1/512, 1) of green; noise variance "
        "S*x+O after white balance",
        "range": "0.03 + sigma of green; sigma = sqrt(S*0.18+O) * 0.5/sqrt(0.18+c)/(sqrt(1+c)-sqrt(c))",
        "output": "float32 NCHW, 12 planes y; y*range is added to the Malvar 2004 demosaic of planes 0-3; then "
        "inverse VST, then 2x depth-to-space (plane = colour*4 + 2*dy + dx); white-balanced linear camera RGB, absolute "
        "scale, not clipped",
    }

    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = "RGGB") -> Tensor:
        return encode(planes, shot, read)

    def estimate(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return linear_demosaic(x[:, :4]) + expand(y, shot, read)

    def decode(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        # decode() above, but the same to the bit whatever the tile.
        stabilised = _summed_demosaic(x[:, :4]) + expand(y, shot, read)
        return F.pixel_shuffle(vst.inverse(stabilised, curve_offset(shot, read)), 2)


CONTRACT = BayerVst()
