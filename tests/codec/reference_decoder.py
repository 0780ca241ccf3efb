"""A second decoder, written from docs/bitstream.md in plain Python integers: no NumPy arithmetic, no constriction, no floats.

Slow on purpose. It shares no code with ``zoo.codec``, so agreement means that the document is enough to decode from.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from itertools import accumulate


def crc32c(data: bytes) -> int:
    """Bit by bit: polynomial 0x1EDC6F41, reflected, starting and ending with all ones."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


class Ans:
    """The state machine of section "Entropy coder"."""

    def __init__(self, data: bytes) -> None:
        self.words = list(struct.unpack(f"<{len(data) // 4}I", data))[::-1]
        self.state = 0
        self._refill()
        self._refill()

    def _refill(self) -> None:
        if self.state < 1 << 32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, frequencies: list[int]) -> int:
        """The next symbol under frequencies that add up to 2^16."""
        ends = list(accumulate(256 * f for f in frequencies))
        assert ends[-1] == 1 << 24
        quantile = self.state & 0xFFFFFF
        symbol = bisect_right(ends, quantile)
        width = 256 * frequencies[symbol]
        self.state = (self.state >> 24) * width + quantile - (ends[symbol] - width)
        self._refill()
        return symbol

    def bits(self, count: int) -> int:
        """The next ``count`` equally likely bits."""
        width = 1 << (24 - count)
        quantile = self.state & 0xFFFFFF
        self.state = (self.state >> 24) * width + quantile % width
        self._refill()
        return quantile // width

    @property
    def empty(self) -> bool:
        return self.state == 0 and not self.words


