"""Which tensor costs how much: quantisation of single tensors switched on and off in the converted graph.

:class:`SwitchedNetwork` runs the PT2E graph that the exporters take and passes by any of its quantise/dequantise pairs. With
all pairs on it is that graph to the bit, with none the float network to the bit: weights are kept in float, and a layer whose
weight is float gets its bias back from before it was snapped to the accumulators' grid. :func:`sensitivity` then quantises one
tensor at a time, and all but one.

Errors are signal-to-quantisation-noise ratios in dB, ``10 log10(sum((y - mean)^2) / sum((y - y_q)^2))``, with the mean of each
channel taken out of the signal; at the network's output against its output in float. Of a model after QAT the float twin are
its fine-tuned weights, not the weights that it started from.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from quantize.integer import attribute, operator_name
from quantize.model import QuantizedModel

_CONVS = ("conv2d", "conv_transpose2d")


@dataclass(frozen=True)
class Tap:
    """One tensor that is quantised.

    Attributes:
        name: ``input``, a layer's parameter such as ``skip.weight``, or what computes an activation: the layer's path, or the
            operator and the layers that it joins (``add(up.0, encoder.1)``).
        kind: ``weight`` or ``activation``.
        layer: the convolution that it belongs to: as its weight, or as the result that it is followed by at once or after a
            ReLU; empty for the others.
        scale: largest step between two values that it can take.
    """

    name: str
    kind: str
    layer: str
    scale: float


class SwitchedNetwork:
    """A quantised model whose tensors are quantised one by one.

    Args:
        model: with calibrated ranges.

    Attributes:
        taps: all tensors that are quantised, in the graph's order.
    """

    def __init__(self, model: QuantizedModel) -> None:
        self._graph = model.graph(fold=False)
        self._biases = _unsnapped(self._graph, model)
        self._owner: dict[fx.Node, int] = {}  # quantise and dequantise nodes -> index of their tap
        self.taps: list[Tap] = []
        known: dict[fx.Node, int] = {}
        for node in self._graph.graph.nodes:
            name = str(node.target)
            if "dequantize_per" in name:
                self._owner[node] = self._owner[node.args[0]]
            elif "quantize_per" in name:
                source = _origin(node.args[0])
                if source not in known:  # a skip with two users is quantised twice, to the same values
                    known[source] = len(self.taps)
                    self.taps.append(self._tap(node, source))
                self._owner[node] = known[source]

    def _tap(self, node: fx.Node, source: fx.Node) -> Tap:
        scale = node.args[1]
        step = float(attribute(self._graph, scale).max()) if isinstance(scale, fx.Node) else float(scale)  # type: ignore[arg-type]
        if source.op == "get_attr":
            name = str(source.target)
            return Tap(name, "weight", name.rsplit(".", 1)[0], step)
        return Tap(describe(source), "activation", _layer_of(source), step)

    @torch.no_grad()
    def __call__(self, x: Tensor, on: Iterable[str] | None = None) -> Tensor:
        """Run it.

        Args:
            x: float32 ``[N, C, h, w]``.
            on: names of the taps that are quantised; None for all.
        """
        return self.trace(x, on)[0]

    @torch.no_grad()
    def trace(self, x: Tensor, on: Iterable[str] | None = None) -> tuple[Tensor, dict[str, float]]:
        """As a call; also the SQNR in dB of every tap that is on, between what goes into its quantiser and what comes out."""
        wanted = {t.name for t in self.taps} if on is None else set(on)
        unknown = wanted - {t.name for t in self.taps}
        if unknown:
            raise ValueError(f"no tensor {sorted(unknown)[0]!r} in this graph")
        active = [t.name in wanted for t in self.taps]
        values: dict[fx.Node, Any] = {}
        raw: dict[int, Tensor] = {}
        ratios: dict[str, float] = {}
        for node in self._graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "get_attr":
                values[node] = attribute(self._graph, node)
            elif node.op == "output":
                result = node.args[0]
                return values[result[0] if isinstance(result, tuple | list) else result], ratios
            elif node in self._owner and not active[self._owner[node]]:
                values[node] = values[node.args[0]]
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                if _is_conv(node) and node.args[1] in self._owner and not active[self._owner[node.args[1]]]:
                    args = (*args[:2], self._biases.get(node, args[2] if len(args) > 2 else None), *args[3:])
                values[node] = node.target(*args, **kwargs)
                if node in self._owner:
                    tap = self._owner[node]
                    if "dequantize" not in str(node.target):
                        raw.setdefault(tap, args[0])
                    elif self.taps[tap].name not in ratios:
                        ratios[self.taps[tap].name] = sqnr(raw[tap], values[node])
        raise AssertionError("graph without output")


def _is_conv(node: fx.Node) -> bool:
    return node.op == "call_function" and any(kind in str(node.target) for kind in _CONVS)


def _origin(node: Any) -> fx.Node:
    """What computes a tensor, seen through quantise/dequantise pairs before it."""
    while node.op == "call_function" and "quantize_per" in str(node.target):
        node = node.args[0]
    return node


def _layer_of(node: fx.Node) -> str:
    """The convolution that a node is, or that it is the ReLU of; empty for anything else."""
    while node.op == "call_function" and "relu" in str(node.target):
        node = _origin(node.args[0])
    return describe(node) if _is_conv(node) else ""


def describe(node: fx.Node) -> str:
    """What computes an activation: ``input``, a convolution's path, or an operator over such."""
    if node.op == "placeholder":
        return "input"
    if _is_conv(node):
        return str(_origin(node.args[1]).target).rsplit(".", 1)[0]
    parts = [describe(_origin(a)) for a in node.all_input_nodes]
    return f"{operator_name(node)}({', '.join(parts)})"


