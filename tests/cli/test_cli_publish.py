"""``zoo publish``, and ``--weights`` of the other verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zoo import weights
from zoo.models.registry import create_model
from zoo.training.checkpoint import CHECKPOINT, LOG

MODEL = "utnet-n"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Folder of a finished run."""
    (folder := tmp_path / "run").mkdir()
    torch.manual_seed(1)
    meta = {"step": 3, "seconds": 9.0, "config": {"model": MODEL, "steps": 3}, "data_sha256": "0", "device": "CPU"}
    state = {f"average.{n}": t.contiguous() for n, t in create_model(MODEL).state_dict().items()}
    save_file(state, folder / CHECKPOINT, metadata={"run": json.dumps(meta)})
    (folder / LOG).write_text(json.dumps({"psnr": {"mean": 31.0}}) + "\n")
    return folder


@pytest.fixture
def own(zoo, trained: Path, tmp_path: Path) -> Path:
    """Folder of its weights."""
    code, out, _ = zoo("publish", trained, "--output-dir", tmp_path / "own" / "new", "--licences", "mine")
    assert (code, out.split()) == (0, [str(tmp_path / "own" / "new" / f"{MODEL}.safetensors")])
    return tmp_path / "own" / "new"


def test_verbs_run_weights_of_ones_own(zoo, shipped, own, photo, tmp_path):
    rows = json.loads(zoo("list", "utnet-*", "--weights", own, "--json")[1])
    assert {row["name"]: row["psnr_db"] for row in rows if row["weights"]} == {MODEL: 31.0}
    facts = json.loads(zoo("show", MODEL, "--weights", own, "--json")[1])
    assert facts["card"]["data"]["licences"] == "mine"
    assert facts["card"]["sha256"][f"{MODEL}.safetensors"] == facts["weights"][0]["sha256"]
    for name, arguments in (("shipped", []), ("own", ["--weights", own]), ("again", [])):
        command = ["denoise", photo(), "--model", MODEL, "--threads", 1, "-o", tmp_path / f"{name}.tiff"]
        assert zoo(*command, *arguments)[0] == 0
    first, mine, again = ((tmp_path / f"{name}.tiff").read_bytes() for name in ("shipped", "own", "again"))
    assert first == again != mine


def test_models_that_it_has_not_are_those_that_ship(own):
    with weights.using(own):
        assert weights.path(MODEL).parent == own
        assert weights.path("utnet-m").parent == weights.FOLDER
        assert weights.verified("utnet-m", quantized=True)
    assert weights.path(MODEL).parent == weights.FOLDER


@pytest.mark.parametrize(
    "verb",
    [
        ["export", "--target", "onnx", "--precision", "fp32"],
        ["benchmark", "--target", "onnx", "--precision", "fp32"],
        ["quantize", "--output-dir", "x"],
        ["evaluate", "--data", ".", "--output-dir", "x"],
    ],
)
def test_damaged_ones_are_refused(zoo, own, monkeypatch, tmp_path, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").touch()
    with (own / f"{MODEL}.safetensors").open("ab") as file:
        file.write(b"more")
    code, _, err = zoo(verb[0], MODEL, *verb[1:], "--weights", own)
    assert code == 2
    assert "differs from its card; the file is damaged, publish it again" in err


def test_what_is_no_folder_of_weights_is_refused(zoo, trained, own, tmp_path):
    for path, message in (
        (tmp_path / "none", "none: no such folder; give the folder that `zoo publish RUN --output-dir DIR` wrote"),
        (own / f"{MODEL}.yaml", f"{MODEL}.yaml: is a file; give the folder"),
        (trained, "run: holds no weights with a card; write them with `zoo publish"),
    ):
        code, out, err = zoo("list", "--weights", path)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    code, _, err = zoo("evaluate", MODEL, "--weights", own, "--data", tmp_path)
    assert code == 2 and "give evidence of --weights an --output-dir of its own" in err


def test_what_cannot_be_published(zoo, trained, own, tmp_path):
    there = ["--output-dir", tmp_path / "there"]
    log = (trained / LOG).read_text()
    for arguments, message in (
        ([], "nothing to publish; give the folder of a run, or --quantized FILE"),
        ([trained], "no card knows the pictures that it was trained on; give --licences TEXT"),
        ([tmp_path], f"{CHECKPOINT}"),
        (["--quantized", trained / LOG], "is damaged or not a quantised model"),
        (["--quantized", trained / LOG, "--licences", "x"], "belong to a run; leave them out"),
        (["--quantized", weights.path(MODEL, quantized=True)], "there: holds no float weights of utnet-n"),
    ):
        code, out, err = zoo("publish", *arguments, *there)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    for damaged in ("", "{", "{}\n"):
        (trained / LOG).write_text(damaged)
        code, _, err = zoo("publish", trained, "--licences", "x", *there)
        assert code == 2 and f"{LOG}: is missing or damaged" in err
    assert not (tmp_path / "there").exists()
    (trained / LOG).write_text(log)
    code, _, err = zoo("publish", "--quantized", weights.path(MODEL, quantized=True), "--output-dir", own)
    assert code == 2 and "was made from other float weights than utnet-n has" in err
