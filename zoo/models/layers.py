"""What the reference families share: the U-Net's body, the demosaic as a layer, folding of batch norms."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zoo.models.contracts.bayer_vst import malvar_weight

LEVELS = 4  # halvings of the classical U-Net; its grid must be a multiple of 2**LEVELS


class UNet(nn.Module):
    """The classical U-Net body (Ronneberger, Fischer & Brox, MICCAI 2015) with zero-padded convolutions.

    Args:
        inputs: channels in.
        width: channels at the grid's own resolution, which come out; they double with each of the four halvings.
        block: makes the layers of one level from (channels in, channels out).

    Shape:
        float ``[N, inputs, H, W]`` -> ``[N, width, H, W]``; H and W multiples of 16.
    """

    def __init__(self, inputs: int, width: int, block: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.encoder = nn.ModuleList(block(a, b) for a, b in zip([inputs, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        upward = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in upward)
        self.decoder = nn.ModuleList(block(a, b) for a, b in upward)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], 1))
        return x


class LinearDemosaic(nn.Conv2d):
    """The contract's linear demosaic (Malvar 2004) as a layer without parameters: ``[N, 4, h, w] -> [N, 12, h, w]``.

    It pads with zeros where :func:`~zoo.models.contracts.bayer_vst.linear_demosaic` replicates: not every delegate replicates,
    and only the outermost pixel of a tile's margin differs.
    """

    def __init__(self) -> None:
        super().__init__(4, 12, 3, padding=1, bias=False)
        del self.weight
        self.register_buffer("weight", malvar_weight().clone(), persistent=False)


class BilinearUp(nn.Module):
    """Twice the size, bilinear; as a layer so that its reach is counted like that of all others."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def initialise(model: nn.Module) -> None:
    """Kaiming-normal weights by fan-out for all (transposed) convolutions with parameters; biases stay torch's own."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and isinstance(module.weight, nn.Parameter):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose convolutions have taken in the batch norms that follow them in the same ``nn.Sequential``.

    Same function to rounding, fewer operators: the form that is exported.
    """
    folded = copy.deepcopy(model).eval()
    for sequence in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        layers = list(sequence)
        for index, (first, second) in enumerate(zip(layers[:-1], layers[1:], strict=True)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                sequence[index] = fuse_conv_bn_eval(first, second)
                sequence[index + 1] = nn.Identity()
    return folded
