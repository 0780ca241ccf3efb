"""The report as a whole, and the files of the repository that are rendered from evidence."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import ZooError
from zoo.files import replacing
from zoo.models.registry import DEFAULT_MODEL
from zoo.report import file_sections, quality_sections, runtime_sections
from zoo.report.cards import card
from zoo.report.choose import LEVEL, Shelf, choose
from zoo.report.crops import comparisons
from zoo.report.document import Section, Text
from zoo.report.html import page
from zoo.report.markdown import document, fill
from zoo.report.records import not_repeatable, not_shipped, problems, read_records
from zoo.report.tables import render

README, RESULTS = Path("README.md"), Path("docs/results.md")  # texts with tables in them
CARDS, FRONTIER = Path("docs/models"), Path("docs/frontier.svg")
_TITLE = "raw-zoo: quality against cost"
_LEAD = (
    "Small networks that turn a noisy Bayer mosaic into clean linear RGB, as files for phones. Every number here stands in a "
    "record that one command makes again; point at a row or a dot to see which."
)
_FOOT = (
    "Rendered by `zoo report` from {count} records. The page loads nothing from anywhere; times of different machines never "
    "share a table."
)


def write_report(folder: Path, evidence: Path, crops: Path | None = None) -> list[Path]:
    """Write ``report.html`` and ``report.md``.

    Args:
        folder: made if it is not there.
        evidence: folder of the records.
        crops: folder of other crops than those of the evidence.

    Returns:
        paths of the two.

    Raises:
        ZooError: evidence that does not hold to its schema, or a folder that cannot be written to.
    """
    shelf = Shelf(evidence)
    _check_evidence(shelf)
    parts = sections(shelf, crops or evidence)
    foot = _FOOT.format(count=len(shelf.records))
    texts = {
        "report.html": page(_TITLE, _LEAD, _figures(shelf), parts, foot),
        "report.md": document(_TITLE, _LEAD, [*parts, Section("About", [Text(foot)])]),
    }
    return [_write(folder / name, text) for name, text in texts.items()]


def sections(shelf: Shelf, crops: Path) -> list[Section]:
    """All of the report, in order; parts without any record are left out."""
    shown = comparisons(crops)
    table = choose(shelf.evidence)
    lead = "Cheapest first. The default is what `zoo denoise` and `zoo export` take without a name."
    before = "Real raws, developed alike: move the line. Pixels are shown enlarged."
    found: list[Section | None] = [
        Section("Choose a model", [Text(lead), table]),
        quality_sections.frontiers(shelf),
        quality_sections.noise_levels(shelf),
        Section("Real raws, before and after", [Text(before), *shown]) if shown else None,
        quality_sections.targets(shelf),
        quality_sections.int8_cost(shelf),
        quality_sections.compressed(shelf),
        runtime_sections.times(shelf),
        file_sections.files(shelf),
        runtime_sections.profiles(shelf),
        runtime_sections.instructions(shelf),
        runtime_sections.sensitivity(shelf),
        runtime_sections.operators(shelf),
        file_sections.provenance(shelf),
    ]
    return [s for s in found if s is not None]


def rendered(root: Path, evidence: Path) -> dict[Path, str]:
    """What the files below ``root`` that are made from evidence should hold, by path.

    Raises:
        ZooError: one of the texts is missing, or a marker in it names no table.
    """
    shelf, files = Shelf(evidence), {}
    for text in (README, RESULTS):
        try:
            before = (root / text).read_text()
        except OSError as error:
            raise ZooError(f"{root / text}: {error.strerror}; run this in the project's folder") from error
        files[root / text] = fill(before, lambda name: render(name, evidence), str(text))
    files |= {root / CARDS / f"{name}.md": card(shelf, name) for name in (*shelf.models, *shelf.compressors)}
    return files | {root / FRONTIER: quality_sections.drawing(shelf.board, Path(shelf.evidence.name, "quality"))}


def update(root: Path, evidence: Path) -> list[Path]:
    """Bring the rendered files up to date; returns those that changed."""
    return [_write(path, text) for path, text in rendered(root, evidence).items() if _read(path) != text]


def findings(root: Path, evidence: Path) -> list[str]:
    """What is wrong, one line each: evidence that breaks its schema, names a path of one computer or is of weights that no
    longer ship; rendered files that are stale; cards of models that are gone.
    """
    shelf = Shelf(evidence)
    wrong = [p for record in shelf.records for p in problems(record)]
    wrong += not_repeatable(shelf.records) + not_shipped(shelf.records)
    stale = [path.relative_to(root) for path, text in rendered(root, evidence).items() if _read(path) != text]
    wrong += [f"{path}: is stale; run `zoo report --update`" for path in stale]
    gone = set(_cards(root)) - {root / CARDS / f"{name}.md" for name in (*shelf.models, *shelf.compressors)}
    return wrong + [f"{path.relative_to(root)}: no such model ships; delete it" for path in sorted(gone)]


def check(root: Path, evidence: Path) -> int:
    """Number of records, if there is nothing to find.

    Raises:
        ZooError: all of :func:`findings`.
    """
    wrong = findings(root, evidence)
    if wrong:
        raise ZooError("; ".join(wrong))
    return len(read_records(evidence))


def _cards(root: Path) -> list[Path]:
    return sorted((root / CARDS).glob("*.md"))


def _check_evidence(shelf: Shelf) -> None:
    wrong = [p for record in shelf.records for p in problems(record)]
    if wrong:
        raise ZooError("; ".join(wrong))


def _figures(shelf: Shelf) -> list[tuple[str, str, str]]:
    """Numbers of the default model: what the page begins with."""
    file, timed = shelf.artifact(DEFAULT_MODEL, "litert", "int8"), shelf.latency(DEFAULT_MODEL, "litert")
    score = shelf.score(DEFAULT_MODEL, "litert", "int8", file)
    found: list[tuple[str, str, str]] = []
    if score and LEVEL in score.psnr:
        found.append((f"{score.psnr[LEVEL]:.2f}", "dB", f"{DEFAULT_MODEL} int8 at {LEVEL}"))
    if timed:
        found.append((f"{timed['ms_per_megapixel']:.0f}", "ms/MP", f"LiteRT, one thread, {timed.machine}"))
    if file:
        worst = file["parity"]["worst_psnr_db"]
        found.append((f"{file['size_bytes'] / 1000:.0f}", "kB", "the LiteRT file"))
        found.append(
            (
                "0" if worst is None else f"{worst:.1f}",
                "differing outputs" if worst is None else "dB",
                "LiteRT against its reference",
            )
        )
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _write(path: Path, text: str) -> Path:
    with replacing(path, "choose another --output-dir", parents=True) as temporary:
        temporary.write_text(text)
    return path