def _unsnapped(graph: fx.GraphModule, model: QuantizedModel) -> dict[fx.Node, Tensor]:
    """Biases as they were before :func:`quantize.model.snap_biases`, by convolution."""
    before = dict(model.prepared.named_parameters())
    found = {}
    for node in graph.graph.nodes:
        if _is_conv(node) and len(node.args) > 2 and node.args[2] is not None:
            found[node] = before[str(node.args[2].target)].detach()
    return found


def sqnr(want: Tensor, got: Tensor) -> float:
    """Signal-to-quantisation-noise ratio in dB; infinite where equal. The signal is taken without its mean per channel."""
    noise = float((want.double() - got.double()).square().sum())
    axes = (0, 2, 3) if want.dim() == 4 else tuple(range(want.dim()))
    signal = float((want.double() - want.double().mean(axes, keepdim=True)).square().sum())
    return 10 * math.log10(signal / noise) if noise and signal else math.inf


@dataclass(frozen=True)
class Cost:
    """What one tensor, or a layer's weight and result together, costs; dB are means over the inputs.

    Attributes:
        name, kind: of the tap; ``layer`` for a convolution's weight and result.
        own_db: SQNR of the tensor itself where only it is quantised (the worse of the two for a layer).
        alone_db: SQNR at the output while it alone is quantised.
        cost_db: what the output's SQNR gains if it alone is left in float. Below zero where its error makes up for others'.
        cost_db_of: the same per input.
        picture_db: what the picture's PSNR gains if it alone is left in float; None where no truth is known.
    """

    name: str
    kind: str
    own_db: float
    alone_db: float
    cost_db: float
    cost_db_of: dict[str, float]
    picture_db: float | None


@dataclass(frozen=True)
class Report:
    """Costs over one set of inputs.

    Attributes:
        total_db, total_db_of: SQNR of the output with everything quantised, mean and per input.
        picture_db, float_picture_db: PSNR of the picture quantised and in float; None where no truth is known.
        costs: the dearest first, by ``picture_db`` where that is known, else by ``cost_db``.
    """

    total_db: float
    total_db_of: dict[str, float]
    picture_db: float | None
    float_picture_db: float | None
    costs: list[Cost]


def sensitivity(
    network: SwitchedNetwork,
    inputs: dict[str, Tensor],
    psnr: Callable[[str, Tensor], float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Quantise one tensor at a time, one layer at a time, and all but it.

    Args:
        network: to look at.
        inputs: by name (noise level), float32 ``[N, C, h, w]``; real or synthetic raws, never random tensors.
        psnr: PSNR in dB of the picture that an input's name and an output make.
        progress: called with (done, total).
    """
    everything = {t.name for t in network.taps}
    floats = {name: network(x, ()) for name, x in inputs.items()}
    groups = [(t.name, t.kind, {t.name}) for t in network.taps]
    for layer in dict.fromkeys(t.layer for t in network.taps if t.layer):
        groups.append((layer, "layer", {t.name for t in network.taps if t.layer == layer}))

    def measure(on: set[str]) -> tuple[dict[str, float], float | None]:
        outputs = {name: network(x, on) for name, x in inputs.items()}
        ratios = {name: sqnr(floats[name], y) for name, y in outputs.items()}
        return ratios, _mean(psnr(name, y) for name, y in outputs.items()) if psnr else None

    totals, picture = measure(everything)
    own: dict[str, float] = {}
    costs = []
    for done, (name, kind, members) in enumerate(groups):
        if kind != "layer":
            own[name] = _mean(network.trace(x, members)[1][name] for x in inputs.values())
        alone, _ = measure(members)
        without, without_picture = measure(everything - members)
        gains = {level: without[level] - totals[level] for level in inputs}
        gain = None if without_picture is None or picture is None else without_picture - picture
        worst = min(own[m] for m in members)
        costs.append(Cost(name, kind, worst, _mean(alone.values()), _mean(gains.values()), gains, gain))
        if progress is not None:
            progress(done + 1, len(groups))
    costs.sort(key=lambda c: -(c.cost_db if c.picture_db is None else c.picture_db))
    best = _mean(psnr(name, y) for name, y in floats.items()) if psnr else None
    return Report(_mean(totals.values()), totals, picture, best, costs)


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)
