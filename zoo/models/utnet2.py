"""UtNet2 and UtNet3, the U-Nets of RawNIND, and the identity to measure them against.

Brummer and De Vleeschouwer, "Learning Joint Denoising, Demosaicing, and Compression from the Raw Natural Image Noise Dataset"
(arXiv 2501.08924; github.com/trougnouf/rawnind_jddc at 4d455aa), written anew from layer shapes: a plain U-Net with
LeakyReLU(0.2), max pooling, transposed 2x2 convolutions and concatenated skips, no normalisation. Blind to noise.

Where these differ from the originals:

* Absolute scale. The originals' output is rescaled to the truth's mean before their loss, so that its scale (even its sign) is
  left to chance: a factor near -3e9 was measured for one public checkpoint, and in fp16 it overflows. Here the network's output
  is a correction in the contract's unit, added to a linear demosaic; only how it starts out changed, not one layer.
* The halo follows from the layers, about 110 packed pixels; the deployed original overlaps its tiles by 32.
* White balance first: the originals never apply any, so that a grey edge is a colour edge to them.
* 2x depth-to-space comes after the network, as all contracts have it.

They read the first four of the contract's twelve planes: what else it tells, the originals did not know.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.contracts.bayer_vst import OUT_CHANNELS
from zoo.models.layers import BilinearUp, LinearDemosaic, UNet, initialise
from zoo.models.registry import register_model

_PLANES = 4
_SLOPE = 0.2
_HEAD_START = 0.05  # share of the head's initial weights that is kept: the picture starts as the linear demosaic


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
    )


class _Reference(nn.Module):
    """What all of the file declare, and their start."""

    contract = "bayer_vst_v1"
    int8: ClassVar[bool] = False
    head: nn.Conv2d

    def _initialise(self) -> None:
        initialise(self)
        self.head.weight.data *= _HEAD_START
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)


class UtNet2(_Reference):
    """The U-Net on packed planes.

    Args:
        width: channels at packed resolution.

    Shape:
        float ``[N, 12, h, w]`` -> ``[N, 12, h, w]`` (see :mod:`zoo.models.contracts.bayer_vst`); h and w multiples of 16.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = UNet(_PLANES, width, _block)
        self.head = nn.Conv2d(width, OUT_CHANNELS, 1)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x[:, :_PLANES]))


class UtNet2FullResolution(_Reference):
    """The U-Net at sensor resolution, four times the cost.

    Args:
        width: channels at sensor resolution.
        demosaic: linear demosaic in front (the originals' RGB variant; theirs is OpenCV's edge-aware one) rather than
            bilinear 2x of the packed planes (their "preupsample").

    Shape:
        float ``[N, 12, h, w]`` -> ``[N, 12, h, w]`` (see :mod:`zoo.models.contracts.bayer_vst`); h and w multiples of 8.
    """

    def __init__(self, width: int = 32, *, demosaic: bool) -> None:
        super().__init__()
        self.front: nn.Module = nn.Sequential(LinearDemosaic(), nn.PixelShuffle(2)) if demosaic else BilinearUp()
        self.body = UNet(3 if demosaic else _PLANES, width, _block)
        self.head = nn.Conv2d(width, 3, 1)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.head(self.body(self.front(x[:, :_PLANES]))), 2)


class UtNet3(_Reference):
    """UtNet2 with two residual blocks of 256 channels at packed resolution before its head.

    Shape:
        as :class:`UtNet2`.
    """

    def __init__(self, width: int = 32, refinement: int = 256) -> None:
        super().__init__()
        self.body = UNet(_PLANES, width, _block)
        self.widen = nn.Conv2d(width, refinement, 1)
        self.refine = nn.ModuleList(_block(refinement, refinement) for _ in range(2))
        self.narrow = nn.Conv2d(refinement, width, 1)
        self.head = nn.Conv2d(width, OUT_CHANNELS, 1)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        features = self.widen(self.body(x[:, :_PLANES]))
        for block in self.refine:
            features = features + block(features)
        return self.head(self.narrow(features))


class Passthrough(nn.Module):
    """No correction: the contract's linear demosaic, noise and all. No parameters (the original holds three dummies).

    Shape:
        float ``[N, 12, h, w]`` -> zeros ``[N, 12, h, w]``.
    """

    contract = "bayer_vst_v1"
    task = "demosaic"
    int8: ClassVar[bool] = False

    def forward(self, x: Tensor) -> Tensor:
        return x * 0


@register_model
def utnet2() -> nn.Module:
    """UtNet2 at its published size: 46 GMAC per megapixel."""
    return UtNet2()


@register_model
def utnet2_48() -> nn.Module:
    """UtNet2, half as wide again: 104 GMAC per megapixel."""
    return UtNet2(48)


@register_model
def utnet2_64() -> nn.Module:
    """UtNet2, twice as wide: 184 GMAC per megapixel."""
    return UtNet2(64)


@register_model
def utnet2_rgb() -> nn.Module:
    """UtNet2 on demosaiced RGB: 184 GMAC per megapixel."""
    return UtNet2FullResolution(demosaic=True)


@register_model
def utnet2_preupsample() -> nn.Module:
    """UtNet2 on upsampled planes: 185 GMAC per megapixel."""
    return UtNet2FullResolution(demosaic=False)


@register_model
def utnet3() -> nn.Module:
    """UtNet3 at its published size: 640 GMAC per megapixel."""
    return UtNet3()


@register_model
def passthrough() -> nn.Module:
    """No network: what the linear demosaic alone does."""
    return Passthrough()
