"""Writing DNG files: a Bayer mosaic, or a demosaiced linear picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.files import replacing
from zoo.raw.cfa import BAYER_PHASES
from zoo.raw.colour import SRGB_TO_XYZ
from zoo.raw.exif import clean_text
from zoo.raw.ifd import (
    ASCII,
    BYTE,
    DOUBLE,
    LONG,
    RATIONAL,
    SHORT,
    SOFTWARE,
    SRATIONAL,
    Tag,
    append_ifds,
    baseline_tags,
    image_tags,
    rationals,
)
from zoo.raw.image import RawImage
from zoo.raw.noise import NoiseProfile

CFA_PHOTOMETRIC, LINEAR_RAW = 32803, 34892  # PhotometricInterpretation, DNG specification 1.7


def write_dng(
    path: str | os.PathLike[str],
    mosaic: npt.NDArray[np.uint16],
    *,
    cfa: str,
    black: float | Sequence[float],
    white: float | Sequence[float],
    wb: Sequence[float],
    xyz_to_cam: npt.NDArray[np.floating[Any]] | None,
    iso: float | None = None,
    noise: NoiseProfile | None = None,
    orientation: int = 1,
    make: str = "",
    model: str = "",
) -> None:
    """Write an uncompressed CFA DNG.

    Args:
        path: the file; written under a temporary name beside it and renamed.
        mosaic: uint16 (H, W), any size.
        cfa: Bayer phase of the mosaic's top left.
        black: black level in DN, one or four per 2x2 position row by row.
        white: saturation level in DN. DNG has one per plane: of four the lowest is written, so that no saturated pixel
            passes for an unsaturated one.
        wb: gains R, G, B (AsShotNeutral is their inverse).
        xyz_to_cam: (3, 3) written as ColorMatrix1 with illuminant D65. DNG demands one: for None, the matrix that makes
            balanced camera RGB linear sRGB.
        iso: sensitivity, 1..65535.
        noise: written as NoiseProfile (tag 51041) for R, G, B.
        orientation: EXIF 1..8.
        make, model: also form UniqueCameraModel.

    Raises:
        ZooError: not a uint16 mosaic, not a Bayer phase, no EXIF orientation, or the file cannot be written.
    """
    if mosaic.ndim != 2 or mosaic.dtype != np.uint16 or cfa not in BAYER_PHASES or orientation not in range(1, 9):
        raise ZooError(
            f"{path}: a CFA DNG takes a uint16 (H, W) mosaic in one of {', '.join(BAYER_PHASES)}, orientation 1..8,"
            f" not {mosaic.dtype} {mosaic.shape} in {cfa}, orientation {orientation}"
        )
    blacks = np.broadcast_to(np.asarray(black, np.float64), 4)
    tags: list[Tag] = [
        (33421, SHORT, 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, BYTE, 4, bytes("RGB".index(c) for c in cfa), True),  # CFAPattern
        (50710, BYTE, 3, bytes((0, 1, 2)), True),  # CFAPlaneColor
        (50711, SHORT, 1, 1, True),  # CFALayout: rectangular
        (50713, SHORT, 2, (2, 2), True),  # BlackLevelRepeatDim
        (50714, RATIONAL, 4, rationals(blacks), True),  # BlackLevel
        (50717, LONG, 1, round(float(np.min(white))), True),  # WhiteLevel
    ]
    if iso:
        tags.append((34855, SHORT, 1, min(round(iso), 65535), True))  # ISOSpeedRatings, in IFD 0 as TIFF/EP has it
    if noise is not None:
        pairs = [v for pair in zip(noise.shot, noise.read, strict=True) for v in pair]
        tags.append((51041, DOUBLE, 6, tuple(pairs), True))  # NoiseProfile
    tags.append((274, SHORT, 1, orientation, True))  # Orientation
    texts = [(code, _ascii(text)) for code, text in ((271, make), (272, model))]  # Make, Model
    tags += [(code, ASCII, 0, text, True) for code, text in texts if text]
    tags += _colour_tags(wb, xyz_to_cam, make, model)
    _write(path, mosaic, CFA_PHOTOMETRIC, tags)


def write_linear_dng(
    path: str | os.PathLike[str],
    rgb: npt.NDArray[np.uint16],
    *,
    raw: RawImage,
    black: float = 0.0,
    white: float = 65535.0,
) -> None:
    """Write demosaiced camera RGB as a LinearRaw DNG that raw developers open like a raw.

    Args:
        path: the file; written under a temporary name beside it and renamed.
        rgb: uint16 (H, W, 3), linear, camera colours, *not* white balanced, not turned.
        raw: the photo it was made from: gains, matrix, BaselineExposure and what :mod:`zoo.raw.ifd` keeps are taken
            over. Its noise profile is not: the noise is gone.
        black, white: DN of 0 and 1. A pedestal (black > 0) keeps a denoiser's negative values around black.
            Keep it small, e.g. 512: LibRaw 0.22 scales LinearRaw by white instead of white - black, so that its
            pictures come out (white - black) / white as bright.

    Raises:
        ZooError: not a uint16 picture, or the file cannot be written.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint16:
        raise ZooError(f"{path}: a linear DNG takes a uint16 (H, W, 3) picture, not {rgb.dtype} {rgb.shape}")
    tags: list[Tag] = [
        (50713, SHORT, 2, (1, 1), True),  # BlackLevelRepeatDim
        (50714, RATIONAL, 3, rationals([black] * 3), True),  # BlackLevel
        (50717, LONG, 3, (round(white),) * 3, True),  # WhiteLevel
    ]
    make, model = (clean_text(str(raw.metadata.get(key, ""))) for key in ("make", "model"))
    tags += [*image_tags(raw), *baseline_tags(raw), *_colour_tags(raw.wb, raw.xyz_to_cam, make, model)]
    _write(path, rgb, LINEAR_RAW, tags, raw)


