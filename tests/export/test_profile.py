"""Per-operator time: every runtime's profiler names the network's layers, and the shares are those of the times."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from export import export, profilers
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


def test_runs_of_different_operators_are_not_mixed() -> None:
    trace = profilers.Trace([], [])
    trace.add([("Convolution", "", 1.0)])
    with pytest.raises(ZooError, match="other operators"):
        trace.add([("Addition", "", 1.0)])
