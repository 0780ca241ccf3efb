"""Integer latents <-> bytes, by the asymmetric numeral system (ANS) of the ``constriction`` package.

Every probability is an integer frequency of :class:`EntropyTables`, so the bytes decode to the same integers on any device.
constriction's coder works with 24-bit probabilities that it derives from floats. Handed the floats ``256 * f - 1`` (whole
numbers, exact in float64, that add up to exactly ``2^24 - n``), it arrives at ``256 * f`` without rounding; a check at
first use and a decoder in plain Python integers in the tests hold it to that. docs/bitstream.md describes the coder for those who
write another.

One call of the coder costs 0.1 us and one symbol 0.01 to 0.03 us, so symbols are put in *runs* that share a row of
frequencies: all positions of a prior within a channel, and all such that share a row.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from zoo.codec.prediction import residual, restore
from zoo.codec.priors import choose
from zoo.codec.tables import TOTAL, EntropyTables
from zoo.errors import ZooError

_PRECISION = 24  # of constriction's default coder
_SCALE = (1 << _PRECISION) // TOTAL
# Escapes are Elias gamma codes: the class b of 1 + excess costs b + 1 bits, its b lower digits one bit each.
_CLASSES = 17
_CLASS_FREQUENCIES = np.array([1 << (15 - b) for b in range(16)] + [1])
MAX_TILE_SYMBOLS = 1 << 23  # 8.4 million: 128 x 128 positions of 512 channels; about 300 MB while decoding


class _Coder:
    """constriction's models and the order of runs for one set of tables; made as far as a stream needs them."""

    def __init__(self, tables: EntropyTables) -> None:
        _check()
        self.tables = tables
        self._rows: list[Any] = [None] * len(tables.frequencies)
        self.indices: list[Any] = [None] * (tables.priors + 1) ** 2
        # Runs in the order of the stream: by row, then channel, then prior.
        channel = np.broadcast_to(np.arange(tables.channels)[None], tables.rows.shape).ravel()
        prior = np.broadcast_to(np.arange(tables.priors)[:, None], tables.rows.shape).ravel()
        order = np.lexsort((prior, channel, tables.rows.ravel()))
        self.run_row = tables.rows.ravel()[order].astype(np.int64)
        self.run_channel, self.run_prior = channel[order], prior[order]

    def row(self, row: int) -> Any:
        """The model of one row of frequencies."""
        model = self._rows[row]
        if model is None:
            model = self._rows[row] = _model(self.tables.frequencies[row])
        return model

    def index(self, at: int) -> Any:
        """The model of a position's prior, by its neighbours': ``left * (K + 1) + up`` (K: none)."""
        model = self.indices[at]
        if model is None:
            model = self.indices[at] = _model(self.tables.index_frequencies[divmod(at, self.tables.priors + 1)])
        return model

    def runs(
        self, prior: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], list[tuple[int, int]]]:
        """How the symbols of a tile are ordered.

        Args:
            prior: [P], by position.

        Returns:
            permutation: [P], positions sorted by prior, else as they were.
            order: [C * P], for each symbol of the stream its place in [C, P] with permuted positions.
            calls: (row, number of symbols) in the order of the stream.
        """
        permutation = np.argsort(prior, kind="stable")
        counts = np.bincount(prior, minlength=self.tables.priors)
        first = np.cumsum(counts) - counts
        lengths = counts[self.run_prior]
        used = np.flatnonzero(lengths)
        lengths, rows = lengths[used], self.run_row[used]
        start = self.run_channel[used] * len(prior) + first[self.run_prior[used]]
        ends = np.cumsum(lengths)
        order = np.repeat(start - ends + lengths, lengths)
        order += _ramp(len(order))
        head = np.flatnonzero(np.diff(rows, prepend=-1))
        return permutation, order, list(zip(rows[head].tolist(), np.add.reduceat(lengths, head).tolist(), strict=True))


_coders: WeakKeyDictionary[EntropyTables, _Coder] = WeakKeyDictionary()


def encode_latents(
    latents: npt.NDArray[np.integer[Any]], tables: EntropyTables, priors: npt.NDArray[np.uint8] | None = None
) -> bytes:
    """Code one tile's latents.

    Args:
        latents: integers [C, h, w] in -32768..32767, at most :data:`MAX_TILE_SYMBOLS`; small values are cheap.
        tables: of C channels.
        priors: to code each position under, [h, w], e.g. those that :func:`zoo.codec.rounding.quantise` counted with; None for
            :func:`prior_map`'s, which takes two fifths of the time.

    Returns:
        Bytes, a multiple of 4, for :func:`decode_latents` with the same shape and tables.

    Raises:
        ZooError: wrong shape, no integers, or values beyond int16; priors of another shape or that the tables lack.
    """
    coder = _coder(tables)
    columns, excess = _columns(_coded(latents, tables), tables)
    index = choose(columns, tables, latents.shape[1:]) if priors is None else priors
    if index.shape != latents.shape[1:] or index.max() >= tables.priors:
        raise ZooError(f"priors {index.shape} do not fit latents {latents.shape} and tables of {tables.priors}")
    permutation, order, calls = coder.runs(index.ravel())
    stream = columns.take(permutation, axis=1).ravel().take(order).astype(np.int32)  # two fifths of indexing's time
    ans = _ans()
    # The coder is a stack: what the decoder reads last goes in first.
    _push_excess(ans, excess)
    end = len(stream)
    for row, count in reversed(calls):
        ans.encode_reverse(stream[end - count : end], coder.row(row))
        end -= count
    if tables.priors > 1:
        _push_index(ans, index, coder)
    return ans.get_compressed()[::-1].astype("<u4").tobytes()


