"""The Core ML target on a toy network; off macOS through the MIL interpreter, which is what these tests expect."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_net import TILE, Quantised, Toy, tile_input

from export import PRECISIONS, coreml
from zoo.errors import ZooError
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="parity bounds are those of the interpreter")


@pytest.fixture(scope="module")
def files(toy_file: Callable[[str, str], Path]) -> dict[str, Path]:
    return {precision: toy_file("coreml", precision) for precision in PRECISIONS}


def psnr(y: np.ndarray, reference: np.ndarray) -> float:
    """Decibels below the reference's own range."""
    return float(20 * np.log10(np.ptp(reference) / np.sqrt(np.mean((y - reference) ** 2))))


def test_int8_at_fp32_is_the_graph_up_to_rare_flips(toy_int8: Quantised, tmp_path: Path) -> None:
    path = tmp_path / "toy.mlpackage"
    coreml.write(toy_int8, precision="int8", tile=TILE, metadata={}, path=path, compute_precision="fp32")
    x = tile_input()
    graph = toy_int8.graph(fold=True)
    step = next(n for n in graph.graph.nodes if n.op == "output").all_input_nodes[0].args[1]
    error = np.abs(coreml.runner(path)(x) - graph(torch.from_numpy(x)).detach().numpy())
    assert error.max() < 1.01 * step
    assert (error > 0.5 * step).mean() < 0.01


def test_int8_at_fp16_is_near_the_graph(files: dict[str, Path], toy_int8: Quantised) -> None:
    x = tile_input()
    reference = toy_int8.graph(fold=True)(torch.from_numpy(x)).detach().numpy()
    assert psnr(coreml.runner(files["int8"])(x), reference) > 45


@pytest.mark.parametrize(("precision", "compute"), [("fp32", "fp32"), ("fp16", "fp16"), ("int8", "fp16")])
def test_metadata_tell_what_is_computed_in(files: dict[str, Path], precision: str, compute: str) -> None:
    assert coreml.read_metadata(files[precision])["compute_precision"] == compute
    assert not list(files[precision].glob("*debug*"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_interface_is_float32_and_named(files: dict[str, Path], precision: str) -> None:
    import coremltools
    from coremltools.proto import FeatureTypes_pb2

    description = coremltools.utils.load_spec(str(files[precision])).description
    for (feature,), name, channels in (
        (description.input, "input", IN_CHANNELS),
        (description.output, "output", OUT_CHANNELS),
    ):
        array = feature.type.multiArrayType
        assert (feature.name, list(array.shape)) == (name, [1, channels, TILE, TILE])
        assert array.dataType == FeatureTypes_pb2.ArrayFeatureType.FLOAT32


def test_audit_knows_no_delegates_and_names_the_precision(files: dict[str, Path]) -> None:
    for precision, path in files.items():
        audit = coreml.audit(path)
        assert audit["delegated_share"] is None
        assert audit["ops"].get(f"conv:{precision}") == 5


def test_audit_catches_operators_without_an_integer_form(leaky_int8: Quantised, tmp_path: Path) -> None:
    coreml.write(leaky_int8, precision="int8", tile=TILE, metadata={}, path=tmp_path / "bad.mlpackage")
    audit = coreml.audit(tmp_path / "bad.mlpackage")
    assert audit["float_ops"] == ["leaky_relu:fp16"]
    assert audit["conv_int8"] == 6


def test_audit_catches_a_float_convolution(tmp_path: Path, toy_int8: Quantised) -> None:
    class HalfQuantised:
        """The result of the head is added without being quantised first."""

        def graph(self, fold: bool) -> torch.fx.GraphModule:
            graph = toy_int8.graph(fold)
            head = [n for n in graph.graph.nodes if n.target is torch.ops.aten.conv2d.default][3]
            (quantize,) = head.users
            (dequantize,) = quantize.users
            dequantize.replace_all_uses_with(head)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            return graph

    path = tmp_path / "bad.mlpackage"
    coreml.write(HalfQuantised(), precision="int8", tile=TILE, metadata={}, path=path)
    audit = coreml.audit(path)
    assert (audit["conv_int8"], audit["conv_total"]) == (5, 6)
    assert audit["float_ops"] == ["add:fp16", "conv:fp16"]


def test_a_package_is_replaced_whole(nets: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "toy.mlpackage"
    for precision in ("fp32", "fp16"):
        coreml.write(nets[precision], precision=precision, tile=TILE, metadata={}, path=path)
    assert coreml.read_metadata(path)["precision"] == "fp16"
    assert [p.name for p in tmp_path.iterdir()] == ["toy.mlpackage"]


def test_compute_precision_belongs_to_int8(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="fp32 computes in fp32, not in fp16"):
        coreml.write(
            toy, precision="fp32", tile=TILE, metadata={}, path=tmp_path / "x.mlpackage", compute_precision="fp16"
        )
