"""`zoo export`, `zoo verify`, `zoo benchmark` and `zoo quantize` as a user types them."""

import json
from pathlib import Path

import pytest

from zoo.cli import main


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
        (["benchmark", "utnet-m"], "with --target"),
        (["benchmark", "utnet-m", "--target", "litert", "--threads", "two"], "is not a list of numbers"),
        (["quantize", "utnet-n", "--data", "nowhere", "--output-dir", "x"], "no such folder of training pictures"),
        (["train", "--config", "nothing.yaml", "--output-dir", "x"], "no such configuration file"),
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


def test_damaged_artefact_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.tflite").write_bytes(b"not a model")
    assert main(["verify", str(tmp_path / "x.tflite")]) == 2
    assert "x.tflite" in capsys.readouterr().err
