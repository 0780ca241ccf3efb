"""What goes into the halves of a compact compressor and what comes out: the contract ``bayer_codec_v1``.

* encoder: float32 ``[N, 12, h, w]``, the input of ``bayer_vst_v1`` (:mod:`zoo.models.contract`) -> latents ``[N, C, h/s, w/s]``;
* between them: ``round(latent * gain)`` is what a file holds, ``integer * step`` what the decoder gets
  (:mod:`zoo.codec.tables`); gain and step depend on channel and quality and on nothing else;
* decoder: latents -> float32 ``[N, 12, h, w]``, packed RGB (channel ``c*4 + 2*dy + dx``) in the display curve: the VST of offset
  1/128 whatever the noise, since a file's picture has none and its decoder need not know what noise there was.

White-balanced, absolute in scale, clipped at neither end, as in ``bayer_vst_v1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from zoo.models import contract as bayer
from zoo.models.contracts import Contract
from zoo.raw import vst


class BayerCodecContract(Contract):
    """The contract; see the module. ``y`` is what the decoder gives, ``x`` is not looked at any more."""

    name = "bayer_codec_v1"
    in_channels, out_channels, halo = bayer.IN_CHANNELS, 12, bayer.BASELINE_HALO
    words: ClassVar[Mapping[str, str]] = {
        **{key: bayer.CONTRACT.words[key] for key in ("input", "vst", "range")},
        "latents": "float32 NCHW at 1/s of the input's size each way; rint(latent * gain) is stored, integer * step / 65536 "
        "decoded; gain and step by channel and quality, see docs/bitstream.md",
        "output": "float32 NCHW, 12 planes y (colour*4 + 2*dy + dx): white-balanced linear camera RGB after the VST of offset "
        "1/128; inverse VST, then 2x depth-to-space; absolute scale, not clipped",
    }

    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = "RGGB") -> Tensor:
        return bayer.encode(planes, shot, read)

    def estimate(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return vst.forward(vst.inverse(y, y.new_tensor(vst.DISPLAY_OFFSET)), bayer.curve_offset(shot, read))

    def decode(self, x: Tensor, y: Tensor, shot: Tensor, read: Tensor, wb: Tensor) -> Tensor:
        return self.picture(y)

    def picture(self, y: Tensor) -> Tensor:
        """:meth:`decode` by what a decoder of files has: ``[N, 12, h, w]`` -> linear RGB ``[N, 3, 2h, 2w]``."""
        return F.pixel_shuffle(vst.inverse(y, y.new_tensor(vst.DISPLAY_OFFSET)), 2)


CONTRACT = BayerCodecContract()
