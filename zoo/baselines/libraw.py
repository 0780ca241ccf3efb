"""LibRaw's demosaicers, as a raw developer runs them: on a DNG, through ``rawpy``.

Adaptive homogeneity-directed (AHD: Hirakawa & Parks, IEEE TIP 2005, in Coffin's form), and DHT and AAHD of Anton Petrusevich,
which LibRaw alone has.

The mosaic is balanced before it is written and developed with gains of one. LibRaw balances first as well, but in 16 bits from
0 to white: it would cut off what lies below black, and where a gain is 2, everything above half of white. Cut off at black, three
pictures at ISO 3200 lose 0.6 dB with DHT and 0.2 dB with AAHD, gain 0.04 dB with AHD, and shadows rise by 0.3 to 1.1 times
their level instead of by 0.0 to 0.3.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.raw.cfa import alignment
from zoo.raw.dng import write_dng

Array = npt.NDArray[np.float32]

ALGORITHMS = ("AHD", "DHT", "AAHD")

# At the outermost pixels AAHD is off by 0.4 on a ramp of 0.2..0.8, DHT by 0.04 and AHD by 0.008; beyond 4 pixels by 0.008,
# 0.0005 and 0.00003. A mirrored border takes them off. It is even, so that the phase stays, and wide enough for pictures of
# 2x2: LibRaw refuses files of 18x18.
_BORDER = 12
_WHITE = 65535


def demosaic(mosaic: Array, algorithm: str) -> Array:
    """Demosaic with LibRaw.

    The values go through 16 bits: [min(0, lowest), max(1, highest)] of the mosaic is mapped to 0..65535, so that negative
    values and values above 1 survive with an absolute scale, and noise below black is not folded. A clean mosaic has no
    pedestal, as in a raw developer. What an algorithm extrapolates beyond that range is clipped: no highlight recovery.

    Args:
        mosaic: float32 ``[H, W]``, balanced, RGGB, any size >= 2.
        algorithm: one of :data:`ALGORITHMS`.

    Returns:
        float32 ``[3, H, W]``, balanced camera RGB: no gain, matrix or curve is applied.

    Raises:
        ZooError: LibRaw cannot develop the DNG, or gives back another size.
    """
    import rawpy

    even = alignment((mosaic.shape[0], mosaic.shape[1]), "RGGB")
    framed = np.pad(even.pad(mosaic), _BORDER, mode="reflect")
    low, high = min(0.0, float(framed.min())), max(1.0, float(framed.max()))
    scale = _WHITE / (high - low)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mosaic.dng"
            levels = np.rint((framed.astype(np.float64) - low) * scale).astype(np.uint16)
            write_dng(path, levels, cfa="RGGB", black=0, white=_WHITE, wb=(1, 1, 1), xyz_to_cam=None)
            with rawpy.imread(str(path)) as raw:
                rgb = raw.postprocess(
                    demosaic_algorithm=rawpy.DemosaicAlgorithm[algorithm],
                    user_wb=[1, 1, 1, 1],
                    user_black=0,
                    user_sat=_WHITE,
                    adjust_maximum_thr=0.0,  # otherwise white is what the brightest pixel has
                    no_auto_bright=True,
                    highlight_mode=rawpy.HighlightMode.Clip,
                    output_color=rawpy.ColorSpace.raw,
                    output_bps=16,
                    gamma=(1, 1),
                    user_flip=0,
                )
    except (OSError, rawpy.LibRawError) as error:
        raise ZooError(f"LibRaw's {algorithm} did not develop the mosaic ({error})") from error
    if rgb.shape != (*framed.shape, 3):
        raise ZooError(f"LibRaw's {algorithm} returned {rgb.shape[:2]} for a mosaic of {framed.shape}")
    inner = rgb.transpose(2, 0, 1)[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
    return np.ascontiguousarray(even.crop(inner) / scale + low, np.float32)
