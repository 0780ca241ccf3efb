"""The autoencoder of Balle, Laparra & Simoncelli (ICLR 2017) and its Bayer forms of RawNIND: reference compressors.

Width 192, latents of 320 channels, total stride 16, GDN (generalised divisive normalisation) between strided 5x5 convolutions.
Facts from github.com/trougnouf/rawnind_jddc (src/rawnind/models/compression_autoencoders.py, arXiv 2501.08924). Different here:

* Input and output follow the contract ``display_codec_v1``, so that the scale is absolute; the originals matched the gain of the
  noisy input to the truth.
* Rates are those of a bitstream (:mod:`zoo.codec`); theirs were estimates of the model. One model covers all of them by gains
  (:mod:`zoo.models.compressor`), which lie beside the published parameters; the originals were one model per lambda.
* The decoders' output is not clamped: clamping at black tints shadows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.compressor import PRIORS, Compressor
from zoo.models.layers import LinearDemosaic
from zoo.models.registry import register_model

WIDTH, LATENTS = 192, 320
_PEDESTAL = 2.0**-36  # (2**-18)**2, keeps the square roots' gradient finite
_MIN_BETA = 1e-6


class GDN(nn.Module):
    """``x_i / sqrt(beta_i + sum_j gamma_ij x_j^2)``, or times it for the inverse (Balle et al., ICLR 2016, eq. 3).

    Parameters are stored as square roots, as the authors do, so that beta and gamma stay positive under gradient steps.
    Its 192^2 + 192 parameters act like a 1x1 convolution; in int8 it is 10 to 18 times slower than in fp32 on LiteRT, which
    is why the compact codec has none.
    """

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.pointwise_macs = channels * channels  # per value of the grid; see zoo.models.analysis
        self.beta = nn.Parameter(torch.sqrt(torch.ones(channels) + _PEDESTAL))
        self.gamma = nn.Parameter(torch.sqrt(0.1 * torch.eye(channels) + _PEDESTAL))

    def forward(self, x: Tensor) -> Tensor:
        beta = self.beta.clamp_min((_MIN_BETA + _PEDESTAL) ** 0.5).square() - _PEDESTAL
        gamma = self.gamma.clamp_min(_PEDESTAL**0.5).square() - _PEDESTAL
        norm = torch.sqrt(F.conv2d(x.square(), gamma[:, :, None, None], beta))
        return x * norm if self.inverse else x / norm


def _down(a: int, b: int) -> nn.Conv2d:
    return nn.Conv2d(a, b, 5, stride=2, padding=2)


def _up(a: int, b: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(a, b, 5, stride=2, padding=2, output_padding=1)


class BalleEncoder(nn.Module):
    """``[N, channels, h, w]`` -> ``[N, 320, h/16, w/16]`` (h/8 and w/8 with ``upsample``: bilinear x2 in front)."""

    def __init__(self, channels: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.upsample = upsample
        self.layers = nn.Sequential(
            _down(channels, WIDTH), GDN(WIDTH), _down(WIDTH, WIDTH), GDN(WIDTH), _down(WIDTH, WIDTH), GDN(WIDTH),
            _down(WIDTH, LATENTS),
        )  # fmt: skip
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.layers(x)


class BalleDecoder(nn.Module):
    """``[N, 320, h, w]`` -> ``[N, 3, H, W]``.

    Args:
        last: ``"rgb"`` ends at 16 times the latent's grid; ``"shuffle"`` (BayerPS) and ``"transposed"`` (BayerTC) at 32
            times, the sensor's grid for a latent of packed Bayer.
    """

    def __init__(self, last: str) -> None:
        super().__init__()
        body = [_up(LATENTS, WIDTH), GDN(WIDTH, inverse=True)]
        for _ in range(2):
            body += [_up(WIDTH, WIDTH), GDN(WIDTH, inverse=True)]
        tails: dict[str, list[nn.Module]] = {
            "rgb": [_up(WIDTH, 3)],
            "shuffle": [_up(WIDTH, WIDTH), nn.Conv2d(WIDTH, 12, 1), nn.PixelShuffle(2)],
            "transposed": [_up(WIDTH, WIDTH), nn.LeakyReLU(0.01), _up(WIDTH, 3)],
        }
        self.layers = nn.Sequential(*body, *tails[last])
        _initialise(self)

    def forward(self, y: Tensor) -> Tensor:
        return self.layers(y)


def _initialise(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_normal_(layer.weight, 2**0.5)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.01)


class BalleCodec(Compressor):
    """An autoencoder on packed planes.

    Args:
        encoder: ``[N, 4, h, w]`` -> latents.
        decoder: latents -> RGB at the sensor's resolution, ``[N, 3, 2h, 2w]``.
    """

    contract = "display_codec_v1"
    int8 = False

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__(encoder, nn.Sequential(decoder, nn.PixelUnshuffle(2)), LATENTS, PRIORS, scale=4.0)


@register_model
def balle_rgb() -> nn.Module:
    """On the linear demosaic, at the sensor's resolution."""
    return BalleCodec(nn.Sequential(LinearDemosaic(), nn.PixelShuffle(2), BalleEncoder(3)), BalleDecoder("rgb"))


@register_model
def balle_bayer_ps() -> nn.Module:
    """On the packed mosaic; the decoder ends in a pixel shuffle."""
    return BalleCodec(BalleEncoder(4), BalleDecoder("shuffle"))


@register_model
def balle_bayer_tc() -> nn.Module:
    """On the packed mosaic; the decoder ends in one more transposed convolution."""
    return BalleCodec(BalleEncoder(4), BalleDecoder("transposed"))


@register_model
def balle_bayer_preupsample() -> nn.Module:
    """On the packed mosaic, enlarged to the sensor's resolution first."""
    return BalleCodec(BalleEncoder(4, upsample=True), BalleDecoder("rgb"))
