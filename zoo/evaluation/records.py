"""Quality evidence: what one method scored at one noise level, picture by picture."""

from __future__ import annotations

import hashlib
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from zoo.evaluation import bed
from zoo.evaluation.benchmarks import BENCHMARKS, get_benchmark
from zoo.evaluation.evidence import Evidence
from zoo.evaluation.method import Picture, Scores
from zoo.processor import processor_name

KIND = "quality"
SCHEMA = 2  # 2: megapixels of a picture, metrics by benchmark, cost, the slanted edge
OVERALL = "overall"
_SIGNED = bed.SHADOW_BIAS  # worst is furthest from zero; of the others, the lowest


@dataclass(frozen=True)
class ImageScore:
    """Scores of one picture.

    Attributes:
        set: benchmark set of the picture.
        sha256: of the picture's file.
        values: one number per metric of the benchmark.
        seconds: CPU time of the process, all its threads: what else a machine does does not count.
        megapixels: of the mosaic.
    """

    set: str
    sha256: str
    values: dict[str, float]
    seconds: float
    megapixels: float

    @classmethod
    def of(cls, picture: Picture, sha256: str, scores: Scores) -> ImageScore:
        """From what a benchmark returns; numbers are rounded to what is reproducible (1e-4 dB, 1e-6 otherwise)."""
        rounded = {k: round(v, 4 if k.startswith("psnr") else 6) for k, v in scores.values.items()}
        return cls(picture.set, sha256, rounded, round(scores.seconds, 4), round(scores.megapixels, 6))


@dataclass
class QualityRecord(Evidence):
    """Evidence of one method at one level; further fields: :class:`zoo.evaluation.evidence.Evidence`.

    Attributes:
        name: registered model, baseline or peer.
        target, precision: runtime; ``classical`` and ``fp64`` for baselines, ``peer`` for networks of others.
        settings: parameters of a baseline; of a peer also ``params`` and ``gmac_per_mp``.
        images: :class:`ImageScore` by ``set/name``.
        edge: ``mtf50`` of the slanted edge in cycles per pixel, where the benchmark has one; empty until measured.
    """

    KIND: ClassVar[str] = KIND
    SCHEMA: ClassVar[int] = SCHEMA
    DERIVED: ClassVar[tuple[str, ...]] = ("sets", "seconds", "ms_per_mp", "summary")

    images: dict[str, ImageScore] = field(default_factory=dict)
    edge: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """CPU time of the method over all pictures."""
        return round(sum(i.seconds for i in self.images.values()), 3)

    def ms_per_mp(self, keys: set[str] | None = None) -> float | None:
        """Host milliseconds per sensor megapixel, median over some pictures (all); None without any.

        The median, as the first picture also pays for what a method loads, ten times its own time for Menon's.
        """
        rates = [1000 * i.seconds / i.megapixels for k, i in self.images.items() if keys is None or k in keys]
        return round(statistics.median(rates), 2) if rates else None

    def summary(self, keys: set[str] | None = None) -> dict[str, Any]:
        """Mean and worst picture per set and overall.

        Args:
            keys: only these pictures (``set/name``); None for all.

        Returns:
            ``{set: {"images": n, "mean": {metric: value}, "worst": {metric: {"value": v, "image": key}}}}``, sets by
            name and :data:`OVERALL` last. Every picture weighs the same in it.
        """
        chosen = {k: i for k, i in self.images.items() if keys is None or k in keys}
        groups: dict[str, dict[str, ImageScore]] = {}
        for key, image in sorted(chosen.items()):
            groups.setdefault(image.set, {})[key] = image
        metrics = get_benchmark(self.benchmark).metrics
        return {name: _summarise(group, metrics) for name, group in (*groups.items(), (OVERALL, chosen)) if group}

    def derived(self) -> dict[str, Any]:
        return {
            "sets": {name: group["images"] for name, group in self.summary().items() if name != OVERALL},
            "seconds": self.seconds,
            "ms_per_mp": self.ms_per_mp(),
            "summary": self.summary(),
        }

    def join(self, other: Self, leave: set[str]) -> None:
        super().join(other, leave)
        self.edge = self.edge or other.edge

    def check(self) -> None:
        super().check()
        if not isinstance(self.edge, dict):
            raise ValueError("edge is a table")
        if self.benchmark not in BENCHMARKS:
            raise ValueError(f"no benchmark '{self.benchmark}'")

    def read_image(self, entry: Any) -> ImageScore:
        score, metrics = ImageScore(**entry), get_benchmark(self.benchmark).metrics
        numbers = [score.seconds, score.megapixels, *(score.values[m] for m in metrics)]
        if set(score.values) != set(metrics) or score.megapixels <= 0 or not all(math.isfinite(n) for n in numbers):
            raise ValueError(f"scores {score}")
        return score


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def machine(threads: int) -> dict[str, Any]:
    """CPU model and threads, for a record."""
    return {"cpu": processor_name(), "threads": threads}


def _summarise(images: dict[str, ImageScore], metrics: tuple[str, ...]) -> dict[str, Any]:
    mean, worst = {}, {}
    for metric in metrics:
        values = {key: image.values[metric] for key, image in images.items()}
        key = min(values, key=lambda k: (-abs(values[k]) if metric in _SIGNED else values[k], k))
        mean[metric] = round(statistics.fmean(values.values()), 6)
        worst[metric] = {"value": values[key], "image": key}
    return {"images": len(images), "mean": mean, "worst": worst}
