"""Quality against cost, from evidence only: which methods are worth their price.

Rows are methods at one precision. What is compared is the mean over noise levels of developed PSNR, on the pictures
that the rows share; a row that was measured on fewer is compared with each other row on what those two share.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.evaluation import bed
from zoo.evaluation.evidence import one_digest
from zoo.evaluation.records import KIND

LEVELS = tuple(bed.LEVELS)
NOISY = tuple(level for level, (shot, _) in bed.LEVELS.items() if shot)
CLASSICAL, PEER = "classical", "peer"  # targets of evidence
# int8 of these is the same integers (see the table "quantization"): one row, of the first that there is.
SAME_INTEGERS = ("litert", "executorch", "integer")
_STONES = ("int8-ptq", "int8-qat")  # precisions of files of `zoo quantize`: stepping stones that do not ship
_SHOWN = (*SAME_INTEGERS, "torch", CLASSICAL, PEER)

Values = Mapping[str, Mapping[str, float]]  # picture -> metric -> value


class NoEvidence(ZooError):
    """There is nothing to rank."""


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        name, target, precision: as in its evidence.
        levels: noise level -> picture -> metric -> value, of the levels that were measured.
        mtf50: noise level -> cycles per pixel, of the levels where it was measured.
        params: number of parameters, None of classical methods.
        gmac_per_mp: 1e9 multiply-accumulates per sensor megapixel, None of classical methods.
        ms_per_mp: of the host that most rows were timed on, median over pictures; None where this row was not.
        budget: what training it took, "own weights" of peers, "-" of classical methods and where no card tells.
        left_out: levels that were measured with other weights.
    """

    name: str
    target: str
    precision: str
    levels: dict[str, Values]
    mtf50: dict[str, float] = field(default_factory=dict)
    params: float | None = None
    gmac_per_mp: float | None = None
    ms_per_mp: float | None = None
    budget: str = "-"
    left_out: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name, with the precision of networks of the zoo."""
        if self.target == CLASSICAL:
            return self.name
        if self.target == PEER:
            return self.name.removeprefix("peer-")
        return f"{self.name} {self.precision}"

    def pictures(self) -> set[str]:
        """Those that were measured at every level that the row has."""
        return set.intersection(*(set(values) for values in self.levels.values())) if self.levels else set()

    def mean(self, metric: str, level: str, pictures: Iterable[str]) -> float | None:
        """Mean of a metric over pictures at one level; None where one of them lacks it."""
        values = self.levels.get(level, {})
        chosen = [values.get(p, {}).get(metric) for p in pictures]
        numbers = [v for v in chosen if v is not None]
        return statistics.fmean(numbers) if numbers and len(numbers) == len(chosen) else None

    def noisy_mean(self, metric: str, pictures: Iterable[str]) -> float | None:
        """Mean of :meth:`mean` over the noisy levels; None where one is missing."""
        pictures = list(pictures)
        means = [self.mean(metric, level, pictures) for level in NOISY]
        numbers = [m for m in means if m is not None]
        return statistics.fmean(numbers) if len(numbers) == len(NOISY) else None


@dataclass(frozen=True)
class Leaderboard:
    """Rows, best first, and what they are compared on.

    Attributes:
        rows: by mean PSNR over the noisy levels; those that lack a level last.
        pictures: that the rows share; rows with less than half as many as the fullest do not count for it.
        host: CPU and threads of the timings.
        version: schema and bed version of the evidence.
    """

    rows: list[Row]
    pictures: set[str]
    host: str
    version: tuple[int, int]

    def own(self, row: Row) -> set[str]:
        """The shared pictures that a row has."""
        return row.pictures() & self.pictures

    def frontier(self, cost: str) -> list[Row]:
        """Rows that no other beats at ``"gmac_per_mp"`` or ``"ms_per_mp"``, cheapest first.

        A row is beaten by one that is as good (mean noisy PSNR on the pictures that the two share) and as cheap, and
        better in one of the two.
        """
        return self._frontiers[cost]

    @cached_property
    def _frontiers(self) -> dict[str, list[Row]]:
        """Both frontiers, once: every row against every other takes 0.1 s for thirty of them."""
        return {cost: self._frontier(cost) for cost in ("gmac_per_mp", "ms_per_mp")}

    def _frontier(self, cost: str) -> list[Row]:
        placed = [
            r for r in self.rows if getattr(r, cost) is not None and r.noisy_mean("psnr", self.own(r)) is not None
        ]
        free = [r for r in placed if not any(self._beats(other, r, cost) for other in placed)]
        return sorted(free, key=lambda r: (getattr(r, cost), r.label))

    def _beats(self, first: Row, second: Row, cost: str) -> bool:
        shared = self.own(first) & self.own(second)
        a, b = first.noisy_mean("psnr", shared), second.noisy_mean("psnr", shared)
        if a is None or b is None:
            return False
        better, cheaper = a - b, getattr(second, cost) - getattr(first, cost)
        return better >= 0 and cheaper >= 0 and (better > 0 or cheaper > 0)

    def verdict(self, row: Row) -> str:
        """The frontiers that a row is on, "dominated", or "-" where that is not known: of what was timed elsewhere."""
        if row.noisy_mean("psnr", self.own(row)) is None or (row.gmac_per_mp is None and row.ms_per_mp is None):
            return "-"
        on = [name for name, cost in (("GMAC", "gmac_per_mp"), ("ms", "ms_per_mp")) if row in self.frontier(cost)]
        return " + ".join(on) or ("-" if row.ms_per_mp is None else "dominated")

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows as text."""
        head = ["method", *LEVELS, "noisy mean", "SSIM", "MS-SSIM", "texture", "MTF50"]
        head += ["params", "GMAC/MP", "ms/MP", "training", "frontier"]
        return head, [self._cells(row) for row in self.rows]

    def _cells(self, row: Row) -> list[str]:
        own = self.own(row)
        fewer = "" if own == self.pictures else f" ({len(own)}*)"
        psnr = [row.mean("psnr", level, own) for level in LEVELS]
        rest = [row.noisy_mean(metric, own) for metric in ("ssim", "ms_ssim", "texture")]
        sharp = [row.mtf50[level] for level in NOISY if level in row.mtf50]
        return [
            row.label + fewer,
            *(number(v, ".2f") for v in psnr),
            number(row.noisy_mean("psnr", own), ".2f"),
            *(number(v, ".3f") for v in rest),
            number(statistics.fmean(sharp) if len(sharp) == len(NOISY) else None, ".2f"),
            _count(row.params),
            number(row.gmac_per_mp, ".1f"),
            number(row.ms_per_mp, ".0f"),
            row.budget,
            self.verdict(row),
        ]

    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        sets = Counter(p.split("/")[0] for p in sorted(self.pictures))
        count = f"{len(self.pictures)} picture{'' if len(self.pictures) == 1 else 's'}"
        lines = [
            f"{count} that the rows share ({', '.join(f'{n} {s}' for s, n in sets.items())}); "
            "PSNR in dB of developed sRGB; SSIM, MS-SSIM, texture and MTF50 (cycles per pixel): means of the noisy levels",
            f"ms/MP: {self.host}; frontier: on it in PSNR against GMAC/MP, against ms/MP, or dominated in both",
        ]
        if any(self.own(row) != self.pictures for row in self.rows):
            lines.append("*: measured on so many of them only, compared with each other row on what the two share")
        for row in self.rows:
            if row.left_out:
                levels = ", ".join(row.left_out)
                lines.append(f"{row.label}: {levels} left out, measured with other weights; measure again")
        return lines

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        rows = []
        for row in self.rows:
            own = self.own(row)
            about = {k: getattr(row, k) for k in ("name", "target", "precision")}
            cost = {k: getattr(row, k) for k in ("params", "gmac_per_mp", "ms_per_mp", "budget")}
            means = {m: row.noisy_mean(m, own) for m in ("psnr", "ssim", "ms_ssim", "texture")}
            psnr = {level: row.mean("psnr", level, own) for level in LEVELS}
            quality = {"pictures": len(own), "psnr": psnr, "noisy_mean": means, "mtf50": row.mtf50}
            rows.append(about | quality | cost | {"frontier": self.verdict(row), "left_out": list(row.left_out)})
        schema, version = self.version
        about = {"schema": schema, "bed_version": version, "host": self.host}
        return about | {"pictures": sorted(self.pictures), "rows": rows}


