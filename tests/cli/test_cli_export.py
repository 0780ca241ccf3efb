"""`zoo export`, `zoo verify`, `zoo benchmark` and `zoo quantize` as a user types them."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from export import ExportResult
from zoo import weights
from zoo.cli import main
from zoo.models.registry import create_model


def test_export_then_verify_then_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "out")
    assert main(["export", "utnet-n", "--target", "litert", "--tile", "64", "--output-dir", folder, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    artefact = tmp_path / "out" / record["path"]
    assert artefact.name == "utnet-n-litert-int8-64.tflite"
    assert main(["verify", str(artefact)]) == 0
    assert "equal against integer" in capsys.readouterr().out
    arguments = [
        "benchmark",
        str(artefact),
        "--num-runs",
        "5",
        "--warmup-runs",
        "1",
        "--record",
        str(tmp_path / "ev"),
        "--json",
    ]
    assert main(arguments) == 0
    (timed,) = json.loads(capsys.readouterr().out)
    assert timed["ms"]["min"] <= timed["ms"]["median"]
    assert json.loads((tmp_path / "ev" / "utnet-n-litert-int8-64-t1.json").read_text())["kind"] == "latency"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "utnet-mm", "--target", "coreml"], "did you mean 'utnet-m'"),
        (["export", "--target", "onxx"], "unknown target 'onxx'"),
        (["export", "--target", "litert", "--precision", "int4"], "did you mean 'int8'"),
        (["verify", "nothing.tflite"], "no such artefact"),
        (["verify", "nothing.tflite", "--data", "nowhere"], "nowhere: no folder with raw/"),
        # Before the first of the targets is written.
        (["export", "utnet-n", "--target", "litert", "--target", "bogus"], "unknown target 'bogus'"),
        (["export", "utnet-n", "--target", "darktable", "--target", "onnx", "--tile", "100"], "a multiple of 8"),
        (["export", "utnet-n", "--target", "litert", "--data", "nowhere"], "nowhere: no folder with raw/"),
        (["export", "utnet-n", "--target", "litert", "--noise", "clean"], "--noise is for --target darktable"),
        (["export", "utnet-n", "--target", "litert", "--record", "/dev/null/x"], "give another --record"),
        (["benchmark", "utnet-m"], "with --target"),
        (["benchmark", "utnet-m", "--target", "litert", "--threads", "two"], "is not a list of numbers"),
        (["quantize", "utnet-n", "--data", "nowhere", "--output-dir", "x"], "no such folder of training pictures"),
        (["quantize", "utnet-n", "--output-dir", "x"], "no such folder of training pictures; give one with --data"),
        (["quantize", "utnet-n", "--weights", "nothing.safetensors", "--output-dir", "x"], "no such weights"),
        (["train", "--config", "nothing.yaml", "--output-dir", "x"], "no such configuration file"),
        (["train", "--config", ".", "--output-dir", "x"], "cannot be read (Is a directory)"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seconds", "signals"), [(1000.0, 1), (0.0, 2)])
def test_a_stop_that_a_library_swallowed_takes_effect(
    seconds: float, signals: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end of the verb, and at the next signal once half-written files have had their time."""
    came = []

    def swallow(name: str) -> dict[str, str]:
        for _ in range(2):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException as error:
                came.append(error)
        return {}

    monkeypatch.setattr(sys.modules["zoo.cli.main"], "_UNWINDING_S", seconds)
    monkeypatch.setattr(weights, "card", swallow)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert main(["list", "utnet-n"]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(came) == signals
    assert capsys.readouterr().err == "error: stopped by SIGTERM\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.tflite", b"not a model"), ("x.tflite", b"\x20\0\0\0TFL3"), ("x.pte", b"\x24\0\0\0ET12")],
)
def test_damaged_artefact_is_refused(
    name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["verify", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert f"{name} is not a readable" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("made_for", "message"),
    [("", "is no readable safetensors file"), ("utnet-s", "holds no weights of utnet-m (")],
)
def test_weights_that_cannot_be_quantised_are_refused(
    made_for: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of a smaller network too, from which training could start."""
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"half a file")
    if made_for:
        save_file({k: v.contiguous() for k, v in create_model(made_for).state_dict().items()}, file)
    assert main(["quantize", "utnet-m", "--weights", str(file), "--output-dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{file}: {message}" in error
    assert error.count("\n") == 1
    assert len(error) < 400
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("prefix", ["", "average."])
def test_a_compressors_own_weights_are_tied_before_they_are_quantised(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's checkpoint holds the layer that gives colours again as it was drawn: only `zoo publish` ties it."""
    torch.manual_seed(0)
    trained, taken = create_model("bayer-codec-s"), []
    save_file({prefix + k: v.contiguous() for k, v in trained.state_dict().items()}, tmp_path / "w.safetensors")
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    monkeypatch.setattr("zoo.cli.train.read_pool", lambda folder, patch: None)
    monkeypatch.setattr("quantize.codec.post_training_halves", lambda name, model, *_: taken.append(model) or {})
    options = ["--recipe", "ptq", "--weights", str(tmp_path / "w.safetensors"), "--output-dir", str(tmp_path)]
    assert main(["quantize", "bayer-codec-s", *options]) == 0
    given = trained.get_submodule("decoder.again").weight.clone()
    trained.tie_decoder()  # type: ignore[operator]
    (model,) = taken
    assert not torch.equal(given, trained.get_submodule("decoder.again").weight)
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("targets", [["darktable"], ["darktable", "onnx"], ["onnx"]])
def test_json_of_an_export_is_one_document(
    targets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exported(name: str, *, target: str, **_: object) -> ExportResult:
        return ExportResult(tmp_path / target, name, target, "int8", 64, 1, "", "", {}, {})

    monkeypatch.setattr("export.export", exported)
    monkeypatch.setattr("export.darktable.package", lambda name, **_: {"target": "darktable"})
    words = [word for target in targets for word in ("--target", target)]
    assert main(["export", "utnet-n", *words, "--json"]) == 0
    assert [record["target"] for record in json.loads(capsys.readouterr().out)] == targets
