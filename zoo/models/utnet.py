"""Compact UtNet: a U-Net for joint denoising + demosaicing that was drawn for int8 delegates.

UtNet2 (the U-Net of RawNIND, github.com/trougnouf/rawnind_jddc) costs 46 GMAC per megapixel. Here the width sits below packed
resolution: a strided convolution takes 2x2 packed pixels at once, and packed resolution keeps one 3x3 convolution that sees the
mosaic, one that makes the output, and few channels between them. These earn their cost: a like pyramid without them stood at
31.5 dB after 1,500 steps, with two of them at 33.7 after 1,650, and two more at the pyramid's expense gained utnet-m another 0.35
(docs/training-log.md, "Choice of the architecture", "Which form").

Nothing but Conv2d, ConvTranspose2d(k2, s2), ReLU and add: each of these is one int8 operator on ExecuTorch (XNNPACK), LiteRT
and Core ML. No batch norm, since nets with it lost 1-2 dB to post-training quantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS
from zoo.models.registry import register_model


class CompactUtNet(nn.Module):
    """U-Net on packed Bayer planes.

    Args:
        widths: channels per level; level 0 is half the packed resolution, each further level half of the one before.
        encoder_depth: 3x3 convolutions per level on the way down (the last entry is the bottom).
        decoder_depth: 3x3 convolutions per level on the way up, one entry less than ``widths``.
        head_width: channels of the branch at packed resolution, which sees the input and feeds a 3x3 head.
        head_depth: 3x3 convolutions of that branch between the sum with the pyramid and the head.

    Shape:
        float ``[N, 12, h, w]`` -> ``[N, 12, h, w]`` (see :mod:`~zoo.models.contracts.bayer_vst`); h and w multiples of
        ``2**len(widths)``.
    """

    # Tensors whose magnitude training keeps below a limit (Trainer adds a penalty): they lie at packed resolution, where an
    # int8 step shows in the picture. Left alone, the expansion used -50 to switch channels off, and its int8 step cost 1 dB.
    range_limits: ClassVar[dict[str, float]] = {"skip": 6.0, "expand": 6.0}

    def __init__(
        self,
        widths: tuple[int, ...],
        encoder_depth: tuple[int, ...],
        decoder_depth: tuple[int, ...],
        head_width: int,
        head_depth: int = 0,
    ) -> None:
        super().__init__()
        if len(encoder_depth) != len(widths) or len(decoder_depth) != len(widths) - 1:
            raise ValueError("encoder_depth needs one entry per width, decoder_depth one less")

        def block(width: int, depth: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))

        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.skip = nn.Conv2d(IN_CHANNELS, head_width, 3, padding=1)
        self.stem = nn.Conv2d(IN_CHANNELS, widths[0], 2, stride=2)
        self.encoder = nn.ModuleList(block(w, d) for w, d in zip(widths, encoder_depth, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.decoder = nn.ModuleList(block(w, d) for w, d in zip(widths[:-1], decoder_depth, strict=True))
        self.expand = nn.ConvTranspose2d(widths[0], head_width, 2, stride=2)
        self.fine = block(head_width, head_depth)
        self.head = nn.Conv2d(head_width, OUT_CHANNELS, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if isinstance(module, nn.ConvTranspose2d):
                    # Each output pixel sees one tap of the kernel, four times fewer inputs than fan-in counts.
                    module.weight.data *= 0.7
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The net starts as no correction at all: the picture is then the linear demosaic.
        self.head.weight.data *= 0.05

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.stem(x))
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            features = _convolve(block, features)
            if level < len(self.down):
                skips.append(features)
                features = F.relu(self.down[level](features))
        for level in reversed(range(len(self.up))):
            features = F.relu(self.up[level](features) + skips[level])
            features = _convolve(self.decoder[level], features)
        return self.head(_convolve(self.fine, F.relu(self.expand(features) + self.skip(x))))

    @torch.no_grad()
    def grow(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a network of this form, of as many levels, that is as large or smaller, and compute what it does.

        Nothing reads channels that it has not, layers that it has not pass through what it has (Net2Net: Chen, Goodfellow &
        Shlens, ICLR 2016; but new channels are drawn, not copied). What new channels and layers make of all others is left as
        drawn.

        Raises:
            RuntimeError: weights of another form, or of a larger network.
        """
        state = self.state_dict()
        # Whose results a block of convolutions takes: by it weights tell how wide their network is there.
        makers = {"fine": "skip"}
        for level in range(len(self.encoder)):
            makers |= dict.fromkeys((f"encoder.{level}", f"decoder.{level}"), f"down.{level - 1}" if level else "stem")
        given = dict(weights)
        for name in state.keys() - given.keys():
            layer, _, kind = name.rpartition(".")
            maker = makers.get(layer.rpartition(".")[0])
            if maker and f"{maker}.bias" in weights:  # else there is a level less
                given[name] = _passing(len(weights[f"{maker}.bias"]), kind)
        if odd := given.keys() ^ state.keys():
            raise RuntimeError(f"weights of another form:\n{min(odd)} is in one of the two alone")
        for name, own in state.items():
            theirs, ours = tuple(given[name].shape), tuple(own.shape)
            if any(a > b for a, b in zip(theirs, ours, strict=True)):
                raise RuntimeError(f"weights of a larger network:\n{name} is {theirs} there, {ours} here")
        for name, own in state.items():
            old = given[name]
            if old.ndim == 1:
                own.zero_()
            elif isinstance(self.get_submodule(name.rpartition(".")[0]), nn.ConvTranspose2d):
                own[old.shape[0] :, : old.shape[1]] = 0
            else:
                own[: old.shape[0], old.shape[1] :] = 0
            own[tuple(slice(n) for n in old.shape)] = old


