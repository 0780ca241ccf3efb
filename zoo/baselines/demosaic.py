"""Classical demosaicers, of the library colour-demosaicing (BSD-3-Clause, extra ``baselines``).

Menon's and Malvar's look for edges or gradients across colours, so they take white-balanced mosaics: on an unbalanced one
every grey edge is a colour edge.
"""

from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError

Array = npt.NDArray[np.float32]

INSTALL = "'raw-zoo[baselines]'"


def menon(mosaic: Array) -> Array:
    """Directional filtering with a posteriori decision and refining (Menon, Andriani & Calvagno, IEEE TIP 2007).

    Args:
        mosaic: float32 ``[H, W]``, balanced, RGGB; negative values and values above 1 pass.

    Returns:
        float32 ``[3, H, W]``, not clipped.

    Raises:
        ZooError: the library is not installed.
    """
    return _channels_first(_library().demosaicing_CFA_Bayer_Menon2007(mosaic, "RGGB"))


def malvar(mosaic: Array) -> Array:
    """Gradient-corrected linear interpolation (Malvar, He & Cutler, ICASSP 2004); arguments as :func:`menon`."""
    return _channels_first(_library().demosaicing_CFA_Bayer_Malvar2004(mosaic, "RGGB"))


def bilinear(mosaic: Array) -> Array:
    """The mean of the two or four nearest pixels of each colour; arguments as :func:`menon`."""
    return _channels_first(_library().demosaicing_CFA_Bayer_bilinear(mosaic, "RGGB"))


def _channels_first(rgb: npt.NDArray[np.floating]) -> Array:
    return np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32)


def _library() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that matplotlib is not there, which nothing here plots with
            import colour_demosaicing
    except ImportError as error:
        raise ZooError(
            f"bilinear, Menon's and Malvar's demosaicers need colour-demosaicing: pip install {INSTALL}"
        ) from error
    return colour_demosaicing
