"""Denoise, then compress: a denoiser in front of the RGB autoencoder, the two-step rival of joint compression.

After DenoiseThenCompress of RawNIND (github.com/trougnouf/rawnind_jddc, arXiv 2501.08924): there the denoiser is a frozen UtNet2
and only the compressor is trained, although the text speaks of end to end. Here both exist, by their names. Different: the
denoiser is our flagship, whose weights ship; its picture is passed on at absolute scale, not matched in gain to the noisy input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.models.balle import LATENTS, BalleDecoder, BalleEncoder
from zoo.models.compressor import PRIORS, Compressor
from zoo.models.contracts import bayer_vst
from zoo.models.layers import LinearDemosaic
from zoo.models.registry import register_model
from zoo.models.utnet import utnet_m
from zoo.raw import vst


class Denoised(nn.Module):
    """A denoiser of contract ``bayer_vst_v1`` with what the contract puts around it, as a layer.

    Everything that takes can be told from the input planes: the mosaic, the root of the curve's offset, green's noise.

    Shape:
        float ``[N, 12, h, w]`` -> ``[N, 12, h, w]``, packed RGB in the display curve (VST of offset 1/128).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.demosaic = LinearDemosaic()

    def forward(self, x: Tensor) -> Tensor:
        sigma, root = x[:, 9:10], x[:, 11:12]
        offset, shown = root.square().clamp(vst.MIN_OFFSET, vst.MAX_OFFSET), x.new_tensor(vst.DISPLAY_OFFSET)
        mosaic = vst.forward(vst.inverse(x[:, :4], shown), offset)
        correction = self.network(torch.cat([mosaic, x[:, 4:]], 1))
        stabilised = self.demosaic(mosaic) + correction * (bayer_vst.MIN_RANGE + (sigma / 2).square())
        return vst.forward(vst.inverse(stabilised, offset), shown)


class DenoiseThenCompress(Compressor):
    """The denoiser is the first layer of the encoder.

    Args:
        frozen: the denoiser keeps the weights that training starts from (``init`` in its configuration).

    Attributes:
        denoiser: for weights of it alone, see :func:`zoo.training.transfer.load_initial`.
    """

    contract = "bayer_codec_v1"
    int8 = False

    def __init__(self, *, frozen: bool) -> None:
        denoised = Denoised(utnet_m())
        encoder = nn.Sequential(denoised, nn.PixelShuffle(2), BalleEncoder(3))
        decoder = nn.Sequential(BalleDecoder("rgb"), nn.PixelUnshuffle(2))
        super().__init__(encoder, decoder, LATENTS, PRIORS, scale=4.0)
        self.frozen = frozen
        if frozen:
            self.denoiser.requires_grad_(False)

    @property
    def denoiser(self) -> nn.Module:
        return self.encoder.get_submodule("0.network")


@register_model
def denoise_then_compress() -> nn.Module:
    """The flagship denoiser, frozen, in front of the RGB autoencoder."""
    return DenoiseThenCompress(frozen=True)


@register_model
def denoise_then_compress_e2e() -> nn.Module:
    """The same, the denoiser trained along: end to end."""
    return DenoiseThenCompress(frozen=False)
