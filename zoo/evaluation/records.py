"""Quality evidence: what one method scored at one noise level, picture by picture, as a JSON file.

A file grows: pictures that are scored later join those that are there, as long as method, weights, settings and test
bed are the same; otherwise it starts anew. So an interrupted evaluation goes on where it stopped, and a second run
costs nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.evaluation import bed

KIND = "quality"
SCHEMA = 1
METRICS = ("psnr", "ssim", "psnr_linear", "shadow_bias_r", "shadow_bias_g", "shadow_bias_b")
OVERALL = "overall"
_SIGNED = ("shadow_bias_r", "shadow_bias_g", "shadow_bias_b")  # worst is furthest from zero; of the others, the lowest


@dataclass(frozen=True)
class ImageScore:
    """Scores of one picture, see :class:`zoo.evaluation.bed.Scores` for the units.

    Attributes:
        set: benchmark set of the picture.
        sha256: of the picture's file.
        values: one number per name in :data:`METRICS`.
        seconds: wall-clock time of the method.
    """

    set: str
    sha256: str
    values: dict[str, float]
    seconds: float

    @classmethod
    def of(cls, picture: bed.Picture, sha256: str, scores: bed.Scores) -> ImageScore:
        """From what the bed returns; numbers are rounded to what is reproducible (1e-4 dB, 1e-6 otherwise)."""
        bias = dict(zip(_SIGNED, scores.shadow_bias, strict=True))
        values = {"psnr": scores.psnr, "ssim": scores.ssim, "psnr_linear": scores.psnr_linear, **bias}
        rounded = {k: round(v, 4 if k.startswith("psnr") else 6) for k, v in values.items()}
        return cls(picture.set, sha256, rounded, round(scores.seconds, 3))


@dataclass
class QualityRecord:
    """Evidence of one method at one level.

    Attributes:
        benchmark, bed_version: the test bed that was used; numbers of different versions do not compare.
        name: registered model, or baseline.
        target, precision: runtime; ``classical`` and ``fp64`` for baselines.
        level, shot, read: noise level, and its S and O in raw units.
        weights_sha256: of the file that was run; None for baselines.
        settings: parameters of a baseline.
        licence: of the method.
        images: by ``set/name``.
        command: the last command that added to the record.
        versions: of this project, Python and the libraries that matter.
        machine: ``cpu`` model and ``threads``.
        date: of the last addition, ISO 8601, UTC.
    """

    name: str
    target: str
    precision: str
    level: str
    shot: float
    read: float
    weights_sha256: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    images: dict[str, ImageScore] = field(default_factory=dict)
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    benchmark: str = bed.BENCHMARK
    bed_version: int = bed.VERSION

    @property
    def seconds(self) -> float:
        """Wall-clock time of the method over all pictures."""
        return round(sum(i.seconds for i in self.images.values()), 3)

    def same_method(self, other: QualityRecord) -> bool:
        """Whether pictures of the two may stand in one record."""
        keys = ("benchmark", "bed_version", "name", "target", "precision", "level", "weights_sha256", "settings")
        return all(getattr(self, k) == getattr(other, k) for k in keys)

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
        return {name: _summarise(group) for name, group in (*groups.items(), (OVERALL, chosen)) if group}

    def to_json(self) -> dict[str, Any]:
        """The evidence file's contents."""
        body = dataclasses.asdict(self)
        images = body.pop("images")
        return {
            "kind": KIND,
            "schema": SCHEMA,
            **body,
            "sets": {name: group["images"] for name, group in self.summary().items() if name != OVERALL},
            "seconds": self.seconds,
            "summary": self.summary(),
            "images": dict(sorted(images.items())),
        }

    def path(self, folder: Path) -> Path:
        """Where :meth:`save` puts it."""
        return folder / f"{self.benchmark}-{self.name}-{self.target}-{self.precision}-{self.level}.json"

    def save(self, folder: Path) -> Path:
        """Write the evidence file, or leave the old one; returns its path.

        Raises:
            ZooError: the folder cannot be written to.
        """
        path = self.path(folder)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise ZooError(f"{path}: cannot be written ({error.strerror}); choose another --output-dir") from error
        return path

    @classmethod
    def load(cls, path: Path) -> QualityRecord:
        """Read and check an evidence file.

        Raises:
            ZooError: missing, damaged, of another kind or schema, or its summary is not that of its pictures.
        """
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise ZooError(f"{path}: no such evidence; `zoo evaluate` writes it") from error
        except (OSError, ValueError) as error:
            raise ZooError(f"{path}: cannot be read as JSON ({error}); delete it and evaluate again") from error
        if not isinstance(content, dict) or (content.get("kind"), content.get("schema")) != (KIND, SCHEMA):
            raise ZooError(f"{path}: is no quality evidence of schema {SCHEMA}; delete it and evaluate again")
        try:
            record = _parse(cls, content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise ZooError(f"{path}: damaged quality evidence ({problem}); delete it and evaluate again") from error
        if record.to_json() != content:
            raise ZooError(f"{path}: its summary is not that of its pictures; delete it and evaluate again")
        return record


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def machine(threads: int) -> dict[str, Any]:
    """CPU model and threads, for a record."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "threads": threads}


def _summarise(images: dict[str, ImageScore]) -> dict[str, Any]:
    mean, worst = {}, {}
    for metric in METRICS:
        values = {key: image.values[metric] for key, image in images.items()}
        key = min(values, key=lambda k: (-abs(values[k]) if metric in _SIGNED else values[k], k))
        mean[metric] = round(statistics.fmean(values.values()), 6)
        worst[metric] = {"value": values[key], "image": key}
    return {"images": len(images), "mean": mean, "worst": worst}


def _parse(cls: type[QualityRecord], content: dict[str, Any]) -> QualityRecord:
    """A record from a file's contents; wrong types and numbers raise ValueError, wrong keys KeyError or TypeError."""
    derived = {"kind", "schema", "sets", "seconds", "summary", "images"}
    record = cls(**{k: v for k, v in content.items() if k not in derived})
    texts = (record.name, record.target, record.precision, record.level, record.command, record.date, record.benchmark)
    if not all(isinstance(t, str) for t in texts) or not isinstance(record.weights_sha256, str | None):
        raise ValueError("a field that should be text is not")
    if not all(isinstance(d, dict) for d in (record.settings, record.versions, record.machine)):
        raise ValueError("settings, versions and machine are tables")
    for key, entry in content["images"].items():
        score = ImageScore(**entry)
        numbers = [score.seconds, *(score.values[m] for m in METRICS)]
        if set(score.values) != set(METRICS) or not all(math.isfinite(n) for n in numbers):
            raise ValueError(f"scores of {key}")
        record.images[key] = score
    return record
