"""The latency estimate: its table, its arithmetic, and how far it is from published measurements."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from published_nets import NETS, SHAPES

from export.estimate import (
    PHOTO_MP,
    Layer,
    check_of,
    cpu_ms,
    estimate,
    instructions_ms,
    layers_of,
    npu_efficiency,
    npu_ms,
    npu_rate,
    socs,
    tables,
)
from zoo.cli.main import main
from zoo.errors import ZooError
from zoo.models.analysis import count_macs
from zoo.models.registry import create_model, get_spec, list_models

ROWS = tables()["measurements"]


@pytest.fixture(scope="module")
def nets() -> dict[str, list[Layer]]:
    """Layers of the networks that published measurements are of."""
    with torch.device("meta"):
        return {name: layers_of(build(), SHAPES[name]) for name, build in NETS.items()}


def range_of(row: dict[str, Any], nets: dict[str, list[Layer]]) -> tuple[float, float]:
    layers = nets[row["net"]]
    # ONNX Runtime's default is one thread per core; the four fastest do nearly all of the work.
    return npu_ms(layers, row["soc"]) if row["unit"] == "npu" else cpu_ms(layers, row["soc"], 4)


def numbers(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every entry with a value, by its place."""
    if isinstance(node, dict):
        if "value" in node:
            yield path, node
        for key, child in node.items():
            yield from numbers(child, f"{path}/{key}")
    elif isinstance(node, list):
        for i, child in enumerate(node):
            yield from numbers(child, f"{path}/{i}")


def test_every_number_has_a_source_and_a_confidence() -> None:
    found = list(numbers(tables()))
    assert len(found) > 150
    for path, entry in found:
        assert set(entry) == {"value", "source", "confidence"}, path
        assert entry["source"] in tables()["sources"], path
        assert entry["confidence"] in ("low", "medium", "high"), path
        assert entry["value"] > 0, path
    used = {entry["source"] for _, entry in found}
    assert used == set(tables()["sources"])


def test_no_bare_numbers() -> None:
    """A number that is not a value of such an entry has no source."""

    def bare(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, dict) and "value" not in node:
            for key, child in node.items():
                yield from bare(child, f"{path}/{key}")
        elif isinstance(node, list):
            for i, child in enumerate(node):
                yield from bare(child, f"{path}/{i}")
        elif isinstance(node, int | float) and path.rsplit("/", 1)[1] not in (
            "count",
            "within",
            "rows",
            "least",
            "most",
        ):
            yield path

    assert list(bare(tables(), "")) == []


@pytest.mark.parametrize(
    ("soc", "one", "four"),
    [
        ("snapdragon-855", 182, 646),
        ("snapdragon-8-gen-3", 422, 1037),
        ("tensor-g3", 372, 828),
        ("apple-a16", 443, 1144),
    ],
)
def test_peaks_of_the_cores_are_those_of_their_specification(soc: str, one: float, four: float) -> None:
    """GOPS of one and of four cores: 32 operations per sdot."""
    for threads, gops in ((1, one), (4, four)):
        seconds = instructions_ms(1e9, 1e9, soc, threads) / 1e3
        assert 32 / seconds == pytest.approx(gops, rel=0.005)


def test_published_networks_have_their_published_size(nets: dict[str, list[Layer]]) -> None:
    gmac = {name: sum(layer.macs for layer in layers) / 1e9 for name, layers in nets.items()}
    assert gmac["unet"] == pytest.approx(602.1, rel=1e-3)
    assert gmac["resnet50"] == pytest.approx(4.09, rel=1e-2)
    assert gmac["mobilenet-v2"] == pytest.approx(0.300, rel=1e-2)
    assert gmac["realesrgan-x4v3"] == pytest.approx(19.9, rel=1e-2)


@pytest.mark.parametrize("row", [r for r in ROWS if r["role"] == "fit"], ids=lambda r: f"{r['net']}-{r['soc']}")
def test_the_rows_it_was_fitted_on_lie_in_its_range(row: dict[str, Any], nets: dict[str, list[Layer]]) -> None:
    low, high = range_of(row, nets)
    assert low <= row["ms"]["value"] <= high


