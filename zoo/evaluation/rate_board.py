"""Codecs against the anchors, from rate-distortion evidence only.

Two curves are compared on the pictures that both were measured on, in two ways: the curves of the means over pictures,
quality by quality, and the mean of what every picture's own two curves give. The two differ most for a codec whose
quality fixes the distortion rather than the step: JPEG 2000 spends 0.01 bits per pixel on one picture and 0.1 on another.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.evaluation import bed
from zoo.evaluation.bd import Delta, Points, bd_quality, bd_rate, decibels
from zoo.evaluation.evidence import one_digest
from zoo.evaluation.rate_records import BENCHMARK, KIND, mean_points

LEVELS = tuple(bed.LEVELS)
ANCHORS = ("jpegxl+menon", "jpegxl+utnet-m")  # JPEG XL of a simply developed raw, and of the default model's picture
REFERENCE = "balle-bayer-ps"  # the full-size autoencoder
METRIC = "psnr"
_PLAIN = ("codec", "torch")  # targets that go without saying


@dataclass(frozen=True)
class Against:
    """A codec against an anchor at one level.

    Attributes:
        rate: BD-rate of the mean curves, %.
        quality: BD-PSNR (or its like) of the mean curves, dB.
        mean: mean of the pictures' own BD-rates, %; None where none has one.
        counted: pictures that have a BD-rate of their own.
        pictures: that both were measured on.
    """

    rate: Delta
    quality: Delta
    mean: float | None
    counted: int
    pictures: int

    def text(self) -> str:
        """BD-rate of the mean curves, or BD-PSNR with a star; "-" without either."""
        if self.rate.value is not None:
            return f"{self.rate.value:+.0f} %"
        return "-" if self.quality.value is None else f"{self.quality.value:+.1f} dB*"

    def picture_text(self) -> str:
        """Mean of the pictures' own BD-rates, with their number where some have none."""
        if self.mean is None:
            return "-"
        return f"{self.mean:+.0f} %" + (
            "" if self.counted == self.pictures else f" ({self.counted} of {self.pictures})"
        )


@dataclass(frozen=True)
class RateBoard:
    """Evidence of one version.

    Attributes:
        found: label (:func:`label`) -> level -> contents of the evidence file.
        left_out: label -> levels that were measured with other weights than those found.
    """

    found: Mapping[str, Mapping[str, Mapping[str, Any]]]
    left_out: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Codecs with distortion: the anchors first, then by name."""
        lossy = [n for n, levels in self.found.items() if any(not _lossless(r) for r in levels.values())]
        return sorted(lossy, key=lambda n: (ANCHORS.index(n) if n in ANCHORS else len(ANCHORS), n))

    @property
    def lossless(self) -> list[str]:
        """Codecs that have a rate only."""
        return sorted(n for n in self.found if n not in self.names)

    def levels(self, name: str) -> list[str]:
        """Levels that a codec was measured at, as in :data:`LEVELS`."""
        return [level for level in LEVELS if level in self.found[name]]

    def pictures(self, name: str, level: str) -> set[str]:
        """Keys of the pictures of a codec at a level."""
        return set(self.found.get(name, {}).get(level, {}).get("images", {}))

    def mean(self, name: str, level: str, keys: Iterable[str]) -> dict[str, list[Any]]:
        """Mean curve over pictures, by column; all of them have to be there, and one at least."""
        images = self.found[name][level]["images"]
        return mean_points(images[k]["points"] for k in sorted(keys))

    def against(self, name: str, anchor: str, level: str, metric: str = METRIC) -> Against | None:
        """A codec against an anchor; None where the two share no picture."""
        keys = self.pictures(name, level) & self.pictures(anchor, level)
        if not keys or name == anchor:
            return None
        images = [self.found[n][level]["images"] for n in (anchor, name)]
        own = [bd_rate(*(_points(i[k]["points"], metric) for i in images)).value for k in sorted(keys)]
        numbers = [v for v in own if v is not None]
        curves = [_points(self.mean(n, level, keys), metric) for n in (anchor, name)]
        mean = statistics.fmean(numbers) if numbers else None
        return Against(bd_rate(*curves), bd_quality(*curves), mean, len(numbers), len(keys))

    def seconds_per_mp(self, name: str, level: str, part: str) -> float | None:
        """CPU seconds per sensor megapixel of ``encode`` or ``decode``, median over pictures and qualities."""
        images = self.found[name][level]["images"].values()
        rates = [s / i["megapixels"] for i in images for s in i["points"][f"{part}_seconds"] if s is not None]
        return statistics.median(rates) if rates else None

    def notes(self) -> list[str]:
        """What a reader of the tables has to know."""
        lines = [
            "BD-rate in PSNR of developed sRGB against the clean picture, on curves of means over the pictures that codec "
            "and anchor share; negative: fewer bits for the same quality",
            "*: no BD-rate, as the two curves have too little quality in common or rise over too few points; BD-PSNR at "
            "equal rate instead, positive: better",
        ]
        if any(name.startswith("jpeg2k+") for name in self.names):
            lines.append(
                "jpeg2k: its quality fixes the distortion, so that its curve of means overstates its rate; the means of the "
                "pictures' own BD-rates, which `zoo evaluate --leaderboard --benchmark rate-distortion` prints, do not"
            )
        for name in self.names:
            floating = name.split()[0]
            integer = label(floating, "integer", "int8")
            if name.endswith(" int8") and name != integer and self._belong(name, integer, _digests):
                lines.append(self._differences(name, integer))
            elif name != floating and floating in self.found:
                # A compressor's digest is that of its float weights in int8 too; its denoiser's is of the file that ran.
                if self._belong(name, floating, lambda r: r.get("weights_sha256")):
                    lines.append(f"{name} against the same in float: {self._by_level(name, floating)}")
                if REFERENCE in self.found:
                    lines.append(
                        f"{name} against {REFERENCE}, the full-size reference, in float: {self._by_level(name, REFERENCE)}"
                    )
        for name in self.lossless:
            rates = []
            for level in self.levels(name):
                points = self.mean(name, level, self.pictures(name, level))
                both = " / ".join(f"{bpp:.1f}" for bpp in points["bpp"])
                rates.append(f"{level} {both}")
            depths = " / ".join(f"{q:g}" for q in points["quality"])
            lines.append(f"{name}: the mosaic itself, {depths} bits a sample, bits per pixel: {', '.join(rates)}")
        for name in self.found:
            if levels := self.left_out.get(name):
                lines.append(f"{name}: {', '.join(levels)} left out, measured with other weights; measure again")
        return lines

    def _belong(self, name: str, other: str, digest: Callable[[Mapping[str, Any]], object]) -> bool:
        """Whether there is evidence of both, of the same weights."""
        return other in self.found and len({digest(r) for n in (name, other) for r in self.found[n].values()}) == 1

    def _by_level(self, name: str, other: str) -> str:
        pairs = ((level, self.against(name, other, level)) for level in self.levels(name))
        return ", ".join(f"{level} {found.text()}" for level, found in pairs if found)

    def _differences(self, name: str, integer: str) -> str:
        """What a runtime's own arithmetic changes, at equal qualities."""
        bytes_apart, quality_apart = [0.0], [0.0]
        for level in self.levels(name):
            if keys := self.pictures(name, level) & self.pictures(integer, level):
                own, reference = (self.mean(n, level, keys) for n in (name, integer))
                bytes_apart += [abs(a / b - 1) for a, b in zip(own["bpp"], reference["bpp"], strict=True)]
                quality_apart += [abs(a - b) for a, b in zip(own[METRIC], reference[METRIC], strict=True)]
        return (
            f"{name} against the integer reference, at any level and quality: bytes within {100 * max(bytes_apart):.2f} %, "
            f"PSNR within {max(quality_apart):.3f} dB"
        )

    def to_json(self) -> list[dict[str, Any]]:
        """What ``--json`` prints: a row per codec and level."""
        rows = []
        for name in [*self.names, *self.lossless]:
            for level in self.levels(name):
                keys = self.pictures(name, level)
                row: dict[str, Any] = {"name": name, "level": level, "pictures": len(keys)}
                row["weights_sha256"] = self.found[name][level]["weights_sha256"]
                row["curve"] = self.mean(name, level, keys)
                for anchor in ANCHORS:
                    for metric in ("psnr", "ms_ssim"):
                        found = None if name in self.lossless else self.against(name, anchor, level, metric)
                        row[f"{metric} against {anchor}"] = None if found is None else _plain(found)
                rows.append(row)
        return rows


