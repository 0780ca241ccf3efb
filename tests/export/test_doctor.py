"""``zoo doctor`` held against what export reports: all models that ship, the float references, and a deliberately bad network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export import TARGETS, load_source, target_module
from export.doctor import Finding, examine, operators, patients, trace, verdict
from export.operators import strangers
from quantize import QuantizedModel
from quantize.calibrate import calibrate
from quantize.recipe import prepare
from zoo import weights
from zoo.cli.main import main
from zoo.errors import ZooError
from zoo.models.balle import GDN
from zoo.models.contracts import contract_of
from zoo.models.contracts.bayer_vst import IN_CHANNELS, OUT_CHANNELS
from zoo.models.layers import fold_norms
from zoo.models.registry import create_model, get_spec, halves, list_models

TILE = 64
SHIPPED = [
    (name, half)
    for name in list_models()
    for half in halves(name)
    if get_spec(name).int8 and weights.path(name, quantized=True, half=half).exists()
]
# The smallest member of each family of references, with the smallest tile that it takes.
REFERENCES = {"utnet2": 16, "demosaic-cnn": 16, "xtrans-unet-16": 24, "pmrid": 32}
NAMED = {"leaky_relu", "prelu", "upsample_bilinear2d", "pad", "sqrt", "div"}


class Bad(nn.Module):
    """All that the issue names: LeakyReLU, PReLU, GDN (with stored weights), bilinear, reflect pad."""

    def __init__(self, gdn: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(IN_CHANNELS, 16, 2, 2)
        self.leaky = nn.LeakyReLU(0.1)
        self.second = nn.Conv2d(16, 16, 3)
        self.prelu = nn.PReLU(16)
        with torch.no_grad():
            self.prelu.weight.copy_(torch.linspace(0.05, 0.3, 16))  # all alike, Core ML would have a LeakyReLU
        self.third = nn.Conv2d(16, 16, 1)
        self.norm = nn.Conv2d(16, 16, 1)
        with torch.no_grad():
            self.norm.weight.copy_(0.1 * torch.eye(16)[:, :, None, None])
            self.norm.bias.fill_(1.0)  # type: ignore[union-attr]
        self.gdn = gdn
        self.fourth = nn.Conv2d(16, 16, 1)
        self.last = nn.Conv2d(16, OUT_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.leaky(self.first(x))
        y = self.prelu(self.second(F.pad(y, (1, 1, 1, 1), mode="reflect")))
        y = self.third(y)
        y = self.gdn(y) if self.gdn else y / torch.sqrt(self.norm(y * y))
        y = F.interpolate(self.fourth(y), scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(y)


class Clean(nn.Module):
    contract = "bayer_vst_v1"

    def __init__(self, gain: float = 1.0, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(IN_CHANNELS, width, 3, padding=1)
        self.last = nn.Conv2d(width, OUT_CHANNELS, 3, padding=1)
        with torch.no_grad():
            self.first.weight.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class Hot(Clean):
    """Its first layer leaves fp16's range."""

    def __init__(self) -> None:
        super().__init__(gain=1e6)


class Narrow(Clean):
    def __init__(self) -> None:
        super().__init__(width=24)


@pytest.fixture(scope="module")
def bad() -> Bad:
    torch.manual_seed(0)
    return Bad().eval()


@pytest.fixture(scope="module")
def bad_int8(bad: Bad) -> QuantizedModel:
    prepared = prepare(bad)
    inputs = [torch.randn(1, IN_CHANNELS, TILE, TILE, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    calibrate(prepared, inputs)
    return QuantizedModel("bad", "ptq", prepared)


def audited(net: Any, target: str, precision: str, tile: int, folder: Path, metadata: dict[str, str]) -> set[str]:
    """Names in the file of all that is outside a delegate or, in int8, computes in float."""
    module = target_module(target)
    path = folder / f"net.{module.SUFFIX}"
    module.write(net, precision=precision, tile=tile, metadata=metadata, path=path)
    audit = module.audit(path)
    bad = [op for op in audit["not_delegated"] if "->" not in op] + strangers(audit, precision)
    if precision == "int8":
        assert audit["conv_int8"] == audit["conv_total"] > 0
    return {op.rsplit(":", 1)[0].removeprefix("aten::") for op in bad}


def agree(found: list[Finding], names: set[str]) -> None:
    """Every name in the file is claimed by a finding, and every finding shows in the file."""
    claimed = {s for f in found for s in f.shows}
    assert names <= claimed, f"nobody foresaw {names - claimed}"
    for finding in found:
        assert not finding.shows or names & set(finding.shows), f"{finding.operator} does not show in {names}"


@pytest.mark.parametrize("target", TARGETS)
def test_the_bad_network_in_int8(target: str, bad: Bad, bad_int8: QuantizedModel, tmp_path: Path) -> None:
    found = list(operators(trace(bad, IN_CHANNELS, TILE), target, "int8"))
    agree(found, audited(bad_int8, target, "int8", TILE, tmp_path, {}))
    if target == "executorch":
        assert {f.operator for f in found} == NAMED
        assert {f.layer for f in found if f.operator in ("leaky_relu", "prelu")} == {"leaky", "prelu"}


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_bad_network_in_float(target: str, precision: str, bad: Bad, tmp_path: Path) -> None:
    found = list(operators(trace(bad, IN_CHANNELS, TILE), target, precision))
    agree(found, audited(bad, target, precision, TILE, tmp_path, {}))


def test_gdn_as_it_is_trained_does_not_quantise() -> None:
    """The doctor says so, and so it is."""
    torch.manual_seed(0)
    net = Bad(GDN(16)).eval()
    found = list(operators(trace(net, IN_CHANNELS, TILE), "executorch", "int8"))
    assert [f.layer for f in found if f.consequence == "fails"] == ["gdn"]
    prepared = prepare(net)
    calibrate(prepared, [torch.randn(1, IN_CHANNELS, TILE, TILE)])
    with pytest.raises(AttributeError):
        QuantizedModel("bad", "ptq", prepared).graph(fold=True)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "half"), SHIPPED)
