"""From what training learned to integer tables: rounding probabilities, sharing rows, counting prior maps.

Floats are allowed here: this runs once, on the machine that trained, and only its integer result is shipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.codec.priors import choose
from zoo.codec.tables import TOTAL, EntropyTables
from zoo.errors import ZooError

_RECOUNTS = 3  # the second gains 0.3 % of the bytes at most, the third 0.1 %
_BELIEF = 20.0  # positions that what was expected weighs as much as, against what is counted; 5 do as well
_ROUNDS = 30  # of k-means; after 10 the mean cost moves by less than 1e-4 bit


def build(
    probabilities: npt.NDArray[np.floating[Any]],
    low: int | Sequence[int],
    *,
    steps: npt.NDArray[np.integer[Any]] | None = None,
    neighbours: npt.NDArray[np.int32] | None = None,
    max_rows: int | None = None,
    usage: npt.NDArray[np.floating[Any]] | None = None,
) -> EntropyTables:
    """Integer tables from probabilities; the prior of a position is taken as uniform until :func:`fit_index`.

    Args:
        probabilities: float [K, C, L] >= 0: P(y = low[c] + i) of prior k, channel c. What is missing to 1 is the mass of
            all other values and goes to the escape.
        low: the value of column 0, one for all channels or one each.
        steps: [Q, C] quantiser steps in 1/65536; None for one quality with steps of 1.
        neighbours: of the prediction, see :class:`EntropyTables`; None for none.
        max_rows: share rows between priors and channels so that at most this many are left; None shares only rows that
            are equal. Fewer rows make a smaller file and longer runs per coder call.
        usage: [K] >= 0, how often each prior is used, so that rows of rare ones are shared first; None for alike.

    Raises:
        ZooError: wrong shape, negative or non-finite probabilities, rows that add up to more than 1, see also
            :class:`EntropyTables`.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 3 or 0 in p.shape or not np.isfinite(p).all() or p.min() < 0 or p.sum(axis=2).max() > 1 + 1e-3:
        raise ZooError("entropy tables: probabilities are [K, C, L], finite, >= 0 and add up to at most 1 over L")
    priors, channels, values = p.shape
    p = p / np.maximum(p.sum(axis=2, keepdims=True), 1)
    escape = np.maximum(1 - p.sum(axis=2, keepdims=True), 0)
    flat = np.concatenate([p, escape], axis=2).reshape(-1, values + 1)
    frequencies, rows = np.unique(round_rows(flat, TOTAL), axis=0, return_inverse=True)
    if max_rows is not None and len(frequencies) > max_rows:
        share = np.ones(priors) if usage is None else np.asarray(usage, np.float64)
        weight = np.bincount(rows.ravel(), weights=np.repeat(share / share.sum(), channels))
        weight = weight.astype(np.float64) + 1e-4 * weight.mean()
        shared, assigned = _share(frequencies, weight, max_rows)
        frequencies, again = np.unique(shared, axis=0, return_inverse=True)
        rows = again.ravel()[assigned][rows.ravel()]
    uniform = np.ones((priors + 1, priors))
    return EntropyTables(
        frequencies=frequencies.astype(np.uint16),
        rows=rows.reshape(priors, channels).astype(np.uint16),
        low=np.broadcast_to(np.asarray(low), channels).astype(np.int16),
        index_same=round_rows(uniform, TOTAL).astype(np.int32),
        index_left=round_rows(uniform, TOTAL // 2).astype(np.int32),
        index_up=round_rows(uniform, TOTAL // 2).astype(np.int32),
        neighbours=np.zeros((1, 3, 1), np.int32) if neighbours is None else neighbours,
        steps=np.full((1, channels), 1 << 16) if steps is None else np.asarray(steps),
    )


def count(
    coded: Sequence[npt.NDArray[np.integer[Any]]],
    maps: Sequence[npt.NDArray[np.integer[Any]]],
    *,
    priors: int,
    low: int,
    values: int,
    steps: npt.NDArray[np.integer[Any]],
    neighbours: npt.NDArray[np.int32],
    max_rows: int,
) -> EntropyTables:
    """Tables from what photos have: frequencies counted, positions given to the prior that is cheapest for them, again counted.

    Args:
        coded: [C, h, w] of many tiles, differences to the prediction (:func:`zoo.codec.prediction.residual`).
        maps: [h, w] of the same, a prior for each position to start from.
        priors: K.
        low: the value of column 0 of all channels, <= 0.
        values: L > -low.
        steps, neighbours, max_rows: as of :func:`build`.
    """
    channels = len(coded[0])
    channel = np.arange(channels)[:, None]
    columns = [c.reshape(channels, -1).astype(np.int64) - low for c in coded]
    columns = [np.where((c < 0) | (c >= values), values, c) for c in columns]
    expected: npt.NDArray[np.float64] | None = None
    for _ in range(_RECOUNTS):
        # Whole tables are counted at once: 12,288 rows of 66 are 6 MB.
        flat = np.zeros(priors * channels * (values + 1))
        for c, own in zip(columns, maps, strict=True):
            at = (own.ravel().astype(np.int64) * channels + channel) * (values + 1) + c
            flat += np.bincount(at.ravel(), minlength=flat.size)
        counts = flat.reshape(priors, channels, values + 1)
        if expected is None:
            pooled = counts.sum(axis=0) + 1 / (values + 1)
            expected = np.broadcast_to(pooled / pooled.sum(axis=1, keepdims=True), counts.shape)
        mass = counts + _BELIEF * expected
        mass /= mass.sum(axis=2, keepdims=True)
        usage = counts[:, 0].sum(axis=1)
        tables = build(mass[:, :, :-1], low, steps=steps, neighbours=neighbours, max_rows=max_rows, usage=usage + 1e-3)
        expected = tables.frequencies[tables.rows] / TOTAL
        tables = fit_index(tables, maps)
        maps = [choose(c, tables, own.shape) for c, own in zip(columns, maps, strict=True)]
    return fit_index(tables, maps)


def fit_index(tables: EntropyTables, maps: Iterable[npt.NDArray[np.integer[Any]]]) -> EntropyTables:
    """The same tables with frequencies of priors counted from maps of real photos.

    Args:
        tables: whose latents the maps belong to.
        maps: [h, w] prior per position, e.g. from :func:`zoo.codec.priors.choose`, of many tiles.

    Raises:
        ZooError: a map names a prior that does not exist.
    """
    k = tables.priors
    same, left, up = (np.zeros((k + 1, k)) for _ in range(3))
    for given in maps:
        index = np.asarray(given, np.int64)
        if index.ndim != 2 or index.size == 0 or index.min() < 0 or index.max() >= k:
            raise ZooError(f"a map of priors is [h, w] with values 0 to {k - 1}")
        padded = np.pad(index, ((1, 0), (1, 0)), constant_values=k)
        before, above = padded[1:, :-1], padded[:-1, 1:]
        agree = before == above
        np.add.at(same, (before[agree], index[agree]), 1)
        np.add.at(left, (before[~agree], index[~agree]), 1)
        np.add.at(up, (above[~agree], index[~agree]), 1)
    # Half a count for what was never seen, in proportion to how often the prior is used at all.
    overall = same.sum(axis=0) + left.sum(axis=0)
    overall = (overall + 1) / (overall + 1).sum()
    prior = 0.5 * k * overall
    return dataclasses.replace(
        tables,
        index_same=round_rows(same + prior, TOTAL).astype(np.int32),
        index_left=round_rows(left + prior, TOTAL // 2).astype(np.int32),
        index_up=round_rows(up + prior, TOTAL // 2).astype(np.int32),
    )


def round_rows(weights: npt.NDArray[np.floating[Any]], total: int) -> npt.NDArray[np.int64]:
    """Rows of non-negative weights -> rows of integers >= 1 that add up to ``total``, [N, n] -> [N, n].

    One is given to each entry, the rest in proportion, and what rounding leaves to the largest remainders (of equal ones
    the first), so the result does not depend on how a library sums.
    """
    w = np.asarray(weights, np.float64)
    ideal = w / w.sum(axis=1, keepdims=True) * (total - w.shape[1])
    floor = np.floor(ideal)
    missing = (total - w.shape[1] - floor.sum(axis=1)).astype(np.int64)
    order = np.argsort(floor - ideal, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return floor.astype(np.int64) + 1 + (rank < missing[:, None])


def _share(
    frequencies: npt.NDArray[np.int64], weight: npt.NDArray[np.float64], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """k-means in bits: at most ``count`` rows, and for each given row the one that codes its symbols shortest."""
    p = frequencies / TOTAL
    entropy = -(p * np.log2(p)).sum(axis=1)
    # Start from rows spread over the entropies, denser where they are used more.
    order = np.argsort(entropy, kind="stable")
    reached = np.cumsum(np.sqrt(weight[order]))
    places = np.searchsorted(reached, np.linspace(0, 1, count) * reached[-1]).clip(max=len(order) - 1)
    centres = frequencies[order[places]]
    for _ in range(_ROUNDS):
        assigned = np.argmin(-p @ np.log2(centres / TOTAL).T, axis=1)
        sums = np.zeros(centres.shape)
        np.add.at(sums, assigned, p * weight[:, None])
        used = sums.sum(axis=1) > 0
        centres = np.where(used[:, None], round_rows(np.where(used[:, None], sums, 1.0), TOTAL), centres)
    return centres, np.argmin(-p @ np.log2(centres / TOTAL).T, axis=1)
