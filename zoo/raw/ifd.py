"""The tags that pictures keep of their photo: an image folder (IFD 0) with an EXIF and a GPS folder below it.

tifffile writes IFD 0 alone, so the others are put behind the picture (:func:`append_ifds`); JPEG and PNG take all three as
one block (:func:`exif_block`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.raw.exif import clean_metadata
from zoo.raw.image import RawImage
from zoo.raw.tags import MOST_BASELINE

SOFTWARE = "raw zoo"  # the tag of that name in all that is written
Tag = tuple[int, int, int, Any, bool]  # as tifffile's extratags: code, TIFF type, count, value, write once
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 7, 10, 12
_LONG8 = 16  # an offset of a BigTIFF
EXIF, GPS = 34665, 34853  # tags of IFD 0 that point to the others
_FORMATS = {
    SHORT: "H",
    LONG: "I",
    RATIONAL: "I",
    SRATIONAL: "i",
    _LONG8: "Q",
}  # of the types that are written here; others are bytes


def image_tags(raw: RawImage) -> list[Tag]:
    """Of IFD 0 but Software, which tifffile writes itself: orientation, make, model, time, artist and copyright.

    Texts are ASCII, as these tags are; artist and copyright are UTF-8, as cameras and other programs write them, since
    "Jos? Garc?a" is nobody's name.
    """
    known = clean_metadata(raw.metadata)
    tags: list[Tag] = [(274, SHORT, 1, raw.orientation, True)]
    tags += [_ascii(code, str(known[key])) for code, key in ((271, "make"), (272, "model")) if key in known]
    if "datetime" in known:
        tags.append(_ascii(306, str(known["datetime"])))
    return tags + [
        _utf8(code, str(known[key])) for code, key in ((315, "artist"), (33432, "copyright")) if key in known
    ]


def exif_tags(raw: RawImage) -> list[Tag]:
    """Of the EXIF folder: exposure, aperture, ISO, focal length, lens and time of the exposure."""
    known = clean_metadata(raw.metadata)
    tags: list[Tag] = [(36864, UNDEFINED, 4, b"0232", True)]  # ExifVersion
    for code, key, most in ((33434, "exposure_time", 1e6), (33437, "f_number", 1e3), (37386, "focal_length", 1e5)):
        value = known.get(key)
        if isinstance(value, int | float) and 1e-6 <= value < most:
            tags.append((code, RATIONAL, 1, rationals([value]), True))
    if raw.iso:
        tags.append((34855, SHORT, 1, min(round(raw.iso), 65535), True))
    named = [(36867, "datetime"), (36881, "offset_time"), (42036, "lens")]
    return tags + [_utf8(code, str(known[key])) for code, key in named if key in known]


def gps_tags(raw: RawImage) -> list[Tag]:
    """Of the GPS folder: the place, empty where it is not known."""
    known = raw.metadata
    latitude, longitude, altitude = (known.get(key) for key in ("latitude", "longitude", "altitude"))
    if not _within(latitude, 90) or not _within(longitude, 180):
        return []
    tags: list[Tag] = [(0, BYTE, 4, bytes((2, 3, 0, 0)), True)]  # GPSVersionID
    for code, value, letters in ((1, latitude, "NS"), (3, longitude, "EW")):
        assert isinstance(value, int | float)
        minutes, parts = divmod(round(abs(value) * 36_000_000), 600_000)  # of a second, which then is good to 3 mm
        degrees, minutes = divmod(minutes, 60)
        tags.append(_ascii(code, letters[value < 0]))
        tags.append((code + 1, RATIONAL, 3, (degrees, 1, minutes, 1, parts, 10_000), True))
    if _within(altitude, 1e5):
        assert isinstance(altitude, int | float)
        tags.append((5, BYTE, 1, bytes((altitude < 0,)), True))
        tags.append((6, RATIONAL, 1, rationals([abs(altitude)]), True))
    return tags


def baseline_tags(raw: RawImage) -> list[Tag]:
    """BaselineExposure, of IFD 0; empty where it is not known."""
    baseline = raw.metadata.get("baseline_exposure")
    if not _within(baseline, MOST_BASELINE):
        return []
    assert isinstance(baseline, int | float)
    return [(50730, SRATIONAL, 1, rationals([baseline], most=2**31 - 1), True)]


def exif_block(raw: RawImage, more: Sequence[Tag] = ()) -> bytes:
    """All folders as JPEG and PNG carry them, from ``Exif`` on; with ``more`` tags of IFD 0."""
    layout = _Layout("<", big=False)
    image = [*image_tags(raw), _ascii(305, SOFTWARE), *more]
    folders = {EXIF: exif_tags(raw), GPS: gps_tags(raw)}
    data = b"II*\0" + struct.pack("<I", 8)
    # What lies behind IFD 0 has to be known before: its size is the same wherever its pointers point.
    pointers = {code: 0 for code, tags in folders.items() if tags}
    place = len(data) + len(layout.folder([*image, *map(layout.pointer, pointers, pointers.values())], len(data)))
    behind = b""
    for code in pointers:
        pointers[code] = place + len(behind)
        behind += layout.folder(folders[code], pointers[code])
    image += map(layout.pointer, pointers, pointers.values())
    return b"Exif\0\0" + data + layout.folder(image, len(data)) + behind


def append_ifds(path: Path, raw: RawImage) -> None:
    """Put the EXIF and GPS folders behind the picture of a TIFF or DNG that is complete.

    IFD 0 has no room for pointers to them, so it is written once more behind them, with these, and the header points there.

    Args:
        path: a TIFF or BigTIFF of one picture.
        raw: the photo it was made from.
    """
    with path.open("r+b") as file:
        start = file.read(16)
        layout = _Layout("<" if start[:2] == b"II" else ">", big=43 in (start[2], start[3]))
        header = 8 if layout.big else 4
        (at,) = struct.unpack_from(layout.offset, start, header)
        file.seek(at)
        (count,) = struct.unpack(layout.count, file.read(struct.calcsize(layout.count)))
        size = struct.calcsize(layout.entry)
        entries = [file.read(size) for _ in range(count)]
        following = file.read(struct.calcsize(layout.offset))
        place = file.seek(0, 2)
        place += file.write(bytes(place % 2))
        for code, tags in ((EXIF, exif_tags(raw)), (GPS, gps_tags(raw))):
            if tags:
                entries += layout.entries([layout.pointer(code, place)], 0)[0]
                place += file.write(layout.folder(tags, place))
        entries.sort(key=lambda entry: struct.unpack_from(f"{layout.order}H", entry))
        file.write(struct.pack(layout.count, len(entries)) + b"".join(entries) + following)
        file.seek(header)
        file.write(struct.pack(layout.offset, place))


def rationals(values: Sequence[float] | npt.NDArray[np.floating[Any]], most: int = 2**32 - 1) -> tuple[int, ...]:
    """Numerators and denominators in turn, good to 1e-6 as far as numbers up to ``most`` allow it."""
    largest = [min(1_000_000, most // (int(abs(v)) + 1)) for v in values]  # denominators that keep the numerator below
    fractions = [Fraction(float(v)).limit_denominator(max(d, 1)) for v, d in zip(values, largest, strict=True)]
    return tuple(n for f in fractions for n in (f.numerator, f.denominator))


@dataclass(frozen=True)
class _Layout:
    """How TIFF or BigTIFF lays out a folder: a count, entries of fixed size, an offset of the next, what did not fit."""

    order: str
    big: bool

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def entry(self) -> str:
        """Code, type, count, and the value, or where it lies."""
        return self.order + ("HHQ8s" if self.big else "HHI4s")

    def pointer(self, code: int, place: int) -> Tag:
        return (code, _LONG8 if self.big else LONG, 1, place, True)

    def folder(self, tags: Sequence[Tag], at: int) -> bytes:
        """A folder that lies at ``at``, an even number, with nothing after it."""
        fixed = struct.calcsize(self.count) + struct.calcsize(self.entry) * len(tags) + struct.calcsize(self.offset)
        entries, values = self.entries(tags, at + fixed)
        return struct.pack(self.count, len(tags)) + b"".join(entries) + bytes(struct.calcsize(self.offset)) + values

    def entries(self, tags: Sequence[Tag], at: int) -> tuple[list[bytes], bytes]:
        """Entries by code, and the values that lie at ``at`` because they do not fit into theirs."""
        entries, values, room = [], b"", struct.calcsize(self.offset)
        for code, kind, count, value, _ in sorted(tags, key=lambda tag: tag[0]):
            data = self._value(kind, value)
            if len(data) > room:
                place = struct.pack(self.offset, at + len(values))
                values += data + bytes(len(data) % 2)
                data = place
            entries.append(struct.pack(self.entry, code, kind, count, data))
        return entries, values

    def _value(self, kind: int, value: Any) -> bytes:
        if kind not in _FORMATS:
            return bytes(value)
        numbers = value if isinstance(value, tuple) else (value,)
        return struct.pack(f"{self.order}{len(numbers)}{_FORMATS[kind]}", *numbers)


def _ascii(code: int, text: str) -> Tag:
    data = text.encode("ascii", "replace") + b"\0"
    return (code, ASCII, len(data), data, True)


def _utf8(code: int, text: str) -> Tag:
    data = text.encode("utf-8", "replace") + b"\0"
    return (code, ASCII, len(data), data, True)


def _within(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and abs(value) <= most  # not of NaN
