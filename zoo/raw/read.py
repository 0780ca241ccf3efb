"""Opening raw files: camera raws and DNG through LibRaw, and the project's own npz."""

from __future__ import annotations

import contextlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from zoo.errors import ZooError
from zoo.raw.cfa import BAYER_PHASES, XTRANS
from zoo.raw.colour import D65
from zoo.raw.exif import Metadata, clean_metadata, clean_text, read_exif
from zoo.raw.image import Quad, RawImage, normalised_planes
from zoo.raw.noise import NoiseProfile, camera_noise, choose_noise, estimate_noise
from zoo.raw.sensor import cfa_of, crop_of, levels_of, quad, shading_of, shifted
from zoo.raw.shading import Shading
from zoo.raw.tags import DngTags, cfa_noise, read_dng_tags

Triple = tuple[float, float, float]

# Of what is taken for a raw where a folder is given: a mosaic that LibRaw reads. Not .raw, which anything may be, nor .x3f,
# which holds full-colour pixels.
RAW_SUFFIXES = (
    *(".dng", ".npz", ".crw", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".ori", ".rw2"),
    *(".rwl", ".rwz", ".pef", ".ptx", ".srw", ".3fr", ".fff", ".erf", ".mrw", ".mdc", ".iiq", ".cap", ".mos", ".mef"),
    *(".mfw", ".gpr", ".dcr", ".dcs", ".drf", ".kdc", ".k25", ".kc2", ".bay", ".pxn", ".qtk", ".cs1", ".sti", ".ia"),
)

_MOST = 1e4  # of one gain over another; no light is as far from a sensor's own colours
_MOST_ISO = 1e9  # far beyond any camera's; its square must not overflow
_MOST_BYTES = 1 << 31  # of an npz's mosaic, all frames together: a header that claims more is damaged

# LibRaw's flip holds mirror (1), flip (2) and transpose (4) bits; this is dcraw's table from EXIF, inverted.
_EXIF_OF_FLIP = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}

_LIBRAW_EXPOSURE = {
    "iso": "iso_speed", "exposure_time": "shutter_speed", "f_number": "aperture", "focal_length": "focal_length",
}  # fmt: skip


def read_raw(path: str | os.PathLike[str], *, noise: NoiseProfile | None = None, frame: int = 0) -> RawImage:
    """Read a raw photo.

    Camera raws (CR2, CR3, NEF, ARW, DNG, RAF, ORF, RW2, CRW, ...) are read by LibRaw, which unpacks, linearises and
    finds the picture in the active area (what DNG calls its default crop). ``.npz`` files hold ``mosaic``, an unsigned
    integer (H, W) or (N, H, W) array, and ``meta``, a JSON object in a string: ``black`` (number, or four per 2x2
    position row by row), ``white`` (number) and ``cfa`` are needed; ``iso``, ``camera`` or ``make`` and ``model``,
    ``wb`` (gains R, G, B) or ``as_shot_neutral`` (their inverses), ``color_matrix`` (nine numbers, XYZ -> camera, row
    by row), ``noise_profile`` ([S, O]) and ``orientation`` are taken where they are.

    White balance is the camera's; without one, the gains that make daylight (D65) neutral through the colour matrix;
    without a matrix, grey world. Noise is ``noise`` if given; else the file's NoiseProfile tag or the table's row for
    the camera, unless the picture itself shows noise more than 2.5 times off; else the picture's own; else a median
    phone's.

    Args:
        path: the file.
        noise: what the noise is, where the caller knows better than file, table and picture.
        frame: which mosaic of an (N, H, W) npz.

    Raises:
        ZooError: missing, unreadable, cut off, or not a mosaic of red, green and blue; the message says which.
    """
    file = Path(path)
    try:
        if not file.exists():
            raise ZooError(f"{file}: no such file; check the path")
        if file.is_dir():
            raise ZooError(f"{file}: is a folder; give the raw files in it one by one")
        size = file.stat().st_size
        with file.open("rb"):
            pass
    except OSError as error:
        raise ZooError(f"{file}: cannot be read ({error.strerror}); check its name and permissions") from error
    if size == 0:
        raise ZooError(f"{file}: is empty; copy it again from the camera")
    if file.suffix.lower() == ".npz":
        return _read_npz(file, noise, frame)
    if frame != 0:
        raise ZooError(f"{file}: holds one frame, there is no frame {frame}; leave the frame out")
    return _read_camera_raw(file, noise)


