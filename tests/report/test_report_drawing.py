"""The drawing of the frontiers: who is in it, where its points come from, and that it is README's."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from zoo.evaluation import bed
from zoo.evaluation.leaderboard import NOISY, read_leaderboard
from zoo.evaluation.records import ImageScore, QualityRecord
from zoo.report.quality_sections import drawing

ROOT = Path(__file__).parents[2]


def write(
    folder: Path,
    name: str,
    psnr: float,
    *,
    gmac: float | None = None,
    target: str = "torch",
    levels: tuple[str, ...] = tuple(bed.LEVELS),
    pictures: int = 4,
) -> None:
    cost = {} if gmac is None else {"params": 1000 * gmac, "gmac_per_mp": gmac}
    values = dict.fromkeys(bed.METRICS, 0.5) | {"psnr": psnr}
    images = {f"kodak/{i}": ImageScore("kodak", "0" * 64, values, 0.01, 1.0) for i in range(pictures)}
    for level in levels:
        own = {"cost": cost, "machine": {"cpu": "x", "threads": 1}}
        QualityRecord(name, target, "fp32", level, 0.0, 0.0, images=images, **own).save(folder)


def test_every_row_that_has_a_place_is_drawn(tmp_path: Path) -> None:
    write(tmp_path, "here", 30, gmac=2)
    write(tmp_path, "worse", 29, gmac=3)
    write(tmp_path, "nowhere", 29, gmac=3, levels=NOISY[:1])
    write(tmp_path, "few", 28, gmac=20, pictures=1)
    write(tmp_path, "menon", 20, target="classical")
    write(tmp_path, "peer-net", 31, gmac=9, target="peer")
    svg = drawing(read_leaderboard(tmp_path), tmp_path)
    ET.fromstring(svg)
    names = ("here fp32", "worse fp32", "nowhere fp32", "few fp32", "Menon 2007", "net")
    assert [svg.count(f">{name}<") for name in names] == [2, 2, 0, 0, 1, 2]  # once for GMAC, once for ms
    assert f"({tmp_path}/bayer-here-torch-fp32-{{" in svg
    fills = re.findall(r"<title>(\w+) fp32: .*?fill=\"var\(--(\w+)\)", svg)
    assert ("here", "float") in fills and ("worse", "paper") in fills


def test_nothing_to_draw_is_an_empty_picture(tmp_path: Path) -> None:
    write(tmp_path, "half", 30, gmac=2, levels=NOISY[:1])
    empty = drawing(None, tmp_path)
    assert drawing(read_leaderboard(tmp_path), tmp_path) == empty and "<circle" not in empty


def test_of_the_shipped_evidence_it_is_the_readmes() -> None:
    board = read_leaderboard(ROOT / "evidence" / "quality")
    assert drawing(board, Path("evidence/quality")) == (ROOT / "docs" / "frontier.svg").read_text()
