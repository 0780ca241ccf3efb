"""The LiteRT target on a toy network: numbers (int8 bit for bit ExecuTorch's), metadata, interface, audit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_net import TILE, Quantised, Toy, quantised, tile_input

from export import PRECISIONS, executorch, litert
from quantize.model import snap_biases
from zoo.errors import ZooError
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS


@pytest.fixture(scope="module")
def files(toy_file: Callable[[str, str], Path]) -> dict[str, Path]:
    return {precision: toy_file("litert", precision) for precision in PRECISIONS}


def test_int8_file_gives_executorchs_bits(files: dict[str, Path], pte_int8: Path) -> None:
    ours, theirs = litert.runner(files["int8"]), executorch.runner(pte_int8)
    for seed in range(5):
        np.testing.assert_array_equal(ours(tile_input(seed)), theirs(tile_input(seed)))


def test_snapped_biases_leave_no_tie_between_the_targets(toy_int8: Quantised, tmp_path: Path) -> None:
    """Half way between two int32 steps ExecuTorch and LiteRT round differently: 0.8 % of this output if not snapped."""

    class Ties:
        def graph(self, fold: bool) -> torch.fx.GraphModule:
            graph = toy_int8.graph(fold)
            for node in graph.graph.nodes:
                if node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.conv_transpose2d.input):
                    step = graph.get_buffer(node.args[1].args[1].target).double() * node.args[0].args[1]
                    bias = graph.get_parameter(node.args[2].target)
                    bias.data = ((torch.round(bias.double() / step) + 0.5) * step).float()
            return snap_biases(graph)

    executorch.write(Ties(), precision="int8", tile=TILE, metadata={}, path=tmp_path / "tie.pte")
    litert.write(Ties(), precision="int8", tile=TILE, metadata={}, path=tmp_path / "tie.tflite")
    x = tile_input(3)
    np.testing.assert_array_equal(litert.runner(tmp_path / "tie.tflite")(x), executorch.runner(tmp_path / "tie.pte")(x))


def test_weights_near_a_tie_are_rounded_as_in_the_graph(tmp_path: Path) -> None:
    """With weights left off the grid the converter rounds some of these the other way."""
    torch.manual_seed(1)
    net = Toy().eval()
    with torch.no_grad():
        step = net.mid.weight.abs().amax((1, 2, 3), keepdim=True) / 127
        level = net.mid.weight / step
        tie = (level.trunc() + 0.5 * level.sign()) * step
        net.mid.weight.copy_(torch.where(level.abs() < 126, tie, net.mid.weight))
    model = quantised(net)
    litert.write(model, precision="int8", tile=TILE, metadata={}, path=tmp_path / "tie.tflite")
    graph = model.graph(fold=True)
    expected = next(b for n, b in graph.named_buffers() if b.dtype == torch.int8 and b.shape == net.mid.weight.shape)
    saved = litert._model(tmp_path / "tie.tflite")
    tensor = next(t for t in saved.subgraphs[0].tensors if list(t.shape) == [32, 3, 3, 32])
    weight = saved.buffers[tensor.buffer].data.view(np.int8).reshape(32, 3, 3, 32)
    np.testing.assert_array_equal(weight, expected.permute(0, 2, 3, 1).numpy())


def test_stale_scales_of_a_transposed_convolution_are_refused(toy_int8: Quantised, tmp_path: Path) -> None:
    class Stale:
        def graph(self, fold: bool) -> torch.fx.GraphModule:
            graph = toy_int8.graph(fold)
            graph.get_parameter("up.weight").data *= 0.9
            return graph

    path = tmp_path / "stale.tflite"
    with pytest.raises(ZooError, match="scales of conv_transpose2d taken from its final weights"):
        litert.write(Stale(), precision="int8", tile=TILE, metadata={}, path=path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_interface_is_float32_and_named(files: dict[str, Path], precision: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(files[precision]))
    signature = interpreter.get_signature_runner("serving_default")
    assert {k: (v["dtype"], list(v["shape"])) for k, v in signature.get_input_details().items()} == {
        "input": (np.float32, [1, IN_CHANNELS, TILE, TILE])
    }
    assert {k: (v["dtype"], list(v["shape"])) for k, v in signature.get_output_details().items()} == {
        "output": (np.float32, [1, OUT_CHANNELS, TILE, TILE])
    }
    x = tile_input()
    np.testing.assert_array_equal(signature(input=x)["output"], litert.runner(files[precision])(x))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_xnnpack_takes_the_whole_graph(files: dict[str, Path], precision: str) -> None:
    audit = litert.audit(files[precision])
    assert (audit["delegates"], audit["delegated_share"], audit["not_delegated"]) == (1, 1.0, [])


def test_int8_audit_finds_two_conversions(files: dict[str, Path]) -> None:
    audit = litert.audit(files["int8"])
    assert audit["ops"]["QUANTIZE:fp32->int8"] == audit["ops"]["DEQUANTIZE:int8->fp32"] == 1


def test_fp16_file_holds_half_precision_weights(files: dict[str, Path]) -> None:
    audit = litert.audit(files["fp16"])
    assert audit["ops"]["DEQUANTIZE:fp16->fp32"] == audit["conv_total"] == 6
    assert audit["size_bytes"] < 0.6 * litert.audit(files["fp32"])["size_bytes"]
    assert any(entry.name == b"reduced_precision_support" for entry in litert._model(files["fp16"]).metadata)


def test_fp16_weights_of_a_larger_net_come_along(tmp_path: Path) -> None:
    """Beyond some size the quantizer stores them outside the flatbuffer that gets edited."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(IN_CHANNELS, 160, 3, 1, 1), nn.Conv2d(160, 160, 3, 1, 1), nn.Conv2d(160, OUT_CHANNELS, 1)
    )
    path = tmp_path / "large.tflite"
    litert.write(net.eval(), precision="fp16", tile=TILE, metadata={}, path=path)
    x = tile_input()
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(litert.runner(path)(x), expected, atol=2e-3)