def test_models_that_ship_are_clean_and_their_files_too(name: str, half: str, target: str, tmp_path: Path) -> None:
    label = f"{name}/{half}" if half else name
    (patient,) = [p for p in patients(name) if p.name == label]
    found = examine(patient, target, "int8")
    assert verdict(found) == 0, found
    spec = get_spec(name)
    metadata = {"contract": spec.contract}
    if spec.codec:
        metadata |= {"half": half, "latents": str(spec.codec.channels(half)), "stride": str(spec.codec.stride)}
    names = audited(load_source(name, "int8", half)[0], target, "int8", TILE, tmp_path, metadata)
    agree([f for f in found if f.consequence != "note"], names)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", REFERENCES)
def test_references_in_float(name: str, target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = fold_norms(create_model(name))
    contract = contract_of(net, name)
    found = list(operators(trace(net, contract.in_channels, REFERENCES[name]), target, "fp32"))
    agree(found, audited(net, target, "fp32", REFERENCES[name], tmp_path, {"contract": contract.name}))


def own(class_: str, tile: int | None = None) -> Any:
    (patient,) = patients(f"{Path(__file__).stem}:{class_}", tile)
    return patient


def test_a_class_of_the_user_s_is_looked_at() -> None:
    patient = own("Clean")
    assert (patient.multiple, patient.halo, patient.tile) == (1, 3, 256)
    assert examine(patient, "litert", "int8") == []


def test_values_beyond_fp16_are_found() -> None:
    found = examine(own("Hot"), "executorch", "fp16")
    assert [(f.layer, f.consequence) for f in found][:1] == [("first", "numerics")]
    assert "65504" in found[0].reason
    assert examine(own("Clean"), "executorch", "fp16") == []
    assert examine(own("Hot"), "executorch", "fp32") == []
    assert verdict(found) == 1
    # Core ML computes in fp16 between the integers; the others do not.
    assert verdict(examine(own("Hot"), "coreml", "int8")) == 1
    assert verdict(examine(own("Hot"), "litert", "int8")) == 0


def test_channels_that_are_padded_are_noted_and_no_finding() -> None:
    found = examine(own("Narrow"), "executorch", "int8")
    assert [(f.layer, f.operator, f.consequence) for f in found] == [("first", "channels", "note")]
    assert "24 channels cost as much as 32 (25%" in found[0].reason
    assert verdict(found) == 0


def test_tiles_that_do_not_fit() -> None:
    (patient,) = patients("utnet-n", 100)
    found = examine(patient, "litert", "int8")
    assert [(f.operator, f.consequence) for f in found if f.operator == "tile"] == [("tile", "fails")]
    (patient,) = patients("utnet-n", 40)
    assert "all margin" in next(f.reason for f in examine(patient, "litert", "int8") if f.operator == "tile")
    (patient,) = patients("utnet-n")
    assert not [f for f in examine(patient, "litert", "int8") if f.operator == "tile"]


def test_both_halves_of_a_compressor_are_looked_at() -> None:
    found = patients("bayer-codec-s")
    assert [p.name for p in found] == ["bayer-codec-s/encoder", "bayer-codec-s/decoder"]
    assert all(not verdict(examine(p, "executorch", "int8")) for p in found)
    decoder = patients("balle-bayer-tc")[1]
    assert {f.operator for f in operators(trace(decoder.network, decoder.channels, 4), "litert", "fp32")} >= {
        "conv_transpose2d"
    }


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "utnet-n", "--target", "litert", "--target", "executorch"]) == 0
    assert "utnet-n on litert int8: clean" in capsys.readouterr().out
    assert main(["doctor", f"{Path(__file__).stem}:Bad", "--target", "executorch", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["clean"] is False
    assert {f["operator"] for f in row["findings"]} == NAMED
    assert {"layer", "operator", "consequence", "reason", "rewrite", "evidence", "shows"} == row["findings"][0].keys()
    assert main(["doctor", f"{Path(__file__).stem}:Bad", "--target", "executorch"]) == 1
    text = capsys.readouterr().out
    assert "leaky_relu" in text
    assert "ReLU (ReLU6" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["utnet-x", "--target", "litert"], "unknown model 'utnet-x'"),
        (["utnet-n", "--target", "tflite"], "unknown target 'tflite'"),
        (["utnet-n", "--target", "litert", "--precision", "int4"], "unknown precision 'int4'"),
        (["utnet-n", "--target", "litert", "--tile", "0"], "positive"),
        (["nowhere:Net", "--target", "litert"], "cannot be made: ModuleNotFoundError"),
        (["json:loads", "--target", "litert"], "cannot be made: TypeError"),
        (["collections:OrderedDict", "--target", "litert"], "makes OrderedDict, not a torch module"),
        (["torch.nn:Bilinear", "--target", "litert"], "cannot be made"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0


def test_a_network_of_other_channels_is_told_about_contracts() -> None:
    with pytest.raises(ZooError, match=r"does not take \[1, 12, 64, 64\].*attribute `contract`"):
        own("OtherChannels")


class OtherChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
