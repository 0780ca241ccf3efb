"""The MIL interpreter: every operator against torch on a tiny converted program, and files that were tampered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_net import TILE, Quantised, Toy, tile_input

from export import coreml, mil, mil_more
from export.target import quiet
from zoo.errors import ZooError


@pytest.fixture(autouse=True)
def own_operators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator matrix adds its own for the whole process, and its tests may have run before in this one."""
    own = {name: run for name, run in mil._OPERATORS.items() if run is not mil_more._OPERATORS.get(name)}
    monkeypatch.setattr(mil, "_OPERATORS", own)


WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
SMALL = torch.randn(4, 6, 2, 2, generator=torch.Generator().manual_seed(2))
WIDE = torch.randn(4, 6, 4, 4, generator=torch.Generator().manual_seed(3))
BIAS = torch.arange(6.0) / 3
SLOPES = torch.tensor([0.1, 0.2, 0.3, -0.4])


class Function(nn.Module):
    """A function as a module, for the exporter."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def saved(function: Callable[[Tensor], Tensor], path: Path, fp16: bool = False) -> Path:
    """A package of one function of a float32 ``[1, 4, 8, 8]``."""
    with quiet():
        import coremltools as ct

        program = torch.export.export(Function(function).eval(), (torch.zeros(1, 4, 8, 8),)).run_decompositions({})
        ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16 if fp16 else ct.precision.FLOAT32,
            skip_model_load=True,
        ).save(str(path))
    return path


def example() -> Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + F.relu(x),
    "clip": lambda x: x.clamp(-1, 1),
    "concat": lambda x: torch.cat([x, F.relu(x)], 1),
    "conv": lambda x: F.conv2d(x, WEIGHT, BIAS, 1, 1),
    "conv, groups": lambda x: F.conv2d(x, WEIGHT[:4, :1], None, 1, 1, 1, 4),
    "conv, stride 2": lambda x: F.conv2d(x, SMALL.transpose(0, 1), BIAS, 2),
    "conv, dilated": lambda x: F.conv2d(x, WEIGHT, BIAS, 1, 2, 2),
    "conv_transpose": lambda x: F.conv_transpose2d(x, SMALL, BIAS, 2),
    "conv_transpose, padded": lambda x: F.conv_transpose2d(x, WIDE, BIAS, 2, 1),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "max_pool": lambda x: F.max_pool2d(x, 2, 2),
    "max_pool, padded": lambda x: F.max_pool2d(x - 9, 3, 2, 1),
    "mul": lambda x: x * F.relu(x),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "prelu": lambda x: F.prelu(x, SLOPES),
    "relu": F.relu,
    "relu6": F.relu6,
    "reshape": lambda x: x.reshape(1, 16, 4, 4),
    "sigmoid": torch.sigmoid,
    "slice_by_index": lambda x: x[:, 1:3],
    "slice_by_index, strided": lambda x: x[:, :, 1:, ::2],
    "sub": lambda x: x - F.relu(x),
    "transpose": lambda x: x.permute(0, 2, 3, 1),
    "upsample_bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operator_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    program = mil.load(saved(FUNCTIONS[name], tmp_path / "f.mlpackage"))
    assert name.split(",")[0] in {op.op_type for op in program.functions["main"].operations}
    x = example()
    torch.testing.assert_close(mil.Interpreter(program)(x), FUNCTIONS[name](x), atol=1e-6, rtol=1e-5)


def test_every_operator_is_tested() -> None:
    elsewhere = {"cast", "constexpr_affine_dequantize", "constexpr_blockwise_shift_scale", "dequantize", "quantize"}
    assert {name.split(",")[0] for name in FUNCTIONS} | elsewhere == set(mil._OPERATORS)


def test_what_the_interpreter_does_not_know_is_named() -> None:
    x = example()
    backwards = {"x": x, "begin": [0, 0, 0, 7], "end": [1, 4, 8, 0], "stride": [1, 1, 1, -1]}
    with pytest.raises(ZooError, match="slices that reverse"):
        mil._slice(backwards)
    corners = {"x": x, "scale_factor_height": 2, "scale_factor_width": 2, "align_corners": True}
    with pytest.raises(ZooError, match="half-pixel centres only"):
        mil._upsample_bilinear(corners)


def test_fp16_results_are_rounded_operator_by_operator(tmp_path: Path) -> None:
    y = mil.Interpreter(mil.load(saved(lambda x: (x + 2048) - 2048, tmp_path / "f.mlpackage", fp16=True)))(example())
    x = example().half()
    assert torch.equal(y, ((x + 2048) - 2048).float())  # steps of 2 above 2048: hardly anything is left
    assert not torch.equal(y, x.float())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
def test_quantise_and_dequantise(dtype: str, low: int, high: int, per_channel: bool) -> None:
    x = 3 * example()
    scale = torch.tensor([0.01, 0.02, 0.03, 0.04]) if per_channel else torch.tensor(0.02)
    zero = torch.tensor([0, 3, 5, 7]) if per_channel else torch.tensor(5)
    given = {"scale": scale, "zero_point": zero, "axis": 1}
    q = mil._quantize({"input": x, "output_dtype": dtype, **given})
    if per_channel:
        expected = torch.fake_quantize_per_channel_affine(x, scale, zero.int(), 1, low, high)
    else:
        expected = torch.fake_quantize_per_tensor_affine(x, 0.02, 5, low, high)
    assert q.dtype == getattr(torch, dtype)
    torch.testing.assert_close(mil._dequantize({"input": q, **given}), expected)


def test_blockwise_weights() -> None:
    data = torch.arange(-8, 8, dtype=torch.int8).reshape(2, 8)
    scale = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])  # blocks of four along the second axis
    expected = data * torch.tensor([[1.0] * 4 + [10.0] * 4, [100.0] * 4 + [1000.0] * 4])
    assert torch.equal(mil._constexpr_blockwise({"data": data, "scale": scale}), expected)
    shifted = mil._constexpr_blockwise({"data": data, "scale": scale, "offset": torch.ones(2, 2)})
    assert torch.equal(shifted, expected - scale.repeat_interleave(4, 1))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.tanh, "does not know the operator 'tanh'"),
        (lambda x: F.conv_transpose2d(x, WEIGHT[:4, :, :, :], None, 2, 1, 1), "does not know"),
    ],
)
def test_unknown_is_named_not_guessed(function: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=message):
        mil.Interpreter(mil.load(saved(function, tmp_path / "f.mlpackage")))(example())


@pytest.fixture(scope="module")
def package(toy_int8: Quantised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mil") / "toy.mlpackage"
    coreml.write(toy_int8, precision="int8", tile=TILE, metadata={}, path=path, compute_precision="fp32")
    return path


@pytest.mark.parametrize("what", ["weight", "scale"])
def test_a_tampered_file_does_not_pass_parity(package: Path, what: str) -> None:
    """The interpreter reads the file, not something that was remembered while it was written."""
    import coremltools

    honest = coreml.runner(package)(tile_input())
    if what == "weight":
        weights = package / "Data/com.apple.CoreML/weights/weight.bin"
        data = bytearray(weights.read_bytes())
        start = data.find(_first_weights(package))
        assert start > 0
        data[start] ^= 0x40
        weights.write_bytes(data)
        undo = bytes(data[:start]) + bytes([data[start] ^ 0x40]) + bytes(data[start + 1 :])
        tampered = coreml.runner(package)(tile_input())
        weights.write_bytes(undo)
    else:
        file = package / "Data/com.apple.CoreML/model.mlmodel"
        before = file.read_bytes()
        spec = coremltools.utils.load_spec(str(package))
        (block,) = spec.mlProgram.functions["main"].block_specializations.values()
        quantize = next(op for op in block.operations if op.type == "quantize")
        name = quantize.inputs["scale"].arguments[0].name
        scale = next(op for op in block.operations if op.outputs[0].name == name)
        scale.attributes["val"].immediateValue.tensor.floats.values[0] *= 1.05
        file.write_bytes(spec.SerializeToString())
        tampered = coreml.runner(package)(tile_input())
        file.write_bytes(before)
    np.testing.assert_array_equal(coreml.runner(package)(tile_input()), honest)
    assert (tampered != honest).mean() > 0.01


def _first_weights(package: Path) -> bytes:
    """The int8 values of the first compressed weight of a package."""
    operations = mil.load(package).functions["main"].operations
    first = next(op for op in operations if op.op_type == "constexpr_affine_dequantize")
    return np.ascontiguousarray(first.inputs["quantized_data"].val).tobytes()


def test_float_package_equals_the_module_bit_for_bit_at_fp32(toy: Toy, tmp_path: Path) -> None:
    path = tmp_path / "toy.mlpackage"
    coreml.write(toy, precision="fp32", tile=TILE, metadata={}, path=path)
    x = torch.from_numpy(tile_input())
    with torch.no_grad():
        torch.testing.assert_close(mil.Interpreter(mil.load(path))(x), toy(x), atol=1e-6, rtol=1e-6)
