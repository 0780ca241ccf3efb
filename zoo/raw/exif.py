"""What a raw file says of its exposure, by exifread; for formats that exifread does not know, by their own headers."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

Metadata = dict[str, str | float | int]

MOST_TEXT = 200  # characters of one text: a tag of a damaged file may claim the whole file
_MOST_NUMBER = 1e9  # no ISO, time, aperture or focal length is as large
_MOST_BYTES = 1 << 24  # of what is looked at of one file

_DATETIME = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_OFFSET = re.compile(r"[+-]\d\d:\d\d", re.ASCII)

# Where exifread finds each; "Image" are IFD 0's, where TIFF/EP has what EXIF has in a folder of its own.
_TEXTS = {
    "make": ("Image Make",),
    "model": ("Image Model",),
    "datetime": ("EXIF DateTimeOriginal", "Image DateTimeOriginal", "Image DateTime"),
    "offset_time": ("EXIF OffsetTimeOriginal", "Image OffsetTimeOriginal"),
    "lens": ("EXIF LensModel", "Image LensModel"),
    "artist": ("Image Artist",),
    "copyright": ("Image Copyright",),
}
_NUMBERS = {
    "iso": ("EXIF ISOSpeedRatings", "Image ISOSpeedRatings", "EXIF RecommendedExposureIndex"),
    "exposure_time": ("EXIF ExposureTime", "Image ExposureTime"),
    "f_number": ("EXIF FNumber", "Image FNumber"),
    "focal_length": ("EXIF FocalLength", "Image FocalLength"),
}

_RAF, _CRW, _CR3 = b"FUJIFILMCCD-RAW ", b"HEAPCCDR", b"ftypcrx "
_CIFF_MODEL, _CIFF_OWNER, _CIFF_TIME = 0x080A, 0x0810, 0x180E


def read_exif(path: Path) -> Metadata:
    """Make, model, iso, exposure_time, f_number, focal_length, datetime, offset_time, lens, artist, copyright, latitude,
    longitude (degrees, north and east positive) and altitude (m), as far as they are found; see :func:`clean_metadata`."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16)
            if start.startswith(_RAF):
                return _of_raf(start, file)
            if start[6:14] == _CRW:
                return _of_crw(file)
            if start[4:12] == _CR3:
                return _of_cr3(start)
            file.seek(0)
            return _of_tags(_tags(file))
    except Exception:  # of a damaged file, of any kind; the picture may still be read
        return {}


def clean_metadata(found: Mapping[str, Any]) -> Metadata:
    """What of some metadata can be passed on: they come from files of strangers.

    Texts hold no control characters and :data:`MOST_TEXT` characters at most, times are times, and numbers are finite,
    positive and no larger than any camera's; what is none of that is left out.
    """
    kept: Metadata = {}
    for name, value in found.items():
        if isinstance(value, str):
            text = clean_text(value)
            if (
                text
                and (name != "datetime" or is_datetime(text))
                and (name != "offset_time" or _OFFSET.fullmatch(text))
            ):
                kept[name] = text
        elif math.isfinite(value) and (name not in _NUMBERS or 0 < value < _MOST_NUMBER):
            kept[name] = value
    return kept


def clean_text(text: str) -> str:
    """At most :data:`MOST_TEXT` printable characters; others (NUL, line ends) become spaces."""
    return "".join(c if c.isprintable() else " " for c in text[: 2 * MOST_TEXT]).strip()[:MOST_TEXT].strip()


def is_datetime(text: str) -> bool:
    """Whether it is a time as EXIF writes it; cameras without a clock leave zeros or spaces."""
    found = _DATETIME.fullmatch(text)
    if not found:
        return False
    year, month, day, hour, minute, second = (int(part) for part in found.groups())
    return year > 0 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60


def _tags(file: BinaryIO) -> dict[str, Any]:
    import exifread

    with quiet("exifread"):
        try:
            return dict(exifread.process_file(file, details=False))
        except Exception:  # exifread raises what it likes on formats it does not know
            return {}


def _of_tags(tags: Mapping[str, Any]) -> Metadata:
    found: dict[str, Any] = {}
    for name, keys in _TEXTS.items():
        tag = next((tags[k] for k in keys if k in tags), None)
        if tag is not None:
            found[name] = _text(tag)
    for name, keys in _NUMBERS.items():
        tag = next((tags[k] for k in keys if k in tags), None)
        if tag is not None and tag.values:
            found[name] = _float(tag.values[0])
    return clean_metadata(found | _place(tags))


