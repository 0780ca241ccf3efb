"""Tables come from evidence, and the README holds the present ones."""

import json
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.evaluation.benchmarks import get_benchmark
from zoo.evaluation.records import ImageScore, QualityRecord
from zoo.evaluation.render import TABLES, render

ROOT = Path(__file__).parents[2]


def test_readme_is_not_stale() -> None:
    text = (ROOT / "README.md").read_text()
    assert render(text, ROOT / "evidence") == text, "run python -m zoo.evaluation.render"
    assert text.count("<!-- table:") >= 5


def test_a_changed_number_changes_the_table(tmp_path: Path) -> None:
    source = ROOT / "evidence" / "latency"
    (tmp_path / "latency").mkdir()
    record = json.loads(next(source.glob("utnet-m-litert-int8-*-t1.json")).read_text())
    record["ms_per_megapixel"] = 12345.6
    (tmp_path / "latency" / "x.json").write_text(json.dumps(record))
    assert "12345.6" in TABLES["latency"](tmp_path)


def write(folder: Path, benchmark: str, name: str, psnr: float, count: int, precision: str = "fp64", **fields) -> None:
    """Evidence of one method on ``count`` pictures of Kodak and McMaster each, all levels of the benchmark."""
    bench = get_benchmark(benchmark)
    target = {"fp32": "torch", "fp64": "classical"}.get(precision, "litert")
    for level in bench.levels:
        images = {}
        for key in (f"{s}/{i}" for s in ("kodak", "mcmaster") for i in range(count)):
            values = dict.fromkeys(bench.metrics, 0.5) | {"psnr": psnr - (key == "mcmaster/0")}
            images[key] = ImageScore(key.split("/")[0], "0" * 64, values, 0.01, 0.4)
        record = QualityRecord(name, target, precision, level, 0, 0, images=images, benchmark=benchmark, **fields)
        record.save(folder / "quality")


def test_leaderboard_shows_every_row_and_marks_the_shipped_one_and_the_short_ones(tmp_path: Path) -> None:
    write(tmp_path, "bayer", "utnet-m", 31, 4, "int8", cost={"params": 224_000, "gmac_per_mp": 3.972})
    write(tmp_path, "bayer", "menon", 25, 4)
    write(tmp_path, "bayer", "bm3d+menon", 27, 1)
    lines = TABLES["leaderboard"](tmp_path).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| **utnet-m int8**",
        "| BM3D + Menon (2*)",
        "| Menon 2007",
    ]
    assert "| 30.88 | 30.88 | 30.88 | 30.88 | 30.88 |" in lines[2] and "| 224 k | 4.0 | 25 |" in lines[2]
    assert any(line.startswith("8 pictures that the rows share (4 kodak, 4 mcmaster)") for line in lines)


def test_demosaic_has_a_column_per_set(tmp_path: Path) -> None:
    write(tmp_path, "demosaic", "malvar", 34, 4)
    write(tmp_path, "demosaic", "menon", 35, 2)
    assert TABLES["demosaic"](tmp_path).splitlines()[2:] == [
        "| Menon 2007 | 35.00 (2 pictures) | 34.50 (2 pictures) | 34.00 | 0.5000 (4 pictures) |",
        "| Malvar 2004 | 34.00 | 33.75 | 33.00 | 0.5000 |",
    ]


def test_pairs_shows_the_gain_and_the_frames_themselves(tmp_path: Path) -> None:
    write(tmp_path, "pairs", "menon", 2, 2)
    assert TABLES["pairs"](tmp_path).splitlines()[2:] == [
        "| Menon 2007 | 1.75 | +1.25 | 0.5000 |",
        "| the noisy frames themselves | 0.50 | +0.00 | - |",
    ]


def test_quantization_is_the_loss_on_shared_pictures(tmp_path: Path) -> None:
    write(tmp_path, "bayer", "utnet-m", 31, 4, "fp32")
    write(tmp_path, "bayer", "utnet-m", 30.9, 1, "int8")
    (line,) = TABLES["quantization"](tmp_path).splitlines()[2:]
    assert line == "| utnet-m | QAT, LiteRT |" + " 0.100 / 0.100 (2 pictures) |" * 4


@pytest.mark.parametrize("table", ["leaderboard", "demosaic", "pairs", "quantization"])
def test_tables_without_evidence_are_a_row_of_dashes(table: str, tmp_path: Path) -> None:
    head, rule, row = TABLES[table](tmp_path).splitlines()
    assert set(row.split()) == {"|", "-"} and len(head.split(" | ")) == len(rule.split("|")) - 2 == row.count("-")


def test_unknown_table_is_an_error() -> None:
    with pytest.raises(ZooError, match="no table 'nonsense'"):
        render("<!-- table:nonsense -->\n<!-- /table -->")
