"""Rate-distortion evidence: the curve of one codec on every picture at one noise level."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from zoo.evaluation.evidence import Evidence
from zoo.evaluation.records import OVERALL

KIND = "rate-distortion"
SCHEMA = 1
BENCHMARK = "rate-distortion"
VERSION = 1  # of what is measured; a change that moves numbers raises it, and older evidence is then not mixed in
METRICS = ("psnr", "ssim", "ms_ssim")
_RATES = ("quality", "bytes", "bpp", "encode_seconds")  # that every point has; without loss it has nothing else
COLUMNS = (*_RATES, *METRICS, "decode_seconds")

Points = dict[str, list[float | None]]  # column -> one number per quality


@dataclass(frozen=True)
class Curve:
    """What a codec did on one picture.

    Attributes:
        set: benchmark set of the picture.
        sha256: of the picture's file.
        megapixels: of the mosaic.
        develop_seconds: CPU time of the development before the codec, 0 without.
        points: :data:`COLUMNS`, worst quality first: ``quality`` in the codec's scale, ``bytes`` of the whole file,
            ``bpp`` in bits per sensor pixel, ``psnr`` (dB), ``ssim`` and ``ms_ssim`` of developed sRGB against the clean
            picture, ``encode_seconds`` and ``decode_seconds`` of CPU time. Metrics and decoding are None where there is
            no loss to measure.
    """

    set: str
    sha256: str
    megapixels: float
    develop_seconds: float
    points: Points

    def add(self, **values: float | None) -> None:
        """Add a point with all :data:`COLUMNS`."""
        for column in COLUMNS:
            self.points.setdefault(column, []).append(values[column])


@dataclass
class RateRecord(Evidence):
    """Evidence of one codec at one level; further fields: :class:`zoo.evaluation.evidence.Evidence`.

    Attributes:
        name: a compressor, ``codec+developer``, or lossless JPEG of the mosaic.
        target, precision: ``codec`` and ``uint8`` of picture codecs, ``codec`` and ``lossless``, or a network's runtime.
        settings: of the codec, ``qualities`` and ``source``, what developed the picture before it, with its weights.
        images: :class:`Curve` by ``set/name``.
    """

    KIND: ClassVar[str] = KIND
    SCHEMA: ClassVar[int] = SCHEMA
    DERIVED: ClassVar[tuple[str, ...]] = ("sets", "summary")

    images: dict[str, Curve] = field(default_factory=dict)
    benchmark: str = BENCHMARK
    bed_version: int = VERSION

    def summary(self) -> dict[str, Any]:
        """``{set: {"images": n, "mean": {column: [one number per quality]}}}``, sets by name, :data:`OVERALL` last."""
        groups: dict[str, list[Curve]] = {}
        for _, curve in sorted(self.images.items()):
            groups.setdefault(curve.set, []).append(curve)
        everything = {**dict(sorted(groups.items())), OVERALL: list(self.images.values())}
        return {
            name: {"images": len(curves), "mean": mean_points(c.points for c in curves)}
            for name, curves in everything.items()
            if curves
        }

    def derived(self) -> dict[str, Any]:
        summary = self.summary()
        return {"sets": {k: v["images"] for k, v in summary.items() if k != OVERALL}, "summary": summary}

    def check(self) -> None:
        super().check()
        if self.benchmark != BENCHMARK:
            raise ValueError(f"no benchmark '{self.benchmark}'")

    def read_image(self, entry: Any) -> Curve:
        curve = Curve(**entry)
        lengths = {len(values) for values in curve.points.values()}
        if set(curve.points) != set(COLUMNS) or len(lengths) != 1 or 0 in lengths:
            raise ValueError("points are one list per column, all of one length")
        if curve.points["quality"] != self.settings["qualities"]:
            raise ValueError("points are not at the qualities of the settings")
        every = [v for column in _RATES for v in curve.points[column]]
        numbers = [v for values in curve.points.values() for v in values if v is not None]
        if None in every or not all(math.isfinite(n) for n in (curve.megapixels, curve.develop_seconds, *numbers)):
            raise ValueError("points that are no numbers")
        if min(curve.megapixels, *(v or 0 for v in curve.points["bpp"])) <= 0:
            raise ValueError("pictures or files without anything in them")
        return curve


def mean_points(points: Iterable[Mapping[str, list[float | None]]]) -> Points:
    """Mean of each column at each quality over pictures; None where one of them has none."""
    every = list(points)
    result: Points = {}
    for column in COLUMNS:
        result[column] = []
        for values in zip(*(p[column] for p in every), strict=True):
            numbers = [v for v in values if v is not None]
            result[column].append(round(statistics.fmean(numbers), 6) if len(numbers) == len(values) else None)
    return result
