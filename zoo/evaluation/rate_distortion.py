"""The benchmark ``rate-distortion``: real bytes of a whole picture against what they give back, per quality.

The scenes are those of the benchmark ``bayer`` (same unprocessing, same noise, :mod:`zoo.evaluation.bed`). Rate is the
whole file, headers included, in bits per *sensor* pixel. Distortion is of the decoded picture, developed to sRGB, against
the *clean* picture, a border left out: a codec that spends its bits on noise is not paid for them, and gets worse where
it spends more.

Three kinds of method, all of them :class:`Codec`: a picture codec behind a developer (``jpegxl+menon``), a compressor of
raws (:class:`Compressor`, ours; alone, or behind a denoiser as in ``bayer-codec-m+utnet-m``), and lossless JPEG of the
mosaic, what raws take in practice, which has a rate only. GoPro's VC-5 would be another such anchor, but no package has an
encoder for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from zoo.baselines.codecs import RAW_BITS, Mosaic, PictureCodec, Shape, lossless_raw
from zoo.data.pool import read_srgb
from zoo.errors import ZooError
from zoo.evaluation import bed, metrics
from zoo.evaluation.evidence import Growing
from zoo.evaluation.method import Array, Method, Picture, inner, run
from zoo.evaluation.rate_records import METRICS, Curve, RateRecord
from zoo.evaluation.records import sha256
from zoo.evaluation.run import Progress, image_key
from zoo.raw import NoiseProfile, RawImage
from zoo.raw.colour import SRGB_TO_XYZ

# A quality ladder of a compressor that takes any quality of a range; eight points follow a curve over four octaves of rate.
LADDER = 8
# Share of the integer range below black. Sensors have 1/16 to 1/8; at 1/8 the noise of black at ISO 12,800 (sigma 0.04)
# is clipped at 3.6 sigma, so that nobody is judged on a black level that clips.
PEDESTAL = 1 / 8
_RAW_BITS = 16  # of the raw that a compressor gets: its steps are 1/60 of the noise of black at ISO 800
_ISO = {"clean": 100.0, "iso800": 800.0, "iso3200": 3200.0, "iso12800": 12800.0}


class Codec(Protocol):
    """What is measured: a scene to bytes and back."""

    qualities: Sequence[float]

    def prepare(self, scene: bed.Scene) -> tuple[Any, float]:
        """What :meth:`encode` compresses, and the CPU seconds of development that it took, shared or not."""

    def encode(self, prepared: Any, quality: float) -> bytes:
        """The bytes of a file."""

    def decode(self, data: bytes, shape: Shape) -> Array | None:
        """Developed sRGB, float32 ``[3, H, W]`` in [0, 1], from the bytes; None where there is no loss to measure."""


class Compressor(Protocol):
    """A compressor of raws, as :func:`zoo.inference.codec.open_codec` gives it."""

    name: str
    qualities: Sequence[int]
    weights_sha256: str

    def compress(self, raw: RawImage, quality: int, *, denoised: RawImage | None = None) -> bytes:
        """The bytes of a file."""

    def decompress(self, data: bytes) -> Array:
        """Balanced linear camera RGB, float32 ``[H, W, 3]``."""


class Source:
    """A developer in front of picture codecs; the last scene's picture is kept, so that codecs share it."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self._last: tuple[bed.Scene, Any, float] | None = None

    def develop(self, scene: bed.Scene) -> tuple[Any, float]:
        """The scene's picture, uint8 ``[H, W, 3]`` sRGB, and the CPU seconds that its development took."""
        if self._last is None or self._last[0] is not scene:
            camera, seconds = run(self.method, scene.mosaic, bed.WB_GAINS, scene.shot, scene.read)
            begun = _cpu_seconds()
            picture = np.rint(bed.develop(camera) * 255).astype(np.uint8).transpose(1, 2, 0)
            self._last = scene, np.ascontiguousarray(picture), seconds + _cpu_seconds() - begun
        return self._last[1], self._last[2]


class DevelopedPicture:
    """A picture codec that gets what a developer makes of the raw."""

    def __init__(self, codec: PictureCodec, source: Source) -> None:
        self.codec, self.source = codec, source
        self.qualities: Sequence[float] = codec.qualities

    def prepare(self, scene: bed.Scene) -> tuple[Any, float]:
        return self.source.develop(scene)

    def encode(self, prepared: Any, quality: float) -> bytes:
        return self.codec.encode(prepared, quality)

    def decode(self, data: bytes, shape: Shape) -> Array | None:
        return (self.codec.decode(data, shape).transpose(2, 0, 1) / np.float32(255)).astype(np.float32)


class LosslessRaw:
    """Lossless JPEG of the mosaic; its qualities are bits per sample."""

    def __init__(self) -> None:
        self.qualities: Sequence[float] = RAW_BITS

    def prepare(self, scene: bed.Scene) -> tuple[Any, float]:
        return scene, 0.0

    def encode(self, prepared: Any, quality: float) -> bytes:
        return lossless_raw(quantise(prepared.mosaic, int(quality))[0], int(quality))

    def decode(self, data: bytes, shape: Shape) -> Array | None:
        return None


