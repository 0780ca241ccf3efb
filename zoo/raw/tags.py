"""What a raw file's tags say beyond what LibRaw passes on: camera, exposure, and DNG's colour and noise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.raw.noise import NoiseProfile

_TIFF_MAGIC = (b"II*\x00", b"MM\x00*")
_RATIONALS = (5, 10)  # TIFF types RATIONAL and SRATIONAL
_CFA, _LINEAR_RAW = 32803, 34892
_D65 = 21  # CalibrationIlluminant


@dataclass(frozen=True)
class DngTags:
    """Tags of a DNG, empty but for ``plain_tiff`` where the file is none.

    Attributes:
        kind: "cfa", "linear" or "" (no DNG).
        matrix: (3, 3) XYZ -> camera of the calibration nearest D65, with AnalogBalance and CameraCalibration; or None.
        noise: NoiseProfile pairs (n, 2), n = 1, 3 or 4; None without the tag.
        black: (2, 2) black level by position in the active area, where the tags give a 2x2 or smaller pattern; or None.
        origin: top left of the active area (row, column).
        needed_bytes: where the picture's last strip or tile ends in the file; a shorter file is cut off.
        model: UniqueCameraModel.
        software: what wrote the file.
        plain_tiff: it is a TIFF, and no DNG.
    """

    kind: str = ""
    matrix: npt.NDArray[np.float64] | None = None
    noise: npt.NDArray[np.float64] | None = None
    black: npt.NDArray[np.float64] | None = None
    origin: tuple[int, int] = (0, 0)
    needed_bytes: int = 0
    model: str = ""
    software: str = ""
    plain_tiff: bool = False


def read_exif(path: Path) -> dict[str, str | float | int]:
    """Make, model, iso, exposure_time, f_number, focal_length and datetime, as far as exifread finds them."""
    import exifread

    names = {
        "make": ("Image Make",),
        "model": ("Image Model",),
        "iso": ("EXIF ISOSpeedRatings", "Image ISOSpeedRatings", "EXIF RecommendedExposureIndex"),
        "exposure_time": ("EXIF ExposureTime", "Image ExposureTime"),
        "f_number": ("EXIF FNumber", "Image FNumber"),
        "focal_length": ("EXIF FocalLength", "Image FocalLength"),
        "datetime": ("EXIF DateTimeOriginal", "Image DateTime"),
    }
    with _quiet("exifread"), path.open("rb") as file:
        try:
            tags = exifread.process_file(file, details=False)
        except Exception:  # exifread raises what it likes on formats it does not know; the picture may still be read
            return {}
    found: dict[str, str | float | int] = {}
    for name, keys in names.items():
        tag = next((tags[k] for k in keys if k in tags), None)
        if tag is None:
            continue
        if name in ("make", "model", "datetime"):
            found[name] = _text(tag).strip("\x00 ")
        elif tag.values and (number := _float(tag.values[0])) > 0:
            found[name] = number
    return found


def _text(tag: Any) -> str:
    """A tag's text; exifread gives what is no ASCII as bytes, and prints those as Python does."""
    if not isinstance(tag.values, bytes):
        return str(tag)
    try:
        return tag.values.decode()
    except UnicodeDecodeError:
        return tag.values.decode("latin-1")


def read_dng_tags(path: Path) -> DngTags:
    """Read the DNG tags of IFD 0 and the SubIFDs (LibRaw hides NoiseProfile, tag 51041); an empty result for no DNG."""
    import tifffile

    with path.open("rb") as file:
        if file.read(4) not in _TIFF_MAGIC:
            return DngTags()
    with _quiet("tifffile"):
        try:
            with tifffile.TiffFile(path) as tiff:
                pages = [p for top in tiff.pages for p in (top, *(top.pages or ()))]
                return _from_pages(pages)
        except (TypeError, ValueError, LookupError, ArithmeticError, OSError):  # also of texts that stand for numbers
            return DngTags()