def _colour_tags(
    wb: Sequence[float], xyz_to_cam: npt.NDArray[np.floating[Any]] | None, make: str, model: str
) -> list[Tag]:
    neutral = 1 / np.asarray(wb, np.float64)
    matrix = np.diag(neutral) @ np.linalg.inv(SRGB_TO_XYZ) if xyz_to_cam is None else np.asarray(xyz_to_cam)
    unique = _ascii(f"{make} {model}".strip()) or "Unknown"
    return [
        (50706, BYTE, 4, bytes((1, 4, 0, 0)), True),  # DNGVersion: 1.4 is the first all readers of NoiseProfile know
        (50707, BYTE, 4, bytes((1, 1, 0, 0)), True),  # DNGBackwardVersion
        (50708, ASCII, 0, unique, True),  # UniqueCameraModel
        (50721, SRATIONAL, 9, rationals(matrix.ravel(), most=2**31 - 1), True),  # ColorMatrix1
        (50728, RATIONAL, 3, rationals(neutral), True),  # AsShotNeutral
        (50778, SHORT, 1, 21, True),  # CalibrationIlluminant1: D65
    ]


def _ascii(text: str) -> str:
    """All that tags of texts hold."""
    return text.encode("ascii", "replace").decode()


def _write(
    path: str | os.PathLike[str],
    data: npt.NDArray[np.uint16],
    photometric: int,
    tags: list[Tag],
    raw: RawImage | None = None,
) -> None:
    import tifffile

    with replacing(path) as temporary:
        tifffile.imwrite(
            temporary,
            np.ascontiguousarray(data),
            photometric=photometric,
            planarconfig="contig" if data.ndim == 3 else None,
            metadata=None,
            software=SOFTWARE,
            extratags=sorted(tags),
        )
        if raw is not None:
            append_ifds(temporary, raw)