class RawCompressor:
    """A :class:`Compressor` on a ladder of its qualities.

    Args:
        compressor: what is measured.
        denoise: what is done to a raw first, see :func:`zoo.inference.denoise.denoised_mosaic`; None for nothing.
    """

    def __init__(self, compressor: Compressor, denoise: Callable[[RawImage], RawImage] | None = None) -> None:
        self.compressor, self.denoise = compressor, denoise
        known = compressor.qualities
        self.qualities: Sequence[float] = sorted(
            {known[round(i)] for i in np.linspace(0, len(known) - 1, min(LADDER, len(known)))}
        )

    def prepare(self, scene: bed.Scene) -> tuple[Any, float]:
        raw = raw_image(scene)
        if self.denoise is None:
            return (raw, None), 0.0
        begun = _cpu_seconds()
        return (raw, self.denoise(raw)), _cpu_seconds() - begun

    def encode(self, prepared: Any, quality: float) -> bytes:
        raw, denoised = prepared
        return self.compressor.compress(raw, int(quality), denoised=denoised)

    def decode(self, data: bytes, shape: Shape) -> Array | None:
        camera = np.asarray(self.compressor.decompress(data))
        if camera.shape != (*shape, 3) or not np.isfinite(camera).all():
            raise ZooError(f"{self.compressor.name} gave {camera.shape} or non-finite values for a raw of {shape}")
        return bed.develop(camera.astype(np.float32).transpose(2, 0, 1))


class Measured(NamedTuple):
    """A codec with the record that its curves go to."""

    codec: Codec
    record: RateRecord


def quantise(mosaic: Array, bits: int) -> tuple[Mosaic, int, int]:
    """A mosaic in raw units as a sensor stores it: uint16, black level and white level."""
    white = 2**bits - 1
    black = round(white * PEDESTAL)
    return np.rint(mosaic * (white - black) + black).clip(0, white).astype(np.uint16), black, white


def raw_image(scene: bed.Scene) -> RawImage:
    """The raw photo of a scene, with the camera and the noise of the bed."""
    mosaic, black, white = quantise(scene.mosaic, _RAW_BITS)
    to_camera = np.linalg.inv(SRGB_TO_XYZ @ bed.CAMERA_MATRIX @ np.diag(bed.WB_GAINS))
    level = next((k for k, (shot, _) in bed.LEVELS.items() if shot == scene.shot[0]), "")
    return RawImage(
        mosaic=mosaic,
        cfa="RGGB",
        black=(black,) * 4,
        white=(white,) * 4,
        wb=bed.WB_GAINS,
        xyz_to_cam=to_camera,
        iso=_ISO.get(level),
        noise=NoiseProfile(scene.shot, scene.read, "given"),
    )


def measure(codec: Codec, scene: bed.Scene, picture: Picture, digest: str) -> Curve:
    """The curve of a codec on one scene, one point per quality.

    Args:
        codec: what is measured.
        scene: from :func:`zoo.evaluation.bed.make_scene`.
        picture: that it was made of.
        digest: sha256 of the picture's file.

    Raises:
        ZooError: the picture is too small to be scored, or the codec fails.
    """
    height, width = scene.mosaic.shape
    part = (..., *inner(height, width))
    reference = torch.from_numpy(bed.develop(scene.truth)[part])
    prepared, develop_seconds = codec.prepare(scene)
    curve = Curve(picture.set, digest, round(height * width / 1e6, 6), round(develop_seconds, 4), {})
    for quality in codec.qualities:
        begun = _cpu_seconds()
        data = codec.encode(prepared, quality)
        encoded = _cpu_seconds()
        shown = codec.decode(data, (height, width))
        decoded = _cpu_seconds()
        values: dict[str, float | None] = dict.fromkeys(METRICS)
        if shown is not None:
            result = torch.from_numpy(shown[part])
            single, multi = metrics.ssim_and_ms_ssim(result, reference)
            values = {
                "psnr": round(metrics.psnr(result, reference), 4),
                "ssim": round(single, 6),
                "ms_ssim": round(multi, 6),
            }
        curve.add(
            quality=quality,
            bytes=len(data),
            bpp=round(8 * len(data) / (height * width), 5),
            **values,
            encode_seconds=round(encoded - begun, 4),
            decode_seconds=round(decoded - encoded, 4) if shown is not None else None,
        )
    return curve


def evaluate(
    measured: Sequence[Measured],
    pictures: Sequence[Picture],
    folder: Path,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
) -> list[RateRecord]:
    """Measure codecs at one noise level and write the evidence; picture by picture, so that codecs share developments.

    Args:
        measured: codecs and their records, all of one level.
        pictures: from :func:`zoo.evaluation.bed.find_pictures`.
        folder: where evidence lies; curves of the same codec, settings, weights and picture found there are kept.
        fresh: measure these pictures again.
        progress: called after each picture.

    Returns:
        The records, with the pictures asked for and those that were there.

    Raises:
        ZooError: a picture that cannot be measured, or evidence that cannot be read or written.
    """
    renewed = {image_key(p) for p in pictures} if fresh else set()
    with ExitStack() as stack:
        growing = [stack.enter_context(Growing(m.record, folder, renewed)) for m in measured]
        for picture in pictures:
            key, digest = image_key(picture), sha256(picture.path)
            lacking = [(m, g) for m, g in zip(measured, growing, strict=True) if g.lacks(key, digest)]
            if lacking:
                scene = bed.make_scene(read_srgb(picture.path), picture.name, lacking[0][0].record.level)
            for one, grown in lacking:
                try:
                    grown.add(key, measure(one.codec, scene, picture, digest))
                except ZooError as error:
                    raise ZooError(f"{picture.path}: {one.record.name}: {error}") from error
            if progress is not None:
                progress()
    return [g.result() for g in growing]


def _cpu_seconds() -> float:
    """CPU time of this process, all threads, and of the programs that it has waited for."""
    return time.process_time() + sum(os.times()[2:4])
