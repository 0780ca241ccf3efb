"""Tables come from evidence, and say what they leave out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.evaluation.benchmarks import get_benchmark
from zoo.evaluation.records import ImageScore, QualityRecord
from zoo.models.registry import get_spec
from zoo.report.choose import choose
from zoo.report.document import Table, merged
from zoo.report.markdown import fill
from zoo.report.tables import TABLES, photos, render

ROOT = Path(__file__).parents[2]


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


def copy(tmp_path: Path, pattern: str, **changes) -> dict:
    """One shipped record, changed, in a folder of its own kind; returns it."""
    source = next((ROOT / "evidence").glob(pattern))
    folder = tmp_path / source.parent.name
    folder.mkdir(exist_ok=True)
    record = json.loads(source.read_text()) | changes
    (folder / f"{len(list(folder.iterdir()))}.json").write_text(json.dumps(record))
    return record


def test_a_changed_number_changes_the_table(tmp_path: Path) -> None:
    copy(tmp_path, "latency/utnet-m-litert-int8-*-t1.json", ms_per_megapixel=12345.6)
    assert "12345.6" in render("latency", tmp_path)
    copy(tmp_path, "latency/utnet-m-litert-int8-*-t1.json", model="bayer-codec-s", half="decoder")
    assert "| bayer-codec-s decoder | litert | 1 |" in render("latency", tmp_path)


@pytest.mark.parametrize(
    ("table", "pattern"), [("latency", "latency/utnet-m-litert-int8-*-t1.json"), ("photos", "photos/*.json")]
)
def test_machines_never_share_a_table(table: str, pattern: str, tmp_path: Path) -> None:
    for name in ("Cortex-A53", "Cortex-A76", "Cortex-A53"):
        copy(tmp_path, pattern, machine={"processor": name})
    made = TABLES[table](tmp_path)
    assert isinstance(made, list) and [(t.title, len(t.rows)) for t in made] == [("Cortex-A53", 2), ("Cortex-A76", 1)]
    text = render(table, tmp_path)
    assert "**Cortex-A53**\n\n|" in text and "**Cortex-A76**\n\n|" in text


def test_photos_say_threads_and_in_the_report_the_command(tmp_path: Path) -> None:
    for threads, command in ((2, "python a.py"), (7, "python b.py"), (8, "python b.py")):
        copy(tmp_path, "photos/litert-12mp.json", threads=threads, command=command)
    head, _, *rows = render("photos", tmp_path).splitlines()
    column = head.split(" | ").index("threads")
    assert [row.split(" | ")[column] for row in rows] == ["2", "7", "8"]  # and no command
    (table,) = photos(tmp_path)
    assert table.notes == ["command: `python a.py`", "command: `python b.py`"]


def test_leaderboard_shows_every_row_and_marks_the_shipped_one_and_the_short_ones(tmp_path: Path) -> None:
    write(tmp_path, "bayer", "utnet-m", 31, 4, "int8", cost={"params": 224_000, "gmac_per_mp": 3.972})
    write(tmp_path, "bayer", "menon", 25, 4)
    write(tmp_path, "bayer", "bm3d+menon", 27, 1)
    lines = render("leaderboard", tmp_path).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| **utnet-m int8**",
        "| BM3D + Menon (2*)",
        "| Menon 2007",
    ]
    assert "| 30.88 | 30.88 | 30.88 | 30.88 | 30.88 |" in lines[2] and "| 224 k | 4.0 | 25 |" in lines[2]
    assert any(line.startswith("8 pictures that the rows share (4 kodak, 4 mcmaster)") for line in lines)


def test_rows_name_their_records(tmp_path: Path) -> None:
    write(tmp_path, "bayer", "menon", 25, 1)
    table = TABLES["leaderboard"](tmp_path)
    assert isinstance(table, Table)
    assert sorted(table.rows[0].sources) == sorted(
        f"{tmp_path.name}/quality/{p.name}" for p in tmp_path.rglob("*.json")
    )
    (name,) = table.sources()
    assert name == f"{tmp_path.name}/quality/bayer-menon-classical-fp64-{{clean,iso12800,iso3200,iso800}}.json"


def test_merged_keeps_names_apart_that_differ_elsewhere() -> None:
    assert merged(["a/x-1.json", "a/x-2.json", "a/y-1.json", "b.json"]) == ["a/x-{1,2}.json", "a/y-1.json", "b.json"]


def test_demosaic_has_a_column_per_set(tmp_path: Path) -> None:
    write(tmp_path, "demosaic", "malvar", 34, 4)
    write(tmp_path, "demosaic", "menon", 35, 2)
    assert render("demosaic", tmp_path).splitlines()[2:] == [
        "| Menon 2007 | 35.00 (2 pictures) | 34.50 (2 pictures) | 34.00 | 0.5000 (4 pictures) |",
        "| Malvar 2004 | 34.00 | 33.75 | 33.00 | 0.5000 |",
    ]


def test_pairs_shows_the_gain_and_the_frames_themselves(tmp_path: Path) -> None:
    write(tmp_path, "pairs", "menon", 2, 2)
    assert render("pairs", tmp_path).splitlines()[2:] == [
        "| Menon 2007 | 1.75 | +1.25 | 0.5000 |",
        "| the noisy frames themselves | 0.50 | +0.00 | - |",
    ]


def test_other_sets_show_who_was_measured_on_all_of_them(tmp_path: Path) -> None:
    for name, psnr, images, *precision in (("utnet-m", 31, 6, "fp32"), ("menon", 25, 6), ("malvar", 20, 4)):
        write(tmp_path, "bayer", name, psnr, images, *precision)
    for file in tmp_path.rglob("*.json"):
        text = file.read_text().replace("kodak", "urban").replace("mcmaster", "cid")
        file.write_text(text)
    lines = render("other_sets", tmp_path).splitlines()
    assert "| Urban (6): clean, iso800, iso3200, iso12800 | CID22 (6): " in lines[0]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| utnet-m fp32", "| Menon 2007"]  # malvar lacks pictures
    assert render("quantization", tmp_path).splitlines()[2].count("-") == 6  # they do not count there


def test_quantization_is_the_loss_on_shared_pictures(tmp_path: Path) -> None:
    write(tmp_path, "bayer", "utnet-m", 31, 4, "fp32")
    write(tmp_path, "bayer", "utnet-m", 30.9, 1, "int8")
    write(tmp_path, "bayer", "menon", 25, 6)
    (line,) = render("quantization", tmp_path).splitlines()[2:]
    assert line == "| utnet-m | QAT, LiteRT |" + " 0.100 / 0.100 (2 pictures) |" * 4


@pytest.mark.parametrize(
    "table", ["leaderboard", "demosaic", "pairs", "quantization", "latency", "artifacts", "photos"]
)
def test_tables_without_evidence_are_a_row_of_dashes(table: str, tmp_path: Path) -> None:
    head, rule, row = render(table, tmp_path).splitlines()
    assert set(row.split()) == {"|", "-"} and len(head.split(" | ")) == len(rule.split("|")) - 2 == row.count("-")


def test_unknown_table_is_an_error_that_lists_the_tables(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"README\.md: no table 'nonsense'; there are choose, leaderboard"):
        fill("<!-- table:nonsense -->\n<!-- /table -->", lambda name: render(name, tmp_path), "README.md")


def test_choose_takes_equal_integers_and_leaves_out_what_is_not_known(tmp_path: Path) -> None:
    write(tmp_path, "bayer", "menon", 25, 2)
    write(tmp_path, "bayer", "utnet-m", 30, 2, "fp32")
    write(tmp_path, "bayer", "utnet-m", 29, 2, "int8")
    timed = copy(
        tmp_path,
        "latency/utnet-m-litert-int8-*-t1.json",
        ms_per_megapixel=50.0,
        fp32_ms=30.0,
        ms={"median": 10.0, "p10": 9.0, "p90": 11.0},
    )
    rows = {line.split(" | ")[0]: line.split(" | ")[1:] for line in render("choose", tmp_path).splitlines()[2:9]}
    assert timed["threads"] == 1
    assert rows["| **utnet-m** int8"][:3] == ["28.75", "50", "-"]
    assert rows["| utnet-m fp32"][:3] == ["-", "150", "-"]  # no artefact says what the file equals
    assert rows["| utnet-n int8"][:3] == ["-", "-", "-"]
    assert rows["| Menon 2007"][:3] == ["24.75", "-", "-"]
    assert rows["| utnet-demosaic int8"][0] == "-"  # it is not for noise
    assert len(rows) == 7
    # Its own record's median comes before the twin's shortest time.
    own = {"precision": "fp32", "machine": timed["machine"], "ms_per_megapixel": 170.0}
    copy(tmp_path, "latency/utnet-m-litert-fp32-*-t1.json", **own)
    (row,) = [r for r in choose(tmp_path).rows if r.cells[0] == "utnet-m fp32"]
    assert row.cells[2] == "170" and [s for s in row.sources if "latency" in s] == [f"{tmp_path.name}/latency/1.json"]


def test_every_compact_model_with_weights_has_a_use() -> None:
    from zoo.report.choose import Shelf

    uses = json.loads((ROOT / "zoo" / "report" / "uses.json").read_text())
    compact = {name for name in Shelf(ROOT / "evidence").models if get_spec(name).int8}
    assert compact and compact <= set(uses)


def test_references_are_no_choice_for_a_phone() -> None:
    assert "utnet2" not in render("choose", ROOT / "evidence")
