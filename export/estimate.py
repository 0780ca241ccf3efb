"""How long a network may take on a phone that nobody here has: an estimate from published numbers, never a measurement.

The time of one inference is that of its call plus, layer by layer, the larger of arithmetic and memory traffic::

    t = call + sum over layers of max(work / rate, bytes / bandwidth)

* NPU: a layer's rate is that of the accelerator (measured with one published int8 U-Net per chip) times a share that falls
  with the layer's narrower side, since matrix units are as wide as 128 channels.
* CPU: instructions over instructions per cycle: those counted under emulation where there is a record of the model, else
  sdot instructions from multiply-accumulates.

All constants, rates and clocks are in ``soc.yaml``, each with source and confidence; rows that were not used for them check the
result (``tests/phone/test_estimate.py``). What is estimated is the network on its tiles; decoding the raw file, packing,
the linear demosaic and writing a picture are not in it.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor, nn

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.models.registry import ModelSpec

TARGETS = ("cpu", "npu")
PHOTO_HEIGHT, PHOTO_WIDTH = 3000, 4000  # 12 MP
PHOTO_MP = PHOTO_HEIGHT * PHOTO_WIDTH / 1e6
COUNTS = Path("evidence/instructions")  # seen from the top of a checkout
_COUNTED_CPU = "cortex-a76"  # has sdot, as all cores of soc.yaml do
_SDOT_MACS = 16
_MOST_CORES = 4  # beyond the big ones more threads rarely help, and soc.yaml says nothing of them


@dataclass(frozen=True)
class Layer:
    """One convolution, or another operator that moves activations, for one inference.

    Attributes:
        name: of the module.
        macs: multiply-accumulates.
        narrow: the smaller of the channels that go into and come out of one group.
        depthwise: whether each channel is convolved by itself.
        dots: sdot instructions that XNNPACK spends on it: 4 inputs for 4 outputs each, input channels filled up to 4, output
            channels of a group to 16. Equal to what is counted (82.06 and 257.25 million per megapixel of two models).
        outputs: values written.
        activations: values read and written.
        weights: values.
    """

    name: str
    macs: float
    narrow: int
    depthwise: bool
    dots: float
    outputs: int
    activations: int
    weights: int


@dataclass(frozen=True)
class Estimate:
    """A range of latencies, reasoned and not measured.

    Attributes:
        model, soc, target, threads: what was asked; threads are None on an NPU.
        low_ms, high_ms: of a 12 MP photo, all its tiles one after the other.
        tile, tiles: packed side and number of the photo's tiles.
        basis: what the work was taken from: ``multiply-accumulates`` or the path of a record of counted instructions.
        assumptions: in words, one each.
        confidence: the least of the numbers it rests on.
        layers: (name, share of the time) of the five slowest, at the middle of the range; empty for counted instructions.
    """

    model: str
    soc: str
    target: str
    threads: int | None
    low_ms: float
    high_ms: float
    tile: int
    tiles: int
    basis: str
    assumptions: tuple[str, ...]
    confidence: str
    layers: tuple[tuple[str, float], ...]

    @property
    def low_ms_per_mp(self) -> float:
        """Per megapixel of the sensor."""
        return self.low_ms / PHOTO_MP

    @property
    def high_ms_per_mp(self) -> float:
        """Per megapixel of the sensor."""
        return self.high_ms / PHOTO_MP

    def to_json(self) -> dict[str, Any]:
        """JSON-able; says what it is."""
        per_mp = {"low_ms_per_mp": self.low_ms_per_mp, "high_ms_per_mp": self.high_ms_per_mp}
        return {"kind": "estimate", "measured": False, "photo_mp": PHOTO_MP, **asdict(self), **per_mp}


@cache
def tables() -> dict[str, Any]:
    """``soc.yaml``: ``sources``, ``cores``, ``socs``, ``measurements``, ``model``."""
    content: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "soc.yaml").read_text())
    return content


def socs(target: str) -> list[str]:
    """Names of the chips of which enough is known for a target."""
    return [name for name in tables()["socs"] if _known(name, target)]


def estimate(name: str, soc: str, target: str, *, threads: int = 4, evidence: Path | None = COUNTS) -> Estimate:
    """Estimate the int8 latency of a model's network on a 12 MP photo.

    Args:
        name: registered model; of a compressor the encoder is estimated.
        soc: a key of ``soc.yaml``, such as ``snapdragon-8-gen-3``.
        target: ``cpu`` or ``npu`` (also Apple's Neural Engine).
        threads: on the CPU, 1 to 4, on the fastest cores.
        evidence: folder with records of counted instructions (``python -m tools.arm.count``), used where it has one of the
            model; None for multiply-accumulates only.

    Raises:
        ZooError: unknown model, chip or target, a model without layers, or too little is published of the chip.
    """
    from export import default_tile
    from zoo.inference.tiling import plan
    from zoo.models.registry import create_model, get_spec, nearest

    spec = get_spec(name)
    if target not in TARGETS:
        raise ZooError(f"unknown target '{target}'{nearest(target, TARGETS)}; choose from {', '.join(TARGETS)}")
    chips = tables()["socs"]
    if soc not in chips:
        raise ZooError(f"unknown chip '{soc}'{nearest(soc, list(chips))}; choose from {', '.join(chips)}")
    if not _known(soc, target):
        raise ZooError(
            f"nothing to estimate {target} of {soc} from is published; choose from {', '.join(socs(target))}"
        )
    if not 1 <= threads <= _MOST_CORES:
        raise ZooError(f"threads go from 1 to {_MOST_CORES}, not {threads}")
    tile = default_tile(spec)
    grid = plan(spec, PHOTO_HEIGHT // 2, PHOTO_WIDTH // 2, fixed=tile)
    net = create_model(name)
    layers = layers_of(net.get_submodule("encoder") if spec.codec else net, (spec.in_channels, tile, tile))
    if not layers:
        raise ZooError(f"{name} has no convolution, so there is nothing to estimate")
    assumptions = [f"int8, {grid.rows * grid.columns} tiles of {tile} x {tile} packed pixels, one after the other"]
    if spec.codec:
        assumptions.append("the encoder only")
    if not spec.int8:
        assumptions.append("as if it were int8, which no file of this network is")
    tiles = grid.rows * grid.columns
    basis = "multiply-accumulates"
    if target == "cpu":
        counted = _counted(spec, evidence) if evidence else None
        if counted:
            dots, instructions, basis = counted
            megapixels = (2 * tile) ** 2 / 1e6
            least = instructions_ms(dots * megapixels, instructions * megapixels, soc, threads)
            low, high = (least * _number("cpu", "stalls", end) for end in ("low", "high"))
        else:
            low, high = cpu_ms(layers, soc, threads)
        assumptions += [f"the {threads} fastest core(s), at their full clocks, sharing the work evenly"]
        assumptions += ["memory never holds the cores up beyond the factor for stalls"]
    else:
        low, high = npu_ms(layers, soc)
        edge = 4 * tile * tile * (spec.in_channels + spec.out_channels)
        moved = edge / (_bandwidth(soc) * _number("npu", "dram_share")) * 1e3 if _bandwidth(soc) else 0.0
        low, high = low, high + moved
        assumptions += [
            _rate_words(soc),
            "float32 input and output through DRAM at the high end, for nothing at the low one",
        ]
    assumptions.append(_check_words(soc, target))
    return Estimate(
        name,
        soc,
        target,
        threads if target == "cpu" else None,
        round(low * tiles, 2),
        round(high * tiles, 2),
        tile,
        tiles,
        basis,
        tuple(assumptions),
        _confidence(soc, target),
        () if basis != "multiply-accumulates" else _slowest(layers, soc, target, threads),
    )


@torch.no_grad()
def layers_of(model: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """A network's convolutions for one input, by running it without data.

    Args:
        model: any module that takes one tensor.
        shape: ``[C, h, w]`` of the input.
    """
    net, found = copy.deepcopy(model).to("meta"), []

    def note(name: str) -> Any:
        def hook(module: nn.Conv2d | nn.ConvTranspose2d, args: tuple[Tensor, ...], output: Tensor) -> None:
            x, weight = args[0], module.weight
            positions = x if isinstance(module, nn.ConvTranspose2d) else output
            narrow = min(module.in_channels, module.out_channels) // module.groups
            depthwise = module.groups > 1 and narrow == 1
            macs = float(positions.numel() * weight[0].numel())
            inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
            filled = -(-inputs // 4) * 4 * -(-outputs // 16) * 16 / (inputs * outputs)
            dots = 0.0 if depthwise else macs * filled / _SDOT_MACS
            moved = x.numel() + output.numel()
            found.append(Layer(name, macs, narrow, depthwise, dots, output.numel(), moved, weight.numel()))

        return hook

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(note(name))
    net(torch.zeros(1, *shape, device="meta"))
    return found


def npu_ms(layers: Sequence[Layer], soc: str) -> tuple[float, float]:
    """(low, high) milliseconds of one inference on a chip's accelerator.

    Raises:
        ZooError: neither measured nor claimed rates are known of it.
    """
    slow, fast = npu_rate(soc)
    spread, bandwidth = _number("npu", "spread"), _bandwidth(soc)
    low, high = _number("npu", "call_ms", "low"), _number("npu", "call_ms", "high")
    for layer in layers:
        work = 2 * layer.macs / npu_efficiency(layer)
        low += work / fast / spread * 1e3
        moved = layer.activations + layer.weights
        through_dram = bandwidth > 0 and moved > _number("npu", "on_chip_mb") * 1e6
        memory = moved / (bandwidth * _number("npu", "dram_share")) * 1e3 if through_dram else 0.0
        high += max(work / slow * spread * 1e3, memory)
    return low, high


def npu_efficiency(layer: Layer) -> float:
    """Share of an accelerator's rate that a layer reaches: 1 from 128 channels on."""
    if layer.depthwise:
        return _number("npu", "depthwise")
    points = sorted((width, entry["value"]) for width, entry in tables()["model"]["npu"]["efficiency"].items())
    width = min(max(layer.narrow, points[0][0]), points[-1][0])
    for (a, at_a), (b, at_b) in zip(points, points[1:], strict=False):
        if width <= b:
            return math.exp(math.log(at_a) + math.log(at_b / at_a) * math.log(width / a) / math.log(b / a))
    return points[-1][1]


def npu_rate(soc: str) -> tuple[float, float]:
    """(low, high) operations per second of a chip's accelerator in wide int8 convolutions.

    Where a network's latency is published, both ends are what that network shows; else shares of what the maker claims.
    """
    entry = tables()["socs"][soc]
    if "npu_tops" in entry:
        return entry["npu_tops"]["value"] * 1e12, entry["npu_tops"]["value"] * 1e12
    if "npu_claimed_tops" not in entry:
        raise ZooError(f"nothing is published of the accelerator of {soc}")
    claimed = entry["npu_claimed_tops"]["value"] * 1e12
    return claimed * _number("npu", "claimed_share", "low"), claimed * _number("npu", "claimed_share", "high")


def cpu_ms(layers: Sequence[Layer], soc: str, threads: int) -> tuple[float, float]:
    """(low, high) milliseconds of one inference on the fastest cores of a chip."""
    dots, per_dot = sum(layer.dots for layer in layers), _number("cpu", "instructions_per_dot")
    alone = sum(layer.macs for layer in layers if layer.depthwise)
    outputs = sum(layer.outputs for layer in layers)
    ends = []
    for end in ("low", "high"):
        instructions = dots * per_dot + outputs * _number("cpu", "instructions_per_output", end)
        instructions += alone * _number("cpu", "depthwise_instructions", end)
        ends.append(instructions_ms(dots, instructions, soc, threads) * _number("cpu", "stalls", end))
    return ends[0], ends[1]


def instructions_ms(dots: float, instructions: float, soc: str, threads: int) -> float:
    """Least milliseconds that instructions take: limited by sdot units or by decoding, spread over the fastest cores.

    Args:
        dots: sdot instructions.
        instructions: all of them.
        soc: chip.
        threads: cores.
    """
    rate = 0.0  # inferences per second, summed over cores
    for core, ghz in _fastest(soc)[:threads]:
        cycles = max(dots / core["sdot"]["value"], instructions / core["width"]["value"])
        rate += ghz * 1e9 / cycles
    return 1e3 / rate


def _counted(spec: ModelSpec, folder: Path) -> tuple[float, float, str] | None:
    """sdot and all instructions per megapixel, and the record's path; None without a record of this architecture.

    Of both runtimes the one with more instructions counts.
    """
    found: list[tuple[float, float, str]] = []
    for file in sorted(folder.glob(f"{spec.name}-*-int8-{_COUNTED_CPU}.json")):
        record = json.loads(file.read_text())
        # A record of an earlier network of that name says nothing of this one.
        if abs(record["gmac_per_megapixel"] / spec.gmac_per_mp - 1) < 0.01:
            millions = record["millions_per_megapixel"]
            found.append((millions["dot"] * 1e6, millions["total"] * 1e6, str(file)))
    return max(found, key=lambda row: row[1], default=None)


def _check_words(soc: str, target: str) -> str:
    """What the comparison with held-out measurements found, see :func:`check_of`."""
    check = tables()["checks"][check_of(soc, target)]
    return (
        f"checked on {check['rows']} published measurements it was not fitted on ({check['about']}): {check['within']} lay in "
        f"their range, the middle was {check['least']} to {check['most']} times the measured time"
    )


def check_of(soc: str, unit: str) -> str:
    """Which row of ``checks`` in ``soc.yaml`` speaks of a chip's unit: ``cpu``, ``ane`` (Apple's) or ``npu``."""
    return "ane" if unit == "npu" and soc.startswith("apple-") else unit


def _fastest(soc: str) -> list[tuple[dict[str, Any], float]]:
    """Core and GHz of a chip's cores, as they are listed."""
    rows = tables()["socs"][soc]["cpu"]
    return [(tables()["cores"][row["core"]], row["ghz"]["value"]) for row in rows for _ in range(row["count"])]


def _known(soc: str, target: str) -> bool:
    entry = tables()["socs"][soc]
    return "cpu" in entry if target == "cpu" else bool({"npu_tops", "npu_claimed_tops"} & entry.keys())


def _rate_words(soc: str) -> str:
    slow, fast = npu_rate(soc)
    if slow == fast:
        return f"{fast / 1e12:.1f} TOPS in wide convolutions, which a published network reached"
    return f"{slow / 1e12:.1f} to {fast / 1e12:.1f} TOPS in wide convolutions, shares of what the maker claims"


def _bandwidth(soc: str) -> float:
    """Bytes per second; 0 where it is not known."""
    return float(tables()["socs"][soc].get("dram_gb_s", {"value": 0})["value"]) * 1e9


def _number(*keys: str) -> float:
    entry = tables()["model"]
    for key in keys:
        entry = entry[key]
    return float(entry["value"])


def _confidence(soc: str, target: str) -> str:
    """Of the weakest number about the chip that was used."""
    entry = tables()["socs"][soc]
    if target == "npu":
        return str(entry.get("npu_tops", {"confidence": "low"})["confidence"])
    used = [row["ghz"]["confidence"] for row in entry["cpu"]]
    used += [tables()["cores"][row["core"]]["sdot"]["confidence"] for row in entry["cpu"]]
    return next(level for level in ("low", "medium", "high") if level in used)


def _slowest(layers: Sequence[Layer], soc: str, target: str, threads: int) -> tuple[tuple[str, float], ...]:
    """The five slowest layers and their share of the sum, without the call."""
    call = _number("npu", "call_ms", "low") + _number("npu", "call_ms", "high") if target == "npu" else 0.0
    times = {
        layer.name: (sum(npu_ms([layer], soc)) if target == "npu" else sum(cpu_ms([layer], soc, threads))) - call
        for layer in layers
    }
    total = sum(times.values())
    ranked = sorted(times.items(), key=lambda item: -item[1])[:5]
    return tuple((name, round(time / total, 3)) for name, time in ranked)
