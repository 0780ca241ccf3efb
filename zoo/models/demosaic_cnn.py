"""The 9-5-5 CNN: three wide convolutions that clean up after a classical demosaicer.

github.com/kunzmi/NNDemosaicAndDenoise (2018, at 1e19ad2), written anew from layer shapes; its structure is SRCNN's (Dong et al.,
ECCV 2014) with PReLU. No skip connection: the picture itself passes through all layers.

Where this differs from the original (and see the contract, :mod:`zoo.models.contracts.demosaiced_rgb`):

* It starts as the identity, carried by six of the 64 channels as the positive and negative part of each colour, and the other
  channels with a twentieth of their weight in the last layer. From random weights alone its authors needed two weeks per ISO.
* All pixels count in the loss; theirs looked at the centre of 31x31 patches, one pixel in 961.
* "Same" convolutions with zeros, which stay in the tile's margin; theirs lose 8 px per side.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.registry import register_model

_SLOPE = 0.1  # of the PReLUs at the start
_HEAD_START = 0.05


class DemosaicCnn(nn.Module):
    """Convolutions 9x9, 5x5 and 5x5 at sensor resolution.

    Args:
        width: channels between them, at least 6.

    Shape:
        float ``[N, 12, h, w]`` -> ``[N, 12, h, w]``, packed RGB as the contract ``demosaiced_rgb_v1`` has it; any size.
    """

    contract = "demosaiced_rgb_v1"
    int8: ClassVar[bool] = False

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 9, padding=4)
        self.first_act = nn.PReLU(width, _SLOPE)
        self.second = nn.Conv2d(width, width, 5, padding=2)
        self.second_act = nn.PReLU(width, _SLOPE)
        self.last = nn.Conv2d(width, 3, 5, padding=2)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for conv in (self.first, self.second, self.last):
            bound = (3 / conv.weight[0].numel()) ** 0.5
            conv.weight.uniform_(-bound, bound)
            assert conv.bias is not None
            conv.bias.zero_()
        self.last.weight *= _HEAD_START
        # Channels 0-2 carry R, G, B and 3-5 their negatives; prelu(v) - prelu(-v) = (1 + slope) * v for every v.
        centre = 1 / (1 + _SLOPE)
        for conv in (self.first, self.second):
            conv.weight[:6] = 0
        self.last.weight[:, :6] = 0
        for colour in range(3):
            for sign, channel in ((1.0, colour), (-1.0, colour + 3)):
                self.first.weight[channel, colour, 4, 4] = sign
                self.second.weight[channel, colour, 2, 2] = sign * centre
                self.second.weight[channel, colour + 3, 2, 2] = -sign * centre
                self.last.weight[colour, channel, 2, 2] = sign * centre

    def forward(self, x: Tensor) -> Tensor:
        features = self.first_act(self.first(F.pixel_shuffle(x, 2)))
        features = self.second_act(self.second(features))
        return F.pixel_unshuffle(self.last(features), 2)


@register_model
def demosaic_cnn() -> nn.Module:
    """The CNN at its published size: 123 GMAC per megapixel."""
    return DemosaicCnn()
