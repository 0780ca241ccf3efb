"""`zoo evaluate` from its arguments to its table, JSON and evidence."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys

import pytest
import torch
from torch import nn

from zoo.cli import evaluate, methods
from zoo.errors import ZooError
from zoo.evaluation.records import QualityRecord
from zoo.inference.runner import TorchRunner


@pytest.fixture
def zoo(pictures_dir, tmp_path, monkeypatch):
    """Runs the verb; returns the folder of evidence."""
    threads = torch.get_num_threads()

    def run(*words: str, json: bool = False):
        parser = argparse.ArgumentParser()
        evaluate.add_parser(parser.add_subparsers(), "")
        arguments = ["evaluate", "--data", str(pictures_dir), "--output-dir", str(tmp_path / "evidence"), *words]
        args = parser.parse_args(arguments)
        args.json = json
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/zoo", *arguments])
        evaluate.run(args)
        return tmp_path / "evidence"

    yield run
    torch.set_num_threads(threads)


def test_evidence_and_table(zoo, capsys):
    folder = zoo("menon", "malvar", "--noise", "clean,iso800", "--sets", "kodak,mine", "--limit", "1")
    names = [f"bayer-{m}-classical-fp64-{level}.json" for m in ("malvar", "menon") for level in ("clean", "iso800")]
    assert sorted(p.name for p in folder.iterdir()) == names
    found = QualityRecord.load(folder / "bayer-menon-classical-fp64-iso800.json")
    assert set(found.images) == {"kodak/kodak_01", "mine/holiday"}
    assert (
        found.command.startswith("zoo evaluate ")
        and found.machine["threads"] == 1
        and found.versions["colour-demosaicing"]
    )
    text = capsys.readouterr().out
    assert "malvar" in text and "overall" in text and f"{found.summary()['overall']['mean']['psnr']:.2f}" in text


def test_json_is_all_that_is_printed(zoo, capsys):
    zoo("menon", "--noise", "clean", "--sets", "kodak", json=True)
    captured = capsys.readouterr()
    (result,) = json.loads(captured.out)
    assert result["name"] == "menon" and result["summary"]["kodak"]["images"] == 2 and not captured.err
    assert QualityRecord.load(zoo("menon", "--noise", "clean") / "bayer-menon-classical-fp64-clean.json")


def test_models_go_through_the_runtime_that_is_asked_for(zoo, monkeypatch, tmp_path):
    from zoo import weights
    from zoo.cli import runtimes

    class Zero(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(x.shape[0], 12, *x.shape[2:])

    class Int8(TorchRunner):
        target, precision = "integer", "int8"

    asked = []

    def open_runner(*args):
        asked.append(args)
        return args[0], Int8(Zero())

    (tmp_path / "qat").write_bytes(b"weights")
    monkeypatch.setattr(runtimes, "open_runner", open_runner)
    monkeypatch.setattr(weights, "verified", lambda name, quantized: tmp_path / "qat" if quantized else None)
    folder = zoo("utnet-m", "--target", "integer", "--precision", "int8", "--noise", "iso800", "--limit", "1")
    assert asked == [("utnet-m", "integer", "int8", None, 1)]
    found = QualityRecord.load(folder / "bayer-utnet-m-integer-int8-iso800.json")
    assert found.weights_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert found.summary()["overall"]["mean"]["psnr"] > 20


@pytest.mark.parametrize("made_from", ["these", "older"])
def test_artefacts_of_older_weights_are_refused(made_from, monkeypatch):
    import export

    class Artefact(TorchRunner):
        target, precision, tile = "litert", "int8", 64

    module = argparse.Namespace(SUFFIX="tflite", read_metadata=lambda path: {"weights_sha256": made_from})
    monkeypatch.setattr(export, "target_module", lambda target: module)
    if made_from == "these":
        methods.check_artefact("utnet-m", Artefact(nn.Identity()), "these")
    else:
        with pytest.raises(ZooError, match=r"utnet-m-litert-int8-64\.tflite: was exported from other weights"):
            methods.check_artefact("utnet-m", Artefact(nn.Identity()), "these")


def test_demosaic_from_arguments_to_evidence(zoo, capsys):
    folder = zoo("menon", "--benchmark", "demosaic", "--sets", "kodak", "--limit", "1", json=True)
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["benchmark"], result["level"], result["edge"]) == ("demosaic", "clean", {})
    assert result["cost"]["ms_per_mp"] > 0
    found = QualityRecord.load(folder / "demosaic-menon-classical-fp64-clean.json")
    assert set(found.images) == {"kodak/kodak_01"} and (found.shot, found.read) == (0, 0)
    zoo("menon", "--benchmark", "demosaic", "--sets", "kodak")
    assert "MTF50" not in (text := capsys.readouterr().out) and "MS-SSIM" in text


def test_leaderboard_from_arguments_to_plot(zoo, capsys, tmp_path, monkeypatch):
    zoo("menon", "malvar", "--limit", "1", "--sets", "kodak")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    # No --data and no names here: it reads evidence only.
    zoo("--leaderboard")
    text = capsys.readouterr().out
    assert "1 picture that the rows share (1 kodak)" in text and text.index("menon") < text.index("malvar")
    assert "plot" not in text and {p.name for p in tmp_path.iterdir()} == {"evidence", "pictures"}
    zoo("--leaderboard", json=True)
    assert json.loads(capsys.readouterr().out)["plot"] is None
    plot = tmp_path / "deep" / "board.svg"
    zoo("--leaderboard", "--plot", str(plot))
    assert f"plot: {plot}" in capsys.readouterr().out.splitlines()
    assert ">Menon 2007<" in plot.read_text() and "evidence/bayer-menon-classical-fp64-" in plot.read_text()
    zoo("--leaderboard", "--plot", str(plot), json=True)
    board = json.loads(capsys.readouterr().out)
    assert board["plot"] == str(plot)
    assert [row["name"] for row in board["rows"]] == ["menon", "malvar"]
    assert board["rows"][0]["ms_per_mp"] > 0 and board["rows"][0]["mtf50"].keys() == board["rows"][0]["psnr"].keys()
    with pytest.raises(ZooError, match=r"board\.png: the leaderboard is drawn as SVG"):
        zoo("--leaderboard", "--plot", str(tmp_path / "board.png"))
    with pytest.raises(ZooError, match=r"board\.svg: cannot be written .*choose another --plot"):
        zoo("--leaderboard", "--plot", str(plot / "board.svg"))
    for path in (tmp_path / "evidence").glob("*-iso800.json"):
        path.unlink()
    with pytest.raises(ZooError, match="evidence: nothing to draw, as no method was measured at iso800, iso3200"):
        zoo("--leaderboard", "--plot", str(plot))


def test_quantised_files_are_ranked_here_and_not_in_the_readme(zoo, capsys, tmp_path):
    from zoo.report.tables import render

    folder = zoo("menon", "--limit", "1", "--sets", "kodak")
    for path in list(folder.iterdir()):
        found = QualityRecord.load(path)
        found.name, found.target, found.precision = "utnet-m", "integer", "int8-ptq"
        found.save(folder)
    folder.rename(tmp_path / "quality")
    assert "int8-ptq" not in render("leaderboard", tmp_path)
    capsys.readouterr()
    zoo("--leaderboard", "--output-dir", str(tmp_path / "quality"))
    assert "utnet-m int8-ptq" in capsys.readouterr().out


def test_models_record_what_they_cost(zoo, monkeypatch, tmp_path):
    from zoo import weights
    from zoo.cli import runtimes
    from zoo.models.registry import get_spec

    class Zero(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(x.shape[0], 12, *x.shape[2:])

    (tmp_path / "w").write_bytes(b"")
    monkeypatch.setattr(runtimes, "open_runner", lambda *args: (args[0], TorchRunner(Zero())))
    monkeypatch.setattr(weights, "verified", lambda name, quantized: tmp_path / "w")
    folder = zoo("utnet-m", "--benchmark", "demosaic", "--limit", "1", "--sets", "kodak")
    found = QualityRecord.load(folder / "demosaic-utnet-m-torch-fp32-clean.json")
    spec = get_spec("utnet-m")
    assert found.cost == {"params": spec.params, "gmac_per_mp": spec.gmac_per_mp}


def test_pictures_have_to_be_given(tmp_path):
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers(), "")
    with pytest.raises(ZooError, match="no pictures to measure on"):
        evaluate.run(parser.parse_args(["evaluate", "menon", "--output-dir", str(tmp_path)]))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["mennon"], "did you mean 'menon'"),
        (["menon", "utnet-mm"], "did you mean 'utnet-m'"),
        (["menon", "--noise", "iso80"], "did you mean 'iso800'"),
        (["menon", "--sets", "kodac"], "did you mean 'kodak'"),
        (["menon", "--sets", ","], "--sets names no set in ','; give one, as in --sets kodak, or leave --sets out"),
        (["menon", "--benchmark", "bayern"], "did you mean 'bayer'"),
        (["menon", "--benchmark", "blnid"], "did you mean 'blind'"),
        (["menon", "--benchmark", "pairs"], "holds no noisy/clean pairs"),
        (["menon", "--benchmark", "blind"], "holds no raw"),
        (["menon", "--benchmark", "blind", "--noise", "clean"], "leave --noise out"),
        (["menon", "--benchmark", "demosaic", "--noise", "iso800"], "demosaic has no noise level 'iso800'.*clean"),
        (["menon", "--plot", "x.png"], "add --leaderboard"),
        (["menon", "--leaderboard"], "leave menon out"),
        (["--leaderboard"], "holds no evidence of the benchmark bayer"),
        (["--leaderboard", "--benchmark", "demosaic"], "'demosaic' has no leaderboard; .*bayer .*rate-distortion"),
        (["--leaderboard", "--benchmark", "pairs"], "'pairs' has no leaderboard"),
        ([], "nothing to measure"),
        (["menon", "--limit", "0"], "--limit is 1 or more"),
        (["menon", "--threads", "0"], "--threads is 1 or more"),
    ],
)
def test_mistakes_are_one_line_and_measure_nothing(zoo, words, problem, tmp_path):
    with pytest.raises(ZooError, match=problem):
        zoo(*words)
    assert not (tmp_path / "evidence").exists()
