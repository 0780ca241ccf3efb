"""What a DNG's tags say beyond what LibRaw passes on: colour, noise, levels, and what a raw developer is to apply."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.raw.exif import quiet
from zoo.raw.noise import NoiseProfile

TIFF_MAGIC = (b"II*\x00", b"MM\x00*")
_RATIONALS = (5, 10)  # TIFF types RATIONAL and SRATIONAL
_CFA, _LINEAR_RAW = 32803, 34892
_D65 = 21  # CalibrationIlluminant
MOST_BASELINE = 4.0  # EV of BaselineExposure either way; cameras' are within 2


@dataclass(frozen=True)
class DngTags:
    """Tags of a DNG, empty but for ``plain_tiff`` and ``software`` where the file is none.

    Attributes:
        kind: "cfa", "linear" or "" (no DNG).
        matrix: (3, 3) XYZ -> camera of the calibration nearest D65, with AnalogBalance and CameraCalibration; or None.
        noise: NoiseProfile pairs (n, 2), n = 1, 3 or 4; None without the tag.
        black: (2, 2) black level by position in the active area, where the tags give a 2x2 or smaller pattern; or None.
        origin: top left of the active area (row, column).
        area: height and width of the active area.
        needed_bytes: where the picture's last strip or tile ends in the file; a shorter file is cut off.
        model: UniqueCameraModel.
        software: what wrote the file.
        baseline: BaselineExposure in EV; None without the tag, and where it makes no sense.
        opcodes: OpcodeList2 and 3, what is to be done to the mosaic and to the demosaiced picture; empty for none.
        plain_tiff: it is a TIFF, and no DNG.
    """

    kind: str = ""
    matrix: npt.NDArray[np.float64] | None = None
    noise: npt.NDArray[np.float64] | None = None
    black: npt.NDArray[np.float64] | None = None
    origin: tuple[int, int] = (0, 0)
    area: tuple[int, int] = (0, 0)
    needed_bytes: int = 0
    model: str = ""
    software: str = ""
    baseline: float | None = None
    opcodes: tuple[bytes, bytes] = (b"", b"")
    plain_tiff: bool = False


def read_dng_tags(path: Path) -> DngTags:
    """Read the DNG tags of IFD 0 and the SubIFDs (LibRaw hides NoiseProfile, tag 51041); an empty result for no DNG."""
    import tifffile

    with path.open("rb") as file:
        if file.read(4) not in TIFF_MAGIC:
            return DngTags()
    with quiet("tifffile"):
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
        return DngTags(plain_tiff=True, software=str(first.valueof(305) or ""))
    raw = next((p for p in pages if p.tags.valueof(262) in (_CFA, _LINEAR_RAW)), pages[0])
    kind = {_CFA: "cfa", _LINEAR_RAW: "linear"}.get(raw.tags.valueof(262), "")
    both = [raw.tags, first]  # the noise may stand in either
    noise = next((n for n in (_numbers(t, 51041) for t in both) if n is not None and n.size % 2 == 0), None)
    ends = [int(o) + int(n) for o, n in zip(raw.dataoffsets, raw.databytecounts, strict=False)]
    top, left, bottom, right = _active_area(raw)
    return DngTags(
        kind=kind,
        black=_black(raw.tags),
        origin=(top, left),
        area=(bottom - top, right - left),
        matrix=_colour_matrix(first),
        noise=None if noise is None else noise.reshape(-1, 2),
        needed_bytes=max(ends, default=0),
        model=str(first.valueof(50708) or ""),
        software=str(first.valueof(305) or ""),
        baseline=_baseline(first),
        opcodes=(_bytes(raw.tags, 51009), _bytes(raw.tags, 51022)),
    )


def _baseline(tags: Any) -> float | None:
    values = _numbers(tags, 50730)
    return float(values[0]) if values is not None and values.size == 1 and abs(values[0]) <= MOST_BASELINE else None


def _active_area(raw: Any) -> list[int]:
    """Top, left, bottom and right; all of the picture without the tag, or where it makes no sense."""
    area = _numbers(raw.tags, 50829)
    if area is not None and area.size == 4 and 0 <= area[0] < area[2] and 0 <= area[1] < area[3]:
        return [int(v) for v in area]
    return [0, 0, int(raw.imagelength), int(raw.imagewidth)]


def _bytes(tags: Any, code: int) -> bytes:
    content = tags.valueof(code)
    return content if isinstance(content, bytes) else b""


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