def _read_camera_raw(path: Path, noise: NoiseProfile | None) -> RawImage:
    import rawpy

    dng = read_dng_tags(path)
    if dng.plain_tiff and path.suffix.lower() == ".dng":  # LibRaw would guess its filters and levels
        raise ZooError(f"{path}: is a TIFF named .dng, without the tags of a DNG; give the camera's own raw")
    if dng.kind == "linear":
        raise ZooError(f"{path}: a linear DNG, already demosaiced; give the camera's own raw")
    size = path.stat().st_size
    if dng.needed_bytes > size:
        raise ZooError(f"{path}: is cut off at {size} of {dng.needed_bytes} bytes; copy it again from the camera")
    try:
        with _silent_stderr(), _source(path) as source, rawpy.imread(source) as raw:
            cfa = cfa_of(path, raw)
            top, left, bottom, right = crop_of(raw.sizes)
            mosaic = np.array(raw.raw_image_visible[top:bottom, left:right], dtype=np.uint16)
            black, white = levels_of(raw, cfa, dng)
            cfa, black = shifted(cfa, black, top, left)
            # Where the mosaic begins in the active area, which LibRaw's visible area may not be.
            place = top + raw.sizes.top_margin - dng.origin[0], left + raw.sizes.left_margin - dng.origin[1]
            gains = [float(g) for g in raw.camera_whitebalance]
            matrix = np.array(raw.rgb_xyz_matrix[:3], np.float64)
            flip, known = int(raw.sizes.flip), _known(raw)
    except rawpy.LibRawFileUnsupportedError as error:
        raise ZooError(f"{path}: is no raw that LibRaw knows, or is cut off; give a whole camera raw or DNG") from error
    except (rawpy.LibRawError, MemoryError) as error:
        raise ZooError(f"{path}: is damaged ({_text(error)}); copy it again from the camera") from error
    metadata = known | clean_metadata({"model": dng.model}) | read_exif(path)
    if dng.baseline is not None:
        metadata["baseline_exposure"] = dng.baseline
    shading, odd = shading_of(dng, cfa, place, (bottom - top, right - left))
    if odd:
        metadata["gain_map"] = 1
    iso = float(metadata.pop("iso", 0))
    return _finish(
        path, mosaic, cfa, black, white,
        gains=_gains(gains),
        matrix=_camera_matrix(dng, matrix),
        iso=iso if 0 < iso < _MOST_ISO else None,
        stated=None if dng.noise is None else cfa_noise(dng.noise, cfa),
        given=noise,
        orientation=_EXIF_OF_FLIP.get(flip, 1),
        metadata=metadata,
        shading=shading,
    )  # fmt: skip


