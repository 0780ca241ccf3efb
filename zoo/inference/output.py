"""Developing and writing pictures, fed band by band.

========  =============================================================================================================
format    holds
========  =============================================================================================================
``tiff``  16-bit sRGB, developed; with ``linear`` the same without the sRGB curve. Clipped to 0..1. Memory stays flat.
``png``   8-bit sRGB, developed. The 8-bit picture is held in memory.
``jpeg``  as PNG, quality 95, colour not subsampled.
``dng``   LinearRaw for a raw developer: 16-bit camera RGB before white balance; a pedestal keeps negative values.
========  =============================================================================================================

"Developed" is white balance, camera matrix, sRGB curve and nothing else: no tone curve, no sharpening. Where a DNG says that
it is meant to be brighter (BaselineExposure above 0), it is made so before the sRGB curve. A linear picture is not: it would
lose highlights; a LinearRaw carries the tag. Nothing is made darker: white would turn grey without a tone curve.

Where a DNG says by how much the lens darkens corners (GainMap), all formats are without that: not all raw developers look for it
in a LinearRaw, and those that do would clip there too.

Pixels are not turned: the orientation is written as a tag, as cameras do. Camera, lens, exposure, time, place, artist and
copyright are kept (:mod:`zoo.raw.ifd`). Developed pictures carry an sRGB profile, linear ones that of sRGB's primaries
with gamma 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.ahead import ahead
from zoo.errors import ZooError
from zoo.files import replacing
from zoo.inference.icc import linear_profile, srgb_profile
from zoo.inference.tiling import Band
from zoo.models.registry import nearest
from zoo.raw import RawImage, camera_to_srgb_matrix, srgb_encode, write_linear_dng
from zoo.raw.ifd import SOFTWARE, append_ifds, exif_block, image_tags
from zoo.raw.tags import MOST_BASELINE, TIFF_MAGIC, read_dng_tags

SUFFIXES = {".tiff": "tiff", ".tif": "tiff", ".png": "png", ".jpeg": "jpeg", ".jpg": "jpeg", ".dng": "dng"}
FORMATS = ("tiff", "png", "jpeg", "dng")
_SHORT = {"tif": "tiff", "jpg": "jpeg"}

_CHUNK = 64  # rows that are developed at a time: the temporaries of a whole band would dwarf it
_DNG_BLACK, _DNG_WHITE = 512, 65535  # keeps values down to -0.8 % of white; LibRaw shows it as much too dark
_RZC = b"\x89RZC\r\n\x1a\n"  # zoo.codec has it too, but needs packages that pictures do not
_SOFTWARE = 305  # TIFF tag


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
        exposure: in EV, see :func:`develop`; on top of a DNG's own.

    Raises:
        ZooError: format or options do not fit, the file is the raw itself or another, or it cannot be written.
    """
    format = format_of(path, format)
    check_options(format, linear, exposure)
    if _is_raw(path, raw):
        raise ZooError(f"{path}: is the raw itself and would be overwritten; choose another name or folder")
    if format == "dng" and is_foreign(path):
        raise ZooError(
            f"{path}: is a DNG that raw-zoo did not write and would be overwritten; choose another name or folder"
        )
    parts = (Band(y0 + y, rgb[:, y : y + _CHUNK]) for y0, rgb in ahead(bands) for y in range(0, rgb.shape[1], _CHUNK))
    chunks = _evened(parts, raw)
    with replacing(path) as temporary:
        if format == "dng":
            _save_dng(temporary, chunks, raw)
            return
        if not linear:
            exposure += baseline_of(raw)
        developed = (develop(chunk.rgb, raw, linear=linear, exposure=exposure) for chunk in chunks)
        if format == "tiff":
            _save_tiff(temporary, developed, raw, linear)
        else:
            _save_8_bit(temporary, developed, raw, format)


def _evened(chunks: Iterable[Band], raw: RawImage) -> Iterator[Band]:
    """Without the lens's shading, as far as it is known."""
    if raw.shading is None:
        yield from chunks
        return
    gains = raw.shading.field((raw.mosaic.shape[0], raw.mosaic.shape[1]))
    for y0, rgb in chunks:
        yield Band(y0, rgb * gains(y0, y0 + rgb.shape[1]))


def _is_raw(path: Path, raw: RawImage) -> bool:
    try:
        return bool(raw.path) and path.samefile(raw.path)
    except OSError:  # one of them is not there; what else is wrong with a name is told when it is written to
        return False


def baseline_of(raw: RawImage) -> float:
    """EV by which a DNG is to be brightened, see the top of this file."""
    baseline = raw.metadata.get("baseline_exposure", 0.0)
    return min(max(baseline, 0.0), MOST_BASELINE) if isinstance(baseline, int | float) else 0.0


def is_foreign(path: Path) -> bool:
    """Whether a file is there that this program did not write, so perhaps the only copy of somebody's picture.

    Told by what the file holds, not by its name: our pictures name us in their ``Software`` tag, and an ``.rzc`` starts as
    nothing else does. A mosaic is never a picture of ours, nor is what is damaged, unknown or may not be read. Where there
    is no file, or an empty one, nothing can be lost.
    """
    try:
        if not path.is_file() or not path.stat().st_size:
            return False
    except OSError:  # what is wrong with a name is told when it is written to
        return False
    try:
        with path.open("rb") as file:
            start = file.read(len(_RZC))
    except OSError:
        return True
    if start == _RZC:
        return False
    if start[:4] in TIFF_MAGIC:
        return not _is_our_tiff(path)
    return _software_of(path) != SOFTWARE


def _is_our_tiff(path: Path) -> bool:
    """Whether :func:`save` wrote a TIFF or a DNG."""
    try:
        tags = read_dng_tags(path)
    except OSError:
        return False
    return tags.software == SOFTWARE and (tags.kind == "linear" or tags.plain_tiff)


def _software_of(path: Path) -> str:
    """The ``Software`` tag of a JPEG or PNG; empty where there is none."""
    from PIL import Image

    try:
        with warnings.catch_warnings():  # Pillow's remarks on size and on damage
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("JPEG", "PNG")) as picture:
                return str(picture.getexif().get(_SOFTWARE, ""))
    except Exception:  # Pillow raises what it likes on files that are damaged
        return ""


def _save_tiff(path: Path, developed: Iterator[npt.NDArray[np.float32]], raw: RawImage, linear: bool) -> None:
    import tifffile

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
        description="linear sRGB primaries" if linear else "sRGB",
        iccprofile=linear_profile() if linear else srgb_profile(),
        extratags=sorted(image_tags(raw)),
        returnoffset=True,
    )
    assert place is not None
    with path.open("r+b") as file:
        file.seek(place[0])
        for rows in developed:
            file.write(np.rint(rows * 65535).astype(np.uint16).tobytes())
    append_ifds(path, raw)


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
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if format == "jpeg" else {}
    Image.fromarray(picture).save(path, format, exif=exif_block(raw), icc_profile=srgb_profile(), **options)
