"""What a position's lowest latents are likely to be, by its neighbours': only the difference is coded.

Blocks are transformed one by one, so their brightness, colours and slopes go on from one to the next. On bayer-codec-m that is
15 % of the bytes at quality 0, 8 % at 16 and 2 % at 48. The prediction is linear with integer weights that belong to the tables,
so it is the same on every device.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

WEIGHT_UNIT = 1 / 65536
MAX_WEIGHT = 1 << 24  # 256 in those units: 3 x 64 products with 16-bit latents stay below 2^47, exact in float64
MAX_SEEN = 64
_RIDGE = 1e-4  # of the mean variance of what is seen; without it flat pictures leave the equations singular


def residual(latents: npt.NDArray[np.integer[Any]], weights: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    """Latents less what is predicted of them, modulo 2^16.

    Args:
        latents: integers [C, h, w] within 16 bits.
        weights: int32 [P, 3, M] in 1/65536: of the first M latents of the left, upper and upper left neighbour (in this
            order), for the prediction of each of the first P.

    Returns:
        int16 [C, h, w].
    """
    height, width = latents.shape[1:]
    out = latents.astype(np.int16)
    seen = _seen(_with_zero(out[: weights.shape[2]].astype(np.float64)), _neighbours(height, width))
    out[: len(weights)] -= _predict(weights, seen).reshape(-1, height, width).astype(np.int16)
    return out


def restore(residuals: npt.NDArray[np.int16], weights: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    """The inverse of :func:`residual`, along anti-diagonals, whose positions do not depend on each other."""
    predicted, _, seen = weights.shape
    height, width = residuals.shape[1:]
    low = _with_zero(residuals[: max(predicted, seen)])
    neighbours = _neighbours(height, width)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(diagonal, height - 1) + 1)
        at = y * width + diagonal - y
        found = _predict(weights, _seen(low[:seen], neighbours[:, at]).astype(np.float64))
        low[:predicted, at] = (low[:predicted, at] + found).astype(np.int16)
    out = residuals.copy()
    out[: len(low)] = low[:, :-1].reshape(-1, height, width)
    return out


def fit_weights(
    pictures: Iterable[tuple[npt.NDArray[np.integer[Any]], float]], predicted: int, seen: int
) -> npt.NDArray[np.int32]:
    """Weights for :func:`residual` by least squares.

    Args:
        pictures: latents [C, h, w] and the weight of their squared errors.
        predicted, seen: P and M, at most C; M at most :data:`MAX_SEEN`.
    """
    square, product = np.zeros((3 * seen, 3 * seen)), np.zeros((3 * seen, predicted))
    for latents, share in pictures:
        low = latents[: max(predicted, seen)].astype(np.float64)
        found = _seen(_with_zero(low[:seen]), _neighbours(*low.shape[1:]))
        square += share * found @ found.T
        product += share * found @ low[:predicted].reshape(predicted, -1).T
    ridge = _RIDGE * max(np.trace(square) / len(square), 1e-12)
    solved = np.linalg.solve(square + ridge * np.eye(len(square)), product).T.reshape(predicted, 3, seen)
    return np.rint(solved / WEIGHT_UNIT).clip(-MAX_WEIGHT, MAX_WEIGHT).astype(np.int32)


def _predict(weights: npt.NDArray[np.int32], seen: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Predictions [P, n] from :func:`_seen`, rounded, halves up."""
    # In float64, which takes 0.07 ms for a tile where NumPy's integers take 1.5; partial sums are whole numbers below 2^53.
    sums = weights.reshape(len(weights), -1).astype(np.float64) @ seen
    return (sums.astype(np.int64) + (1 << 15)) >> 16


def _seen(values: npt.NDArray[Any], near: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """[M, h * w + 1] and places [3, n] -> [3 * M, n], by neighbour: 0.04 ms a tile; [M, 3, n], then turned, takes 0.1."""
    return np.concatenate([values.take(places, axis=1) for places in near])


def _with_zero(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[M, h, w] -> [M, h * w + 1], the last one 0, for the neighbours that nobody has."""
    return np.pad(values.reshape(len(values), -1), ((0, 0), (0, 1)))


@lru_cache(maxsize=8)
def _neighbours(height: int, width: int) -> npt.NDArray[np.intp]:
    """Where the left, upper and upper left neighbour of every position stand: [3, h * w]. In the first row all three are the
    left one, in the first column the upper one; the first position has none, for which ``h * w`` stands."""
    at = np.arange(height * width).reshape(height, width)
    near = np.stack([at - 1, at - width, at - width - 1])
    near[:, 0] = at[0] - 1
    near[:, :, 0] = at[:, 0] - width
    near[:, 0, 0] = height * width
    return near.reshape(3, -1)