def _place(tags: Mapping[str, Any]) -> dict[str, float]:
    """Where the photo was taken; empty unless both coordinates make sense."""

    def coordinate(name: str, negative: str, most: float) -> float:
        parts = [_float(v) for v in tags[f"GPS GPS{name}"].values]
        degrees = sum(part / 60**i for i, part in enumerate(parts[:3]))
        if not parts or not math.isfinite(degrees) or min(parts) < 0 or degrees > most:
            raise ValueError(name)
        return -degrees if str(tags[f"GPS GPS{name}Ref"]).strip().upper() == negative else degrees

    try:
        found = {"latitude": coordinate("Latitude", "S", 90), "longitude": coordinate("Longitude", "W", 180)}
    except (KeyError, TypeError, ValueError):
        return {}
    if "GPS GPSAltitude" in tags:
        metres = _float(next(iter(tags["GPS GPSAltitude"].values), None))
        below = tags.get("GPS GPSAltitudeRef")
        if 0 <= metres < 1e5:
            found["altitude"] = -metres if below is not None and list(below.values)[:1] == [1] else metres
    return found


def _of_raf(start: bytes, file: BinaryIO) -> Metadata:
    """Fujifilm: the embedded JPEG has the EXIF; the header has the model."""
    offset, size = struct.unpack_from(">2I", start, 84)
    file.seek(offset)
    found = _of_tags(_tags(io.BytesIO(file.read(min(size, _MOST_BYTES)))))
    header = {"make": "FUJIFILM", "model": start[28:60].split(b"\0")[0].decode("latin-1")}
    return clean_metadata(header) | found


def _of_cr3(start: bytes) -> Metadata:
    """Canon's ISO media files: boxes CMT1 and CMT2 are TIFFs of IFD 0 and of the EXIF folder."""
    found: Metadata = {}
    for name in (b"CMT1", b"CMT2"):
        place = start.find(name)
        if place >= 4:
            (size,) = struct.unpack_from(">I", start, place - 4)
            found = _of_tags(_tags(io.BytesIO(start[place + 4 : place - 4 + size]))) | found
    return found


def _of_crw(file: BinaryIO) -> Metadata:
    """Canon's CIFF: nested heaps, each with its directory at its end ("CIFF Specification on Image Data File", 1.0)."""
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    (start,) = struct.unpack(f"{order}I", file.read(4))
    records = dict(_records(file, order, start, file.seek(0, io.SEEK_END), 0))
    found: dict[str, Any] = {}
    names = [part.decode("latin-1") for part in records.get(_CIFF_MODEL, b"").split(b"\0")]
    found["make"], found["model"] = (*names, "", "")[:2]
    found["artist"] = records.get(_CIFF_OWNER, b"").split(b"\0")[0].decode("latin-1")
    if len(time := records.get(_CIFF_TIME, b"")) >= 4:
        from datetime import UTC, datetime

        # The camera's clock as seconds, whatever its zone: rawpy would take it to the computer's.
        (seconds,) = struct.unpack(f"{order}I", time[:4])
        if seconds:
            found["datetime"] = datetime.fromtimestamp(seconds, UTC).strftime("%Y:%m:%d %H:%M:%S")
    return clean_metadata(found)


def _records(file: BinaryIO, order: str, start: int, end: int, depth: int) -> Iterator[tuple[int, bytes]]:
    """Those of a heap and of the heaps in it that are of interest here."""
    if depth > 4 or end - start < 6:  # deeper nesting is damage
        return
    file.seek(end - 4)
    (table,) = struct.unpack(f"{order}I", file.read(4))
    file.seek(start + table)
    (count,) = struct.unpack(f"{order}H", file.read(2))
    for kind, size, offset in struct.iter_unpack(f"{order}H2I", file.read(10 * min(count, 200))):
        inside = kind & 0x4000  # the eight bytes of size and offset are the value
        if not inside and kind & 0x3800 in (0x2800, 0x3000):
            yield from _records(file, order, start + offset, min(start + offset + size, end), depth + 1)
        elif kind & 0x3FFF in (_CIFF_MODEL, _CIFF_OWNER, _CIFF_TIME):
            if inside:
                yield kind & 0x3FFF, struct.pack(f"{order}2I", size, offset)
                continue
            file.seek(start + offset)
            yield kind & 0x3FFF, file.read(min(size, 2 * MOST_TEXT))


def _text(tag: Any) -> str:
    """A tag's text; exifread gives what is no ASCII as bytes, and prints those as Python does."""
    if not isinstance(tag.values, bytes):
        return str(tag)
    try:
        return tag.values.decode()
    except UnicodeDecodeError:
        return tag.values.decode("latin-1")


def _float(value: Any) -> float:
    """NaN where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, ArithmeticError):
        return math.nan


@contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """Keep a library's remarks on odd tags off the user's terminal."""
    logger = logging.getLogger(logger_name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
