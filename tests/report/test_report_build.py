"""The report as files, and that what is rendered in the repository is not stale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from zoo.cli import crops
from zoo.cli.crops import LARGEST, make_crops
from zoo.cli.main import main
from zoo.errors import ZooError
from zoo.report.build import check, findings, rendered, update, write_report
from zoo.report.choose import Shelf
from zoo.report.crops import comparisons

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "evidence"
HINT = "is stale; run `zoo report --update`"


RENDERED = rendered(ROOT, EVIDENCE)
WRONG = [line for line in findings(ROOT, EVIDENCE) if line.startswith("evidence/")]


@pytest.mark.parametrize("path", sorted(p.relative_to(ROOT).as_posix() for p in RENDERED))
def test_rendered_file_is_not_stale(path: str) -> None:
    assert (ROOT / path).read_text() == RENDERED[ROOT / path], f"{path} {HINT}"


@pytest.mark.parametrize(("text", "tables"), [("README.md", 6), ("docs/results.md", 5)])
def test_texts_hold_tables(text: str, tables: int) -> None:
    assert (ROOT / text).read_text().count("<!-- table:") >= tables


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with a README, results, cards, plot and evidence, all up to date."""
    shutil.copytree(EVIDENCE, tmp_path / "evidence")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- table:choose -->\n<!-- /table -->\n")
    (tmp_path / "docs" / "results.md").write_text("<!-- table:latency -->\n<!-- /table -->\n")
    update(tmp_path, tmp_path / "evidence")
    return tmp_path


def problems_of(clone: Path) -> list[str]:
    """What the check finds, but for evidence that was wrong before the test touched it."""
    return [line for line in findings(clone, clone / "evidence") if line not in WRONG]


def test_update_makes_all_files_and_a_second_one_changes_nothing(clone: Path) -> None:
    names = {p.stem for p in (clone / "docs" / "models").iterdir()}
    shelf = Shelf(EVIDENCE)
    assert names == {*shelf.models, *shelf.compressors} and (clone / "docs" / "frontier.svg").exists()
    assert update(clone, clone / "evidence") == [] == problems_of(clone)


def test_check_names_each_stale_file(clone: Path) -> None:
    for path in (clone / "evidence" / "latency").rglob("utnet-m-litert-int8-*-t1.json"):  # of every machine
        path.write_text(json.dumps(json.loads(path.read_text()) | {"ms_per_megapixel": 12345.6}))
    (clone / "docs" / "models" / "gone.md").write_text("")
    (clone / "docs" / "frontier.svg").unlink()
    found = problems_of(clone)
    assert {
        f"{p}: {HINT}" for p in ("README.md", "docs/results.md", "docs/models/utnet-m.md", "docs/frontier.svg")
    } <= set(found)
    assert "docs/models/gone.md: no such model ships; delete it" in found


def test_check_names_what_breaks_its_schema(clone: Path) -> None:
    path = next((clone / "evidence" / "photos").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": "long"}))
    with pytest.raises(ZooError, match=rf"evidence/photos/{path.name}: seconds: 'long' is not of type 'number'"):
        check(clone, clone / "evidence")
    with pytest.raises(ZooError, match="seconds: 'long'"):
        write_report(clone / "out", clone / "evidence")
    assert not (clone / "out").exists()


def test_report_shows_every_part_and_names_every_record_it_shows(tmp_path: Path) -> None:
    html, markdown = (p.read_text() for p in write_report(tmp_path, EVIDENCE))
    for text in (html, markdown):
        for title in (
            "Choose a model",
            "Quality against cost",
            "Noise levels",
            "Frontiers per target",
            "Float, PTQ, QAT",
            "Files",
        ):
            assert title in text
        for record in Shelf(EVIDENCE).records:
            if record.kind in ("artifact", "latency", "photo", "crops"):
                assert record.path.stem.rpartition("-")[0] in text
        assert "fp16 headroom" in text and "65504" in text
    assert "evidence/latency/utnet-m-litert-int8-256-t1.json" in html
    artifact = json.loads((EVIDENCE / "artifacts" / "utnet-m-litert-int8-256.json").read_text())
    for fact in (artifact["sha256"][:12], artifact["weights_sha256"][:12], "CC BY-SA", "zoo export utnet-m"):
        assert fact in html and fact in markdown


def test_a_references_card_promises_no_int8() -> None:
    from zoo.report.cards import card

    text = card(Shelf(EVIDENCE), "utnet2")
    assert "zoo export utnet2 --target litert --precision fp16" in text and "## Training" in text
    assert "int8" not in text and "## Files" not in text
    assert "int8" in card(Shelf(EVIDENCE), "utnet-n")


def test_report_without_crops_leaves_the_part_out(tmp_path: Path) -> None:
    shutil.copytree(EVIDENCE, tmp_path / "evidence", ignore=shutil.ignore_patterns("crops"))
    html, _ = write_report(tmp_path / "out", tmp_path / "evidence")
    assert "before and after" not in html.read_text()


def test_report_of_little_evidence_has_gaps_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "evidence" / "photos").mkdir(parents=True)
    shutil.copy(next((EVIDENCE / "photos").glob("*.json")), tmp_path / "evidence" / "photos")
    html, _ = write_report(tmp_path / "out", tmp_path / "evidence")
    assert "No quality evidence" in html.read_text()