@pytest.mark.parametrize("soc", [name for name, entry in tables()["socs"].items() if "npu_tops" in entry])
def test_an_accelerators_rate_follows_from_its_measurement(soc: str, nets: dict[str, list[Layer]]) -> None:
    wide = "resnet50" if soc.startswith("apple") else "unet"
    (row,) = [r for r in ROWS if (r["soc"], r["net"], r["role"]) == (soc, wide, "fit")]
    call = tables()["model"]["npu"]["call_ms"]["fitted"]["value"]
    work = sum(2 * layer.macs / npu_efficiency(layer) for layer in nets[wide])
    assert npu_rate(soc)[0] == pytest.approx(work / ((row["ms"]["value"] - call) / 1e3), rel=0.005)


@pytest.mark.parametrize("unit", ["npu", "ane", "cpu"])
def test_held_out_measurements_are_as_far_off_as_the_table_says(unit: str, nets: dict[str, list[Layer]]) -> None:
    """The check that users are told of, from the rows that nothing was fitted on."""
    held = [r for r in ROWS if r["role"] == "held_out" and check_of(r["soc"], r["unit"]) == unit]
    ranges = [range_of(row, nets) for row in held]
    measured = [row["ms"]["value"] for row in held]
    errors = [math.sqrt(low * high) / ms for (low, high), ms in zip(ranges, measured, strict=True)]
    check = tables()["checks"][unit]
    assert len(held) == check["rows"]
    assert sum(low <= ms <= high for (low, high), ms in zip(ranges, measured, strict=True)) == check["within"]
    assert (round(min(errors), 2), round(max(errors), 2)) == (check["least"], check["most"])


def test_on_phones_npus_most_held_out_rows_lie_in_the_range() -> None:
    """What may be claimed of Snapdragons' NPUs, and of nothing else."""
    check = tables()["checks"]["npu"]
    assert check["within"] >= 0.8 * check["rows"]
    assert check["least"] > 0.5 and check["most"] < 2


@pytest.mark.parametrize("name", list_models("utnet*"))
def test_layers_add_up_to_the_models_cost(name: str) -> None:
    spec = get_spec(name)
    model = create_model(name)
    layers = layers_of(model, (spec.in_channels, 64, 64))
    assert sum(layer.macs for layer in layers) / 64**2 == pytest.approx(count_macs(model, spec.in_channels))


def test_a_depthwise_layer_costs_more_than_its_arithmetic() -> None:
    dense = layers_of(torch.nn.Conv2d(32, 32, 3, padding=1), (32, 64, 64))
    alone = layers_of(torch.nn.Conv2d(32, 32, 3, padding=1, groups=32), (32, 64, 64))
    assert alone[0].depthwise and alone[0].dots == 0 and alone[0].macs == dense[0].macs / 32
    call = tables()["model"]["npu"]["call_ms"]["low"]["value"]
    for times in (lambda x: npu_ms(x, "snapdragon-8-gen-3")[0] - call, lambda x: cpu_ms(x, "snapdragon-8-gen-3", 1)[0]):
        assert times(alone) > 2 * times(dense) / 32


def test_sdot_is_counted_with_channels_filled_up() -> None:
    """12 channels in, 8 out, 3x3 on 4x4: 16 outputs are computed at a time."""
    (layer,) = layers_of(torch.nn.Conv2d(12, 8, 3, padding=1), (12, 4, 4))
    assert layer.dots == 16 * 9 * 12 * 16 / 16


def test_estimate_of_a_model() -> None:
    found = estimate("utnet-m", "snapdragon-8-gen-3", "npu")
    assert 0 < found.low_ms < found.high_ms
    assert found.low_ms_per_mp == pytest.approx(found.low_ms / PHOTO_MP)
    assert found.to_json()["kind"] == "estimate" and found.to_json()["measured"] is False
    assert any("published measurements it was not fitted on" in words for words in found.assumptions)
    assert 0 < sum(share for _, share in found.layers) <= 1