@contextlib.contextmanager
def _source(path: Path) -> Iterator[str | BinaryIO]:
    """What rawpy is to open: the name; or the file, which it holds in memory then, where the name is no UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield file
    else:
        yield str(path)


def _known(raw: Any) -> Metadata:
    """What LibRaw knows of the exposure, for formats that nothing else here reads."""
    found: dict[str, Any] = {}
    with contextlib.suppress(AttributeError, ValueError, OSError, OverflowError):  # old rawpy; times of damaged files
        other = raw.other
        found = {name: float(getattr(other, attribute)) for name, attribute in _LIBRAW_EXPOSURE.items()}
        found["artist"] = other.artist
        if other.timestamp.timestamp() > 0:  # LibRaw took the camera's clock for local time, and rawpy back again
            found["datetime"] = other.timestamp.strftime("%Y:%m:%d %H:%M:%S")
    with contextlib.suppress(AttributeError):
        found["lens"] = raw.lens.model
    return clean_metadata(found)


def _camera_matrix(dng: DngTags, libraw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """A DNG's own matrix, else LibRaw's for the camera; LibRaw has none for many DNGs (Blackmagic) and gives zeros."""
    return dng.matrix if dng.matrix is not None else _usable(libraw)


def _read_npz(path: Path, noise: NoiseProfile | None, frame: int) -> RawImage:
    if not zipfile.is_zipfile(path):
        raise ZooError(f"{path}: is no npz file, or is cut off; make it again with numpy.savez")
    try:
        with zipfile.ZipFile(path) as archive:
            missing = {"mosaic", "meta"} - {name.removesuffix(".npy") for name in archive.namelist()}
            if missing:
                raise ZooError(f"{path}: has no array {min(missing)}; a raw npz holds 'mosaic' and 'meta'")
            mosaic, text = _npy(archive, "mosaic"), str(_npy(archive, "meta"))
    except ZooError:
        raise
    except Exception as error:  # zipfile, its decompressors, numpy and the tokenizer below it raise what they like
        raise ZooError(f"{path}: is damaged ({_text(error)}); make it again with numpy.savez") from error
    if mosaic.dtype not in (np.uint8, np.uint16) or mosaic.ndim not in (2, 3) or mosaic.size == 0:
        raise ZooError(
            f"{path}: its mosaic is {mosaic.dtype} {mosaic.shape}; make it uint8 or uint16, (H, W) or (N, H, W)"
        )
    frames = mosaic[None] if mosaic.ndim == 2 else mosaic
    if not 0 <= frame < len(frames):
        raise ZooError(f"{path}: holds {len(frames)} frame(s), there is no frame {frame}; choose 0..{len(frames) - 1}")
    try:
        meta = json.loads(text)
        cfa, white = str(meta["cfa"]), float(meta["white"])
        black = [float(b) for b in meta["black"]] if isinstance(meta["black"], list) else [float(meta["black"])] * 4
        gains = _gains(meta.get("wb") or [1 / float(n) for n in meta.get("as_shot_neutral") or ()])
        matrix = _usable(np.array(meta.get("color_matrix") or [0] * 9, np.float64).reshape(3, 3))
        pair = meta.get("noise_profile")
        stated = cfa_noise(np.array(pair, np.float64).reshape(-1, 2), cfa) if pair else None
        iso = float(meta["iso"]) if meta.get("iso") else None
        orientation = int(meta.get("orientation") or 1)
        metadata = clean_metadata({"make": str(meta.get("make") or "")})
        metadata["model"] = clean_text(str(meta.get("model") or meta.get("camera") or "")) or "unknown"
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {_text(error)}"
        raise ZooError(f"{path}: its meta is wrong ({problem}); zoo.raw.read_raw lists the keys") from error
    levels = len(black) == 4 and _ordered(black, [white])
    if cfa not in BAYER_PHASES or not levels or orientation not in range(1, 9):
        raise ZooError(
            f"{path}: meta says cfa {cfa}, black {black}, white {white}, orientation {orientation};"
            f" cfa is one of {', '.join(BAYER_PHASES)}, black is below white, both finite, orientation is 1..8"
        )
    if iso is not None and not 0 < iso < _MOST_ISO:
        raise ZooError(f"{path}: meta says iso {iso:g}; it is above 0 and below {_MOST_ISO:g}, or left out")
    return _finish(
        path, frames[frame].astype(np.uint16), cfa, quad(black), quad([white] * 4),
        gains=gains, matrix=matrix, iso=iso, stated=stated, given=noise, orientation=orientation, metadata=metadata,
    )  # fmt: skip


def _npy(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """One array of an npz. What its header claims is checked first: NumPy would allocate it.

    Raises:
        ValueError: it claims more than the file holds.
        Exception: of any kind, where the file is damaged.
    """
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        shape, dtype = npy_header(file)
        if math.prod(shape) * dtype.itemsize > min(member.file_size - file.tell(), _MOST_BYTES):
            raise ValueError(f"{name} claims {dtype} {shape}, more than the file or {_MOST_BYTES} bytes hold")
        file.seek(0)
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that the header of a ``.npy`` claims; the file is read up to its values.

    Raises:
        Exception: of any kind, where it is damaged.
    """
    old = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _finish(
    path: Path,
    mosaic: npt.NDArray[np.uint16],
    cfa: str,
    black: Quad,
    white: Quad,
    *,
    gains: Triple | None,
    matrix: npt.NDArray[np.float64] | None,
    iso: float | None,
    stated: NoiseProfile | None,
    given: NoiseProfile | None,
    orientation: int,
    metadata: Metadata,
    shading: Shading | None = None,
) -> RawImage:
    """Settle white balance and noise, which need the picture, and put the photo together."""
    if not _ordered(black, white):
        raise ZooError(f"{path}: its levels make no sense (black {black}, white {white[0]:g}); the file is damaged")
    planes = None
    if cfa != XTRANS and min(mosaic.shape) >= 2:
        planes, _ = normalised_planes(mosaic, cfa, black, white)
    metadata["wb_source"] = "as shot"
    if gains is None and matrix is not None:
        with np.errstate(divide="ignore"):
            gains, metadata["wb_source"] = _gains(1 / (matrix @ D65)), "daylight"
    if gains is None:
        gains, metadata["wb_source"] = _grey_world(planes), "grey world"
    if given is None:
        camera = f"{metadata.get('make', '')} {metadata.get('model', '')}"
        stated = stated or camera_noise(camera, iso)
        given = choose_noise(stated, iso, None if planes is None else estimate_noise(planes))
    return RawImage(mosaic, cfa, black, white, gains, matrix, iso, given, orientation, metadata, str(path), shading)


