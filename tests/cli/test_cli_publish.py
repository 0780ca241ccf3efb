"""``zoo publish``, and ``--weights`` of the other verbs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from zoo import weights
from zoo.models.registry import create_model
from zoo.training.checkpoint import CHECKPOINT, LOG, read_checkpoint

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
    with weights.using_weights(own):
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
    assert "differs from its card; the file is damaged, publish the weights again" in err


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


@pytest.mark.parametrize("text", ["model: [", "- 1", "sha256: 3", "\udcff"])
def test_what_is_no_card(zoo, own, text):
    (own / f"{MODEL}.yaml").write_text(text, errors="surrogateescape")
    for verb in (["list"], ["show", MODEL], ["export", MODEL, "--target", "onnx"]):
        code, out, err = zoo(*verb, "--weights", own)
        assert (code, out) == (2, "")
        assert err == f"error: {own / MODEL}.yaml: is damaged, or no card of weights; publish the weights again\n"


def test_a_card_without_its_weights(zoo, own):
    (own / f"{MODEL}.yaml").write_text("model: utnet-n")  # a configuration of that name
    code, _, err = zoo("export", MODEL, "--target", "onnx", "--precision", "fp32", "--weights", own)
    assert code == 2 and f"no weights in {own}; make them with `zoo train` and put them there with `zoo publish`" in err


def test_a_run_of_fine_tuning_holds_no_float_weights(zoo, trained, tmp_path):
    tensors, meta = read_checkpoint(trained / CHECKPOINT)
    tensors["average.activation_post_process_0.scale"] = torch.ones(1)
    save_file(tensors, trained / CHECKPOINT, metadata={"run": json.dumps(meta)})
    code, _, err = zoo("publish", trained, "--output-dir", tmp_path / "x", "--licences", "mine")
    assert code == 2 and f"run: holds no float weights of {MODEL}; what `zoo quantize` made is published with" in err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["denoise", "x.dng", "-o", "x.tiff"], "utnet-m"),
        (["denoise", "x.dng", "-o", "x.tiff", "--model", "x.tflite"], "x.tflite"),
        (["compress", "x.dng", "-o", "x.rzc", "--denoiser", "utnet-m"], "bayer-codec-m, utnet-m"),
        (["export", "--target", "onnx"], "utnet-m"),
        (["quantize", "utnet-s", "--output-dir", "x"], "utnet-s"),
        (["evaluate", "menon", "utnet-l", "--data", ".", "--output-dir", "x"], "menon, utnet-l"),
    ],
)
def test_weights_of_none_of_the_models_asked_for(zoo, own, arguments, missing):
    code, _, err = zoo(*arguments, "--weights", own)
    assert code == 2 and err == f"error: {own}: holds {MODEL}, and nothing of {missing}; leave --weights out\n"


def test_artefacts_of_ones_own_lie_by_themselves(zoo, shipped, own, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["export", MODEL, "--target", "onnx", "--precision", "fp32", "--tile", 64]
    assert zoo(*command)[0] == zoo(*command, "--weights", own)[0] == 0
    name = f"{MODEL}-onnx-fp32-64.onnx"
    first, mine = tmp_path / "artifacts" / name, tmp_path / "artifacts" / "new" / name
    assert first.read_bytes() != mine.read_bytes()
    code, _, err = zoo("verify", mine)
    assert (
        code == 2
        and "was made from other weights than those that ship; export it again, or name its own in --weights" in err
    )
    assert zoo("verify", mine, "--weights", own)[0] == 0


def test_evidence_of_other_weights_is_not_replaced(zoo, shipped, own, tmp_path):
    (pictures := tmp_path / "pictures").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (224, 240, 3), np.uint8)).save(pictures / "one.png")
    command = ["evaluate", MODEL, "--data", pictures, "--noise", "iso800", "--output-dir", tmp_path / "quality"]
    assert zoo(*command)[0] == 0
    code, _, err = zoo(*command, "--weights", own)
    assert code == 2 and f"is of other weights of {MODEL}; give another --output-dir, or --fresh to replace it" in err
    rank = ["evaluate", "--leaderboard", "--output-dir", tmp_path / "quality"]
    assert "0.003k steps" not in zoo(*rank, "--weights", own)[1]  # whose card is not of what was measured
    assert zoo(*command, "--weights", own, "--fresh")[0] == 0
    assert "0.003k steps" in zoo(*rank, "--weights", own)[1]
    assert "0.003k steps" not in zoo(*rank)[1]


def test_in_python(own):
    import zoo

    (own / "deeper").mkdir()
    with zoo.using_weights(str(own)):
        assert weights.path(MODEL).parent == own
    with zoo.using_weights(own / "deeper" / ".."):  # whose artefacts lie below artifacts/ all the same
        assert weights.label() == own.name
    assert weights.path(MODEL).parent == weights.FOLDER


def test_int8_without_its_libraries(zoo, monkeypatch, tmp_path):
    monkeypatch.setattr("quantize.find_spec", lambda name: None if name == "torchao" else object())
    for arguments in (["quantize", MODEL], ["publish", "--quantized", "x"]):
        code, _, err = zoo(*arguments, "--output-dir", tmp_path / "x")
        assert (code, err) == (2, "error: int8 needs torchao; install it with: pip install 'raw-zoo[quantize]'\n")


def test_int8_of_before_goes_with_its_float_weights(zoo, trained, own):
    stale = own / weights.path(MODEL, quantized=True).name
    stale.write_bytes(b"of before")
    card = yaml.safe_load((own / f"{MODEL}.yaml").read_text())
    card["sha256"][stale.name] = hashlib.sha256(b"of before").hexdigest()
    (own / f"{MODEL}.yaml").write_text(yaml.safe_dump(card))
    for known in (True, False):
        with weights.using_weights(own):
            facts = weights.card(MODEL)
            assert weights.listed(weights.path(MODEL), facts) and weights.listed(stale, facts) is known
        (row,) = json.loads(zoo("list", MODEL, "--weights", own, "--json")[1])
        assert row["weights"] == ["fp32", "int8"][: 1 + known]
        files = json.loads(zoo("show", MODEL, "--weights", own, "--json")[1])["weights"]
        assert [Path(file["file"]).name for file in files] == [f"{MODEL}.safetensors", stale.name][: 1 + known]
        assert zoo("publish", trained, "--output-dir", own)[0] == 0  # its card says what the pictures' licences are


def test_what_cannot_be_published(zoo, trained, own, tmp_path):
    there = ["--output-dir", tmp_path / "there"]
    log = (trained / LOG).read_text()
    for arguments, message in (
        ([], "nothing to publish; give the folder of a run, or --quantized FILE"),
        ([trained], "no card knows the pictures that it was trained on; give --licences TEXT"),
        ([tmp_path], f"{CHECKPOINT}"),
        (["--quantized", trained / LOG], "is damaged or not a quantised model"),
        (["--quantized", trained], "is damaged or not a quantised model"),
        (["--quantized", trained / LOG, "--licences", "x"], "belong to a run; leave them out"),
        ([trained, "--quantized", trained / LOG], "give a run or --quantized FILE"),
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
