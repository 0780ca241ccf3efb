"""Per-operator time: every runtime's profiler names the network's layers, and the shares are those of the times."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export import export, profilers
from export.benchmark import _fresh_process_rss
from export.profile import layers, profile
from zoo.errors import ZooError
from zoo.models.registry import create_model

MODEL, TILE = "utnet-n", 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


def _artefact(folder: Path, target: str, precision: str) -> Path:
    if target == "executorch" and (sys.platform != "linux" or shutil.which("cc") is None):
        pytest.skip("timing ExecuTorch's operators needs Linux and a C compiler")
    return export(MODEL, target=target, precision=precision, tile=TILE, output_dir=folder).path


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("target", list(profilers.METHODS))
def test_every_convolution_is_found_once_with_its_layer(target: str, precision: str, folder: Path) -> None:
    record = profile(_artefact(folder, target, precision), warmup_runs=1, num_runs=5)
    model = create_model(MODEL)
    names = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)}
    rows = [row for row in record["operators"] if "onv" in row["operator"] and "Convert" not in row["operator"]]
    assert sorted(row["layer"] for row in rows) == sorted(names)
    assert all(len(row["shape"]) == 3 for row in record["operators"])
    assert sum(row["share"] for row in record["operators"]) == pytest.approx(1, abs=0.01)
    assert sum(row["us"]["min"] for row in record["operators"]) == pytest.approx(1000 * record["sum_ms"], abs=1)
    assert record["sum_ms"] <= record["wall_ms"]["p90"] * 1.05
    slowest = [row["share"] for row in record["slowest"]]
    assert len(slowest) == 5
    assert slowest == sorted((row["share"] for row in record["operators"]), reverse=True)[:5]
    assert len(record["sha256"]) == 64
    assert {"processor", "cores", "governor", "load_average"} <= record["machine"].keys()


def test_layers_are_counted_as_the_catalogue_counts_them() -> None:
    from zoo.models.registry import get_spec

    found, shape = layers({"model": MODEL, "tile": str(TILE)})
    assert shape[1:] == (TILE, TILE)
    per_megapixel = sum(layer.macs for layer in found) / (2 * TILE) ** 2 * 1e6
    assert per_megapixel / 1e9 == pytest.approx(get_spec(MODEL).gmac_per_mp, rel=1e-6)


def test_core_ml_is_refused_in_one_line(folder: Path) -> None:
    path = export(MODEL, target="coreml", precision="fp32", tile=TILE, output_dir=folder).path
    with pytest.raises(ZooError, match="operators can be timed for executorch, litert, onnx"):
        profile(path)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Writes a program of shell commands; returns its path."""

    def write(commands: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{commands}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.mark.skipif(sys.platform != "linux", reason="ExecuTorch's operators are timed on Linux")
def test_a_compiler_that_fails_is_one_line(program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("executorch")
    compiler = program("echo 'no room on the disk' >&2; exit 1")
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    with pytest.raises(ZooError, match=r"^x\.pte: cannot be profiled, since \S+program fails: no room on the disk$"):
        profilers.trace("executorch", Path("x.pte"), np.zeros(1, np.float32), 1, 1, 1)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_a_process_that_is_killed_is_one_line(program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("executorch")
    monkeypatch.setattr(sys, "executable", program("kill -9 $$"))
    with pytest.raises(ZooError, match=r"^x\.pte: cannot be profiled: was ended by SIGKILL"):
        profilers.trace("executorch", Path("x.pte"), np.zeros(1, np.float32), 1, 1, 1)
    with pytest.raises(ZooError, match=r"^x\.pte: does not run in a process of its own: was ended by SIGKILL"):
        _fresh_process_rss(Path("x.pte"), 1)


def test_runs_of_different_operators_are_not_mixed() -> None:
    trace = profilers.Trace([], [])
    trace.add([("Convolution", "", 1.0)])
    with pytest.raises(ZooError, match="other operators"):
        trace.add([("Addition", "", 1.0)])