class DemosaicUtNet(CompactUtNet):
    """The same for mosaics without noise."""

    task = "demosaic"


def _passing(width: int, kind: str) -> Tensor:
    """Weight or bias of a 3x3 convolution that gives what it takes."""
    if kind == "bias":
        return torch.zeros(width)
    weight = torch.zeros(width, width, 3, 3)
    weight[:, :, 1, 1] = torch.eye(width)
    return weight


def _convolve(block: nn.Module, features: Tensor) -> Tensor:
    for conv in block.children():
        features = F.relu(conv(features))
    return features


@register_model
def utnet_n() -> nn.Module:
    """Nano: 1 GMAC per megapixel, for previews and video."""
    return CompactUtNet((16, 24, 32), encoder_depth=(0, 1, 1), decoder_depth=(0, 0), head_width=8, head_depth=2)


@register_model
def utnet_s() -> nn.Module:
    """Small: 2 GMAC per megapixel."""
    return CompactUtNet((24, 32, 48), encoder_depth=(0, 1, 1), decoder_depth=(0, 0), head_width=16, head_depth=1)


@register_model
def utnet_m() -> nn.Module:
    """Medium, the flagship: 4 GMAC per megapixel."""
    return CompactUtNet((32, 48, 64), encoder_depth=(0, 1, 1), decoder_depth=(0, 0), head_width=20, head_depth=2)


@register_model
def utnet_l() -> nn.Module:
    """Large: 10 GMAC per megapixel, for stills where the picture counts more than the time.

    Two levels: a third had died in training, unnoticed, and it was ahead of every peer without (docs/training-log.md).
    """
    return CompactUtNet((32, 48), encoder_depth=(0, 2), decoder_depth=(1,), head_width=32, head_depth=3)


@register_model
def utnet_demosaic() -> nn.Module:
    """Demosaicing alone: 14 GMAC per megapixel, nearly all of it at packed resolution. It takes noise for texture."""
    return DemosaicUtNet((32, 48), encoder_depth=(0, 1), decoder_depth=(0,), head_width=32, head_depth=5)