def encode(symbols: list[tuple[int, list[int]]]) -> bytes:
    """Symbols with their frequencies in the order they are to be decoded in -> a tile's data."""
    state, words = 0, []
    for symbol, frequencies in reversed(symbols):
        start, width = 256 * sum(frequencies[:symbol]), 256 * frequencies[symbol]
        if state >> 40 >= width:
            words.append(state & 0xFFFFFFFF)
            state >>= 32
        state = (state // width << 24) + start + state % width
    while state:
        words.append(state & 0xFFFFFFFF)
        state >>= 32
    return struct.pack(f"<{len(words)}I", *reversed(words))


def tables_sha256(tables: dict[str, list]) -> bytes:
    """The name of entropy tables given as nested lists."""
    digest = hashlib.sha256(b"rzc entropy tables 2\n")
    for name, code in zip(
        ("frequencies", "rows", "low", "index_same", "index_left", "index_up", "neighbours", "steps"),
        "HHhiiiii",
        strict=True,
    ):
        values, shape = tables[name], []
        level = values
        while isinstance(level, list):
            shape.append(len(level))
            level = level[0]
        for _ in shape[1:]:
            values = [value for row in values for value in row]
        digest.update(f"{name} {' '.join(map(str, shape))}\n".encode())
        digest.update(struct.pack(f"<{len(values)}{code}", *values))
    return digest.digest()


def decode_tile(data: bytes, height: int, width: int, tables: dict[str, list]) -> tuple[list[list[int]], list[int]]:
    """Latents [C][h * w] and priors [h * w] of one tile; ``tables`` holds the tensors as nested lists."""
    rows, low = tables["rows"], tables["low"]
    k, c, values = len(rows), len(rows[0]), len(tables["frequencies"][0]) - 1
    ans = Ans(data)
    priors: list[int] = []
    for at in range(height * width):
        y, x = divmod(at, width)
        left = priors[at - 1] if x else k
        up = priors[at - width] if y else k
        if k == 1:
            priors.append(0)
        elif left == up:
            priors.append(ans.symbol(tables["index_same"][left]))
        else:
            both = zip(tables["index_left"][left], tables["index_up"][up], strict=True)
            priors.append(ans.symbol([a + b for a, b in both]))
    latents = [[0] * (height * width) for _ in range(c)]
    runs = sorted((rows[prior][channel], channel, prior) for prior in range(k) for channel in range(c))
    for row, channel, prior in runs:
        for at, own in enumerate(priors):
            if own == prior:
                latents[channel][at] = ans.symbol(tables["frequencies"][row])
    escaped = [(channel, at) for channel in range(c) for at in range(height * width) if latents[channel][at] == values]
    classes = [ans.symbol([1 << (15 - b) for b in range(16)] + [1]) for _ in escaped]
    excess = [0] * len(escaped)
    for b in range(1, 17):
        for at, own in enumerate(classes):
            if own == b:
                excess[at] = (1 << b) + ans.bits(b) - 1
    for channel in range(c):
        latents[channel] = [column + low[channel] for column in latents[channel]]
    for (channel, at), e in zip(escaped, excess, strict=True):
        latents[channel][at] = low[channel] - 1 - e // 2 if e % 2 else low[channel] + values + e // 2
    assert ans.empty
    restore(latents, width, tables["neighbours"])
    return latents, priors


def restore(latents: list[list[int]], width: int, weights: list[list[list[int]]]) -> None:
    """Add to every latent what its neighbours predict of it, in place; section "Prediction"."""
    for at in range(len(latents[0])):
        y, x = divmod(at, width)
        left, up, corner = at - 1, at - width, at - width - 1
        if y == 0:
            up = corner = left
        elif x == 0:
            left = corner = up
        if at == 0:
            continue
        for channel, own in enumerate(weights):
            total = sum(
                w * latents[m][n] for row, n in zip(own, (left, up, corner), strict=True) for m, w in enumerate(row)
            )
            value = latents[channel][at] + (total + (1 << 15) >> 16)
            latents[channel][at] = (value + 32768) % 65536 - 32768


def read_file(data: bytes) -> dict:
    """Header fields and tile payloads of an ``.rzc`` file, all checksums verified."""
    magic, version, flags, head_size = struct.unpack_from("<8sHHI", data, 0)
    assert (magic, version) == (b"\x89RZC\r\n\x1a\n", 3)
    assert struct.unpack_from("<I", data, head_size - 4)[0] == crc32c(data[: head_size - 4])
    fields, at = bytearray(), 16
    for _ in range(66):
        mask, at = data[at], at + 1
        for bit in range(8):
            fields.append(data[at] if mask >> bit & 1 else 0)
            at += mask >> bit & 1
    height, width, cfa, orientation, source, quality = struct.unpack_from("<2I4B", fields, 0)
    channels, stride, core, balance, _, tiles, thumb, thumb_crc = struct.unpack_from("<3H2B3I", fields, 12)
    numbers = struct.unpack_from("<30d", fields, 32)
    model, weights, tables, make, camera, date = struct.unpack_from("<32s32s32s64s64s32s", fields, 272)
    assert head_size == at + 8 * tiles + 4
    assert thumb_crc == crc32c(data[head_size : head_size + thumb])
    payloads, offset = [], head_size + thumb
    for tile in range(tiles):
        length, crc = struct.unpack_from("<II", data, at + 8 * tile)
        payloads.append(data[offset : offset + length])
        offset += length
        assert crc32c(payloads[-1]) == crc
    top, left = divmod(("RGGB", "GRBG", "GBRG", "BGGR")[cfa].index("R"), 2)
    return {
        "height": height, "width": width, "cfa": cfa, "orientation": orientation, "source": source, "quality": quality,
        "channels": channels, "stride": stride, "core": core, "balance": balance, "flags": flags,
        "black": numbers[:4], "white": numbers[4:8], "wb": numbers[8:11], "matrix": numbers[11:20], "iso": numbers[20],
        "shot": numbers[21:24], "read": numbers[24:27], "exposure": numbers[27:],
        "texts": [t.rstrip(b"\0").decode() for t in (model, make, camera, date)], "weights": weights, "tables": tables,
        "payloads": payloads, "grid": (-(-(height + top) // stride), -(-(width + left) // stride)),
    }  # fmt: skip