def decode_latents(data: bytes, shape: tuple[int, int, int], tables: EntropyTables) -> npt.NDArray[np.int16]:
    """The inverse of :func:`encode_latents`, without floats.

    Args:
        data: from the encoder. Damage is noticed in most cases only; the container has a checksum.
        shape: C, h, w.
        tables: the very tables of the encoder.

    Returns:
        int16 [C, h, w].

    Raises:
        ZooError: damaged data, or a shape that does not fit the tables.
    """
    channels, height, width = shape
    if channels != tables.channels or min(shape) < 1 or channels * height * width > MAX_TILE_SYMBOLS:
        raise ZooError(f"tables of {tables.channels} channels cannot decode a tile of {channels}x{height}x{width}")
    coder = _coder(tables)
    if len(data) % 4 or data[:4] == bytes(4):
        raise ZooError("latents: the data are cut off or damaged")
    ans = _ans(np.frombuffer(data, "<u4")[::-1].astype(np.uint32))
    index = _pop_index(ans, height, width, coder) if tables.priors > 1 else np.zeros(height * width, np.uint8)
    permutation, order, calls = coder.runs(index)
    stream = np.concatenate([ans.decode(coder.row(row), count) for row, count in calls])
    runs = np.empty(len(stream), np.int16)
    runs[order] = stream
    place = np.empty_like(permutation)
    place[permutation] = np.arange(len(place))
    columns = runs.reshape(channels, -1).take(place, axis=1)
    escaped = np.flatnonzero(columns == tables.values)
    columns += tables.low[:, None]
    if escaped.size:
        excess = _pop_excess(ans, escaped.size)
        low = tables.low.astype(np.int64)[escaped // (height * width)]
        values = np.where(excess & 1, low - 1 - (excess >> 1), low + tables.values + (excess >> 1))
        if values.min() < -32768 or values.max() > 32767:
            raise ZooError("latents: the data are damaged (a value beyond 16 bits)")
        columns.ravel()[escaped] = values
    if not ans.is_empty():
        raise ZooError("latents: the data are damaged (something is left at the end)")
    return restore(columns.reshape(shape), tables.neighbours)


def prior_map(latents: npt.NDArray[np.integer[Any]], tables: EntropyTables) -> npt.NDArray[np.uint8]:
    """The prior that :func:`encode_latents` chooses for each position, uint8 [h, w]; see :func:`zoo.codec.priors.choose`.

    Raises:
        ZooError: see :func:`encode_latents`.
    """
    return choose(_columns(_coded(latents, tables), tables)[0], tables, latents.shape[1:])


def estimate_bits(latents: npt.NDArray[np.integer[Any]], tables: EntropyTables) -> float:
    """What :func:`encode_latents` will take, in bits, from the frequencies alone: symbols, escapes and priors.

    Raises:
        ZooError: see :func:`encode_latents`.
    """
    columns, excess = _columns(_coded(latents, tables), tables)
    index = choose(columns, tables, latents.shape[1:])
    bits = 16 - np.log2(tables.frequencies)
    channel = np.arange(tables.channels)[:, None]
    total = float(bits[tables.rows[index.ravel()[None], channel], columns].sum())
    total += float((2 * np.frexp(excess + 1)[1] - 1).sum())
    if tables.priors > 1:
        padded = np.pad(index.astype(np.int64), ((1, 0), (1, 0)), constant_values=tables.priors)
        total += float((16 - np.log2(tables.index_frequencies[padded[1:, :-1], padded[:-1, 1:], index])).sum())
    return total


def max_bytes(shape: tuple[int, int, int]) -> int:
    """An upper bound for a tile's data: 16 bits a symbol, 33 for its excess, 16 a position's prior, 8 bytes of state."""
    channels, height, width = shape
    return height * width * (7 * channels + 2) + 8


@lru_cache(maxsize=2)
def _ramp(length: int) -> npt.NDArray[np.intp]:
    """0, 1, 2, ...: tiles have as many symbols as one another, but for those at the edges."""
    return np.arange(length)


def _coder(tables: EntropyTables) -> _Coder:
    coder = _coders.get(tables)
    if coder is None:
        coder = _coders[tables] = _Coder(tables)
    return coder


def _coded(latents: npt.NDArray[np.integer[Any]], tables: EntropyTables) -> npt.NDArray[np.int16]:
    """What is coded of latents: the difference to their prediction."""
    fits = latents.ndim == 3 and latents.shape[0] == tables.channels and 0 < latents.size <= MAX_TILE_SYMBOLS
    if not fits or latents.dtype.kind not in "iu":
        raise ZooError(f"tables of {tables.channels} channels cannot code {latents.dtype} latents {latents.shape}")
    if latents.dtype != np.int16 and (latents.min() < -32768 or latents.max() > 32767):
        raise ZooError("latents beyond 16 bits cannot be coded; the encoder network or its scales are wrong")
    return residual(latents, tables.neighbours)


def _columns(
    latents: npt.NDArray[np.integer[Any]], tables: EntropyTables
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    """Columns of the tables [C, P], and of the escaped ones in raster order how far they lie beyond.

    Excess 0, 2, 4, ... counts values above the table's highest, 1, 3, 5, ... below its lowest.
    """
    flat = latents.reshape(latents.shape[0], -1)
    columns = flat - tables.low[:, None]  # in int16: what that wraps lies outside all the same
    outside = columns.view(np.uint16) >= tables.values  # negative ones are above 2^15 there
    if not outside.any():
        return columns, np.zeros(0, np.int64)
    low = np.broadcast_to(tables.low[:, None], flat.shape)[outside]
    beyond = flat[outside].astype(np.int64) - low
    columns[outside] = tables.values
    return columns, np.where(beyond < 0, 2 * (-1 - beyond) + 1, 2 * (beyond - tables.values))


def _push_index(ans: Any, index: npt.NDArray[np.uint8], coder: _Coder) -> None:
    none = coder.tables.priors
    padded = np.pad(index.astype(np.int64), ((1, 0), (1, 0)), constant_values=none)
    contexts = (padded[1:, :-1] * (none + 1) + padded[:-1, 1:]).ravel().tolist()
    push, models, make = ans.encode_reverse, coder.indices, coder.index
    for own, at in zip(reversed(index.ravel().tolist()), reversed(contexts), strict=True):
        push(own, models[at] or make(at))


def _pop_index(ans: Any, height: int, width: int, coder: _Coder) -> npt.NDArray[np.uint8]:
    none = coder.tables.priors
    side, above, rows = none + 1, [none] * width, []
    pop, models, make = ans.decode, coder.indices, coder.index
    for _ in range(height):
        left, row = none, []
        for up in above:
            at = left * side + up
            left = pop(models[at] or make(at))
            row.append(left)
        rows.append(row)
        above = row
    return np.array(rows, np.uint8).ravel()


def _push_excess(ans: Any, excess: npt.NDArray[np.int64]) -> None:
    if excess.size == 0:
        return
    classes = np.frexp(excess + 1)[1] - 1  # whole part of the binary logarithm
    for b in range(_CLASSES - 1, 0, -1):
        members = excess[classes == b] + 1 - (1 << b)
        if members.size:
            ans.encode_reverse(members.astype(np.int32), _uniform(b))
    ans.encode_reverse(classes.astype(np.int32), _classes())


def _pop_excess(ans: Any, count: int) -> npt.NDArray[np.int64]:
    classes = ans.decode(_classes(), count)
    excess = np.zeros(count, np.int64)
    for b in range(1, _CLASSES):
        members = np.flatnonzero(classes == b)
        if members.size:
            excess[members] = ans.decode(_uniform(b), members.size)
    return excess + (1 << classes.astype(np.int64)) - 1


def _ans(words: npt.NDArray[np.uint32] | None = None) -> Any:
    coder = _constriction().stream.stack.AnsCoder
    return coder() if words is None else coder(words)


def _model(frequencies: npt.NDArray[np.integer[Any]]) -> Any:
    return _constriction().stream.model.Categorical(frequencies.astype(np.float64) * _SCALE - 1, perfect=False)


@lru_cache(maxsize=1)
def _classes() -> Any:
    return _model(_CLASS_FREQUENCIES)


@lru_cache(maxsize=_CLASSES)
def _uniform(bits: int) -> Any:
    return _constriction().stream.model.Uniform(1 << bits)


@cache
def _constriction() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise ZooError("the codec needs the package constriction; pip install 'raw-zoo[codec]'") from error
    return constriction


@cache
def _check() -> None:
    """Hold constriction to the frequencies it is given, at both ends of every symbol's interval of a lopsided table.

    Raises:
        ZooError: it rounds otherwise, as a future version may.
    """
    frequencies = np.array([1, 40000, 2, 25531, 1, 1])
    ends = np.cumsum(frequencies) * _SCALE
    model = _model(frequencies)
    for symbol, (start, end) in enumerate(zip(ends - frequencies * _SCALE, ends, strict=True)):
        for quantile in (start, end - 1):
            # One word is a state below 2^32: its low 24 bits choose the symbol.
            if _ans(np.array([(1 << _PRECISION) + quantile], np.uint32)).decode(model) != symbol:
                raise ZooError("constriction codes with other frequencies than it was given; install raw-zoo[codec]")
