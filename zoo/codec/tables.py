"""The codec's probability tables: integers only, shipped with the weights, the same on every device.

A learned codec whose probabilities come out of a float network cannot be decoded elsewhere: one differing last bit in one
probability and every symbol after it is noise. Here a table is *chosen* per latent position, never computed.

The model ("ManyPriors"): K priors compete for each latent position. A prior has one row of frequencies per channel;
positions that look alike (flat sky, grass, text) come to share a prior in training. Which prior a position uses is coded
first, with tables that depend on the priors of its left and upper neighbours. What is coded are latents, the lowest of them less
what their neighbours let expect.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.codec.prediction import MAX_SEEN, MAX_WEIGHT
from zoo.errors import ZooError
from zoo.files import replacing

TOTAL = 1 << 16  # what the frequencies of a row add up to
MAX_PRIORS = 64
MAX_CHANNELS = 512
MAX_VALUES = 1024  # values with a frequency of their own
STEP_UNIT = 1 / 65536  # of the quantiser's steps
MAX_STEP = 1 << 24  # 256 in those units; a latent times a step then has at most 40 bits
PREFIX = "entropy."  # of the tensors' names, so that they can lie in one file with the weights
# Tensor float64 [Q, C]: what the encoder multiplies latents by. It ships, since another machine's exp may differ in the last bit.
GAINS = "gains"
_NAMES = ("frequencies", "rows", "low", "index_same", "index_left", "index_up", "neighbours", "steps")
_TYPES = {"frequencies": np.uint16, "rows": np.uint16, "low": np.int16}


@dataclass(frozen=True, eq=False)
class EntropyTables:
    """Frequencies for latents of C channels under K priors. Made by :func:`zoo.codec.fitting.count`.

    Attributes:
        frequencies: uint16 [T, L + 1], every entry >= 1, rows add up to 2^16. Column i < L belongs to the value
            ``low[c] + i``, column L to the escape, which stands for every value beyond.
        rows: uint16 [K, C], the row of ``frequencies`` that a prior uses for a channel; rows may be shared.
        low: int16 [C], the lowest value with a column; low <= 0 < low + L, so that 0 never needs an escape.
        index_same: int32 [K + 1, K], frequencies of a position's prior where the left and upper neighbours agree, by
            their prior (K: neither exists); >= 1, rows add up to 2^16.
        index_left, index_up: int32 [K + 1, K], where they differ: the two rows, by the left and by the upper
            neighbour's prior (K: it does not exist), are added; >= 1, rows add up to 2^15 each.
        neighbours: int32 [P, 3, M] in -2^24..2^24, P and M up to C, M up to 64: weights of the prediction of the first P
            latents, see :mod:`zoo.codec.prediction`; zeros for none.
        steps: int32 [Q, C] in 1..2^24: the quantiser's step by quality index and channel in units of 1/65536. The decoder
            multiplies by it; the encoder may divide by something else (:func:`zoo.codec.rounding.quantise`).

    Raises:
        ZooError: any of these does not hold.
    """

    frequencies: npt.NDArray[np.uint16]
    rows: npt.NDArray[np.uint16]
    low: npt.NDArray[np.int16]
    index_same: npt.NDArray[np.int32]
    index_left: npt.NDArray[np.int32]
    index_up: npt.NDArray[np.int32]
    neighbours: npt.NDArray[np.int32]
    steps: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        for name in _NAMES:
            given, dtype = np.asarray(getattr(self, name)), np.dtype(_TYPES.get(name, np.int32))
            if given.dtype.kind not in "iu" or (given.astype(dtype) != given).any():
                raise ZooError(f"entropy tables: {name} holds values that are no {dtype}; the file is damaged")
            tensor = np.ascontiguousarray(given, dtype)
            if tensor.base is not None or tensor is given:  # the tables' sha256 must not change under them
                tensor = tensor.copy()
            tensor.setflags(write=False)
            object.__setattr__(self, name, tensor)
        if problem := self._problem():
            raise ZooError(f"entropy tables: {problem}; the file is damaged or made by other software")

    def _problem(self) -> str:
        """What is wrong with the tensors, empty if nothing is."""
        shapes = {name: getattr(self, name).shape for name in _NAMES}
        if [len(shapes[n]) for n in _NAMES] != [2, 2, 1, 2, 2, 2, 3, 2] or 0 in [s for v in shapes.values() for s in v]:
            return f"shapes {shapes} are not those of zoo.codec.EntropyTables"
        (k, c), values = self.rows.shape, self.values
        if not (k <= MAX_PRIORS and c <= MAX_CHANNELS and 1 <= values <= MAX_VALUES):
            return f"{k} priors, {c} channels, {values} values exceed {MAX_PRIORS}, {MAX_CHANNELS}, {MAX_VALUES}"
        if len(self.low) != c or self.steps.shape[1] != c or len(self.steps) > 256:
            return f"low {shapes['low']} and steps {shapes['steps']} do not fit {c} channels and 256 qualities"
        if any(shapes[n] != (k + 1, k) for n in ("index_same", "index_left", "index_up")):
            return f"the index tables do not fit {k} priors"
        predicted, three, seen = self.neighbours.shape
        if three != 3 or max(predicted, seen) > c or seen > MAX_SEEN or np.abs(self.neighbours).max() > MAX_WEIGHT:
            return f"neighbours {shapes['neighbours']} do not fit {c} channels, or a weight is beyond {MAX_WEIGHT}"
        if self.rows.max() >= len(self.frequencies):
            return f"rows name table {self.rows.max()}, but there are {len(self.frequencies)}"
        low = self.low.astype(np.int64)
        if (low > 0).any() or (low + values <= 0).any():
            return "a channel has no frequency for the value 0"
        for name, total in (("frequencies", TOTAL), ("index_same", TOTAL), ("index_left", TOTAL // 2),
                            ("index_up", TOTAL // 2)):  # fmt: skip
            tensor = getattr(self, name)
            if (tensor < 1).any() or (tensor.sum(axis=1, dtype=np.int64) != total).any():
                return f"{name} has an entry of 0 or a row that does not add up to {total}"
        return f"a step is not in 1..{MAX_STEP}" if (self.steps < 1).any() or (self.steps > MAX_STEP).any() else ""

    @property
    def priors(self) -> int:
        """K."""
        return int(self.rows.shape[0])

    @property
    def channels(self) -> int:
        """C."""
        return int(self.rows.shape[1])

    @property
    def values(self) -> int:
        """L, the values that have a frequency of their own."""
        return int(self.frequencies.shape[1]) - 1

    @property
    def qualities(self) -> int:
        """Q."""
        return int(self.steps.shape[0])

    @cached_property
    def sha256(self) -> bytes:
        """32 bytes that name these tables: SHA-256 over every tensor's name, shape and little-endian values."""
        digest = hashlib.sha256(b"rzc entropy tables 2\n")
        for name, tensor in self.tensors(prefix="").items():
            digest.update(f"{name} {' '.join(map(str, tensor.shape))}\n".encode())
            digest.update(tensor.astype(tensor.dtype.newbyteorder("<")).tobytes())
        return digest.digest()

    @cached_property
    def index_frequencies(self) -> npt.NDArray[np.int32]:
        """int32 [K + 1, K + 1, K]: frequencies of a position's prior by its left and its upper neighbour's."""
        table = self.index_left[:, None] + self.index_up[None]
        diagonal = np.arange(self.priors + 1)
        table[diagonal, diagonal] = self.index_same
        return table

    def tensors(self, prefix: str = PREFIX) -> dict[str, npt.NDArray[Any]]:
        """The tensors by name, to be stored with the weights."""
        return {prefix + name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any], prefix: str = PREFIX) -> EntropyTables:
        """The inverse of :meth:`tensors`; takes NumPy arrays and CPU tensors, and ignores other names.

        Raises:
            ZooError: a tensor is missing, or the values are no valid tables.
        """
        missing = [prefix + name for name in _NAMES if prefix + name not in tensors]
        if missing:
            raise ZooError(f"entropy tables: {', '.join(missing)} missing; this checkpoint is of no codec")
        return cls(**{name: np.asarray(tensors[prefix + name]) for name in _NAMES})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tables alone as safetensors (temporary name, then renamed).

        Raises:
            ZooError: the file cannot be written.
        """
        from safetensors.numpy import save

        with replacing(path) as temporary:
            temporary.write_bytes(save(self.tensors()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EntropyTables:
        """Read the tables from a safetensors file, be it of tables alone or a whole checkpoint.

        Raises:
            ZooError: no such file, no safetensors, no or invalid tables in it.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                return cls.from_tensors({n: file.get_tensor(n) for n in file.keys() if n.startswith(PREFIX)})  # noqa: SIM118
        except OSError as error:
            raise ZooError(f"{path}: cannot be read ({error.strerror or error}); check the name") from error
        except SafetensorError as error:
            raise ZooError(f"{path}: no safetensors file ({error}); the download may be cut off") from error
        except ZooError as error:
            raise ZooError(f"{path}: {error}") from error

    def dequantise(self, latents: npt.NDArray[np.int16], quality: int) -> npt.NDArray[np.float32]:
        """Latents as the decoder network takes them: ``latents * steps[quality] / 65536``.

        The product is exact in int64 and 1/65536 a power of two, so the one rounding, to float32, is the same anywhere.

        Args:
            latents: int16 [C, h, w].
            quality: row of ``steps``.

        Returns:
            float32 [C, h, w].

        Raises:
            ZooError: no such quality.
        """
        product = latents.astype(np.int64) * self._step(quality)[:, None, None]
        return product.astype(np.float32) * np.float32(STEP_UNIT)

    def _step(self, quality: int) -> npt.NDArray[np.int32]:
        if not 0 <= quality < self.qualities:
            raise ZooError(f"quality {quality} does not exist; this model has 0 to {self.qualities - 1}")
        return self.steps[quality]


def save_tables(path: Path, tables: EntropyTables, gains: npt.NDArray[np.float64]) -> None:
    """Write tables and gains as one safetensors file (temporary name, then renamed).

    Raises:
        ZooError: the file cannot be written.
    """
    from safetensors.numpy import save

    with replacing(path) as temporary:
        temporary.write_bytes(save({**tables.tensors(), GAINS: gains}))


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