def _ordered(black: Sequence[float], white: Sequence[float]) -> bool:
    """Whether all levels are numbers, with every black below every white."""
    return bool(np.isfinite([*black, *white]).all()) and max(black) < min(white)


def _usable(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """A (3, 3) matrix, or None where it has no inverse (all zeros: unknown)."""
    return matrix if np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-6 else None


def _gains(values: Any) -> Triple | None:
    """The first three gains with green = 1; None where they are no gains (LibRaw gives -1 or 0 for unknown)."""
    gains = np.asarray(values, np.float64)[:3]
    if gains.size < 3 or not np.isfinite(gains).all() or gains.min() <= 0 or gains.max() > _MOST * gains.min():
        return None
    return float(gains[0] / gains[1]), 1.0, float(gains[2] / gains[1])


def _grey_world(planes: npt.NDArray[np.float32] | None) -> Triple:
    """Gains that make the mean of the unsaturated pixels grey, held to 1/4..4; ones where there is nothing to go by."""
    if planes is None:
        return 1.0, 1.0, 1.0
    r, g1, g2, b = planes
    usable = planes.max(axis=0) < 0.95
    means = [float(p[usable].mean()) if usable.any() else 0.0 for p in (r, (g1 + g2) / 2, b)]
    if min(means) < 1e-4:  # a dark frame has no colour
        return 1.0, 1.0, 1.0
    return float(np.clip(means[1] / means[0], 0.25, 4)), 1.0, float(np.clip(means[1] / means[2], 0.25, 4))


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Swallow what C code writes to stderr: LibRaw tells of damage there as well as in the exception that we turn."""
    try:
        saved = os.dup(2)
    except OSError:  # the process has no stderr
        yield
        return
    try:
        with Path(os.devnull).open("wb") as sink:
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _text(error: BaseException) -> str:
    """An error's text on one line."""
    text = error.args[0] if error.args else type(error).__name__
    return " ".join((text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)).split())
