"""Picture codecs to compare compressors with, at 4:4:4 where they can, and lossless JPEG for the mosaic itself.

Encoders run in one thread, at the tuning that they have by default, which for JPEG XL, AVIF and HEIC is made for eyes
rather than for PSNR. Ladders of qualities go from about 0.1 to 3 bits per pixel of a photograph, worst first. Libraries:
imagecodecs (BSD-3-Clause, with libjpeg-turbo, OpenJPEG, libjxl, libavif + aom, libwebp) and pillow-heif (libheif + x265,
libde265), extra ``baselines``. BPG and JPEG XS have no packages; their programs are run where PATH has them.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.errors import ZooError

Picture = npt.NDArray[np.uint8]  # [H, W, 3], sRGB
Mosaic = npt.NDArray[np.uint16]  # [H, W]
Shape = tuple[int, int]  # height, width

INSTALL = "pip install 'raw-zoo[baselines]'"
RAW_BITS = (12, 14)  # that phones and cameras store
_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_YCBCR_ZERO = np.array([0, 128, 128])[:, None, None]
_SECONDS = 600  # that a program may take for one picture


@dataclass(frozen=True)
class PictureCodec:
    """A codec of 8-bit sRGB pictures.

    Attributes:
        name: as typed by users.
        label: as written.
        qualities: ladder, worst first, in the codec's own scale, see ``settings["scale"]``.
        settings: what it is run with; kept with every result.
        encoder: (picture, quality) -> the bytes of a file.
        decoder: (the bytes, height and width) -> picture.
        package: the library that it needs, or
        programs: the programs.
    """

    name: str
    label: str
    qualities: tuple[float, ...]
    settings: Mapping[str, Any]
    encoder: Callable[[Picture, float], bytes]
    decoder: Callable[[bytes, Shape], Picture]
    package: str = ""
    programs: tuple[str, ...] = ()

    def problem(self) -> str:
        """Why it cannot run here, ``""`` if it can."""
        missing = [p for p in self.programs if shutil.which(p) is None]
        if missing:
            return f"{self.label} needs {' and '.join(missing)} on PATH"
        if self.package:
            try:
                version(self.package)
            except PackageNotFoundError:
                return f"{self.label} needs {self.package}: {INSTALL}"
        return ""

    def versions(self) -> dict[str, str]:
        """Installed versions of what it runs; programs by sha256, as they have no common way to tell one.

        Raises:
            ZooError: something is missing.
        """
        if problem := self.problem():
            raise ZooError(problem)
        found = {self.package: version(self.package)} if self.package else {}
        return found | {p: f"sha256 {_digest(str(shutil.which(p)))}" for p in self.programs}

    def encode(self, picture: Picture, quality: float) -> bytes:
        """A file.

        Args:
            picture: uint8 ``[H, W, 3]``, sRGB.
            quality: one of :attr:`qualities`, or another of the same scale.

        Raises:
            ZooError: the codec is missing or fails.
        """
        return self._guarded(lambda: self.encoder(np.ascontiguousarray(picture), quality), f"quality {quality:g}")

    def decode(self, data: bytes, shape: Shape) -> Picture:
        """The picture of a file, uint8 ``[H, W, 3]``.

        Args:
            data: from :meth:`encode`.
            shape: height and width that it has to have.

        Raises:
            ZooError: the codec is missing or fails, or gives another shape.
        """
        picture = self._guarded(lambda: self.decoder(data, shape), f"{len(data)} bytes")
        if picture.shape != (*shape, 3) or picture.dtype != np.uint8:
            raise ZooError(f"{self.label} decoded {picture.dtype} {picture.shape} of a picture {(*shape, 3)}")
        return picture

    def _guarded(self, run: Callable[[], Any], what: str) -> Any:
        if problem := self.problem():
            raise ZooError(problem)
        try:
            return run()
        except (RuntimeError, ValueError, OSError, subprocess.SubprocessError) as error:
            raise ZooError(f"{self.label} failed at {what}: {_told(error)}") from error


def lossless_raw(mosaic: Mosaic, bits: int) -> bytes:
    """A Bayer mosaic as lossless JPEG (ITU-T T.81, process 14), laid out as in the DNGs of converters.

    The columns of a row alternate as two components, predicted from the left neighbour of their own colour. Other
    layouts come within 3 %: four packed planes 0.2 % smaller, two rows in one with predictor 6 from 0.4 % smaller to
    0.8 % larger (Kodak 1, clean to ISO 12,800).

    Args:
        mosaic: uint16 ``[H, W]``, below ``2**bits``; an odd width is mirrored to an even one.
        bits: of a sample, 2 to 16.

    Returns:
        the JPEG stream; a DNG adds its tags.

    Raises:
        ZooError: imagecodecs is not installed.
    """
    even = np.pad(mosaic, ((0, 0), (0, mosaic.shape[1] % 2)), mode="reflect")
    components = np.ascontiguousarray(even.reshape(even.shape[0], -1, 2))
    encode = _imagecodecs().jpeg8_encode
    return bytes(encode(components, lossless=True, predictor=1, bitspersample=bits))


def list_codecs() -> list[str]:
    """Names of the picture codecs, oldest first, the ones that need programs last."""
    return list(_CODECS)


def get_codec(name: str) -> PictureCodec:
    """The codec of a name.

    Raises:
        ZooError: unknown name.
    """
    if name not in _CODECS:
        raise ZooError(f"unknown codec '{name}'; there are {', '.join(_CODECS)}")
    return _CODECS[name]


def _imagecodecs() -> ModuleType:
    try:
        import imagecodecs
    except ImportError as error:
        raise ZooError(f"JPEG, JPEG 2000, JPEG XL, AVIF and WebP need imagecodecs: {INSTALL}") from error
    return imagecodecs


def _by_imagecodecs(codec: str, quality: str, whole: bool = True, /, **settings: Any) -> dict[str, Any]:
    """Encoder and decoder of imagecodecs; ``quality`` is the argument that takes it, ``whole`` if it is an integer."""

    def encode(picture: Picture, value: float) -> bytes:
        given = {quality: int(value) if whole else value}
        return bytes(getattr(_imagecodecs(), f"{codec}_encode")(picture, **given, **settings))

    def decode(data: bytes, shape: Shape) -> Picture:
        return np.asarray(getattr(_imagecodecs(), f"{codec}_decode")(data))

    return {"encoder": encode, "decoder": decode, "package": "imagecodecs"}


def _heic_encode(picture: Picture, quality: float) -> bytes:
    import pillow_heif

    height, width = picture.shape[:2]
    out = BytesIO()
    image = pillow_heif.from_bytes("RGB", (width, height), picture.tobytes())
    image.save(out, quality=int(quality), chroma=444, enc_params={"x265:pools": "none"})
    return out.getvalue()


def _heic_decode(data: bytes, shape: Shape) -> Picture:
    import pillow_heif

    return np.asarray(pillow_heif.open_heif(BytesIO(data)))


def _bpg_encode(picture: Picture, quality: float) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "in.png"), Path(name, "out.bpg")
        Image.fromarray(picture).save(source)
        _run("bpgenc", "-q", f"{quality:g}", "-f", "444", "-b", "8", "-o", str(target), str(source))
        return target.read_bytes()


def _bpg_decode(data: bytes, shape: Shape) -> Picture:
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "in.bpg"), Path(name, "out.png")
        source.write_bytes(data)
        _run("bpgdec", "-o", str(target), str(source))
        return np.asarray(Image.open(target).convert("RGB"))


# SVT-JPEG-XS codes planes as they are: they get JFIF's YCbCr (ITU-T T.871), as JPEG does. Not by Pillow, which rounds
# down there and back: 1.5 steps too dark.
def _jpegxs_encode(picture: Picture, quality: float) -> bytes:
    height, width = picture.shape[:2]
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "in.yuv"), Path(name, "out.jxs")
        planes = np.einsum("ij,hwj->ihw", _TO_YCBCR, picture) + _YCBCR_ZERO
        source.write_bytes(np.rint(planes).clip(0, 255).astype(np.uint8).tobytes())
        size = ("-w", str(width), "-h", str(height), "--colour-format", "yuv444", "--input-depth", "8")
        rate = ("--bpp", f"{quality:g}", "-n", "1", "--no-progress", "1")
        _run("SvtJpegxsEncApp", "-i", str(source), "-b", str(target), *size, *rate)
        return target.read_bytes()


def _jpegxs_decode(data: bytes, shape: Shape) -> Picture:
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "in.jxs"), Path(name, "out.yuv")
        source.write_bytes(data)
        _run("SvtJpegxsDecApp", "-i", str(source), "-o", str(target))
        planes = np.fromfile(target, np.uint8).reshape(3, *shape)
    rgb = np.einsum("ij,jhw->hwi", np.linalg.inv(_TO_YCBCR), planes - _YCBCR_ZERO)
    return np.rint(rgb).clip(0, 255).astype(np.uint8)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _told(error: Exception) -> str:
    """The last line of what a program said, or the exception's own text."""
    said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
    return said.splitlines()[-1] if said else str(error)


