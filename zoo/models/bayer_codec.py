"""Bayer codec: a noisy mosaic in, few symbols out, clean RGB back; drawn for int8 delegates.

The encoder is a small U-Net that corrects a linear demosaic, and a linear transform of blocks of 16x16 sensor pixels; the
decoder a linear transform back in two steps with corrections. Training starts from
transforms that are fitted, not learned (:mod:`zoo.training.codec_start`), so it has to learn what a denoiser learns, and
gradients reach that at the picture's own resolution. A plain autoencoder of ReLU layers (Balle, Laparra & Simoncelli, ICLR
2017, without GDN, whose int8 is 10 to 18 times slower than fp32 on LiteRT) gave 31.6 dB at 1.25 bits per pixel after 5,000 steps
(validation, no noise, best quality); this form starts from 32.0 at 1.05. Convolutions and 2x2 transposed ones only, since 5x5
transposed ones do not convert. Quality lies outside the graphs, see :mod:`zoo.models.compressor`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.compressor import FINE, PRIORS, TWIN_GAP, Compressor
from zoo.models.contracts.bayer_codec_v4 import BASE, CONTRACT, OUTPUT_GAP, PLANES, SPAN
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS, malvar_weight
from zoo.models.registry import register_model
from zoo.models.utnet import CompactUtNet

STRIDE = 8  # packed pixels between latents
_LEVELLED = 8.0  # most that a channel is scaled by: of one that hardly ever speaks little is known


class Encoder(nn.Module):
    """float ``[N, 12, h, w]`` (contract ``bayer_codec_v4``) -> latent ``[N, C, h/8, w/8]``.

    Args:
        denoiser: gives a correction ``[N, 12, h, w]`` to the linear demosaic.
        latents: C.
    """

    def __init__(self, denoiser: CompactUtNet, latents: int) -> None:
        super().__init__()
        self.demosaic = nn.Conv2d(IN_CHANNELS, OUT_CHANNELS, 3, padding=1)
        self.denoiser = denoiser
        self.transform = nn.Conv2d(OUT_CHANNELS, latents, STRIDE, stride=STRIDE)
        nn.init.zeros_(self.demosaic.weight)
        self.demosaic.weight.data[:, :4] = malvar_weight() / SPAN
        assert self.demosaic.bias is not None and self.transform.bias is not None
        nn.init.constant_(self.demosaic.bias, BASE)  # weights of a demosaic add up to 1
        nn.init.zeros_(self.transform.bias)

    def picture(self, x: Tensor) -> Tensor:
        """What is transformed: packed RGB ``[N, 12, h, w]`` in the display curve, demosaiced and denoised."""
        return self.demosaic(x) + self.denoiser(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(self.picture(x))


class Step(nn.Module):
    """``up(cat(x, ReLU(conv(x))))``: twice the size, by a linear map of ``x`` and a correction of what a 3x3 sees in it.

    The correction starts as nothing. It is joined to ``x``, not added, since an int8 sum is rounded once more: of what rounding
    all tensors cost a decoder with ``x + correction`` before each transposed convolution, 0.34 dB without noise at the best
    quality, the sums were 0.15.

    Args:
        channels: of ``x``.
        hidden: of the 3x3 convolution.
        out: channels of the result.
    """

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, hidden, 3, padding=1)
        self.up = nn.ConvTranspose2d(channels + hidden, out, 2, stride=2)
        nn.init.zeros_(self.up.weight[channels:])

    def joined(self, x: Tensor) -> Tensor:
        """What the transposed convolution takes, ``[N, channels + hidden, h, w]``."""
        return torch.cat([x, F.relu(self.look(x))], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.joined(x))


class Mend(nn.Module):
    """``cat(x, conv(ReLU(conv(x))))``: a picture, and a correction of it by 3x3 convolutions, beyond block borders.

    The correction starts as nothing. What adds it is outside the network (:mod:`zoo.models.contracts.bayer_codec_v4`).

    Args:
        channels: of ``x``.
        hidden: between the convolutions.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.second(F.relu(self.look(x)))], 1)


