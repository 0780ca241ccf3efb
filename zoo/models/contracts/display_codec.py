"""What goes into the halves of a reference compressor and what comes out: the contract ``display_codec_v1``.

As ``bayer_codec_v1`` but for the encoder's input: float32 ``[N, 4, h, w]``, the white-balanced mosaic R, G1, G2, B in the curve
of the decoder's output, the VST of offset 1/128. Nothing tells the network how strong the noise is: the originals were not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from zoo.models.contracts.bayer_codec import CONTRACT as _BAYER
from zoo.models.contracts.bayer_codec import BayerCodecContract
from zoo.raw import vst


class DisplayCodecContract(BayerCodecContract):
    """The contract; see the module."""

    name = "display_codec_v1"
    in_channels, halo = 4, 0
    words: ClassVar[Mapping[str, str]] = {
        "input": "float32 NCHW; planes R, G1, G2, B of the RGGB mosaic, (raw-black)/(white-black) x white balance "
        "(green = 1), not clipped, then VST",
        "vst": "x/(sqrt(max(x,0)+c)+sqrt(c))/(sqrt(1+c)-sqrt(c)) with c = 1/128",
        **{key: _BAYER.words[key] for key in ("latents", "output")},
    }

    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = "RGGB") -> Tensor:
        return vst.forward(planes, planes.new_tensor(vst.DISPLAY_OFFSET))


CONTRACT = DisplayCodecContract()
