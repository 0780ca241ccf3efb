"""PMRID: denoising of the packed mosaic by a U-Net of separable convolutions, after the k-Sigma transform.

Wang, Huang, Xu, Liu, Liu and Wang, "Practical Deep Raw Image Denoising on Mobile Devices", ECCV 2020; layers as counted from
their public checkpoint (github.com/MegEngine/PMRID, Apache-2.0). Submodules bear that checkpoint's names, so its tensors load
with ``load_state_dict``. What comes out is a mosaic: the contract (:mod:`zoo.models.contracts.ksigma_bayer`) demosaics it.

Where this differs from the original:

* h and w need be multiples of 16, the total stride; the original pads to 32, twice as much as four halvings ask for.
* The halo follows from the layers: about 500 packed pixels, since the two lower stages hold fourteen 5x5 convolutions at 1/8
  and 1/16. The original was run on whole pictures. Tiles smaller than that are refused rather than made to look right.
* Padding is zero, inside the tiles' margin only; the original let it reach the picture's border.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.registry import register_model


class SeparableConv(nn.Module):
    """Depthwise ``kernel`` x ``kernel`` convolution without bias, then a pointwise one with bias; ReLU if asked for."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, relu: bool = False) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        return F.relu(y) if self.relu else y


class PlainConv(nn.Module):
    """3x3 convolution; ReLU if asked for."""

    def __init__(self, inputs: int, outputs: int, *, relu: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return F.relu(y) if self.relu else y


class EncoderBlock(nn.Module):
    """Bottleneck of two 5x5 separable convolutions through a quarter of the output's channels, with a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = SeparableConv(inputs, outputs // 4, 5, stride=stride, relu=True)
        self.conv2 = SeparableConv(outputs // 4, outputs, 5)
        same = inputs == outputs and stride == 1
        self.proj = nn.Identity() if same else SeparableConv(inputs, outputs, 3, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.proj(x))


class ResidualBlock(nn.Module):
    """Two 3x3 separable convolutions, ReLU after the first, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv0 = SeparableConv(width, width, 3, relu=True)
        self.conv1 = SeparableConv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv1(self.conv0(x))


class DecoderStage(nn.Module):
    """Residual block, 2x up by a transposed convolution, plus the projected skip."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.decode_conv = ResidualBlock(inputs)
        self.upsample = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.proj_conv = SeparableConv(skip, outputs, 3, relu=True)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.upsample(self.decode_conv(x)) + self.proj_conv(skip)


class PMRID(nn.Module):
    """The network; 1,031,908 parameters, 3.74 GMAC per sensor megapixel.

    Shape:
        float ``[N, 4, h, w]`` -> ``[N, 4, h, w]``: packed planes R, G1, G2, B after the k-Sigma transform and times 256, as the
        contract ``ksigma_bayer_v1`` makes them, and their estimate without noise (input + correction) in the same units;
        h and w multiples of 16.
    """

    contract = "ksigma_bayer_v1"
    task = "denoise"
    int8: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = PlainConv(4, 16, relu=True)
        self.enc1 = _encoder_stage(16, 64, blocks=2)
        self.enc2 = _encoder_stage(64, 128, blocks=2)
        self.enc3 = _encoder_stage(128, 256, blocks=4)
        self.enc4 = _encoder_stage(256, 512, blocks=4)
        self.encdec = SeparableConv(512, 64, 3, relu=True)
        self.dec1 = DecoderStage(64, 256, 64)
        self.dec2 = DecoderStage(64, 128, 32)
        self.dec3 = DecoderStage(32, 64, 32)
        self.dec4 = DecoderStage(32, 16, 16)
        self.out0 = ResidualBlock(16)
        self.out1 = PlainConv(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        packed = self.conv0(x)
        half = self.enc1(packed)
        quarter = self.enc2(half)
        eighth = self.enc3(quarter)
        features = self.encdec(self.enc4(eighth))
        features = self.dec1(features, eighth)
        features = self.dec2(features, quarter)
        features = self.dec3(features, half)
        features = self.dec4(features, packed)
        return x + self.out1(self.out0(features))


def _encoder_stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = EncoderBlock(inputs, outputs, stride=2)
    return nn.Sequential(first, *(EncoderBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)))


@register_model
def pmrid() -> nn.Module:
    """PMRID at its published size: 3.7 GMAC per megapixel, denoises the mosaic."""
    return PMRID()
