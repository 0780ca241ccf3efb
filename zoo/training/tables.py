"""Entropy tables of a trained compressor: its symbols counted, its qualities as steps.

Runs once, on the machine that trained; see :mod:`zoo.codec.fitting`. The densities that training learned only say which positions
are alike, to start from: they are of values with noise in place of rounding, and tables made of them took 3 % more bytes at
quality 0, 2 % at 16 and 1 % at 32 than counted ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zoo.codec.entropy import estimate_bits
from zoo.codec.fitting import count
from zoo.codec.prediction import fit_weights, residual
from zoo.codec.rounding import quantise
from zoo.codec.tables import MAX_STEP, STEP_UNIT, EntropyTables
from zoo.data.synth import RawBatch
from zoo.errors import ZooError
from zoo.models.compressor import PREDICTED, SEEN, Compressor, whole_steps
from zoo.models.contracts import contract_of
from zoo.models.priors import cost_table, position_costs

QUALITIES = 64
MAX_ROWS = 256  # of frequencies, shared by all priors and channels; 512 save 0.1 % of the bytes at most
# A frequency of 1 in 65,536 for each of 371 values, all that ever came up, took 6 % of the bytes at quality 0, where nearly all
# symbols are zero; what is rarer than these escapes.
_LOW, _VALUES = -32, 65
_FITTED = (0, 16, 32, 48, 63)  # qualities whose symbols are looked at
_ROUNDINGS = 3  # of symbols by what was counted, which is then counted again: 0.1 to 0.4 % fewer bits than by one
_REACH = 64  # of the table that gives positions to priors at first


def quality_tables(model: Compressor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Gains and integer steps by quality, both ``[QUALITIES, C]``: the continuous scale at 64 points.

    Steps of latents that int8 decoders have no fine channel for are whole ones (:func:`zoo.models.compressor.whole_steps`).
    """
    with torch.no_grad():
        gain, scale = model.gains(torch.linspace(0, 1, QUALITIES, device=model.log_gain.device))
        gain, scale = whole_steps(gain.double(), scale.double(), model.fine)
    return gain.cpu().numpy(), np.clip(np.rint(scale.cpu().numpy() / STEP_UNIT), 1, MAX_STEP).astype(np.int32)


def fit_tables(
    model: Compressor, batches: Iterable[RawBatch], held: Iterable[RawBatch], *, max_rows: int = MAX_ROWS
) -> tuple[EntropyTables, npt.NDArray[np.float64], dict[str, Any]]:
    """Tables for what a compressor makes of pictures.

    Args:
        model: trained, in eval mode.
        batches: raws to count, of all noise levels; those it was trained on will do.
        held: raws that it was not trained on, for the facts.
        max_rows: distinct rows of frequencies.

    Returns:
        tables; gains float64 ``[QUALITIES, C]``; facts for the card: how many symbols were counted, and of the pictures held back
        the share of symbols that escape and bits per pixel by quality (side information included, headers not).

    Raises:
        ZooError: latents that are not finite.
    """
    gains, steps = quality_tables(model)
    latents, _ = _latents(model, batches)
    # To the nearest integer at first; what a bit costs, and so how an encoder rounds, tables have to say.
    symbols = [_nearest(y, gains[q]) for q in _FITTED for y in latents]
    seen = min(SEEN, model.latents)
    # Squared errors count in latents' own units, not in steps, or the best quality decides alone.
    weights = [float(steps[q, 0]) ** 2 for q in _FITTED for _ in latents]
    neighbours = fit_weights(zip(symbols, weights, strict=True), min(PREDICTED, seen), seen)
    costs = cost_table(model.priors, _REACH)
    maps = [
        position_costs(torch.from_numpy(s.astype(np.float32))[None], costs).min(1).indices.view(s.shape[1:]).numpy()
        for s in symbols
    ]

    def counted(symbols: list[npt.NDArray[np.int16]], maps: list[npt.NDArray[Any]]) -> EntropyTables:
        return count(
            [residual(s, neighbours) for s in symbols], maps, priors=model.priors.priors, low=_LOW, values=_VALUES,
            steps=steps, neighbours=neighbours, max_rows=max_rows,
        )  # fmt: skip

    tables = counted(symbols, maps)
    for _ in range(_ROUNDINGS):
        rounded = [quantise(y, gains[q], tables) for q in _FITTED for y in latents]
        symbols = [s for s, _ in rounded]
        tables = counted(symbols, [priors for _, priors in rounded])
    shown, pixels = _latents(model, held)
    found = {q: [quantise(y, gains[q], tables)[0] for y in shown] for q in _FITTED}
    differences = [residual(s, neighbours) for pictures in found.values() for s in pictures]
    escapes = sum(int(((d < _LOW) | (d >= _LOW + _VALUES)).sum()) for d in differences)
    facts = {
        "symbols": sum(s.size for s in symbols),
        "values": tables.values,
        "rows": len(tables.frequencies),
        "escapes": round(escapes / sum(d.size for d in differences), 8),
        "bits_per_pixel": {
            q: round(sum(estimate_bits(s, tables) for s in pictures) / pixels, 4) for q, pictures in found.items()
        },
    }
    return tables, gains, facts


@torch.no_grad()
def _latents(model: Compressor, batches: Iterable[RawBatch]) -> tuple[list[npt.NDArray[np.float32]], int]:
    """Latents [C, h, w] of every picture, and sensor pixels of them all."""
    contract, pixels, found = contract_of(model), 0, []
    for batch in batches:
        x = contract.encode(batch.planes, batch.shot, batch.read, batch.wb, batch.cfa)
        found += list(model.encode(x).float().cpu().numpy())
        pixels += batch.target[:, 0].numel()
    if not all(np.isfinite(y).all() for y in found):
        raise ZooError("the encoder gives latents that are not finite; the run has diverged, train it again")
    return found, pixels


def _nearest(latents: npt.NDArray[np.float32], gains: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    return np.rint(latents * gains[:, None, None]).clip(-32768, 32767).astype(np.int16)
