"""The fixed part of an ``.rzc`` file: what is known of the photo and of how it was coded. docs/bitstream.md has the layout."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.codec.entropy import MAX_TILE_SYMBOLS
from zoo.codec.tables import MAX_CHANNELS, EntropyTables
from zoo.codec.tiles import MAX_CORE, MAX_STRIDE, Tiles
from zoo.errors import ZooError
from zoo.raw import BAYER_PHASES, NoiseProfile, RawImage, alignment
from zoo.raw.image import Quad

# A flat photo takes 12 bytes a tile, so a file of 12 kB may ask for all these pixels: 2 GB while they are decoded. The largest
# sensors of phones have 200 million.
MAX_SIDE, MAX_PIXELS, MAX_TILES = 65535, 1 << 28, 1 << 16
MAX_SYMBOLS = 1 << 31  # in a file: 268 megapixels of 512 channels at stride 8; well under two minutes of decoding
MAX_GAIN, MAX_LEVEL, MIN_DETERMINANT = 1e4, 1e9, 1e-6
_SOURCES = ("given", "tag", "table", "estimated")  # of the noise profile
_BALANCES = ("", "as shot", "daylight", "grey world")  # where the white balance comes from
_TEXTS = {"model": 32, "make": 64, "camera": 64, "datetime": 32}  # bytes of UTF-8
_NUMBERS = ("exposure_time", "f_number", "focal_length")
HELD = ("make", "model", "datetime", *_NUMBERS, "wb_source")  # of what a raw tells of its photo
# After the 16 bytes that zoo.codec.container checks: sizes, codes, doubles, texts.
LAYOUT = struct.Struct("<2I 4B 3H 2B 3I 30d 32s 32s 32s 64s 64s 32s")
HAS_MATRIX = 1  # flag


@dataclass(frozen=True)
class Header:
    """A photo's description; the names are those of :class:`zoo.raw.RawImage`.

    Attributes:
        height, width: of the mosaic as it was, sensor pixels, 2..65535, at most 2^28 in all.
        cfa: Bayer phase of the mosaic.
        black, white: levels in DN per 2x2 position.
        wb: gains R, G, B.
        xyz_to_cam: (3, 3) or None.
        iso: None if unknown.
        noise: of the normalised mosaic before white balance. It tells what was taken out; the decoded picture has none.
        orientation: EXIF 1..8; the picture itself is not turned.
        model, weights_sha256: the network whose latents these are, at most 32 bytes of UTF-8, and its weights.
        tables_sha256: :attr:`EntropyTables.sha256`.
        channels, stride, core: latent channels, sensor pixels per position, positions per side of a tile.
        quality: row of :attr:`EntropyTables.steps`.
        metadata: as in ``RawImage``, of it: make, model, datetime, exposure_time, f_number, focal_length, wb_source.
            Texts are cut to 64, 64 and 32 bytes of UTF-8.
    """

    height: int
    width: int
    cfa: str
    black: Quad
    white: Quad
    wb: tuple[float, float, float]
    xyz_to_cam: npt.NDArray[np.float64] | None
    iso: float | None
    noise: NoiseProfile
    orientation: int
    model: str
    weights_sha256: bytes
    tables_sha256: bytes
    channels: int
    stride: int
    core: int
    quality: int
    metadata: dict[str, str | float | int] = field(default_factory=dict)

    @cached_property
    def tiles(self) -> Tiles:
        """Where the tiles lie in the aligned mosaic."""
        border = alignment((self.height, self.width), self.cfa)
        height, width = self.height + border.top + border.bottom, self.width + border.left + border.right
        return Tiles(height, width, self.stride, self.core)

    def problem(self) -> str:
        """What no photo can have, empty if all is well; nothing is allocated before this is asked."""
        sides, pixels = (self.height, self.width), self.height * self.width
        if min(sides) < 2 or max(sides) > MAX_SIDE or pixels > MAX_PIXELS:
            return f"{self.height}x{self.width} pixels; 2 to {MAX_SIDE} a side and 2^28 in all are possible"
        if self.cfa not in BAYER_PHASES or self.orientation not in range(1, 9):
            return (
                f"colour filter array {self.cfa}, orientation {self.orientation}; Bayer phases and 1 to 8 are possible"
            )
        if not 2 <= self.stride <= MAX_STRIDE or self.stride % 2 or not 1 <= self.core <= MAX_CORE:
            return (
                f"stride {self.stride}, tiles of {self.core} positions; even to {MAX_STRIDE} and 1 to {MAX_CORE} exist"
            )
        if not 1 <= self.channels <= MAX_CHANNELS or self.channels * self.core**2 > MAX_TILE_SYMBOLS:
            return (
                f"{self.channels} channels in tiles of {self.core} positions are more than {MAX_TILE_SYMBOLS} symbols"
            )
        symbols = self.channels * self.tiles.grid.y1 * self.tiles.grid.x1
        if self.tiles.count > MAX_TILES or symbols > MAX_SYMBOLS:
            return f"{self.tiles.count} tiles, {symbols} symbols; {MAX_TILES} and {MAX_SYMBOLS} are possible"
        matrix = [] if self.xyz_to_cam is None else np.ravel(self.xyz_to_cam).tolist()
        positive = [*self.wb, *(w - b for w, b in zip(self.white, self.black, strict=True))]
        not_negative = [*self.noise.shot, *self.noise.read, self.iso or 0.0, *self._exposure()]
        if not all(math.isfinite(v) for v in (*positive, *not_negative, *matrix, *self.white)):
            return "levels, gains, matrix or noise that are not finite"
        if min(positive) <= 0 or min(not_negative) < 0:
            return "a white level below black, a gain of 0 or negative noise"
        # Far beyond any camera; within them nothing that develops a picture overflows.
        least, most = min(self.wb), max(*self.wb, *map(abs, matrix))
        if least < 1 / MAX_GAIN or most > MAX_GAIN or max(map(abs, (*self.black, *self.white))) > MAX_LEVEL:
            return f"levels beyond {MAX_LEVEL:g}, or gains or a matrix beyond {MAX_GAIN:g}"
        if self.xyz_to_cam is not None and abs(np.linalg.det(self.xyz_to_cam)) < MIN_DETERMINANT:
            return "a colour matrix without an inverse"
        if not self.model or len(self.weights_sha256) != 32 or len(self.tables_sha256) != 32:
            return "no model, or sha256 that are not 32 bytes"
        return "" if 0 <= self.quality <= 255 else f"quality {self.quality}; 0 to 255 are possible"

    def check_model(self, name: str, weights_sha256: bytes, tables: EntropyTables, path: object = "stream") -> None:
        """Make sure that a model is the one that the file was made with.

        Raises:
            ZooError: it is not; says which is needed.
        """
        if self.model != name:
            raise ZooError(f"{path}: made with the model '{self.model}', not '{name}'; decode it with that one")
        if self.weights_sha256 != weights_sha256:
            raise ZooError(
                f"{path}: made with other weights of {name} (sha256 {self.weights_sha256.hex()[:12]}..., installed"
                f" {weights_sha256.hex()[:12]}...); give a folder of `zoo publish` that holds those as --weights, or install the"
                " raw-zoo that made it"
            )
        self.check_tables(tables, path)

    def check_tables(self, tables: EntropyTables, path: object = "stream") -> None:
        """Make sure that the entropy tables are the file's.

        Raises:
            ZooError: they are not, or do not have its quality.
        """
        if self.tables_sha256 != tables.sha256 or self.channels != tables.channels:
            raise ZooError(
                f"{path}: coded with other entropy tables; decode it with the version of raw-zoo that made it"
            )
        if self.quality >= tables.qualities:
            raise ZooError(f"{path}: quality {self.quality} does not exist in {self.model}; the file is damaged")

    def pack(self, flags: int, tile_count: int, thumbnail: tuple[int, int]) -> bytes:
        """The fields, before their zeros are left out; ``thumbnail`` is its length and CRC32C."""
        matrix = np.zeros(9) if self.xyz_to_cam is None else np.ravel(self.xyz_to_cam)
        noise = [*self.noise.shot, *self.noise.read]
        balance = str(self.metadata.get("wb_source", ""))
        texts = [str(self.metadata.get(name, "")) for name in ("make", "model", "datetime")]
        return LAYOUT.pack(
            self.height, self.width, BAYER_PHASES.index(self.cfa), self.orientation,
            _SOURCES.index(self.noise.source), self.quality, self.channels, self.stride, self.core,
            _BALANCES.index(balance) if balance in _BALANCES else 0, 0, tile_count, *thumbnail,
            *self.black, *self.white, *self.wb, *matrix, self.iso or 0.0, *noise, *self._exposure(),
            cut(self.model, _TEXTS["model"]), self.weights_sha256, self.tables_sha256,
            *(cut(text, _TEXTS[name]) for text, name in zip(texts, ("make", "camera", "datetime"), strict=True)),
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes, flags: int) -> tuple[Header, int, tuple[int, int]]:
        """The inverse of :meth:`pack`: header, tile count, length and CRC32C of the thumbnail.

        Raises:
            ValueError: a code or text that does not exist, or :meth:`problem`.
        """
        fields = LAYOUT.unpack(data)
        height, width, cfa, orientation, source, quality, channels, stride, core, balance, zero, count, *rest = fields
        thumbnail, doubles, texts = (rest[0], rest[1]), rest[2:32], rest[32:]
        if (
            cfa >= len(BAYER_PHASES)
            or source >= len(_SOURCES)
            or balance >= len(_BALANCES)
            or zero
            or flags & ~HAS_MATRIX
        ):
            raise ValueError("a code that does not exist")
        black, white, wb, matrix, (iso,), noise, exposure = _split(doubles, (4, 4, 3, 9, 1, 6, 3))
        model, weights, tables, make, camera, datetime = texts
        names = {
            "make": _text(make),
            "model": _text(camera),
            "datetime": _text(datetime),
            "wb_source": _BALANCES[balance],
        }
        header = cls(
            height, width, BAYER_PHASES[cfa], (*black,), (*white,), (*wb,),
            np.array(matrix).reshape(3, 3) if flags & HAS_MATRIX else None, iso or None,
            NoiseProfile((*noise[:3],), (*noise[3:],), _SOURCES[source]),
            orientation, _text(model), weights, tables, channels, stride, core, quality,
            {k: v for k, v in (*names.items(), *zip(_NUMBERS, exposure, strict=True)) if v},
        )  # fmt: skip
        if problem := header.problem():
            raise ValueError(problem)
        return header, count, thumbnail

    def _exposure(self) -> list[float]:
        return [float(self.metadata.get(name, 0.0)) for name in _NUMBERS]


def describe(
    raw: RawImage, *, model: str, weights_sha256: bytes, tables: EntropyTables, quality: int, stride: int, core: int
) -> Header:
    """The header of a photo that is to be coded.

    Args:
        raw: Bayer.
        model, weights_sha256: name and weights of the network.
        tables: its entropy tables.
        quality: row of the tables' steps.
        stride: sensor pixels per latent position, each way.
        core: side of a tile in positions.

    Raises:
        ZooError: X-Trans, dimensions or values that the format does not hold, no such quality.
    """
    height, width = raw.mosaic.shape
    if quality not in range(tables.qualities):
        raise ZooError(f"quality {quality} does not exist; {model} has 0 to {tables.qualities - 1}")
    held = {k: v for k, v in raw.metadata.items() if k in HELD}
    header = Header(
        height, width, raw.cfa, raw.black, raw.white, raw.wb, raw.xyz_to_cam, raw.iso, raw.noise, raw.orientation,
        model, weights_sha256, tables.sha256, tables.channels, stride, core, quality, held,
    )  # fmt: skip
    if problem := header.problem():
        raise ZooError(f"{raw.path or 'photo'}: {problem}; it cannot be compressed")
    return header


def cut(text: str, size: int) -> bytes:
    """UTF-8 of at most ``size`` bytes, whole characters only, no control characters."""
    clean = "".join(c for c in text if not _controls(c))
    return clean.encode("utf-8", "ignore")[:size].decode("utf-8", "ignore").encode()


def _controls(character: str) -> bool:
    """Whether it is a control character; what else can be printed depends on the Unicode version that one has."""
    return ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0


def _text(data: bytes) -> str:
    """Text padded with zeros.

    Raises:
        ValueError: no UTF-8, or control characters.
    """
    text = data.rstrip(b"\0").decode()
    if any(map(_controls, text)):
        raise ValueError("a text with control characters")
    return text


def _split(values: Sequence[Any], lengths: Sequence[int]) -> list[list[Any]]:
    ends = np.cumsum(lengths).tolist()
    return [list(values[end - n : end]) for end, n in zip(ends, lengths, strict=True)]
