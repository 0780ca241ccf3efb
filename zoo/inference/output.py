"""Developing and writing pictures, fed band by band.

========  =============================================================================================================
format    holds
========  =============================================================================================================
``tiff``  16-bit sRGB, developed; with ``linear`` the same without the sRGB curve. Clipped to 0..1. Memory stays flat.
``png``   8-bit sRGB, developed. The 8-bit picture is held in memory.
``jpeg``  as PNG, quality 95, colour not subsampled.
``dng``   LinearRaw for a raw developer: 16-bit camera RGB before white balance; a pedestal keeps negative values.
========  =============================================================================================================

"Developed" is white balance, camera matrix, sRGB curve and nothing else: no tone curve, no sharpening. Pixels are not
turned: the orientation is written as a tag, as cameras do. Make, model, time, ISO and exposure time are kept (in a DNG
without the times). Developed pictures carry an sRGB profile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.ahead import ahead
from zoo.errors import ZooError
from zoo.files import replacing
from zoo.inference.tiling import Band
from zoo.models.registry import nearest
from zoo.raw import RawImage, camera_to_srgb_matrix, srgb_encode, write_linear_dng
from zoo.raw.dng import SOFTWARE
from zoo.raw.tags import read_dng_tags

SUFFIXES = {".tiff": "tiff", ".tif": "tiff", ".png": "png", ".jpeg": "jpeg", ".jpg": "jpeg", ".dng": "dng"}
FORMATS = ("tiff", "png", "jpeg", "dng")
_SHORT = {"tif": "tiff", "jpg": "jpeg"}

_CHUNK = 64  # rows that are developed at a time: the temporaries of a whole band would dwarf it
_DNG_BLACK, _DNG_WHITE = 512, 65535  # keeps values down to -0.8 % of white; LibRaw shows it as much too dark
_ORIENTATION, _MAKE, _MODEL, _DATETIME = 274, 271, 272, 306  # TIFF tags
_EXIF, _EXPOSURE, _ISO = 34665, 33434, 34855  # the EXIF folder, and tags in it


def format_of(path: Path, format: str | None = None) -> str:
    """The format to write: the one that is named (``tif`` and ``jpg`` too), else the suffix's.

    Raises:
        ZooError: unknown name or suffix, or the two contradict each other.
    """
    format = None if format is None else _SHORT.get(format, format)
    if format is not None and format not in FORMATS:
        raise ZooError(f"unknown format '{format}'{nearest(format, FORMATS)}; choose from {', '.join(FORMATS)}")
    by_suffix = SUFFIXES.get(path.suffix.lower())
    if by_suffix is None:
        raise ZooError(f"{path}: no format has the suffix '{path.suffix}'; choose from {', '.join(SUFFIXES)}")
    if format not in (None, by_suffix):
        raise ZooError(f"{path}: its suffix says {by_suffix}, but the format given is {format}; change one of them")
    return by_suffix


def check_options(format: str, linear: bool, exposure: float) -> None:
    """Refuse what a format cannot hold.

    Raises:
        ZooError: linear PNG or JPEG, exposure in a DNG, or an exposure that is no sensible number.
    """
    if linear and format in ("png", "jpeg"):
        raise ZooError(f"8 bits are too few for a linear {format}; choose tiff or dng")
    if format == "dng" and exposure != 0:
        raise ZooError("a DNG keeps the sensor's values; set the exposure in the raw developer, or choose tiff")
    if not -20 <= exposure <= 20:
        raise ZooError(f"the exposure is in EV, -20 to 20, not {exposure:g}")


def develop(rgb: npt.NDArray[np.float32], raw: RawImage, *, linear: bool, exposure: float) -> npt.NDArray[np.float32]:
    """Camera RGB to sRGB.

    Highlights are clipped where the first channel of a white saturates: without that a blown-out sky turns magenta,
    since white balance lifts red and blue above the green that the sensor could still tell. Below, negative values live
    up to the matrix and are clipped only in the result.

    Args:
        rgb: (3, rows, W), white-balanced linear camera RGB.
        raw: the photo it was made from.
        linear: leave out the sRGB curve.
        exposure: in EV; multiplies by 2**exposure.

    Returns:
        (rows, W, 3) in [0, 1].
    """
    saturation = np.float32(min(raw.wb))
    matrix = camera_to_srgb_matrix(raw.xyz_to_cam, raw.wb) * np.float32(2**exposure / saturation)
    picture = np.tensordot(np.minimum(rgb, saturation), matrix, axes=(0, 1)).clip(0, 1)
    return picture if linear else srgb_encode(picture)


def save(
    path: Path,
    bands: Iterable[Band],
    raw: RawImage,
    *,
    format: str | None = None,
    linear: bool = False,
    exposure: float = 0.0,
) -> None:
    """Write a restored photo.

    Args:
        path: the file; written under a temporary name beside it and renamed, so nothing half-written stays.
        bands: as :func:`zoo.inference.restore.restore` gives them; taken from another thread, one ahead of what is written.
        raw: the photo they were made from.
        format: one of :data:`FORMATS`, or ``tif`` or ``jpg``; None for the suffix's.
        linear: TIFF without the sRGB curve. A DNG is always linear.
        exposure: in EV, see :func:`develop`.

    Raises:
        ZooError: format or options do not fit, the file is the raw itself or another, or it cannot be written.
    """
    format = format_of(path, format)
    check_options(format, linear, exposure)
    if _is_raw(path, raw):
        raise ZooError(f"{path}: is the raw itself and would be overwritten; choose another name or folder")
    if format == "dng" and _is_foreign_dng(path):
        raise ZooError(
            f"{path}: is a DNG that raw-zoo did not write and would be overwritten; choose another name or folder"
        )
    chunks = (Band(y0 + y, rgb[:, y : y + _CHUNK]) for y0, rgb in ahead(bands) for y in range(0, rgb.shape[1], _CHUNK))
    with replacing(path) as temporary:
        if format == "dng":
            _save_dng(temporary, chunks, raw)
            return
        developed = (develop(chunk.rgb, raw, linear=linear, exposure=exposure) for chunk in chunks)
        if format == "tiff":
            _save_tiff(temporary, developed, raw, linear)
        else:
            _save_8_bit(temporary, developed, raw, format)


def _is_raw(path: Path, raw: RawImage) -> bool:
    try:
        return bool(raw.path) and path.samefile(raw.path)
    except OSError:  # one of them is not there; what else is wrong with a name is told when it is written to
        return False


def _is_foreign_dng(path: Path) -> bool:
    """Whether a file is there that :func:`save` did not write, so perhaps the only copy of a raw."""
    try:
        if not path.is_file() or not path.stat().st_size:
            return False
    except OSError:  # as above
        return False
    try:
        tags = read_dng_tags(path)
    except OSError:  # it may not be read
        return True
    return (tags.software, tags.kind) != (SOFTWARE, "linear")


def _save_tiff(path: Path, developed: Iterator[npt.NDArray[np.float32]], raw: RawImage, linear: bool) -> None:
    import tifffile

    extra: list[tuple[int, int, int, Any, bool]] = [(_ORIENTATION, 3, 1, raw.orientation, True)]
    exif = _exif(raw)
    extra += [(code, 2, 0, exif[code], True) for code in (_MAKE, _MODEL) if code in exif]
    if _ISO in exif:
        extra.append((_ISO, 3, 1, exif[_ISO], True))
    if _EXPOSURE in exif:
        extra.append((_EXPOSURE, 5, 1, exif[_EXPOSURE].limit_rational(1_000_000), True))
    # The header first, with room for the pixels; then the pixels in order, so that none are held.
    place = tifffile.imwrite(
        path,
        shape=(*raw.mosaic.shape, 3),
        dtype=np.uint16,
        photometric="rgb",
        planarconfig="contig",
        rowsperstrip=_CHUNK,
        metadata=None,
        software=SOFTWARE,
        datetime=exif.get(_DATETIME),
        description="linear sRGB primaries" if linear else "sRGB",
        iccprofile=None if linear else _srgb_profile(),
        extratags=extra,
        returnoffset=True,
    )
    assert place is not None
    with path.open("r+b") as file:
        file.seek(place[0])
        for rows in developed:
            file.write(np.rint(rows * 65535).astype(np.uint16).tobytes())


def _save_dng(path: Path, chunks: Iterator[Band], raw: RawImage) -> None:
    scale = (_DNG_WHITE - _DNG_BLACK) / np.array(raw.wb, np.float32)  # takes the white balance off again
    # zoo.raw writes an array: the pixels wait for it in a file, which is mapped, not in memory.
    spool = path.with_suffix(".spool")
    try:
        with spool.open("wb") as file:
            for chunk in chunks:
                camera = np.moveaxis(chunk.rgb, 0, -1) * scale + _DNG_BLACK
                file.write(np.rint(camera.clip(0, 65535)).astype(np.uint16).tobytes())
        pixels = np.memmap(spool, np.uint16, "r", shape=(*raw.mosaic.shape, 3))
        write_linear_dng(path, pixels, raw=raw, black=_DNG_BLACK, white=_DNG_WHITE)
    finally:
        spool.unlink(missing_ok=True)


def _save_8_bit(path: Path, developed: Iterator[npt.NDArray[np.float32]], raw: RawImage, format: str) -> None:
    from PIL import Image

    picture = np.empty((*raw.mosaic.shape, 3), np.uint8)
    y = 0
    for rows in developed:
        picture[y : y + len(rows)] = np.rint(rows * 255)
        y += len(rows)
    exif = Image.Exif()
    for code, value in _exif(raw).items():
        (exif.get_ifd(_EXIF) if code in (_EXPOSURE, _ISO) else exif)[code] = value
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if format == "jpeg" else {}
    Image.fromarray(picture).save(path, format, exif=exif, icc_profile=_srgb_profile(), **options)


@cache
def _srgb_profile() -> bytes:
    """An ICC profile, without the time of its making: equal pictures are to give equal files."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]


def _exif(raw: RawImage) -> dict[int, Any]:
    """What is known of the exposure, by TIFF/EXIF tag; text is ASCII, as these tags are."""
    from PIL.TiffImagePlugin import IFDRational

    found: dict[int, Any] = {_ORIENTATION: raw.orientation}
    for code, key in ((_MAKE, "make"), (_MODEL, "model"), (_DATETIME, "datetime")):
        text = str(raw.metadata.get(key, "")).encode("ascii", "replace").decode()
        if text and (code != _DATETIME or re.fullmatch(r"\d{4}(:\d\d){2} \d\d(:\d\d){2}", text)):
            found[code] = text
    if raw.iso:
        found[_ISO] = min(round(raw.iso), 65535)
    seconds = raw.metadata.get("exposure_time")
    if isinstance(seconds, int | float) and 0 < seconds < 1e6:
        found[_EXPOSURE] = IFDRational(Fraction(seconds).limit_denominator(1_000_000))
    return found
