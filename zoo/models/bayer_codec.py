"""Bayer codec: a noisy mosaic in, few symbols out, clean RGB back; drawn for int8 delegates.

An autoencoder after Balle, Laparra & Simoncelli (ICLR 2017), with what phones run well: ReLU for GDN (int8 GDN is 10 to 18 times
slower than fp32 on LiteRT), strided convolutions in, 2x2 transposed convolutions out (5x5 ones do not convert), and a 3x3
convolution after each, since the encoder has to remove noise before it can spend no bits on it. Beside each half runs a linear
transform, as in any block codec: without it the plain stack of ReLU layers had not learned colours after 300 steps (20.7 dB as an
autoencoder without rounding), with it it had (25.4 dB). Quality lies outside the graphs, see :mod:`zoo.models.compressor`.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.models.compressor import PRIORS, Compressor
from zoo.models.contract import IN_CHANNELS
from zoo.models.registry import register_model


class Encoder(nn.Module):
    """float ``[N, 12, h, w]`` (contract ``bayer_vst_v1``) -> latent ``[N, C, h/8, w/8]``."""

    def __init__(self, widths: tuple[int, int], latents: int) -> None:
        super().__init__()
        a, b = widths
        self.layers = nn.Sequential(
            nn.Conv2d(IN_CHANNELS, a, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(a, a, 3, padding=1), nn.ReLU(),
            nn.Conv2d(a, b, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU(),
            nn.Conv2d(b, latents, 3, stride=2, padding=1),
        )  # fmt: skip
        self.linear = nn.Conv2d(IN_CHANNELS, latents, 8, stride=8)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.linear(x)


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
        # In steps of 2x2, since larger transposed convolutions are not clean on every runtime.
        chain = (latents, 48, 24, 12)
        self.linear = nn.Sequential(
            *(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in zip(chain, chain[1:], strict=False))
        )
        initialise(self)

    def forward(self, y: Tensor) -> Tensor:
        return self.layers(y) + self.linear(y)


def initialise(module: nn.Module) -> None:
    """He initialisation; a transposed 2x2 convolution with stride 2 has a quarter of the inputs that fan-in counts."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if name.startswith("linear") else "relu")
            if isinstance(layer, nn.ConvTranspose2d):
                layer.weight.data *= 0.7
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


class BayerCodec(Compressor):
    """Encoder, decoder, gains and priors of one compressor.

    Args:
        encoder: widths at 1/2 and 1/4 of packed resolution.
        latents: channels of the latent, which lies at 1/8 of packed resolution (16 sensor pixels).
        decoder: widths at 1/8, 1/4 and 1/2 of packed resolution.
        head: width at packed resolution.
        priors: how many factorised priors compete for each position.
    """

    contract = "bayer_codec_v1"

    def __init__(
        self,
        encoder: tuple[int, int],
        latents: int,
        decoder: tuple[int, int, int],
        head: int,
        priors: int = PRIORS,
    ) -> None:
        super().__init__(Encoder(encoder, latents), Decoder(latents, decoder, head), latents, priors, scale=3.0)


@register_model
def bayer_codec_s() -> nn.Module:
    """Small: 1 GMAC per megapixel in, 2 out."""
    return BayerCodec((16, 24), 64, (64, 64, 32), head=16)


@register_model
def bayer_codec_m() -> nn.Module:
    """Medium: 2 GMAC per megapixel in, 4.3 out."""
    return BayerCodec((24, 48), 96, (96, 96, 48), head=24)