class Decoder(nn.Module):
    """Latent ``[N, C, h, w]`` -> float ``[N, 128, 4h, 4w]``, a picture, its correction and its colours again, see
    :mod:`zoo.models.contracts.bayer_codec_v4`.

    A linear transform in two steps of 2x2, since larger transposed convolutions are not clean on every runtime, and no third,
    which would only move values. The second has a correction beside it (:class:`Step`), the picture one behind it
    (:class:`Mend`); one of the latents themselves gained 0.04 to 0.08 dB for a sixth of the cost, and is left out.

    Args:
        latents: C + F.
        linear: channels at 1/4 of packed resolution.
        hidden: of the corrections at 1/4 and 1/2 of packed resolution.

    Attributes:
        again: gives the colours again. To a float decoder they say nothing new, so it is not trained but made from the
            picture's own layer by :meth:`tie`; fine-tuning to int8 trains both.
    """

    def __init__(self, latents: int, linear: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(latents, linear, 2, stride=2)
        self.step = Step(linear, hidden[0], 4 * OUT_CHANNELS)
        self.mend = Mend(4 * OUT_CHANNELS, hidden[1])
        self.again = nn.ConvTranspose2d(linear + hidden[0], 2 * PLANES, 2, stride=2).requires_grad_(False)

    def forward(self, y: Tensor) -> Tensor:
        joined = self.step.joined(self.expand(y))
        return torch.cat([self.mend(self.step.up(joined)), self.again(joined)], 1)

    def shown(self, y: Tensor) -> Tensor:
        """Picture and correction alone ``[N, 96, 4h, 4w]``."""
        return self.mend(self.step(self.expand(y)))

    @torch.no_grad()
    def tie(self) -> None:
        """Let the colours that come again be those of the picture, half an int8 step larger."""
        up, again = self.step.up, self.again
        assert up.bias is not None and again.bias is not None
        again.weight.copy_(up.weight[:, PLANES:])
        again.bias.copy_(up.bias[PLANES:] + OUTPUT_GAP)

    @property
    def stages(self) -> list[nn.ConvTranspose2d]:
        """What makes up the linear transform, in order, by each one's first inputs."""
        return [self.expand, self.step.up]

    @torch.no_grad()
    def level(self, y: Tensor) -> None:
        """Give what it gave, with all channels of what the second step joins as large as each other: they have one int8 scale.

        Training leaves the linear ones up to twice as large as one another.

        Args:
            y: channels that it is fed ``[N, C, h, w]``, enough to tell the ranges by.
        """
        expand, step = self.expand, self.step
        assert expand.bias is not None and step.look.bias is not None
        ranges = expand(y).abs().amax((0, 2, 3))
        factors = (ranges.max() / ranges).clamp(max=_LEVELLED)
        expand.weight.mul_(factors[:, None, None])
        expand.bias.mul_(factors)
        step.look.weight.div_(factors[:, None, None])
        step.up.weight[: len(factors)].div_(factors[:, None, None, None])
        x = expand(y)
        factors = (x.abs().max() / F.relu(step.look(x)).amax((0, 2, 3))).clamp(1 / _LEVELLED, _LEVELLED)
        step.look.weight.mul_(factors[:, None, None, None])
        step.look.bias.mul_(factors)
        step.up.weight[x.shape[1] :].div_(factors[:, None, None, None])
        self.tie()


class BayerCodec(Compressor):
    """Encoder, decoder, gains and priors of one compressor.

    Args:
        denoiser: of the encoder.
        latents: C, at 1/8 of packed resolution (16 sensor pixels).
        decoder: of C + F channels.
        priors: how many factorised priors compete for each position.
        twins: K, see :func:`zoo.models.compressor.merge_twins`.
        fine: F, see :func:`zoo.models.compressor.split_fine`.
    """

    contract = "bayer_codec_v4"
    # What training leaves to AdamW. Muon's steps are as large where gradients are mostly noise as where they agree, and the
    # transforms start at an optimum: with Muon at 2e-3 those of a bayer-codec-m were 0.27 dB behind what 100 steps of AdamW at
    # 3e-4 then found for the decoder's alone.
    adamw: ClassVar[tuple[str, ...]] = ("encoder.transform.", "decoder.")

    def __init__(
        self,
        denoiser: CompactUtNet,
        latents: int,
        decoder: Decoder,
        priors: int = PRIORS,
        twins: int = 0,
        fine: int = 0,
    ) -> None:
        super().__init__(Encoder(denoiser, latents + twins), decoder, latents, priors, 3.0, twins, fine)

    def decode(self, y: Tensor) -> Tensor:
        decoder = self.decoder
        if self.rounds or not isinstance(decoder, Decoder):  # to be, or already, quantised
            return super().decode(y)
        return CONTRACT.added(*decoder.shown(self.fed(y)).chunk(2, 1))

    @torch.no_grad()
    def pair_twins(self) -> None:
        """Let twins be what the first latents are, and the decoder's channels for int8 what they stand for."""
        encoder = self.encoder
        assert isinstance(encoder, Encoder)
        for of_encoder in (encoder.transform.weight, encoder.transform.bias):
            assert of_encoder is not None
            of_encoder[self.latents :] = of_encoder[: self.twins]
        self.tie_decoder()

    @torch.no_grad()
    def tie_decoder(self) -> None:
        """Let fine channels add what rounding takes of the latents, and colours come again: a float decoder needs neither."""
        decoder = self.decoder
        assert isinstance(decoder, Decoder)
        decoder.expand.weight[self.latents :] = decoder.expand.weight[: self.fine] / FINE
        decoder.tie()

    @torch.no_grad()
    def rescale_latents(self, factors: Tensor) -> None:
        """Multiply every latent by a factor ``[C]`` > 0, and undo it in what takes them: files and pictures stay what they are.

        One int8 scale serves all channels, so it pays to have them alike: with ranges as training left them, rounding a decoder's
        input was a third of what int8 cost. Twins are put their gap apart.
        """
        encoder, decoder = self.encoder, self.decoder
        assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
        of_channels = torch.cat([factors, factors[: self.twins]])
        encoder.transform.weight.mul_(of_channels[:, None, None, None])
        bias = encoder.transform.bias
        assert bias is not None
        bias.mul_(of_channels)
        middle = (bias[: self.twins] + bias[self.latents :]) / 2
        bias[: self.twins], bias[self.latents :] = middle - TWIN_GAP / 2, middle + TWIN_GAP / 2
        decoder.expand.weight.div_(torch.cat([factors, factors[: self.fine]])[:, None, None, None])
        self.log_gain.sub_(factors.log())
        self.log_scale.add_(factors.log())


@register_model
def bayer_codec_s() -> nn.Module:
    """Small: 1.4 GMAC per megapixel in, 3.1 out."""
    denoiser = CompactUtNet((16, 24, 32), encoder_depth=(0, 1, 1), decoder_depth=(0, 0), head_width=4, head_depth=1)
    return BayerCodec(denoiser, 192, Decoder(256, 80, (64, 24)), twins=6, fine=64)


@register_model
def bayer_codec_m() -> nn.Module:
    """Medium: 2 GMAC per megapixel in, 5.5 out."""
    denoiser = CompactUtNet((16, 32, 40), encoder_depth=(0, 1, 1), decoder_depth=(1, 0), head_width=10)
    return BayerCodec(denoiser, 192, Decoder(320, 96, (128, 40)), twins=6, fine=128)
