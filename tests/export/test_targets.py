"""What the files of all targets do alike, on a toy network; what only one of them does is in the target's own test file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from toy_net import ABOUT, TILE, Toy, tile_input

from export import PRECISIONS, TARGETS, target_module
from zoo.errors import ZooError
from zoo.models.contracts.bayer_vst import IN_CHANNELS

TOLERANCES = {"fp32": 5e-6, "fp16": 1e-2}
OWN_TOLERANCES = {"onnx": {"fp32": 1e-4, "fp16": 2e-2}}
OWN_METADATA = {"coreml": {"compute_precision"}}
# What each calls a file that it cannot read, and what it advises.
UNREADABLE = {
    "coreml": "a readable Core ML (package|program)",
    "executorch": "a readable ExecuTorch program; .*`zoo export`",
    "litert": "a readable LiteRT model; .*`zoo export`",
    "onnx": "a readable ONNX model",
}


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "onnx":
        pytest.importorskip("onnxruntime", reason="the onnx target's libraries are not installed")
    if request.param == "coreml" and sys.platform == "darwin":
        pytest.skip("parity bounds are those of the interpreter")
    return target_module(request.param)


@pytest.fixture(scope="module")
def files(target: ModuleType, toy_file: Callable[[str, str], Path]) -> dict[str, Path]:
    return {precision: toy_file(target.TARGET, precision) for precision in PRECISIONS}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_float_files_compute_what_the_module_computes(
    target: ModuleType, files: dict[str, Path], toy: Toy, precision: str
) -> None:
    x = tile_input()
    with torch.no_grad():
        expected = toy(torch.from_numpy(x)).numpy()
    y = target.runner(files[precision])(x)
    assert y.dtype == np.float32
    assert np.abs(y - expected).max() < OWN_TOLERANCES.get(target.TARGET, TOLERANCES)[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_metadata_comes_back(target: ModuleType, files: dict[str, Path], precision: str) -> None:
    metadata, own = target.read_metadata(files[precision]), OWN_METADATA.get(target.TARGET, set())
    assert own <= metadata.keys()
    expected = {"target": target.TARGET, "precision": precision, "tile": str(TILE), **ABOUT}
    assert {key: text for key, text in metadata.items() if key not in own} == expected
    runner = target.runner(files[precision])
    assert (runner.target, runner.precision, runner.tile) == (target.TARGET, precision, TILE)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_audit_counts_integer_convolutions(target: ModuleType, files: dict[str, Path], precision: str) -> None:
    audit = target.audit(files[precision])
    assert (audit["conv_int8"], audit["conv_total"]) == (6 if precision == "int8" else 0, 6)
    assert bool(audit["float_ops"]) == (precision != "int8")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_invoke_repeats_the_last_input(target: ModuleType, files: dict[str, Path], precision: str) -> None:
    runner = target.runner(files[precision])
    first, other, kept = (runner(tile_input(seed)) for seed in (1, 2, 1))
    runner.invoke()
    runner.invoke()
    np.testing.assert_array_equal(runner._fetch(), kept)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(other, kept)  # results are the caller's own


def test_threads_do_not_change_the_result(target: ModuleType, files: dict[str, Path]) -> None:
    x = tile_input()
    np.testing.assert_array_equal(target.runner(files["int8"], 2)(x), target.runner(files["int8"], 1)(x))


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (np.zeros((1, IN_CHANNELS, 16, 16), np.float32), r"float32 \[1, \d+, 16, 16\]"),
        (tile_input().astype(np.float64), r"float64 \[1, \d+, 32, 32\]"),
        (None, "NoneType"),
    ],
)
def test_runner_refuses_other_inputs(target: ModuleType, files: dict[str, Path], x: Any, got: str) -> None:
    with pytest.raises(ZooError, match=rf"takes float32 \[1, \d+, 32, 32\], not {got}"):
        target.runner(files["fp32"])(x)


def test_files_that_are_cut_off_are_refused_in_silence(
    target: ModuleType, files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / f"cut.{target.SUFFIX}"
    if files["int8"].is_dir():
        shutil.copytree(files["int8"], cut)
    else:
        shutil.copy(files["int8"], cut)
    # Of a package, the network.
    part = next(cut.rglob("*.mlmodel"), cut)
    whole = part.read_bytes()
    capfd.readouterr()
    for size in (6, 8, 40, len(whole) // 2, len(whole) - 1):
        part.write_bytes(whole[:size])
        for call in (target.read_metadata, target.runner, target.audit):
            with pytest.raises(ZooError, match=rf"cut\.{target.SUFFIX} is not {UNREADABLE[target.TARGET]}"):
                call(cut)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", [b"no model", b"no model, but long enough for a header to be looked for" * 4])
def test_files_of_others_are_refused(target: ModuleType, files: dict[str, Path], text: bytes, tmp_path: Path) -> None:
    stranger = tmp_path / f"x.{target.SUFFIX}"
    calls = target.read_metadata, target.runner, target.audit
    for call in calls:
        with pytest.raises(ZooError, match="does not exist"):
            call(stranger)
    if files["int8"].is_dir():
        stranger.mkdir()
        (stranger / "notes").write_bytes(text)
    else:
        stranger.write_bytes(text)
    for call in calls:
        with pytest.raises(ZooError, match=f"not {UNREADABLE[target.TARGET]}"):
            call(stranger)
