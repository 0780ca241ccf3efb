"""Lens shading: by how much the corners of a photo are to be brightened, as the GainMap opcodes of its DNG say.

DNG specification 1.7, chapter 6 ("Opcode List Processing"), GainMap. Phones write one map for each of the four positions of the
mosaic. Networks see the mosaic without it, as its noise was measured; the gains go on their pictures.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Pair = tuple[float, float]  # down, across

_GAIN_MAP = 9
_Part = tuple[list[int], "Shading"]  # positions of the 2x2, and the gains (rows, columns, 1) of each
_MAP = struct.Struct(">10I4dI")  # area, planes, pitches, points, spacing, origin, planes of the map
_OPCODE = struct.Struct(">4I")  # number, DNG version, flags, bytes that follow
_OPTIONAL = 1  # flag
_DNG_1_3 = 0x01030000  # which brought them
_MOST_POINTS, _MOST_MAPS, _MOST_OPCODES = 1 << 14, 16, 100  # of one map, of a list; phones have 17 x 13 and 4
_MOST_GAIN = 64.0
_MOST_PLACE = 1e3  # of a grid's origin and spacing; cameras' are of a picture's size
_POSITIONS = ([0], [1, 2], [3])  # of red, green and blue among R, G, G, B


@dataclass(frozen=True, eq=False)
class Shading:
    """Gains of red, green and blue over a picture, linear between the points of a grid, constant beyond it.

    Attributes:
        gains: float32 (rows, columns, 3), above 0.
        origin: of the first point, down and across, the picture's height and width being 1.
        spacing: between points, likewise.
    """

    gains: Field
    origin: Pair
    spacing: Pair

    def field(self, shape: tuple[int, int]) -> Callable[[int, int], Field]:
        """A function of rows ``start``, ``stop`` that gives float32 (3, stop - start, W), what they are to be multiplied by.

        Args:
            shape: height and width of the picture.
        """
        height, width = shape
        low, high, share = self._at(1, (np.arange(width) + 0.5) / width)
        points = np.ascontiguousarray(np.moveaxis(self.gains, 2, 1))
        lines = points[:, :, low] + share * (points[:, :, high] - points[:, :, low])

        def rows(start: int, stop: int) -> Field:
            low, high, share = self._at(0, (np.arange(start, stop) + 0.5) / height)
            between = lines[low] + share[:, None, None] * (lines[high] - lines[low])
            return np.ascontiguousarray(np.moveaxis(between, 1, 0))

        return rows

    def crop(self, top: int, left: int, inner: tuple[int, int], outer: tuple[int, int]) -> Shading:
        """Of the part of ``inner`` (H, W) pixels that begins at (top, left) of a picture of ``outer``; it may lie beyond."""
        scale = outer[0] / inner[0], outer[1] / inner[1]
        origin = (self.origin[0] - top / outer[0]) * scale[0], (self.origin[1] - left / outer[1]) * scale[1]
        return Shading(self.gains, origin, (self.spacing[0] * scale[0], self.spacing[1] * scale[1]))

    def like(self, points: tuple[int, int], origin: Pair, spacing: Pair) -> Shading:
        """The same at the points of another grid."""
        down, across = (np.array(origin[i] + spacing[i] * np.arange(points[i])) for i in (0, 1))
        low, high, share = self._at(0, down)
        lines = self.gains[low] + share[:, None, None] * (self.gains[high] - self.gains[low])
        low, high, share = self._at(1, across)
        gains = lines[:, low] + share[:, None] * (lines[:, high] - lines[:, low])
        return Shading(gains, origin, spacing)

    def pack(self, shape: tuple[int, int], most: tuple[int, int] = (24, 24)) -> bytes:
        """An OpcodeList3 of three GainMaps, of at most so many points, for a picture of ``shape``."""
        points = min(self.gains.shape[0], most[0]), min(self.gains.shape[1], most[1])
        kept = self
        if points != self.gains.shape[:2]:
            spacing = [self.spacing[i] * (self.gains.shape[i] - 1) / max(points[i] - 1, 1) for i in (0, 1)]
            kept = self.like(points, self.origin, (spacing[0], spacing[1]))
        out = struct.pack(">I", 3)
        for plane in range(3):
            gains = kept.gains[:, :, plane].astype(">f4").tobytes()
            out += _OPCODE.pack(_GAIN_MAP, _DNG_1_3, _OPTIONAL, _MAP.size + len(gains))
            out += _MAP.pack(0, 0, *shape, plane, 1, 1, 1, *points, *kept.spacing, *kept.origin, 1) + gains
        return out

    def _at(self, axis: int, places: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int_], ...]:
        """The points before and after some places, and how far these are from one to the other."""
        last = self.gains.shape[axis] - 1
        place = ((places - self.origin[axis]) / self.spacing[axis]).clip(0, last)
        low = np.minimum(place.astype(np.intp), max(last - 1, 0))
        return low, np.minimum(low + 1, last), (place - low).astype(np.float32)


def read_shading(on_mosaic: bytes, on_picture: bytes, cfa: str, shape: tuple[int, int]) -> tuple[Shading | None, bool]:
    """The lens shading of a DNG.

    Args:
        on_mosaic: its OpcodeList2, for the linearised mosaic; empty for none.
        on_picture: its OpcodeList3, for the demosaiced picture.
        cfa: Bayer phase at the first pixel of the active area, or ``"XTRANS"``.
        shape: height and width of the active area.

    Returns:
        the gains of all maps together, those of the greens averaged, None where there are none; and whether maps are there that
        are not in them. A list counts as a whole or not at all, since three colours of four would tint corners: not if it is cut
        off or has a map of a part of the picture, of an X-Trans mosaic, or with gains that are none.

        Where a colour's gain is below 1, all three are raised until it is 1: a highlight that the sensor clipped in all colours
        would not be white any more.
    """
    found: list[_Part] = []
    odd = False
    for content, kind in ((on_mosaic, cfa), (on_picture, "")):
        try:
            found += [part for data in _gain_maps(content) for part in _parse(data, kind, shape)]
        except (ValueError, struct.error):
            odd = True
    if not found:
        return None, odd
    grid = _common([part for _, part in found])
    gains = np.ones((4, *grid[0]), np.float32)
    for positions, part in found:
        gains[positions] *= part.like(*grid).gains[:, :, 0]
    if gains.min() < 1 / _MOST_GAIN or gains.max() > _MOST_GAIN:  # of all together
        return None, True
    colours = np.stack((gains[0], (gains[1] + gains[2]) / 2, gains[3]), 2)
    colours /= np.minimum(colours.min(axis=2, keepdims=True), 1)
    return Shading(colours, *grid[1:]), odd


def _common(parts: list[Shading]) -> tuple[tuple[int, int], Pair, Pair]:
    """Points, origin and spacing of a grid as fine and as wide as all; that of all where they share one, as phones' do."""
    points, origin, spacing = [1, 1], [0.0, 0.0], [1.0, 1.0]
    for axis in (0, 1):
        several = [part for part in parts if part.gains.shape[axis] > 1]
        if not several:
            continue
        spacing[axis] = min(part.spacing[axis] for part in several)
        origin[axis] = min(part.origin[axis] for part in several)
        end = max(part.origin[axis] + part.spacing[axis] * (part.gains.shape[axis] - 1) for part in several)
        steps = (end - origin[axis]) / spacing[axis]
        most = max(part.gains.shape[axis] for part in several) * 4
        points[axis] = min(round(steps) if abs(steps - round(steps)) < 1e-6 else math.ceil(steps), most) + 1
        if steps > most:
            spacing[axis] = (end - origin[axis]) / most
    return (points[0], points[1]), (origin[0], origin[1]), (spacing[0], spacing[1])