NEW = {
    "profile": {
        "artifact": "a.tflite", "model": "m", "target": "litert", "precision": "int8", "threads": 1,
        "machine": {"processor": "Host"},
        "operators": [{"operator": f"OP_{i}", "layer": f"l{i}", "us": {"min": 10.0 * i}, "share": i / 28} for i in range(8)],
    },
    "instructions": {
        "artifact": "b.tflite", "model": "m", "target": "litert", "precision": "int8",
        "machine": {"processor": "cortex-a53", "emulator": "qemu"}, "instructions": {"dot": 5, "total": 5},
        "millions_per_megapixel": {"dot": 1234.4, "scalar": 10.0, "total": 1244.4}, "useful_dot_share": 0.61,
    },
    "sensitivity": {
        "model": "m", "recipe": "qat", "weights_sha256": "0" * 64, "total_db": 19.6, "inputs": "synthetic scene",
        "costs": [{"name": f"n{i}", "kind": "layer", "own_db": 20.0, "alone_db": 30.0, "cost_db": i / 7} for i in range(8)],
    },
    "operators": {
        "target": "litert", "precision": "int8", "versions": {},
        "cells": {"prelu": {"result": "float", "snr_float_db": 33.4}, "gdn": {"result": "fails"}},
    },
    "phone": {
        "artifact": "c.tflite", "sha256": "0" * 64, "model": "m", "target": "litert", "precision": "int8", "threads": 1,
        "mode": "sustained", "device": {"manufacturer": "Make", "model": "One"}, "ms_per_megapixel": 44.4, "load_ms": 3.2,
        "ms": {"median": 11.25, "p10": 11.0, "p90": 12.0}, "sustained": {"throttling_ratio": 1.35}, "output": {"equal": True},
        "doubts": ["the battery is low"],
    },
}  # fmt: skip
SHOWN = {
    "profile": ("OP_7", "l7", "25%", "Host"),
    "instructions": ("1244", "61%", "dot 1234, scalar 10", "cortex-a53, emulated"),
    "sensitivity": ("n7", "1.00", "19.6 dB SNR", "m qat on synthetic scene"),
    "operators": ("**float** 33", "**fails**", "litert int8"),
    "phone": ("Make One", "11.25 (11.00-12.00)", "1.35x", "equal", "mind: the battery is low"),
}


@pytest.mark.parametrize("kind", NEW)
def test_kinds_that_came_later_are_shown(kind: str, tmp_path: Path) -> None:
    (tmp_path / "evidence" / kind).mkdir(parents=True)
    about = {"kind": kind, "command": "zoo x", "date": "2026-01-01"}
    (tmp_path / "evidence" / kind / "r.json").write_text(json.dumps(about | NEW[kind]))
    _, markdown = write_report(tmp_path / "out", tmp_path / "evidence")
    text = markdown.read_text()
    assert [word for word in SHOWN[kind] if word not in text] == [] and f"evidence/{kind}/r.json" in text
    if kind in ("profile", "sensitivity"):  # five rows only
        assert not any(word in text for word in ("OP_2", "n2`"))


