"""The six rows that people choose a model by, and what is known of each file's quality."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zoo import weights
from zoo.evaluation.leaderboard import (
    CLASSICAL,
    NOISY,
    SAME_INTEGERS,
    Leaderboard,
    NoEvidence,
    Values,
    read_leaderboard,
)
from zoo.evaluation.leaderboard import Row as Ranked
from zoo.models.registry import DEFAULT_MODEL, get_spec
from zoo.report import quality_tables
from zoo.report.document import Row, Table
from zoo.report.quality_tables import LABELS, Method, number, row_sources, source
from zoo.report.records import Record, by_machine, of_kind, read_records

ROWS = 6
LEVEL = "iso3200"
_USES = Path(__file__).with_name("uses.json")


@dataclass(frozen=True)
class Score:
    """PSNR that may be said of a file, in dB.

    Attributes:
        psnr: noise level -> mean over the shared pictures; ``noisy`` is the mean over the noisy levels.
        basis: why it may be said of the file: it was measured itself, or what it equals was.
        sources: the records.
    """

    psnr: dict[str, float]
    basis: str
    sources: list[str]

    @property
    def noisy(self) -> float | None:
        """Mean over the noisy levels; None where one is missing."""
        values = [self.psnr[level] for level in NOISY if level in self.psnr]
        return sum(values) / len(values) if len(values) == len(NOISY) else None


def _shipped() -> list[str]:
    """What ships weights, cheapest first."""
    return sorted((p.stem for p in weights.FOLDER.glob("*.yaml")), key=lambda n: (get_spec(n).gmac_per_mp, n))


@dataclass(frozen=True)
class Shelf:
    """Evidence of the models that ship weights, read once.

    Attributes:
        evidence: folder.
    """

    evidence: Path

    @cached_property
    def records(self) -> list[Record]:
        """All records."""
        return read_records(self.evidence)

    @cached_property
    def models(self) -> list[str]:
        """Models that ship weights and make pictures, cheapest first."""
        return [name for name in _shipped() if get_spec(name).codec is None]

    @cached_property
    def compressors(self) -> list[str]:
        """Compressors that ship weights, cheapest first."""
        return [name for name in _shipped() if get_spec(name).codec is not None]

    @cached_property
    def board(self) -> Leaderboard | None:
        """The leaderboard; None without quality evidence."""
        try:
            return read_leaderboard(self.evidence / "quality")
        except NoEvidence:
            return None

    def score(self, model: str, target: str, precision: str, parity: Record | None = None) -> Score | None:
        """What is known of a file's quality.

        Its own record comes first. int8 files that equal the integer reference have its numbers, whichever runtime they
        were measured on; others have those of the reference that their parity record compares them with.

        Args:
            model, target, precision: of the file.
            parity: its artefact record.
        """
        own = self._measured((model, target, precision))
        if own or precision.startswith("int8-"):
            return own and Score(own.psnr, "measured", own.sources)
        if precision == "int8":
            twins = [self._measured((model, t, "int8")) for t in SAME_INTEGERS]
            reference = next((s for s in twins if s), None)
        else:
            reference = self._measured((model, "torch", "fp32"))
        if reference is None or parity is None:
            return None
        worst = parity["parity"]["worst_psnr_db"]
        basis = f"of the {parity['parity']['reference']} reference, " + (
            "equal" if worst is None else f"{worst:.0f} dB away"
        )
        return Score(reference.psnr, basis, [*reference.sources, parity.source])

    def _measured(self, method: Method) -> Score | None:
        levels = self.quality.get(method)
        if not levels or self.board is None:
            return None
        shared = self.board.pictures.intersection(*(v.keys() for v in levels.values()))
        if shared != self.board.pictures:  # fewer pictures would not be comparable
            return None
        psnr = {level: sum(v[p]["psnr"] for p in shared) / len(shared) for level, v in levels.items()}
        return Score(psnr, "measured", [source(self.evidence, method, level) for level in levels])

    @cached_property
    def quality(self) -> dict[Method, dict[str, Values]]:
        """Method -> noise level -> picture -> values."""
        return quality_tables.quality(self.evidence)

    def artifact(self, model: str, target: str, precision: str) -> Record | None:
        """The record of a file; of several tile sizes the first."""
        wanted = (model, target, precision)
        found = [r for r in of_kind(self.records, "artifact") if (r["model"], r["target"], r["precision"]) == wanted]
        return found[0] if found else None

    @cached_property
    def host(self) -> str | None:
        """The machine that most latency records are of."""
        groups = by_machine(of_kind(self.records, "latency"))
        return max(groups, key=lambda m: (len(groups[m]), m), default=None)

    def latency(self, model: str, target: str, threads: int = 1, precision: str = "int8") -> Record | None:
        """Time of a file on :attr:`host`."""
        wanted = (model, target, precision, threads)
        for r in of_kind(self.records, "latency"):
            if (r["model"], r["target"], r["precision"], r["threads"]) == wanted and r.machine == self.host:
                return r
        return None


def fp32_ms_per_megapixel(record: Record) -> float | None:
    """Of the fp32 twin that was timed in turns with an int8 artefact; None where there was none."""
    if "fp32_ms" not in record.body:
        return None
    return record["ms_per_megapixel"] * record["fp32_ms"] / record["ms"]["median"]


def choose(evidence: Path) -> Table:
    """Compact models that ship, as int8 on LiteRT, cheapest first; the default in float; then a yardstick, more up to six."""
    shelf = Shelf(evidence)
    uses = json.loads(_USES.read_text())
    rows = [_row(shelf, name, "int8", uses.get(name, "-")) for name in shelf.models if get_spec(name).int8]
    rows.append(_row(shelf, DEFAULT_MODEL, "fp32", "a reference to compare with; GPUs and desktops"))
    rows += [_yardstick(shelf, r) for r in _yardsticks(shelf)[: max(1, ROWS - len(rows))]]
    notes = [f"dB: PSNR of developed sRGB, {LEVEL}, {len(shelf.board.pictures) if shelf.board else 0} pictures"]
    if shelf.host:
        notes[0] += f"; ms/MP: of the network on {shelf.host}, LiteRT, one thread, no phone"
    return Table(["model", f"dB at {LEVEL}", "ms/MP", "file, kB", "when to use it"], rows, notes, remark=True)


def _row(shelf: Shelf, name: str, precision: str, use: str) -> Row:
    artifact = shelf.artifact(name, "litert", precision)
    score = shelf.score(name, "litert", precision, artifact)
    timed = shelf.latency(name, "litert", precision=precision)
    ms = None if timed is None else timed["ms_per_megapixel"]
    if timed is None and precision == "fp32" and (timed := shelf.latency(name, "litert")):
        ms = fp32_ms_per_megapixel(timed)
    cells = [
        f"**{name}** {precision}" if (name, precision) == (DEFAULT_MODEL, "int8") else f"{name} {precision}",
        number(score.psnr.get(LEVEL) if score else None, ".2f"),
        number(ms, ".0f"),
        number(artifact["size_bytes"] / 1000 if artifact else None, ".0f"),
        use,
    ]
    return Row(cells, [*(score.sources if score else []), *(r.source for r in (artifact, timed) if r)])


def _yardsticks(shelf: Shelf) -> list[Ranked]:
    """Classical methods that were measured on all pictures, best first."""
    if shelf.board is None:
        return []
    rows = [r for r in shelf.board.rows if r.target == CLASSICAL and shelf.board.own(r) == shelf.board.pictures]
    return [r for r in rows if r.noisy_mean("psnr", shelf.board.pictures) is not None]


def _yardstick(shelf: Shelf, row: Ranked) -> Row:
    assert shelf.board is not None
    cells = [LABELS.get(row.name, row.name), number(row.mean("psnr", LEVEL, shelf.board.pictures), ".2f"), "-", "-"]
    return Row(
        [*cells, "no network: the best classical method on these pictures, to compare with"],
        row_sources(shelf.evidence, row),
    )