def test_audit_catches_what_xnnpack_leaves(tmp_path: Path) -> None:
    bad = quantised(Toy(nn.Hardswish()).eval())
    litert.write(bad, precision="int8", tile=TILE, metadata={}, path=tmp_path / "bad.tflite")
    audit = litert.audit(tmp_path / "bad.tflite")
    assert audit["not_delegated"] == ["HARD_SWISH:int8"]
    assert audit["delegated_share"] < 1


def test_audit_catches_float_weights(toy_int8: Quantised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert, "_on_grid", lambda graph: graph)
    litert.write(toy_int8, precision="int8", tile=TILE, metadata={}, path=tmp_path / "bad.tflite")
    audit = litert.audit(tmp_path / "bad.tflite")
    assert (audit["conv_int8"], audit["conv_total"]) == (5, 6)
    assert audit["float_ops"] == ["TRANSPOSE_CONV:fp32"]


def test_models_that_load_and_cannot_run_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    import flatbuffers

    model = litert._model(files["fp32"])
    model.subgraphs[0].operators[0].inputs = []
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "odd.tflite").write_bytes(bytes(builder.Output()))
    with pytest.raises(ZooError, match=r"odd\.tflite is not a readable LiteRT model"):
        litert.runner(tmp_path / "odd.tflite")


def test_what_the_converter_cannot_convert_is_one_line() -> None:
    net = nn.ConvTranspose2d(4, 4, 5, stride=2, padding=2, output_padding=1)
    with pytest.raises(ZooError, match=r"LiteRT's converter cannot convert the network: .*zoo doctor") as raised:
        litert._convert(net, torch.zeros(1, 4, 8, 8), int8=False)
    assert "\n" not in str(raised.value)
