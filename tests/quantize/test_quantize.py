"""Quantisation as a value: ranges, saving and loading, the integer reference. (Runtimes: tests/export.)"""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export.verify import LEVELS, encode_centre
from quantize import QuantizedModel
from quantize.calibrate import calibrate, disagreement
from quantize.integer import _accumulate, fixed_point_add, operator_name
from quantize.model import snap_biases
from quantize.qat import claim, post_training
from quantize.recipe import prepare
from zoo.data.pool import ImagePool
from zoo.data.scene import synthetic_raw
from zoo.errors import ZooError
from zoo.models.registry import check_compressor, create_model
from zoo.training.config import TrainConfig
from zoo.training.trainer import CHECKPOINT, Trainer


def scene(size: int, seed: int = 0) -> list[torch.Tensor]:
    raws = [synthetic_raw(2 * size, 2 * size, shot=s, read=o, seed=seed) for s, o in LEVELS.values()]
    return [torch.from_numpy(encode_centre(raw, size)) for raw in raws]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("utnet-n")


@pytest.fixture(scope="module")
def quantized(model: torch.nn.Module) -> QuantizedModel:
    prepared = prepare(model)
    largest = calibrate(prepared, scene(64))
    return QuantizedModel("utnet-n", "ptq", prepared, {"largest_activation": max(largest.values())})


def test_quantised_stays_close_to_float(model: torch.nn.Module, quantized: QuantizedModel) -> None:
    integer = quantized.integer()
    for x in scene(64, seed=5):
        with torch.no_grad():
            want = model(x)
        error = torch.from_numpy(integer(x.numpy())) - want
        assert error.square().mean().sqrt() < 0.05 * want.std()


def test_integer_reference_equals_the_graph_to_a_step(quantized: QuantizedModel) -> None:
    graph, integer = quantized.graph(fold=True), quantized.integer()
    x = scene(64)[1]
    with torch.no_grad():
        difference = np.abs(graph(x).numpy() - integer(x.numpy()))
    step = np.diff(np.unique(integer(x.numpy()))).min()
    # The graph computes in float between its quantisers: rare ties fall to the other side.
    assert difference.max() <= 2.01 * step
    assert (difference > 0.5 * step).mean() < 0.05


def test_integer_outputs_lie_on_one_grid(quantized: QuantizedModel) -> None:
    y = quantized.integer()(scene(64)[2].numpy())
    steps = y / np.diff(np.unique(y)).min()
    assert np.abs(steps - np.rint(steps)).max() < 1e-3
    assert len(np.unique(y)) <= 256


def test_integer_reference_does_not_depend_on_the_tile(quantized: QuantizedModel) -> None:
    integer, x = quantized.integer(), scene(96)[0].numpy()
    inner = integer(np.ascontiguousarray(x[..., 8:88, 16:96]))
    assert np.array_equal(integer(x)[..., 8 + 24 : 88 - 24, 16 + 24 : 96 - 24], inner[..., 24:-24, 24:-24])


def test_a_tensor_that_is_always_zero_gets_a_common_range() -> None:
    model = create_model("utnet-n")
    with torch.no_grad():
        model.get_submodule("encoder.2.0").bias.fill_(-1000)  # type: ignore[union-attr]
    prepared = prepare(model)
    largest = calibrate(prepared, scene(64))
    dead = [prepared.get_submodule(name) for name, value in largest.items() if value == 0]
    assert dead and all(float(module.scale) == pytest.approx(1 / 255) for module in dead)  # type: ignore[arg-type]


def test_what_is_concatenated_shares_a_range_and_is_loaded_with_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    fed = check_compressor("bayer-codec-m").channels("decoder")
    prepared = prepare(create_model("bayer-codec-m").get_submodule("decoder"), fed)
    calibrate(prepared, [torch.randn(1, fed, 4, 4)])
    made = QuantizedModel("bayer-codec-m", "ptq", prepared, half="decoder")
    loaded = QuantizedModel.load(made.save(tmp_path))
    y = torch.randn(1, fed, 4, 4).numpy()
    assert np.array_equal(loaded.integer()(y), made.integer()(y))


def test_saved_and_loaded_is_the_same(quantized: QuantizedModel, tmp_path: Path) -> None:
    path = quantized.save(tmp_path)
    loaded = QuantizedModel.load(path)
    x = scene(64)[3].numpy()
    assert np.array_equal(loaded.integer()(x), quantized.integer()(x))
    assert loaded.facts == quantized.facts
    assert [p.name for p in tmp_path.iterdir()] == ["utnet-n-ptq.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "text", "missing"])
def test_bad_files_are_explained(quantized: QuantizedModel, tmp_path: Path, damage: str) -> None:
    path = quantized.save(tmp_path)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000] if damage == "truncated" else b"not weights")
    with pytest.raises(ZooError, match=r"no such|damaged"):
        QuantizedModel.load(path)


