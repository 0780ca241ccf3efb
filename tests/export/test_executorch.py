"""The ExecuTorch target on a toy network: numbers, metadata and what the audit sees inside the delegate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_net import TILE, Quantised, Toy, tile_input

from export import executorch
from zoo.errors import ZooError
from zoo.models.contract import IN_CHANNELS


@pytest.fixture(scope="module")
def files(toy: Toy, pte_int8: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("executorch")
    paths = {precision: folder / f"toy_{precision}.pte" for precision in ("fp32", "fp16")}
    for precision, path in paths.items():
        executorch.write(toy, precision=precision, tile=TILE, metadata={"model": "toy, ä"}, path=path)
    return {**paths, "int8": pte_int8}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 5e-6), ("fp16", 1e-2)])
def test_float_files_compute_what_the_module_computes(
    files: dict[str, Path], toy: Toy, precision: str, tolerance: float
) -> None:
    x = tile_input()
    with torch.no_grad():
        expected = toy(torch.from_numpy(x)).numpy()
    y = executorch.runner(files[precision])(x)
    assert y.dtype == np.float32
    assert np.abs(y - expected).max() < tolerance


def test_int8_file_is_within_one_level_of_the_graph(files: dict[str, Path], toy_int8: Any) -> None:
    x = tile_input()
    graph = toy_int8.graph(fold=True)
    output = next(n for n in graph.graph.nodes if n.op == "output").all_input_nodes[0]
    error = np.abs(executorch.runner(files["int8"])(x) - graph(torch.from_numpy(x)).detach().numpy())
    assert error.max() < 1.01 * output.args[1]  # the scale: float and integer arithmetic may round a tie differently
    assert (error > 0).mean() < 0.01


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_metadata_comes_back(files: dict[str, Path], precision: str) -> None:
    expected = {"target": "executorch", "precision": precision, "tile": str(TILE), "model": "toy, ä"}
    assert executorch.read_metadata(files[precision]) == expected
    runner = executorch.runner(files[precision])
    assert (runner.target, runner.precision, runner.tile) == ("executorch", precision, TILE)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_invoke_repeats_the_last_input(files: dict[str, Path], precision: str) -> None:
    runner = executorch.runner(files[precision])
    first = runner(tile_input(1))
    runner(tile_input(2))
    kept = runner(tile_input(1))
    runner.invoke()
    runner.invoke()
    np.testing.assert_array_equal(runner._fetch(), kept)
    np.testing.assert_array_equal(first, kept)


def test_int8_audit_finds_nothing_but_integers(files: dict[str, Path]) -> None:
    audit = executorch.audit(files["int8"])
    assert audit["conv_int8"] == audit["conv_total"] == 6
    assert audit["float_ops"] == audit["not_delegated"] == []
    assert (audit["delegates"], audit["delegated_share"]) == (1, 1.0)
    assert audit["ops"]["Convert:fp32->int8"] == audit["ops"]["Convert:int8->fp32"] == 1
    assert audit["size_bytes"] < 0.5 * executorch.audit(files["fp32"])["size_bytes"]


def test_fp16_audit_tells_casts_outside_and_float32_weights(files: dict[str, Path]) -> None:
    audit = executorch.audit(files["fp16"])
    assert audit["ops"]["Conv2d:fp16,w=fp32"] == 5
    assert len(audit["not_delegated"]) == 2
    assert all("_to_dim_order_copy" in op for op in audit["not_delegated"])
    assert audit["conv_int8"] == 0


def test_audit_catches_float_inside_the_delegate(leaky_int8: Quantised, tmp_path: Path) -> None:
    executorch.write(leaky_int8, precision="int8", tile=TILE, metadata={}, path=tmp_path / "bad.pte")
    audit = executorch.audit(tmp_path / "bad.pte")
    assert audit["delegated_share"] == 1.0  # which is why the share alone says nothing
    assert audit["float_ops"] == ["LeakyReLU:fp32"]


def test_audit_catches_what_is_not_delegated(tmp_path: Path) -> None:
    bad = Toy(nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.MaxPool2d(2))).eval()
    executorch.write(bad, precision="fp32", tile=TILE, metadata={}, path=tmp_path / "bad.pte")
    audit = executorch.audit(tmp_path / "bad.pte")
    assert audit["delegates"] == 2
    assert any("upsample_nearest2d" in op for op in audit["not_delegated"])


@pytest.mark.parametrize("x", [np.zeros((1, IN_CHANNELS, 16, 16), np.float32), tile_input().astype(np.float64), None])
def test_runner_refuses_other_inputs(files: dict[str, Path], x: Any) -> None:
    with pytest.raises(ZooError, match=r"takes float32 \[1, \d+, 32, 32\], not"):
        executorch.runner(files["fp32"])(x)


def test_threads_do_not_change_the_result(files: dict[str, Path]) -> None:
    x = tile_input()
    np.testing.assert_array_equal(executorch.runner(files["int8"], 2)(x), executorch.runner(files["int8"], 1)(x))


def test_files_that_are_cut_off_are_refused_in_silence(
    files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, cut = files["int8"].read_bytes(), tmp_path / "cut.pte"
    capfd.readouterr()
    for size in (6, 40, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        for call in (executorch.read_metadata, executorch.runner, executorch.audit):
            with pytest.raises(ZooError, match=r"cut\.pte is not a readable ExecuTorch program; .*`zoo export`"):
                call(cut)
    assert capfd.readouterr() == ("", "")


def test_programs_that_load_and_cannot_run_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["int8"].read_bytes()
    name = whole.index(b"XnnpackBackend")  # the delegate's
    (tmp_path / "odd.pte").write_bytes(whole[:name] + b"Nobody" + whole[name + 6 :])
    with pytest.raises(ZooError, match=r"odd\.pte is not a readable ExecuTorch program"):
        executorch.runner(tmp_path / "odd.pte")


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    stranger = tmp_path / "x.pte"
    with pytest.raises(ZooError, match="does not exist"):
        executorch.runner(stranger)
    stranger.write_bytes(b"no program at all, but long enough for a header to be looked for" * 4)
    with pytest.raises(ZooError, match="not a readable ExecuTorch program"):
        executorch.read_metadata(stranger)
    with pytest.raises(ZooError, match="not a readable ExecuTorch program"):
        executorch.audit(stranger)