def _gain_maps(content: bytes) -> list[bytes]:
    """The parameters of the gain maps of an opcode list.

    Raises:
        ValueError: it is cut off within an opcode, or longer than any camera's.
        struct.error: it is cut off between or within heads of opcodes.
    """
    found: list[bytes] = []
    if not content:
        return found
    (count,) = struct.unpack_from(">I", content)
    place = 4
    for _ in range(min(count, _MOST_OPCODES + 1)):
        code, _, _, size = _OPCODE.unpack_from(content, place)
        place += _OPCODE.size + size
        if code == _GAIN_MAP:
            found.append(content[place - size : place])
    if place > len(content) or count > _MOST_OPCODES or len(found) > _MOST_MAPS:
        raise ValueError("cut off, or no camera's")
    return found


def _parse(data: bytes, cfa: str, shape: tuple[int, int]) -> list[_Part]:
    """Positions R, G, G and B of the 2x2, and the gains (rows, columns, 1) of each.

    Args:
        data: parameters of a gain map.
        cfa: of the mosaic that it is for; empty for a picture.
        shape: of mosaic or picture.

    Raises:
        ValueError: it is for something else, or makes no sense.
        struct.error: it is cut off.
    """
    top, left, bottom, right, plane, planes, down, across, rows, columns, *rest = _MAP.unpack_from(data)
    spacing, origin, depth = (rest[0], rest[1]), (rest[2], rest[3]), rest[4]
    points = rows * columns * depth
    if not 0 < points <= _MOST_POINTS or len(data) < _MAP.size + 4 * points:
        raise ValueError("no gains")
    gains = np.frombuffer(data, ">f4", points, _MAP.size).reshape(rows, columns, depth).astype(np.float32)
    if not (gains >= 1 / _MOST_GAIN).all() or gains.max() > _MOST_GAIN:
        raise ValueError("gains that are none")
    spacing = spacing[0] if rows > 1 else 1.0, spacing[1] if columns > 1 else 1.0  # of one point any is right
    if not all(1 / _MOST_PLACE < s < _MOST_PLACE for s in spacing) or not all(abs(o) < _MOST_PLACE for o in origin):
        raise ValueError("no grid")
    if top > 1 or left > 1 or bottom < shape[0] - 1 or right < shape[1] - 1:
        raise ValueError("of a part of the picture")

    def of(channel: int) -> Shading:
        return Shading(gains[:, :, min(channel, depth - 1), None], origin, spacing)

    if not cfa:
        if (down, across) != (1, 1):
            raise ValueError("every other pixel of a picture")
        return [(_POSITIONS[p], of(p)) for p in range(plane, min(plane + planes, 3))]
    if len(cfa) != 4 or plane or {down, across} - {1, 2}:
        raise ValueError("no Bayer mosaic's")
    positions = []
    seen = {"R": [0], "G": [1, 2], "B": [3]}  # a mosaic's first green is the first here, whatever its phase
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        position = seen[cfa[2 * y + x]].pop(0)
        if (y - top) % down == 0 and (x - left) % across == 0:
            positions.append(position)
    return [(positions, of(0))]