def test_biases_lie_on_the_accumulators_grid(quantized: QuantizedModel) -> None:
    graph = quantized.graph(fold=True)
    checked = 0
    for node in graph.graph.nodes:
        if "conv" in str(node.target) and len(node.args) > 2:
            source, weight, bias = node.args[:3]
            step = float(np.float32(source.args[1])) * graph.get_buffer(weight.args[1].target).double()
            quotient = graph.get_parameter(bias.target).double() / step
            assert (quotient - quotient.round()).abs().max() < 1e-3
            checked += 1
    assert checked == sum(
        isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d) for m in create_model("utnet-n").modules()
    )
    with torch.no_grad():
        graph.get_parameter(bias.target).add_(step.float() * 0.4)
    quotient = snap_biases(graph).get_parameter(bias.target).double() / step
    assert (quotient - quotient.round()).abs().max() < 1e-3


@pytest.mark.parametrize(("channels", "groups"), [(16, 1), (300, 1), (16, 16), (16, 4)])
def test_accumulators_are_exact(channels: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-255, 256, (1, channels, 9, 9), generator=generator, dtype=torch.int32)
    weight = torch.randint(-127, 128, (16, channels // groups, 3, 3), generator=generator, dtype=torch.int32)
    geometry = [[1, 1], [1, 1], [1, 1], groups]
    want = torch.nn.functional.conv2d(x.double(), weight.double(), None, *geometry)
    assert torch.equal(_accumulate(x, weight, geometry, transposed=False), want.to(torch.int32))


def test_a_network_with_leaky_relu_has_no_integer_reference() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(12, 8, 3, padding=1), torch.nn.LeakyReLU(), torch.nn.Conv2d(8, 12, 1))
    prepared = prepare(network, 12)
    calibrate(prepared, scene(64))
    with pytest.raises(NotImplementedError, match="leaky_relu"):
        QuantizedModel("utnet-n", "ptq", prepared).integer()(scene(64)[0].numpy())


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (torch.ops.aten.relu_.default, "relu"),
        (torch.ops.aten.leaky_relu.default, "leaky_relu"),
        (torch.ops.aten.conv_transpose2d.input, "conv_transpose2d"),
    ],
)
def test_operators_have_one_name_each(target: Callable[..., torch.Tensor], name: str) -> None:
    assert operator_name(torch.fx.Graph().call_function(target)) == name


def test_the_doctor_needs_no_torchao() -> None:
    code = "import sys, export.doctor, quantize; sys.exit('torchao' in sys.modules or 'IntegerNetwork' not in dir(quantize))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_calibration_beats_the_full_range(model: torch.nn.Module) -> None:
    """An outlier must not widen the range of everything else."""
    tiles = scene(64)
    spiky = [t.clone() for t in tiles]
    spiky[0][0, 4, 3, 3] = 6.0

    def error(inputs: list[torch.Tensor]) -> float:
        prepared = prepare(model)
        calibrate(prepared, inputs)
        with torch.no_grad():
            return sum(float((prepared(t) - model(t)).square().mean()) for t in tiles)

    assert error(spiky) < 3 * error(tiles)


def test_float_references_are_not_quantised() -> None:
    pool = ImagePool([torch.zeros(200, 200, 3, dtype=torch.uint16)], "")
    with pytest.raises(ZooError, match="utnet2 is a float reference"):
        post_training("utnet2", create_model("utnet2"), pool, TrainConfig(model="utnet2"))


def test_a_prepared_graph_trains_under_its_model_s_contract(quantized: QuantizedModel, tmp_path: Path) -> None:
    """The graph has lost the attribute ``contract``; the configuration's name says it."""
    pool = ImagePool([torch.full((200, 200, 3), 9000, dtype=torch.uint16)], "")
    values = {"model": "utnet-n", "batch": 2, "patch": 64, "precision": "fp32", "steps": 1, "validate_every": 100}
    trainer = Trainer(copy.deepcopy(quantized.prepared), TrainConfig(**values), pool, tmp_path)  # type: ignore[arg-type]
    assert trainer.contract.name == "bayer_vst_v1"
    assert trainer._train_step() > 0


def test_sums_are_kept_off_ties(quantized: QuantizedModel) -> None:
    # utnet-m's scales of 2026-11-22, before: 2 a + 31 b is 31.500 of the sum's.
    a, b = 1.173814, 0.940399
    before = disagreement(a, b, 1.0)
    assert before > 0.1
    assert min(disagreement(a, b, 1 + i / 1000) for i in range(16)) < 0.01 * before
    found = []

    def watched(one, two, scale, *rest):
        found.append(disagreement(one.scale, two.scale, scale))
        return fixed_point_add(one, two, scale, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantize.integer.fixed_point_add", watched)
        quantized.integer()(scene(64)[0].numpy())
    assert len(found) == 3 and max(found) < 0.05


def test_a_folder_of_other_float_weights_is_refused(tmp_path: Path) -> None:
    model, folder = create_model("utnet-n"), tmp_path / "run"
    claim(folder, model)
    (folder / CHECKPOINT).write_bytes(b"")
    claim(folder, model)  # an interrupted run goes on
    with pytest.raises(ZooError, match="fine-tuning of other float weights"):
        claim(folder, create_model("utnet-n"))  # drawn anew
    (folder / "start.sha256").unlink()  # of before this was noted
    with pytest.raises(ZooError, match="fine-tuning of other float weights"):
        claim(folder, model)
