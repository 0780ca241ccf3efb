"""What all compressors share: two networks, the priors of the latents between them, and quality as gains outside the graphs.

One model covers all rates: per-channel gains scale the latents before rounding, others scale them back (Cui et al., CVPR 2021,
"Asymmetric Gained Deep Image Compression"). The networks, and so the files for phones, are the same at every quality.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.contracts import get_contract
from zoo.models.contracts.bayer_codec import BayerCodecContract
from zoo.models.priors import ManyPriors

TASK = "denoise+demosaic+compress"
PRIORS = 64
# Of the first latents so many are predicted, from so many of each neighbour; 24 from 24 gain nothing more.
PREDICTED, SEEN = 12, 16
# Anchors of the quality scale; between them gains are interpolated in the logarithm.
ANCHORS = 5
# Gain of the best quality over the worst at the start of training: the loss weight spans a factor of 200, and at high rates the
# best step size goes with its root.
_GAIN_SPAN = 14.0
# Gain of the worst quality at the start: latents start with a standard deviation of about 0.2, of which rounding at a gain of 1
# leaves next to nothing.
_GAIN_START = 8.0


# Latents that ship lie within -1 to 1 (zoo/training/publish.py), where an int8 step is this.
LATENT_STEP = 1 / 128
TWIN_GAP = LATENT_STEP / 2
# What a decoder's fine channels are multiplied by. Larger ones leave their weights fewer int8 steps: 16 did no better than 8.
FINE = 8.0

# What the mosaic of a denoiser's picture keeps of the noisy one, and the share of the noise's variance that an encoder is then
# told. For bayer-codec-m behind utnet-m, before it met such mosaics in training, on pictures that were held back, at quality 24
# and equal bits, ISO 3200 / 12,800: nothing kept and 0.1 told +0.34 / +0.45 dB, 0.2 and 0.1 +0.38 / +0.58, 0.3 and 0.2 +0.36 /
# +0.64, 0.4 and 0.2 +0.38 / +0.60; without noise nothing.
KEPT, TOLD = 0.25, 0.15


class Compressor(nn.Module):
    """Encoder, decoder, gains and priors.

    Args:
        encoder: packed input of the contract ``[N, in_channels, h, w]`` -> channels ``[N, C + K, h/s, w/s]`` of latents, see
            :func:`merge_twins`.
        decoder: channels ``[N, C + F, h/s, w/s]``, see :func:`split_fine` -> the contract's output.
        latents: C.
        priors: how many factorised priors compete for each position.
        scale: standard deviation that the priors start with.
        twins: K.
        fine: F.

    Attributes:
        contract: name of the contract, see :mod:`zoo.models.contracts`.
        int8: whether the halves may be quantised.
        rounds: whether :meth:`decode` rounds the first latents and has the fine channels speak, as int8 decoders need it,
            or leaves these silent, which to a float decoder is the same. Training would else move their weights by noise. And
            whether steps of the others are whole ones.
        log_gain, log_scale: ``[ANCHORS, C]``, logarithms of the gain before rounding and of the scale after it.
    """

    task = TASK
    contract: ClassVar[str]
    int8: ClassVar[bool] = True

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, latents: int, priors: int, scale: float, twins: int = 0,
        fine: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.latents, self.twins, self.fine = latents, twins, fine
        self.rounds = False
        self.encoder = encoder
        self.decoder = decoder
        self.priors = ManyPriors(latents, priors, scale=scale)
        start = (
            torch.linspace(0, 1, ANCHORS)[:, None] * math.log(_GAIN_SPAN) + math.log(_GAIN_START) + torch.zeros(latents)
        )
        self.log_gain = nn.Parameter(start.clone())
        self.log_scale = nn.Parameter(-start)

    def encode(self, x: Tensor) -> Tensor:
        """The encoder's latents ``[N, C, h/s, w/s]`` of a packed input."""
        return merge_twins(self.encoder(x), self.twins)

    def decode(self, y: Tensor) -> Tensor:
        """Packed RGB ``[N, 12, h, w]`` in the display curve, of latents ``[N, C, h/s, w/s]``."""
        contract = get_contract(self.contract)
        assert isinstance(contract, BayerCodecContract)
        return contract.joined(self.decoder(self.fed(y)))

    def coded(self, x: Tensor, quality: Tensor) -> Tensor:
        """The channels that an int8 decoder is fed of a packed input coded at a quality ``[N]``: ``[N, C + F, h/s, w/s]``."""
        gain, scale = (g[:, :, None, None] for g in whole_steps(*self.gains(quality), self.fine))
        return split_fine(torch.round(self.encode(x) * gain) * scale, self.fine)

    def fed(self, y: Tensor) -> Tensor:
        """The decoder's channels ``[N, C + F, h/s, w/s]`` of latents, see :attr:`rounds`."""
        return split_fine(y, self.fine) if self.rounds else F.pad(y, (0, 0, 0, 0, 0, self.fine))

    def gains(self, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Gain before rounding and scale after it: quality ``[N]`` in [0, 1] -> two ``[N, C]``.

        As training has them; :func:`whole_steps` makes what ships.
        """
        gain, scale = _interpolate(self.log_gain, quality).exp(), _interpolate(self.log_scale, quality).exp()
        return whole_steps(gain, scale, self.fine) if self.rounds else (gain, scale)

    def counted(self) -> int:
        """Parameters of encoder, decoder and priors. Gains are left out: what ships of them are integer steps in the tables."""
        return sum(p.numel() for half in (self.encoder, self.decoder, self.priors) for p in half.parameters())


def merge_twins(channels: Tensor, twins: int) -> Tensor:
    """Latents ``[N, C, h, w]`` of an encoder's channels ``[N, C + K, h, w]``, the last K of which are twins of the first K.

    A network's int8 output has one step for all latents, and the few strong ones are coded in steps as fine as that. The mean of
    two int8 tensors half a step apart has half the step.
    """
    if not twins:
        return channels
    latents = channels.shape[1] - twins
    both = (channels[:, :twins] + channels[:, latents:]) / 2
    return torch.cat([both, channels[:, twins:latents]], 1)


def split_fine(latents: Tensor, fine: int) -> Tensor:
    """A decoder's channels ``[N, C + F, h, w]``: the first F latents in whole int8 steps, the others, what that took off.

    The decoder's int8 input has steps of :data:`LATENT_STEP`, so nothing of the first is lost again, and what was taken off them
    comes :data:`FINE` times as large. The others come in whole steps to begin with (:func:`whole_steps`), none finer than one: of
    192 latents bayer-codec-m has 128 fine ones, as with 64 its best quality was 0.24 dB lower without noise. Gradients go through
    the first.
    """
    if not fine:
        return latents
    first = latents[:, :fine]
    # Both differences are exact in float32.
    off = (first - torch.round(first / LATENT_STEP) * LATENT_STEP).detach()
    return torch.cat([first - off, latents[:, fine:], FINE * off], 1)


def whole_steps(gain: Tensor, scale: Tensor, fine: int) -> tuple[Tensor, Tensor]:
    """Gain and scale ``[N, C]``, those without a fine channel changed to come in whole steps of a decoder's int8 input.

    Then nothing of them is rounded off. As training left them, those of bayer-codec-m are 1 to 2 int8 steps at the best quality
    and 3 to 7 at half of it, where rounding the input cost 0.24 and 0.03 dB. Whole ones took 0.1 to 0.3 % more bits of
    bayer-codec-s in float at the same PSNR.

    Args:
        gain, scale: of all channels.
        fine: F, how many have one; with none, nothing is changed.
    """
    if not fine:
        return gain, scale
    given = scale[:, fine:]
    whole = (given / LATENT_STEP).round().clamp_min(1) * LATENT_STEP
    return torch.cat([gain[:, :fine], gain[:, fine:] * given / whole], 1), torch.cat([scale[:, :fine], whole], 1)


def _interpolate(table: Tensor, quality: Tensor) -> Tensor:
    at = quality.clamp(0, 1) * (ANCHORS - 1)
    low = at.floor().clamp(max=ANCHORS - 2).long()
    return torch.lerp(table[low], table[low + 1], (at - low)[:, None])
