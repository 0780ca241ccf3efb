"""What goes into the halves of a compressor and what comes out: the contract ``bayer_codec_v1``.

* encoder: float32 ``[N, 12, h, w]``, the input of ``bayer_vst_v1`` but for the first four planes, which are the mosaic in the
  curve of the decoder's output -> latents ``[N, C, h/s, w/s]``. So what transforms the picture into latents and back can be
  linear at any noise; noise-relative detail is in the other planes;
* between them: ``round(latent * gain)`` is what a file holds, ``integer * step`` what the decoder gets
  (:mod:`zoo.codec.tables`); gain and step depend on channel and quality and on nothing else;
* decoder: latents -> float32 ``[N, 12, h, w]``, packed RGB (channel ``c*4 + 2*dy + dx``) in the display curve: the VST of offset
  1/128 whatever the noise, since a file's picture has none and its decoder need not know what noise there was.

White-balanced, absolute in scale, clipped at neither end, as in ``bayer_vst_v1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.contracts import Contract
from zoo.models.contracts import bayer_vst as bayer
from zoo.raw import vst


class BayerCodecContract(Contract):
    """The contract; see the module. ``y`` is what :meth:`joined` gives, ``x`` is not looked at any more."""

    name = "bayer_codec_v1"
    in_channels, out_channels, halo = bayer.IN_CHANNELS, 12, bayer.BASELINE_HALO
    words: ClassVar[Mapping[str, str]] = {
        "input": "float32 NCHW; planes 0-3: R, G1, G2, B of the RGGB mosaic, (raw-black)/(white-black) x white balance "
        "(green = 1), not clipped, then VST with c = 1/128; 4-7: after VST with c of the noise instead, minus their 3x3 means, "
        "over 4*range, clamped to +-1.5; 8-10: 2*sqrt(sigma) of R, G, B; 11: sqrt(c)",
        **{key: bayer.CONTRACT.words[key] for key in ("vst", "range")},
        "latents": "float32 NCHW at 1/s of the input's size each way; rint(latent * gain) is stored, integer * step / 65536 "
        "decoded; gain and step by channel and quality, see docs/bitstream.md",
        "output": "float32 NCHW, 12 planes y (colour*4 + 2*dy + dx): white-balanced linear camera RGB after the VST of offset "
        "1/128; inverse VST, then 2x depth-to-space; absolute scale, not clipped",
    }

    def words_of(self, half: str, latents: int, besides: int, stride: int) -> dict[str, str]:
        """The words that the file of a half carries: :attr:`words` with latents at the one of its ends where they are.

        Args:
            half: ``encoder`` or ``decoder``.
            latents: how many a file has.
            besides: twins of an encoder, fine channels of a decoder.
            stride: sensor pixels per position.
        """
        total, step = latents + besides, stride // 2
        if half == "encoder":
            end = "output"
            text = f"float32 [1, {total}, tile/{step}, tile/{step}], a position per {stride}x{stride} sensor pixels; {latents}"
            text += " latents"
            if besides:
                text += (
                    f" of which the first {besides} are measured twice: channel {latents}+k (a twin) is latent k once more, half "
                    f"an int8 step apart, and the latent is (channel k + channel {latents}+k)/2 for k < {besides}"
                )
        else:
            end = "input"
            text = (
                f"float32 [1, {total}, tile, tile], tile in positions, dequantised latents y = integer * step / 65536"
            )
            if besides:
                text += (
                    f": channels 0 to {besides - 1} are rint(128*y)/128 of the first {besides}, {besides} to {latents - 1} the "
                    f"others as they are, {latents} to {total - 1} (fine) 8*(y - rint(128*y)/128) of the first {besides}"
                )
        return {**self.words, end: text}

    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = "RGGB") -> Tensor:
        shown = vst.forward(planes, planes.new_tensor(vst.DISPLAY_OFFSET))
        stabilised = vst.forward(planes, bayer.curve_offset(shot, read))
        return torch.cat([shown, *bayer.noise_relative(stabilised, shot, read)], 1)

    def estimate(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return vst.forward(vst.inverse(y, y.new_tensor(vst.DISPLAY_OFFSET)), bayer.curve_offset(shot, read))

    def joined(self, y: Tensor) -> Tensor:
        """What a decoder gives -> ``y`` of the other methods: packed RGB ``[N, 12, h, w]`` in the display curve."""
        return y

    def decode(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return self.picture(y)

    def picture(self, y: Tensor) -> Tensor:
        """:meth:`decode` by what a decoder of files has: ``[N, 12, h, w]`` -> linear RGB ``[N, 3, 2h, 2w]``."""
        return F.pixel_shuffle(vst.inverse(y, y.new_tensor(vst.DISPLAY_OFFSET)), 2)


CONTRACT = BayerCodecContract()
