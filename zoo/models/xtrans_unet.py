"""X-Trans U-Net: the classical U-Net at sensor resolution, told which colour each pixel measured.

github.com/naorunaoru/x-veon (its fourth version, at d751a86), written anew from layer shapes: two bias-free 3x3 convolutions with
batch norm and ReLU per level, max pooling, transposed 2x2 convolutions, concatenated skips. One set of weights for Bayer and
X-Trans.

Batch norm and absolute scale: in training, each batch is divided by its own spread, so the network cannot learn how strong a
feature is in absolute terms; in use, running means take over, which no picture matches exactly. The residual over the measured
value keeps that out of the picture's level: only the correction is rescaled. (The original's output is the picture itself.) At
export, norms are folded into the convolutions (:func:`zoo.models.layers.fold_norms`).

Where else this differs from the original: see the contract, :mod:`zoo.models.contracts.cfa_masks`; and the halo follows from the
layers, about 55 packed pixels, where the original blends tiles that overlap by 24.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.layers import UNet, initialise
from zoo.models.registry import register_model

_PLANES = 4  # the mosaic and three masks
_HEAD_START = 0.05


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class XTransUNet(nn.Module):
    """The U-Net.

    Args:
        width: channels at sensor resolution.

    Shape:
        float ``[N, 16, h, w]`` -> ``[N, 12, h, w]``, packed as the contract ``cfa_masks_v1`` has it; h and w multiples of 8.
    """

    contract = "cfa_masks_v1"
    int8: ClassVar[bool] = False

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = UNet(_PLANES, width, _block)
        self.head = nn.Conv2d(width, 3, 1)
        initialise(self)
        self.head.weight.data *= _HEAD_START
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(self.head(self.body(F.pixel_shuffle(x, 2))), 2)


@register_model
def xtrans_unet() -> nn.Module:
    """X-Trans U-Net at its published size: 736 GMAC per megapixel."""
    return XTransUNet()


@register_model
def xtrans_unet_32() -> nn.Module:
    """X-Trans U-Net, half as wide: 185 GMAC per megapixel."""
    return XTransUNet(32)


@register_model
def xtrans_unet_16() -> nn.Module:
    """X-Trans U-Net, a quarter as wide: 46 GMAC per megapixel."""
    return XTransUNet(16)
