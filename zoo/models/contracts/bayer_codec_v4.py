"""What goes into the halves of a compact compressor and what comes out: the contract ``bayer_codec_v4``.

As ``bayer_codec_v1``, but int8 is thought of.

* encoder: the first four planes, the mosaic in the display curve, come as 1.5 (v - 0.5). Detail reaches from -1.5 to 1.5, so of
  what one int8 scale has for both, v itself, from -0.5 to 1.5, would use two thirds (noise below black reaches further at ISO
  12,800, and is clipped, see ``INPUT_RANGE``);
* between the halves, an encoder has K channels more than there are latents, twins that give the strongest ones half an int8 step
  (:func:`zoo.models.compressor.merge_twins`), and a decoder F more, which take what int8 would round off the first F latents
  (:func:`zoo.models.compressor.split_fine`);
* decoder: it gives float32 ``[N, 128, h, w]`` at half of packed resolution, a picture, a correction of it and the picture's
  colour differences again; ``joined`` adds them up in float. An int8 network that adds picture and correction has to round the
  sum once more, and the rounding of these two pictures was the larger part of what int8 cost a decoder: 0.15 of 0.19 dB on
  bayer-codec-m at quality 0.5, without noise. So they are added outside, the correction in steps a quarter as large, and both are
  of brightness and colour differences, not of R, G, B: development makes errors of colour differences twice as large
  (``zoo.training.codec_start``). So these come twice, half a step apart, and their mean has half the step: of 0.062 and 0.124 dB
  that rounding the output cost bayer-codec-m at quality 0.5 and 1 without noise, differences were 0.042 and 0.086, brightness
  0.016 and 0.030, the correction 0.004 and 0.010. Larger differences instead would clip: in one of a thousand pixels of
  training raws they reach 0.52, in one of 100,000 0.72.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.models.contracts.bayer_codec import CONTRACT as _FIRST
from zoo.models.contracts.bayer_codec import BayerCodecContract

BASE, SPAN = 0.5, 1.5  # of the mosaic in the display curve: what lies at 0, and how much a step of 1 becomes
# What an encoder's int8 input holds. Noise below black reaches -3.5 at ISO 12,800, where the curve is steep; a search for the
# range, most of whose raws have little noise, had bayer-codec-m's end at -1.33, which lightened the dark: of 0.24 dB lost there
# by calibration alone, 0.02 are left with these.
INPUT_RANGE = (-2.2, 1.6)
CELL = 2  # packed pixels per side of what one position of the output makes
PLANES = 4 * CELL**2  # of the output, to a colour
# Picture and correction share one int8 scale. At 16 bayer-codec-m's corrections reach three times as far as its picture,
# and what that clipped was 0.06 of the 0.12 dB that int8 cost its decoder at quality 0.5 without noise, 0.08 of 0.25 at 1.
CORRECTION = 4.0
CENTRE = 0.625  # of brightness, which reaches from -0.1 to 1.4 with highlights; differences have theirs at zero
# Of an int8 decoder's output, which is agreed, since the gap is half of it: -0.704 to 0.699. In one of 100,000 pixels of training
# raws brightness goes from 0 to 1.32 and differences from -0.72 to 0.69; a search for the range had found steps of 0.006.
OUTPUT_STEP = 0.0055
OUTPUT_RANGE = (-128 * OUTPUT_STEP, 127 * OUTPUT_STEP)
OUTPUT_GAP = OUTPUT_STEP / 2


class CompactCodecContract(BayerCodecContract):
    """The contract; see the module."""

    name = "bayer_codec_v4"
    out_channels, out_cell = (2 * 12 + 8) * CELL**2, CELL
    int8_range = INPUT_RANGE
    words: ClassVar[Mapping[str, str]] = {
        **_FIRST.words,
        "latents": f"{_FIRST.words['latents']}. The last K channels of an encoder (twins) are none: each measures one of the "
        "first K latents again, which is the mean of both. A decoder takes of the first F latents rint(128 y)/128, of the others "
        "y, and in its last F channels (fine) 8*(y - rint(128 y)/128)",
        "input": _FIRST.words["input"].replace(
            "then VST with c = 1/128;", "then VST with c = 1/128, v, as 1.5*(v - 0.5);"
        ),
        "output": "float32 NCHW at half the packed resolution: planes 0-47 a picture, 48-95 a correction, 96-127 "
        "planes 16-47 again, half an int8 step larger; picture planes 16-47 are (planes 16-47 + planes 96-127)/2 - "
        f"{OUTPUT_GAP / 2:g}. u = picture + correction/4, plane (colour*4 + 2*dy + dx)*4 + 2*py + px for colour 0-2, packed row "
        "2*i + py and sensor row 2*(2*i + py) + dy of output row i, columns alike. u0 = (R + G + B)/3 - 0.625, u1 = R - G, "
        "u2 = B - G of white-balanced camera R, G, B after the VST of offset 1/128; inverse VST; absolute scale, not clipped",
    }

    def encode(self, planes: Tensor, shot: Tensor, read: Tensor, wb: Tensor, cfa: str = "RGGB") -> Tensor:
        x = super().encode(planes, shot, read, wb, cfa)
        return torch.cat([SPAN * (x[:, :4] - BASE), x[:, 4:]], 1)

    def joined(self, y: Tensor) -> Tensor:
        bright, colours, correction, again = y.split([PLANES, 2 * PLANES, 3 * PLANES, 2 * PLANES], 1)
        return self.added(torch.cat([bright, (colours + again) / 2 - OUTPUT_GAP / 2], 1), correction)

    def added(self, picture: Tensor, correction: Tensor) -> Tensor:
        """Packed RGB ``[N, 12, 2h, 2w]`` in the display curve, of a decoder's two times 48 planes ``[N, 48, h, w]``."""
        bright, red, blue = torch.add(picture, correction, alpha=1 / CORRECTION).chunk(3, 1)
        green = bright - (red + blue) / 3 + CENTRE
        return F.pixel_shuffle(torch.cat([red + green, green, blue + green], 1), CELL)


def opponent() -> Tensor:
    """float32 ``[3, 3]``: (R, G, B) -> (brightness, R - G, B - G)."""
    return torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])


CONTRACT = CompactCodecContract()