def read_leaderboard(folder: Path, *, stones: bool = False) -> Leaderboard:
    """All evidence of the benchmark ``bayer`` in a folder, of the newest version that there is.

    Args:
        folder: of the quality evidence.
        stones: also rank files of ``zoo quantize`` that do not ship.

    Raises:
        NoEvidence: there is none.
        ZooError: a file that cannot be read.
    """
    found, left = _read(folder, bed.BENCHMARK)
    if not found:
        raise NoEvidence(f"{folder}: holds no evidence of the benchmark {bed.BENCHMARK}; `zoo evaluate` makes it")
    hosts = Counter(_host(r) for r in found)
    host = min(hosts, key=lambda h: (-hosts[h], h))
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for r in found:
        integers = r["precision"] == "int8" or (stones and r["precision"] in _STONES)
        if r["target"] in _SHOWN and (r["target"] not in SAME_INTEGERS or integers):
            groups.setdefault(_method(r), []).append(r)
    for name in {name for name, _, _ in groups}:
        twins = [key for target in SAME_INTEGERS if (key := (name, target, "int8")) in groups]
        for key in twins[1:]:
            del groups[key]
    rows = []
    for key, records in sorted(groups.items()):
        others = {r["level"] for r in left if _method(r) == key}
        rows.append(replace(_row(*key, records, host), left_out=tuple(level for level in LEVELS if level in others)))
    most = max((len(row.pictures()) for row in rows), default=0)
    full = [row.pictures() for row in rows if len(row.pictures()) >= max(1, most / 2)]
    pictures = set.intersection(*full) if full else set()
    board = Leaderboard([], pictures, host, _version(found[0]))

    def rank(row: Row) -> tuple[bool, float, str]:
        value = row.noisy_mean("psnr", board.own(row))
        return value is None, -(value or 0), row.label

    return Leaderboard(sorted(rows, key=rank), pictures, host, board.version)


