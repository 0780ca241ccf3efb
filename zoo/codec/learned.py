"""Entropy tables of a trained compressor: its densities as integers, its qualities as steps, its prior maps counted.

Runs once, on the machine that trained; see :mod:`zoo.codec.fitting`. The tables' file also holds ``gains``, what the encoder
multiplies latents by, since another machine's ``exp`` may differ in the last bit.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zoo.codec.entropy import estimate_bits, prior_map
from zoo.codec.fitting import build, fit_index
from zoo.codec.tables import MAX_STEP, MAX_VALUES, STEP_UNIT, EntropyTables
from zoo.data.synth import RawBatch
from zoo.errors import ZooError
from zoo.models.compressor import Compressor
from zoo.models.contracts import contract_of

QUALITIES = 64
GAINS = "gains"  # tensor float64 [QUALITIES, C]
MAX_ROWS = 512  # of frequencies, shared by all priors and channels; see docs/bitstream.md for what that costs
_FITTED = (0, 16, 32, 48, 63)  # qualities whose symbols are looked at
_TAIL = 1e-4  # share of a channel's symbols beyond each end of the table's range
_LEAST_VALUES = 16


def quality_tables(model: Compressor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Gains and integer steps by quality, both ``[QUALITIES, C]``: the continuous scale at 64 points."""
    with torch.no_grad():
        gains, scales = model.gains(torch.linspace(0, 1, QUALITIES, device=model.log_gain.device))
    steps = np.clip(np.rint(scales.double().cpu().numpy() / STEP_UNIT), 1, MAX_STEP).astype(np.int32)
    return gains.double().cpu().numpy(), steps


def fit_tables(
    model: Compressor, batches: Iterable[RawBatch], *, max_rows: int = MAX_ROWS
) -> tuple[EntropyTables, npt.NDArray[np.float64], dict[str, Any]]:
    """Tables for what a compressor makes of pictures.

    Args:
        model: trained, in eval mode.
        batches: raws that it was not trained on, of all noise levels.
        max_rows: distinct rows of frequencies.

    Returns:
        tables; gains float64 ``[QUALITIES, C]``; facts for the card: how many symbols were looked at, the share that had
        to escape, and bits per pixel by quality (side information included, headers not).

    Raises:
        ZooError: latents that are not finite.
    """
    gains, steps = quality_tables(model)
    symbols, pixels = _symbols(model, batches, gains)
    low, values = _ranges(symbols)
    priors = copy.deepcopy(model.priors).double().cpu()
    with torch.no_grad():
        at = torch.from_numpy(low[:, None] + np.arange(values)).double()[None]
        mass = priors.probability(at - 0.5, at + 0.5).numpy()
    flat = [picture for pictures in symbols.values() for picture in pictures]
    tables = build(mass, low.tolist(), steps=steps)
    if len(tables.frequencies) > max_rows:
        counts = [np.bincount(prior_map(picture, tables).ravel(), minlength=tables.priors) for picture in flat]
        usage = np.stack(counts).sum(axis=0).astype(np.float64)
        tables = build(mass, low.tolist(), steps=steps, max_rows=max_rows, usage=usage)
    for _ in range(2):  # which prior is cheapest depends on what naming it costs
        tables = fit_index(tables, [prior_map(picture, tables) for picture in flat])
    outside = sum(int(((s < low[:, None, None]) | (s >= low[:, None, None] + values)).sum()) for s in flat)
    total = sum(s.size for s in flat)
    rates = {q: sum(estimate_bits(s, tables) for s in pictures) / pixels for q, pictures in symbols.items()}
    facts = {
        "symbols": total,
        "values": values,
        "rows": len(tables.frequencies),
        "escapes": round(outside / total, 8),
        "bits_per_pixel": {q: round(rate, 4) for q, rate in rates.items()},
    }
    return tables, gains, facts


def save_tables(path: Path, tables: EntropyTables, gains: npt.NDArray[np.float64]) -> None:
    """Write tables and gains as one safetensors file (temporary name, then renamed)."""
    from safetensors.numpy import save

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(save({**tables.tensors(), GAINS: gains}))
    temporary.replace(path)


def load_tables(path: Path) -> tuple[EntropyTables, npt.NDArray[np.float64]]:
    """The inverse of :func:`save_tables`.

    Raises:
        ZooError: no such file, not tables, or gains that do not fit them.
    """
    from safetensors import safe_open

    tables = EntropyTables.load(path)
    with safe_open(path, framework="numpy") as file:
        gains = np.asarray(file.get_tensor(GAINS) if GAINS in file.keys() else [])  # noqa: SIM118
    if gains.shape != tables.steps.shape or not np.isfinite(gains).all() or gains.min() <= 0:
        raise ZooError(f"{path}: holds no gains that fit its tables; the file is damaged, install the package again")
    return tables, gains.astype(np.float64)


@torch.no_grad()
def _symbols(
    model: Compressor, batches: Iterable[RawBatch], gains: npt.NDArray[np.float64]
) -> tuple[dict[int, list[npt.NDArray[np.int32]]], int]:
    """Integer latents [C, h, w] of every picture by quality, and sensor pixels of the pictures of one quality."""
    contract, pixels = contract_of(model), 0
    symbols: dict[int, list[npt.NDArray[np.int32]]] = {q: [] for q in _FITTED}
    for batch in batches:
        x = contract.encode(batch.planes, batch.shot, batch.read, batch.wb, batch.cfa)
        latents = model.encoder(x).double().cpu().numpy()
        if not np.isfinite(latents).all():
            raise ZooError("the encoder gives latents that are not finite; the run has diverged, train it again")
        pixels += batch.target[:, 0].numel()
        for q in _FITTED:
            scaled = np.rint(latents * gains[q][:, None, None]).clip(-32768, 32767)
            symbols[q] += list(scaled.astype(np.int32))
    return symbols, pixels


def _ranges(symbols: dict[int, list[npt.NDArray[np.int32]]]) -> tuple[npt.NDArray[np.int64], int]:
    """Lowest value with a column per channel ``[C]``, and the number of columns, one for all."""
    per_channel = np.concatenate([s.reshape(len(s), -1) for pictures in symbols.values() for s in pictures], axis=1)
    low, high = np.quantile(per_channel, (_TAIL, 1 - _TAIL), axis=1, method="nearest").astype(np.int64)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    values = int(np.clip((high - low + 1).max(), _LEAST_VALUES, MAX_VALUES))
    # The room that a channel leaves goes to both sides; 0 keeps its column in channels that are too wide.
    centred = low - (values - (high - low + 1)) // 2
    return np.clip(centred, 1 - values, 0), values