def test_files_of_other_weights_say_so(tmp_path: Path) -> None:
    (tmp_path / "evidence" / "artifacts").mkdir(parents=True)
    name = "utnet-m-litert-int8-256.json"
    record = json.loads((EVIDENCE / "artifacts" / name).read_text()) | {"weights_sha256": "0" * 64}
    (tmp_path / "evidence" / "artifacts" / name).write_text(json.dumps(record))
    _, markdown = write_report(tmp_path / "out", tmp_path / "evidence")
    assert "000000000000: **not the weights that ship now**" in markdown.read_text()


def test_shipped_crops_are_small_and_of_the_weights_that_ship() -> None:
    shown = comparisons(EVIDENCE)
    assert len(shown) >= 4 and sum(len(c.before) + len(c.after) for c in shown) < LARGEST
    assert all(min(c.size) >= 200 for c in shown)


@pytest.fixture
def raws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one made-up noisy raw in place of the known ones."""
    mosaic = np.random.default_rng(0).normal(400, 25, (300, 280)).astype(np.uint16)
    about = {"black": 0, "white": 1000, "cfa": "RGGB", "wb": [1, 1, 1], "noise_profile": [4e-4, 5e-4], "iso": 800}
    folder = tmp_path / "raws"
    folder.mkdir()
    np.savez(folder / "mine.npz", mosaic=mosaic, meta=json.dumps(about))
    monkeypatch.setattr(crops, "KNOWN", (crops.Known("mine", (150, 140), "CC0"),))
    monkeypatch.setattr(crops, "SIDE", 96)
    return folder


def test_crops_are_denoised_and_recorded(raws: Path, tmp_path: Path) -> None:
    import io

    from PIL import Image

    from zoo.report.records import problems, read_records

    make_crops(tmp_path / "evidence" / "crops", raws)
    (record,) = read_records(tmp_path / "evidence")
    assert problems(record) == [] and record["crops"][0]["licence"] == "CC0"
    (shown,) = comparisons(tmp_path / "evidence")
    before, after = (np.asarray(Image.open(io.BytesIO(p)), np.float32) for p in (shown.before, shown.after))
    assert shown.size == (96, 96) and after.std() < 0.5 * before.std()


def test_crops_need_a_known_raw(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="holds none of gopr9231_crop"):
        make_crops(tmp_path / "out", tmp_path)
    with pytest.raises(ZooError, match="no such folder"):
        make_crops(tmp_path / "out", tmp_path / "nothing")


def test_missing_picture_is_named(tmp_path: Path) -> None:
    shutil.copytree(EVIDENCE / "crops", tmp_path / "evidence" / "crops")
    next((tmp_path / "evidence" / "crops").glob("*.webp")).unlink()
    with pytest.raises(ZooError, match=r"evidence/crops/crops\.json: .*repeat its command"):
        comparisons(tmp_path / "evidence")


def test_verb_writes_updates_and_checks(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(clone)
    assert main(["report", "--output-dir", "out", "--update", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"updated": [], "written": ["out/report.html", "out/report.md"]}
    assert main(["report"]) == 2
    assert "nothing to do; give --output-dir" in capsys.readouterr().err
    (clone / "docs" / "frontier.svg").write_text("")
    assert main(["report", "--check"]) == 2
    assert f"docs/frontier.svg: {HINT}" in capsys.readouterr().err


def test_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match=r"cannot be written .*; choose another --output-dir"):
        write_report(tmp_path / "file", EVIDENCE)


def test_the_card_of_a_demosaicing_network_says_that_it_knows_no_noise() -> None:
    text = (ROOT / "docs" / "models" / "utnet-demosaic.md").read_text()
    assert "passes S = O = 0" in text and "It needs the noise levels" not in text
    assert "--noise clean\n" in text
    assert "It needs the noise levels" in (ROOT / "docs" / "models" / "utnet-n.md").read_text()