def test_more_cores_and_fewer_operations_take_less_time() -> None:
    one, four = (estimate("utnet-m", "tensor-g3", "cpu", threads=n, evidence=None) for n in (1, 4))
    small = estimate("utnet-n", "tensor-g3", "cpu", evidence=None)
    assert small.high_ms < four.high_ms < one.high_ms < 4 * four.high_ms


def test_counted_instructions_take_the_place_of_arithmetic(tmp_path: Path) -> None:
    cost = get_spec("utnet-n").gmac_per_mp
    record = {
        "kind": "instructions",
        "gmac_per_megapixel": cost,
        "millions_per_megapixel": {"dot": 80.0, "total": 240.0},
    }
    file = tmp_path / "utnet-n-litert-int8-cortex-a76.json"
    file.write_text(json.dumps(record))
    (tmp_path / "utnet-n-litert-int8-cortex-a53.json").write_text(
        "{}"
    )  # has no sdot, which every chip in the table has
    found = estimate("utnet-n", "tensor-g3", "cpu", evidence=tmp_path)
    assert found.basis == str(file)
    tile_mp = (2 * found.tile) ** 2 / 1e6
    least = instructions_ms(80e6 * tile_mp, 240e6 * tile_mp, "tensor-g3", 4) * found.tiles
    assert found.low_ms == pytest.approx(least * tables()["model"]["cpu"]["stalls"]["low"]["value"], rel=1e-3)
    # A record of another network of the same name does not count.
    file.write_text(json.dumps(record | {"gmac_per_megapixel": 2 * cost}))
    assert estimate("utnet-n", "tensor-g3", "cpu", evidence=tmp_path).basis == "multiply-accumulates"


def test_counted_dots_are_those_of_the_layers() -> None:
    """Records of models as they are now, where there are any."""
    folder = Path(__file__).parents[2] / "evidence" / "instructions"
    records = [json.loads(f.read_text()) for f in sorted(folder.glob("*-litert-int8-cortex-a76.json"))]
    records = [r for r in records if abs(r["gmac_per_megapixel"] / get_spec(r["model"]).gmac_per_mp - 1) < 0.01]
    if not records:
        pytest.skip("no instruction counts of the present models; `make test-arm` makes them")
    for record in records:
        spec, tile = get_spec(record["model"]), record["tile"]
        layers = layers_of(create_model(spec.name), (spec.in_channels, tile, tile))
        dots = sum(layer.dots for layer in layers) / ((2 * tile) ** 2 / 1e6) / 1e6
        assert record["millions_per_megapixel"]["dot"] == pytest.approx(dots, rel=0.01)


@pytest.mark.parametrize("target", ["cpu", "npu"])
def test_every_chip_that_is_offered_can_be_estimated(target: str) -> None:
    layers = layers_of(create_model("utnet-n"), (12, 64, 64))
    assert len(socs(target)) >= 15
    for soc in socs(target):
        low, high = npu_ms(layers, soc) if target == "npu" else cpu_ms(layers, soc, 4)
        assert 0 < low < high


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("utnet-m", "snapdragon-8-gen-33", "cpu"), "did you mean"),
        (("utnet-m", "tensor-g4", "npu"), "nothing to estimate npu of tensor-g4 from is published"),
        (("utnet-m", "tensor-g4", "gpu"), "unknown target 'gpu'"),
        (("passthrough", "tensor-g4", "cpu"), "has no convolution"),
    ],
)
def test_what_cannot_be_estimated(arguments: tuple[str, str, str], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        estimate(*arguments)


def test_the_verb_says_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "utnet-n", "--soc", "snapdragon-8-gen-3"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "ESTIMATE" in out and "not measurements" in out and "checked on 13 published measurements" in out
    assert main(["estimate", "utnet-n", "--soc", "tensor-g4", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["soc"], row["target"], row["measured"]) == ("tensor-g4", "cpu", False)
    assert main(["estimate", "utnet-n", "--soc", "nokia-3310"]) == 2
    assert "unknown chip 'nokia-3310'" in capsys.readouterr().err
