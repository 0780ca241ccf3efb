"""The encoder's choice: which prior codes each latent position in the fewest bits. Integers only, so it is repeatable."""

from __future__ import annotations

from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from zoo.codec.tables import TOTAL, EntropyTables

COST_UNIT = 256  # costs are in 1/256 bit: a sum over 512 channels of at most 16 bits stays below 2^21
_GUARD = 4  # extra binary digits of the logarithm before it is rounded
_caches: WeakKeyDictionary[EntropyTables, _Costs] = WeakKeyDictionary()


@lru_cache(maxsize=1)
def bit_costs() -> npt.NDArray[np.int32]:
    """int32 [65537]: what a symbol of frequency f costs, ``256 * (16 - log2 f)`` rounded; entry 0 is unused.

    The logarithm is worked out by squaring in fixed point, as libraries' log2 may differ in the last bit and so decide
    a tie between two priors one way here and another way there. The result is within 0.6/256 bit.
    """
    f = np.arange(1, TOTAL + 1, dtype=np.uint64)
    whole = np.zeros_like(f)
    for shift in (16, 8, 4, 2, 1):
        step = (f >> whole >> np.uint64(shift)) > 0
        whole += np.where(step, np.uint64(shift), np.uint64(0))
    mantissa = f << (np.uint64(30) - whole)  # 1 <= x < 2, as x * 2^30
    log = whole
    for _ in range(8 + _GUARD):
        mantissa = mantissa * mantissa >> np.uint64(30)
        carry = mantissa >> np.uint64(31)
        mantissa >>= carry
        log = log * np.uint64(2) + carry
    cost = (16 << (8 + _GUARD)) - log.astype(np.int64)
    return np.concatenate([[0], (cost + (1 << (_GUARD - 1))) >> _GUARD]).astype(np.int32)


class _Costs:
    """What the choice needs of a set of tables, worked out once.

    Attributes:
        zero: int32 [K], the cost of a position whose latents are all 0.
        extra: int32 [C * (L + 1), K], what another symbol costs beyond that.
        index: int32 [(K + 1) * (K + 1), K], the cost of naming a prior by its left and upper neighbours'.
    """

    def __init__(self, tables: EntropyTables) -> None:
        bits = bit_costs()
        costs = bits[tables.frequencies][tables.rows].transpose(1, 2, 0)  # [C, L + 1, K]
        at_zero = costs[np.arange(tables.channels), -tables.low.astype(np.int64)]
        self.zero = at_zero.sum(axis=0, dtype=np.int32)
        self.extra = np.ascontiguousarray(costs - at_zero[:, None]).reshape(-1, tables.priors)
        self.index = bits[tables.index_frequencies].reshape(-1, tables.priors)


def choose(columns: npt.NDArray[np.integer], tables: EntropyTables, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The prior of each position: the cheapest for its latents plus for naming it, given its left and upper neighbours'.

    Works along anti-diagonals, whose positions do not depend on each other. The effect on the positions after it is left
    out; of equally cheap priors the first is taken.

    Args:
        columns: integers [C, h * w] in 0..L, the column of ``tables.frequencies`` of each latent.
        tables: K priors.
        shape: h, w.

    Returns:
        uint8 [h, w].
    """
    height, width = shape
    if tables.priors == 1:
        return np.zeros(shape, np.uint8)
    if tables not in _caches:
        _caches[tables] = _Costs(tables)
    costs = _caches[tables]
    order, left, above, own, ends = _diagonals(height, width)
    total = latent_costs(columns, tables)[order]
    index = np.full((height + 1) * (width + 1), tables.priors, np.intp)  # row and column 0: no neighbour
    start = 0
    for end in ends:
        near = index[left[start:end]] * (tables.priors + 1) + index[above[start:end]]
        cost = costs.index.take(near, axis=0)
        cost += total[start:end]
        index[own[start:end]] = cost.argmin(axis=1)
        start = end
    return index.reshape(height + 1, width + 1)[1:, 1:].astype(np.uint8)


_Places = npt.NDArray[np.intp]


@lru_cache(maxsize=8)
def _diagonals(height: int, width: int) -> tuple[_Places, _Places, _Places, _Places, list[int]]:
    """The walk of :func:`choose`: a third of the time of working it out at every diagonal.

    Returns:
        Positions by anti-diagonal; of each its left neighbour, upper neighbour and itself in a map with one row and column more
        at the top left; where each anti-diagonal ends.
    """
    y, x = np.divmod(np.arange(height * width), width)
    order = np.argsort(y + x, kind="stable")
    own = ((y + 1) * (width + 1) + x + 1)[order]
    return order, own - 1, own - (width + 1), own, np.cumsum(np.bincount(y + x)).tolist()


def latent_costs(columns: npt.NDArray[np.integer], tables: EntropyTables) -> npt.NDArray[np.int32]:
    """int32 [h * w, K]: the cost of each position's latents under each prior, without the excess of escapes.

    Starts from all zeros and adds what the others cost beyond: 60 to 95 % of a codec's latents are zero.
    """
    if tables not in _caches:
        _caches[tables] = _Costs(tables)
    costs = _caches[tables]
    positions = columns.shape[1]
    found = np.flatnonzero(columns != -tables.low[:, None])
    channel, position = np.divmod(found.astype(np.int32), np.int32(positions))
    at = channel * (tables.values + 1) + columns.reshape(-1)[found]
    # A sparse matrix of ones times the extra costs: sums rows of K integers in place, 8 times faster than indexing. Sorting
    # 16 bits takes a quarter less time, in all, than looking for the symbols position by position in transposed columns.
    order = np.argsort(position.astype(np.uint16) if positions <= 1 << 16 else position, kind="stable")
    ends = np.cumsum(np.bincount(position, minlength=positions))
    ones = csr_array((np.ones(at.size, np.int32), at[order], np.append(0, ends)), (positions, len(costs.extra)))
    return costs.zero + ones @ costs.extra