def read_board(folder: Path) -> RateBoard:
    """All rate-distortion evidence in a folder, of the newest version that there is; a codec's levels are of one digest of
    its weights, see :func:`zoo.evaluation.evidence.one_digest`.

    Raises:
        ZooError: a file that cannot be read.
    """
    contents = []
    for path in sorted(folder.glob(f"{BENCHMARK}-*.json")):
        try:
            content = json.loads(path.read_text())
            if content["kind"] == KIND and content["images"]:
                contents.append(((content["schema"], content["bed_version"]), content))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ZooError(f"{path}: cannot be read as evidence ({error}); delete it and evaluate again") from error
    newest = max((version for version, _ in contents), default=None)
    groups: dict[str, list[dict[str, Any]]] = {}
    for version, content in contents:
        if version == newest:
            groups.setdefault(label(content["name"], content["target"], content["precision"]), []).append(content)
    found: dict[str, dict[str, Any]] = {}
    left_out: dict[str, list[str]] = {}
    for name, records in groups.items():
        kept, rest = one_digest(records, _digests)
        found[name] = {r["level"]: r for r in kept}
        if rest:
            left_out[name] = sorted((r["level"] for r in rest), key=LEVELS.index)
    return RateBoard(found, left_out)


def _digests(record: Mapping[str, Any]) -> tuple[object, ...]:
    """Of the weights that a codec ran: its own, of its quantised halves, and of what developed or denoised before it."""
    settings = record.get("settings", {})
    before, codec = settings.get("source") or {}, settings.get("codec") or {}
    return record.get("weights_sha256"), before.get("weights_sha256"), *codec.get("halves_sha256", ())


def label(name: str, target: str, precision: str) -> str:
    """What a codec is called: its name, with the runtime where that is not torch."""
    return name if target in _PLAIN else f"{name} {target} {precision}"


def _lossless(record: Mapping[str, Any]) -> bool:
    return all(v is None for image in record["images"].values() for v in image["points"][METRIC])


def _points(points: Mapping[str, list[Any]], metric: str) -> Points:
    return points["bpp"], points[metric] if metric == "psnr" else decibels(points[metric])


def _plain(found: Against) -> dict[str, Any]:
    rate, quality = found.rate, found.quality
    return {
        "bd_rate": rate.value,
        "bd_rate_reason": rate.reason,
        "bd_quality": quality.value,
        "bd_rate_of_pictures": found.mean,
        "pictures_with_bd_rate": found.counted,
        "pictures": found.pictures,
    }
