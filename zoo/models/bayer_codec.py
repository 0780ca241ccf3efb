"""Bayer codec: a noisy mosaic in, few symbols out, clean RGB back; drawn for int8 delegates.

An autoencoder after Balle, Laparra & Simoncelli (ICLR 2017), with what phones run well: ReLU for GDN (int8 GDN is 10 to 18 times
slower than fp32 on LiteRT), strided 5x5 convolutions in, 2x2 transposed convolutions out (5x5 ones do not convert), and a 3x3
convolution after each, since the encoder has to remove noise before it can spend no bits on it. One model covers all
rates: per-channel gains outside the graph scale the latent before rounding (Cui et al., CVPR 2021, "Asymmetric Gained Deep Image
Compression"), so the graph never changes with quality.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.contract import IN_CHANNELS
from zoo.models.priors import ManyPriors

# Anchors of the quality scale; between them gains are interpolated in the logarithm.
ANCHORS = 5
# Gain of the best quality over the worst at the start of training: the loss weight spans a factor of 200, and at high rates the
# best step size goes with its root.
_GAIN_SPAN = 14.0


class Encoder(nn.Module):
    """float ``[N, 12, h, w]`` (contract ``bayer_vst_v1``) -> latent ``[N, C, h/8, w/8]``."""

    def __init__(self, widths: tuple[int, int], latents: int) -> None:
        super().__init__()
        a, b = widths
        self.layers = nn.Sequential(
            nn.Conv2d(IN_CHANNELS, a, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(a, a, 3, padding=1), nn.ReLU(),
            nn.Conv2d(a, b, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU(),
            nn.Conv2d(b, latents, 5, stride=2, padding=2),
        )  # fmt: skip
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    """Latent ``[N, C, h, w]`` -> float ``[N, 12, 8h, 8w]``: packed RGB (channel ``c*4 + 2*dy + dx``) in the display curve."""

    def __init__(self, latents: int, widths: tuple[int, int, int], head: int) -> None:
        super().__init__()
        a, b, c = widths
        self.layers = nn.Sequential(
            nn.Conv2d(latents, a, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(a, b, 2, stride=2), nn.ReLU(),
            nn.Conv2d(b, b, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(b, c, 2, stride=2), nn.ReLU(),
            nn.Conv2d(c, c, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(c, head, 2, stride=2), nn.ReLU(),
            nn.Conv2d(head, 12, 3, padding=1),
        )  # fmt: skip
        initialise(self)

    def forward(self, y: Tensor) -> Tensor:
        return self.layers(y)


def initialise(module: nn.Module) -> None:
    """He initialisation; a transposed 2x2 convolution with stride 2 has a quarter of the inputs that fan-in counts."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if isinstance(layer, nn.ConvTranspose2d):
                layer.weight.data *= 0.7
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


class BayerCodec(nn.Module):
    """Encoder, decoder, gains and priors of one compressor.

    Args:
        encoder: widths at 1/2 and 1/4 of packed resolution.
        latents: channels of the latent, which lies at 1/8 of packed resolution (16 sensor pixels).
        decoder: widths at 1/8, 1/4 and 1/2 of packed resolution.
        head: width at packed resolution.
        priors: how many factorised priors compete for each position.
    """

    def __init__(
        self,
        encoder: tuple[int, int],
        latents: int,
        decoder: tuple[int, int, int],
        head: int,
        priors: int = 64,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, latents)
        self.decoder = Decoder(latents, decoder, head)
        self.priors = ManyPriors(latents, priors, scale=3.0)
        start = torch.linspace(0, 1, ANCHORS)[:, None] * torch.tensor(_GAIN_SPAN).log() + torch.zeros(latents)
        self.log_gain = nn.Parameter(start.clone())
        self.log_scale = nn.Parameter(-start)

    def gains(self, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Gain before rounding and scale after it: quality ``[N]`` in [0, 1] -> two ``[N, C]``."""
        return _interpolate(self.log_gain, quality).exp(), _interpolate(self.log_scale, quality).exp()


def _interpolate(table: Tensor, quality: Tensor) -> Tensor:
    at = quality.clamp(0, 1) * (ANCHORS - 1)
    low = at.floor().clamp(max=ANCHORS - 2).long()
    return torch.lerp(table[low], table[low + 1], (at - low)[:, None])


def cost_table(priors: ManyPriors, reach: int) -> Tensor:
    """Bits of every symbol under every prior: float ``[C * (2 * reach + 1), K]``, symbols -reach..reach.

    Laid out for :func:`torch.nn.functional.embedding_bag`, which then sums the bits of a position over its channels for all
    priors at once: 5 ms for 2,000 positions, where evaluating 64 densities takes 300.
    """
    with torch.no_grad():
        values = torch.arange(-reach, reach + 1, dtype=torch.float32).view(1, 1, -1)
        mass = priors.probability(values - 0.5, values + 0.5)
        bits = (-torch.log2(mass + 1e-10)).clamp(0, 50)
    return bits.permute(1, 2, 0).reshape(-1, priors.priors).contiguous()


def position_costs(symbols: Tensor, table: Tensor) -> Tensor:
    """Bits of every position under every prior by table: ``[N, C, h, w]`` -> ``[N * h * w, K]``."""
    channels = symbols.shape[1]
    span = table.shape[0] // channels
    reach = span // 2
    flat = symbols.permute(0, 2, 3, 1).reshape(-1, channels).clamp(-reach, reach).long() + reach
    return F.embedding_bag(flat + torch.arange(channels, device=flat.device) * span, table, mode="sum")
