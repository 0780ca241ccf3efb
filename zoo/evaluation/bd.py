"""Bjontegaard deltas of two rate-distortion curves (VCEG-M33, 2001), by the library ``bjontegaard`` (BSD-3-Clause).

Piecewise cubic (PCHIP), as in JCT-VC's common test conditions: it does not overshoot between points, Akima's can. Two
things are done before, since a noisy picture's curve bends back (more bits keep more noise):

* only points better than every cheaper one count, as nobody would pay for the others;
* quality that does not grow any more is held, not lost, where qualities are compared at equal rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError

Array = npt.NDArray[np.float64]
Points = tuple[Sequence[float], Sequence[float]]  # rates in bits per pixel, qualities in dB

METHOD = "pchip"
FEWEST = 4  # points of a curve; fewer do not say how it bends
# dB of quality that two curves must share, else their BD-rate hangs on an end of each. JPEG XL of a Menon development and
# of a denoised one share 0.9 dB at ISO 3200 (Kodak 1, McMaster 1), since the former does not get better than 22.5 dB.
LEAST_SHARED = 0.5


@dataclass(frozen=True)
class Delta:
    """A Bjontegaard delta.

    Attributes:
        value: % of rate for equal quality, or dB for equal rate; None where there is none to give.
        reason: why there is none.
    """

    value: float | None
    reason: str = ""


def rising(rate: Sequence[float], quality: Sequence[float]) -> tuple[Array, Array]:
    """The points that are better than every cheaper one, by rate."""
    kept: list[tuple[float, float]] = []
    for point in sorted(zip(rate, quality, strict=True), key=lambda p: (p[0], -p[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    rates, qualities = np.array(kept, np.float64).reshape(-1, 2).T
    return rates, qualities


def decibels(similarity: Sequence[float]) -> list[float]:
    """SSIM or MS-SSIM as ``-10 log10(1 - x)``, so that equal steps are about equally hard; at most 100."""
    return [-10 * float(np.log10(max(1 - s, 1e-10))) for s in similarity]


def bd_rate(anchor: Points, test: Points) -> Delta:
    """Mean difference in rate at equal quality, % of the anchor's; negative where the test needs less.

    Args:
        anchor: rates in bits per pixel, > 0, and qualities in dB.
        test: the same.

    Returns:
        the delta over the qualities that both reach; none with fewer than :data:`FEWEST` rising points, or less than
        :data:`LEAST_SHARED` dB in common.

    Raises:
        ZooError: the library is not installed.
    """
    first, second = rising(*anchor), rising(*test)
    if second[1][0] >= first[1][-1] or second[1][-1] <= first[1][0]:
        where = "above" if second[1][0] >= first[1][-1] else "below"
        return Delta(None, f"the codec's curve lies {where} the anchor's throughout")
    for who, curve in (("anchor", first), ("codec", second)):
        if len(curve[0]) < FEWEST:
            return Delta(None, f"the {who}'s curve rises over {len(curve[0])} points only")
    shared = min(first[1][-1], second[1][-1]) - max(first[1][0], second[1][0])
    if shared < LEAST_SHARED:
        return Delta(None, f"the curves share {shared:.1f} dB only")
    return Delta(float(_library().bd_rate(*first, *second, METHOD, require_matching_points=False, min_overlap=0)))


def bd_quality(anchor: Points, test: Points) -> Delta:
    """Mean difference in quality at equal rate, dB; positive where the test is better. Arguments as :func:`bd_rate`.

    Returns:
        the delta over the rates that both were measured at; none where these do not meet.

    Raises:
        ZooError: the library is not installed.
    """
    first, second = _held(*anchor), _held(*test)
    if min(len(first[0]), len(second[0])) < 2 or min(first[0][-1], second[0][-1]) <= max(first[0][0], second[0][0]):
        return Delta(None, "the curves have no rate in common")
    return Delta(float(_library().bd_psnr(*first, *second, METHOD, require_matching_points=False, min_overlap=0)))


def _held(rate: Sequence[float], quality: Sequence[float]) -> tuple[Array, Array]:
    """The rising points, and the last one's quality at the largest rate."""
    rates, qualities = rising(rate, quality)
    if max(rate) > rates[-1]:
        rates, qualities = np.append(rates, max(rate)), np.append(qualities, qualities[-1])
    return rates, qualities


def _library() -> ModuleType:
    try:
        import bjontegaard
    except ImportError as error:
        raise ZooError("BD-rates need bjontegaard: pip install 'raw-zoo[report]'") from error
    return bjontegaard
