"""Switching quantisation of single tensors: exact at both ends, and costs that are where an error was put."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.verify import encode_centre
from quantize import QuantizedModel
from quantize.calibrate import calibrate
from quantize.recipe import ActivationFakeQuantize, fake_quantizers, prepare
from quantize.sensitivity import SwitchedNetwork, sensitivity, sqnr
from zoo.cli.main import main
from zoo.data.scene import synthetic_raw
from zoo.evaluation.bed import LEVELS
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS


class Net(nn.Module):
    """Plain, depthwise, strided and transposed convolutions, ReLU, additions, and a skip that two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(IN_CHANNELS, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.down = nn.Conv2d(16, 32, 2, 2)
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.head = nn.Conv2d(16, OUT_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.stem(x))
        return self.head(torch.relu(self.up(torch.relu(self.down(self.depthwise(skip)))) + skip))


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    raws = {level: synthetic_raw(64, 64, shot=s, read=o) for level, (s, o) in LEVELS.items()}
    return {level: torch.from_numpy(encode_centre(raw, 32)) for level, raw in raws.items()}


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def model(net: Net, inputs: dict[str, Tensor]) -> QuantizedModel:
    prepared = prepare(net)
    calibrate(prepared, inputs.values())
    return QuantizedModel("toy", "ptq", prepared)


@pytest.fixture(scope="module")
def network(model: QuantizedModel) -> SwitchedNetwork:
    return SwitchedNetwork(model)


def test_all_on_is_the_quantised_graph(
    network: SwitchedNetwork, model: QuantizedModel, inputs: dict[str, Tensor]
) -> None:
    folded, unfolded = model.graph(fold=True), model.graph(fold=False)
    for x in inputs.values():
        with torch.no_grad():
            assert torch.equal(network(x), folded(x))
            assert torch.equal(network(x), unfolded(x))


def test_all_off_is_the_float_network(network: SwitchedNetwork, net: Net, inputs: dict[str, Tensor]) -> None:
    for x in inputs.values():
        with torch.no_grad():
            assert torch.equal(network(x, ()), net(x))


def test_every_quantiser_of_the_recipe_is_a_tap(network: SwitchedNetwork, net: Net) -> None:
    weights = {t.name: t for t in network.taps if t.kind == "weight"}
    convs = {name for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)}
    assert set(weights) == {f"{c}.weight" for c in convs}
    activations = {t.name: t.layer for t in network.taps if t.kind == "activation"}
    assert activations == {
        "input": "",
        "relu(stem)": "stem",
        "depthwise": "depthwise",
        "relu(down)": "down",
        "up": "up",
        "relu(add(up, relu(stem)))": "",
        "head": "head",
    }
    assert all(t.scale > 0 for t in network.taps)


def test_one_weight_on_is_that_weight_rounded(network: SwitchedNetwork, net: Net, inputs: dict[str, Tensor]) -> None:
    x = inputs["iso800"]
    rounded = copy.deepcopy(net)
    with torch.no_grad():
        scale = (rounded.down.weight.abs().amax((1, 2, 3)) / 127)[:, None, None, None]
        rounded.down.weight.copy_(torch.round(rounded.down.weight / scale) * scale)
        want, got = rounded(x), network(x, ["down.weight"])
        # The bias of a quantised weight lies on the accumulators' grid: half a step of 8 bits times 8 bits at most.
        assert (got - want).abs().max() < 0.01 * (want - net(x)).abs().max() + 1e-4
        assert not torch.equal(got, net(x))


def test_one_activation_on_is_the_float_network_on_it_rounded(
    network: SwitchedNetwork, model: QuantizedModel, net: Net, inputs: dict[str, Tensor]
) -> None:
    x = inputs["iso3200"]
    graph = model.graph(fold=True)
    (source,) = [n for n in graph.graph.nodes if n.op == "placeholder"]
    scale, zero = next(iter(source.users)).args[1:3]
    q = torch.clamp(torch.round(x / scale) + zero, -128, 127)
    with torch.no_grad():
        assert torch.allclose(network(x, ["input"]), net((q - zero) * scale), atol=1e-5)