def cfa_noise(pairs: npt.NDArray[np.float64], cfa: str) -> NoiseProfile | None:
    """NoiseProfile tag -> profile: one pair for all, three for R, G, B, or four by CFA position (greens are averaged).

    Returns None for other counts, and for negative or all-zero values.
    """
    if len(pairs) == 4:
        positions = [[i for i, c in enumerate(cfa) if c == colour] for colour in "RGB"]
        pairs = np.array([pairs[p].mean(axis=0) for p in positions]) if len(cfa) == 4 else pairs[:0]
    if len(pairs) not in (1, 3) or not np.isfinite(pairs).all() or pairs.min() < 0 or pairs[:, 0].min() <= 0:
        return None
    (sr, o_r), (sg, og), (sb, ob) = np.broadcast_to(pairs, (3, 2)).tolist()
    return NoiseProfile((sr, sg, sb), (o_r, og, ob), "tag")


def _from_pages(pages: list[Any]) -> DngTags:
    first = pages[0].tags
    if 50706 not in first:  # DNGVersion
        return DngTags(plain_tiff=True)
    raw = next((p for p in pages if p.tags.valueof(262) in (_CFA, _LINEAR_RAW)), pages[0])
    kind = {_CFA: "cfa", _LINEAR_RAW: "linear"}.get(raw.tags.valueof(262), "")
    both = [raw.tags, first]  # the noise may stand in either
    noise = next((n for n in (_numbers(t, 51041) for t in both) if n is not None and n.size % 2 == 0), None)
    ends = [int(o) + int(n) for o, n in zip(raw.dataoffsets, raw.databytecounts, strict=False)]
    area = _numbers(raw.tags, 50829)  # ActiveArea: top, left, bottom, right
    return DngTags(
        kind=kind,
        black=_black(raw.tags),
        origin=(0, 0) if area is None else (int(area[0]), int(area[1])),
        matrix=_colour_matrix(first),
        noise=None if noise is None else noise.reshape(-1, 2),
        needed_bytes=max(ends, default=0),
        model=str(first.valueof(50708) or ""),
        software=str(first.valueof(305) or ""),
    )


def _black(tags: Any) -> npt.NDArray[np.float64] | None:
    """BlackLevel as (2, 2); None without the tag, for larger patterns, and where rows or columns have their own."""
    levels, repeat = _numbers(tags, 50714), tags.valueof(50713) or (1, 1)
    if levels is None or levels.size != np.prod(repeat) or max(repeat) > 2 or 50715 in tags or 50716 in tags:
        return None
    return np.array(np.broadcast_to(levels.reshape(repeat), (2, 2)))


def _colour_matrix(tags: Any) -> npt.NDArray[np.float64] | None:
    """AnalogBalance * CameraCalibration * ColorMatrix, (3, 3) or None (DNG specification, "Camera to XYZ")."""
    matrices = {n: m for n, code in ((1, 50721), (2, 50722)) if (m := _numbers(tags, code)) is not None and m.size == 9}
    if not matrices:
        return None
    illuminants = {n: tags.valueof(50777 + n) for n in matrices}
    chosen = next((n for n in matrices if illuminants[n] == _D65), max(matrices))  # by custom 2 is the daylight one
    matrix = matrices[chosen].reshape(3, 3)
    calibration, balance = _numbers(tags, 50722 + chosen), _numbers(tags, 50727)
    if calibration is not None and calibration.size == 9:
        matrix = calibration.reshape(3, 3) @ matrix
    if balance is not None and balance.size == 3:
        matrix = np.diag(balance) @ matrix
    return matrix if abs(np.linalg.det(matrix)) > 1e-6 else None


def _numbers(tags: Any, code: int) -> npt.NDArray[np.float64] | None:
    """A tag's values as floats, rationals divided out; None without the tag."""
    tag = tags.get(code)
    if tag is None:
        return None
    values = np.atleast_1d(np.asarray(tag.value, np.float64))
    if int(tag.dtype) in _RATIONALS:
        values = values[0::2] / np.where(values[1::2] == 0, 1, values[1::2])
    return values


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep a library's remarks on odd tags off the user's terminal."""
    logger = logging.getLogger(logger_name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
