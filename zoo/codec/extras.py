"""What a photo says that a header has no field for, as EXIF of the thumbnail: lens, place, artist, copyright, time zone,
brightness, lens shading.

Any reader of JPEGs finds the first five there; BaselineExposure and the lens shading (as an OpcodeList3) stand in the tags that a
DNG has them in.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import warnings
from typing import Any

from zoo.codec.header import HELD
from zoo.raw import RawImage
from zoo.raw.exif import Metadata, clean_metadata
from zoo.raw.ifd import EXIF, GPS, UNDEFINED, Tag, baseline_tags, exif_block
from zoo.raw.shading import Shading, read_shading
from zoo.raw.tags import MOST_BASELINE

_BASELINE, _OPCODES = 50730, 51022  # tags of IFD 0
_TEXTS = {"artist": (0, 315), "copyright": (0, 33432), "lens": (EXIF, 42036), "offset_time": (EXIF, 36881)}
_PLACE = {"latitude": (1, 2, b"S", 90.0), "longitude": (3, 4, b"W", 180.0)}  # tags of the reference and the degrees
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8}  # bytes of a value by TIFF type
_MOST_TAGS = 64  # of a folder


def pack_extras(raw: RawImage) -> bytes:
    """An EXIF block, for :func:`zoo.codec.thumbnail.make_thumbnail`; empty where the header says it all."""
    more: list[Tag] = baseline_tags(raw)
    if raw.shading is not None:
        opcodes = raw.shading.pack((raw.mosaic.shape[0], raw.mosaic.shape[1]))
        more.append((_OPCODES, UNDEFINED, len(opcodes), opcodes, True))
    if not more and not any(name in raw.metadata for name in (*_TEXTS, *_PLACE)):
        return b""
    # A thumbnail is turned already; the header has the photo's orientation.
    return exif_block(dataclasses.replace(raw, orientation=1), more)


def read_extras(thumbnail: bytes, shape: tuple[int, int]) -> tuple[Metadata, Shading | None]:
    """What :func:`pack_extras` has put into a thumbnail's JPEG: metadata, and the shading of a picture of ``shape`` (H, W).

    Nothing of what the header has, and nothing where the thumbnail is empty or its EXIF not of :func:`pack_extras`. No more is
    looked at than that writes: a library's reader took 2 s for 8 kB that name the same bytes again and again.
    """
    try:
        tiff = _exif_of(thumbnail)
        folders = {0: _folder(tiff, 8)} if tiff else {0: {}}
        for code in (EXIF, GPS):
            pointer = folders[0].get(code)
            folders[code] = _folder(tiff, struct.unpack("<I", pointer)[0]) if pointer else {}
        found = _metadata(folders)
        shading, odd = read_shading(b"", folders[0].get(_OPCODES, b""), "", shape)
    except (ValueError, struct.error, ZeroDivisionError):
        return {}, None
    return found | ({"gain_map": 1} if odd else {}), shading


def _exif_of(thumbnail: bytes) -> bytes:
    """The TIFF in a JPEG, from its byte order on; empty for none."""
    from PIL import Image

    if not thumbnail:
        return b""
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of pictures of more than 89 megapixels
            Image.open(io.BytesIO(thumbnail), formats=["JPEG"]) as picture,
        ):
            block = picture.info.get("exif", b"")
    except Exception as error:  # Pillow raises what it likes on damage
        raise ValueError("no JPEG") from error
    start = b"Exif\0\0II*\0\x08\0\0\0"  # as exif_block begins
    return block[6:] if block.startswith(start) else b""


def _folder(tiff: bytes, at: int) -> dict[int, bytes]:
    """The values of a folder's tags, by code.

    Raises:
        ValueError: it is none of :func:`pack_extras`.
        struct.error: it is cut off.
    """
    (count,) = struct.unpack_from("<H", tiff, at)
    if count > _MOST_TAGS:
        raise ValueError("too many tags")
    found = {}
    for i in range(count):
        code, kind, number, place = struct.unpack_from("<HHI4s", tiff, at + 2 + 12 * i)
        size = number * _SIZES.get(kind, 0)
        start = struct.unpack("<I", place)[0]
        value = place[:size] if size <= 4 else tiff[start : start + size]
        if not 0 < len(value) == size:
            raise ValueError("a value that is cut off")
        found[code] = value
    return found


def _metadata(folders: dict[int, dict[int, bytes]]) -> Metadata:
    """What a header has no field for."""
    found: dict[str, Any] = {}
    for name, (folder, code) in _TEXTS.items():
        if code in folders[folder]:
            found[name] = folders[folder][code].rstrip(b"\0").decode()
    place = folders[GPS]
    if all(reference in place and code in place for reference, code, *_ in _PLACE.values()):
        for name, (reference, code, negative, most) in _PLACE.items():
            degrees = sum(part / 60**i for i, part in enumerate(_rationals(place[code])))
            if degrees > most:
                raise ValueError("no place on earth")
            found[name] = -degrees if place[reference][:1] == negative else degrees
        if 6 in place:
            (metres,) = _rationals(place[6])
            found["altitude"] = -metres if place.get(5, b"\0") == b"\1" else metres
    if _BASELINE in folders[0]:
        (exposure,) = _rationals(folders[0][_BASELINE], signed=True)
        if abs(exposure) <= MOST_BASELINE:
            found["baseline_exposure"] = exposure
    return {name: value for name, value in clean_metadata(found).items() if name not in HELD}


def _rationals(data: bytes, *, signed: bool = False) -> list[float]:
    return [top / bottom for top, bottom in struct.iter_unpack("<2i" if signed else "<2I", data)]
