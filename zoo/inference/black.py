"""Areas of a raw that are darker than black."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from zoo.raw import RawImage

_CELL = 16  # pixels of one colour


def raise_to_black(raw: RawImage) -> RawImage:
    """A Bayer raw with no area darker than black, where others have as much noise as they had.

    Areas below black come of a wrong level in a tag, of masked or dead pixels; noise alone has pixels there, but no areas.
    Training shows none, and encoders make light of them: bayer-codec-s 21 of 255 in display values where a dark frame lay 0.8 %
    of white below (``zoo denoise`` gives 0). Cells of 32x32 sensor pixels whose mean in a colour is more than five of its
    standard errors below are raised to black. The raw itself where there is nothing to do, as in most.
    """
    wanted: list[torch.Tensor] = []
    for at, name in enumerate(raw.cfa):
        plane = torch.from_numpy(raw.mosaic[at // 2 :: 2, at % 2 :: 2].astype(np.float32))[None]
        total, count = (
            F.avg_pool2d(t, _CELL, ceil_mode=True, divisor_override=1) for t in (plane, torch.ones_like(plane))
        )
        below = raw.black[at] - total / count
        error = (raw.white[at] - raw.black[at]) * (raw.noise.read["RGB".index(name)] / count).sqrt()
        wanted.append(torch.where(below > 5 * error, below, 0))
    if not any(bool(w.any()) for w in wanted):
        return raw
    mosaic = raw.mosaic.copy()
    for at, lift in enumerate(wanted):
        own = mosaic[at // 2 :: 2, at % 2 :: 2]
        smooth = F.interpolate(lift[None], scale_factor=_CELL, mode="bilinear")[0, 0].numpy()
        own[:] = np.minimum(own + np.rint(smooth[: own.shape[0], : own.shape[1]]), 65535)
    return dataclasses.replace(raw, mosaic=mosaic)
