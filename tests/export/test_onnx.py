"""The ONNX target on a toy network: numbers (int8 within a step of ExecuTorch's), metadata, interface, audit, names of layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_net import TILE, Quantised, quantised, tile_input

pytest.importorskip("onnxruntime", reason="the onnx target's libraries are not installed")

from export import PRECISIONS, describe, executorch, export
from export import onnx as target
from export.onnx_qdq import integers
from export.target import example_input
from export.verify import tiles_of
from quantize import QuantizedModel
from quantize.calibrate import calibrate
from quantize.recipe import prepare
from zoo.models.contracts import get_contract
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS
from zoo.models.registry import create_model, get_spec


@pytest.fixture(scope="module")
def files(toy_file: Callable[[str, str], Path]) -> dict[str, Path]:
    return {precision: toy_file("onnx", precision) for precision in PRECISIONS}


def test_int8_file_gives_executorchs_integers(files: dict[str, Path], pte_int8: Path) -> None:
    """Up to additions beside a tie, which onnxruntime makes in float32: at most a step apart, hardly anywhere."""
    ours, theirs = target.runner(files["int8"]), executorch.runner(pte_int8)
    for seed in range(5):
        a, b = ours(tile_input(seed)), theirs(tile_input(seed))
        step = float(np.diff(np.unique(b)).min())
        assert np.abs(a - b).max() < 1.5 * step
        assert (a != b).mean() < 2e-3


def test_without_the_rewriting_far_more_differs(toy_int8: Quantised, pte_int8: Path, tmp_path: Path) -> None:
    """What :mod:`export.onnx_qdq` is for: left as it is converted, transposed convolutions are computed in float."""
    graph = target.convert(toy_int8.graph(fold=True), example_input(TILE, {}))
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("ConvTranspose") == 1
    kinds = [node.op_type for node in integers(graph).graph.node]
    assert (kinds.count("ConvTranspose"), kinds.count("DepthToSpace"), kinds.count("Conv")) == (0, 1, 6)


def test_transposed_convolutions_of_other_shapes_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(IN_CHANNELS, 16, 2, 2), nn.ReLU(), nn.ConvTranspose2d(16, OUT_CHANNELS, 4, 2, 1))
    model = quantised(net.eval())
    target.write(model, precision="int8", tile=TILE, metadata={}, path=tmp_path / "net.onnx")
    assert target.audit(tmp_path / "net.onnx")["ops"]["ConvTranspose:int8"] == 1
    x = tile_input()
    with torch.no_grad():
        expected = model.graph(fold=True)(torch.from_numpy(x)).numpy()
    assert np.abs(target.runner(tmp_path / "net.onnx")(x) - expected).mean() < 1e-3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_interface_is_float32_and_named(files: dict[str, Path], precision: str) -> None:
    session = target.session(files[precision], 1)
    ends = [(e.name, e.type, e.shape) for e in (*session.get_inputs(), *session.get_outputs())]
    assert ends == [
        ("input", "tensor(float)", [1, IN_CHANNELS, TILE, TILE]),
        ("output", "tensor(float)", [1, OUT_CHANNELS, TILE, TILE]),
    ]


def test_audit_tells_types_apart(files: dict[str, Path]) -> None:
    audits = {precision: target.audit(path) for precision, path in files.items()}
    assert audits["int8"]["delegated_share"] is None
    assert set(audits["fp16"]["float_ops"]) == {"Add:fp16", "Conv:fp16", "ConvTranspose:fp16", "Relu:fp16"}
    assert audits["fp16"]["ops"]["Cast:fp32->fp16"] == audits["fp16"]["ops"]["Cast:fp16->fp32"] == 1
    assert audits["int8"]["size_bytes"] < 0.6 * audits["fp32"]["size_bytes"]


def test_audit_catches_what_is_left_in_float(leaky_int8: Quantised, tmp_path: Path) -> None:
    target.write(leaky_int8, precision="int8", tile=TILE, metadata={}, path=tmp_path / "bad.onnx")
    assert any(op.startswith("LeakyRelu") for op in target.audit(tmp_path / "bad.onnx")["ops"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_keep_their_names(files: dict[str, Path], precision: str) -> None:
    names = set(target.layers_by_name(files[precision]).values())
    assert names == {"stem", "down", "mid", "up", "head", "residual"}


def test_nothing_of_this_machine_is_in_the_file(files: dict[str, Path]) -> None:
    for path in files.values():
        assert b".py" not in path.read_bytes()


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_halves_of_a_compressor(half: str, compressor: str, tmp_path: Path) -> None:
    result = export(compressor, target="onnx", precision="fp32", tile=64, output_dir=tmp_path, half=half)
    runner = target.runner(result.path)
    assert runner.half == half
    assert result.parity["worst_psnr_db"] is None or result.parity["worst_psnr_db"] > 90
    assert runner(np.zeros((1, *runner.shapes[0]), np.float32)).shape == (1, *runner.shapes[1])


def test_int8_encoder_of_a_compressor(compressor: str, tmp_path: Path) -> None:
    x = torch.from_numpy(next(t for name, t in tiles_of(64, get_contract("bayer_codec_v4")) if name == "scene-iso800"))
    prepared = prepare(create_model(compressor, pretrained=True).get_submodule("encoder"), x.shape[1])
    calibrate(prepared, [x])
    model = QuantizedModel(compressor, "ptq", prepared, half="encoder")
    path = tmp_path / "encoder.onnx"
    about = describe(get_spec(compressor), "", "int8", "onnx", "encoder")
    target.write(model, precision="int8", tile=64, metadata=about, path=path)
    assert target.audit(path)["float_ops"] == []
    assert (target.runner(path)(x.numpy()) != model.integer()(x.numpy())).mean() < 2e-3