def read_evidence(folder: Path, benchmark: str) -> list[dict[str, Any]]:
    """Contents of the quality evidence of a benchmark in a folder, of the newest version that there is only.

    A method's levels are of one digest of its weights, see :func:`zoo.evaluation.evidence.one_digest`.

    Raises:
        ZooError: a file that cannot be read.
    """
    return _read(folder, benchmark)[0]


def _read(folder: Path, benchmark: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What :func:`read_evidence` returns, and what it leaves out for its weights; both by file name."""
    found = []
    for path in sorted(folder.glob(f"{benchmark}-*.json")):
        try:
            content = json.loads(path.read_text())
            if content["kind"] == KIND and content["benchmark"] == benchmark:
                found.append((_version(content), content))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ZooError(f"{path}: cannot be read as evidence ({error}); delete it and evaluate again") from error
    newest = max((version for version, _ in found), default=None)
    current = [content for version, content in found if version == newest]
    methods: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for content in current:
        methods.setdefault(_method(content), []).append(content)
    kept = {id(c) for records in methods.values() for c in one_digest(records, lambda c: c.get("weights_sha256"))[0]}
    return [c for c in current if id(c) in kept], [c for c in current if id(c) not in kept]


def _method(content: Mapping[str, Any]) -> tuple[str, str, str]:
    return content["name"], content["target"], content["precision"]


def _version(content: Mapping[str, Any]) -> tuple[int, int]:
    return content["schema"], content["bed_version"]


def _host(content: Mapping[str, Any]) -> str:
    machine = content.get("machine", {})
    threads = machine.get("threads")
    return f"{machine.get('cpu', 'unknown')}, {threads} thread{'' if threads == 1 else 's'}"


def _row(name: str, target: str, precision: str, records: Sequence[Mapping[str, Any]], host: str) -> Row:
    levels: dict[str, Values] = {r["level"]: {k: i["values"] for k, i in r["images"].items()} for r in records}
    images = [i for r in records if _host(r) == host for i in r["images"].values()]
    rates = [1000 * i["seconds"] / i["megapixels"] for i in images if "megapixels" in i]
    cost = records[0].get("cost") or records[0].get("settings", {})
    return Row(
        name=name,
        target=target,
        precision=precision,
        levels=levels,
        mtf50={r["level"]: r["edge"]["mtf50"] for r in records if r.get("edge")},
        params=cost.get("params"),
        gmac_per_mp=cost.get("gmac_per_mp"),
        ms_per_mp=statistics.median(rates) if rates else None,
        budget=_budget(name, target, precision, {r.get("weights_sha256") for r in records}),
    )


def _budget(name: str, target: str, precision: str, digests: set[str | None]) -> str:
    """Steps, hours and hardware from the card of the weights, if they are the card's; of int8 with those of QAT."""
    from zoo import weights

    if target == CLASSICAL:
        return "-"
    if target == PEER:
        return "own weights"
    if precision in _STONES:  # of any weights and training
        return "-"
    card = weights.card(name) or {}
    if not digests <= set(card.get("sha256", {}).values()):
        return "-"
    stages = [card.get("training"), card.get("quantization", {}).get("training") if precision == "int8" else None]
    told = [f"{s['steps'] / 1000:g}k steps, {s['hours']:.2g} h" for s in stages if s and {"steps", "hours"} <= set(s)]
    device = (stages[0] or {}).get("device")
    return " + QAT ".join(told) + (f", {device}" if device else "") if told else "-"


def number(value: float | None, form: str) -> str:
    """A number as text, "-" for None."""
    return "-" if value is None else f"{value:{form}}"


def _count(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"
