"""`zoo evaluate --benchmark rate-distortion` from its arguments to table, plot, JSON and evidence."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from quantize.codec import post_training_halves
from quantize.publish import publish_quantized
from zoo import weights
from zoo.baselines import codecs
from zoo.cli import evaluate
from zoo.data.pool import ImagePool
from zoo.errors import ZooError
from zoo.evaluation.rate_records import RateRecord
from zoo.evaluation.records import sha256
from zoo.models.registry import create_model
from zoo.training.config import TrainConfig


@pytest.fixture
def zoo(pictures_dir, tmp_path, monkeypatch):
    """Runs the verb on one picture of Kodak; returns the folder of evidence."""
    threads = torch.get_num_threads()

    def run(*words: str, json: bool = False, data: bool = True):
        parser = argparse.ArgumentParser()
        evaluate.add_parser(parser.add_subparsers(), "")
        arguments = ["evaluate", "--benchmark", "rate-distortion", "--output-dir", str(tmp_path / "evidence"), *words]
        if data:
            arguments += ["--data", str(pictures_dir), "--sets", "kodak", "--limit", "1"]
        args = parser.parse_args(arguments)
        args.json = json
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/zoo", *arguments])
        evaluate.run(args)
        return tmp_path / "evidence"

    yield run
    torch.set_num_threads(threads)


def test_evidence_says_what_was_run(zoo, capsys):
    folder = zoo("jpeg+menon", "webp+nlm+menon", "raw-ljpeg", "--noise", "iso800")
    names = ["jpeg+menon-codec-uint8", "raw-ljpeg-codec-lossless", "webp+nlm+menon-codec-uint8"]
    assert sorted(p.name for p in folder.iterdir()) == [f"rate-distortion-{n}-iso800.json" for n in names]
    found = RateRecord.load(folder / f"rate-distortion-{names[2]}-iso800.json")
    assert list(found.images) == ["kodak/kodak_01"] and (found.shot, found.read) == (1.2e-3, 9.4e-6)
    source = found.settings["source"]
    assert (source["name"], source["target"]) == ("nlm+menon", "classical") and source["settings"]["h"] == 1.0
    assert found.settings["codec"]["chroma"].startswith("4:2:0") and "colour-demosaicing" in found.licence
    assert found.versions["imagecodecs"] and found.versions["raw-zoo"] and found.machine["threads"] == 1
    assert found.command.startswith("zoo evaluate ") and found.date
    text = capsys.readouterr().out
    assert "webp+nlm+menon" in text and "raw-ljpeg: the mosaic itself, 12 / 14 bits" in text
    assert "s of CPU time per picture and level" in text


def test_bd_rate_against_an_anchor_that_was_measured_before(zoo, capsys, tmp_path):
    zoo("jpegxl+menon", "--noise", "clean")
    capsys.readouterr()
    plot = tmp_path / "plot.png"
    zoo("avif+menon", "--noise", "clean", "--plot", str(plot), json=True)
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert [r["name"] for r in result["rows"]] == ["jpegxl+menon", "avif+menon"] and not captured.err
    against = result["rows"][1]["psnr against jpegxl+menon"]
    assert against["bd_rate"] is not None and abs(against["bd_rate"] - against["bd_rate_of_pictures"]) < 1e-3
    assert result["plot"] == str(plot) and plot.read_bytes()[:4] == b"\x89PNG" and plot.stat().st_size < 200_000


def test_leaderboard_reads_evidence_only(zoo, capsys, tmp_path, monkeypatch):
    zoo("jpeg+menon", "--noise", "clean,iso12800")
    capsys.readouterr()
    zoo("--leaderboard", "--plot", str(tmp_path / "x.svg"), data=False)
    text = capsys.readouterr().out
    assert text.index("clean") < text.index("iso12800") and f"plot: {tmp_path / 'x.svg'}" in text
    monkeypatch.chdir(tmp_path)
    zoo("--leaderboard", data=False)  # the README's picture is drawn without being asked for
    assert (tmp_path / "docs" / "rate-distortion.png").read_bytes()[:4] == b"\x89PNG"


def test_peers_are_all_that_can_run_and_the_rest_is_one_line(zoo, capsys, monkeypatch, tmp_path):
    from zoo.cli import rates

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rates, "DEVELOPERS", ("malvar", "menon"))
    few = {name: codecs.get_codec(name) for name in ("jpeg", "bpg", "jpegxs")}
    monkeypatch.setattr(codecs, "_CODECS", few)
    folder = zoo("peers", "--noise", "clean")
    captured = capsys.readouterr()
    assert {p.name.split("-")[2] for p in folder.iterdir()} == {"jpeg+malvar", "jpeg+menon", "raw"}
    said = [line for line in captured.err.splitlines() if line.startswith("not measured: ")]
    assert len(said) == 1 and "BPG needs bpgenc and bpgdec on PATH; JPEG XS needs" in said[0] and "VC-5" in said[0]


def test_networks_develop_with_their_shipped_weights(zoo):
    folder = zoo("jpeg+utnet-n", "--noise", "iso3200")
    found = RateRecord.load(folder / "rate-distortion-jpeg+utnet-n-codec-uint8-iso3200.json")
    assert found.weights_sha256 == found.settings["source"]["weights_sha256"] == sha256(weights.path("utnet-n"))
    assert (found.settings["source"]["target"], found.settings["source"]["precision"]) == ("torch", "fp32")


def test_our_compressors_are_measured_in_float_and_int8(
    zoo, compressor, compressor_weights, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "weights"
    shutil.copytree(compressor_weights, folder)
    monkeypatch.setattr(weights, "FOLDER", folder)
    monkeypatch.setattr("quantize.codec.CALIBRATION_BATCHES", 2)
    pool = ImagePool([(torch.rand(200, 200, 3) * 15000).to(torch.int32).to(torch.uint16)], "")
    config = TrainConfig(model=compressor, batch=2, patch=64)
    halves = post_training_halves(compressor, create_model(compressor, pretrained=True), pool, config)
    for quantised in halves.values():
        publish_quantized(quantised.save(tmp_path), folder)
    stranger = dataclasses.replace(quantised, facts=quantised.facts | {"start_sha256": "0"})
    with pytest.raises(ZooError, match="made from other float weights"):
        publish_quantized(stranger.save(tmp_path / "other"), folder)
    evidence = zoo(compressor, "--noise", "clean")
    found = RateRecord.load(evidence / f"rate-distortion-{compressor}-torch-fp32-clean.json")
    points = found.images["kodak/kodak_01"].points
    assert points["bytes"] == sorted(set(points["bytes"])) and len(points["bytes"]) == 8
    assert points["psnr"] == sorted(points["psnr"])
    assert found.weights_sha256 == sha256(weights.path(compressor))
    zoo(f"{compressor}+utnet-n", "--noise", "clean")
    behind = RateRecord.load(evidence / f"rate-distortion-{compressor}+utnet-n-torch-fp32-clean.json")
    assert behind.settings["source"]["weights_sha256"] == sha256(weights.path("utnet-n"))
    assert behind.weights_sha256 == found.weights_sha256 and "source" not in found.settings
    own = behind.images["kodak/kodak_01"]
    assert own.develop_seconds > 0 and own.points["bytes"] != points["bytes"]
    capsys.readouterr()
    zoo(compressor, "--noise", "clean", "--target", "integer")
    assert f"{compressor} integer int8 against the same in float: clean " in capsys.readouterr().out
    quantised = RateRecord.load(evidence / f"rate-distortion-{compressor}-integer-int8-clean.json")
    assert quantised.settings["codec"]["halves_sha256"] == [
        sha256(weights.path(compressor, quantized=True, half=half)) for half in halves
    ]
    error = np.array(quantised.images["kodak/kodak_01"].points["psnr"]) - points["psnr"]
    assert (np.abs(error) < 1).all() and (error != 0).all()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["jpegxl"], r"say what develops the raw before it, as in jpegxl\+menon"),
        (["bayer-codec-m+"], r"names nothing before the codec; say what, as in bayer-codec-m\+utnet-m"),
        (["jpegxl+mennon"], "did you mean 'menon'"),
        (["jpeg+menon", "bpg+menon"], "BPG needs bpgenc and bpgdec on PATH"),
        (["jpeg+menon", "--noise", "iso80"], "rate-distortion has no noise level 'iso80'; did you mean 'iso800'"),
        (["jpeg+menon", "--target", "litert"], r"jpeg\+menon knows no runtimes, .*; leave --target out"),
        (["bayer-codec-m", "--quantized", "x"], "runs shipped weights; leave --quantized out"),
        (["utnet-m"], "utnet-m .*compress"),
        (["jpeg+menon", "--plot", "x.gif"], r"x\.gif: plots are \.png or \.svg"),
        (["jpeg+menon", "--leaderboard"], r"leave jpeg\+menon out"),
        (["--leaderboard"], "holds no evidence of rate-distortion"),
        ([], "nothing to measure"),
    ],
)
def test_mistakes_are_one_line_and_measure_nothing(zoo, words, problem, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ZooError, match=problem):
        zoo(*words)
    assert not (tmp_path / "evidence").exists()


def test_a_selection_of_nothing_is_refused(zoo, pictures_dir, tmp_path):
    with pytest.raises(ZooError, match=r"--sets names no set in ','; give one"):
        zoo("jpeg+menon", "--data", str(pictures_dir), "--sets", ",", data=False)
    assert not (tmp_path / "evidence").exists()


def test_unknown_codecs_are_told_the_known_ones(zoo):
    with pytest.raises(
        ZooError, match=r"unknown codec 'jpegg\+menon'; there are jpeg, .* raw-ljpeg, peers and compressors"
    ):
        zoo("jpegg+menon")


def test_a_denoiser_is_no_codec(zoo):
    with pytest.raises(ZooError, match="utnet-m"):
        zoo("utnet-m")