def test_unknown_tensors_are_refused(network: SwitchedNetwork, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="no tensor 'stme'"):
        network(inputs["clean"], ["stme"])


def test_the_damaged_range_is_the_dearest(net: Net, inputs: dict[str, Tensor]) -> None:
    """The step of one activation is made eight times as wide: the table must put it first."""
    prepared = prepare(net)
    calibrate(prepared, inputs.values())
    found = fake_quantizers(prepared, ActivationFakeQuantize)
    network = SwitchedNetwork(QuantizedModel("toy", "ptq", prepared))
    index = [t.name for t in network.taps if t.kind == "activation"].index("up")
    scales = [t.scale for t in network.taps if t.kind == "activation"]
    (module,) = [m for m in found.values() if float(m.scale) == pytest.approx(scales[index], rel=1e-6)]
    step, zero = float(module.scale), int(module.zero_point)
    module.set_range(8 * (-128 - zero) * step, 8 * (127 - zero) * step)
    worse = sensitivity(SwitchedNetwork(QuantizedModel("toy", "ptq", prepared)), inputs)
    before = sensitivity(network, inputs)
    assert next(c.name for c in worse.costs if c.kind == "activation") == "up"
    assert worse.total_db < before.total_db
    (broken,) = [c for c in worse.costs if c.name == "up" and c.kind == "activation"]
    (intact,) = [c for c in before.costs if c.name == "up" and c.kind == "activation"]
    assert broken.own_db < intact.own_db - 3
    assert broken.cost_db > intact.cost_db + 1


def test_report_adds_up(network: SwitchedNetwork, inputs: dict[str, Tensor]) -> None:
    report = sensitivity(network, inputs, psnr=lambda level, y: -float(y.square().mean()))
    by_name = {(c.name, c.kind): c for c in report.costs}
    for level, x in inputs.items():
        wanted = network(x, ())
        assert report.total_db_of[level] == pytest.approx(sqnr(wanted, network(x)))
        names = [t.name for t in network.taps if t.name != "head.weight"]
        gain = sqnr(wanted, network(x, names)) - sqnr(wanted, network(x))
        assert by_name["head.weight", "weight"].cost_db_of[level] == pytest.approx(gain)
    layer = {"head.weight", "head"}
    alone = np.mean([sqnr(network(x, ()), network(x, layer)) for x in inputs.values()])
    assert by_name["head", "layer"].alone_db == pytest.approx(alone)
    costs = [c.picture_db for c in report.costs]
    assert costs == sorted(costs, key=lambda v: -(v or 0))
    assert report.picture_db is not None and report.float_picture_db is not None


def test_sqnr() -> None:
    signal = torch.tensor([[1.0, -1.0], [1.0, -1.0]])[None, None]
    assert sqnr(signal + 5, signal + 5.1) == pytest.approx(20, abs=1e-3)
    assert math.isinf(sqnr(signal, signal))


def test_the_verb_prints_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "utnet-n", "--sensitivity", "--record", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    record = json.loads((tmp_path / "utnet-n-qat-synthetic.json").read_text())
    assert record["kind"] == "sensitivity"
    assert record["costs"] == row["costs"]
    assert len(record["weights_sha256"]) == 64
    assert set(row["total_db_of"]) == {f"scene-{level}" for level in LEVELS}
    kinds = {c["kind"] for c in row["costs"]}
    assert kinds == {"weight", "activation", "layer"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["utnet2", "--sensitivity"], "float reference"),
        (["utnet-n"], "give --output-dir"),
        (["utnet-n", "--output-dir", "x", "--record", "y"], "--record belongs to --sensitivity"),
        (["bayer-codec-s", "--sensitivity", "--data", "x"], "neither half"),
        (["utnet-n", "--sensitivity", "--data", "missing"], "no such folder"),
        (["utnet-n", "--sensitivity", "--weights", "missing.safetensors"], "no such quantised model"),
    ],
)
def test_bad_requests_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["quantize", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())