_CODECS = {
    codec.name: codec
    for codec in (
        PictureCodec(
            "jpeg",
            "JPEG",
            (3, 6, 12, 20, 35, 55, 75, 88),
            {"scale": "quality 0..100", "chroma": "4:4:4", "huffman": "optimised", "encoder": "libjpeg-turbo"},
            **_by_imagecodecs("jpeg8", "level", subsampling="444", optimize=True),
        ),
        # Its lowest are for noise: of Kodak 1 at ISO 12,800, 15 dB is 0.1 bpp and 20 dB 1.8 bpp.
        PictureCodec(
            "jpeg2k",
            "JPEG 2000",
            (14, 15, 16, 18, 20, 23, 26, 30, 34, 38, 43),
            {"scale": "dB to its input", "chroma": "4:4:4", "wavelet": "9/7", "file": "JP2", "encoder": "OpenJPEG"},
            **_by_imagecodecs("jpeg2k", "level", codecformat="jp2", reversible=False, numthreads=1),
        ),
        PictureCodec(
            "webp",
            "WebP",
            (0, 5, 15, 35, 60, 80, 90),
            {"scale": "quality 0..100", "chroma": "4:2:0, it has no other", "method": 6, "encoder": "libwebp"},
            **_by_imagecodecs("webp", "level", method=6, lossless=False),
        ),
        PictureCodec(
            "heic",
            "HEIC",
            (5, 15, 25, 35, 45, 55),
            {"scale": "quality 0..100", "chroma": "4:4:4", "preset": "slow", "tune": "ssim", "encoder": "x265"},
            _heic_encode,
            _heic_decode,
            "pillow-heif",
        ),
        PictureCodec(
            "avif",
            "AVIF",
            (0, 12, 25, 40, 55, 68, 80),
            {"scale": "quality 0..100", "chroma": "4:4:4", "speed": 6, "encoder": "aom"},
            **_by_imagecodecs("avif", "level", speed=6, pixelformat="444", codec="aom", numthreads=1),
        ),
        # Beyond a distance of 20 libjxl codes a smaller picture, at no lower rate: 0.26 bpp at 25, 0.25 at 19 (Kodak 5).
        PictureCodec(
            "jpegxl",
            "JPEG XL",
            (19, 15, 12, 9, 7, 5, 3, 1.8, 1),
            {"scale": "Butteraugli distance", "chroma": "4:4:4 (XYB)", "effort": 7, "encoder": "libjxl"},
            **_by_imagecodecs("jpegxl", "distance", False, effort=7, numthreads=1),
        ),
        PictureCodec(
            "bpg",
            "BPG",
            (51, 46, 41, 36, 31, 26, 21),
            {"scale": "quantiser 0..51", "chroma": "4:4:4", "level": 8, "encoder": "bpgenc"},
            _bpg_encode,
            _bpg_decode,
            programs=("bpgenc", "bpgdec"),
        ),
        PictureCodec(
            "jpegxs",
            "JPEG XS",
            (0.5, 0.75, 1, 1.5, 2, 3, 5),
            {"scale": "bits per pixel", "chroma": "4:4:4", "encoder": "SVT-JPEG-XS"},
            _jpegxs_encode,
            _jpegxs_decode,
            programs=("SvtJpegxsEncApp", "SvtJpegxsDecApp"),
        ),
    )
}
