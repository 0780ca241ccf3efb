"""Ranking: what is compared with what, who is dominated, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo import weights
from zoo.errors import ZooError
from zoo.evaluation import bed
from zoo.evaluation.leaderboard import Leaderboard, read_leaderboard
from zoo.evaluation.records import ImageScore, QualityRecord

ALL = ("kodak/a", "kodak/b", "mcmaster/c", "mcmaster/d")


def write(
    folder: Path,
    name: str,
    psnr: float,
    ms: float,
    *,
    gmac: float | None = None,
    target: str = "torch",
    precision: str = "fp32",
    pictures: dict[str, float] | tuple[str, ...] = ALL,
    levels: tuple[str, ...] = tuple(bed.LEVELS),
    **fields,
) -> None:
    """Evidence of a method whose PSNR is the same at all levels; pictures may have offsets to it."""
    offsets = pictures if isinstance(pictures, dict) else dict.fromkeys(pictures, 0.0)
    cost = {} if gmac is None else {"params": 1000 * gmac, "gmac_per_mp": gmac}
    for level in levels:
        images = {}
        for key, offset in offsets.items():
            values = dict.fromkeys(bed.METRICS, 0.5) | {"psnr": psnr + offset}
            images[key] = ImageScore(key.split("/")[0], "0" * 64, values, ms / 1000, 1.0)
        own = {"cost": cost, "machine": {"cpu": "x", "threads": 1}, "edge": {"mtf50": 0.25}} | fields
        QualityRecord(name, target, precision, level, 0.0, 0.0, images=images, **own).save(folder)


def classical(folder: Path, name: str, psnr: float, ms: float, **fields) -> None:
    write(folder, name, psnr, ms, target="classical", precision="fp64", **fields)


def verdicts(board: Leaderboard) -> dict[str, str]:
    return {row.label: board.verdict(row) for row in board.rows}


def test_frontier_is_per_cost_and_the_rest_is_dominated(tmp_path):
    write(tmp_path, "large", 32, 100, gmac=10)
    write(tmp_path, "small", 30, 20, gmac=2)
    write(tmp_path, "wasteful", 29, 90, gmac=5)
    write(tmp_path, "awkward", 29.5, 10, gmac=8)
    classical(tmp_path, "menon", 20, 30)
    classical(tmp_path, "malvar", 19, 5)
    board = read_leaderboard(tmp_path)
    assert verdicts(board) == {
        "large fp32": "GMAC + ms",
        "small fp32": "GMAC + ms",
        "awkward fp32": "ms",
        "wasteful fp32": "dominated",
        "menon": "dominated",
        "malvar": "ms",
    }
    assert [r.name for r in board.frontier("ms_per_mp")] == ["malvar", "awkward", "small", "large"]
    assert [r.name for r in board.frontier("gmac_per_mp")] == ["small", "large"]
    assert [r.name for r in board.rows] == ["large", "small", "awkward", "wasteful", "menon", "malvar"]


def test_what_was_timed_elsewhere_may_be_on_the_frontier_of_time(tmp_path):
    write(tmp_path, "large", 32, 100, gmac=10)
    write(tmp_path, "small", 30, 20, gmac=2)
    write(tmp_path, "other", 31, 10, gmac=10, machine={"cpu": "elsewhere", "threads": 1})
    assert verdicts(read_leaderboard(tmp_path)) == {
        "large fp32": "GMAC + ms",
        "other fp32": "-",
        "small fp32": "GMAC + ms",
    }


def test_equals_do_not_dominate_each_other(tmp_path):
    write(tmp_path, "a", 30, 20, gmac=2)
    write(tmp_path, "b", 30, 20, gmac=2)
    write(tmp_path, "c", 30, 20, gmac=3)
    assert verdicts(read_leaderboard(tmp_path)) == {"a fp32": "GMAC + ms", "b fp32": "GMAC + ms", "c fp32": "ms"}


def test_rows_with_few_pictures_are_compared_on_what_is_shared(tmp_path):
    # On picture a alone everyone is 10 dB better: the few would win if its mean were held against theirs.
    hard = dict.fromkeys(ALL[1:], 0.0) | {"kodak/a": 10.0}
    write(tmp_path, "many", 30, 10, gmac=2, pictures=hard)
    write(tmp_path, "few", 29, 20, gmac=2, pictures={"kodak/a": 10.0})
    board = read_leaderboard(tmp_path)
    assert board.pictures == set(ALL)
    assert [(r.name, len(board.own(r))) for r in board.rows] == [("few", 1), ("many", 4)]
    assert verdicts(board)["few fp32"] == "dominated"
    head, rows = board.table()
    assert rows[0][0] == "few fp32 (1*)" and rows[1][0] == "many fp32"
    assert rows[0][head.index("noisy mean")] == "39.00" and rows[1][head.index("noisy mean")] == "32.50"
    assert any(note.startswith("*") for note in board.notes()) and board.notes()[0].startswith("4 pictures")


def test_pictures_are_those_that_all_full_rows_have(tmp_path):
    write(tmp_path, "a", 30, 10, pictures=ALL[:3])
    write(tmp_path, "b", 30, 10, pictures=ALL[1:])
    assert read_leaderboard(tmp_path).pictures == {"kodak/b", "mcmaster/c"}


def test_missing_levels_leave_gaps_and_no_place(tmp_path):
    write(tmp_path, "whole", 30, 10, gmac=1)
    write(tmp_path, "half", 35, 10, gmac=1, levels=("iso3200",))
    board = read_leaderboard(tmp_path)
    head, rows = board.table()
    assert [row[0] for row in rows] == ["whole fp32", "half fp32"]  # what has no mean comes last
    half = dict(zip(head, rows[1], strict=True))
    assert (half["clean"], half["iso3200"], half["noisy mean"], half["MTF50"]) == ("-", "35.00", "-", "-")
    assert half["frontier"] == "-" and verdicts(board)["whole fp32"] == "GMAC + ms"


def test_same_integers_are_one_row_and_stepping_stones_none(tmp_path):
    for target in ("litert", "executorch", "integer", "coreml"):
        write(tmp_path, "m", 30, 10, target=target, precision="int8")
    write(tmp_path, "m", 29, 10, target="integer", precision="int8-ptq")
    write(tmp_path, "s", 28, 10, target="integer", precision="int8")
    write(tmp_path, "m", 31, 10)
    found = [(r.name, r.target, r.precision) for r in read_leaderboard(tmp_path).rows]
    assert found == [("m", "torch", "fp32"), ("m", "litert", "int8"), ("s", "integer", "int8")]
    asked = read_leaderboard(tmp_path, stones=True).rows
    assert [r.label for r in asked] == ["m fp32", "m int8", "m int8-ptq", "s int8"] and asked[2].budget == "-"


@pytest.mark.parametrize(
    ("levels", "date", "value"), [(1, "2026-02-01", 30), (2, "2026-02-01", 35), (2, "2025-01-01", 30)]
)
def test_levels_of_other_weights_are_left_out_and_named(tmp_path, levels, date, value):
    """Most levels win, then the newest: one good level of an experiment gets no place beside three of what ships."""
    names = tuple(bed.LEVELS)
    write(tmp_path, "m", 30, 10, gmac=1, weights_sha256="1" * 64, date="2026-01-01")
    write(tmp_path, "m", 35, 10, gmac=1, levels=names[-levels:], weights_sha256="2" * 64, date=date)
    board = read_leaderboard(tmp_path)
    (row,) = board.rows
    kept, left = (names[:-levels], names[-levels:]) if value == 30 else (names[-levels:], names[:-levels])
    assert set(row.levels) == set(kept) and row.left_out == left
    assert {row.mean("psnr", level, ALL) for level in kept} == {value} and board.verdict(row) == "-"
    assert any(n.startswith("m fp32: ") and "left out, measured with other weights" in n for n in board.notes())
    assert board.to_json()["rows"][0]["left_out"] == list(row.left_out)


def test_evidence_of_older_versions_is_left_out(tmp_path):
    write(tmp_path, "old", 40, 10, bed_version=1)
    write(tmp_path, "new", 30, 10)
    board = read_leaderboard(tmp_path)
    assert [r.name for r in board.rows] == ["new"] and board.version[1] == bed.VERSION
    other = QualityRecord("menon", "classical", "fp64", "clean", 0, 0, benchmark="demosaic")
    other.save(tmp_path)
    assert len(read_leaderboard(tmp_path).rows) == 1


def test_times_of_another_host_are_left_out(tmp_path):
    write(tmp_path, "a", 30, 10, gmac=2)
    write(tmp_path, "b", 29, 5, gmac=1)
    write(tmp_path, "gpu", 31, 1, gmac=9, machine={"cpu": "H100", "threads": 16})
    board = read_leaderboard(tmp_path)
    assert board.host == "x, 1 thread"
    assert {r.name: r.ms_per_mp for r in board.rows} == {"gpu": None, "a": pytest.approx(10), "b": pytest.approx(5)}
    assert verdicts(board)["a fp32"] == "GMAC + ms" and verdicts(board)["gpu fp32"] == "GMAC"


def test_peers_bring_their_cost_and_weights(tmp_path):
    settings = {"params": 1_031_908, "gmac_per_mp": 3.74}
    write(tmp_path, "peer-pmrid+menon", 30, 10, target="peer", settings=settings)
    head, (cells,) = read_leaderboard(tmp_path).table()
    row = dict(zip(head, cells, strict=True))
    assert row["method"] == "pmrid+menon" and row["training"] == "own weights"
    assert (row["params"], row["GMAC/MP"], row["ms/MP"]) == ("1.03 M", "3.7", "10")
    assert sorted(p.name for p in tmp_path.iterdir())[0] == "bayer-peer-pmrid+menon-peer-fp32-clean.json"


def test_budget_is_the_cards(tmp_path, monkeypatch):
    stage = {"steps": 20000, "hours": 0.46, "device": "H100"}
    card = {"training": stage, "quantization": {"training": {"steps": 1500, "hours": 0.044}}, "sha256": {"m": "0"}}
    monkeypatch.setattr(weights, "card", lambda name: card if name in ("m", "old") else None)
    write(tmp_path, "m", 31, 10, weights_sha256="0")
    write(tmp_path, "m", 30, 10, target="litert", precision="int8", weights_sha256="0")
    write(tmp_path, "unknown", 29, 10)
    write(tmp_path, "old", 28, 10, weights_sha256="1")  # other weights than the card's
    assert [r.budget for r in read_leaderboard(tmp_path).rows] == [
        "20k steps, 0.46 h, H100",
        "20k steps, 0.46 h + QAT 1.5k steps, 0.044 h, H100",
        "-",
        "-",
    ]


def test_damaged_or_no_evidence_is_one_line(tmp_path):
    with pytest.raises(ZooError, match="holds no evidence of the benchmark bayer"):
        read_leaderboard(tmp_path)
    (tmp_path / "bayer-x.json").write_text(json.dumps({"kind": "quality"}))
    with pytest.raises(ZooError, match=r"bayer-x\.json: cannot be read as evidence"):
        read_leaderboard(tmp_path)
